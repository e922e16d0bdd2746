"""What an augmentation is, and how one is applied to a batch.

An augmentation is a pure function ``(key, image [h, w, c]) -> image`` of one float32 image in 0..1;
its options are bound by keyword (`functools.partial`). Everything here runs under `jax.jit` and
`jax.vmap`, on the device.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_number

__all__ = [
    "Pipeline",
    "augment_batch",
    "augment_features",
    "check_image",
    "check_range",
    "check_share",
    "compose",
    "sometimes",
    "whole_below",
]

Pipeline = Callable[[jax.Array, jax.Array], jax.Array]


def augment_batch(
    fn: Pipeline, key: jax.Array, images: ArrayLike, *, rows: ArrayLike | None = None
) -> jax.Array:
    """Augment every image of a batch with a key of its own.

    What becomes of an image depends on ``key``, its row number and itself only: neither the size of
    the batch nor how it is cut or sharded matters, as long as ``rows`` goes along.

    Args:
      fn: the augmentation of one image.
      key: the batch's; draw a new one for each step.
      images: ``[n, h, w, c]`` float32 in 0..1.
      rows: ``[n]`` integers of at least 0, each image's row number; by default 0..n-1.

    Returns:
      ``[n, ...]``, as ``fn`` gives them.

    Raises:
      ValueError: images of another rank or dtype, or another number of rows.
    """
    x = jnp.asarray(images)
    if x.ndim != 4:
        raise ValueError(f"images: expected a batch [n, h, w, c], found shape {x.shape}")
    _check_dtype(x, "images")
    return _augment_rows(fn, key, x, rows)


def augment_features(
    fn: Pipeline, key: jax.Array, features: ArrayLike, *, rows: ArrayLike | None = None
) -> jax.Array:
    """Augment every row of a batch of features, as `augment_batch` does images.

    Args:
      fn: the augmentation of one row, ``(key, features [d]) -> [d']``.
      key: the batch's.
      features: ``[n, d]`` floating point.
      rows: ``[n]`` integers of at least 0, each row's number; by default 0..n-1.

    Returns:
      ``[n, d']``.

    Raises:
      ValueError: features of another rank or dtype, or another number of rows.
    """
    x = jnp.asarray(features)
    if x.ndim != 2:
        raise ValueError(f"features: expected a batch [n, d], found shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"features: expected floating point, found dtype {x.dtype}")
    return _augment_rows(fn, key, x, rows)


def _augment_rows(fn: Pipeline, key: jax.Array, x: jax.Array, rows: ArrayLike | None) -> jax.Array:
    numbers = jnp.arange(len(x)) if rows is None else jnp.asarray(rows)
    if numbers.shape != (len(x),) or not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise ValueError(
            f"rows: expected {len(x)} integers, found shape {numbers.shape} of {numbers.dtype}"
        )
    # Folding in, unlike splitting, gives a row the same key whatever the number of rows.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    return jax.vmap(fn)(keys, x.astype(jnp.float32))


def compose(*ops: Pipeline) -> Pipeline:
    """Chain augmentations, the first first, each with a key of its own."""
    # A partial, unlike a closure, can be asked what it is made of.
    return functools.partial(_composed, ops=ops)


def sometimes(op: Pipeline, *, probability: float) -> Pipeline:
    """Apply an augmentation that keeps an image's shape to some of the images.

    Args:
      op: the augmentation; computed for all images, and dropped where it does not apply.
      probability: how often it applies.

    Raises:
      ValueError: a probability outside 0..1.
    """
    return functools.partial(_applied, op=op, probability=check_share(probability))


def whole_below(share: jax.Array, bound: ArrayLike) -> jax.Array:
    """Turn uniform draws from [0, 1) into whole numbers of 0..bound-1, each as likely.

    Unlike `jax.random.randint` it lets one draw serve several bounds, which compiles much faster.

    Args:
      share: float32 draws.
      bound: at least 1, and far below 2^23, the number of values that a draw may take.
    """
    return jnp.floor(share * bound).astype(jnp.int32)


def check_image(image: ArrayLike, *, channels: tuple[int, ...] | None = None) -> jax.Array:
    """Check one image, as far as a traced one can be looked at.

    Args:
      image: ``[h, w, c]`` floating point.
      channels: the ``c`` allowed; None for any.

    Returns:
      The image in float32.

    Raises:
      ValueError: another rank, no pixels, another dtype, or a number of channels not allowed.
    """
    x = jnp.asarray(image)
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"image: expected one image [h, w, c], found shape {x.shape}")
    _check_dtype(x, "image")
    if channels is not None and x.shape[2] not in channels:
        expected = " or ".join(map(str, channels))
        raise ValueError(f"image: expected {expected} channels, found {x.shape[2]}")
    return x.astype(jnp.float32)


def check_share(value: float, name: str = "probability") -> float:
    """Check a probability or a level.

    Raises:
      ValueError: it is not in 0..1.
    """
    if check_number(value, name, least=0) > 1:
        raise ValueError(f"{name}: expected a number in 0..1, found {value!r}")
    return float(value)


def check_range(
    value: tuple[float, float], name: str, *, least: float, above: bool = False
) -> tuple[float, float]:
    """Check the two ends of a range.

    Args:
      value: ``(low, high)``.
      name: its name, for errors.
      least: the least ``low``.
      above: whether ``low`` has to be above it.

    Raises:
      ValueError: not two numbers, in descending order, or too small.
    """
    if np.shape(value) != (2,) or not value[0] <= value[1]:
        raise ValueError(f"{name}: expected (low, high) with low <= high, found {value!r}")
    low, high = (check_number(end, name, least=least, above=above) for end in value)
    return float(low), float(high)


def _composed(key: jax.Array, image: jax.Array, *, ops: tuple[Pipeline, ...]) -> jax.Array:
    for op_key, op in zip(jax.random.split(key, len(ops)), ops, strict=True):
        image = op(op_key, image)
    return image


def _applied(key: jax.Array, image: jax.Array, *, op: Pipeline, probability: float) -> jax.Array:
    coin, inner = jax.random.split(key)
    return jnp.where(jax.random.bernoulli(coin, probability), op(inner, image), image)


def _check_dtype(x: jax.Array, name: str) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{name}: expected float32 in 0..1, found dtype {x.dtype}; divide 8-bit levels by 255"
        )
