"""Figures of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curves import Curve, curves, shown_names
from benchmarks.figures import COLOURS, EMPHASISED, line_style, name_lines, pyplot
from benchmarks.runner import Row

__all__ = ["plot_curves", "plot_field", "plot_risk", "plot_wins"]

_NUM_EMPHASISED = 3  # rivals drawn thick, beside ntkcpl and random
# Paul Tol's muted colours, for thin lines beside thick ones of `COLOURS`.
_MUTED = "#332288 #88CCEE #44AA99 #117733 #999933 #DDCC77 #CC6677 #882255 #AA4499".split()
_DASHES = ("-", "--", "-.")  # dots are for oracles


def plot_curves(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw accuracy over labels, with bands of one standard deviation over seeds."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    shown = shown_names(rows)
    found = {
        shown[name]: curve._replace(values=100 * curve.values)
        for name, curve in curves(rows).items()
    }
    # The emphasised one last, so that it lies on top.
    for name in sorted(found, key=lambda name: name == "ntkcpl"):
        _draw(axes, found[name], line_style(name, list(found)))
    _finish(axes, next(iter(found.values())).num_labeled, "test accuracy (%)", title)
    _label_ends(axes, {n: (c, line_style(n, list(found))["color"]) for n, c in found.items()})
    figure.savefig(path, dpi=160)
    plt.close(figure)


def plot_field(rows: Sequence[Row], order: Sequence[str], path: Path, title: str) -> None:
    """Draw many strategies: accuracy over labels, and beside it how far it is above random's.

    ntkcpl, random and the best rivals are drawn thick, with bands of one standard deviation over
    seeds at the left, oracles dotted; the names of all stand at the right.

    Args:
      rows: results, those of random among them.
      order: the strategies that are no oracle, best first.
      path: where to write the figure.
      title: of the figure.
    """
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(14, 7), layout="constrained")
    shown, found = shown_names(rows), curves(rows)
    styles = _field_styles(list(found), order)
    random = found["random"].values
    # Thick lines last, so that they lie on top.
    for name in sorted(found, key=lambda name: styles[name]["linewidth"]):
        curve = found[name]
        accuracy = curve._replace(values=100 * curve.values)
        _draw(panels[0], accuracy, styles[name], band=styles[name]["linewidth"] > 1)
        above = curve._replace(values=100 * (curve.values - random))
        _draw(panels[1], above, styles[name], band=False)
    counts = found["random"].num_labeled
    _finish(panels[0], counts, "test accuracy (%)", title)
    _finish(panels[1], counts, "points above random", "")
    ends = {
        shown[name]: (
            float(counts[-1]),
            100 * float((curve.values - random)[:, -1].mean()),
            str(styles[name]["color"]),
        )
        for name, curve in found.items()
    }
    name_lines(panels[1], ends, gap=0.04, margin=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _field_styles(names: Sequence[str], order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Choose how each line of many looks: few thick and of plain colours, the others thin."""
    best = [name for name in order if name not in ("ntkcpl", "random")][:_NUM_EMPHASISED]
    thick = {"linestyle": "-", "marker": "o", "linewidth": 2.0, "zorder": 4}
    thin = {"marker": ".", "linewidth": 1.0}
    styles = {name: {**thick, "color": COLOURS[i]} for i, name in enumerate(best)}
    styles["ntkcpl"] = line_style("ntkcpl", names)
    styles["random"] = {**thick, "color": "#000000", "linestyle": "--"}
    for i, name in enumerate(name for name in order if name not in styles):
        dashes = _DASHES[(i // len(_MUTED) + i) % len(_DASHES)]
        styles[name] = {**thin, "color": _MUTED[i % len(_MUTED)], "linestyle": dashes}
    oracle = {**thin, "color": "#777777", "linestyle": ":"}
    return {name: styles.get(name, oracle) for name in names}


def plot_wins(
    names: Sequence[str], wins: np.ndarray, num_rounds: int, path: Path, title: str
) -> None:
    """Draw a matrix of rounds won, row against column.

    Args:
      names: of rows and columns.
      wins: ``[k, k]`` int, rounds that the row wins.
      num_rounds: the most it can win.
      path: where to write the figure.
      title: of the figure.
    """
    plt = pyplot()
    size = 2.5 + 0.45 * len(names)
    figure, axes = plt.subplots(figsize=(size + 1, size), layout="constrained")
    image = axes.imshow(wins, cmap="Blues", vmin=0, vmax=num_rounds)
    for i, row in enumerate(wins.tolist()):
        for j, count in enumerate(row):
            colour = "white" if count > 0.6 * num_rounds else "black"
            if i != j:
                axes.text(j, i, count, ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(names))
    axes.set_yticks(ticks, names)
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11)
    bar = figure.colorbar(image, ax=axes, label=f"rounds won, of {num_rounds}", shrink=0.7)
    bar.locator = plt.MaxNLocator(integer=True)
    figure.savefig(path, dpi=130, bbox_inches="tight")  # a title may be wider than the matrix
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


def _draw(axes: Any, curve: Curve, style: Mapping[str, Any], *, band: bool = True) -> None:
    mean = curve.values.mean(axis=0)
    axes.plot(curve.num_labeled, mean, markersize=4, **style)
    if band and len(curve.values) > 1:
        width = curve.values.std(axis=0, ddof=1)
        axes.fill_between(
            curve.num_labeled, mean - width, mean + width, color=style["color"], alpha=0.12, lw=0
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
