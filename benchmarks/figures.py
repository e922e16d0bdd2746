"""What all figures share: colours that any eye tells apart, lines, names at the ends of lines."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import INSTALL

__all__ = ["COLOURS", "EMPHASISED", "line_style", "name_lines", "part", "pyplot"]

# Okabe and Ito's colours, told apart with any colour vision; the first is kept for NTKCPL.
EMPHASISED = "#D55E00"
COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
_LINES = ("-", "--", "-.", ":")


def pyplot() -> Any:
    """Import pyplot, drawing into files.

    Raises:
      ImportError: matplotlib is not installed; says how to install it.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(f"figures need matplotlib: {INSTALL}") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def line_style(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Choose how a strategy's line looks among those of ``names``."""
    if name == "ntkcpl":
        return {
            "color": EMPHASISED,
            "linewidth": 2.8,
            "linestyle": "-",
            "marker": "o",
            "zorder": 5,
        }
    i = [other for other in names if other != "ntkcpl"].index(name)
    # Seven colours and four lines pair off in 28 ways.
    line = _LINES[i % len(_LINES)]
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linewidth": 1.4,
        "linestyle": line,
        "marker": ".",
    }


def part(heights: np.ndarray, gap: float) -> np.ndarray:
    """Move rising heights apart within 0..1, neighbours at least ``gap`` from one another.

    Of all such heights these are nearest to the given ones in least squares. Where there is no room
    for that gap they stand evenly.
    """
    gap = min(gap, 1 / max(len(heights) - 1, 1))
    offsets = gap * np.arange(len(heights))
    # Blocks of equal shift, pooled from below.
    blocks: list[list[float]] = []
    for value in heights - offsets:
        blocks.append([float(value)])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    shifts = np.concatenate([[np.mean(block)] * len(block) for block in blocks])
    return np.clip(shifts, 0, 1 - offsets[-1]) + offsets


def name_lines(
    axes: Any,
    ends: dict[str, tuple[float, float, str]],
    *,
    gap: float = 0.05,
    margin: bool = False,
) -> None:
    """Write each name beside the end of its line, parted where lines end close to one another.

    Args:
      axes: linear or logarithmic, with their final limits.
      ends: where each line ends, and its colour.
      gap: least distance between two names, as a share of the height.
      margin: write all names right of the axes, a thin line leading to each.
    """
    axes.autoscale_view()  # transforms know the limits only then
    places = {
        name: axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        for name, (x, y, _) in ends.items()
    }
    order = sorted(places, key=lambda name: float(places[name][1]))
    heights = part(np.array([places[name][1] for name in order]), gap)
    for name, height in zip(order, heights, strict=True):
        x, y = places[name]
        leader = {
            "arrowstyle": "-",
            "color": ends[name][2],
            "linewidth": 0.5,
            "relpos": (0, 0.5),
            "shrinkB": 3,
        }
        axes.annotate(
            name,
            (x, y),
            xycoords="axes fraction",
            xytext=(1.02 if margin else x + 0.012, height),
            textcoords="axes fraction",
            arrowprops=leader if margin else None,
            color=ends[name][2],
            va="center",
            fontweight="bold" if name == "ntkcpl" else "normal",
            annotation_clip=False,
        )
