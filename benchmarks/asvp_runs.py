"""The runs of the command asvp: which there are, what they have to do, and what comes of them."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.finetune_runs import passes_of, stages_of
from benchmarks.options import read_options
from jaxal.asvp import (
    PIPELINES,
    Pipeline,
    PipelineConfig,
    PipelineState,
    Score,
    Trigger,
    at_labels,
    enough_labels,
    every_round,
    falling,
    final_method,
    never,
    refreshed_at,
    run_pipeline,
    saturating,
    selection_seconds,
    slowing,
)
from jaxal.asvp.pipeline import starts_by_features
from jaxal.data import ImageSource
from jaxal.select import get_strategy
from jaxal.train.network import ImageNetwork, Method

__all__ = [
    "TRIGGERS",
    "Job",
    "Row",
    "Run",
    "count_passes",
    "list_runs",
    "read_pipeline",
    "rows_of",
    "run_one",
    "scores_of",
    "training_passes",
]

TRIGGERS: dict[str, Trigger] = {
    rule.__name__: rule
    for rule in (saturating, slowing, falling, enough_labels, at_labels, every_round, never)
}


class Run(NamedTuple):
    """One pipeline with one strategy and one seed."""

    shown: str  # the pipeline as it is called in reports, such as "asvp:falling"
    pipeline: Pipeline
    trigger: Trigger | None  # of asvp, other than the default
    strategy: str
    seed: int

    @property
    def folder(self) -> str:
        """Name the folder that it is saved in."""
        return f"{self.shown.replace(':', '_').replace('=', '')}-{self.strategy}-{self.seed}"


class Job(NamedTuple):
    """What all runs share."""

    network: ImageNetwork
    test: ImageSource
    features: np.ndarray  # [n, d] of the pre-trained network
    embed_seconds: float  # what they took
    budgets: tuple[int, ...]  # picks a round
    final_at: tuple[int, ...]  # numbers of labels that networks are finally trained on
    config: PipelineConfig

    @property
    def ends(self) -> list[int]:
        """Give the numbers of labels at the ends of rounds."""
        ends: list[int] = np.cumsum(self.budgets).tolist()
        return ends


class Row(NamedTuple):
    """One line of the results: a network trained in the end on the first picks of a run."""

    pipeline: str
    strategy: str
    seed: int
    num_labeled: int
    method: Method
    chosen: bool  # by the rule; others stand beside it for comparison
    accuracy: float  # NaN where the training diverged
    calibration_error: float
    training_seconds: float  # of this network
    selection_seconds: float  # of choosing all that it was trained on, the pool's features too
    selection_passes: float  # images through the encoder for that; a step back counts two
    refreshes: int  # of the features before these picks


def read_pipeline(text: str) -> tuple[str, Pipeline, Trigger | None]:
    """Read ``PIPELINE``, or ``asvp:TRIGGER`` with ``,KEY=VALUE`` behind for its options.

    Raises:
      ValueError: another pipeline, trigger or option.
    """
    name, _, rest = text.partition(":")
    if name not in PIPELINES:
        raise ValueError(f"--pipelines: expected some of {', '.join(PIPELINES)}, found {text!r}")
    if not rest:
        return text, name, None
    trigger, *pairs = re.split(r",(?![^(]*\))", rest)  # not at commas within a tuple
    if name != "asvp" or trigger not in TRIGGERS:
        raise ValueError(f"--pipelines: expected asvp:{'|'.join(TRIGGERS)}, found {text!r}")
    options = read_options(pairs, "--pipelines")
    known = list(inspect.signature(TRIGGERS[trigger]).parameters)[1:]
    for option in options:
        if option not in known:
            expected = ", ".join(known) or "no options"
            raise ValueError(f"--pipelines: {trigger}: expected {expected}, found {option!r}")
    rule = functools.partial(TRIGGERS[trigger], **options) if options else TRIGGERS[trigger]
    try:
        rule([Score(1, 1, 0, 0.0, 0.0)])
    except (TypeError, ValueError) as error:
        raise ValueError(f"--pipelines: {text}: {error}") from error
    return text, name, rule


def list_runs(
    pipelines: Sequence[tuple[str, Pipeline, Trigger | None]],
    strategies: Sequence[str],
    seeds: int,
) -> list[Run]:
    """List all runs; random selection, which no pipeline changes, has one a seed."""
    runs = []
    for seed in range(seeds):
        for strategy in strategies:
            if strategy == "random":
                runs.append(Run("random", "svpp", None, strategy, seed))
                continue
            runs += [Run(*pipeline, strategy, seed) for pipeline in pipelines]
    return runs


def count_passes(job: Job, run: Run) -> dict[str, float]:
    """Estimate what a run has to do, in images through the encoder; a step back counts two.

    Returns:
      Those of "selection" and of "final" trainings, the test set included.
    """
    ends, pool, tuning = job.ends, len(job.network.images), job.config.tuning
    refreshed = _expect_refreshes(job, run) if run.pipeline == "asvp" else []
    tuned = ends[:-1] if run.pipeline == "standard" else refreshed
    selection = sum(training_passes(job.network, tuning, count) + pool for count in tuned)
    selection += pool if _reads_pool(run) else 0
    final = 0.0
    for end in job.final_at:
        chosen = final_method(job.config.final, end, refreshed)
        for method in {chosen, *job.config.compare}:
            final += len(job.test)
            if not (method == tuning and end in tuned):
                final += training_passes(job.network, method, end)
    return {"selection": selection, "final": final}


def _expect_refreshes(job: Job, run: Run) -> list[int]:
    """List at how many labels asvp will refresh; half of them where its rule looks at scores."""
    trigger = run.trigger or job.config.trigger
    rounds = job.ends[:-1]
    if getattr(trigger, "func", trigger) in (saturating, slowing, falling):
        return [count for count in rounds if 2 * count >= job.ends[-1]][:1]
    history: list[Score] = []
    refreshed: list[int] = []
    for count in rounds:
        scored = Score(count, job.network.num_classes, len(refreshed), np.nan, np.nan)
        history.append(scored)
        if trigger(history):
            refreshed.append(count)
            history.append(scored._replace(version=len(refreshed)))
    return refreshed


def _reads_pool(run: Run, state: PipelineState | None = None) -> bool:
    """Tell whether the pre-trained network's features of the pool are used."""
    if run.pipeline != "standard":
        return run.strategy != "random"
    # Which falls back on them where its first training diverges.
    purposes = [] if state is None else [t.purpose for t in state.trainings if t.purpose != "final"]
    return starts_by_features(get_strategy(run.strategy)) or purposes[:1] == ["failed"]


