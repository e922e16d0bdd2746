"""The trainings of a pipeline's run: which are done, what they leave behind, how they end."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

from jaxal.asvp.config import Pipeline, PipelineConfig, final_method
from jaxal.asvp.state import PipelineState, Training, refreshed_at, save_pipeline
from jaxal.models.saved import load_variables, save_variables
from jaxal.select import Strategy
from jaxal.train.epochs import DivergedError
from jaxal.train.network import METHODS, Method, Network

__all__ = ["STATE", "TRAININGS", "Run", "finish", "tidy", "train_and_embed", "try_features"]

STATE, TRAININGS = "state.json", "trainings"
_TRAIN_KEY = 2**32 - 1  # beyond all rounds, whose keys are folded from the same seed


class Run(NamedTuple):
    """What all phases share."""

    pipeline: Pipeline
    strategy: Strategy
    network: Network
    folder: Path
    settings: Mapping[str, Any]
    config: PipelineConfig
    options: Mapping[str, Any]
    evaluate: Callable[[Mapping[str, Any]], Mapping[str, float]] | None
    on_event: Callable[[str], None] | None
    sizes: Sequence[int]  # picks of each round
    ends: Sequence[int]  # numbers of labels that the network is finally trained on

    def announce(self, text: str) -> None:
        """Say what is about to be done."""
        if self.on_event is not None:
            self.on_event(text)

    def save(self, state: PipelineState) -> None:
        """Save the run."""
        save_pipeline(state, self.folder / STATE, self.settings)


def try_features(
    run: Run, state: PipelineState, purpose: str, count: int
) -> tuple[PipelineState, tuple[dict[str, Any], ArrayLike] | None]:
    """Train and compute features, unless that diverges or did before."""
    if _failure(state, count, run.config.tuning) is not None:
        return state, None
    began = time.perf_counter()
    try:
        state, variables, features = train_and_embed(run, state, purpose, count)
    except DivergedError as error:
        run.announce(f"no new features at {count} labels: {error}")
        seconds = time.perf_counter() - began
        failed = Training("failed", count, run.config.tuning, seconds, 0.0, {"error": str(error)})
        state = state._replace(trainings=(*state.trainings, failed))
        run.save(state)
        return state, None
    return state, (variables, features)


def train_and_embed(
    run: Run, state: PipelineState, purpose: str, count: int
) -> tuple[PipelineState, dict[str, Any], ArrayLike]:
    """Train the network and compute the pool's features, or find both where they are saved."""
    method = run.config.tuning
    variables, seconds = _train(run, state, count, method, purpose)
    began = time.perf_counter()
    features = run.network.embed(variables, _features_path(run, count))
    if not any((t.purpose, t.num_labeled) == (purpose, count) for t in state.trainings):
        training = Training(purpose, count, method, seconds, time.perf_counter() - began)
        state = state._replace(trainings=(*state.trainings, training))
        run.save(state)
    return state, variables, features


def finish(run: Run, state: PipelineState, count: int) -> PipelineState:
    """Train the network on the first ``count`` picks, as the rule says, and for comparison."""
    chosen = final_method(run.config.final, count, refreshed_at(state))
    for method in dict.fromkeys((chosen, *run.config.compare)):
        done = {(t.num_labeled, t.method): t for t in state.trainings if t.purpose == "final"}
        known = done.get((count, method))
        wanted = run.config.save_final and method == chosen
        if known is not None and (
            not wanted or "error" in known.metrics or _network_path(run, count, method).exists()
        ):
            continue
        training = _train_finally(run, state, count, method, evaluated=known is not None)
        if known is None:
            state = state._replace(trainings=(*state.trainings, training))
            run.save(state)
    return state


def _train_finally(
    run: Run, state: PipelineState, count: int, method: Method, *, evaluated: bool
) -> Training:
    """Train in the end and evaluate, or say how it diverged, now or when it was to serve."""
    failed = _failure(state, count, method)
    if failed is not None:
        return failed._replace(purpose="final")
    began = time.perf_counter()
    metrics: dict[str, Any]
    try:
        variables, seconds = _train(run, state, count, method, "the end")
        metrics = {} if evaluated or run.evaluate is None else dict(run.evaluate(variables))
    except DivergedError as error:
        run.announce(f"{method} on {count} labels: {error}")
        seconds, metrics = time.perf_counter() - began, {"error": str(error)}
    return Training("final", count, method, seconds, 0.0, metrics)


def _failure(state: PipelineState, count: int, method: Method) -> Training | None:
    """Find the training that was to serve selection, where it diverged."""
    for training in state.trainings:
        if (training.purpose, training.num_labeled, training.method) == ("failed", count, method):
            return training
    return None


def _train(
    run: Run, state: PipelineState, count: int, method: Method, purpose: str
) -> tuple[dict[str, Any], float]:
    """Train on the first ``count`` picks, or find what was trained on them: variables, seconds.

    All pipelines that picked the same train the same.
    """
    path = _network_path(run, count, method)
    if path.exists():
        variables, about = load_variables(path)
        return variables, float(about["seconds"])
    run.announce(f"training by {method} on {count} labels, for {purpose}")
    key = jax.random.fold_in(jax.random.key(state.active.seed), _TRAIN_KEY)
    key = jax.random.fold_in(jax.random.fold_in(key, count), METHODS.index(method))
    checkpoint = run.folder / TRAININGS / path.stem
    began = time.perf_counter()
    variables = run.network.train(
        key,
        state.active.labeled[:count],
        state.active.labels[:count],
        method,
        folder=checkpoint,
    )
    seconds = time.perf_counter() - began
    save_variables(path, variables, {"seconds": seconds})
    shutil.rmtree(checkpoint, ignore_errors=True)
    return variables, seconds


def tidy(run: Run, state: PipelineState) -> None:
    """Remove networks, features and checkpoints that nothing needs any more."""
    kept = set()
    served = [t.num_labeled for t in state.trainings if t.purpose in ("selection", "refresh")]
    if served and state.active.round < len(run.sizes):
        kept |= {_network_path(run, served[-1], run.config.tuning)}
        kept |= {path for path in run.folder.glob(f"features-{served[-1]}.*")}
    for training in state.trainings if run.config.save_final else ():
        count, method = training.num_labeled, training.method
        chosen = final_method(run.config.final, count, refreshed_at(state))
        own = method == chosen or method not in run.config.compare
        if training.purpose == "final" and own:
            kept.add(_network_path(run, count, method))
    saved = (path for method in METHODS for path in run.folder.glob(f"{method}-*.npz"))
    for path in (*saved, *run.folder.glob("features-*")):
        if path not in kept:
            path.unlink()
    shutil.rmtree(run.folder / TRAININGS, ignore_errors=True)


def _network_path(run: Run, count: int, method: Method) -> Path:
    return run.folder / f"{method}-{count}.npz"


def _features_path(run: Run, count: int) -> Path:
    return run.folder / f"features-{count}.npy"
