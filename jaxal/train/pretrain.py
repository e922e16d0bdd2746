"""Pre-train an encoder on images without labels: SimSiam and SimCLR.

`SIMSIAM_CIFAR10` and `SIMCLR_CIFAR10` are the papers' for 32 pixels (arXiv 2011.10566, appendix D;
arXiv 2002.05709, appendix B.9, whose optimiser, LARS, is replaced by SGD), `SIMSIAM_IMAGENET` is
SimSiam's for ImageNet (section 3 and appendix A). `SIMSIAM_SMALL` and `SIMCLR_SMALL` are ours, for
small networks on CPUs, where minutes have to do. Ours, too: each view is normalised by its own
batch statistics in SimCLR as in SimSiam; the predictor's rate falls with the others'; SGD's
momentum is Nesterov's, where SimSiam's is plain; SimCLR's weight decay is 1e-4, where the paper's
is 1e-6, and biases and the scales of norms decay too, which SimCLR's authors leave out.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxal.augment.base import Pipeline, augment_batch
from jaxal.checks import check_choice, check_number, check_positive
from jaxal.models.projectors import MLP, Projected
from jaxal.train.batches import (
    Loader,
    check_images,
    even_batches,
    fetcher,
    make_loader,
    padded_size,
)
from jaxal.train.checkpoints import open_checkpoint, restore_checkpoint, save_checkpoint
from jaxal.train.contrastive import nt_xent
from jaxal.train.epochs import check_converging, mean_metrics
from jaxal.train.identity import describe_training
from jaxal.train.optimizers import OptimizerConfig, check_optimizer, make_optimizer
from jaxal.train.recipes import Dtype
from jaxal.train.schedules import ScheduleConfig, check_schedule
from jaxal.train.siamese import collapse, simsiam_loss
from jaxal.train.step import Aux, LossFn, TrainState, TrainStep, init_state, make_train_step
from jaxal.train.supervised import Prepare

__all__ = [
    "SIMCLR_CIFAR10",
    "SIMCLR_SMALL",
    "SIMSIAM_CIFAR10",
    "SIMSIAM_IMAGENET",
    "SIMSIAM_SMALL",
    "Method",
    "Monitor",
    "PretrainConfig",
    "Pretrained",
    "check_pretrain",
    "pretrain",
]

Method = Literal["simsiam", "simclr"]
# Images that the papers' learning rates are for; they grow in proportion to the batch.
_RATE_IMAGES = 256
# The encoder's variables after an epoch, to what is recorded of them.
Monitor = Callable[[dict[str, Any]], Mapping[str, float]]


class PretrainConfig(NamedTuple):
    """How an encoder is pre-trained."""

    method: Method = "simsiam"
    epochs: int = 100
    train_batch_size: int = 256  # the most images a step sees
    # Of everything; its learning rate is for batches of 256 images, and scaled to those there are.
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=0.05, weight_decay=1e-4)
    schedule: ScheduleConfig = ScheduleConfig("cosine")
    projector: tuple[int, ...] = (2048, 2048)  # widths of its layers
    predictor: tuple[int, ...] = (512, 2048)  # likewise, of "simsiam"; its last one the projector's
    temperature: float = 0.5  # of "simclr"
    dtype: Dtype | None = None  # what encoder and heads compute in; None: the encoder as it is
    accumulate: int = 1  # parts of a batch; "simclr" contrasts within each


SIMSIAM_CIFAR10 = PretrainConfig(
    epochs=800,
    train_batch_size=512,
    optimizer=OptimizerConfig(learning_rate=0.03, weight_decay=5e-4),
)
SIMSIAM_IMAGENET = PretrainConfig(epochs=100, train_batch_size=512, projector=(2048, 2048, 2048))
SIMCLR_CIFAR10 = PretrainConfig(
    "simclr",
    epochs=1000,
    train_batch_size=512,
    optimizer=OptimizerConfig(learning_rate=0.5, weight_decay=1e-4),
    schedule=ScheduleConfig("cosine", warmup_epochs=10),
    projector=(2048, 128),
    predictor=(),
)
SIMSIAM_SMALL = PretrainConfig(
    epochs=20,
    train_batch_size=128,
    optimizer=OptimizerConfig(learning_rate=1.0, weight_decay=5e-4),
    projector=(256, 256),
    predictor=(64, 256),
)
SIMCLR_SMALL = PretrainConfig(
    "simclr",
    epochs=20,
    train_batch_size=128,
    optimizer=OptimizerConfig("adamw", learning_rate=2e-3, weight_decay=1e-4),
    schedule=ScheduleConfig("cosine", warmup_epochs=1),
    projector=(256, 64),
    predictor=(),
)


class Pretrained(NamedTuple):
    """A pre-trained encoder."""

    variables: dict[str, Any]  # {"params", "batch_stats"} of the encoder alone
    history: tuple[dict[str, Any], ...]  # one record an epoch, see `pretrain`


def check_pretrain(config: PretrainConfig, name: str = "config") -> None:
    """Check a configuration.

    Args:
      config: the configuration.
      name: what to call it in an error.

    Raises:
      ValueError: no `PretrainConfig`, or something in it that is out of its range.
    """
    if not isinstance(config, PretrainConfig):
        raise ValueError(f"{name}: expected a PretrainConfig, found {type(config).__name__}")
    check_choice(config.method, f"{name}.method", Method)
    for count in ("epochs", "train_batch_size", "accumulate"):
        check_positive(getattr(config, count), f"{name}.{count}")
    check_optimizer(config.optimizer, f"{name}.optimizer")
    check_schedule(config.schedule, f"{name}.schedule", epochs=config.epochs)
    check_number(config.temperature, f"{name}.temperature", least=0, above=True)
    if config.dtype is not None:
        check_choice(config.dtype, f"{name}.dtype", Dtype)
    for part in ("projector", "predictor"):
        for width in getattr(config, part):
            check_positive(width, f"{name}.{part}")
    if not config.projector:
        raise ValueError(f"{name}.projector: expected the width of one layer or more, found none")
    if (config.method == "simsiam") != bool(config.predictor):
        raise ValueError(
            f'{name}.predictor: expected widths just for "simsiam", found {config.predictor} for '
            f"{config.method!r}"
        )
    if config.predictor and config.predictor[-1] != config.projector[-1]:
        raise ValueError(
            f"{name}.predictor: expected the projector's width of {config.projector[-1]} in the "
            f"end, found {config.predictor[-1]}"
        )


def pretrain(
    key: jax.Array,
    encoder: nn.Module,
    images: Any,
    *,
    config: PretrainConfig,
    view: Pipeline,
    prepare: Prepare | None = None,
    variables: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    monitor: Monitor | None = None,
    monitor_every: int = 1,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Pretrained:
    """Pre-train an encoder without labels.

    ::

        encoder, view = get_encoder("resnet18_cifar"), simsiam_view(32)
        found = pretrain(jax.random.key(0), encoder, images, config=SIMSIAM_CIFAR10, view=view)

    An epoch of n images takes ``ceil(n / train_batch_size)`` steps whose sizes differ by one at
    most. Each step makes two views of every image and lowers `simsiam_loss` or `nt_xent`.

    Each record of the history has ``epoch``, ``loss``, ``spread`` (`collapse` of the projections:
    near 0 the encoder has collapsed), both means over the epoch's images, and what the monitor
    found.

    Args:
      key: initial weights, the order of images, and their views.
      encoder: a module ``(images, *, train, mask) -> features [n, f]``.
      images: ``[n, h, w, c]`` uint8, kept on the device, or on each; or an `ImageSource` of which a
        batch is loaded at a time, one ahead.
      config: such as `SIMSIAM_CIFAR10`.
      view: makes a view of one image, ``(key, float32 [h, w, c] in 0..1) -> [h', w', c]``, such as
        ``simsiam_view(size)`` of `jaxal.augment`.
      prepare: maps a batch of views to what the encoder reads; None for them as they are.
      variables: of the encoder, to start from; None for new ones.
      mesh: devices to lay batches over, from `jaxal.sharding.data_mesh`; None for the default one.
      monitor: given the encoder's variables, finds numbers for the record, such as
        `jaxal.train.probes.knn_accuracy` on images of known class.
      monitor_every: epochs from one to the next; it is run after the last one too.
      checkpoint: a folder to save to after every epoch; where it holds a training with the same
        arguments (functions are compared by name and bound arguments), it goes on, and ends as if
        it had never stopped.
      on_epoch: called after every epoch with its record.

    Returns:
      The encoder's variables and the history.

    Raises:
      ValueError: bad images, configuration or variables, a checkpoint of another training, or
        training that diverges (`DivergedError`).
    """
    check_pretrain(config)
    check_positive(monitor_every, "monitor_every")
    n = check_images(images)
    if n < 2:
        raise ValueError(f"images: expected two or more, found {n}")
    model = _make_model(encoder, config)
    init_key, order_key, step_key = jax.random.split(key, 3)
    first = fetcher(images)(np.zeros(1, np.int64))
    start = _initial(init_key, model, first, view, prepare, variables)
    optimizer = _optimizer(config, start["params"], n)
    state, history = init_state(start, optimizer, mesh=mesh), []
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        settings = describe_training(
            [key], model, start, images, config, view=view, prepare=prepare
        )
        if open_checkpoint(checkpoint, settings) is not None:
            restored = restore_checkpoint(checkpoint, state, settings)
            state, history = restored.state, restored.record
    loss_fn = _make_loss(model, config, view, prepare)
    task = _Task(
        config,
        (order_key, step_key),
        make_train_step(loss_fn, optimizer, mesh=mesh, accumulate=config.accumulate),
        make_loader(images, np.zeros(n, np.int32), mesh),
        n,
        padded_size(min(n, config.train_batch_size), mesh, accumulate=config.accumulate),
    )
    for epoch in range(len(history), config.epochs):
        state, record = _run_epoch(task, state, epoch)
        if monitor is not None and (epoch % monitor_every == 0 or epoch == config.epochs - 1):
            record |= {name: float(x) for name, x in monitor(_encoder_part(state)).items()}
        history.append(record)
        if checkpoint is not None:
            save_checkpoint(checkpoint, state, settings, step=epoch + 1, record=history)
        if on_epoch is not None:
            on_epoch(dict(record))
    return Pretrained(jax.tree.map(jnp.array, _encoder_part(state)), tuple(history))


class _Task(NamedTuple):
    """A training that is ready to start."""

    config: PretrainConfig
    keys: tuple[jax.Array, jax.Array]  # of the order and the steps
    step: TrainStep
    load: Loader
    num_images: int
    step_rows: int  # of a padded batch


def _make_model(encoder: nn.Module, config: PretrainConfig) -> Projected:
    dtype = jnp.dtype(config.dtype or "float32")
    if config.dtype is not None:
        if not hasattr(encoder, "dtype"):
            raise ValueError(f"dtype: expected an encoder that has one, found {encoder!r}")
        encoder = encoder.clone(dtype=dtype)
    projector = MLP(config.projector, normalize_output=config.method == "simsiam", dtype=dtype)
    predictor = MLP(config.predictor, dtype=dtype) if config.predictor else None
    return Projected(encoder, projector, predictor)


def _initial(
    key: jax.Array,
    model: Projected,
    image: np.ndarray,
    view: Pipeline,
    prepare: Prepare | None,
    variables: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Draw the weights, but for those of the encoder that are given."""

    @jax.jit
    def init(key: jax.Array, image: jax.Array) -> Any:
        return model.init(key, _views(key, image, view, prepare))

    drawn = dict(init(key, jnp.asarray(image)))
    if variables is None:
        return drawn
    for name, found in variables.items():
        if name not in drawn or "encoder" not in drawn[name]:
            raise ValueError(f"variables: expected those of the encoder, found {name!r}")
        wanted, given = (
            {jax.tree_util.keystr(p): np.shape(x) for p, x in jax.tree.leaves_with_path(tree)}
            for tree in (drawn[name]["encoder"], found)
        )
        if wanted != given:
            differing = sorted(set(wanted.items()) ^ set(given.items()))
            raise ValueError(
                f"variables: expected those of the encoder, found other {differing[:4]}"
            )
        drawn[name] = {**drawn[name], "encoder": found}
    return drawn


