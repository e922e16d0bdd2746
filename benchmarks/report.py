"""Tables of results."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.runner import Row

__all__ = [
    "PUBLISHED",
    "Curve",
    "curves",
    "table",
    "timing_table",
    "write_csv",
]

# Accuracies in percent that a paper gives, as {data set: {name of the row: {labels: accuracy}}};
# they become rows of the table. Empty, as NTKCPL's published figures are of encoders that are not
# here.
PUBLISHED: dict[str, dict[str, dict[int, float]]] = {}


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


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Return mean and sample standard deviation, NaN for a single value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), deviation


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write one line a row; an empty cell stands for None."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def table(rows: Sequence[Row], dataset: str) -> str:
    """Tabulate test accuracy in percent, mean ± sample standard deviation over seeds.

    Args:
      rows: results.
      dataset: whose published figures are added, if any.

    Returns:
      Markdown: a line a strategy, a column a number of labels and their average; the best mean of
      each column bold.
    """
    found = curves(rows)
    counts = next(iter(found.values())).num_labeled
    names = list(found)
    values = [np.column_stack([c.values, c.values.mean(axis=1)]).T * 100 for c in found.values()]
    means = np.array([[np.mean(column) for column in columns] for columns in values])
    best = np.round(means, 1).max(axis=0)
    lines = [["strategy", *map(str, counts), "average"]]
    for name, columns, own in zip(names, values, means, strict=True):
        cells = [_cell(*_spread(column)) for column in columns]
        bold = [
            f"**{c}**" if round(m, 1) == b else c for c, m, b in zip(cells, own, best, strict=True)
        ]
        lines.append([name, *bold])
    for name, known in PUBLISHED.get(dataset, {}).items():
        cells = [f"{known[n]:.1f}" if n in known else "" for n in counts.tolist()]
        lines.append([f"{name} (published)", *cells, ""])
    return _markdown(lines)


def timing_table(rows: Sequence[Row]) -> str:
    """Tabulate seconds a round: selection's median and maximum, training's median.

    They are over all rounds and seeds. The first run of a strategy includes its compilation.
    """
    selection, training = curves(rows, "selection_seconds"), curves(rows, "training_seconds")
    lines = [["seconds a round", "selection, median", "selection, most", "head, median"]]
    for name, curve in selection.items():
        cells = np.median(curve.values), curve.values.max(), np.median(training[name].values)
        lines.append([name, *(f"{cell:.3f}" for cell in cells)])
    return _markdown(lines)


def _cell(mean: float, deviation: float) -> str:
    return f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f}"


def _markdown(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in cells]
        for cells in (list(enumerate(zip(line, widths, strict=True))) for line in lines)
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])
