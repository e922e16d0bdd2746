"""Run strategies over seeds, save every round, and go on where a run was stopped."""

import contextlib
import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.data import Data, draw_pool
from benchmarks.progress import progress
from jaxal.active import run
from jaxal.asktell import ActiveState, HeadOutputs
from jaxal.checks import check_batch_size, check_positive
from jaxal.neighbors import neighbor_indices
from jaxal.records import fingerprint
from jaxal.select import STRATEGIES, get_strategy
from jaxal.train.head import LINEAR, PROXY, HeadConfig, predict_probs

__all__ = ["HEADS", "Plan", "Row", "check_plan", "open_folder", "run_plan"]

HEADS: dict[str, HeadConfig] = {"mlp": PROXY, "linear": LINEAR}
SETTINGS, RUNS, FEATURES = "settings.json", "runs", "features.npy"
_WRITTEN = (SETTINGS, FEATURES, "results.csv", "table.md", "curves.png", "risk.png")


class Plan(NamedTuple):
    """What to run."""

    dataset: str
    strategies: tuple[str, ...]
    budgets: tuple[int, ...]  # picks of each round
    seeds: tuple[int, ...]
    head: str = "linear"  # of `HEADS`
    pool_size: int | None = None  # random rows, by seed; None: all
    scale: bool = True  # features to a mean norm of one
    options: Mapping[str, Any] = {}  # for ntkcpl
    variants: Mapping[str, Mapping[str, Any]] = {}  # ntkcpl again, by name, with other options
    holdout: int | None = None  # rows kept out of the pool, by seed, to test on; None: the test set


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


def check_plan(plan: Plan, available: int | None = None) -> None:
    """Check a plan before any work starts.

    Args:
      plan: what to run.
      available: rows of the pool, where known.

    Raises:
      ValueError: unknown strategies or options, repeated names or seeds, or too large a budget.
    """
    for name, found in (("strategies", plan.strategies), ("seeds", plan.seeds)):
        if len(set(found)) < len(found) or not (found or (name == "strategies" and plan.variants)):
            raise ValueError(f"{name}: expected at least one, each once, found {list(found)}")
    for name in plan.strategies:
        get_strategy(name)
    if not plan.budgets:
        raise ValueError("budgets: expected at least one round, found none")
    for size in plan.budgets:
        check_positive(size, "budgets")
    for flag, asked in (("pool-size", plan.pool_size), ("holdout", plan.holdout)):
        if asked is not None:
            check_positive(asked, flag)
    if available is not None:
        kept = available - (plan.holdout or 0)
        if (plan.pool_size or 1) > kept:
            beside = f" beside {plan.holdout} held out" if plan.holdout else ""
            raise ValueError(
                f"pool-size: expected at most {kept}{beside}, found {plan.pool_size or 'all'}"
            )
        check_batch_size(sum(plan.budgets), plan.pool_size or kept, "budgets")
    elif plan.pool_size is not None:
        check_batch_size(sum(plan.budgets), plan.pool_size, "budgets")
    if plan.options and "ntkcpl" not in plan.strategies:
        raise ValueError("option: expected ntkcpl among the strategies, it is what takes them")
    _check_options("option", plan.options)
    for name, options in plan.variants.items():
        if name in STRATEGIES or not re.fullmatch(r"[\w.+]+", name):
            raise ValueError(
                "variant: expected a name of letters, digits, _ . + that is no strategy's, "
                f"found {name!r}"
            )
        _check_options(f"variant {name}", options)


def _check_options(flag: str, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(get_strategy("ntkcpl").select).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"batch_size"}
    for name in options:
        if name not in known:
            expected = ", ".join(sorted(known))
            raise ValueError(f"{flag}: expected one of {expected}, found {name!r}")


