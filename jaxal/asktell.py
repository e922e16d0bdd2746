"""One round of active learning at a time: ask for samples, tell their labels.

The picks of round r depend on the seed, r and what is labelled, and on nothing else: every key is
folded from the seed and the round, and the head is trained from scratch each round.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_batch_size, check_features, check_indices
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.embedding import cluster_embedding
from jaxal.records import plain
from jaxal.select import RANDOM, Pool, Strategy, check_options, get_strategy
from jaxal.state import ActiveState, cancel, load, relabel, save, skip, start, tell
from jaxal.train.head import (
    LINEAR,
    HeadConfig,
    TrainedHead,
    check_config,
    predict_head,
    predict_probs,
    train_head,
)

__all__ = [
    "HEAD_FIELDS",
    "ActiveState",
    "HeadOutputs",
    "ask",
    "cancel",
    "fit_head",
    "load",
    "relabel",
    "save",
    "skip",
    "start",
    "tell",
]

HEAD_FIELDS = frozenset({"probs", "hidden", "trained"})  # what of a `Pool` comes from the head

_SELECT_KEY, _HEAD_KEY = 0, 1


class HeadOutputs(NamedTuple):
    """A head trained on all that is labelled, and what it says of the pool."""

    trained: TrainedHead
    probs: jax.Array | None  # [n, num_classes] float32
    hidden: ArrayLike | None  # [n, h] float32
    num_labeled: int  # what it was trained on
    seconds: float  # training and prediction


def fit_head(
    state: ActiveState,
    features: ArrayLike,
    *,
    head: HeadConfig = LINEAR,
    fields: Collection[str] = ("probs", "hidden"),
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> HeadOutputs:
    """Train the head of the current round on all that is labelled.

    Args:
      state: with something labelled; its seed and round decide the head's key.
      features: ``[n, d]`` of the pool.
      head: the head and its training.
      fields: what to predict for the whole pool: "probs", "hidden", both or nothing ("trained",
        the head itself, is always there).
      chunk_size: rows predicted at once; changes no result.

    Returns:
      The head and its predictions.

    Raises:
      ValueError: nothing is labelled, features that do not fit, an unknown field, or training
        that diverges (`DivergedError`).
    """
    unknown = set(fields) - HEAD_FIELDS
    if unknown:
        raise ValueError(
            f"fields: expected some of {', '.join(sorted(HEAD_FIELDS))}, found {unknown.pop()!r}"
        )
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
    head: HeadConfig = LINEAR,
    embedding: ArrayLike | None = None,
    options: Mapping[str, Any] | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[ActiveState, np.ndarray, Any]:
    """Choose the next samples to label.

    While nothing is labelled, a strategy that cannot start cold leaves the choice to random
    selection with the key it would have been given itself: for one seed all such strategies, and
    random selection, share their first picks.

    Asked again before `tell`, it gives the pending samples again, with None for the Info.

    Skipped samples are cut out of the pool that the strategy sees, which then holds a copy of the
    features.

    Args:
      state: where the run stands.
      strategy: one, or the name of a registered one.
      features: ``[n, d]`` of the pool.
      batch_size: how many, at most what is left.
      outputs: from `fit_head` at this state; trained here where the strategy needs and lacks it.
      head: the head to train, where none is given.
      embedding: ``[n, m]`` what clusters are made of, for strategies that need it; by default it
        is made here. Pass ``jaxal.cluster_embedding(features)``, which is the same, to save the
        time each round.
      options: keyword options of the strategy.
      chunk_size: rows the head predicts at once; changes no result.

    Returns:
      The state with the samples pending, the samples ``[batch_size]`` int64, and the strategy's
      Info.

    Raises:
      ValueError: more samples than are left, outputs of another round, another batch size than that
        of the pending samples, unknown options, or what the strategy itself refuses.
    """
    if not isinstance(state, ActiveState):
        raise ValueError(f"state: expected what start or load gives, found {type(state).__name__}")
    if outputs is not None and not isinstance(outputs, HeadOutputs):
        raise ValueError(f"outputs: expected what fit_head gives, found {type(outputs).__name__}")
    strategy = get_strategy(strategy)
    options = check_options(strategy, options)
    check_config(head, "head")
    _check_pool_size(state, features)
    if state.round == 0:
        # Before any label is paid for, whatever the strategy reads.
        check_features(features)
    check_embedding(embedding, state.pool_size)
    if len(state.pending):
        asked = len(state.history[-1]["picks"])
        if batch_size != asked:
            raise ValueError(
                f"batch_size: expected {asked}, as that batch waits for its labels, "
                f"found {batch_size}"
            )
        return state, state.pending, None
    check_batch_size(batch_size, state.pool_size - len(state.labeled) - len(state.excluded))
    if outputs is not None and outputs.num_labeled != len(state.labeled):
        raise ValueError(
            f"outputs: expected a head trained on {len(state.labeled)} labels, "
            f"found one trained on {outputs.num_labeled}"
        )
    cold = len(state.labeled) == 0
    needs = strategy.needs_with(options)
    fields = needs & HEAD_FIELDS
    if not cold and any(getattr(outputs, field, None) is None for field in fields):
        outputs = fit_head(state, features, head=head, fields=fields, chunk_size=chunk_size)
    if cold and not strategy.cold_start:
        strategy, options, needs = RANDOM, {}, frozenset()
    if embedding is None and "embedding" in needs:
        embedding = cluster_embedding(features)
    pool = Pool(
        features,
        state.num_classes,
        state.labeled,
        state.labels,
        probs=outputs.probs if outputs else None,
        hidden=outputs.hidden if outputs else None,
        embedding=embedding,
        trained=outputs.trained if outputs else None,
    )
    rows = np.arange(state.pool_size)
    if len(state.excluded):
        pool, rows = _without(pool, state.excluded)
        truth = np.asarray(options.get("true_labels"))
        if strategy.oracle and truth.shape == (state.pool_size,):
            options = {**options, "true_labels": truth[rows]}
    began = time.perf_counter()
    found, info = strategy.select(_key(state, _SELECT_KEY), pool, batch_size=batch_size, **options)
    picks = rows[_check_picks(found, pool, batch_size, strategy.name)]
    record = {
        "round": state.round,
        "picks": picks.tolist(),
        "selection_seconds": time.perf_counter() - began,
        "info": plain(info, "info"),
    }
    return state._replace(pending=picks, history=(*state.history, record)), picks, info


def _key(state: ActiveState, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(state.seed), state.round), purpose)


def check_embedding(embedding: ArrayLike | None, pool_size: int) -> None:
    """Check an embedding that was given.

    Raises:
      ValueError: it is no matrix of finite numbers with a row for each sample.
    """
    if embedding is None:
        return
    if np.ndim(embedding) != 2 or np.shape(embedding)[0] != pool_size:
        raise ValueError(
            f"embedding: expected a matrix [{pool_size}, m], found shape {np.shape(embedding)}"
        )
    check_features(embedding, "embedding")


def _check_pool_size(state: ActiveState, features: ArrayLike) -> None:
    shape = np.shape(features)
    if len(shape) != 2 or shape[0] != state.pool_size:
        raise ValueError(f"features: expected a matrix [{state.pool_size}, d], found shape {shape}")


def _without(pool: Pool, excluded: np.ndarray) -> tuple[Pool, np.ndarray]:
    """Cut rows out of a pool: what is left, and which rows ``[m]`` of the pool that is."""
    n = np.shape(pool.features)[0]
    rows = np.setdiff1d(np.arange(n), excluded)
    position = np.full(n, -1)
    position[rows] = np.arange(len(rows))

    def cut(x: Any) -> Any:
        return x if x is None else x[rows] if isinstance(x, jax.Array) else np.asanyarray(x)[rows]

    left = pool._replace(
        features=cut(pool.features),
        labeled=position[np.asarray(pool.labeled)],
        probs=cut(pool.probs),
        hidden=cut(pool.hidden),
        embedding=cut(pool.embedding),
    )
    return left, rows


def _check_picks(found: ArrayLike, pool: Pool, batch_size: int, name: str) -> np.ndarray:
    picks = check_indices(found, np.shape(pool.features)[0], f"picks of {name}")
    num_labeled = int(np.isin(picks, pool.labeled).sum())
    if len(picks) != batch_size or num_labeled:
        raise ValueError(
            f"picks of {name}: expected {batch_size} unlabelled rows, "
            f"found {len(picks)}, {num_labeled} of them labelled"
        )
    return picks
