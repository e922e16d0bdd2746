"""RandAugment with FixMatch's operations, and Cutout."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.augment.affine import rotate, shear, translate
from jaxal.augment.base import check_image, check_range, check_share, whole_below
from jaxal.augment.colour import adjust_brightness, adjust_contrast, adjust_saturation
from jaxal.augment.filters import adjust_sharpness
from jaxal.augment.levels import autocontrast, equalize, posterize, solarize
from jaxal.checks import check_indices, check_positive, is_traced

__all__ = [
    "FIXMATCH_RANGES",
    "OPERATIONS",
    "apply_operation",
    "cutout",
    "draw_operations",
    "rand_augment",
]

OPERATIONS = (
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "identity",
    "posterize",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "solarize",
    "translate_x",
    "translate_y",
)

# The magnitudes of each operation in FixMatch (arXiv 2001.07685, appendix D), (0, 0) where it has
# none.
FIXMATCH_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "autocontrast": (0.0, 0.0),
        "brightness": (0.05, 0.95),  # factors of PIL's ImageEnhance
        "color": (0.05, 0.95),
        "contrast": (0.05, 0.95),
        "equalize": (0.0, 0.0),
        "identity": (0.0, 0.0),
        "posterize": (4.0, 8.0),  # bits; the fraction is cut off, so that 8 is never drawn
        "rotate": (-30.0, 30.0),  # degrees
        "sharpness": (0.05, 0.95),
        "shear_x": (-0.3, 0.3),
        "shear_y": (-0.3, 0.3),
        "solarize": (0.0, 1.0),  # threshold
        "translate_x": (-0.3, 0.3),  # of the width
        "translate_y": (-0.3, 0.3),  # of the height
    }
)

# What magnitudes of the operations that have a limit may be.
_LIMITS = {name: (0.0, float("inf")) for name in ("brightness", "color", "contrast", "sharpness")}
_LIMITS |= {"posterize": (0.0, 8.0), "solarize": (0.0, 1.0)}


def rand_augment(
    key: jax.Array,
    image: ArrayLike,
    *,
    num_operations: int = 2,
    ranges: Mapping[str, tuple[float, float]] = FIXMATCH_RANGES,
    fill: float = 0.0,
) -> jax.Array:
    """Apply operations drawn at random, with magnitudes drawn at random.

    As FixMatch (arXiv 2001.07685, appendix D) uses RandAugment (arXiv 1909.13719): operations are
    drawn uniformly with replacement, and magnitudes uniformly from a range instead of tuned.

    Args:
      key: of the draws.
      image: ``[h, w, c]`` with c 1 or 3.
      num_operations: how many, one after the other; FixMatch's 2.
      ranges: least and largest magnitude of each operation that may be drawn, by name.
      fill: what warps leave empty, in 0..1; black, as PIL.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: a malformed image, neither 1 nor 3 channels, an unknown operation, or an option
        out of its range.
    """
    x = check_image(image, channels=(1, 3))
    operations, magnitudes = draw_operations(key, num_operations=num_operations, ranges=ranges)
    for operation, magnitude in zip(operations, magnitudes, strict=True):
        x = apply_operation(x, operation, magnitude, fill=fill)
    return x


def draw_operations(
    key: jax.Array,
    *,
    num_operations: int = 2,
    ranges: Mapping[str, tuple[float, float]] = FIXMATCH_RANGES,
) -> tuple[jax.Array, jax.Array]:
    """Draw operations and magnitudes.

    Args:
      key: of the draw.
      num_operations: how many, with replacement.
      ranges: least and largest magnitude of each operation that may be drawn, by name.

    Returns:
      Indices into `OPERATIONS` ``[num_operations]`` int32 and magnitudes ``[num_operations]``.

    Raises:
      ValueError: no operation or an unknown one, a range that is none or goes beyond what the
        operation is defined for, or a count below 1.
    """
    check_positive(num_operations, "num_operations")
    unknown = sorted(set(ranges) - set(OPERATIONS))
    if unknown or not ranges:
        raise ValueError(f"ranges: expected names of {', '.join(OPERATIONS)}, found {unknown}")
    # In the order of OPERATIONS, so that the order of a dictionary changes nothing.
    indices = [i for i, name in enumerate(OPERATIONS) if name in ranges]
    ends = [_check_limits(ranges[OPERATIONS[i]], OPERATIONS[i]) for i in indices]
    low, high = jnp.array(ends, jnp.float32).T
    shares = jax.random.uniform(key, (2, num_operations), jnp.float32)
    which = whole_below(shares[0], len(indices))
    magnitudes = low[which] + (high - low)[which] * shares[1]
    return jnp.array(indices, jnp.int32)[which], magnitudes


def apply_operation(
    image: ArrayLike, operation: ArrayLike, magnitude: ArrayLike, *, fill: float = 0.0
) -> jax.Array:
    """Apply one operation of `OPERATIONS`, which may be traced and differ from image to image.

    Under `jax.vmap` a `jax.lax.switch` computes all of its branches for every image and selects
    one: 14 operations are paid for each that is wanted. GPUs and TPUs, to which a batch is one
    image, do so here. On CPUs a batch goes through image by image, each computing its own
    operation only, which takes a tenth of the time at 32 pixels.

    Args:
      image: ``[h, w, c]`` with c 1 or 3; of 1, color changes nothing, as in PIL.
      operation: () index into `OPERATIONS`; a traced one is not checked.
      magnitude: () what it goes by, in the units of `FIXMATCH_RANGES`, which is not checked.
      fill: what warps leave empty, in 0..1.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: a malformed image, neither 1 nor 3 channels, or no such operation.
    """
    x = check_image(image, channels=(1, 3))
    if not is_traced(operation):
        check_indices(np.asarray(operation).reshape(-1), len(OPERATIONS), "operation", unique=False)
    branches = _branches(x.shape[2], fill)

    def switch(x: jax.Array, operation: jax.Array, magnitude: jax.Array) -> jax.Array:
        return jax.lax.switch(operation, branches, x, magnitude)

    apply = jax.custom_batching.custom_vmap(switch)

    @apply.def_vmap
    def apply_to_batch(
        axis_size: int, in_batched: Sequence[bool], *args: jax.Array
    ) -> tuple[jax.Array, bool]:
        rows = [
            arg if batched else jnp.broadcast_to(arg, (axis_size, *arg.shape))
            for arg, batched in zip(args, in_batched, strict=True)
        ]
        out = jax.lax.platform_dependent(
            *rows,
            cpu=lambda *rows: jax.lax.map(lambda row: switch(*row), rows),
            default=jax.vmap(switch),
        )
        return out, True

    return apply(x, jnp.asarray(operation), jnp.asarray(magnitude, jnp.float32))


def cutout(key: jax.Array, image: ArrayLike, *, size: int = 16, fill: float = 0.5) -> jax.Array:
    """Paint over a square around a random pixel, as far as it lies in the image.

    Cutout (arXiv 1708.04552), which FixMatch (arXiv 2001.07685, section 2.3) applies after
    RandAugment: half of 32 pixels, in grey.

    Args:
      key: of the middle, uniform over the pixels.
      image: ``[h, w, c]``.
      size: of the square, in pixels.
      fill: its level in all channels, in 0..1.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: a malformed image, a size below 1, or a fill outside 0..1.
    """
    check_positive(size, "size")
    check_share(fill, "fill")
    x = check_image(image)
    middle = whole_below(
        jax.random.uniform(key, (2,), jnp.float32), jnp.array([x.shape[0], x.shape[1]])
    )
    top, left = middle - size // 2
    row, column = jnp.arange(x.shape[0])[:, None, None], jnp.arange(x.shape[1])[:, None]
    inside = (row >= top) & (row < top + size) & (column >= left) & (column < left + size)
    return jnp.where(inside, fill, x)


def _check_limits(ends: tuple[float, float], operation: str) -> tuple[float, float]:
    name = f"ranges[{operation!r}]"
    least, most = _LIMITS.get(operation, (float("-inf"), float("inf")))
    low, high = check_range(ends, name, least=least)
    if high > most:
        raise ValueError(f"{name}: expected magnitudes in {least:g}..{most:g}, found {ends!r}")
    return low, high


def _branches(channels: int, fill: float) -> list[Callable[[jax.Array, jax.Array], jax.Array]]:
    """Give the operations in the order of `OPERATIONS`, as functions of image and magnitude."""
    by_name = {
        "autocontrast": lambda x, _: autocontrast(x),
        "brightness": adjust_brightness,
        "color": adjust_saturation if channels == 3 else lambda x, _: x,
        "contrast": adjust_contrast,
        "equalize": lambda x, _: equalize(x),
        "identity": lambda x, _: x,
        "posterize": posterize,
        "rotate": partial(rotate, fill=fill),
        "sharpness": adjust_sharpness,
        "shear_x": lambda x, m: shear(x, x=m, fill=fill),
        "shear_y": lambda x, m: shear(x, y=m, fill=fill),
        "solarize": solarize,
        "translate_x": lambda x, m: translate(x, x=m, fill=fill),
        "translate_y": lambda x, m: translate(x, y=m, fill=fill),
    }
    return [by_name[name] for name in OPERATIONS]
