"""Results as learning curves, and the area under each."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.runner import Row

__all__ = ["Curve", "areas", "curves", "oracles", "shown_names"]


class Curve(NamedTuple):
    """One strategy over its seeds."""

    num_labeled: np.ndarray  # [r] int
    values: np.ndarray  # [s, r], one row a seed


def curves(rows: Sequence[Row], field: str = "accuracy") -> dict[str, Curve]:
    """Gather a field of the results by strategy, in the order they came.

    Rounds where the field is None are left out.
    """
    found: dict[str, Curve] = {}
    for name in dict.fromkeys(row.strategy for row in rows):
        own = [row for row in rows if row.strategy == name and getattr(row, field) is not None]
        seeds, counts = (sorted({getattr(r, f) for r in own}) for f in ("seed", "num_labeled"))
        values = {(row.seed, row.num_labeled): getattr(row, field) for row in own}
        if own:
            whole = [[values[seed, count] for count in counts] for seed in seeds]
            found[name] = Curve(np.array(counts), np.array(whole, np.float64))
    return found


def areas(curve: Curve) -> np.ndarray:
    """Compute the area under each seed's curve over the logarithm of the labels.

    It is the mean height of the curve, drawn straight between rounds over a logarithmic axis: the
    trapezoids' area over log10(labels), divided by the axis' length. A doubling of the labels
    counts alike wherever it is. With one round it is that round's value.

    Returns:
      ``[s]`` float64, in the values' unit.
    """
    if len(curve.num_labeled) == 1:
        return curve.values[:, 0]
    steps = np.diff(np.log10(curve.num_labeled))
    middles = (curve.values[:, 1:] + curve.values[:, :-1]) / 2
    return middles @ steps / steps.sum()


def oracles(rows: Iterable[Row]) -> frozenset[str]:
    """Name the strategies that saw labels nobody paid for."""
    return frozenset(row.strategy for row in rows if row.oracle)


def shown_names(rows: Sequence[Row]) -> dict[str, str]:
    """Map each strategy to what tables and figures call it: an oracle is marked."""
    return {row.strategy: row.strategy + " (oracle)" * row.oracle for row in rows}