def _views(key: jax.Array, images: jax.Array, view: Pipeline, prepare: Prepare | None) -> jax.Array:
    made = augment_batch(view, key, images.astype(jnp.float32) / 255)
    return made if prepare is None else prepare(made)


def _optimizer(
    config: PretrainConfig, params: Mapping[str, Any], num_images: int
) -> optax.GradientTransformation:
    batch_size = min(num_images, config.train_batch_size)
    steps_per_epoch = -(-num_images // config.train_batch_size)
    rate = config.optimizer.learning_rate * batch_size / _RATE_IMAGES
    own = config.optimizer._replace(learning_rate=rate)
    return make_optimizer(
        dict.fromkeys(params, own),
        config.schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=config.epochs * steps_per_epoch,
    )


def _make_loss(
    model: Projected, config: PretrainConfig, view: Pipeline, prepare: Prepare | None
) -> LossFn:
    def loss_fn(
        params: Any, batch_stats: Any, batch: dict[str, Any], key: jax.Array
    ) -> tuple[jax.Array, Aux]:
        outputs = []
        for view_key in jax.random.split(key):
            images = _views(view_key, batch["images"], view, prepare)
            (_, projected, predicted), updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mask=batch["mask"],
                mutable=["batch_stats"],
            )
            batch_stats = updated.get("batch_stats", {})
            outputs.append((projected, predicted))
        (z1, p1), (z2, p2) = outputs
        if config.method == "simsiam":
            loss = simsiam_loss(p1, p2, z1, z2, mask=batch["mask"])
        else:
            loss = nt_xent(z1, z2, temperature=config.temperature, mask=batch["mask"])
        return loss, Aux(batch_stats, {"spread": collapse(z1, mask=batch["mask"])})

    return loss_fn


def _run_epoch(task: _Task, state: TrainState, epoch: int) -> tuple[TrainState, dict[str, Any]]:
    """Train for an epoch and record it."""
    order_key, step_key = task.keys
    batches = even_batches(
        jax.random.fold_in(order_key, epoch),
        np.arange(task.num_images),
        train_batch_size=task.config.train_batch_size,
        step_rows=task.step_rows,
    )
    seen = []
    for batch in task.load(batches):
        own = {"images": batch["images"], "mask": batch["mask"]}
        state, metrics = task.step(state, own, step_key)
        seen.append(metrics)
    means = mean_metrics(seen, batches)
    rates = f"optimizer.learning_rate {task.config.optimizer.learning_rate}"
    check_converging(f"epoch {epoch}", means["loss"], state, rates)
    return state, {"epoch": epoch, "loss": means["loss"], "spread": means["spread"]}


def _encoder_part(state: TrainState) -> dict[str, Any]:
    """Take the encoder's variables, which the next step overwrites."""
    parts = {"params": state.params, "batch_stats": state.batch_stats}
    return {name: tree["encoder"] for name, tree in parts.items() if "encoder" in tree}
