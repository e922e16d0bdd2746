"""The runs of the command as3l: choose labels, make the prior, train, and judge as it goes."""

import functools
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.as3l_priors import choose, judge_prior, propagate
from jaxal.data import ImageSource
from jaxal.models.fingerprints import tree_digest
from jaxal.records import describe, fingerprint, read_record, replacing, write_record
from jaxal.select import Pool
from jaxal.train.batches import fetcher
from jaxal.train.evaluate import evaluate, make_apply
from jaxal.train.semi_recipes import SemiConfig
from jaxal.train.semisupervised import train_semi
from jaxal.train.supervised import Prepare, as_floats
from jaxal.train.thresholds import Method

__all__ = [
    "Choice",
    "Job",
    "Outcome",
    "Row",
    "Run",
    "is_done",
    "list_runs",
    "make_choice",
    "run_one",
    "time_step",
]

_TIMED = 10  # steps


class Run(NamedTuple):
    """One training."""

    selection: str
    num_labels: int
    method: Method
    prior: bool  # whether the prior pseudo-labels are mixed in
    seed: int

    @property
    def name(self) -> str:
        """Name what the run is saved as."""
        kind = "prior" if self.prior else "base"
        return f"{self.selection}-{self.num_labels}-{self.method}-{kind}-{self.seed}"

    @property
    def way(self) -> str:
        """Say how the run trains."""
        return f"{self.method} + prior" if self.prior else self.method


class Job(NamedTuple):
    """What all runs share."""

    images: ImageSource | np.ndarray  # the pool
    labels: np.ndarray  # [n] true classes: of chosen samples, and to judge by
    test: ImageSource | np.ndarray
    test_labels: np.ndarray
    pool: Pool  # features and embedding to choose by, nothing labelled
    classifier: nn.Module
    variables: Mapping[str, Any]  # of the encoder
    prepare: Prepare | None
    config: SemiConfig
    prior: str  # how priors are made, of `as3l_priors.PRIORS`
    mesh: Mesh | None
    hard: bool = False  # whether the prior is each sample's likeliest class, not shares
    stop_at: int | None = None  # steps, where trainings stop before their schedule's end
    checkpoints: bool = True  # whether a run is saved at every record, to go on from there


class Row(NamedTuple):
    """What a run came to."""

    selection: str
    num_labels: int
    method: str
    prior: bool
    seed: int
    covered: int  # classes with a label
    prior_accuracy: float  # of samples without label; NaN where all have one
    prior_calibration: float  # expected calibration error, likewise
    accuracy: float  # of the test set, in the end
    pseudo_accuracy: float  # of the samples trained on, as they were last
    steps: int
    choice_seconds: float  # of choosing the labels and making the prior, compilation included


class Choice(NamedTuple):
    """What trainings of one seed share: the labels chosen, and the prior made of them."""

    rows: np.ndarray  # [l] int64
    labels: np.ndarray  # [l]
    shares: np.ndarray  # [n, c]
    seconds: float


class Outcome(NamedTuple):
    """A run's result and its history."""

    row: Row
    history: list[dict[str, Any]]  # as of `train_semi`, with `test_accuracy`


def list_runs(
    selections: Sequence[str], budgets: Sequence[int], methods: Sequence[Method], seeds: int
) -> list[Run]:
    """List all runs, without the prior and with it, seed by seed."""
    return [
        Run(selection, count, method, prior, seed)
        for seed in range(seeds)
        for count in budgets
        for selection in selections
        for method in methods
        for prior in (False, True)
    ]


def make_choice(job: Job, run: Run, folder: Path) -> Choice:
    """Choose the labels of a run and make the prior, which all its ways to train share.

    They are kept in ``folder``, since a training that goes on needs the very same.
    """
    path = folder / f"choice-{run.selection}-{run.num_labels}-{job.prior}-{run.seed}.npz"
    if path.exists():
        with np.load(path) as saved:
            rows, shares = saved["rows"], saved["shares"]
            return Choice(rows, job.labels[rows], shares, float(saved["seconds"]))
    began = time.perf_counter()
    key = jax.random.key(run.seed)
    rows = choose(run.selection, jax.random.fold_in(key, 0), job.pool, run.num_labels, job.labels)
    shares = propagate(job.prior, jax.random.fold_in(key, 1), job.pool, rows, job.labels[rows])
    seconds = time.perf_counter() - began
    with replacing(path) as file:
        np.savez(file, rows=rows, shares=shares, seconds=seconds)
    return Choice(rows, job.labels[rows], shares, seconds)


