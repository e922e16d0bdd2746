"""How good a classifier is on labelled images."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxal.calibration import calibration_error
from jaxal.checks import check_features, check_labels, check_positive
from jaxal.sharding import replicated_sharding
from jaxal.train.batches import (
    Loader,
    RowBatch,
    check_images,
    fetcher,
    padded_size,
    plain_batches,
    streaming_loader,
)
from jaxal.train.supervised import Prepare, as_floats

__all__ = ["Apply", "Evaluation", "evaluate", "evaluate_logits", "logits_of", "make_apply"]

# Images uint8 [n, h, w, c], or features [n, d], to logits [n, c], row by row.
Apply = Callable[[jax.Array], jax.Array]


class Evaluation(NamedTuple):
    """How predictions agree with labels."""

    accuracy: float  # share of samples
    per_class_accuracy: np.ndarray  # [c] float64, NaN for classes without samples
    calibration_error: float  # expected, of the likeliest class; see `jaxal.calibration`
    confusion: np.ndarray  # [c, c] int64, samples by class (rows) and predicted class (columns)
    loss: float  # mean cross-entropy, in nats
    missing: tuple[int | str, ...]  # classes without samples


def evaluate(
    apply: Apply,
    images: Any,
    labels: ArrayLike | None,
    num_classes: int,
    *,
    class_names: Sequence[str] | None = None,
    chunk_size: int = 256,
    mesh: Mesh | None = None,
) -> Evaluation:
    """Evaluate a classifier on images, a chunk at a time.

    Args:
      apply: maps uint8 ``[chunk, h, w, c]``, or features, to logits ``[chunk, c]``, row by row, as
        `make_apply` gives it; jit it. It sees one shape.
      images: ``[n, h, w, c]`` uint8 or features ``[n, d]``, NumPy or memory-mapped; or an
        `ImageSource`, the next chunk of which is loaded meanwhile.
      labels: ``[n]`` int, in 0..num_classes-1; None for those of the source.
      num_classes: ``c``.
      class_names: ``[c]`` names that ``missing`` shall give; None for those of the source, or
        indices.
      chunk_size: images held at once; changes no result but by rounding.
      mesh: devices to lay chunks over, from `jaxal.sharding.data_mesh`.

    Returns:
      The evaluation: ``O(n · c)`` on the host.

    Raises:
      ValueError: no or malformed images, labels missing or out of range, or logits of another
        shape, NaN or infinite.
    """
    check_positive(chunk_size, "chunk_size")
    n = check_images(images, features=True)
    if labels is None:
        labels = getattr(images, "labels", None)
        if labels is None:
            raise ValueError("labels: expected some, as the images bring none along")
    if class_names is None:
        class_names = getattr(images, "class_names", None)
    found = check_labels(labels, num_classes, length=n)
    size = padded_size(min(chunk_size, n), mesh)
    load = streaming_loader(fetcher(images), found, mesh)
    logits = logits_of(apply, load, plain_batches(np.arange(n), size), mesh)
    return evaluate_logits(logits, found, num_classes, class_names=class_names)


def evaluate_logits(
    logits: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    class_names: Sequence[str] | None = None,
) -> Evaluation:
    """Evaluate logits.

    Args:
      logits: ``[n, c]``, of which ties go to the lower class.
      labels: ``[n]`` int, in 0..c-1.
      num_classes: ``c``.
      class_names: ``[c]`` names for ``missing``; None for indices.

    Returns:
      The evaluation.

    Raises:
      ValueError: logits of another shape or not finite, other labels, or names of another number.
    """
    x = np.asarray(check_features(logits, "logits"), np.float64)
    labels = check_labels(labels, num_classes, length=len(x))
    if x.shape[1] != num_classes:
        raise ValueError(f"logits: expected {num_classes} columns, found {x.shape[1]}")
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(f"class_names: expected {num_classes} names, found {len(class_names)}")
    log_probs = x - x.max(1, keepdims=True)
    log_probs -= np.log(np.exp(log_probs).sum(1, keepdims=True))
    predicted = x.argmax(1)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    counts = confusion.sum(1)
    with np.errstate(invalid="ignore"):
        per_class = np.diagonal(confusion) / counts
    names: Sequence[int | str] = range(num_classes) if class_names is None else class_names
    return Evaluation(
        float(np.mean(predicted == labels)),
        per_class,
        calibration_error(np.exp(log_probs), labels),
        confusion,
        float(-log_probs[np.arange(len(x)), labels].mean()),
        tuple(name for name, count in zip(names, counts, strict=True) if count == 0),
    )


def make_apply(
    classifier: nn.Module, variables: Mapping[str, Any], *, prepare: Prepare | None = None
) -> Apply:
    """Make the function that `evaluate` asks for.

    Args:
      classifier: maps prepared images to logits, or to a tuple that starts with them, as
        `jaxal.models.classifier.Classifier` does; run in evaluation mode.
      variables: its collections.
      prepare: maps float32 images ``[n, h, w, c]`` in 0..1 to what the network reads; None for the
        images as they are. Passing the same function again saves its compilation.

    Returns:
      The compiled function from uint8 images, or features, to logits.
    """
    return lambda images: _forward(
        variables, _prepared(images, prepare=prepare), classifier=classifier
    )


def logits_of(apply: Apply, load: Loader, batches: list[RowBatch], mesh: Mesh | None) -> np.ndarray:
    """Predict batches of images.

    Args:
      apply: see `evaluate`.
      load: of the images.
      batches: their rows.
      mesh: devices that batches lie on.

    Returns:
      Logits ``[n, c]`` of the real rows, in their order, on the host.

    Raises:
      ValueError: ``apply`` gives something else than one row of logits an image.
    """
    pieces = []
    for batch, loaded in zip(batches, load(batches), strict=True):
        logits = apply(loaded["images"])
        if np.ndim(logits) != 2 or len(logits) != len(batch.rows):
            raise ValueError(
                f"apply: expected logits [{len(batch.rows)}, c], found shape {np.shape(logits)}"
            )
        if jax.process_count() > 1 and mesh is not None:
            logits = _gathered(mesh)(logits)
        pieces.append(np.asarray(logits)[batch.mask])
    return np.concatenate(pieces)


@functools.partial(jax.jit, static_argnames="prepare")
def _prepared(images: jax.Array, *, prepare: Prepare | None) -> jax.Array:
    x = as_floats(images)
    return x if prepare is None else prepare(x)


@functools.partial(jax.jit, static_argnames="classifier")
def _forward(variables: Any, images: jax.Array, *, classifier: nn.Module) -> jax.Array:
    out = classifier.apply(variables, images, train=False)
    return out[0] if isinstance(out, tuple) else out


@functools.lru_cache(maxsize=16)
def _gathered(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=replicated_sharding(mesh))
