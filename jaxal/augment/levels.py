"""Operations on the 8-bit levels of each channel: fewer bits, stretched histograms.

They take any number of channels, one by one. An image that has been through other operations may
lie between levels; it counts as the nearest.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxal.augment.base import check_image

__all__ = ["autocontrast", "equalize", "posterize", "solarize"]


def solarize(image: ArrayLike, threshold: ArrayLike) -> jax.Array:
    """Invert what is light: exactly PIL's ``ImageOps.solarize``.

    Args:
      image: ``[h, w, c]``.
      threshold: in 0..1; levels of at least 256 times this are inverted: all at 0, none at 1.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: a malformed image.
    """
    x = check_image(image)
    return jnp.where(_levels(x) < 256 * threshold, x, 1 - x)


def posterize(image: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Keep the highest bits of each level: exactly PIL's ``ImageOps.posterize``.

    Args:
      image: ``[h, w, c]``.
      bits: how many, 0..8; a fraction is cut off.

    Returns:
      ``[h, w, c]`` of whole levels.

    Raises:
      ValueError: a malformed image.
    """
    # By a shift, since powers of two in floating point need not be whole.
    dropped = 8 - jnp.floor(bits).astype(jnp.int32)
    levels = _levels(check_image(image)).astype(jnp.int32)
    return (levels >> dropped << dropped).astype(jnp.float32) / 255


def autocontrast(image: ArrayLike) -> jax.Array:
    """Stretch each channel from its least and largest to 0..1: PIL's ``ImageOps.autocontrast``.

    Less than one level above PIL, which cuts off to whole levels; a channel of one level stays.

    Args:
      image: ``[h, w, c]``.

    Returns:
      ``[h, w, c]`` in 0..1.

    Raises:
      ValueError: a malformed image.
    """
    x = check_image(image)
    low, high = jnp.min(x, axis=(0, 1)), jnp.max(x, axis=(0, 1))
    # By levels, so that rounding in what came before is not blown up.
    several = _levels(high) > _levels(low)
    return jnp.where(several, (x - low) / jnp.where(several, high - low, 1), x)


def equalize(image: ArrayLike) -> jax.Array:
    """Spread the levels of each channel evenly: exactly PIL's ``ImageOps.equalize``.

    With ``n(<v)`` the number of pixels below level v, and ``s = n(<max) // 255``, level v becomes
    ``(n(<v) + s // 2) // s``, at most 255; a channel whose s is 0 stays.

    Args:
      image: ``[h, w, c]``.

    Returns:
      ``[h, w, c]`` in 0..1.

    Raises:
      ValueError: a malformed image.
    """
    x = check_image(image)
    channels = x.shape[2]
    # One histogram of all channels, each with bins of its own: on CPUs by far the fastest way.
    bins = _levels(x).astype(jnp.int32) + 256 * jnp.arange(channels)
    counts = jnp.zeros(256 * channels, jnp.int32).at[bins].add(1, mode="drop")
    counts = counts.reshape(channels, 256)
    below = jnp.cumsum(counts, axis=1) - counts
    most = jnp.max(jnp.where(counts > 0, below, 0), axis=1, keepdims=True)
    # Whole numbers in float32, whose quotients are right in images of up to 2^24 pixels.
    below, step = below.astype(jnp.float32), (most // 255).astype(jnp.float32)
    spread = jnp.floor((below + jnp.floor(step / 2)) / jnp.maximum(step, 1))
    table = jnp.where(step > 0, jnp.minimum(spread, 255), jnp.arange(256)) / 255
    return table.reshape(-1).at[bins].get(mode="clip")


def _levels(x: jax.Array) -> jax.Array:
    # Held to 0..255, so that a table or a histogram of 256 holds whatever an image holds.
    return jnp.clip(jnp.round(x * 255), 0, 255)
