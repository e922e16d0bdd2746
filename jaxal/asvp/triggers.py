"""When cached features no longer serve selection: rules on the history of their scores.

ASVP (arXiv 2403.01101) scores the labelled rows of the cached features each round by LogME, before
and after PED has moved the classes apart, and refreshes the features once the scores tell that
fine-tuning would change them. The exact rule is not published: those here are ours, of one
signature, ``rule(history) -> bool``. Bind options by `functools.partial`. Scores of rounds in which
more classes have labels are means over more classes; no rule corrects for that.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_indices, check_number, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.transferability import feature_statistics, logme, ped_logme, standardize

__all__ = [
    "Score",
    "Trigger",
    "at_labels",
    "enough_labels",
    "every_round",
    "falling",
    "never",
    "saturating",
    "score_features",
    "slowing",
]


class Score(NamedTuple):
    """How well features serve for the labels of a round."""

    num_labeled: int
    num_classes: int  # that have labels
    version: int  # of the features: 0 as pre-trained, then one more a refresh
    logme: float  # nats a sample; NaN where `note` says why it cannot be computed
    ped_logme: float  # the same after classes were moved apart
    note: str = ""
    seconds: float = 0.0  # that it took


# The scores of all rounds so far, to whether the features should be refreshed now.
Trigger = Callable[[Sequence[Score]], bool]


def score_features(
    features: ArrayLike,
    labeled: ArrayLike,
    labels: ArrayLike,
    *,
    version: int = 0,
    statistics: tuple[ArrayLike, ArrayLike] | None = None,
    num_sigmas: float = 0.6,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> Score:
    """Score the labelled rows of a pool's features by LogME, as they are and moved by PED.

    Args:
      features: ``[n, d]`` of the pool.
      labeled: ``[l]`` labelled rows.
      labels: ``[l]`` their classes.
      version: of the features, for the record.
      statistics: mean and standard deviation ``[d]`` of the pool, from `feature_statistics`; found
        here where none are given.
      num_sigmas: see `ped_logme`.
      chunk_size: rows read at once.

    Returns:
      The score, without its seconds. With labels of one class only it is NaN, and its note says
      so.

    Raises:
      ValueError: features, rows or labels that do not fit, or an option out of its range.
    """
    check_number(num_sigmas, "num_sigmas", least=0, above=True)
    rows = check_indices(labeled, np.shape(features)[0], "labeled")
    x = np.asarray(check_features(np.asanyarray(features)[rows]))
    y = np.asarray(labels)
    if y.shape != rows.shape:
        raise ValueError(f"labels: expected {len(rows)} classes, found shape {y.shape}")
    classes = len(np.unique(y))
    if classes < 2:
        note = f"labels of {classes} classes: expected two or more"
        return Score(len(rows), classes, version, float("nan"), float("nan"), note)
    if statistics is None:
        statistics = feature_statistics(features, chunk_size=chunk_size)
    x = standardize(x, *statistics)
    before = logme(x, y, chunk_size=chunk_size)
    after, _ = ped_logme(x, y, num_sigmas=num_sigmas, chunk_size=chunk_size)
    return Score(len(rows), classes, version, before, after)


def never(history: Sequence[Score]) -> bool:
    """Keep the features: with it ASVP is SVPp."""
    return False


def every_round(history: Sequence[Score]) -> bool:
    """Refresh after every round, which costs what standard active learning does."""
    return True


def at_labels(history: Sequence[Score], *, counts: int | Sequence[int] = ()) -> bool:
    """Refresh in the first round with so many labels, for each of some numbers: for studies.

    Args:
      history: of the scores.
      counts: numbers of labels.

    Raises:
      ValueError: no scores, or no counts.
    """
    last = _last(history)
    wanted = [check_positive(count, "counts") for count in np.atleast_1d(counts).tolist()]
    if not wanted:
        raise ValueError("counts: expected one number of labels or more, found none")
    before = max((s.num_labeled for s in history if s.num_labeled < last.num_labeled), default=0)
    return any(before < count <= last.num_labeled for count in wanted)


def enough_labels(
    history: Sequence[Score], *, per_class: float = 50.0, most: int | None = 1
) -> bool:
    """Refresh once there are so many labels a class, and at each doubling while ``most`` allows.

    Args:
      history: of the scores.
      per_class: labels for each class that has any.
      most: refreshes; None for no limit.

    Raises:
      ValueError: no scores, or an option out of its range.
    """
    check_number(per_class, "per_class", least=0, above=True)
    last = _last(history)
    if most is not None and last.version >= check_positive(most, "most"):
        return False
    return last.num_labeled >= per_class * last.num_classes * 2**last.version


def slowing(history: Sequence[Score], *, share: float = 0.25, patience: int = 1) -> bool:
    """Refresh once the moved features' score hardly grows with labels any more.

    Its growth a label, between rounds, is compared to the steepest of the same features before;
    where there was none, the features do not learn from labels at all.

    Args:
      history: of the scores.
      share: of the steepest growth, below which a round counts as slow.
      patience: slow rounds in a row that it takes.

    Raises:
      ValueError: no scores, or an option out of its range.
    """
    check_number(share, "share", least=0, above=True)
    check_positive(patience, "patience")
    counts, scores = _series(history, lambda score: score.ped_logme)
    return _is_flat(counts, scores, share, patience)


def falling(history: Sequence[Score], *, patience: int = 1) -> bool:
    """Refresh once the score of the features as they are has stayed below its best.

    Args:
      history: of the scores.
      patience: rounds since the best.

    Raises:
      ValueError: no scores, or an option out of its range.
    """
    check_positive(patience, "patience")
    _, scores = _series(history, lambda score: score.logme)
    return len(scores) > 0 and len(scores) - 1 - int(scores.argmax()) >= patience


def saturating(history: Sequence[Score], *, share: float = 0.5, patience: int = 1) -> bool:
    """Refresh once what fine-tuning would gain over the features as they are stops growing.

    The gain is the score of the moved features less that of the features as they are. While it
    grows with every label, labels are too few to tell where classes should move. Its growth a
    label, between rounds, is compared to the largest of the same features before.

    Args:
      history: of the scores.
      share: of the largest growth, below which a round counts as flat.
      patience: flat rounds in a row that it takes.

    Raises:
      ValueError: no scores, or an option out of its range.
    """
    check_number(share, "share", least=0, above=True)
    check_positive(patience, "patience")
    counts, gains = _series(history, lambda score: score.ped_logme - score.logme)
    # Without any gain yet, there is nothing that could stop growing.
    return bool((np.diff(gains) > 0).any()) and _is_flat(counts, gains, share, patience)


def _is_flat(counts: np.ndarray, values: np.ndarray, share: float, patience: int) -> bool:
    """Tell whether the last rounds' growth a label is below a share of the steepest before."""
    if len(counts) < patience + 2:
        return False
    rates = np.diff(values) / np.diff(counts)
    steepest = max(float(rates[:-patience].max()), 0.0)
    return bool((rates[-patience:] <= share * steepest).all())


def _last(history: Sequence[Score]) -> Score:
    if not history:
        raise ValueError("history: expected scores of one round or more, found none")
    return history[-1]


def _series(
    history: Sequence[Score], value: Callable[[Score], float]
) -> tuple[np.ndarray, np.ndarray]:
    """Give the numbers of labels and the values of the present features, without NaN."""
    version = _last(history).version
    own = [(s.num_labeled, value(s)) for s in history if s.version == version]
    found = np.array([pair for pair in own if np.isfinite(pair[1])], float).reshape(-1, 2)
    return found[:, 0], found[:, 1]
