"""The active learning loop: rounds of selection, labelling and training, saved and resumed.

A run that was killed at any moment goes on from its file to the picks it would have made, since
those of a round depend on the seed, the round and what is labelled only (`jaxal.asktell`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxal.asktell import (
    HEAD_FIELDS,
    ActiveState,
    HeadOutputs,
    ask,
    fit_head,
    load,
    save,
    start,
    tell,
)
from jaxal.checks import check_batch_size, check_features, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.neighbors import neighbor_indices
from jaxal.records import fingerprint, plain
from jaxal.select import Strategy, get_strategy
from jaxal.train.head import PROXY, HeadConfig, check_config

__all__ = [
    "ActiveState",
    "HeadOutputs",
    "ask",
    "fit_head",
    "load",
    "run",
    "save",
    "start",
    "tell",
]


def run(
    strategy: Strategy | str,
    features: ArrayLike,
    oracle: Callable[[np.ndarray], ArrayLike],
    batch_sizes: Sequence[int],
    *,
    num_classes: int,
    seed: int,
    path: str | Path | None = None,
    evaluate: Callable[[ActiveState, HeadOutputs], Mapping[str, float]] | None = None,
    head: HeadConfig = PROXY,
    neighbors: ArrayLike | None = None,
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
      path: where to save, or None.
      evaluate: maps the state and its head after a round to metrics for the record.
      head: the head and its training.
      neighbors: ``[n, k]`` integers, each sample's nearest others; found here, once, 20 of them,
        where the strategy needs them and none are given.
      options: keyword options of the strategy.
      chunk_size: rows the head predicts at once; changes no result.

    Returns:
      The final state.

    Raises:
      ValueError: a bad argument, a budget over the pool, or a file of another run.
    """
    strategy = get_strategy(strategy) if isinstance(strategy, str) else strategy
    check_features(features)
    check_config(head)
    state = start(np.shape(features)[0], num_classes, seed=seed)
    sizes = [check_positive(size, "batch_sizes") for size in batch_sizes]
    check_batch_size(sum(sizes), state.pool_size, "batch_sizes")
    settings = {}
    if path is not None:
        settings = _settings(strategy, features, num_classes, seed, head, neighbors, options or {})
        if Path(path).exists():
            state = _check_progress(load(path, settings), sizes, path)
    if neighbors is None and "neighbors" in strategy.needs:
        neighbors = neighbor_indices(features)
    fields = strategy.needs & HEAD_FIELDS
    outputs: HeadOutputs | None = None
    while True:
        if state.round and not len(state.pending) and "metrics" not in state.history[-1]:
            needed = fields if state.round < len(sizes) else frozenset()
            if needed or evaluate:
                outputs = fit_head(state, features, head=head, fields=needed, chunk_size=chunk_size)
            state = _finished(state, outputs, evaluate)
            _save(state, path, settings)
        if state.round == len(sizes):
            return state
        state, picks, _ = ask(
            state,
            strategy,
            features,
            sizes[state.round],
            outputs=outputs,
            head=head,
            neighbors=neighbors,
            options=options,
            chunk_size=chunk_size,
        )
        _save(state, path, settings)
        state, outputs = tell(state, oracle(picks)), None
        _save(state, path, settings)


def _finished(
    state: ActiveState,
    outputs: HeadOutputs | None,
    evaluate: Callable[[ActiveState, HeadOutputs], Mapping[str, float]] | None,
) -> ActiveState:
    metrics = evaluate(state, outputs) if evaluate and outputs else {}
    record = {
        **state.history[-1],
        "training_seconds": outputs.seconds if outputs else 0.0,
        "metrics": plain(metrics, "metrics"),
    }
    return state._replace(history=(*state.history[:-1], record))


def _save(state: ActiveState, path: str | Path | None, settings: Mapping[str, Any]) -> None:
    if path is not None:
        save(state, path, settings)


def _settings(
    strategy: Strategy,
    features: ArrayLike,
    num_classes: int,
    seed: int,
    head: HeadConfig,
    neighbors: ArrayLike | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect what the picks depend on; batch sizes stay out so that a run can be lengthened."""
    return {
        "strategy": strategy.name,
        "features": fingerprint(features),
        "num_classes": num_classes,
        "seed": seed,
        "head": head,
        "neighbors": None if neighbors is None else fingerprint(neighbors),
        "options": {
            name: fingerprint(value) if isinstance(value, np.ndarray | jax.Array) else value
            for name, value in options.items()
        },
    }


def _check_progress(state: ActiveState, sizes: list[int], path: str | Path) -> ActiveState:
    done = [len(record["picks"]) for record in state.history]
    if done != sizes[: len(done)]:
        raise ValueError(
            f"batch_sizes: expected to begin with {done}, the rounds in {path}, found {sizes}"
        )
    return state
