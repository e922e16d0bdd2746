"""Sharpening and Gaussian blur."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.augment.base import check_image, check_range, check_share
from jaxal.augment.colour import blend
from jaxal.checks import check_number, check_positive, is_traced

__all__ = ["adjust_sharpness", "gaussian_blur", "random_blur", "smooth"]


def smooth(image: ArrayLike) -> jax.Array:
    """Average each pixel, counted five times, with its eight neighbours: exactly PIL's ``SMOOTH``.

    The outermost pixels stay, and the others are rounded to whole levels.

    Args:
      image: ``[h, w, c]``.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: a malformed image.
    """
    x = check_image(image)
    height, width, _ = x.shape
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    three = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    total = three[:-2] + three[1:-1] + three[2:] + 4 * x
    row, column = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    inner = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    return jnp.where(inner, jnp.floor(total * (255 / 13) + 0.5) / 255, x)


def adjust_sharpness(image: ArrayLike, factor: ArrayLike) -> jax.Array:
    """Blend with the smoothed image: PIL's ``ImageEnhance.Sharpness``.

    Less than one level above PIL, which cuts off to whole levels.

    Args:
      image: ``[h, w, c]``.
      factor: 0 smooths, 1 changes nothing, 2 sharpens.

    Returns:
      ``[h, w, c]`` in 0..1.

    Raises:
      ValueError: a malformed image.
    """
    return blend(smooth(image), check_image(image), factor)


def gaussian_blur(
    image: ArrayLike, sigma: ArrayLike, *, kernel_size: int | None = None
) -> jax.Array:
    """Blur by a Gaussian cut off to a kernel of fixed size, by one matrix product an axis.

    Beyond its edges the image is mirrored at its outermost pixels. Equal to torchvision's
    ``gaussian_blur`` on floating-point images but for rounding.

    Args:
      image: ``[h, w, c]``.
      sigma: standard deviation in pixels, above 0; a traced one is not checked.
      kernel_size: odd; by default a tenth of the height as SimCLR (arXiv 2002.05709, appendix A)
        has it, at least 3.

    Returns:
      ``[h, w, c]`` in 0..1.

    Raises:
      ValueError: a malformed image, a standard deviation that is not above 0, or a kernel that is
        even or reaches beyond the mirrored image.
    """
    x = check_image(image)
    if not is_traced(sigma):
        concrete: Any = np.asarray(sigma)[()]
        check_number(concrete, "sigma", least=0, above=True)
    height, width, _ = x.shape
    radius = max(1, height // 20)
    if kernel_size is not None:
        radius = check_positive(kernel_size, "kernel_size") // 2
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, found {kernel_size}")
    if radius >= min(height, width):
        raise ValueError(
            f"kernel_size: expected less than twice the image's {height} x {width}, "
            f"found {2 * radius + 1}"
        )
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("qw,hwc->hqc", _blur_weights(sigma, radius, width), x, precision=exact)
    x = jnp.einsum("ph,hqc->pqc", _blur_weights(sigma, radius, height), x, precision=exact)
    return jnp.clip(x, 0, 1)


def random_blur(
    key: jax.Array,
    image: ArrayLike,
    *,
    sigma: tuple[float, float] = (0.1, 2.0),
    kernel_size: int | None = None,
    probability: float = 0.5,
) -> jax.Array:
    """Blur, sometimes, with a standard deviation drawn uniformly.

    The defaults are those of SimCLR (arXiv 2002.05709, appendix A).

    Args:
      key: of the draw.
      image: ``[h, w, c]``.
      sigma: least and largest standard deviation, in pixels.
      kernel_size: as in `gaussian_blur`.
      probability: how often.

    Returns:
      ``[h, w, c]`` in 0..1.

    Raises:
      ValueError: a malformed image, or an option out of its range.
    """
    check_share(probability)
    low, high = check_range(sigma, "sigma", least=0, above=True)
    x = check_image(image)
    coin, share = jax.random.uniform(key, (2,), jnp.float32)
    blurred = gaussian_blur(x, low + (high - low) * share, kernel_size=kernel_size)
    return jnp.where(coin < probability, blurred, x)


def _blur_weights(sigma: ArrayLike, radius: int, pixels: int) -> jax.Array:
    """Blurring matrix ``[pixels, pixels]`` of one axis, mirroring included."""
    i = jnp.arange(pixels)
    out = i[:, None]

    def weights(distance: jax.Array) -> jax.Array:
        inside = jnp.abs(distance) <= radius
        return jnp.where(inside, jnp.exp(-0.5 * (distance / jnp.asarray(sigma)) ** 2), 0)

    # Pixel i is met again at -i and at 2 (pixels - 1) - i; the outermost are the mirrors.
    before = jnp.where(i > 0, weights(out + i), 0)
    after = jnp.where(i < pixels - 1, weights(2 * (pixels - 1) - i - out), 0)
    total = weights(out - i) + before + after
    return total / jnp.sum(total, axis=1, keepdims=True)
