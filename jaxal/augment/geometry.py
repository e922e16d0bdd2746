"""Flips, crops and resizing."""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxal.augment.base import check_image, check_range, check_share, whole_below
from jaxal.checks import check_choice, check_count, check_positive

__all__ = [
    "Box",
    "Size",
    "center_crop",
    "check_size",
    "crop_and_resize",
    "flip",
    "pad_and_crop",
    "random_box",
    "random_flip",
    "random_resized_crop",
    "resize",
]

Size = int | tuple[int, int]  # of a square, or (height, width)
Mode = Literal["reflect", "zero"]

_TRIES = 10


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: ArrayLike  # () int32
    left: ArrayLike  # () int32
    height: ArrayLike  # () int32, at least 1
    width: ArrayLike  # () int32, at least 1


def flip(image: ArrayLike) -> jax.Array:
    """Mirror left and right: exactly PIL's ``ImageOps.mirror``.

    Args:
      image: ``[h, w, c]``.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: a malformed image.
    """
    return check_image(image)[:, ::-1]


def random_flip(key: jax.Array, image: ArrayLike, *, probability: float = 0.5) -> jax.Array:
    """Mirror left and right, sometimes.

    Args:
      key: of the draw.
      image: ``[h, w, c]``.
      probability: how often.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: a malformed image, or a probability outside 0..1.
    """
    check_share(probability)
    x = check_image(image)
    return jnp.where(jax.random.bernoulli(key, probability), flip(x), x)


