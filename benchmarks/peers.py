"""Strategies beside scikit-activeml's, on the same inputs in the same process.

Both sides get one pool, whose rows have length one, so that it does not matter which of the two
normalises, and the probabilities of one trained head, which neither side has to fit. Where the
algorithm is deterministic and both take the same settings, the picks are compared too.
"""

import functools
import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measuring import best, describe_device, write_report
from benchmarks.selecting import Sizes, choose_strategies, make_pool, with_head
from benchmarks.tables import markdown, table_line
from jaxal.scaling import unit_rows
from jaxal.select import STRATEGIES, Pool, get_strategy

__all__ = ["FULL", "INSTALL", "PEERS", "QUICK", "Peer", "compare", "require"]

INSTALL = 'pip install -e ".[peers]" in the checkout'
FULL = Sizes(pool=10_000, features=128, classes=10, labeled=50, picks=100)
QUICK = Sizes(pool=300, features=16, classes=5, labeled=10, picks=8)
# A peer's first call on this many rows loads what it needs.
_WARM_UP = 300
# Calls that take longer are timed once.
_SHORT = 2.0

_HEADER = ["strategy", "ours s", "compile s", "peer s", "ratio", "picks equal", "both with"]
_NOTE = (
    "Ours is the best of three after the first, which took compile s longer; the peer's the best "
    "of three where it takes less than 2 s, after a call on few rows. Ratio: the peer's seconds to "
    "ours. Picks equal: the share of picks that are the same, in order, where neither side draws. "
    "Where ours reads the head's probabilities (margin, entropy, least-confidence, badge) the "
    "peer's seconds include their prediction, a product in NumPy, and ours do not."
)


class Peer(NamedTuple):
    """A strategy of scikit-activeml and what makes ours the same."""

    make: Callable[[], Any]  # its query strategy
    settings: str  # what both are given, in words
    options: Mapping[str, Any] = {}  # of ours
    reads_head: bool = False  # wants a classifier
    drawn: bool = False  # by chance: picks differ


def _peer(name: str, **settings: Any) -> Any:
    """Make a query strategy of scikit-activeml."""
    from skactiveml import pool

    return getattr(pool, name)(random_state=0, **settings)


def _uncertainty(method: str) -> Peer:
    make = functools.partial(_peer, "UncertaintySampling", method=method)
    return Peer(make, "the head's probabilities", reads_head=True)


PEERS: dict[str, Peer] = {
    "random": Peer(functools.partial(_peer, "RandomSampling"), "", drawn=True),
    "margin": _uncertainty("margin_sampling"),
    "entropy": _uncertainty("entropy"),
    "least-confidence": _uncertainty("least_confident"),
    "coreset": Peer(functools.partial(_peer, "CoreSet"), "Euclidean distances"),
    "badge": Peer(
        functools.partial(_peer, "Badge"),
        "the head's probabilities and inputs, the longest gradient first",
        reads_head=True,
        drawn=True,
    ),
    "probcover": Peer(
        functools.partial(_peer, "ProbCover"),
        "the largest radius at which 95 % of balls are pure under k-means of the classes; the peer "
        "tries 10 radii and draws among ties",
        drawn=True,
    ),
    "maxherding": Peer(
        functools.partial(_peer, "MaxHerding", metric="rbf", metric_dict={"gamma": 1.0}),
        "the Gaussian kernel of width 1",
        options={"sigma": 1.0},
    ),
    "dropquery": Peer(
        functools.partial(_peer, "DropQuery", dropout_rate=0.75, n_dropout_samples=3),
        "the head, 3 predictions at dropout 0.75, one k-means++ start",
        reads_head=True,
        drawn=True,
    ),
    "typiclust": Peer(
        functools.partial(_peer, "TypiClust", k=20),
        "l + b clusters, one k-means++ start, 20 neighbours",
        drawn=True,
    ),
}


