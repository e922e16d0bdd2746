"""One round of active learning at a time: ask for samples, tell their labels.

The picks of round r depend on the seed, r and what is labelled, and on nothing else: every key is
folded from the seed and the round, and the head is trained from scratch each round.
"""

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import (
    check_batch_size,
    check_indices,
    check_labels,
    check_positive,
)
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.records import plain, read_record, write_record
from jaxal.select import RANDOM, Pool, Strategy, get_strategy
from jaxal.train.head import (
    PROXY,
    HeadConfig,
    TrainedHead,
    predict_head,
    predict_probs,
    train_head,
)

__all__ = [
    "HEAD_FIELDS",
    "ActiveState",
    "HeadOutputs",
    "ask",
    "fit_head",
    "load",
    "save",
    "start",
    "tell",
]

HEAD_FIELDS = frozenset({"probs", "hidden"})  # what of a `Pool` comes from the head

_SELECT_KEY, _HEAD_KEY = 0, 1


class ActiveState(NamedTuple):
    """Where a run stands."""

    seed: int  # in 0..2^32-1
    pool_size: int
    num_classes: int
    labeled: np.ndarray  # [l] int64, in the order they were labelled
    labels: np.ndarray  # [l] int32
    pending: np.ndarray  # [b] int64, asked and not told yet; empty otherwise
    round: int  # rounds told
    history: tuple[
        dict[str, Any], ...
    ]  # one a round asked, of plain numbers; see `jaxal.active.run`


class HeadOutputs(NamedTuple):
    """A head trained on all that is labelled, and what it says of the pool."""

    trained: TrainedHead
    probs: jax.Array | None  # [n, num_classes] float32
    hidden: jax.Array | None  # [n, h] float32
    num_labeled: int  # what it was trained on
    seconds: float  # training and prediction


def start(pool_size: int, num_classes: int, *, seed: int) -> ActiveState:
    """Begin a run with nothing labelled.

    Raises:
      ValueError: a count under 1, or a seed outside 0..2^32-1.
    """
    check_positive(pool_size, "pool_size")
    check_positive(num_classes, "num_classes")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << 32:
        raise ValueError(f"seed: expected a whole number in 0..2^32-1, found {seed!r}")
    none = np.zeros(0, np.int64)
    return ActiveState(int(seed), pool_size, num_classes, none, none.astype(np.int32), none, 0, ())


