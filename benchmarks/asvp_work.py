"""What the command asvp does: the pool's features, what is compiled ahead, and all runs."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.asvp_runs import Job, Row, Run, count_passes, rows_of, run_one, scores_of
from benchmarks.folder import RUNS
from benchmarks.outcomes import describe_time
from benchmarks.tables import write_csv
from jaxal.asktell import ask, start
from jaxal.select import STRATEGIES
from jaxal.train.batches import next_capacity
from jaxal.train.epochs import DivergedError
from jaxal.train.network import compiled_encoder
from jaxal.train.recipes import FinetuneConfig, LpftConfig

__all__ = ["FEATURES", "is_done", "run_all", "warm_up", "with_features"]

FEATURES = "features"


def with_features(out: Path, job: Job) -> Job:
    """Compute the pool's features once for all runs, and remember how long it took."""
    network, clock = job.network, out / f"{FEATURES}-seconds"
    known = float(clock.read_text()) if clock.exists() else None
    first = network.images.load(np.zeros(min(network.chunk_size, len(network.images)), np.int64))
    jax.block_until_ready(
        compiled_encoder(network.encoder, network.prepare)(network.variables, first)
    )
    began = time.perf_counter()
    features = network.embed(None, out / f"{FEATURES}.npy")
    seconds = time.perf_counter() - began if known is None else known
    clock.write_text(f"{seconds}\n")
    return job._replace(features=features, embed_seconds=seconds)


def warm_up(job: Job, runs: Sequence[Run]) -> None:
    """Compile what the runs have in common, so that the first of them is not charged for it."""
    network, config = job.network, job.config
    if any(c.schedule.milestones for c in (network.ft, *network.lpft)):
        return  # long ones: compilation is nothing beside them
    few = dataclasses.replace(
        network, ft=_few(network.ft), lpft=LpftConfig(*map(_few, network.lpft)), checkpoints=False
    )
    # Labelled sets are padded: those of one padded size share programs.
    trained = [(config.tuning, count) for count in job.ends[:-1]]
    known = [config.final] if isinstance(config.final, str) else ["lpft", "ft"]
    finally_by = (*known, *config.compare)
    trained += [(method, count) for method in finally_by for count in job.final_at]
    for (method, _), count in {(m, next_capacity(n)): n for m, n in trained}.items():
        with contextlib.suppress(DivergedError):  # which a run is told of, where it does
            few.train(jax.random.key(0), np.arange(count), np.zeros(count, np.int32), method)
    for strategy in dict.fromkeys(run.strategy for run in runs):
        for count, more in zip(job.ends, job.budgets[1:], strict=False):
            if STRATEGIES[strategy].oracle:
                continue
            labels = np.arange(count) % network.num_classes
            state = start(
                len(job.features),
                network.num_classes,
                seed=0,
                labeled=np.arange(count),
                labels=labels,
            )
            ask(state, strategy, job.features, more, head=config.head)


def _few(config: FinetuneConfig) -> FinetuneConfig:
    """Shorten a training to its first epochs; its step is the same program."""
    return config._replace(epochs=min(config.epochs, int(config.schedule.warmup_epochs) + 1))


def is_done(job: Job, run: Run, out: Path) -> bool:
    """Tell whether a run has been trained in the end at every number of labels."""
    path = out / RUNS / run.folder / "state.json"
    if not path.exists():
        return False
    try:
        trainings = json.loads(path.read_text(encoding="utf-8"))["content"]["trainings"]
    except (KeyError, TypeError, ValueError):
        return False  # who reads it says what is wrong
    final = {t["num_labeled"] for t in trainings if t["purpose"] == "final"}
    return final >= set(job.final_at)


def run_all(out: Path, job: Job, runs: Sequence[Run]) -> tuple[list[Row], list[dict[str, Any]]]:
    """Run all that is left, saving the results after each run."""
    rows: list[Row] = []
    scores: list[dict[str, Any]] = []
    for run in runs:  # those of other settings are refused before anything is run
        if is_done(job, run, out):
            run_one(job, run, out / RUNS)
    work = [sum(count_passes(job, run).values()) for run in runs]
    began, ran = time.perf_counter(), 0.0
    for i, run in enumerate(runs):
        fresh = not (out / RUNS / run.folder / "state.json").exists()
        state = run_one(job, run, out / RUNS, _reporter(run))
        for training in state.trainings:
            if "error" in training.metrics:
                print(
                    f"{run.shown}, {run.strategy}, seed {run.seed}, {training.method} on "
                    f"{training.num_labeled} labels: {training.metrics['error']}",
                    flush=True,
                )
        found = rows_of(run, state, job)
        rows += found
        scores += scores_of(run, state)
        write_csv([row._asdict() for row in rows], out / "results.csv")
        if scores:
            write_csv(scores, out / "scores.csv")
        ran += work[i] if fresh else 0.0
        left = (time.perf_counter() - began) * sum(work[i + 1 :]) / ran if ran else 0.0
        last = next(row for row in reversed(found) if row.chosen)
        print(
            f"[{i + 1}/{len(runs)}, {describe_time(left)} left] {run.shown}, {run.strategy}, seed "
            f"{run.seed}: {100 * last.accuracy:.1f} % at {last.num_labeled} labels",
            flush=True,
        )
    return rows, scores


def _reporter(run: Run) -> Any:
    """Show what a run is doing, on one line of a terminal."""
    if not sys.stderr.isatty():
        return None

    def tell(text: str) -> None:
        print(
            f"\r\x1b[K{run.shown}, {run.strategy}, seed {run.seed}: {text}",
            end="\r",
            file=sys.stderr,
        )

    return tell