def run_one(
    job: Job, run: Run, folder: Path, on_event: Callable[[str], None] | None = None
) -> PipelineState:
    """Run a pipeline, or what is left of it, to its end."""
    labels = job.network.images.labels
    assert labels is not None
    config = job.config
    if run.trigger is not None:
        config = config._replace(trigger=run.trigger)
    strategy = get_strategy(run.strategy)
    state = run_pipeline(
        run.pipeline,
        strategy,
        job.network,
        functools.partial(np.take, labels),
        job.budgets,
        seed=run.seed,
        folder=folder / run.folder,
        features=job.features,
        evaluate=functools.partial(_evaluate, job.network, job.test),
        config=config,
        final_at=job.final_at,
        options={"true_labels": labels} if strategy.oracle else None,
        on_event=on_event,
    )
    return state._replace(embed_seconds=job.embed_seconds if _reads_pool(run, state) else 0.0)


def rows_of(run: Run, state: PipelineState, job: Job) -> list[Row]:
    """Give the results of a run."""
    refreshed = refreshed_at(state)
    rows = []
    for training in state.trainings:
        count = training.num_labeled
        if training.purpose != "final" or count not in job.final_at:
            continue
        chosen = final_method(job.config.final, count, refreshed)
        rows.append(
            Row(
                run.shown,
                run.strategy,
                run.seed,
                count,
                training.method,
                training.method == chosen,
                training.metrics.get("accuracy", np.nan),
                training.metrics.get("calibration_error", np.nan),
                training.seconds,
                0.0 if run.strategy == "random" else selection_seconds(state, count),
                _selection_passes(job, run, state, count),
                sum(at < count for at in refreshed),
            )
        )
    return rows


def _selection_passes(job: Job, run: Run, state: PipelineState, count: int) -> float:
    pool = len(job.network.images)
    passes = float(pool if _reads_pool(run, state) else 0)
    for training in state.trainings:
        if training.purpose != "final" and training.num_labeled < count:
            passes += training_passes(job.network, training.method, training.num_labeled)
            passes += pool if training.purpose != "failed" else 0
    return passes


def scores_of(run: Run, state: PipelineState) -> list[dict[str, Any]]:
    """Give the scores of a run, one a round from the second and one a refresh."""
    named = {"pipeline": run.shown, "strategy": run.strategy, "seed": run.seed}
    return [{**named, **score._asdict()} for score in state.scores]


def _evaluate(
    network: ImageNetwork, test: ImageSource, variables: Mapping[str, Any]
) -> dict[str, float]:
    assert test.labels is not None
    found = network.evaluate(variables, test, test.labels)
    return {"accuracy": found.accuracy, "calibration_error": found.calibration_error}


def training_passes(network: ImageNetwork, method: Method, count: int) -> int:
    """Count images through the encoder in a training; one that learns goes back as well."""
    return passes_of(stages_of(method, network.ft, network.lpft), count)