def is_done(job: Job, run: Run, folder: Path) -> bool:
    """Tell whether a run is saved with all its steps.

    Raises:
      ValueError: it is saved with other settings.
    """
    path = folder / f"{run.name}.json"
    return path.exists() and read_record(path, _settings(job, run))["row"]["steps"] >= _end(job)


def run_one(
    job: Job,
    run: Run,
    folder: Path,
    choice: Choice | None = None,
    on_record: Callable[[Mapping[str, Any]], None] | None = None,
) -> Outcome:
    """Run one training, or what is left of it; what is done before is read.

    Args:
      job: what all runs share.
      run: the training.
      folder: where it is saved.
      choice: of `make_choice`; None to make it.
      on_record: called with every record.
    """
    settings = _settings(job, run)
    done, saved = folder / f"{run.name}.json", folder / run.name
    if is_done(job, run, folder):
        found = read_record(done, settings)
        fields: dict[str, Any] = {
            name: math.nan if value is None else value for name, value in found["row"].items()
        }
        if fields["steps"] == job.config.steps:
            shutil.rmtree(saved, ignore_errors=True)
        return Outcome(Row(**fields), found["history"])
    rows, labels, shares, seconds = make_choice(job, run, folder) if choice is None else choice
    judged = judge_prior(shares, job.labels, rows)
    given = shares.argmax(1) if job.hard else shares
    trained = train_semi(
        jax.random.fold_in(jax.random.key(run.seed), 2),
        job.classifier,
        _with_head(job, run.seed),
        job.images,
        rows,
        labels,
        config=job.config._replace(method=run.method),
        prior=given if run.prior else None,
        prepare=job.prepare,
        mesh=job.mesh,
        stop_at=job.stop_at,
        monitor=functools.partial(_judge, job),
        # What was begun with checkpoints goes on with them.
        checkpoint=saved if job.checkpoints or saved.exists() else None,
        on_record=None if on_record is None else lambda record, _: on_record(record),
    )
    last = trained.history[-1]
    row = Row(
        *run,
        covered=len(np.unique(labels)),
        prior_accuracy=judged[0],
        prior_calibration=judged[1],
        accuracy=last["test_accuracy"],
        pseudo_accuracy=last["pseudo_accuracy"],
        steps=last["step"],
        choice_seconds=seconds,
    )
    outcome = Outcome(row, [dict(record) for record in trained.history])
    write_record(done, {"row": row._asdict(), "history": outcome.history}, settings)
    if row.steps == job.config.steps:
        shutil.rmtree(saved, ignore_errors=True)
    return outcome


def _end(job: Job) -> int:
    return job.config.steps if job.stop_at is None else min(job.stop_at, job.config.steps)


def time_step(job: Job) -> float:
    """Measure the seconds of a step, compiled."""
    times: list[float] = []
    config = job.config._replace(steps=2 * _TIMED, record_every=_TIMED)
    count = min(job.pool.num_classes, len(job.images))
    train_semi(
        jax.random.key(0),
        job.classifier,
        _with_head(job, 0),
        job.images,
        np.arange(count),
        np.arange(count),
        config=config,
        prepare=job.prepare,
        mesh=job.mesh,
        on_record=lambda *_: times.append(time.perf_counter()),
    )
    return (times[1] - times[0]) / _TIMED


def _settings(job: Job, run: Run) -> dict[str, Any]:
    return {
        "run": run._asdict(),
        "config": describe(job.config._replace(method=run.method)),
        "features": fingerprint(job.pool.features),
        "labels": fingerprint(job.labels),
        "variables": tree_digest(dict(job.variables)),
        "classifier": describe(job.classifier),
        "prior": job.prior,
        "hard": job.hard,
    }


def _judge(job: Job, variables: dict[str, Any], used: np.ndarray) -> dict[str, float]:
    apply = make_apply(job.classifier, variables, prepare=job.prepare)
    found = evaluate(apply, job.test, job.test_labels, job.pool.num_classes, mesh=job.mesh)
    known = used >= 0
    return {
        "test_accuracy": found.accuracy,
        "pseudo_accuracy": float((used == job.labels)[known].mean()) if known.any() else 0.0,
        "pseudo_share": float(known.mean()),
    }


def _with_head(job: Job, seed: int) -> dict[str, Any]:
    """Draw a head for the encoder's weights."""
    first = as_floats(jnp.asarray(fetcher(job.images)(np.zeros(1, np.int64))))
    drawn = jax.jit(job.classifier.init)(
        jax.random.key(seed), first if job.prepare is None else job.prepare(first)
    )
    variables = {name: dict(tree) for name, tree in drawn.items()}
    for name, tree in job.variables.items():
        variables[name]["encoder"] = tree
    return variables
