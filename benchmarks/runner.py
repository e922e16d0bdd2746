"""Run strategies over seeds, save every round, and go on where a run was stopped."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from benchmarks.data import Data, draw_pool
from benchmarks.folder import RUNS
from benchmarks.plan import Entry, Plan, check_plan
from benchmarks.progress import progress
from jaxal.active import ActiveState, HeadOutputs, run
from jaxal.embedding import cluster_embedding
from jaxal.select import Strategy, get_strategy
from jaxal.train.head import LINEAR, PROXY, HeadConfig, predict_probs

__all__ = ["HEADS", "Row", "run_plan"]

HEADS: dict[str, HeadConfig] = {
    "linear": LINEAR,
    "mlp": PROXY,
    "mlp4096": PROXY._replace(hidden=(4096,)),
}


class Row(NamedTuple):
    """One line of the results."""

    strategy: str
    seed: int
    num_labeled: int
    accuracy: float  # on the test set, of a head trained on what is labelled
    pool_accuracy: float  # on the whole pool
    selection_seconds: float
    training_seconds: float
    estimated_risk: float | None  # of NTKCPL, share of the pool
    oracle: bool = False  # whether the strategy saw labels nobody paid for


def run_plan(plan: Plan, data: Data, out: Path) -> list[Row]:
    """Run every strategy with every seed, going on from the files in ``out``.

    Args:
      plan: what to run.
      data: the whole pool and the test set.
      out: the results' folder, from `benchmarks.folder.open_folder`.

    Returns:
      One row a strategy, seed and round.

    Raises:
      ValueError: a saved run is damaged or of other data; or what the library refuses.
    """
    check_plan(plan, len(data.features))
    rows: dict[tuple[str, int], list[Row]] = {}
    with progress([*plan.entries] * len(plan.seeds), len(plan.budgets)) as bar:
        for seed in plan.seeds:
            if not rows or plan.pool_size is not None or plan.holdout is not None:
                pool = draw_pool(
                    data, seed, pool_size=plan.pool_size, holdout=plan.holdout, scale=plan.scale
                )
                embedding = None
            for name, entry in plan.entries.items():
                strategy = get_strategy(entry.strategy)
                needs = strategy.needs_with(entry.options)
                if "embedding" in needs and embedding is None:
                    embedding = cluster_embedding(pool.features)
                bar.start(f"{name}, seed {seed}")
                state = run(
                    strategy,
                    pool.features,
                    functools.partial(np.take, pool.labels),
                    plan.budgets,
                    num_classes=pool.num_classes,
                    seed=seed,
                    path=out / RUNS / f"{name}-{seed}.json",
                    evaluate=functools.partial(_evaluate, pool, bar.step),
                    head=HEADS[plan.head],
                    embedding=embedding if "embedding" in needs else None,
                    options=_options(entry, strategy, HEADS[plan.head], pool),
                )
                rows[name, seed] = _rows(name, seed, state, strategy)
                last = rows[name, seed][-1]
                bar.finish(f"{100 * last.accuracy:.1f} % at {last.num_labeled} labels")
    return [row for name in plan.entries for seed in plan.seeds for row in rows[name, seed]]


def _options(entry: Entry, strategy: Strategy, head: HeadConfig, pool: Data) -> dict[str, Any]:
    """Add to an entry's options what is no choice of its own."""
    given = dict(entry.options)
    taken = inspect.signature(strategy.select).parameters
    # One that trains heads for its choice trains such as all are judged by.
    if "head" in taken and taken["head"].default != head:
        given["head"] = head
    # An oracle sees the labels: what a study allows it, and the report says.
    if strategy.oracle:
        given["true_labels"] = pool.labels
    return given


def _evaluate(
    pool: Data, step: Callable[[], None], state: ActiveState, outputs: HeadOutputs
) -> dict[str, float]:
    def accuracy(probs: ArrayLike, labels: np.ndarray) -> float:
        return float(np.mean(np.asarray(probs).argmax(axis=1) == labels))

    step()
    on_pool = outputs.probs  # predicted already where the next selection reads it
    if on_pool is None:
        on_pool = predict_probs(outputs.trained, pool.features)
    on_test = predict_probs(outputs.trained, pool.test_features)
    return {
        "accuracy": accuracy(on_test, pool.test_labels),
        "pool_accuracy": accuracy(on_pool, pool.labels),
    }


def _rows(name: str, seed: int, state: ActiveState, strategy: Strategy) -> list[Row]:
    rows = []
    for record in state.history:
        risk = (record["info"] or {}).get("risk") if strategy.name == "ntkcpl" else None
        rows.append(
            Row(
                name,
                seed,
                record["num_labeled"],
                record["metrics"]["accuracy"],
                record["metrics"]["pool_accuracy"],
                record["selection_seconds"],
                record["training_seconds"],
                float(risk[-1]) if risk else None,
                strategy.oracle,
            )
        )
    return rows
