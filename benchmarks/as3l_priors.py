"""How many classes the first labels cover, and how right prior pseudo-labels of them are.

Each strategy chooses all labels at once, from nothing; the labels chosen then make prior
pseudo-labels of the rest of the pool in several ways. True labels serve to judge only, apart from
those of the chosen samples. scikit-learn, an extra, is needed for the rivals of the prior.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.data import Data, draw_pool
from benchmarks.tables import markdown
from jaxal.as3l import fine_tune_features, prior_labels
from jaxal.calibration import calibration_error
from jaxal.embedding import cluster_embedding
from jaxal.scaling import unit_rows
from jaxal.select import Pool, get_strategy

__all__ = [
    "BUDGETS",
    "ORACLE",
    "PRIORS",
    "STRATEGIES",
    "Result",
    "choose",
    "evaluate",
    "judge_prior",
    "label_spreading",
    "logistic",
    "nearest_labeled",
    "propagate",
    "table",
]

BUDGETS = (10, 20, 40)
ORACLE = "class-balanced"
STRATEGIES = (
    "random",
    ORACLE,
    "kmeans",
    "typiclust",
    "activeft",
    "maxherding",
    "ntkcpl",
    "as3l_fine",
    "as3l",
)
PRIORS = ("as3l_fine", "as3l", "nearest", "spreading", "logistic")

_SPREADING_NEIGHBORS = 10
# Of 1 to 10,000 the one from which on random labels of unit rows get no better: the default, 1, is
# far too strong a penalty for them.
_LOGISTIC_C = 1000.0


class Result(NamedTuple):
    """What one way of choosing and one of propagating gave."""

    data: str
    strategy: str
    prior: str
    seed: int
    num_labels: int
    covered: int  # classes with a label
    accuracy: float  # of the likeliest class, over the samples without label, in 0..1
    calibration: float  # expected calibration error over the same samples, in 0..1


def choose(
    name: str, key: jax.Array, pool: Pool, num_labels: int, truth: np.ndarray | None = None
) -> np.ndarray:
    """Choose the samples to label, from none.

    Args:
      name: one of ``STRATEGIES``. "kmeans" takes the medoids of one k-means; "as3l_fine" is
        AS3L on fine-tuned features, as in the paper, in place of the pool's embedding.
      key: of the choice.
      pool: nothing labelled, with an embedding.
      num_labels: how many.
      truth: ``[n]`` true classes, for an oracle, which looks at all of them.

    Returns:
      ``[num_labels]`` rows.
    """
    options: dict[str, Any] = {}
    strategy = get_strategy("as3l" if name in ("as3l_fine", "kmeans") else name)
    if strategy.oracle:
        options = {"true_labels": truth}
    if name == "as3l_fine":
        options = {"space": "fine"}
    if name == "kmeans":
        options = {"space": "features", "num_runs": 1, "consensus": "none"}
    picks, _ = strategy.select(key, pool, batch_size=num_labels, **options)
    return np.asarray(picks)


def propagate(
    name: str,
    key: jax.Array,
    pool: Pool,
    rows: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    """Make prior pseudo-labels.

    Args:
      name: one of ``PRIORS``.
      key: of what is random in it.
      pool: features, embedding and number of classes.
      rows: ``[l]`` labelled samples.
      labels: ``[l]`` their classes.

    Returns:
      ``[n, num_classes]`` shares of the classes, that sum to 1.
    """
    if name in ("as3l", "as3l_fine"):
        tune_key, key = jax.random.split(key)
        x = pool.embedding
        if name == "as3l_fine":
            x = fine_tune_features(tune_key, pool.features, len(rows)).features
        assert x is not None
        return np.asarray(prior_labels(key, x, rows, labels, pool.num_classes).soft)
    rivals: Mapping[str, Callable[..., np.ndarray]] = {
        "nearest": nearest_labeled,
        "spreading": label_spreading,
        "logistic": logistic,
    }
    unit = np.asarray(unit_rows(pool.features))
    return rivals[name](unit, rows, labels, pool.num_classes)


def nearest_labeled(
    x: np.ndarray, rows: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Give each sample the label of the most similar labelled one, ``[n, num_classes]``."""
    return np.eye(num_classes, dtype=np.float32)[labels[(x @ x[rows].T).argmax(axis=1)]]


