"""Brightness, contrast, saturation, hue and grey, one by one and as torchvision's colour jitter.

Functions that PIL has too take its parameters. PIL cuts results off to whole levels of 1/255 where
these keep fractions, so they are less than one level above PIL's unless said otherwise; and like
it they take grey in whole levels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxal.augment.base import check_image, check_share
from jaxal.checks import check_number

__all__ = [
    "Jitter",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "apply_jitter",
    "blend",
    "color_jitter",
    "draw_jitter",
    "grayscale",
    "luma",
    "mean_gray",
    "random_grayscale",
]

# 65536ths of red, green and blue in grey: PIL's, after ITU-R 601-2.
_LUMA = (19595.0, 38470.0, 7471.0)


class Jitter(NamedTuple):
    """Changes of colour, and the order in which they are made."""

    factors: jax.Array  # [4] float32: of brightness, contrast, saturation; hue, in turns
    order: jax.Array  # [4] int32, a permutation of 0..3


def blend(degenerate: ArrayLike, image: jax.Array, factor: ArrayLike) -> jax.Array:
    """Go from one image at factor 0 to another at 1 and beyond, cut off to 0..1.

    Args:
      degenerate: ``[h, w, c]``, or what broadcasts to it.
      image: ``[h, w, c]``.
      factor: () how far.

    Returns:
      ``[h, w, c]`` in 0..1.
    """
    return jnp.clip(degenerate + factor * (image - degenerate), 0, 1)


def luma(image: ArrayLike) -> jax.Array:
    """Compute grey in whole levels, exactly as PIL does; one channel is grey already.

    Args:
      image: ``[h, w, c]`` with c 1 or 3.

    Returns:
      ``[h, w, 1]``.

    Raises:
      ValueError: a malformed image, or neither 1 nor 3 channels.
    """
    x = check_image(image, channels=(1, 3))
    if x.shape[2] == 1:
        return x
    # Sums of whole numbers below 2^24, so that float32 is exact.
    red, green, blue = jnp.moveaxis(jnp.round(x * 255), 2, 0)
    total = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    return jnp.floor(total / 65536 + 0.5)[..., None] / 255


def mean_gray(image: ArrayLike) -> jax.Array:
    """Average grey over an image and round to a whole level, as PIL's ``Contrast`` does.

    Args:
      image: ``[h, w, c]`` with c 1 or 3.

    Returns:
      () in 0..1.

    Raises:
      ValueError: as `luma`.
    """
    return jnp.floor(255 * jnp.mean(luma(image)) + 0.5) / 255


def adjust_brightness(image: ArrayLike, factor: ArrayLike) -> jax.Array:
    """Multiply: PIL's ``ImageEnhance.Brightness``.

    Args:
      image: ``[h, w, c]``.
      factor: of at least 0.

    Returns:
      ``[h, w, c]`` in 0..1.

    Raises:
      ValueError: a malformed image.
    """
    return blend(0.0, check_image(image), factor)


def adjust_contrast(image: ArrayLike, factor: ArrayLike) -> jax.Array:
    """Blend with the image's mean grey: PIL's ``ImageEnhance.Contrast``.

    Args:
      image: ``[h, w, c]`` with c 1 or 3.
      factor: of at least 0; 1 changes nothing.

    Returns:
      ``[h, w, c]`` in 0..1.

    Raises:
      ValueError: a malformed image, or neither 1 nor 3 channels.
    """
    return blend(mean_gray(image), check_image(image), factor)


def adjust_saturation(image: ArrayLike, factor: ArrayLike) -> jax.Array:
    """Blend with the grey image: PIL's ``ImageEnhance.Color``.

    Args:
      image: ``[h, w, 3]``.
      factor: of at least 0; 1 changes nothing.

    Returns:
      ``[h, w, 3]`` in 0..1.

    Raises:
      ValueError: a malformed image, or not 3 channels.
    """
    x = check_image(image, channels=(3,))
    return blend(luma(x), x, factor)


def adjust_hue(image: ArrayLike, turns: ArrayLike) -> jax.Array:
    """Turn the hue around the circle of HSV, keeping saturation and value.

    Equal to Python's ``colorsys`` but for rounding. torchvision on PIL images turns by 1/255ths in
    8 bits instead, and is several levels off.

    Args:
      image: ``[h, w, 3]``.
      turns: -½ to ½ is the whole circle; red goes to green at ⅓.

    Returns:
      ``[h, w, 3]`` in 0..1.

    Raises:
      ValueError: a malformed image, or not 3 channels.
    """
    x = check_image(image, channels=(3,))
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    divisor = jnp.where(chroma > 0, chroma, 1)
    sextant = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )

    def channel(offset: float) -> jax.Array:
        # It falls from the value by as much of the chroma as its own hue is far from this one.
        k = sextant + (6 * turns + offset)
        k = k - 6 * jnp.floor(k / 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.clip(jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=2), 0, 1)


def grayscale(image: ArrayLike) -> jax.Array:
    """Replace colours by grey in three equal channels: exactly PIL's ``convert("L")``.

    Args:
      image: ``[h, w, 3]``.

    Returns:
      ``[h, w, 3]``.

    Raises:
      ValueError: a malformed image, or not 3 channels.
    """
    x = check_image(image, channels=(3,))
    return jnp.broadcast_to(luma(x), x.shape)


def random_grayscale(key: jax.Array, image: ArrayLike, *, probability: float = 0.2) -> jax.Array:
    """Replace colours by grey, sometimes.

    Args:
      key: of the draw.
      image: ``[h, w, 3]``.
      probability: how often.

    Returns:
      ``[h, w, 3]``.

    Raises:
      ValueError: a malformed image, not 3 channels, or a probability outside 0..1.
    """
    check_share(probability)
    return jnp.where(jax.random.bernoulli(key, probability), grayscale(image), check_image(image))


def draw_jitter(
    key: jax.Array,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> Jitter:
    """Draw changes of colour by torchvision's rule for ``ColorJitter``.

    Args:
      key: of the draw.
      brightness: s, of factors uniform in ``max(0, 1 - s)`` to ``1 + s``.
      contrast: the same for contrast.
      saturation: the same for saturation.
      hue: turns are uniform in ±hue; at most ½.

    Returns:
      The factors and a uniformly random order.

    Raises:
      ValueError: a strength below 0, or a hue above ½.
    """
    # One draw of everything, since each draw takes as long to compile as all of the arithmetic.
    shares = jax.random.uniform(key, (8,), jnp.float32)
    return _jitter(shares, (brightness, contrast, saturation), hue)


def apply_jitter(image: ArrayLike, jitter: Jitter) -> jax.Array:
    """Change colours in a given order.

    One channel has no colour: only brightness and contrast are changed.

    Args:
      image: ``[h, w, c]`` with c 1 or 3.
      jitter: the changes.

    Returns:
      ``[h, w, c]`` in 0..1.

    Raises:
      ValueError: a malformed image, or neither 1 nor 3 channels.
    """
    x = check_image(image, channels=(1, 3))
    turn = jnp.argmax(jitter.order == 3)

    def changed(x: jax.Array, place: int) -> jax.Array:
        # All but hue are blends, of which brightness, contrast or saturation is one.
        which = jitter.order[place]
        against = jnp.where(which == 0, 0.0, jnp.where(which == 1, mean_gray(x), luma(x)))
        return blend(against, x, jitter.factors[which])

    # What comes before hue, hue, and what comes after it: six blends cost less than four turns.
    for place in range(3):
        x = jnp.where(place < turn, changed(x, place), x)
    if x.shape[2] == 3:
        x = adjust_hue(x, jitter.factors[3])
    for place in range(1, 4):
        x = jnp.where(place > turn, changed(x, place), x)
    return x


def color_jitter(
    key: jax.Array,
    image: ArrayLike,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    probability: float = 0.8,
) -> jax.Array:
    """Change colours at random and in random order, sometimes.

    The defaults are those of SimSiam (arXiv 2011.10566, appendix A).

    Args:
      key: of the draw.
      image: ``[h, w, 3]``, or ``[h, w, 1]`` where ``saturation`` and ``hue`` are 0.
      brightness: as in `draw_jitter`.
      contrast: as in `draw_jitter`.
      saturation: as in `draw_jitter`.
      hue: as in `draw_jitter`.
      probability: how often.

    Returns:
      ``[h, w, c]`` in 0..1.

    Raises:
      ValueError: a malformed image, too few channels for what is to be changed, or an option out
        of its range.
    """
    check_share(probability)
    shares = jax.random.uniform(key, (9,), jnp.float32)
    jitter = _jitter(shares[:8], (brightness, contrast, saturation), hue)
    x = check_image(image, channels=(3,) if saturation or hue else (1, 3))
    return jnp.where(shares[8] < probability, apply_jitter(x, jitter), x)


def _jitter(shares: jax.Array, strengths: tuple[float, float, float], hue: float) -> Jitter:
    """Make changes of colour of eight uniform draws from [0, 1)."""
    for name, strength in zip(("brightness", "contrast", "saturation"), strengths, strict=True):
        check_number(strength, name, least=0)
    if check_number(hue, "hue", least=0) > 0.5:
        raise ValueError(f"hue: expected at most 0.5, half a turn, found {hue!r}")
    low = jnp.array([*(max(0.0, 1 - s) for s in strengths), -hue], jnp.float32)
    high = jnp.array([*(1 + s for s in strengths), hue], jnp.float32)
    return Jitter(low + (high - low) * shares[:4], jnp.argsort(shares[4:]).astype(jnp.int32))
