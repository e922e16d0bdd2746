"""Standard active learning, SVPp and ASVP: three ways to choose samples for a network to train on.

The pipelines of "Feature Alignment: Rethinking Efficient Active Learning via Proxy in the Context
of Pre-trained Models" (arXiv 2403.01101):

* ``standard``: each round the network is trained on what is labelled, and the strategy sees its
  features and probabilities.
* ``svpp``: the pool's features are computed once by the pre-trained network, and the strategy sees
  a small proxy that is trained on them each round.
* ``asvp``: the same, and each round a trigger (`jaxal.triggers`) judges whether these features
  still serve. If not, the network is trained on what is labelled and computes them anew.

In all of them the picks are ordered, and the network is trained on as many of the first of them
as one pays for: that final training starts from the pre-trained weights, by LP-FT while labels
are few, by fine-tuning once features had to be refreshed (`lpft_until_refreshed`).
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxal.asktell import HEAD_FIELDS, ActiveState, HeadOutputs, ask, start, tell
from jaxal.asvp.state import (
    PipelineState,
    Training,
    load_pipeline,
    refreshed_at,
    save_pipeline,
)
from jaxal.asvp.triggers import Trigger, score_features, slowing
from jaxal.checks import check_batch_size, check_choice, check_positive
from jaxal.embedding import cluster_embedding
from jaxal.models.saved import load_variables, save_variables
from jaxal.records import describe, fingerprint
from jaxal.select import Strategy, check_options, get_strategy
from jaxal.train.head import PROXY, HeadConfig, check_config, predict_probs
from jaxal.train.network import METHODS, Method, Network, head_of

__all__ = [
    "DEFAULT_CONFIG",
    "PIPELINES",
    "FinalRule",
    "Pipeline",
    "PipelineConfig",
    "lpft_until_refreshed",
    "run_pipeline",
]

Pipeline = Literal["standard", "svpp", "asvp"]
PIPELINES: tuple[Pipeline, ...] = ("standard", "svpp", "asvp")

# (number of labels, whether features had been refreshed by then) -> how the network is trained.
FinalRule = Callable[[int, bool], Method]

_STATE, _TRAININGS = "state.json", "trainings"
_TRAIN_KEY = 2**32 - 1  # beyond all rounds, whose keys are folded from the same seed


def lpft_until_refreshed(num_labeled: int, refreshed: bool) -> Method:
    """Train by LP-FT while labels are few, by fine-tuning once features were refreshed (ASVP)."""
    return "ft" if refreshed else "lpft"


class PipelineConfig(NamedTuple):
    """How a pipeline works."""

    head: HeadConfig = PROXY  # the proxy, of svpp and asvp
    trigger: Trigger = slowing  # when asvp refreshes its features
    tuning: Method = "ft"  # how standard trains each round, and asvp to refresh
    final: Method | FinalRule = lpft_until_refreshed  # how the network is trained in the end
    compare: tuple[Method, ...] = ()  # trained beside it, for comparison
    save_final: bool = True  # whether the final networks' variables are kept, as final-N.npz


DEFAULT_CONFIG = PipelineConfig()


def run_pipeline(
    pipeline: Pipeline,
    strategy: Strategy | str,
    network: Network,
    oracle: Callable[[np.ndarray], ArrayLike],
    batch_sizes: Sequence[int],
    *,
    pool_size: int,
    seed: int,
    folder: str | Path,
    features: ArrayLike | None = None,
    evaluate: Callable[[Mapping[str, Any]], Mapping[str, float]] | None = None,
    config: PipelineConfig = DEFAULT_CONFIG,
    final_at: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    on_event: Callable[[str], None] | None = None,
) -> PipelineState:
    """Select, have labelled, and train the network, going on from ``folder`` where it holds a run.

    The state is saved when a batch is chosen, when it is labelled, after every score and training;
    features that were being computed go on where they stopped, and so does a training of an
    `ImageNetwork` with ``checkpoints``. The seconds of a phase that was cut off count from where it
    went on.

    Args:
      pipeline: "standard", "svpp" or "asvp".
      strategy: one of the library's, or its name.
      network: the network and the pool's images.
      oracle: gives the labels ``[b]`` of the rows ``[b]`` it is called with.
      batch_sizes: picks of each round.
      pool_size: images of the pool.
      seed: decides everything random.
      folder: of this run alone, made where it is missing.
      features: ``[n, d]`` of the pre-trained network, where they are there already; their time is
        then not counted.
      evaluate: maps a trained network's variables to metrics; its time is not counted.
      config: how the pipeline works.
      final_at: numbers of labels, each the end of a round, that the network is finally trained on;
        None for the last one.
      options: keyword options of the strategy.
      on_event: told what is about to be done.

    Returns:
      The final state.

    Raises:
      ValueError: a bad argument, a folder of another run, or training that diverges.
    """
    check_choice(pipeline, "pipeline", Pipeline)
    strategy = get_strategy(strategy)
    options = check_options(strategy, options)
    sizes = [check_positive(size, "batch_sizes") for size in batch_sizes]
    check_batch_size(sum(sizes), pool_size, "batch_sizes")
    ends = _check_ends(final_at, sizes)
    _check_config(config)
    settings = describe(
        {
            "pipeline": pipeline,
            "strategy": strategy.name,
            "network": network.describe(),
            "seed": seed,
            "tuning": config.tuning,
            "options": options,
            "features": None if features is None else fingerprint(features),
            **({"head": config.head} if pipeline != "standard" else {}),
            **({"trigger": config.trigger} if pipeline == "asvp" else {}),
        }
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(pipeline, strategy, network, folder, settings, config, options, evaluate, on_event)
    state = _open(run, start(pool_size, network.num_classes, seed=seed), sizes)
    state = _select(run, state, oracle, sizes, features)
    for count in ends:
        state = _finish(run, state, count)
    return state


class _Run(NamedTuple):
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

    def announce(self, text: str) -> None:
        """Say what is about to be done."""
        if self.on_event is not None:
            self.on_event(text)

    def save(self, state: PipelineState) -> None:
        """Save the run."""
        save_pipeline(state, self.folder / _STATE, self.settings)


def _select(
    run: _Run,
    state: PipelineState,
    oracle: Callable[[np.ndarray], ArrayLike],
    sizes: Sequence[int],
    features: ArrayLike | None,
) -> PipelineState:
    """Go through the rounds that are left."""
    needs = run.strategy.needs_with(run.options)
    embedding, embedded = None, None  # of which features it is
    while state.active.round < len(sizes):
        if not len(state.active.pending):
            labelled, outputs = len(state.active.labeled) > 0, None
            if run.pipeline == "standard" and labelled:
                state, features, outputs = _tune(run, state)
            elif features is None:
                state, features = _load_features(run, state)
            began, known = time.perf_counter(), len(state.trainings)
            if run.pipeline == "asvp" and labelled:
                state, features = _refresh(run, state, features)
            if "embedding" in needs and embedded is not features:
                embedding, embedded = cluster_embedding(features), features
            run.announce(f"choosing {sizes[state.active.round]} samples")
            active, _, _ = ask(
                state.active,
                run.strategy,
                features,
                sizes[state.active.round],
                outputs=outputs,
                head=run.config.head,
                embedding=embedding,
                options=run.options,
            )
            seconds = time.perf_counter() - began
            seconds -= sum(t.seconds for t in state.trainings[known:])
            seconds += outputs.seconds if outputs else 0.0
            state = state._replace(active=active, seconds=(*state.seconds, seconds))
            run.save(state)
        state = state._replace(active=tell(state.active, oracle(state.active.pending)))
        run.save(state)
    return state


def _tune(run: _Run, state: PipelineState) -> tuple[PipelineState, ArrayLike, HeadOutputs]:
    """Train the network on what is labelled, and show the strategy what it says (standard)."""
    count = len(state.active.labeled)
    path = run.folder / f"tuned-{count}.npz"
    state, variables, features = _train_and_embed(run, state, "selection", path)
    trained = head_of(variables, state.active.num_classes)
    began = time.perf_counter()
    probs = None
    if run.strategy.needs_with(run.options) & HEAD_FIELDS:
        probs = predict_probs(trained, features)
    # A linear head's last hidden activations are the features.
    outputs = HeadOutputs(trained, probs, features, count, time.perf_counter() - began)
    return state, features, outputs


def _refresh(
    run: _Run, state: PipelineState, features: ArrayLike
) -> tuple[PipelineState, ArrayLike]:
    """Score the features, and compute them anew where the trigger says so (asvp)."""
    state = _score(run, state, features)
    count = len(state.active.labeled)
    if count in refreshed_at(state) or not run.config.trigger(state.scores):
        return state, features
    path = run.folder / f"refreshed-{len(refreshed_at(state)) + 1}.npz"
    state, _, features = _train_and_embed(run, state, "refresh", path)
    return _score(run, state, features), features


def _train_and_embed(
    run: _Run, state: PipelineState, purpose: str, path: Path
) -> tuple[PipelineState, dict[str, Any], ArrayLike]:
    """Train the network and compute the pool's features, or find both where they are saved."""
    count, method = len(state.active.labeled), run.config.tuning
    if any((t.purpose, t.num_labeled) == (purpose, count) for t in state.trainings):
        variables, _ = load_variables(path)
        return state, variables, run.network.embed(variables, path.with_suffix(".npy"))
    run.announce(f"training by {method} on {count} labels, for {purpose}")
    began = time.perf_counter()
    variables = _train(run, state, count, method)
    features = run.network.embed(variables, path.with_suffix(".npy"))
    seconds = time.perf_counter() - began
    save_variables(path, variables)
    # Those of a refresh serve selection only.
    metrics = _metrics(run, variables) if purpose == "selection" else {}
    training = Training(purpose, count, method, seconds, metrics)
    state = state._replace(trainings=(*state.trainings, training))
    run.save(state)
    _remove_trainings(run)
    for old in (*run.folder.glob("tuned-*"), *run.folder.glob("refreshed-*")):
        if old.stem != path.stem:
            old.unlink()
    return state, variables, features


