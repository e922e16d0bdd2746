"""Affine warps as PIL's ``Image.transform(size, AFFINE, ...)`` does them.

A matrix is six numbers ``(a, b, c, d, e, f)``: the point (x, y) of the result shows the point
``(a x + b y + c, d x + e y + f)`` of the image, where pixel (i, j) covers i..i+1 and j..j+1. What
lies outside the image is filled.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxal.augment.base import check_image, check_share
from jaxal.checks import check_choice

__all__ = [
    "Resample",
    "affine",
    "rotate",
    "rotation_matrix",
    "shear",
    "translate",
]

Resample = Literal["nearest", "bilinear"]


def affine(
    image: ArrayLike, matrix: ArrayLike, *, resample: Resample = "nearest", fill: float = 0.0
) -> jax.Array:
    """Warp an image by any affine map.

    ``"nearest"`` computes in the 16.16 fixed point that PIL does, so that it gives PIL's image for
    the same matrix, except that the matrix is in float32 here and in float64 there: a pixel may
    come from its neighbour where its source lies within 1e-3 of the boundary between the two.
    ``"bilinear"`` is less than one level off, because PIL cuts results off to whole levels.

    Args:
      image: ``[h, w, c]``.
      matrix: ``[6]``; points of the result must have sources in ±32768.
      resample: how an image is read between its pixels.
      fill: what lies outside, in 0..1, in all channels.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: a malformed image or matrix, or an unknown option.
    """
    x = check_image(image)
    check_share(fill, "fill")
    check_choice(resample, "resample", Resample)
    m = jnp.asarray(matrix, jnp.float32)
    if m.shape != (6,):
        raise ValueError(f"matrix: expected 6 numbers, found shape {m.shape}")
    return _nearest(x, m, fill) if resample == "nearest" else _bilinear(x, m, fill)


def rotate(
    image: ArrayLike, degrees: ArrayLike, *, resample: Resample = "nearest", fill: float = 0.0
) -> jax.Array:
    """Rotate counter-clockwise about the middle, as PIL's ``Image.rotate``; as close as `affine`.

    Args:
      image: ``[h, w, c]``.
      degrees: the angle.
      resample: as in `affine`.
      fill: as in `affine`.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: as `affine`.
    """
    x = check_image(image)
    return affine(x, rotation_matrix(degrees, *x.shape[:2]), resample=resample, fill=fill)


def shear(
    image: ArrayLike,
    *,
    x: ArrayLike = 0.0,
    y: ArrayLike = 0.0,
    resample: Resample = "nearest",
    fill: float = 0.0,
) -> jax.Array:
    """Move rows to the left and columns up, the further the later: PIL's (1, x, 0, y, 1, 0).

    Args:
      image: ``[h, w, c]``.
      x: row j moves by ``x · j`` pixels; below 0 to the right.
      y: column i moves by ``y · i`` pixels; below 0 down.
      resample: as in `affine`.
      fill: as in `affine`.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: as `affine`.
    """
    return affine(image, _matrix(1.0, x, 0.0, y, 1.0, 0.0), resample=resample, fill=fill)


def translate(
    image: ArrayLike,
    *,
    x: ArrayLike = 0.0,
    y: ArrayLike = 0.0,
    resample: Resample = "nearest",
    fill: float = 0.0,
) -> jax.Array:
    """Move to the left and up: PIL's matrix (1, 0, x · w, 0, 1, y · h).

    Args:
      image: ``[h, w, c]``.
      x: of the width; below 0 to the right.
      y: of the height; below 0 down.
      resample: as in `affine`.
      fill: as in `affine`.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: as `affine`.
    """
    height, width, _ = check_image(image).shape
    matrix = _matrix(1.0, 0.0, x * width, 0.0, 1.0, y * height)
    return affine(image, matrix, resample=resample, fill=fill)


def rotation_matrix(degrees: ArrayLike, height: int, width: int) -> jax.Array:
    """Make the matrix that rotates counter-clockwise about an image's middle.

    Args:
      degrees: the angle.
      height: of the image, in pixels.
      width: of the image.

    Returns:
      ``[6]`` float32.
    """
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = width / 2, height / 2
    return _matrix(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _matrix(*entries: ArrayLike) -> jax.Array:
    return jnp.stack([jnp.asarray(entry, jnp.float32) for entry in entries])


def _nearest(x: jax.Array, matrix: jax.Array, fill: float) -> jax.Array:
    height, width, _ = x.shape
    a, b, c, d, e, f = matrix
    i, j = jnp.arange(width), jnp.arange(height)[:, None]
    column = (_fixed(a) * i + _fixed(b) * j + _fixed(c + (a + b) / 2)) >> 16
    row = (_fixed(d) * i + _fixed(e) * j + _fixed(f + (d + e) / 2)) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return jnp.where(inside[..., None], _read(x, row, column), fill)


def _bilinear(x: jax.Array, matrix: jax.Array, fill: float) -> jax.Array:
    height, width, _ = x.shape
    a, b, c, d, e, f = matrix
    i, j = jnp.arange(width) + 0.5, jnp.arange(height)[:, None] + 0.5
    column, row = a * i + b * j + c, d * i + e * j + f
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    left, top = jnp.floor(column - 0.5), jnp.floor(row - 0.5)
    across, down = (column - 0.5 - left)[..., None], (row - 0.5 - top)[..., None]
    left, top = left.astype(jnp.int32), top.astype(jnp.int32)
    above = _mix(_read(x, top, left), _read(x, top, left + 1), across)
    below = _mix(_read(x, top + 1, left), _read(x, top + 1, left + 1), across)
    return jnp.where(inside[..., None], _mix(above, below, down), fill)


def _fixed(value: jax.Array) -> jax.Array:
    return jnp.floor(value * 65536 + 0.5).astype(jnp.int32)


def _mix(a: jax.Array, b: jax.Array, share: jax.Array) -> jax.Array:
    # Not a + (b - a) share, which can leave 0..1 by rounding.
    return a * (1 - share) + b * share


def _read(x: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Pixels ``[h, w, c]``, the nearest there is where they lie outside."""
    height, width, channels = x.shape
    index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    return x.reshape(-1, channels).at[index].get(mode="promise_in_bounds")
