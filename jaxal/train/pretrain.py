"""Pre-train an encoder on images without labels: SimSiam and SimCLR.

`SIMSIAM_CIFAR10` and `SIMCLR_CIFAR10` are the papers' for 32 pixels (arXiv 2011.10566, appendix D;
arXiv 2002.05709, appendix B.9, whose optimiser, LARS, is replaced by SGD), `SIMSIAM_IMAGENET` is
SimSiam's for ImageNet (section 3 and appendix A). `SIMSIAM_SMALL` and `SIMCLR_SMALL` are ours, for
small networks on CPUs, where minutes have to do. Ours, too: each view is normalised by its own
batch statistics in SimCLR as in SimSiam, and the predictor's rate falls with the others'.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxal.augment.base import augment_batch
from jaxal.checks import check_choice, check_number, check_positive
from jaxal.data.sources import ImageSource
from jaxal.models.projectors import MLP, Projected
from jaxal.records import describe, fingerprint
from jaxal.sharding import check_mesh
from jaxal.train.batches import (
    check_images,
    even_batches,
    fetcher,
    resident_loader,
    streaming_loader,
)
from jaxal.train.checkpoints import latest_step, restore_checkpoint, save_checkpoint
from jaxal.train.contrastive import nt_xent
from jaxal.train.identity import describe_function, describe_module
from jaxal.train.optimizers import OptimizerConfig, check_optimizer, make_optimizer
from jaxal.train.recipes import Augment, Dtype
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
    optimizer=OptimizerConfig(learning_rate=0.06, weight_decay=5e-4),
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

    Raises:
      ValueError: no `PretrainConfig`, or something in it that is out of its range.
    """
    if not isinstance(config, PretrainConfig):
        raise ValueError(f"{name}: expected a PretrainConfig, found {type(config).__name__}")
    check_choice(config.method, "method", Method)
    for count in ("epochs", "train_batch_size", "accumulate"):
        check_positive(getattr(config, count), count)
    check_optimizer(config.optimizer)
    check_schedule(config.schedule)
    if config.schedule.warmup_epochs >= config.epochs:
        raise ValueError(
            f"warmup_epochs: expected less than the {config.epochs} epochs, "
            f"found {config.schedule.warmup_epochs}"
        )
    check_number(config.temperature, "temperature", least=0, above=True)
    if config.dtype is not None:
        check_choice(config.dtype, "dtype", Dtype)
    for part in ("projector", "predictor"):
        for width in getattr(config, part):
            check_positive(width, part)
    if not config.projector:
        raise ValueError("projector: expected the width of one layer or more, found none")
    if (config.method == "simsiam") != bool(config.predictor):
        raise ValueError(
            f'predictor: expected widths just for "simsiam", found {config.predictor} for '
            f"{config.method!r}"
        )
    if config.predictor and config.predictor[-1] != config.projector[-1]:
        raise ValueError(
            f"predictor: expected the projector's width of {config.projector[-1]} in the end, "
            f"found {config.predictor[-1]}"
        )


