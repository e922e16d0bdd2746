"""Train a pre-trained classifier on labelled images: probe, fine-tuning, and the two in turn.

All are one loop over one step (`jaxal.train.step`) with other configurations
(`jaxal.train.recipes`). A probe without augmentation does not need this: `jaxal.train.head` trains
a head on features that are computed once.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxal.augment.base import Pipeline
from jaxal.checks import check_labels
from jaxal.records import fingerprint
from jaxal.train.batches import (
    Loader,
    check_images,
    even_batches,
    fetcher,
    make_loader,
    next_capacity,
    padded_size,
    plain_batches,
    split_validation,
)
from jaxal.train.checkpoints import (
    check_folder,
    open_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from jaxal.train.epochs import check_converging, mean_metrics
from jaxal.train.evaluate import evaluate_logits, logits_of, make_apply
from jaxal.train.identity import describe_training
from jaxal.train.recipes import (
    AugmentName,
    FinetuneConfig,
    LpftConfig,
    check_finetune,
    find_augment,
)
from jaxal.train.step import TrainState, init_state, state_variables
from jaxal.train.supervised import (
    Prepare,
    compiled_step,
    compiled_view,
    config_optimizer,
    count_classes,
    with_dtype,
)

__all__ = ["Finetuned", "OnEpoch", "finetune", "lp_ft"]

# (record of the epoch, variables to predict with, which the next step overwrites)
OnEpoch = Callable[[dict[str, Any], dict[str, Any]], None]


class Finetuned(NamedTuple):
    """A trained classifier."""

    variables: dict[str, Any]  # {"params", "batch_stats"}: of the best epoch, else of the last one
    history: tuple[dict[str, Any], ...]  # one record an epoch, see `finetune`
    best_epoch: int  # whose variables these are, from 0
    validation: np.ndarray  # [v] int64, the labelled images held out


def finetune(
    key: jax.Array,
    classifier: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    labels: ArrayLike,
    *,
    config: FinetuneConfig,
    prepare: Prepare | None = None,
    augment: Pipeline | AugmentName | None = None,
    mesh: Mesh | None = None,
    split_key: jax.Array | None = None,
    checkpoint: str | Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> Finetuned:
    """Train a classifier on labelled images.

    An epoch of l images takes ``ceil(l / train_batch_size)`` steps whose sizes differ by one at
    most. Images are padded to a power of two and batches to one of them or ``train_batch_size``, so
    that a labelled set that grows compiles once a power of two; other learning rates and numbers of
    epochs do not compile anew either. For that the same ``classifier``, ``prepare`` and ``augment``
    must be passed again, not functions made anew.

    Part of the labelled images may be held out, class by class (`split_validation`), and no other
    images are ever looked at. Then the variables are those of the epoch with the highest accuracy
    there (in ties with the lowest loss, then the first), and training may stop early. With fewer
    than two images for each class seen none are held out.

    Each record of the history has ``epoch``, ``loss`` and ``accuracy`` (means over the epoch's
    images as they were augmented), ``num_train``, ``num_validation``, and with images held out
    ``validation_loss`` and ``validation_accuracy``; where none could be, a ``note`` says so.

    Args:
      key: the order of images, their augmentation, and which are held out. The weights, the head's
        too, start as they are in ``variables``.
      classifier: a module of the signature of `jaxal.models.classifier.Classifier`, whose
        parameters are ``{"encoder": ..., "head": ...}``.
      variables: its ``params`` and, where it has them, ``batch_stats``; they stay as they are.
      images: ``[l, h, w, c]`` uint8, kept on the device, or on each; or an `ImageSource` of l
        images, of which a batch is loaded at a time, one ahead.
      labels: ``[l]`` int, their classes.
      config: what is trained and how.
      prepare: maps float32 images ``[n, h, w, c]`` in 0..1 to what the classifier reads, such as
        `jaxal.models.preprocess.preprocess` with its options bound; None for them as they are.
      augment: instead of ``config.augment``.
      mesh: devices to lay batches over, from `jaxal.sharding.data_mesh`; None for the default one.
        Batches are padded to a multiple of them, and the result is that of one device up to
        rounding. Several processes all pass the same arguments.
      split_key: decides alone which images are held out, so that several trainings can hold out the
        same; None to draw it from ``key``.
      checkpoint: a folder to save to after every epoch; where it holds a training with the same
        arguments (functions are compared by name and bound arguments), it goes on, and ends as if
        it had never stopped.
      on_epoch: called after every epoch with its record and variables.

    Returns:
      The trained classifier. With ``ema_decay`` its variables are the moving averages.

    Raises:
      ValueError: bad images, labels, variables or configuration, a checkpoint of another training,
        or training that diverges (`DivergedError`).
    """
    check_finetune(config)
    if augment is not None:
        find_augment(augment)
        config = config._replace(augment=augment)
    drawn, train_key = jax.random.split(key)
    keys = (drawn if split_key is None else split_key, train_key)
    task = _make_task(keys, classifier, variables, images, labels, config, prepare, mesh)
    optimizer = config_optimizer(config, task.steps_per_epoch)
    state = init_state(variables, optimizer, ema=config.ema_decay is not None, mesh=mesh)
    progress = _Progress(state, state_variables(state) if len(task.held_out) else None, [])
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        settings = describe_training(
            keys,
            task.classifier,
            variables,
            images,
            config,
            labels=fingerprint(task.labels),
            prepare=prepare,
        )
        progress = _resumed(progress, checkpoint, settings)
    while not _is_done(progress.history, config):
        progress = _run_epoch(task, progress)
        if checkpoint is not None:
            step = len(progress.history)
            save_checkpoint(checkpoint, progress[:2], settings, step=step, record=progress.history)
        if on_epoch is not None:
            on_epoch(dict(progress.history[-1]), state_variables(progress.state))
    chosen = state_variables(progress.state) if progress.best is None else progress.best
    chosen = {name: chosen[name] for name in variables}
    return Finetuned(chosen, tuple(progress.history), _best(progress.history), task.held_out)


def lp_ft(
    key: jax.Array,
    classifier: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    labels: ArrayLike,
    *,
    config: LpftConfig,
    prepare: Prepare | None = None,
    augment: Pipeline | AugmentName | None = None,
    mesh: Mesh | None = None,
    split_key: jax.Array | None = None,
    checkpoint: str | Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[Finetuned, Finetuned]:
    """Train a probe, then fine-tune everything from there (LP-FT, arXiv 2202.10054).

    Both stages hold out the same images.

    Args:
      key: see `finetune`, like all that is not explained here.
      classifier: the network.
      variables: its collections.
      images: ``[l, h, w, c]`` uint8, or an `ImageSource`.
      labels: ``[l]`` int.
      config: of the two stages, such as `jaxal.train.recipes.LPFT_CIFAR10`.
      prepare: maps a batch to what the classifier reads.
      augment: instead of that of both stages.
      mesh: devices to lay batches over.
      split_key: decides alone which images are held out.
      checkpoint: a folder, in which each stage has one of its own.
      on_epoch: called after every epoch of both stages, with ``"stage"``, "probe" or "finetune", in
        its record.

    Returns:
      The probe and, second, the fine-tuned classifier.

    Raises:
      ValueError: see `finetune`.
    """
    if not isinstance(config, LpftConfig):
        raise ValueError(f"config: expected an LpftConfig, found {type(config).__name__}")
    places = {}
    for stage, own in config._asdict().items():
        check_finetune(own, f"config.{stage}")
        # The second stage's, too, before the first is trained.
        places[stage] = None if checkpoint is None else check_folder(Path(checkpoint) / stage)
    drawn, probe_key, tune_key = jax.random.split(key, 3)

    def train(stage: str, key: jax.Array, variables: Mapping[str, Any]) -> Finetuned:
        return finetune(
            key,
            classifier,
            variables,
            images,
            labels,
            config=getattr(config, stage),
            prepare=prepare,
            augment=augment,
            mesh=mesh,
            split_key=drawn if split_key is None else split_key,
            checkpoint=places[stage],
            on_epoch=on_epoch and functools.partial(_tell_stage, on_epoch, stage),
        )

    probe = train("probe", probe_key, variables)
    return probe, train("finetune", tune_key, probe.variables)


def _tell_stage(
    on_epoch: OnEpoch, stage: str, record: dict[str, Any], variables: dict[str, Any]
) -> None:
    on_epoch({**record, "stage": stage}, variables)


class _Task(NamedTuple):
    """A training that is ready to start."""

    classifier: nn.Module
    config: FinetuneConfig
    prepare: Prepare | None
    mesh: Mesh | None
    keys: tuple[jax.Array, jax.Array, jax.Array]  # of the order, the augmentation and the steps
    labels: np.ndarray  # [l] int32
    num_classes: int
    load: Loader
    rows: np.ndarray  # [t] int64, to train on
    held_out: np.ndarray  # [v] int64
    step_rows: int  # of a padded batch
    steps_per_epoch: int


class _Progress(NamedTuple):
    """What a training goes on from."""

    state: TrainState
    best: Any  # variables of the best epoch so far; None with no images held out
    history: list[dict[str, Any]]


def _make_task(
    keys: tuple[jax.Array, jax.Array],
    classifier: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    labels: ArrayLike,
    config: FinetuneConfig,
    prepare: Prepare | None,
    mesh: Mesh | None,
) -> _Task:
    n = check_images(images)
    step_rows = min(config.train_batch_size, next_capacity(n))
    step_rows = padded_size(step_rows, mesh, accumulate=config.accumulate)
    classifier = with_dtype(classifier, config.dtype)
    first = fetcher(images)(np.zeros(1, np.int64))
    num_classes = count_classes(classifier, variables, prepare, first)
    targets = check_labels(labels, num_classes, length=n)
    rows, held_out = split_validation(keys[0], targets, config.validation_fraction)
    order, augmentation, steps = jax.random.split(keys[1], 3)
    return _Task(
        classifier,
        config,
        prepare,
        mesh,
        (order, augmentation, steps),
        targets,
        num_classes,
        make_loader(images, targets, mesh),
        rows,
        held_out,
        step_rows,
        steps_per_epoch=-(-len(rows) // config.train_batch_size),
    )


def _run_epoch(task: _Task, progress: _Progress) -> _Progress:
    """Train for an epoch, record it, and keep its variables if they are the best."""
    epoch, state = len(progress.history), progress.state
    order_key, augment_key, step_key = task.keys
    step = compiled_step(task.classifier, task.config, task.mesh)
    view = compiled_view(find_augment(task.config.augment), task.prepare, task.mesh)
    batches = even_batches(
        jax.random.fold_in(order_key, epoch),
        task.rows,
        train_batch_size=task.config.train_batch_size,
        step_rows=task.step_rows,
    )
    seen = []
    for i, batch in enumerate(task.load(batches)):
        view_key = jax.random.fold_in(augment_key, epoch * task.steps_per_epoch + i)
        state, metrics = step(state, view(view_key, batch), step_key)
        seen.append(metrics)
    means = mean_metrics(seen, batches)
    check_converging(f"epoch {epoch}", means["loss"], state, _rates(task.config))
    record: dict[str, Any] = {
        "epoch": epoch,
        "loss": means["loss"],
        "accuracy": means["accuracy"],
        "num_train": len(task.rows),
        "num_validation": len(task.held_out),
    }
    if not len(task.held_out):
        if task.config.validation_fraction > 0:
            record["note"] = "no images held out: too few, or fewer than two for each class"
        return _Progress(state, None, [*progress.history, record])
    apply = make_apply(task.classifier, state_variables(state), prepare=task.prepare)
    chunks = plain_batches(task.held_out, task.step_rows)
    logits = logits_of(apply, task.load, chunks, task.mesh)
    found = evaluate_logits(logits, task.labels[task.held_out], task.num_classes)
    record |= {"validation_loss": found.loss, "validation_accuracy": found.accuracy}
    history, best = [*progress.history, record], progress.best
    if _best(history) == epoch:
        # A copy, since the next step overwrites the state.
        best = jax.tree.map(jnp.array, state_variables(state))
    return _Progress(state, best, history)


def _rates(config: FinetuneConfig) -> str:
    """Name the learning rates, for errors."""
    rates = f"the head at learning_rate {config.head.learning_rate}"
    if config.encoder is not None:
        rates += f" and the encoder at {config.encoder.learning_rate}"
    return rates


def _best(history: list[dict[str, Any]]) -> int:
    if "validation_loss" not in history[-1]:
        return len(history) - 1
    scores = [(record["validation_accuracy"], -record["validation_loss"]) for record in history]
    return scores.index(max(scores))


def _is_done(history: list[dict[str, Any]], config: FinetuneConfig) -> bool:
    if len(history) == config.epochs:
        return True
    if not history or config.patience is None:
        return False
    return len(history) - 1 - _best(history) >= config.patience


def _resumed(start: _Progress, checkpoint: str | Path, settings: Mapping[str, Any]) -> _Progress:
    """Go on from a checkpoint where there is one."""
    if open_checkpoint(checkpoint, settings) is None:
        return start
    restored = restore_checkpoint(checkpoint, start[:2], settings)
    state, best = restored.state
    return _Progress(state, best, restored.record)