def label_spreading(
    x: np.ndarray, rows: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Spread labels over the graph of nearest neighbours (Zhou et al., 2004), scikit-learn's."""
    from sklearn.semi_supervised import LabelSpreading

    given = np.full(len(x), -1)
    given[rows] = labels
    model = LabelSpreading(kernel="knn", n_neighbors=min(_SPREADING_NEIGHBORS, len(x) - 1))
    model.fit(x, given)
    shares = np.zeros((len(x), num_classes), np.float32)
    shares[:, model.classes_] = np.nan_to_num(model.label_distributions_)
    # Samples that no label reaches have no row of shares.
    reached = shares.sum(axis=1, keepdims=True)
    known = np.isin(np.arange(num_classes), labels) / len(np.unique(labels))
    return np.where(reached > 0, shares / np.where(reached > 0, reached, 1), known)


def logistic(x: np.ndarray, rows: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Predict by scikit-learn's logistic regression, hardly regularised: ``[n, num_classes]``."""
    from sklearn.linear_model import LogisticRegression

    shares = np.zeros((len(x), num_classes), np.float32)
    if len(np.unique(labels)) == 1:
        shares[:, labels[0]] = 1
        return shares
    model = LogisticRegression(C=_LOGISTIC_C, max_iter=2000).fit(x[rows], labels)
    shares[:, model.classes_] = model.predict_proba(x)
    return shares


def judge_prior(shares: np.ndarray, truth: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Judge a prior on the samples without label.

    Args:
      shares: ``[n, num_classes]``.
      truth: ``[n]`` true classes.
      rows: ``[l]`` labelled samples, which are left out.

    Returns:
      Accuracy of the likeliest class, and expected calibration error; NaN where all are labelled.
    """
    free = np.setdiff1d(np.arange(len(truth)), rows)
    if not len(free):
        return math.nan, math.nan
    right = shares[free].argmax(axis=1) == truth[free]
    return float(right.mean()), calibration_error(shares[free], truth[free])


def evaluate(
    name: str,
    data: Data,
    *,
    seeds: Sequence[int],
    pool_size: int | None = None,
    budgets: Sequence[int] = BUDGETS,
    strategies: Sequence[str] = STRATEGIES,
    priors: Sequence[str] = PRIORS,
) -> list[Result]:
    """Choose and propagate, for each seed's pool of training rows; the test set is not touched.

    Args:
      name: of the data set.
      data: features and labels.
      seeds: each with a pool and keys of its own.
      pool_size: random rows of a pool; None for all.
      budgets: numbers of labels.
      strategies: of ``STRATEGIES``.
      priors: of ``PRIORS``.
    """
    found = []
    for seed in seeds:
        drawn = draw_pool(data, seed, pool_size=pool_size, scale=True)
        none = np.zeros(0, np.int64)
        pool = Pool(drawn.features, data.num_classes, none, none)
        pool = pool._replace(embedding=cluster_embedding(pool.features))
        key = jax.random.key(seed)
        for budget in budgets:
            for strategy in strategies:
                rows = choose(strategy, jax.random.fold_in(key, 0), pool, budget, drawn.labels)
                labels = drawn.labels[rows]
                covered = len(np.unique(labels))
                for prior in priors:
                    shares = propagate(prior, jax.random.fold_in(key, 1), pool, rows, labels)
                    judged = judge_prior(shares, drawn.labels, rows)
                    found.append(Result(name, strategy, prior, seed, budget, covered, *judged))
    return found


def table(results: Sequence[Result]) -> str:
    """Tabulate means over seeds for each data set: classes covered, and accuracies in percent.

    Behind an accuracy is its standard error, and in brackets the expected calibration error.
    """
    priors = list(dict.fromkeys(r.prior for r in results))
    lines = [["data, labels, strategy", "classes", *priors]]
    for data, budget, strategy in dict.fromkeys(
        (r.data, r.num_labels, r.strategy) for r in results
    ):
        mine = [r for r in results if r[:2] == (data, strategy) and r.num_labels == budget]
        cells = [f"{np.mean([r.covered for r in mine]):.1f}"]
        for prior in priors:
            values = [100 * r.accuracy for r in mine if r.prior == prior]
            told = f"{np.mean(values):.1f}"
            if len(values) > 1:
                told += f" ± {np.std(values, ddof=1) / math.sqrt(len(values)):.1f}"
            wrong = np.mean([100 * r.calibration for r in mine if r.prior == prior])
            cells.append(f"{told} ({wrong:.0f})")
        lines.append([f"{data}, {budget}, {strategy}", *cells])
    return markdown(lines)