def fit_head(
    state: ActiveState,
    features: ArrayLike,
    *,
    head: HeadConfig = PROXY,
    fields: Collection[str] = ("probs", "hidden"),
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> HeadOutputs:
    """Train the head of the current round on all that is labelled.

    Args:
      state: with something labelled; its seed and round decide the head's key.
      features: ``[n, d]`` of the pool.
      head: the head and its training.
      fields: what to predict for the whole pool: "probs", "hidden", both or nothing.
      chunk_size: rows predicted at once; changes no result.

    Returns:
      The head and its predictions.

    Raises:
      ValueError: nothing is labelled, or features that do not fit.
    """
    _check_pool_size(state, features)
    began = time.perf_counter()
    trained = train_head(
        _key(state, _HEAD_KEY),
        features,
        state.labeled,
        state.labels,
        state.num_classes,
        config=head,
    )
    probs = hidden = None
    if "hidden" in fields:
        probs, hidden = predict_head(trained, features, chunk_size=chunk_size)
    elif "probs" in fields:
        probs = predict_probs(trained, features, chunk_size=chunk_size)
    jax.block_until_ready((trained.losses, probs, hidden))
    seconds = time.perf_counter() - began
    return HeadOutputs(trained, probs, hidden, len(state.labeled), seconds)


def ask(
    state: ActiveState,
    strategy: Strategy | str,
    features: ArrayLike,
    batch_size: int,
    *,
    outputs: HeadOutputs | None = None,
    head: HeadConfig = PROXY,
    neighbors: ArrayLike | None = None,
    options: Mapping[str, Any] | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[ActiveState, np.ndarray, Any]:
    """Choose the next samples to label.

    While nothing is labelled, a strategy that cannot start cold leaves the choice to random
    selection with the key it would have been given itself: for one seed all such strategies, and
    random selection, share their first picks.

    Asked again before `tell`, it gives the pending samples again, with None for the Info.

    Args:
      state: where the run stands.
      strategy: one, or the name of a registered one.
      features: ``[n, d]`` of the pool.
      batch_size: how many, at most what is left.
      outputs: from `fit_head` at this state; trained here where the strategy needs and lacks it.
      head: the head to train, where none is given.
      neighbors: ``[n, k]`` integers, each sample's nearest others, for strategies that need them.
      options: keyword options of the strategy.
      chunk_size: rows the head predicts at once; changes no result.

    Returns:
      The state with the samples pending, the samples ``[batch_size]`` int64, and the strategy's
      Info.

    Raises:
      ValueError: more samples than are left, outputs of another round, another batch size than the
        pending samples', or what the strategy itself refuses.
    """
    strategy = get_strategy(strategy) if isinstance(strategy, str) else strategy
    _check_pool_size(state, features)
    if len(state.pending):
        if batch_size != len(state.pending):
            raise ValueError(
                f"batch_size: expected {len(state.pending)}, as many samples wait for their "
                f"labels, found {batch_size}"
            )
        return state, state.pending, None
    check_batch_size(batch_size, state.pool_size - len(state.labeled))
    if outputs is not None and outputs.num_labeled != len(state.labeled):
        raise ValueError(
            f"outputs: expected a head trained on {len(state.labeled)} labels, "
            f"found one trained on {outputs.num_labeled}"
        )
    kwargs = dict(options or {})
    cold = len(state.labeled) == 0
    chosen = strategy
    if cold and not strategy.cold_start:
        chosen, kwargs = RANDOM, {}
    fields = strategy.needs & HEAD_FIELDS
    if not cold and any(getattr(outputs, field, None) is None for field in fields):
        outputs = fit_head(state, features, head=head, fields=fields, chunk_size=chunk_size)
    pool = Pool(
        features,
        state.num_classes,
        state.labeled,
        state.labels,
        probs=outputs.probs if outputs else None,
        hidden=outputs.hidden if outputs else None,
        neighbors=neighbors,
    )
    began = time.perf_counter()
    found, info = chosen.select(_key(state, _SELECT_KEY), pool, batch_size=batch_size, **kwargs)
    picks = _check_picks(found, state, batch_size, chosen.name)
    record = {
        "round": state.round,
        "picks": picks.tolist(),
        "selection_seconds": time.perf_counter() - began,
        "info": plain(info, "info"),
    }
    return state._replace(pending=picks, history=(*state.history, record)), picks, info


def tell(state: ActiveState, labels: ArrayLike) -> ActiveState:
    """Give the labels of the pending samples.

    Args:
      state: from `ask`.
      labels: ``[b]`` in the order of ``state.pending``.

    Returns:
      The state of the next round.

    Raises:
      ValueError: nothing is pending, or labels of the wrong number or outside 0..num_classes-1.
    """
    if len(state.pending) == 0:
        raise ValueError("labels: no samples wait for labels, ask for some first")
    found = check_labels(labels, state.num_classes, length=len(state.pending))
    labeled = np.concatenate([state.labeled, state.pending])
    record = {**state.history[-1], "num_labeled": len(labeled)}
    return state._replace(
        labeled=labeled,
        labels=np.concatenate([state.labels, found]),
        pending=np.zeros(0, np.int64),
        round=state.round + 1,
        history=(*state.history[:-1], record),
    )


def save(state: ActiveState, path: str | Path, settings: Mapping[str, Any]) -> None:
    """Write a run, whole or not at all.

    Args:
      state: where the run stands, with samples pending or not.
      path: the JSON file to replace.
      settings: all that its picks depend on; `load` asks for the same.

    Raises:
      ValueError: settings that JSON cannot hold.
    """
    write_record(path, state, settings)


def load(path: str | Path, settings: Mapping[str, Any]) -> ActiveState:
    """Read a run that `save` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or was saved with other settings; the error says which.
    """
    content = read_record(path, settings)
    try:
        blank = start(content["pool_size"], content["num_classes"], seed=content["seed"])
        labeled = check_indices(content["labeled"], blank.pool_size, "labeled")
        asked = check_indices(labeled.tolist() + content["pending"], blank.pool_size, "pending")
        return blank._replace(
            labeled=labeled,
            labels=check_labels(content["labels"], blank.num_classes, length=len(labeled)),
            pending=asked[len(labeled) :],
            round=int(content["round"]),
            history=tuple(content["history"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a saved run ({error!r})") from error


def _key(state: ActiveState, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(state.seed), state.round), purpose)


def _check_pool_size(state: ActiveState, features: ArrayLike) -> None:
    shape = np.shape(features)
    if len(shape) != 2 or shape[0] != state.pool_size:
        raise ValueError(f"features: expected a matrix [{state.pool_size}, d], found shape {shape}")


def _check_picks(found: ArrayLike, state: ActiveState, batch_size: int, name: str) -> np.ndarray:
    picks = check_indices(found, state.pool_size, f"picks of {name}")
    labeled = picks[np.isin(picks, state.labeled)]
    if len(picks) != batch_size or labeled.size:
        raise ValueError(
            f"picks of {name}: expected {batch_size} unlabelled rows, "
            f"found {len(picks)}, {labeled.size} of them labelled"
        )
    return picks
