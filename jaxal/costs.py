"""What labels and computing cost, and how many labels a curve saves (after arXiv 2403.01101).

A way of working is charged for its labels, and for the device while it selects. The paper counts no
more; the device while the final model is trained, which all ways pay alike, is counted here too.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_number

__all__ = [
    "DEFAULT_PRICES",
    "Cost",
    "Prices",
    "cost_of",
    "labels_to_reach",
    "predict_seconds",
    "sample_saving_ratio",
]


class Prices(NamedTuple):
    """Prices in dollars."""

    label: float  # of one label
    device_hour: float  # of a device for an hour


# Ours: two votes on a class at some 6 cents each. The paper's: a GPU hour at $3.
DEFAULT_PRICES = Prices(label=0.12, device_hour=3.0)


class Cost(NamedTuple):
    """What a way of working costs."""

    labels: float  # dollars
    selection: float  # dollars, for the device's time between labels (the paper: training cost)
    training: float  # dollars, for that of the final model
    total: float  # dollars
    selection_hours: float  # by the clock, on all devices at once


def cost_of(
    num_labels: int,
    selection_seconds: float,
    training_seconds: float,
    *,
    prices: Prices = DEFAULT_PRICES,
    num_devices: int = 1,
) -> Cost:
    """Add up labels and device hours.

    Args:
      num_labels: how many were paid for.
      selection_seconds: on the device, between labels: proxies, refreshed features, fine-tuning
        that serves selection.
      training_seconds: on the device, for the final model.
      prices: of a label and of a device's hour.
      num_devices: how many were busy all that time.

    Returns:
      The cost.

    Raises:
      ValueError: a number below 0 or not finite.
    """
    for name, value in (
        ("num_labels", num_labels),
        ("selection_seconds", selection_seconds),
        ("training_seconds", training_seconds),
        ("prices.label", prices.label),
        ("prices.device_hour", prices.device_hour),
        ("num_devices", num_devices),
    ):
        check_number(value, name, least=0)
    labels = num_labels * prices.label
    second = num_devices * prices.device_hour / 3600
    selection, training = selection_seconds * second, training_seconds * second
    return Cost(
        labels, selection, training, labels + selection + training, selection_seconds / 3600
    )


def predict_seconds(flops: float, rate: float, *, share: float = 0.4) -> float:
    """Plan how long a computation takes.

    Args:
      flops: its floating-point operations.
      rate: the device's, a second.
      share: of the rate that such computations reach.

    Returns:
      Seconds.

    Raises:
      ValueError: a rate or share that is not above 0.
    """
    check_number(flops, "flops", least=0)
    check_number(rate, "rate", least=0, above=True)
    check_number(share, "share", least=0, above=True)
    return flops / (rate * share)


def labels_to_reach(num_labels: ArrayLike, accuracies: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Read off a curve how many labels an accuracy takes, by interpolation.

    Where a curve crosses it more than once, the first time counts.

    Args:
      num_labels: ``[r]``, rising.
      accuracies: ``[r]`` with so many.
      target: accuracies ``[...]``.

    Returns:
      ``[...]`` float64; NaN above the curve, and the first number of labels at or below its start.

    Raises:
      ValueError: curves that do not fit, or numbers of labels that do not rise.
    """
    counts, heights = _check_curve(num_labels, accuracies, "num_labels")
    wanted = np.asarray(target, np.float64)
    reached = heights >= wanted[..., None]
    after = reached.argmax(axis=-1)
    before = np.maximum(after - 1, 0)
    rise = np.where(after > 0, heights[after] - heights[before], 1)
    share = np.where(after > 0, (wanted - heights[before]) / rise, 0)
    found = counts[before] + share * (counts[after] - counts[before])
    return np.where(reached.any(axis=-1), found, np.nan)


def sample_saving_ratio(
    num_labels: ArrayLike,
    accuracies: ArrayLike,
    random_labels: ArrayLike,
    random_accuracies: ArrayLike,
    *,
    num_points: int = 101,
) -> float:
    """Measure which share of random selection's labels a strategy saves at equal accuracy.

    Args:
      num_labels: ``[r]`` of the strategy, rising.
      accuracies: ``[r]`` its accuracies.
      random_labels: ``[s]`` of random selection, rising.
      random_accuracies: ``[s]`` its accuracies.
      num_points: accuracies that are compared, evenly spaced over those that both curves pass.

    Returns:
      The mean of ``1 - labels / random labels`` over them; NaN where the curves share none.

    Raises:
      ValueError: as `labels_to_reach`.
    """
    own = _check_curve(num_labels, accuracies, "num_labels")
    other = _check_curve(random_labels, random_accuracies, "random_labels")
    low, high = max(own[1][0], other[1][0]), min(own[1].max(), other[1].max())
    if low > high:
        return float("nan")
    targets = np.linspace(low, high, num_points)
    ratio = labels_to_reach(*own, targets) / labels_to_reach(*other, targets)
    return float(np.mean(1 - ratio))


def _check_curve(
    num_labels: ArrayLike, accuracies: ArrayLike, name: str
) -> tuple[np.ndarray, np.ndarray]:
    counts, heights = (np.asarray(x, np.float64) for x in (num_labels, accuracies))
    if counts.ndim != 1 or counts.shape != heights.shape or counts.size == 0:
        raise ValueError(
            f"{name}: expected as many numbers of labels as accuracies, found shapes "
            f"{counts.shape} and {heights.shape}"
        )
    if not (np.isfinite(counts).all() and np.isfinite(heights).all()):
        raise ValueError(f"{name}: expected finite numbers of labels and accuracies, found others")
    if not (counts[0] > 0 and (np.diff(counts) > 0).all()):
        raise ValueError(f"{name}: expected rising numbers of labels above 0, found {counts}")
    return counts, heights
