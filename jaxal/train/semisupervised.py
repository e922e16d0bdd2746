"""Train a classifier on a few labels and a pool without: FixMatch, FlexMatch, FreeMatch, AS3L.

AS3L (arXiv 2203.04560) is any of the three with a prior pseudo-label for every sample of the pool,
which is mixed into the targets until the switching point and dropped from there on.
"""

import functools
from collections.abc import Callable, Mapping
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
    check_positive,
)
from jaxal.records import describe, fingerprint
from jaxal.train.batches import check_images, fetcher
from jaxal.train.checkpoints import open_checkpoint, restore_checkpoint, save_checkpoint
from jaxal.train.consistency import make_semi_loss, make_view
from jaxal.train.epochs import check_converging
from jaxal.train.identity import describe_training
from jaxal.train.optimizers import make_optimizer
from jaxal.train.semi_batches import SemiBatches, make_batches, pass_steps
from jaxal.train.semi_recipes import SemiConfig, check_semi
from jaxal.train.step import TrainState, TrainStep, init_state, make_train_step, state_variables
from jaxal.train.supervised import Prepare, as_floats, count_classes, with_dtype
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

_FETCHED = 256  # steps whose metrics are held on the device
_ROUNDING = 1e-3  # that the sum of shares may be off by


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
    stop_at: int | None = None,
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

    Each step sees ``labeled_batch_size`` labelled samples and up to ``unlabeled_ratio`` times as
    many of the pool, in which the labelled ones are too. Labelled samples fewer than a batch come
    equally often, up to one; more of them are gone through again and again, in a new order each
    time. So is the pool, in batches whose sizes differ by one at most, and which may be as small as
    half; a pool of less is one batch. Epochs of the schedule are such passes of the pool. Weak and
    strong views are made on the device.

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
        The result is that of one device up to rounding, but for networks with dropout.
      stop_at: stop at the first record at or behind this step, though the schedule and the
        switching point are those of ``config.steps``; with a checkpoint a later call goes on.
      monitor: numbers for each record, such as the accuracy on a test set.
      checkpoint: a folder to save to after every record; where it holds a training with the same
        arguments (functions are compared by name and bound arguments), it goes on, and ends as if
        it had never stopped.
      on_record: called after every record.

    Returns:
      The variables, the pseudo-labels and the history. Beside the network and an optimiser's state
      ``O(n)`` are held, with a prior ``O(n · c)``, and images as said above.

    Raises:
      ValueError: bad images, rows, labels, prior, variables or configuration, a checkpoint of
        another training, or training that diverges (`DivergedError`).
    """
    end = config.steps if stop_at is None else check_positive(stop_at, "stop_at")
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
    while done < min(end, config.steps):
        following = min(done + config.record_every, config.steps)
        state, record = _run_steps(task, state, done, following)
        current = {name: state_variables(state)[name] for name in variables}
        if monitor is not None:
            found = monitor(current, np.asarray(state.memory.used))
            record |= {name: float(x) for name, x in found.items()}
        history.append(record)
        if checkpoint is not None:
            save_checkpoint(checkpoint, state, settings, step=following, record=history)
        if on_record is not None:
            on_record(dict(record), current)
        done = following
    current = {name: jax.tree.map(jnp.array, state_variables(state)[name]) for name in variables}
    return SemiTrained(current, np.asarray(state.memory.used), tuple(history))


class _Task(NamedTuple):
    """A training that is ready to start."""

    classifier: nn.Module
    config: SemiConfig
    key: jax.Array  # of the steps
    batches: SemiBatches
    rows: np.ndarray  # [l] int64, labelled
    labels: np.ndarray  # [l] int32
    prior: np.ndarray | None  # [n, c] float32
    num_classes: int
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
    _check_views(config, first)
    num_classes = count_classes(classifier, variables, prepare, first)
    targets = check_labels(labels, num_classes, length=len(rows))
    shares = None if prior is None else _check_prior(prior, n, num_classes)
    unlabeled_size = config.labeled_batch_size * config.unlabeled_ratio
    per_pass = pass_steps(n, unlabeled_size)
    warmup = round(config.schedule.warmup_epochs * per_pass)
    if warmup >= config.steps:
        raise ValueError(
            f"config.schedule.warmup_epochs: expected less than the {config.steps} steps, found "
            f"{config.schedule.warmup_epochs} passes of the pool, of {per_pass} steps each"
        )
    groups = tuple(variables["params"])
    order_key, step_key = jax.random.split(key)
    return _Task(
        classifier,
        config,
        step_key,
        make_batches(
            order_key,
            images,
            rows,
            targets,
            shares,
            num_classes,
            labeled_size=config.labeled_batch_size,
            unlabeled_size=unlabeled_size,
            mesh=mesh,
        ),
        rows,
        targets,
        shares,
        num_classes,
        _optimizer(config, groups, per_pass),
        _compiled_step(classifier, _kept(config), prepare, mesh, groups),
    )


def _check_views(config: SemiConfig, first: np.ndarray) -> None:
    """Check that both views take the samples, and are of one shape, without computing any."""
    x = as_floats(jnp.asarray(first))
    shapes = {}
    for name in ("weak", "strong"):
        augment = getattr(config, name)
        try:
            viewed = jax.eval_shape(functools.partial(make_view, augment), jax.random.key(0), x)
        except (TypeError, ValueError) as error:
            hint = ", such as jaxal.augment.feature_view gives" if x.ndim == 2 else ""
            raise ValueError(
                f"config.{name}: expected an augmentation of samples {first.shape[1:]}{hint}: "
                f"{error}"
            ) from error
        shapes[name] = viewed.shape
    if shapes["weak"] != shapes["strong"]:
        raise ValueError(
            f"config.strong: expected views of the weak ones' shape {shapes['weak'][1:]}, found "
            f"{shapes['strong'][1:]}"
        )


def _check_prior(prior: ArrayLike, n: int, num_classes: int) -> np.ndarray:
    """Check a prior, and bring it to shares ``[n, c]``."""
    found = np.asarray(prior)
    if found.ndim == 1:
        classes = check_labels(found, num_classes, "prior", length=n)
        return np.eye(num_classes, dtype=np.float32)[classes]
    if found.shape != (n, num_classes):
        raise ValueError(
            f"prior: expected [{n}] classes or shares [{n}, {num_classes}], found shape "
            f"{found.shape}"
        )
    check_finite(found, "prior")
    bad = np.flatnonzero((found < 0).any(1) | (np.abs(found.sum(1) - 1) > _ROUNDING))
    if len(bad):
        raise ValueError(
            "prior: expected shares of zero or more that sum to 1 in each row, found "
            f"{found[bad[0]].tolist()} in row {bad[0]}"
        )
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
    config: SemiConfig, groups: tuple[str, ...], steps_per_epoch: int
) -> optax.GradientTransformation:
    return make_optimizer(
        {name: getattr(config, name) for name in groups},
        config.schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=config.steps,
    )


@functools.lru_cache(maxsize=16)
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
    optimizer = _optimizer(config, groups, 1)
    return make_train_step(loss_fn, optimizer, mesh=mesh, ema_decay=config.ema_decay)


def _start(task: _Task, variables: Mapping[str, Any]) -> TrainState:
    return init_state(
        variables,
        task.optimizer,
        ema=task.config.ema_decay is not None,
        memory=init_memory(task.batches.num_images, task.num_classes),
        mesh=task.batches.mesh,
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
    seen: list[Any] = []
    sums: dict[str, float] = {}
    for step, batch in enumerate(task.batches.steps(start, end, last), start + 1):
        state, metrics = task.step(state, batch, task.key)
        seen.append(metrics)
        if len(seen) == _FETCHED or step == end:
            fetched, seen = jax.device_get(seen), []
            for name in metrics:
                sums[name] = sums.get(name, 0.0) + sum(float(x[name]) for x in fetched)
    means = {name: total / (end - start) for name, total in sums.items()}
    rates = "learning rates " + ", ".join(
        f"{getattr(config, part).learning_rate} of the {part}" for part in state.params
    )
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
