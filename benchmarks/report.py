"""Tables and figures of results."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.figures import COLOURS, EMPHASISED, line_style, name_lines, pyplot
from benchmarks.runner import Row

__all__ = [
    "PUBLISHED",
    "Curve",
    "curves",
    "plot_curves",
    "plot_risk",
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


def plot_curves(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw accuracy over labels, with bands of one standard deviation over seeds."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    found = {
        name: curve._replace(values=100 * curve.values) for name, curve in curves(rows).items()
    }
    # The emphasised one last, so that it lies on top.
    for name in sorted(found, key=lambda name: name == "ntkcpl"):
        _draw(axes, found[name], line_style(name, list(found)))
    _finish(axes, next(iter(found.values())).num_labeled, "test accuracy (%)", title)
    _label_ends(axes, {n: (c, line_style(n, list(found))["color"]) for n, c in found.items()})
    figure.savefig(path, dpi=160)
    plt.close(figure)


def plot_risk(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw NTKCPL's estimated risk beside the true error of the trained head on the pool.

    The estimate counts misses of cluster pseudo-labels. A miss within one class is no error of the
    head, so the estimate may well lie above it where there are more clusters than classes.
    """
    estimated = curves(rows, "estimated_risk").get("ntkcpl")
    if estimated is None:
        return
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    true = curves(rows, "pool_accuracy")["ntkcpl"]
    lines = {
        "estimated risk": (Curve(estimated.num_labeled, 100 * estimated.values), EMPHASISED),
        "true error": (Curve(true.num_labeled, 100 - 100 * true.values), COLOURS[0]),
    }
    for curve, colour in lines.values():
        _draw(axes, curve, {"color": colour, "linewidth": 2, "linestyle": "-", "marker": "o"})
    heading = f"{title}\nNTKCPL: clusters missed by the estimate, classes missed by the head"
    _finish(axes, true.num_labeled, "share of the pool (%)", heading)
    axes.set_ylim(bottom=0)
    _label_ends(axes, lines)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _draw(axes: Any, curve: Curve, style: Mapping[str, Any]) -> None:
    mean = curve.values.mean(axis=0)
    axes.plot(curve.num_labeled, mean, markersize=4, **style)
    if len(curve.values) > 1:
        band = curve.values.std(axis=0, ddof=1)
        axes.fill_between(
            curve.num_labeled, mean - band, mean + band, color=style["color"], alpha=0.12, lw=0
        )


def _label_ends(axes: Any, found: Mapping[str, tuple[Curve, str]]) -> None:
    ends = {
        name: (float(curve.num_labeled[-1]), float(curve.values[:, -1].mean()), colour)
        for name, (curve, colour) in found.items()
    }
    name_lines(axes, ends)


def _finish(axes: Any, counts: np.ndarray, label: str, title: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("labels")
    axes.set_ylabel(label)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
