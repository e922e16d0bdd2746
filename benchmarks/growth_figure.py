"""The figure of the growth benchmark."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.figures import line_style, name_lines, pyplot
from benchmarks.growth import Point

__all__ = ["draw"]

_PANELS = {"seconds": "seconds a selection", "peak_gib": "peak memory of the process (GiB)"}

_FEW_DECADES = 20.0  # highest to lowest value


def draw(points: Iterable[Point], path: Path) -> None:
    """Draw time and peak memory over pool size, both axes logarithmic.

    Args:
      points: of one command's settings; those without a time are left out.
      path: the PNG to write.
    """
    done = sorted((p for p in points if p.status == "ok"), key=lambda point: point.pool)
    names = list(dict.fromkeys(point.strategy for point in done))
    if not names:
        return
    plt = pyplot()
    height = max(5.0, 1.5 + 0.28 * len(names))
    figure, panels = plt.subplots(1, 2, figsize=(14, height), layout="constrained")
    for axes, (field, label) in zip(panels, _PANELS.items(), strict=True):
        _panel(axes, done, names, field)
        axes.set_xlabel("rows of the pool")
        axes.set_title(label, loc="left", fontsize=11)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _panel(axes: Any, points: list[Point], names: list[str], field: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = {}
    for name in names:
        own = [(p.pool, getattr(p, field)) for p in points if p.strategy == name]
        style = line_style(name, names)
        axes.plot(*zip(*own, strict=True), markersize=4, **style)
        ends[name] = (float(own[-1][0]), float(own[-1][1]), str(style["color"]))
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.autoscale_view()
    _write_numbers_out(axes.yaxis)
    name_lines(axes, ends, gap=max(0.03, 0.9 / (3 * len(names))), margin=True)


def _write_numbers_out(axis: Any) -> None:
    """Label a logarithmic axis with numbers such as 0.6, not powers; between decades if few."""
    from matplotlib.ticker import FuncFormatter

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(plain)
    low, high = axis.get_view_interval()
    if high < _FEW_DECADES * low:
        axis.set_minor_formatter(plain)
