"""Train a classifier on a few labels and a pool without: FixMatch, FlexMatch, FreeMatch, AS3L.

AS3L (arXiv 2203.04560) is any of the three with a prior pseudo-label for every sample of the pool,
which is mixed into the targets until the switching point and dropped from there on.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxal.checks import (
    check_finite,
    check_indices,
    check_labels,
)
from jaxal.records import describe, fingerprint
from jaxal.train.batches import (
    Loader,
    RowBatch,
    check_images,
    even_batches,
    fetcher,
    make_loader,
    padded_size,
    streaming_loader,
)
from jaxal.train.checkpoints import open_checkpoint, restore_checkpoint, save_checkpoint
from jaxal.train.consistency import make_semi_loss
from jaxal.train.epochs import check_converging
from jaxal.train.identity import describe_training
from jaxal.train.optimizers import OptimizerConfig, make_optimizer
from jaxal.train.semi_recipes import SemiConfig, check_semi
from jaxal.train.step import TrainState, TrainStep, init_state, make_train_step, state_variables
from jaxal.train.supervised import Prepare, count_classes, with_dtype
from jaxal.train.thresholds import (
    Memory,
    flexmatch_thresholds,
    freematch_thresholds,
    init_memory,
)

__all__ = ["OnRecord", "SemiMonitor", "SemiTrained", "train_semi"]

# Variables to predict with, and the class [n] that each sample was last trained on, -1 for never;
# to numbers for the record.
SemiMonitor = Callable[[dict[str, Any], np.ndarray], Mapping[str, float]]
# The record of the last steps, and variables to predict with, which the next step overwrites.
OnRecord = Callable[[dict[str, Any], dict[str, Any]], None]

_DRAWN = 1000  # orders of labelled samples that are drawn at once


class SemiTrained(NamedTuple):
    """A classifier trained with few labels."""

    variables: dict[str, Any]  # {"params", "batch_stats"}, moving averages where they are kept
    pseudo_labels: np.ndarray  # [n] int32, what each sample was last trained on; -1: never
    history: tuple[dict[str, Any], ...]  # see `train_semi`


def train_semi(
    key: jax.Array,
    classifier: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    labeled: ArrayLike,
    labels: ArrayLike,
    *,
    config: SemiConfig,
    prior: ArrayLike | None = None,
    prepare: Prepare | None = None,
    mesh: Mesh | None = None,
    monitor: SemiMonitor | None = None,
    checkpoint: str | Path | None = None,
    on_record: OnRecord | None = None,
) -> SemiTrained:
    """Train a classifier on the few labels of a pool, and on all of it without.

    ::

        prior = prior_labels(key, features, rows, labels, num_classes).soft
        found = train_semi(
            key, classifier, variables, images, rows, labels, config=FLEXMATCH_CIFAR10, prior=prior
        )

    Each step sees ``labeled_batch_size`` labelled samples (every one of them equally often, up to
    one) and ``unlabeled_ratio`` times as many of the pool, in which the labelled ones are too: the
    pool is gone through in a new order each time, in batches whose sizes differ by one at most. A
    pool of less is one batch. Weak and strong views are made on the device.

    Each record of the history has ``step`` (those done), the means over its steps of ``loss``,
    ``supervised_loss``, ``unsupervised_loss``, ``accuracy`` (of the labelled samples),
    ``mask_rate`` (share of unlabelled samples whose pseudo-label is used), ``confidence`` and
    ``grad_norm``, the ``thresholds`` ``[c]`` at its end, ``with_prior`` (the share of its steps),
    ``unseen`` (classes without a label), and what the monitor found.

    Args:
      key: the order of samples and their augmentation. The weights start as they are in
        ``variables``.
      classifier: a module of the signature of `jaxal.models.classifier.Classifier`; parameters are
        ``{"encoder": ..., "head": ...}``, or those of the head alone.
      variables: its ``params`` and, where it has them, ``batch_stats``; they stay as they are.
      images: the pool: ``[n, h, w, c]`` uint8, kept on the device, or on each; features ``[n, d]``
        likewise; or an `ImageSource` of which a batch is loaded at a time, one ahead.
      labeled: ``[l]`` distinct rows of the pool, one or more.
      labels: ``[l]`` int, their classes.
      config: such as `FLEXMATCH_CIFAR10`.
      prior: ``[n, c]`` shares of the classes for every sample, or ``[n]`` int, one class each, such
        as `jaxal.as3l.prior_labels` gives; None for the method alone.
      prepare: maps a batch of float32 views to what the network reads; None for them as they are.
      mesh: devices to lay batches over, from `jaxal.sharding.data_mesh`; None for the default one.
        The result is that of one device up to rounding.
      monitor: numbers for each record, such as the accuracy on a test set.
      checkpoint: a folder to save to after every record; where it holds a training with the same
        arguments (functions are compared by name and bound arguments), it goes on, and ends as if
        it had never stopped.
      on_record: called after every record.

    Returns:
      The variables, the pseudo-labels and the history.

    Raises:
      ValueError: bad images, rows, labels, prior, variables or configuration, a checkpoint of
        another training, or training that diverges.
    """
    task = _make_task(
        key, classifier, variables, images, labeled, labels, config, prior, prepare, mesh
    )
    state, history = _start(task, variables), []
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        settings = _settings(key, task, variables, images, prepare)
        if open_checkpoint(checkpoint, settings) is not None:
            restored = restore_checkpoint(checkpoint, state, settings)
            state, history = restored.state, restored.record
    done = history[-1]["step"] if history else 0
    while done < config.steps:
        end = min(done + config.record_every, config.steps)
        state, record = _run_steps(task, state, done, end)
        current = {name: state_variables(state)[name] for name in variables}
        if monitor is not None:
            found = monitor(current, np.asarray(state.memory.used))
            record |= {name: float(x) for name, x in found.items()}
        history.append(record)
        if checkpoint is not None:
            save_checkpoint(checkpoint, state, settings, step=end, record=history)
        if on_record is not None:
            on_record(dict(record), current)
        done = end
    current = {name: jax.tree.map(jnp.array, state_variables(state)[name]) for name in variables}
    return SemiTrained(current, np.asarray(state.memory.used), tuple(history))


class _Task(NamedTuple):
    """A training that is ready to start."""

    classifier: nn.Module
    config: SemiConfig
    prepare: Prepare | None
    mesh: Mesh | None
    keys: tuple[jax.Array, jax.Array, jax.Array]  # of both orders and the steps
    load: Loader  # of the pool, with the number of each sample as its label
    load_labeled: Loader  # of the labelled samples alone
    load_prior: Loader  # the prior in place of images
    load_zeros: Loader  # zeros in place of the prior
    rows: np.ndarray  # [l] int64, labelled
    labels: np.ndarray  # [l] int32
    prior: np.ndarray | None  # [n, c] float32
    num_images: int
    num_classes: int
    batch_size: int  # unlabelled samples of a step, at most
    optimizer: optax.GradientTransformation
    step: TrainStep


def _make_task(
    key: jax.Array,
    classifier: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    labeled: ArrayLike,
    labels: ArrayLike,
    config: SemiConfig,
    prior: ArrayLike | None,
    prepare: Prepare | None,
    mesh: Mesh | None,
) -> _Task:
    check_semi(config)
    n = check_images(images, features=True)
    rows = check_indices(labeled, n, "labeled")
    if len(rows) == 0:
        raise ValueError("labeled: expected one labelled sample or more, found none")
    classifier = with_dtype(classifier, config.dtype)
    first = fetcher(images)(np.zeros(1, np.int64))
    num_classes = count_classes(classifier, variables, prepare, first)
    targets = check_labels(labels, num_classes, length=len(rows))
    shares = None if prior is None else _check_prior(prior, n, num_classes)
    groups = {name: getattr(config, name) for name in variables["params"]}
    optimizer = _optimizer(config, groups)
    step = _compiled_step(classifier, _kept(config), prepare, mesh, tuple(groups))
    label_order, order, steps = jax.random.split(key, 3)
    numbers, nothing = np.arange(n, dtype=np.int32), np.zeros(num_classes, np.float32)
    given = nothing[None] if shares is None else shares
    return _Task(
        classifier,
        config,
        prepare,
        mesh,
        (label_order, order, steps),
        make_loader(images, numbers, mesh),
        make_loader(fetcher(images)(rows), targets, mesh),
        streaming_loader(lambda rows: given[rows], numbers, mesh),
        streaming_loader(
            lambda rows: np.broadcast_to(nothing, (len(rows), num_classes)), numbers, mesh
        ),
        rows,
        targets,
        shares,
        n,
        num_classes,
        min(n, config.labeled_batch_size * config.unlabeled_ratio),
        optimizer,
        step,
    )


def _check_prior(prior: ArrayLike, n: int, num_classes: int) -> np.ndarray:
    """Check a prior, and bring it to shares ``[n, c]``."""
    found = np.asarray(prior)
    if found.ndim == 1:
        classes = check_labels(found, num_classes, length=n)
        return np.eye(num_classes, dtype=np.float32)[classes]
    if found.shape != (n, num_classes):
        raise ValueError(
            f"prior: expected [{n}] classes or shares [{n}, {num_classes}], found shape "
            f"{found.shape}"
        )
    check_finite(found, "prior")
    if (found < 0).any() or not np.allclose(found.sum(1), 1, atol=1e-3):
        raise ValueError("prior: expected shares of zero or more that sum to 1 in each row")
    return found.astype(np.float32)


def _kept(config: SemiConfig) -> SemiConfig:
    """Leave of a configuration what its compiled step depends on."""
    default = SemiConfig()
    free = ("steps", "labeled_batch_size", "unlabeled_ratio", "switch", "dtype", "record_every")
    kept = config._replace(**{name: getattr(default, name) for name in free})
    return kept._replace(
        encoder=config.encoder._replace(learning_rate=1.0),
        head=config.head._replace(learning_rate=1.0),
    )


def _optimizer(
    config: SemiConfig, groups: Mapping[str, OptimizerConfig | None]
) -> optax.GradientTransformation:
    return make_optimizer(
        groups, config.schedule, steps_per_epoch=config.record_every, total_steps=config.steps
    )


@lru_cache(maxsize=16)
def _compiled_step(
    classifier: nn.Module,
    config: SemiConfig,
    prepare: Prepare | None,
    mesh: Mesh | None,
    groups: tuple[str, ...],
) -> TrainStep:
    loss_fn = make_semi_loss(
        classifier,
        config.method,
        weak=config.weak,
        strong=config.strong,
        prepare=prepare,
        cutoff=config.cutoff,
        decay=config.decay,
        unlabeled_weight=config.unlabeled_weight,
        fairness_weight=config.fairness_weight,
        targets=config.targets,
        judge=config.judge,
    )
    # Its rates and lengths are those of the state that training starts with.
    optimizer = _optimizer(config, {name: getattr(config, name) for name in groups})
    return make_train_step(loss_fn, optimizer, mesh=mesh, ema_decay=config.ema_decay)


def _start(task: _Task, variables: Mapping[str, Any]) -> TrainState:
    return init_state(
        variables,
        task.optimizer,
        ema=task.config.ema_decay is not None,
        memory=init_memory(task.num_images, task.num_classes),
        mesh=task.mesh,
    )


def _settings(
    key: jax.Array,
    task: _Task,
    variables: Mapping[str, Any],
    images: Any,
    prepare: Prepare | None,
) -> dict[str, Any]:
    return describe_training(
        [key],
        task.classifier,
        variables,
        images,
        task.config,
        labeled=describe({"rows": fingerprint(task.rows), "labels": fingerprint(task.labels)}),
        prior=None if task.prior is None else fingerprint(task.prior),
        prepare=prepare,
    )


def _run_steps(
    task: _Task, state: TrainState, start: int, end: int
) -> tuple[TrainState, dict[str, Any]]:
    """Train from step ``start`` to ``end`` and record it."""
    config = task.config
    last = round(config.switch * config.steps) if task.prior is not None else 0
    seen = []
    for batch in _batches(task, start, end, last):
        state, metrics = task.step(state, batch, task.keys[2])
        seen.append(metrics)
    fetched = jax.device_get(seen)
    means = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
    rates = f"the head at learning_rate {config.head.learning_rate}"
    check_converging(f"steps {start}..{end - 1}", means["loss"], state, rates)
    unseen = np.setdiff1d(np.arange(task.num_classes), task.labels)
    record = {
        "step": end,
        **means,
        "thresholds": _thresholds(config, state.memory).tolist(),
        "with_prior": min(max(last - start, 0), end - start) / (end - start),
        "unseen": unseen.tolist(),
    }
    return state, record


def _thresholds(config: SemiConfig, memory: Memory) -> np.ndarray:
    num_classes = len(memory.mean_probs)
    if config.method == "flexmatch":
        return np.asarray(flexmatch_thresholds(memory.confident, num_classes, config.cutoff))
    if config.method == "freematch":
        return np.asarray(freematch_thresholds(memory))
    return np.full(num_classes, config.cutoff)


def _batches(task: _Task, start: int, end: int, last: int) -> Iterator[dict[str, dict[str, Any]]]:
    """Bring the batches of steps ``start..end - 1``, with the prior in those before ``last``."""
    known, pool = _plan_labeled(task, start, end), _plan_pool(task, start, end)
    bound = max(last - start, 0)
    priors = itertools.chain(task.load_prior(pool[:bound]), task.load_zeros(pool[bound:]))
    for labeled, unlabeled, prior in zip(
        task.load_labeled(known), task.load(pool), priors, strict=True
    ):
        unlabeled["rows"] = unlabeled.pop("labels")
        yield {"labeled": labeled, "unlabeled": {**unlabeled, "prior": prior["images"]}}


def _plan_labeled(task: _Task, start: int, end: int) -> list[RowBatch]:
    """Say which labelled samples each step sees: all equally often, up to one."""
    count, batch_size = len(task.rows), task.config.labeled_batch_size
    turns = np.arange(padded_size(batch_size, task.mesh))
    plans = []
    for step in range(start, end):
        if step == start or step % _DRAWN == 0:
            key = jax.random.fold_in(task.keys[0], step // _DRAWN)
            orders = np.asarray(jax.random.uniform(key, (_DRAWN, count))).argsort(1, kind="stable")
        plans.append(RowBatch(orders[step % _DRAWN][turns % count], turns < batch_size))
    return plans


def _plan_pool(task: _Task, start: int, end: int) -> list[RowBatch]:
    """Say which samples of the pool each step sees: all in turn, in a new order each time."""
    per_pass = -(-task.num_images // task.batch_size)
    plans: list[RowBatch] = []
    for step in range(start, end):
        if step == start or step % per_pass == 0:
            batches = even_batches(
                jax.random.fold_in(task.keys[1], step // per_pass),
                np.arange(task.num_images),
                train_batch_size=task.batch_size,
                step_rows=padded_size(task.batch_size, task.mesh),
            )
        plans.append(batches[step % per_pass])
    return plans
