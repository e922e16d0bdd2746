"""Tables of results."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from benchmarks.curves import areas, curves, oracles, shown_names
from benchmarks.runner import Row
from benchmarks.tables import markdown

__all__ = ["cell", "spread", "table", "timing_table"]


def table(rows: Sequence[Row], *, last: Literal["average", "AUC"] = "average") -> str:
    """Tabulate test accuracy in percent, mean ± sample standard deviation over seeds.

    Args:
      rows: results.
      last: what the last column holds, the average of the others or `areas`.

    Returns:
      Markdown: a line a strategy, a column a number of labels and the last; the best mean of each
      column bold, oracles apart.
    """
    found, shown = curves(rows), shown_names(rows)
    counts = next(iter(found.values())).num_labeled
    ends = [areas(c) if last == "AUC" else c.values.mean(axis=1) for c in found.values()]
    values = [
        100 * np.column_stack([c.values, end]).T
        for c, end in zip(found.values(), ends, strict=True)
    ]
    means = np.round([[np.mean(column) for column in columns] for columns in values], 1)
    rivals = np.array([name not in oracles(rows) for name in found])
    best = means[rivals].max(axis=0, initial=-1)
    lines = [["strategy", *map(str, counts), last]]
    for name, columns, own, rival in zip(found, values, means, rivals, strict=True):
        bold = rival & (own == best)
        cells = [cell(*spread(x), bold=b) for x, b in zip(columns, bold, strict=True)]
        lines.append([shown[name], *cells])
    return markdown(lines)


def timing_table(rows: Sequence[Row]) -> str:
    """Tabulate seconds a round: selection's median and maximum, training's median.

    They are over all rounds and seeds. The first run of a strategy includes its compilation.
    """
    selection, training = curves(rows, "selection_seconds"), curves(rows, "training_seconds")
    shown = shown_names(rows)
    lines = [["seconds a round", "selection, median", "selection, most", "head, median"]]
    for name, curve in selection.items():
        cells = np.median(curve.values), curve.values.max(), np.median(training[name].values)
        lines.append([shown[name], *(f"{cell:.3f}" for cell in cells)])
    return markdown(lines)


def spread(values: np.ndarray) -> tuple[float, float]:
    """Return mean and sample standard deviation, NaN for a single value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), deviation


def cell(mean: float, deviation: float, *, bold: bool = False) -> str:
    """Write a mean with its deviation, where there is one."""
    text = f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f}"
    return f"**{text}**" if bold else text
