"""Standard active learning, SVPp and ASVP: three ways to choose samples for a network to train on.

The pipelines of "Feature Alignment: Rethinking Efficient Active Learning via Proxy in the Context
of Pre-trained Models" (arXiv 2403.01101):

* ``standard``: each round the network is trained on what is labelled, and the strategy sees its
  features and probabilities.
* ``svpp``: the pool's features are computed once by the pre-trained network, and the strategy sees
  a small proxy that is trained on them each round.
* ``asvp``: the same, and each round a trigger (`jaxal.asvp.triggers`) judges whether these features
  still serve. If not, the network is trained on what is labelled and computes them anew; the
  strategy sees the network itself that once (ours), and proxies on its features from then on.

In all of them the picks are ordered, and the network is trained on as many of the first of them
as one pays for: that final training starts from the pre-trained weights, by LP-FT while labels
are few, by fine-tuning once features had to be refreshed (`lpft_until_refreshed`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxal.asktell import HEAD_FIELDS, ActiveState, HeadOutputs, ask, start, tell
from jaxal.asvp.config import (
    DEFAULT_CONFIG,
    Pipeline,
    PipelineConfig,
    check_pipeline_config,
)
from jaxal.asvp.state import (
    PipelineState,
    load_pipeline,
    refreshed_at,
)
from jaxal.asvp.trainings import (
    STATE,
    TRAININGS,
    Run,
    finish,
    tidy,
    train_and_embed,
    try_features,
)
from jaxal.asvp.triggers import score_features
from jaxal.checks import check_batch_size, check_choice, check_features, check_positive
from jaxal.embedding import cluster_embedding
from jaxal.records import describe, fingerprint
from jaxal.select import Strategy, check_options, get_strategy
from jaxal.train.head import predict_probs
from jaxal.train.network import Network, head_of
from jaxal.transferability import feature_statistics

__all__ = ["run_pipeline", "starts_by_features"]


def run_pipeline(
    pipeline: Pipeline,
    strategy: Strategy | str,
    network: Network,
    oracle: Callable[[np.ndarray], ArrayLike],
    batch_sizes: Sequence[int],
    *,
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

    A training that diverges (`jaxal.train.DivergedError`) ends nothing: where it was to serve
    selection, that goes on with the features it has, and in the end the state tells of it.

    Args:
      pipeline: "standard", "svpp" or "asvp".
      strategy: one of the library's, or its name.
      network: the network and the pool's images.
      oracle: gives the labels ``[b]`` of the rows ``[b]`` it is called with.
      batch_sizes: picks of each round.
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
      The final state. A training that diverged has an "error" among its metrics.

    Raises:
      ValueError: a bad argument, a folder of another run, or a proxy that diverges.
      OSError: files that cannot be read or written.
    """
    check_choice(pipeline, "pipeline", Pipeline)
    strategy = get_strategy(strategy)
    options = check_options(strategy, options)
    sizes = [check_positive(size, "batch_sizes") for size in batch_sizes]
    check_batch_size(sum(sizes), network.pool_size, "batch_sizes")
    ends = _check_ends(final_at, sizes)
    check_pipeline_config(config)
    first = start(network.pool_size, network.num_classes, seed=seed)
    if features is not None:
        check_features(features)
        if len(np.asanyarray(features)) != network.pool_size:
            raise ValueError(
                f"features: expected {network.pool_size} rows, found {len(np.asanyarray(features))}"
            )
    settings = {
        "pipeline": pipeline,
        "strategy": strategy.name,
        "network": network.describe(),
        "seed": seed,
        "tuning": config.tuning,
        "head": config.head,
        "options": options,
        "features": None if features is None else fingerprint(features),
    }
    if pipeline == "asvp":
        settings |= {"trigger": config.trigger, "tuned_head": config.tuned_head}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(
        pipeline=pipeline,
        strategy=strategy,
        network=network,
        folder=folder,
        settings=describe(settings),
        config=config,
        options=options,
        evaluate=evaluate,
        on_event=on_event,
        sizes=sizes,
        ends=ends,
    )
    state = _open(run, first)
    state = _select(run, state, oracle, features)
    for count in ends:
        state = finish(run, state, count)
    tidy(run, state)
    return state


def _select(
    run: Run,
    state: PipelineState,
    oracle: Callable[[np.ndarray], ArrayLike],
    given: ArrayLike | None,
) -> PipelineState:
    """Go through the rounds that are left, and the final trainings that fall between them."""
    features: ArrayLike | None = None
    known = _Known()
    while state.active.round < len(run.sizes):
        if not len(state.active.pending):
            count, outputs = len(state.active.labeled), None
            if run.pipeline == "standard" and count:
                state, features, outputs = _tune(run, state, given)
            elif run.pipeline == "standard" and not starts_by_features(run.strategy):
                # The first picks are random; nothing looks at these.
                features = np.zeros((run.network.pool_size, 1), np.float32)
            elif features is None:
                state, features = _load_features(run, state, given)
            if run.pipeline == "asvp" and count:
                state, features, outputs = _refresh(run, state, features, known)
            if count in run.ends:
                state = finish(run, state, count)
            state = _ask(run, state, features, outputs, known)
            tidy(run, state)
        state = state._replace(active=tell(state.active, oracle(state.active.pending)))
        run.save(state)
    return state


def starts_by_features(strategy: Strategy) -> bool:
    """Tell whether a strategy chooses the first samples by the pool's features, not at random."""
    return strategy.cold_start and strategy.name != "random"