def require() -> None:
    """Check that scikit-activeml is installed.

    Raises:
      ImportError: it is not; says how to install it.
    """
    missing = [name for name in ("skactiveml", "sklearn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)}: not installed; {INSTALL}")


def compare(
    strategies: Sequence[str] | None, out: Path, *, quick: bool = False
) -> list[dict[str, Any]]:
    """Time strategies and their peers; print and write a table.

    Args:
      strategies: names; None for all that have a peer.
      out: folder of ``speed_peers.csv`` and ``speed_peers.md``.
      quick: small sizes.

    Returns:
      The rows of the table.

    Raises:
      ImportError: scikit-activeml is not installed.
      ValueError: a strategy that is unknown or has no peer.
    """
    require()
    names = _choose(strategies)
    sizes = QUICK if quick else FULL
    pool = _unit_pool(sizes)
    rows, cells = [], []
    for name in names:
        rows.append({"strategy": name, **time_both(name, pool, sizes.picks)})
        cells.append(_cells(rows[-1]))
        print(table_line(cells[-1]), flush=True)
        write_report(
            out / "speed_peers",
            rows,
            [
                f"Device {describe_device()}; {_versions()}; sizes {json.dumps(sizes._asdict())}.",
                markdown([_HEADER, *cells]),
                _NOTE,
            ],
        )
    return rows


def time_both(name: str, pool: Pool, picks: int) -> dict[str, Any]:
    """Time a strategy and its peer on a pool.

    Returns:
      Seconds of ``ours``, of what its first call took longer (``compile``) and of the ``peer``,
      their ``ratio``, the share of equal picks (``equal``, None where they are drawn) and the
      ``settings`` of both.
    """
    import jax

    peer = PEERS[name]
    select = functools.partial(
        get_strategy(name).select, jax.random.key(0), pool, batch_size=picks, **peer.options
    )
    first, ours = best(select)
    _query(peer, _first_rows(pool, _WARM_UP), 2)
    theirs, seconds = _timed(lambda: _query(peer, pool, picks))
    if seconds < _SHORT:
        seconds = min(seconds, *(_timed(lambda: _query(peer, pool, picks))[1] for _ in range(2)))
    equal = None if peer.drawn else float(np.mean(np.asarray(select()[0]) == theirs))
    return {
        "ours": ours,
        "compile": max(first - ours, 0),
        "peer": seconds,
        "ratio": seconds / ours,
        "equal": equal,
        "settings": peer.settings,
    }


def _choose(strategies: Sequence[str] | None) -> list[str]:
    if strategies is None:
        return [name for name in STRATEGIES if name in PEERS]
    for name in choose_strategies(strategies):
        if name not in PEERS:
            known = ", ".join(PEERS)
            raise ValueError(f"--peers: expected strategies of {known}, found {name!r}")
    return list(strategies)


def _unit_pool(sizes: Sizes) -> Pool:
    """Make a pool of unit rows with a trained head's outputs as both sides see them."""
    pool, _ = make_pool(STRATEGIES["random"], sizes)
    pool = with_head(pool._replace(features=np.asarray(unit_rows(pool.features))))
    return pool._replace(probs=_head_probs(pool.trained, np.asarray(pool.features)))


def _first_rows(pool: Pool, count: int) -> Pool:
    """Keep the first rows, some of them labelled anew."""
    labeled = np.arange(pool.num_classes)
    return pool._replace(
        features=np.asarray(pool.features)[:count], labeled=labeled, labels=labeled
    )


def _timed(fn: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = fn()
    return found, time.perf_counter() - start


def _query(peer: Peer, pool: Pool, picks: int) -> np.ndarray:
    """Let the peer pick, ``[picks]``."""
    features = np.asarray(pool.features)
    labels = np.full(len(features), np.nan)
    labels[np.asarray(pool.labeled)] = np.asarray(pool.labels)
    given = {"clf": _classifier(pool), "fit_clf": False} if peer.reads_head else {}
    return np.asarray(peer.make().query(features, labels, batch_size=picks, **given))


def _classifier(pool: Pool) -> Any:
    """Dress the trained head as a classifier of scikit-activeml."""
    from skactiveml.base import SkactivemlClassifier

    class Head(SkactivemlClassifier):
        def fit(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError("the head is trained")

        def predict_proba(self, x: np.ndarray, **kwargs: Any) -> np.ndarray:
            return _head_probs(pool.trained, x)

        def predict(self, x: np.ndarray, **kwargs: Any) -> np.ndarray:
            return _head_probs(pool.trained, x).argmax(axis=1)

    return Head(classes=np.arange(pool.num_classes))


def _head_probs(trained: Any, x: np.ndarray) -> np.ndarray:
    """Predict by the linear head in NumPy, ``[n, classes]`` float32."""
    layer = trained.variables["params"]["output"]
    logits = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    unscaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return unscaled / unscaled.sum(axis=1, keepdims=True)


def _versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("scikit-activeml", "scikit-learn"))


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["strategy"],
        *(f"{row[name]:.3g}" for name in ("ours", "compile", "peer", "ratio")),
        "drawn" if row["equal"] is None else f"{100 * row['equal']:.0f} %",
        row["settings"],
    ]