def pad_and_crop(
    key: jax.Array,
    image: ArrayLike,
    *,
    padding: int = 4,
    mode: Mode = "reflect",
) -> jax.Array:
    """Shift an image by up to ``padding`` pixels: pad all sides, cut its size out anywhere.

    The defaults are those of FixMatch (arXiv 2001.07685, section 2.3), 12.5 % of 32 pixels.

    Args:
      key: where it is cut, uniform over the ``(2 · padding + 1)²`` places.
      image: ``[h, w, c]``.
      padding: in pixels; 0 for none.
      mode: what is beyond the edges: the image again, mirrored at its outermost pixels, or black.

    Returns:
      ``[h, w, c]``, of pixels of the image as they are.

    Raises:
      ValueError: a malformed image, an unknown mode, or a padding below 0 or, where it reflects, as
        large as the image.
    """
    x = check_image(image)
    height, width, channels = x.shape
    check_count(padding, "padding")
    check_choice(mode, "mode", Mode)
    if mode == "reflect" and padding >= min(height, width):
        raise ValueError(
            f"padding: expected less than the image's {height} x {width}, found {padding}"
        )
    sides = ((padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(x, sides, mode="reflect" if mode == "reflect" else "constant")
    top, left = whole_below(jax.random.uniform(key, (2,), jnp.float32), 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), (height, width, channels))


def center_crop(image: ArrayLike, *, size: Size) -> jax.Array:
    """Cut the middle out; where that is between two pixels, as torchvision does.

    Args:
      image: ``[h, w, c]``.
      size: of the crop.

    Returns:
      ``size + (c,)``.

    Raises:
      ValueError: a malformed image, or a size that is larger than it.
    """
    x = check_image(image)
    height, width = check_size(size)
    if height > x.shape[0] or width > x.shape[1]:
        raise ValueError(
            f"size: expected at most the image's {x.shape[0]} x {x.shape[1]}, "
            f"found {height} x {width}"
        )
    top, left = round((x.shape[0] - height) / 2), round((x.shape[1] - width) / 2)
    return x[top : top + height, left : left + width]


def resize(image: ArrayLike, *, size: Size) -> jax.Array:
    """Resize to any aspect ratio, bilinear and antialiased.

    Within one level of PIL's ``Image.resize`` with ``BILINEAR``, which rounds to whole levels after
    each axis.

    Args:
      image: ``[h, w, c]``.
      size: of the result.

    Returns:
      ``size + (c,)``, in 0..1.

    Raises:
      ValueError: a malformed image or size.
    """
    x = check_image(image)
    return crop_and_resize(x, Box(0, 0, x.shape[0], x.shape[1]), size=size)


def crop_and_resize(image: ArrayLike, box: Box, *, size: Size) -> jax.Array:
    """Cut a box out and resize it, bilinear and antialiased, by two matrix products.

    Row o of the matrix of an axis holds the triangle filter ``max(0, 1 - |i + ½ - c| / r)`` of the
    box's pixels i, divided by its sum, where ``c = start + (o + ½) · length / size`` and r is
    ``length / size`` but at least 1. So the box may be traced, and differ from image to image.

    Within one level of PIL's ``crop`` and ``resize``, as `resize` is.

    Args:
      image: ``[h, w, c]``.
      box: the part, inside the image; that it is so is not checked.
      size: of the result.

    Returns:
      ``size + (c,)``, in 0..1.

    Raises:
      ValueError: a malformed image or size.
    """
    x = check_image(image)
    height, width = check_size(size)
    across = _axis_weights(box.left, box.width, x.shape[1], width)
    down = _axis_weights(box.top, box.height, x.shape[0], height)
    # Not in the accelerators' reduced precision, of a quarter level or so.
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("qw,hwc->hqc", across, x, precision=exact)
    return jnp.clip(jnp.einsum("ph,hqc->pqc", down, x, precision=exact), 0, 1)


def random_box(
    key: jax.Array,
    height: int,
    width: int,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Draw a part of an image by torchvision's rule for ``RandomResizedCrop``.

    The share of the area is uniform, the aspect ratio log-uniform, sides are rounded, and the first
    of ten such shapes that fits is put anywhere. If none fits it is the largest middle part whose
    ratio is allowed.

    Args:
      key: of the draw.
      height: of the image, in pixels.
      width: of the image.
      area: least and largest share of the image's area.
      ratio: least and largest width over height.

    Returns:
      The box, inside the image.

    Raises:
      ValueError: a side below 1, or a range that is not positive and ascending.
    """
    check_positive(height, "height")
    check_positive(width, "width")
    low_area, high_area = check_range(area, "area", least=0, above=True)
    low_ratio, high_ratio = check_range(ratio, "ratio", least=0, above=True)
    low_log, high_log = math.log(low_ratio), math.log(high_ratio)
    shares = jax.random.uniform(key, (2 * _TRIES + 2,), jnp.float32)
    areas = height * width * (low_area + (high_area - low_area) * shares[:_TRIES])
    ratios = jnp.exp(low_log + (high_log - low_log) * shares[_TRIES:-2])
    widths = jnp.round(jnp.sqrt(areas * ratios)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(areas / ratios)).astype(jnp.int32)
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first, found = jnp.argmax(fits), jnp.any(fits)

    # The largest middle part; `max` because torchvision's rule gives 0 for a one-pixel strip.
    last_width = max(1, min(width, round(height * high_ratio)))
    last_height = max(1, min(height, round(width / low_ratio)))
    box_width = jnp.where(found, widths[first], last_width)
    box_height = jnp.where(found, heights[first], last_height)
    room = jnp.stack([height - box_height, width - box_width])
    top, left = jnp.where(found, whole_below(shares[-2:], room + 1), room // 2)
    return Box(top, left, box_height, box_width)


def random_resized_crop(
    key: jax.Array,
    image: ArrayLike,
    *,
    size: Size,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Cut a random part out (`random_box`) and resize it (`crop_and_resize`).

    Args:
      key: of the part.
      image: ``[h, w, c]``.
      size: of the result.
      area: least and largest share of the image's area.
      ratio: least and largest width over height, before resizing.

    Returns:
      ``size + (c,)``.

    Raises:
      ValueError: a malformed image, size or range.
    """
    x = check_image(image)
    box = random_box(key, x.shape[0], x.shape[1], area=area, ratio=ratio)
    return crop_and_resize(x, box, size=size)


def check_size(size: Size) -> tuple[int, int]:
    """Check a size.

    Args:
      size: side of a square, or height and width.

    Returns:
      Height and width.

    Raises:
      ValueError: neither a positive whole number nor two of them.
    """
    if isinstance(size, tuple):
        if len(size) != 2:
            raise ValueError(f"size: expected one number or (height, width), found {size!r}")
        return check_positive(size[0], "size"), check_positive(size[1], "size")
    return check_positive(size, "size"), check_positive(size, "size")


def _axis_weights(start: ArrayLike, length: ArrayLike, pixels: int, size: int) -> jax.Array:
    """Interpolation matrix ``[size, pixels]`` of one axis, whose rows add up to 1."""
    scale = jnp.asarray(length, jnp.float32) / size
    centers = start + (jnp.arange(size) + 0.5) * scale
    index = jnp.arange(pixels)
    distances = jnp.abs(index + 0.5 - centers[:, None]) / jnp.maximum(scale, 1)
    inside = (index >= start) & (index < start + jnp.asarray(length))
    weights = jnp.where(inside, jnp.maximum(1 - distances, 0), 0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)
