"""What training on labelled images compiles: the loss, the step and the view of a batch.

Compiled programs are kept, so that one training after another with the same network compiles once.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxal.augment.base import Pipeline, augment_batch
from jaxal.sharding import batch_sharding, replicated_sharding
from jaxal.train.optimizers import make_optimizer
from jaxal.train.recipes import FinetuneConfig
from jaxal.train.step import Aux, LossFn, TrainStep, make_train_step

__all__ = [
    "Prepare",
    "View",
    "as_floats",
    "compiled_step",
    "compiled_view",
    "config_optimizer",
    "count_classes",
    "make_loss",
    "with_dtype",
]

# Float32 images [n, h, w, c] in 0..1 to what a network reads; see `jaxal.models.preprocess`.
Prepare = Callable[[jax.Array], jax.Array]
# (key, batch) -> batch: as it is stored, to as the network reads it.
View = Callable[[jax.Array, dict[str, jax.Array]], dict[str, jax.Array]]


def as_floats(x: jax.Array) -> jax.Array:
    """Turn uint8 images to float32 in 0..1, and features of any other dtype to float32."""
    x = jnp.asarray(x)
    return x.astype(jnp.float32) / (255 if x.dtype == jnp.uint8 else 1)


def with_dtype(classifier: nn.Module, dtype: str | None) -> nn.Module:
    """Let a classifier's encoder compute in another dtype; None for its own.

    Raises:
      ValueError: the classifier has no ``encoder`` with a ``dtype``.
    """
    if dtype is None:
        return classifier
    encoder = getattr(classifier, "encoder", None)
    if encoder is None or not hasattr(encoder, "dtype"):
        raise ValueError(
            f"dtype: expected a classifier whose encoder has one, found {type(classifier).__name__}"
        )
    if jnp.dtype(encoder.dtype) == jnp.dtype(dtype):
        return classifier
    return classifier.clone(encoder=encoder.clone(dtype=jnp.dtype(dtype)))


def count_classes(
    classifier: nn.Module,
    variables: Mapping[str, Any],
    prepare: Prepare | None,
    images: np.ndarray,
) -> int:
    """Tell how many classes a classifier has, without computing anything.

    Raises:
      ValueError: variables whose parameters are not ``{"encoder": ..., "head": ...}``, of which an
        encoder without any may be left out.
    """
    parts = set(variables.get("params", ()))
    if not {"head"} <= parts <= {"encoder", "head"}:
        raise ValueError(
            "variables: expected params of 'encoder' and 'head', found "
            f"{sorted(variables.get('params', variables))}"
        )

    def logits(images: jax.Array) -> jax.Array:
        x = as_floats(images)
        return classifier.apply(variables, x if prepare is None else prepare(x))[0]

    return jax.eval_shape(logits, images).shape[1]


def make_loss(
    classifier: nn.Module,
    *,
    label_smoothing: float = 0.0,
    freeze_encoder: bool = False,
    freeze_stats: bool = False,
) -> LossFn:
    """Make the loss of a classifier: the mean cross-entropy over real rows.

    Args:
      classifier: a module of the signature of `jaxal.models.classifier.Classifier`.
      label_smoothing: share of the target that all classes get alike.
      freeze_encoder: whether gradients end at the encoder, which saves its backward pass.
      freeze_stats: whether the encoder uses and keeps its running statistics.

    Returns:
      A `LossFn` for batches of ``"images"`` ``[n, h, w, c]`` as the network reads them,
      ``"labels"`` ``[n]`` and ``"mask"``, with the metric ``"accuracy"``.
    """
    options: dict[str, Any] = {"freeze_stats": True} if freeze_stats else {}

    def loss_fn(
        params: Any, batch_stats: Any, batch: dict[str, Any], key: jax.Array
    ) -> tuple[jax.Array, Aux]:
        if freeze_encoder:
            params = {**params, "encoder": jax.lax.stop_gradient(params["encoder"])}
        (logits, _), updated = classifier.apply(
            {"params": params, "batch_stats": batch_stats},
            batch["images"],
            train=True,
            mask=batch["mask"],
            rngs={"dropout": key},
            mutable=["batch_stats"],
            **options,
        )
        logits = logits.astype(jnp.float32)
        targets = optax.losses.smooth_labels(
            jax.nn.one_hot(batch["labels"], logits.shape[1]), label_smoothing
        )
        losses = optax.softmax_cross_entropy(logits, targets)
        correct = jnp.argmax(logits, axis=1) == batch["labels"]
        count = jnp.maximum(jnp.sum(batch["mask"]), 1)

        def mean(x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(batch["mask"], x, 0)) / count

        return mean(losses), Aux(updated.get("batch_stats", {}), {"accuracy": mean(correct)})

    return loss_fn


def config_optimizer(config: FinetuneConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """Make the optimiser of a configuration.

    Args:
      config: what is trained and how.
      steps_per_epoch: updates in an epoch.

    Returns:
      The optimiser of parameters ``{"encoder": ..., "head": ...}``, see `make_optimizer`.

    Raises:
      ValueError: a bad optimiser, schedule or number.
    """
    return make_optimizer(
        {"encoder": config.encoder, "head": config.head},
        config.schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=config.epochs * steps_per_epoch,
    )


def compiled_step(classifier: nn.Module, config: FinetuneConfig, mesh: Mesh | None) -> TrainStep:
    """Compile the step of a configuration, or find it among those compiled before.

    Args:
      classifier: see `make_loss`.
      config: the configuration, of which learning rates, lengths and sizes make no other step.
      mesh: devices to lay batches over.

    Returns:
      The step, for states of `config_optimizer`.
    """
    default = FinetuneConfig()
    free = ("epochs", "train_batch_size", "dtype", "augment", "validation_fraction", "patience")
    kept = config._replace(**{name: getattr(default, name) for name in free})
    kept = kept._replace(head=config.head._replace(learning_rate=1.0))
    if config.encoder is not None:
        kept = kept._replace(encoder=config.encoder._replace(learning_rate=1.0))
    return _compiled_step(classifier, kept, mesh)


@functools.lru_cache(maxsize=16)
def _compiled_step(classifier: nn.Module, config: FinetuneConfig, mesh: Mesh | None) -> TrainStep:
    loss_fn = make_loss(
        classifier,
        label_smoothing=config.label_smoothing,
        freeze_encoder=config.encoder is None,
        freeze_stats=config.freeze_stats,
    )
    return make_train_step(
        loss_fn,
        # Its rates and lengths are those of the state that training starts with.
        config_optimizer(config, steps_per_epoch=1),
        mesh=mesh,
        ema_decay=config.ema_decay,
        accumulate=config.accumulate,
    )


@functools.lru_cache(maxsize=16)
def compiled_view(augment: Pipeline | None, prepare: Prepare | None, mesh: Mesh | None) -> View:
    """Compile what turns a batch of stored images into what the network reads in training.

    Args:
      augment: of one image; None for none.
      prepare: of a batch; None for images in 0..1.
      mesh: devices that batches lie on.

    Returns:
      ``view(key, batch) -> batch``.
    """

    def view(key: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        images = as_floats(batch["images"])
        if augment is not None:
            images = augment_batch(augment, key, images)
        return {**batch, "images": images if prepare is None else prepare(images)}

    if mesh is None:
        return jax.jit(view)
    spread = batch_sharding(mesh)
    return jax.jit(view, in_shardings=(replicated_sharding(mesh), spread), out_shardings=spread)
