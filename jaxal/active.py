"""The active learning loop: rounds of selection, labelling and training, saved and resumed.

A run that was killed at any moment goes on from its file to the picks it would have made, since
those of a round depend on the seed, the round and what is labelled only (`jaxal.asktell`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxal.asktell import HEAD_FIELDS, HeadOutputs, ask, check_embedding, fit_head
from jaxal.checks import check_batch_size, check_features, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.embedding import cluster_embedding
from jaxal.records import check_path, describe, fingerprint, plain
from jaxal.select import Strategy, check_options, get_strategy
from jaxal.state import ActiveState, cancel, load, relabel, save, skip, start, tell
from jaxal.train.head import LINEAR, HeadConfig, check_config

__all__ = [
    "ActiveState",
    "HeadOutputs",
    "ask",
    "cancel",
    "fit_head",
    "load",
    "relabel",
    "run",
    "save",
    "skip",
    "start",
    "tell",
]

Evaluate = Callable[[ActiveState, HeadOutputs], Mapping[str, float]]


def run(
    strategy: Strategy | str,
    features: ArrayLike,
    oracle: Callable[[np.ndarray], ArrayLike],
    batch_sizes: Sequence[int],
    *,
    num_classes: int,
    seed: int,
    path: str | Path | None = None,
    evaluate: Evaluate | None = None,
    head: HeadConfig = LINEAR,
    embedding: ArrayLike | None = None,
    options: Mapping[str, Any] | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> ActiveState:
    """Run rounds of selection, labelling and training, going on from ``path`` where it exists.

    The file is replaced when a batch is chosen, when it is labelled and when it is evaluated: a
    kill costs no label. More ``batch_sizes`` than the file has rounds go on where it ended.

    Each round's record in the history holds "round", "picks", "num_labeled" (with the picks),
    "selection_seconds", "info" (the strategy's), "training_seconds" (of the head trained on the
    round's labels; 0 where nothing asks for one) and "metrics" (of ``evaluate``).

    Args:
      strategy: one, or the name of a registered one.
      features: ``[n, d]`` of the pool; NumPy, memory-mapped or JAX.
      oracle: gives the labels ``[b]`` of the rows ``[b]`` it is called with: the picks, each once,
        but for a kill before they were saved.
      batch_sizes: picks of each round.
      num_classes: number of classes.
      seed: decides everything random.
      path: where to save, or None. Features, embedding and arrays among the options must be the
        same, to the last element, for a run to go on from there; see `jaxal.records.fingerprint`
        for the time that takes. Functions among the options go by their name.
      evaluate: maps the state after a round and its `HeadOutputs`, which have ``trained`` and
        ``probs``, to a mapping of metrics for the record. Rounds in the file that have none, as of
        a run made without it, are made up for first.
      head: the head and its training.
      embedding: ``[n, m]`` what clusters are made of; made here, once, by
        `jaxal.cluster_embedding`, where the strategy needs it and none is given.
      options: keyword options of the strategy.
      chunk_size: rows the head predicts at once; changes no result.

    Returns:
      The final state.

    Raises:
      ValueError: a bad argument, a budget over the pool, a file of another run, or a head whose
        training diverges.
    """
    strategy = get_strategy(strategy)
    options = check_options(strategy, options)
    check_config(head, "head")
    check_features(features)
    check_embedding(embedding, np.shape(features)[0])
    needs = strategy.needs_with(options)
    state = start(np.shape(features)[0], num_classes, seed=seed)
    sizes = _check_sizes(batch_sizes, state.pool_size)
    settings: dict[str, Any] = {}
    if path is not None:
        path = check_path(path)
        settings = _settings(strategy, features, num_classes, seed, head, embedding, options)
        if path.exists():
            state = _check_progress(load(path, settings), sizes, path)
    if state.round < len(sizes):
        _check_oracle(oracle)
        if embedding is None and "embedding" in needs:
            embedding = cluster_embedding(features)
    fields = needs & HEAD_FIELDS
    learn = functools.partial(fit_head, features=features, head=head, chunk_size=chunk_size)
    for index, record in enumerate(state.history[: state.round]):
        if "metrics" not in record or (evaluate and not record["metrics"]):
            state, _ = _finish(state, index, learn, frozenset(), evaluate)
            _save(state, path, settings)
    outputs: HeadOutputs | None = None
    while state.round < len(sizes):
        state, picks, _ = ask(
            state,
            strategy,
            features,
            sizes[state.round],
            outputs=outputs,
            head=head,
            embedding=embedding,
            options=options,
            chunk_size=chunk_size,
        )
        _save(state, path, settings)
        state = tell(state, oracle(picks))
        _save(state, path, settings)
        needed = fields if state.round < len(sizes) else frozenset()
        state, outputs = _finish(state, state.round - 1, learn, needed, evaluate)
        _save(state, path, settings)
    return state


def _finish(
    state: ActiveState,
    index: int,
    learn: Callable[..., HeadOutputs],
    fields: frozenset[str],
    evaluate: Evaluate | None,
) -> tuple[ActiveState, HeadOutputs | None]:
    """Train and evaluate the head after round ``index``, where it is asked for; record both."""
    record = state.history[index]
    count = record["num_labeled"]
    then = state._replace(
        labeled=state.labeled[:count],
        labels=state.labels[:count],
        pending=np.zeros(0, np.int64),
        round=index + 1,
        history=state.history[: index + 1],
    )
    fields |= {"probs"} if evaluate else set()
    outputs = learn(then, fields=fields) if fields else None
    metrics = evaluate(then, outputs) if evaluate and outputs else {}
    if not isinstance(metrics, Mapping):
        raise ValueError(
            "evaluate: expected a function that returns a mapping of metrics, found it to return "
            f"{type(metrics).__name__}"
        )
    record = {
        **record,
        "training_seconds": outputs.seconds if outputs else 0.0,
        "metrics": plain(metrics, "metrics"),
    }
    history = (*state.history[:index], record, *state.history[index + 1 :])
    return state._replace(history=history), outputs


def _save(state: ActiveState, path: str | Path | None, settings: Mapping[str, Any]) -> None:
    if path is not None:
        save(state, path, settings)


def _settings(
    strategy: Strategy,
    features: ArrayLike,
    num_classes: int,
    seed: int,
    head: HeadConfig,
    embedding: ArrayLike | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect what the picks depend on; batch sizes stay out so that a run can be lengthened."""
    settings = {
        "strategy": strategy.name,
        "features": fingerprint(features),
        "num_classes": num_classes,
        "seed": seed,
        "head": head,
        "embedding": None if embedding is None else fingerprint(embedding),
        "options": {
            name: fingerprint(value) if isinstance(value, np.ndarray | jax.Array) else value
            for name, value in options.items()
        },
    }
    return describe(settings)


def _check_sizes(batch_sizes: Sequence[int], pool_size: int) -> list[int]:
    if np.ndim(batch_sizes) != 1:
        raise ValueError(
            "batch_sizes: expected a list of the picks of each round, such as [10, 10], "
            f"found {type(batch_sizes).__name__}"
        )
    if len(batch_sizes) == 0:
        raise ValueError("batch_sizes: expected the picks of one round or more, found none")
    sizes = [check_positive(size, "batch_sizes") for size in batch_sizes]
    check_batch_size(sum(sizes), pool_size, "batch_sizes")
    return sizes


def _check_oracle(oracle: Any) -> None:
    if not callable(oracle):
        raise ValueError(
            "oracle: expected a function from rows to labels, such as lambda rows: labels[rows], "
            f"found {type(oracle).__name__}"
        )


def _check_progress(state: ActiveState, sizes: list[int], path: str | Path) -> ActiveState:
    done = [len(record["picks"]) for record in state.history]
    if done != sizes[: len(done)]:
        raise ValueError(
            f"batch_sizes: expected to begin with {done}, the rounds in {path}, found {sizes}"
        )
    return state