def open_folder(out: Path, plan: Plan, data: Data | None, *, resume: bool, overwrite: bool) -> None:
    """Make the results' folder ready, or refuse it.

    Args:
      out: the folder, made where missing.
      plan: what is to run; written to ``settings.json``.
      data: what it runs on, whose fingerprint goes there too; None for data the plan determines.
      resume: go on with what is there.
      overwrite: remove an earlier benchmark's files first, and no others.

    Raises:
      ValueError: the folder holds something else, or results that may not be touched.
    """
    prints = None if data is None else {k: _fingerprint(v) for k, v in data._asdict().items()}
    wanted = json.loads(json.dumps({**plan._asdict(), "data": prints}))
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: expected a folder, found the file {out}")
    if out.is_dir() and any(out.iterdir()):
        found = _read_settings(out)
        differing = [
            f"{name}: now {wanted.get(name)!r}, there {found.get(name)!r}"
            for name in sorted(wanted.keys() | found.keys())
            if wanted.get(name) != found.get(name)
        ]
        if overwrite:
            _clear(out)
        elif differing:
            raise ValueError(
                f"{out}: holds results of other settings ({'; '.join(differing)}); "
                "choose another --out, or pass --overwrite"
            )
        elif not resume:
            raise ValueError(
                f"{out}: holds results of these settings; pass --resume to go on with them, "
                "or --overwrite"
            )
    (out / RUNS).mkdir(parents=True, exist_ok=True)
    temporary = out / f".{SETTINGS}.tmp"
    temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    temporary.replace(out / SETTINGS)


def _fingerprint(value: Any) -> Any:
    return fingerprint(value) if isinstance(value, np.ndarray) else value


def _read_settings(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{out}: expected an empty folder or a benchmark's, found other files"
        ) from None
    except ValueError as error:
        raise ValueError(f"{out / SETTINGS}: damaged ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{out / SETTINGS}: damaged")
    return found


def _clear(out: Path) -> None:
    for path in [out / name for name in _WRITTEN] + sorted((out / RUNS).glob("*-*.json")):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def run_plan(plan: Plan, data: Data, out: Path) -> list[Row]:
    """Run every strategy with every seed, going on from the files in ``out``.

    Args:
      plan: what to run.
      data: the whole pool and the test set.
      out: the results' folder, from `open_folder`.

    Returns:
      One row a strategy, seed and round.

    Raises:
      ValueError: a saved run is damaged or of other data; or what the library refuses.
    """
    check_plan(plan, len(data.features))
    rows: dict[tuple[str, int], list[Row]] = {}
    options = {**dict.fromkeys(plan.strategies), "ntkcpl": plan.options, **plan.variants}
    names = (*plan.strategies, *plan.variants)
    with progress(len(names) * len(plan.seeds), len(plan.budgets)) as bar:
        for seed in plan.seeds:
            if not rows or plan.pool_size is not None or plan.holdout is not None:
                pool = draw_pool(
                    data, seed, pool_size=plan.pool_size, holdout=plan.holdout, scale=plan.scale
                )
                neighbors = None
            for name in names:
                strategy = get_strategy("ntkcpl" if name in plan.variants else name)
                if "neighbors" in strategy.needs and neighbors is None:
                    neighbors = neighbor_indices(pool.features)
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
                    neighbors=neighbors if "neighbors" in strategy.needs else None,
                    options=options[name],
                )
                rows[name, seed] = _rows(name, seed, state)
                last = rows[name, seed][-1]
                bar.finish(f"{100 * last.accuracy:.1f} % at {last.num_labeled} labels")
    return [row for name in names for seed in plan.seeds for row in rows[name, seed]]


def _evaluate(
    pool: Data, step: Callable[[], None], state: ActiveState, outputs: HeadOutputs
) -> dict[str, float]:
    def accuracy(features: np.ndarray, labels: np.ndarray) -> float:
        probs = np.asarray(predict_probs(outputs.trained, features))
        return float(np.mean(probs.argmax(axis=1) == labels))

    step()
    return {
        "accuracy": accuracy(pool.test_features, pool.test_labels),
        "pool_accuracy": accuracy(pool.features, pool.labels),
    }


def _rows(name: str, seed: int, state: ActiveState) -> list[Row]:
    rows = []
    for record in state.history:
        info = record["info"] or {}
        risk = info.get("risk")
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
            )
        )
    return rows