def pretrain(
    key: jax.Array,
    encoder: nn.Module,
    images: Any,
    *,
    config: PretrainConfig,
    view: Augment,
    prepare: Prepare | None = None,
    variables: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    monitor: Monitor | None = None,
    monitor_every: int = 1,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Pretrained:
    """Pre-train an encoder without labels.

    An epoch of n images takes ``ceil(n / train_batch_size)`` steps whose sizes differ by one at
    most. Each step makes two views of every image and lowers `simsiam_loss` or `nt_xent`.

    Each record of the history has ``epoch``, ``loss``, ``spread`` (`collapse` of the projections:
    near 0 the encoder has collapsed), and what the monitor found.

    Args:
      key: initial weights, the order of images, and their views.
      encoder: a module ``(images, *, train, mask) -> features [n, f]``.
      images: ``[n, h, w, c]`` uint8, kept on the device, or on each; or an `ImageSource` of which a
        batch is loaded at a time, one ahead.
      config: such as `SIMSIAM_CIFAR10`.
      view: makes a view of one image, ``(key, float32 [h, w, c] in 0..1) -> [h', w', c]``, such as
        `jaxal.augment.simsiam_view`.
      prepare: maps a batch of views to what the encoder reads; None for them as they are.
      variables: of the encoder, to start from; None for new ones.
      mesh: devices to lay batches over, from `jaxal.sharding.data_mesh`; None for the default one.
      monitor: given the encoder's variables, finds numbers for the record, such as
        `jaxal.train.probes.knn_accuracy` on images of known class.
      monitor_every: epochs from one to the next; it is run after the last one too.
      checkpoint: a folder to save to after every epoch; where it holds a training with the same
        arguments (functions are compared by name only), it goes on, and ends as if it had never
        stopped.
      on_epoch: called after every epoch with its record.

    Returns:
      The encoder's variables and the history.

    Raises:
      ValueError: bad images, configuration or variables, a checkpoint of another training, or a
        loss that is not finite.
    """
    check_pretrain(config)
    check_positive(monitor_every, "monitor_every")
    n = check_images(images)
    if n < 2:
        raise ValueError(f"images: expected two or more, found {n}")
    devices = 1 if mesh is None else check_mesh(mesh).size
    model = _make_model(encoder, config)
    init_key, order_key, step_key = jax.random.split(key, 3)
    fetch = fetcher(images)
    start = _initial(init_key, model, fetch(np.zeros(1, np.int64)), view, prepare, variables)
    steps_per_epoch = -(-n // config.train_batch_size)
    batch_size = min(n, config.train_batch_size)
    optimizer = _optimizer(config, start["params"], batch_size, steps_per_epoch)
    step = make_train_step(
        _make_loss(model, config, view, prepare),
        optimizer,
        mesh=mesh,
        accumulate=config.accumulate,
    )
    state, history = init_state(start, optimizer, mesh=mesh), []
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        settings = _settings(key, model, config, view, prepare, start, images)
        if latest_step(checkpoint) is not None:
            restored = restore_checkpoint(checkpoint, state, settings)
            state, history = restored.state, restored.record
    unlabeled = np.zeros(n, np.int32)
    load = (
        streaming_loader(fetch, unlabeled, mesh)
        if isinstance(images, ImageSource)
        else resident_loader(fetch(np.arange(n)), unlabeled, mesh)
    )
    multiple = devices * config.accumulate
    step_rows = -(-batch_size // multiple) * multiple
    while len(history) < config.epochs:
        epoch = len(history)
        batches = even_batches(
            jax.random.fold_in(order_key, epoch),
            np.arange(n),
            train_batch_size=config.train_batch_size,
            step_rows=step_rows,
        )
        state, record = _run_epoch(step, state, load(batches), step_key)
        record = {"epoch": epoch, **record}
        if monitor is not None and (epoch % monitor_every == 0 or epoch == config.epochs - 1):
            record |= {name: float(x) for name, x in monitor(_encoder_part(state)).items()}
        history.append(record)
        if checkpoint is not None:
            save_checkpoint(checkpoint, state, settings, step=epoch + 1, record=history)
        if on_epoch is not None:
            on_epoch(dict(record))
    return Pretrained(jax.tree.map(jnp.array, _encoder_part(state)), tuple(history))


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
    view: Augment,
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


def _views(key: jax.Array, images: jax.Array, view: Augment, prepare: Prepare | None) -> jax.Array:
    made = augment_batch(view, key, images.astype(jnp.float32) / 255)
    return made if prepare is None else prepare(made)


def _optimizer(
    config: PretrainConfig, params: Mapping[str, Any], batch: int, steps_per_epoch: int
) -> Any:
    rate = config.optimizer.learning_rate * batch / _RATE_IMAGES
    own = config.optimizer._replace(learning_rate=rate)
    return make_optimizer(
        dict.fromkeys(params, own),
        config.schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=config.epochs * steps_per_epoch,
    )


def _make_loss(
    model: Projected, config: PretrainConfig, view: Augment, prepare: Prepare | None
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


def _run_epoch(
    step: TrainStep, state: TrainState, batches: Any, key: jax.Array
) -> tuple[TrainState, dict[str, float]]:
    seen = []
    for batch in batches:
        own = {"images": batch["images"], "mask": batch["mask"]}
        state, metrics = step(state, own, key)
        seen.append(metrics)
    fetched = jax.device_get(seen)
    means = {name: float(np.mean([m[name] for m in fetched])) for name in ("loss", "spread")}
    if not np.isfinite(means["loss"]):
        raise ValueError(
            f"config: training diverged (loss {means['loss']}); lower optimizer.learning_rate, or "
            "set schedule.warmup_epochs"
        )
    return state, means


def _encoder_part(state: TrainState) -> dict[str, Any]:
    """Take the encoder's variables, which the next step overwrites."""
    parts = {"params": state.params, "batch_stats": state.batch_stats}
    return {name: tree["encoder"] for name, tree in parts.items() if "encoder" in tree}


def _settings(
    key: jax.Array,
    model: Projected,
    config: PretrainConfig,
    view: Augment,
    prepare: Prepare | None,
    start: Mapping[str, Any],
    images: Any,
) -> dict[str, Any]:
    named = jax.tree.leaves_with_path(dict(start))
    return describe(
        {
            "key": jax.random.key_data(key),
            "model": describe_module(model),
            "variables": {jax.tree_util.keystr(path): fingerprint(x) for path, x in named},
            "images": images.describe() if isinstance(images, ImageSource) else fingerprint(images),
            "config": config._asdict(),
            "view": describe_function(view),
            "prepare": describe_function(prepare),
        }
    )