class _Known:
    """What is computed once of features, as long as they stay."""

    def __init__(self) -> None:
        self._features: ArrayLike | None = None
        self._found: dict[str, Any] = {}

    def find(self, features: ArrayLike, name: str, make: Callable[[ArrayLike], Any]) -> Any:
        """Give what ``make`` makes of the features, made before or now."""
        if self._features is not features:
            self._features, self._found = features, {}
        if name not in self._found:
            self._found[name] = make(features)
        return self._found[name]


def _ask(
    run: Run,
    state: PipelineState,
    features: ArrayLike,
    outputs: HeadOutputs | None,
    known: _Known,
) -> PipelineState:
    """Choose the next samples, and save them."""
    size = run.sizes[state.active.round]
    run.announce(f"choosing {size} samples")
    began = time.perf_counter()
    embedding = None
    reads = len(state.active.labeled) or starts_by_features(run.strategy)
    if reads and "embedding" in run.strategy.needs_with(run.options):
        embedding = known.find(features, "embedding", cluster_embedding)
    active, _, _ = ask(
        state.active,
        run.strategy,
        features,
        size,
        outputs=outputs,
        head=run.config.head,
        embedding=embedding,
        options=run.options,
    )
    seconds = time.perf_counter() - began + (outputs.seconds if outputs else 0.0)
    state = state._replace(active=active, seconds=(*state.seconds, seconds))
    run.save(state)
    return state


def _tune(
    run: Run, state: PipelineState, given: ArrayLike | None
) -> tuple[PipelineState, ArrayLike, HeadOutputs | None]:
    """Train the network on what is labelled, and show the strategy what it says (standard)."""
    count = len(state.active.labeled)
    state, found = try_features(run, state, "selection", count)
    if found is None:  # a head on the features it has
        return *_load_features(run, state, given), None
    variables, features = found
    return state, features, _predict(run, state, variables, features)


def _predict(
    run: Run, state: PipelineState, variables: dict[str, Any], features: ArrayLike
) -> HeadOutputs:
    """Show what a network says of the pool by its features, as far as the strategy looks."""
    trained = head_of(variables, state.active.num_classes)
    began = time.perf_counter()
    probs = None
    if run.strategy.needs_with(run.options) & HEAD_FIELDS:
        probs = jax.block_until_ready(predict_probs(trained, features))
    count, seconds = len(state.active.labeled), time.perf_counter() - began
    # A linear head's last hidden activations are the features.
    return HeadOutputs(trained, probs, features, count, seconds)


def _refresh(
    run: Run, state: PipelineState, features: ArrayLike, known: _Known
) -> tuple[PipelineState, ArrayLike, HeadOutputs | None]:
    """Score the features, and compute them anew where the trigger says so (asvp)."""
    state = _score(run, state, features, known)
    count = len(state.active.labeled)
    if count not in refreshed_at(state) and not run.config.trigger(state.scores):
        return state, features, None
    state, found = try_features(run, state, "refresh", count)
    if found is None:
        return state, features, None
    variables, features = found
    state = _score(run, state, features, known)
    if not run.config.tuned_head:
        return state, features, None
    return state, features, _predict(run, state, variables, features)


def _score(run: Run, state: PipelineState, features: ArrayLike, known: _Known) -> PipelineState:
    """Add the score of these features for what is labelled, where it is not there yet."""
    count, version = len(state.active.labeled), len(refreshed_at(state))
    if any((s.num_labeled, s.version) == (count, version) for s in state.scores):
        return state
    began = time.perf_counter()
    statistics = known.find(features, "statistics", feature_statistics)
    score = score_features(
        features, state.active.labeled, state.active.labels, version=version, statistics=statistics
    )
    score = score._replace(seconds=time.perf_counter() - began)
    state = state._replace(scores=(*state.scores, score))
    run.save(state)
    return state


def _load_features(
    run: Run, state: PipelineState, given: ArrayLike | None
) -> tuple[PipelineState, ArrayLike]:
    """Find the features that selection had last: those of a network, given ones, or new ones."""
    served = [t for t in state.trainings if t.purpose in ("selection", "refresh")]
    if served:
        last = served[-1]
        state, _, features = train_and_embed(run, state, last.purpose, last.num_labeled)
        return state, features
    if given is not None:
        return state, given
    run.announce("computing the pool's features")
    began = time.perf_counter()
    features = run.network.embed(None, run.folder / "features.npy")
    if state.embed_seconds == 0:
        state = state._replace(embed_seconds=time.perf_counter() - began)
        run.save(state)
    return state, features


def _open(run: Run, first: ActiveState) -> PipelineState:
    """Read the run that a folder holds, or begin one."""
    path = run.folder / STATE
    if not path.exists():
        found = sorted(x.name for x in run.folder.iterdir() if not x.name.startswith("."))
        foreign = [name for name in found if name.split(".")[0] not in ("features", TRAININGS)]
        if foreign:
            raise ValueError(f"folder: expected a run or an empty folder, found {foreign[0]} in it")
        return PipelineState(first, (), (), (), 0.0)
    state = load_pipeline(path, run.settings)
    done = [len(record["picks"]) for record in state.active.history]
    if done != list(run.sizes[: len(done)]):
        raise ValueError(
            f"batch_sizes: expected to begin with {done}, the rounds in {path}, found {run.sizes}"
        )
    return state


def _check_ends(final_at: Sequence[int] | None, sizes: Sequence[int]) -> list[int]:
    ends = np.cumsum(sizes).tolist()
    wanted = ends[-1:] if final_at is None else list(final_at)
    unknown = sorted(set(wanted) - set(ends))
    if not wanted:
        raise ValueError(f"final_at: expected some of {ends}, the ends of rounds, found none")
    if unknown:
        raise ValueError(f"final_at: expected some of {ends}, the ends of rounds, found {unknown}")
    return sorted(set(wanted))