def _finish(run: _Run, state: PipelineState, count: int) -> PipelineState:
    """Train the network on the first ``count`` picks, as the rule says, and for comparison."""
    refreshed = any(at <= count for at in refreshed_at(state))
    final = run.config.final
    chosen = final(count, refreshed) if callable(final) else final
    check_choice(chosen, "config.final", Method)
    for method in dict.fromkeys((chosen, *run.config.compare)):
        done = {(t.purpose, t.num_labeled, t.method): t for t in state.trainings}
        if ("final", count, method) in done:
            continue
        same = done.get(("selection", count, method))
        if same is not None and (not run.config.save_final or method != chosen):
            training = same._replace(purpose="final")
        else:
            run.announce(f"training by {method} on {count} labels, in the end")
            began = time.perf_counter()
            variables = _train(run, state, count, method)
            seconds = time.perf_counter() - began
            training = Training("final", count, method, seconds, _metrics(run, variables))
            if run.config.save_final and method == chosen:
                save_variables(run.folder / f"final-{count}.npz", variables)
        state = state._replace(trainings=(*state.trainings, training))
        run.save(state)
        _remove_trainings(run)
    return state


def _train(run: _Run, state: PipelineState, count: int, method: Method) -> dict[str, Any]:
    """Train on the first ``count`` picks: the same for all pipelines that picked the same."""
    key = jax.random.fold_in(jax.random.key(state.active.seed), _TRAIN_KEY)
    key = jax.random.fold_in(jax.random.fold_in(key, count), METHODS.index(method))
    return run.network.train(
        key,
        state.active.labeled[:count],
        state.active.labels[:count],
        method,
        folder=run.folder / _TRAININGS / f"{method}-{count}",
    )


