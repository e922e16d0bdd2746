"""Turn stored images into what an encoder was trained on."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_choice, check_positive, is_traced

__all__ = ["CIFAR10", "CLIP", "IMAGENET", "Preprocessing", "preprocess"]

Method = Literal["bilinear", "bicubic"]


class Preprocessing(NamedTuple):
    """The size and the scale of an encoder's images; ``mean`` and ``std`` in units of 0..1."""

    size: int | None  # side that images are resized to; None: as they are
    mean: tuple[float, ...]  # subtracted, one a channel
    std: tuple[float, ...]  # divided by, one a channel
    method: Method = "bilinear"  # of resizing


IMAGENET = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10 = Preprocessing(None, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
CLIP = Preprocessing(
    224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "bicubic"
)


def preprocess(images: ArrayLike, preprocessing: Preprocessing) -> jax.Array:
    """Scale images to 0..1, resize them and normalise their channels.

    Images are resized as a whole to a square, with antialiasing where they shrink; nothing is cut
    off, other than by the resize and centre crop that large photographs often get.

    Args:
      images: ``[n, h, w, c]`` uint8 in 0..255, or floating-point in 0..1.
      preprocessing: the encoder's.

    Returns:
      ``[n, size, size, c]`` float32, or ``[n, h, w, c]`` where no size is given.

    Raises:
      ValueError: images of another shape, dtype or range, or a malformed ``preprocessing``.
    """
    size, mean, std, method = preprocessing
    _check(preprocessing)
    images = images if isinstance(images, np.ndarray | jax.Array) else np.asarray(images)
    if images.ndim != 4 or images.shape[3] != len(mean):
        raise ValueError(f"images: expected [n, h, w, {len(mean)}], found shape {images.shape}")
    if images.dtype == np.uint8:
        x = jnp.asarray(images).astype(jnp.float32) / 255
    elif jnp.issubdtype(images.dtype, jnp.floating):
        _check_range(images)
        x = jnp.asarray(images).astype(jnp.float32)
    else:
        raise ValueError(f"images: expected uint8 or floats, found dtype {images.dtype}")
    if size is not None and images.shape[1:3] != (size, size):
        x = jax.image.resize(x, (len(x), size, size, len(mean)), method, antialias=True)
    return (x - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def _check(preprocessing: Preprocessing) -> None:
    size, mean, std, method = preprocessing
    if size is not None:
        check_positive(size, "preprocessing.size")
    if len(mean) != len(std):
        raise ValueError(
            "preprocessing: expected as many means as standard deviations, "
            f"found {len(mean)} and {len(std)}"
        )
    if not all(value > 0 for value in std):
        raise ValueError(f"preprocessing.std: expected numbers above 0, found {std}")
    check_choice(method, "preprocessing.method", Method)


def _check_range(images: np.ndarray | jax.Array) -> None:
    # Images in 0..255 that someone cast to floats would pass silently, 255 times too bright.
    if is_traced(images) or images.size == 0:
        return
    least, most = float(images.min()), float(images.max())
    if not (least >= -0.01 and most <= 1.01):
        raise ValueError(
            f"images: expected floats in 0..1, found {least:g}..{most:g}; pass uint8 as it is"
        )
