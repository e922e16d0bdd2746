"""Figures of trainings and of features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import COLOURS, pyplot

__all__ = ["draw_accuracies", "draw_history", "draw_map"]

_MOST_NAMES = 20  # classes that a legend lists


def draw_history(history: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw the loss over the epochs and, beside it, all that is between 0 and 1.

    Args:
      history: one record an epoch; a number may be missing in some.
      path: the PNG to write.
      title: of the figure.
    """
    plt = pyplot()
    names = dict.fromkeys(name for record in history for name in record)
    losses = [name for name in names if name.endswith("loss")]
    shares = [name for name in names if name.endswith("accuracy") or name == "spread"]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axes, shown in zip(panels, (losses, shares), strict=True):
        for i, name in enumerate(shown):
            points = [(r["epoch"] + 1, r[name]) for r in history if r.get(name) is not None]
            axes.plot(*zip(*points, strict=True), color=COLOURS[i], marker=".", label=_read(name))
        axes.set_xlabel("epochs")
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if shown:
            axes.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _read(name: str) -> str:
    return name.replace("_", " ").replace("knn", "k-NN")


def draw_map(
    features: np.ndarray,
    labels: np.ndarray | None,
    path: Path,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draw features in the plane by t-SNE, coloured by class where classes are known.

    Args:
      features: ``[n, d]``, some thousand rows at the most.
      labels: ``[n]``, or None.
      path: the PNG to write.
      class_names: for the legend.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    plt = pyplot()
    x = np.asarray(features, np.float64)
    x = PCA(min(50, *x.shape), random_state=0).fit_transform(x)
    perplexity = min(30.0, (len(x) - 1) / 3)
    found = TSNE(random_state=0, init="pca", perplexity=perplexity).fit_transform(x)
    figure, axes = plt.subplots(figsize=(6.5, 5.5), layout="constrained")
    if labels is None:
        axes.scatter(*found.T, s=6, color=COLOURS[0])
    else:
        classes = np.unique(labels)
        colours = plt.get_cmap("tab10" if len(classes) <= 10 else "turbo")
        for i, label in enumerate(classes):
            own = found[labels == label]
            name = class_names[label] if class_names else str(label)
            shade = colours(i / max(len(classes) - 1, 1)) if len(classes) > 10 else colours(i)
            axes.scatter(*own.T, s=6, color=shade, label=name)
        if len(classes) <= _MOST_NAMES:
            axes.legend(frameon=False, bbox_to_anchor=(1, 0.5), loc="center left", markerscale=2)
    axes.set_title(f"t-SNE of {x.shape[0]} images' features", loc="left", fontsize=11)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.savefig(path, dpi=160)
    plt.close(figure)


def draw_accuracies(values: Mapping[str, Mapping[int, np.ndarray]], path: Path, title: str) -> None:
    """Draw accuracy over the number of labels, a line a method, and sample standard deviations.

    Args:
      values: of each method, by number of labels, the accuracies ``[seeds]`` in 0..1.
      path: the PNG to write.
      title: of the figure.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for i, (name, points) in enumerate(values.items()):
        counts = sorted(points)
        means = np.array([100 * np.mean(points[count]) for count in counts])
        spread = np.array([_deviation(100 * points[count]) for count in counts])
        axes.plot(counts, means, marker="o", color=COLOURS[i], label=name)
        axes.fill_between(counts, means - spread, means + spread, color=COLOURS[i], alpha=0.15)
    axes.set_xscale("log")
    axes.set_xlabel("labels")
    axes.set_ylabel("test accuracy in percent")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _deviation(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
