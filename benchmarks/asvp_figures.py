"""Figures of the command asvp."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.figures import COLOURS, pyplot
from jaxal.costs import Cost

if TYPE_CHECKING:
    from benchmarks.asvp_report import Curve

__all__ = ["draw_costs", "draw_curves", "draw_scores"]

_LINES = ("-", "--", "-.", ":")


def draw_curves(
    curves: "Mapping[tuple[str, str], Curve]", strategies: Sequence[str], path: Path, title: str
) -> None:
    """Draw accuracy over labels, a panel a strategy, with bands of one standard deviation."""
    plt = pyplot()
    figure, panels = _panels(plt, len(strategies))
    for axes, strategy in zip(panels, strategies, strict=True):
        own = [(p, c) for (p, name), c in curves.items() if name in (strategy, "random")]
        for (pipeline, curve), style in zip(own, _styles([p for p, _ in own]), strict=True):
            values = 100 * curve.accuracies
            mean = values.mean(0)
            axes.plot(curve.num_labeled, mean, marker=".", label=pipeline, **style)
            if len(values) > 1:
                band = values.std(0, ddof=1)
                axes.fill_between(
                    curve.num_labeled, mean - band, mean + band, color=style["color"], alpha=0.12
                )
        axes.set_title(strategy)
        _finish(axes, "labels", "test accuracy (%)")
        axes.legend(frameon=False)
    _save(plt, figure, path, title)


def draw_costs(costs: Mapping[str, Mapping[str, Cost]], path: Path, title: str) -> None:
    """Draw labels against selection at equal accuracy, a panel a strategy, as the paper does.

    Lines join equal sums; the final training, which all ways pay alike, is left out.
    """
    plt = pyplot()
    figure, panels = _panels(plt, len(costs))
    for axes, (strategy, own) in zip(panels, costs.items(), strict=True):
        for (name, cost), style in zip(own.items(), _styles(list(own)), strict=True):
            axes.plot(cost.labels, cost.selection, "o", color=style["color"], markersize=8)
            axes.annotate(
                f"{name}: ${cost.labels + cost.selection:.2f}",
                (cost.labels, cost.selection),
                textcoords="offset points",
                xytext=(8, 6),
                color=style["color"],
            )
        axes.margins(x=0.4, y=0.25)
        axes.set_ylim(bottom=0)
        low, high = axes.get_xlim()
        for total in np.linspace(low, high + axes.get_ylim()[1], 8):
            axes.axline((total, 0), slope=-1, color="#DDDDDD", linewidth=0.8, zorder=0)
        axes.set_xlim(low, high)
        axes.set_title(strategy)
        _finish(axes, "labels ($)", "selection ($)", grid=False)
    _save(plt, figure, path, f"{title}: labels and selection, lines of equal sum")


def draw_scores(scores: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw the scores of asvp's features over labels, seed 0, with each refresh marked."""
    plt = pyplot()
    first = [s for s in scores if s["seed"] == min(s["seed"] for s in scores)]
    names = list(dict.fromkeys((s["pipeline"], s["strategy"]) for s in first))
    figure, panels = _panels(plt, len(names))
    for axes, name in zip(panels, names, strict=True):
        own = [s for s in first if (s["pipeline"], s["strategy"]) == name]
        for version in dict.fromkeys(s["version"] for s in own):
            of = [s for s in own if s["version"] == version]
            counts = [s["num_labeled"] for s in of]
            for field, line, label in (
                ("logme", "--", "LogME"),
                ("ped_logme", "-", "LogME, classes moved"),
            ):
                axes.plot(
                    counts,
                    [s[field] for s in of],
                    line,
                    marker=".",
                    color=COLOURS[version % len(COLOURS)],
                    label=f"{label}, {'pre-trained' if version == 0 else f'refresh {version}'}",
                )
            if version:
                axes.axvline(counts[0], color="#BBBBBB", linewidth=0.8)
        axes.set_title(" ".join(name))
        _finish(axes, "labels", "evidence (nats a sample)")
        axes.legend(frameon=False, fontsize=8)
    _save(plt, figure, path, title)


def _panels(plt: Any, count: int) -> tuple[Any, list[Any]]:
    columns = min(count, 3)
    lines = -(-count // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(5.2 * columns, 4 * lines), layout="constrained", squeeze=False
    )
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    return figure, list(panels.flat[:count])


def _styles(names: Sequence[str]) -> list[dict[str, Any]]:
    rest = [name for name in names if name != "random"]
    return [
        {"color": "#999999", "linestyle": ":"}
        if name == "random"
        else {
            "color": COLOURS[rest.index(name) % (len(COLOURS) - 1)],
            "linestyle": _LINES[rest.index(name) // (len(COLOURS) - 1) % len(_LINES)],
        }
        for name in names
    ]


def _finish(axes: Any, x: str, y: str, *, grid: bool = True) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if grid:
        axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _save(plt: Any, figure: Any, path: Path, title: str) -> None:
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)
