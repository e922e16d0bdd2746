"""Figures of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curves import Curve, curves, shown_names
from benchmarks.figures import COLOURS, EMPHASISED, line_style, name_lines, pyplot
from benchmarks.runner import Row

__all__ = ["plot_curves", "plot_risk"]


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