def _remove_trainings(run: _Run) -> None:
    """Remove the checkpoints of trainings that are done."""
    shutil.rmtree(run.folder / _TRAININGS, ignore_errors=True)


def _metrics(run: _Run, variables: Mapping[str, Any]) -> dict[str, Any]:
    return {} if run.evaluate is None else dict(run.evaluate(variables))


def _score(run: _Run, state: PipelineState, features: ArrayLike) -> PipelineState:
    """Add the score of these features for what is labelled, where it is not there yet."""
    at = (len(state.active.labeled), len(refreshed_at(state)))
    if any((s.num_labeled, s.version) == at for s in state.scores):
        return state
    score = score_features(features, state.active.labeled, state.active.labels, version=at[1])
    state = state._replace(scores=(*state.scores, score))
    run.save(state)
    return state


def _load_features(run: _Run, state: PipelineState) -> tuple[PipelineState, ArrayLike]:
    """Compute the pool's features, or find those that a resumed run had last."""
    version = len(refreshed_at(state))
    if version:
        path = run.folder / f"refreshed-{version}.npz"
        variables, _ = load_variables(path)
        return state, run.network.embed(variables, path.with_suffix(".npy"))
    run.announce("computing the pool's features")
    began = time.perf_counter()
    features = run.network.embed(None, run.folder / "features.npy")
    if state.embed_seconds == 0:
        state = state._replace(embed_seconds=time.perf_counter() - began)
        run.save(state)
    return state, features


def _open(run: _Run, first: ActiveState, sizes: Sequence[int]) -> PipelineState:
    """Read the run that a folder holds, or begin one."""
    path = run.folder / _STATE
    if not path.exists():
        found = sorted(x.name for x in run.folder.iterdir() if not x.name.startswith("."))
        foreign = [name for name in found if name.split(".")[0] not in ("features", _TRAININGS)]
        if foreign:
            raise ValueError(f"folder: expected a run or an empty folder, found {foreign[0]} in it")
        return PipelineState(first, (), (), (), 0.0)
    state = load_pipeline(path, run.settings)
    if state.active.pool_size != first.pool_size:
        raise ValueError(
            f"pool_size: expected {state.active.pool_size}, as in {path}, found {first.pool_size}"
        )
    done = [len(record["picks"]) for record in state.active.history]
    if done != list(sizes[: len(done)]):
        raise ValueError(
            f"batch_sizes: expected to begin with {done}, the rounds in {path}, found {sizes}"
        )
    return state


def _check_ends(final_at: Sequence[int] | None, sizes: Sequence[int]) -> list[int]:
    ends = np.cumsum(sizes).tolist()
    wanted = ends[-1:] if final_at is None else list(final_at)
    unknown = sorted(set(wanted) - set(ends))
    if unknown:
        raise ValueError(f"final_at: expected some of {ends}, the ends of rounds, found {unknown}")
    return sorted(set(wanted))


def _check_config(config: PipelineConfig) -> None:
    if not isinstance(config, PipelineConfig):
        raise ValueError(f"config: expected a PipelineConfig, found {type(config).__name__}")
    check_config(config.head, "config.head")
    check_choice(config.tuning, "config.tuning", Method)
    for method in config.compare:
        check_choice(method, "config.compare", Method)
    if not callable(config.trigger):
        raise ValueError(
            f"config.trigger: expected a function of the scores, found {config.trigger!r}"
        )
    if not callable(config.final):
        check_choice(config.final, "config.final", Method)
