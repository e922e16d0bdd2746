"""The augmentations of FixMatch, SimCLR and SimSiam.

Each function gives a pipeline ``(key, image [h, w, c]) -> image`` for `augment_batch`. Options are
checked at once, and against the size of images when it meets one.
"""

from functools import partial

from jaxal.augment.base import Pipeline, check_range, compose
from jaxal.augment.colour import color_jitter, random_grayscale
from jaxal.augment.filters import random_blur
from jaxal.augment.geometry import (
    Size,
    check_size,
    pad_and_crop,
    random_flip,
    random_resized_crop,
)
from jaxal.augment.randaugment import cutout, rand_augment
from jaxal.checks import check_count, check_number, check_positive

__all__ = ["simclr_view", "simsiam_view", "strong", "weak"]

# Neither paper blurs the 32 pixels of CIFAR-10.
_LARGEST_UNBLURRED = 32
# At which hue turns by up to half the circle.
_LARGEST_STRENGTH = 2.5


def weak(*, padding: int = 4) -> Pipeline:
    """Flip and shift: FixMatch's weak augmentation (arXiv 2001.07685, section 2.3).

    Args:
      padding: the most pixels an image is shifted by; the paper's are an eighth of its side.

    Returns:
      The pipeline, which keeps an image's shape.

    Raises:
      ValueError: a padding below 0.
    """
    check_count(padding, "padding")
    return compose(random_flip, partial(pad_and_crop, padding=padding))


def strong(*, padding: int = 4, num_operations: int = 2, cutout_size: int = 16) -> Pipeline:
    """Augment weakly, then by RandAugment and Cutout: FixMatch's strong augmentation.

    See arXiv 2001.07685, section 2.3 and appendix D.

    Args:
      padding: the most pixels an image is shifted by.
      num_operations: of `rand_augment`.
      cutout_size: side of the grey square; half of the image's.

    Returns:
      The pipeline, which keeps an image's shape.

    Raises:
      ValueError: a padding below 0, or another count below 1.
    """
    check_positive(num_operations, "num_operations")
    check_positive(cutout_size, "cutout_size")
    return compose(
        weak(padding=padding),
        partial(rand_augment, num_operations=num_operations),
        partial(cutout, size=cutout_size),
    )


def simclr_view(
    size: Size,
    *,
    strength: float = 1.0,
    area: tuple[float, float] = (0.08, 1.0),
    blur: bool | None = None,
) -> Pipeline:
    """Make a view as SimCLR does (arXiv 2002.05709, appendix A).

    Crop and resize, flip, jitter colours with probability 0.8, grey with 0.2, blur with 0.5. Images
    must have 3 channels. Ours: resizing is bilinear, where the authors' code is bicubic, and blur
    mirrors the image at its edges, beyond which theirs is black.

    Args:
      size: of the views.
      strength: of the colour jitter: 0.8 of it for brightness, contrast and saturation, 0.2 for
        hue; at most 2.5. The paper's are 1 on ImageNet and 0.5 on CIFAR-10 (appendix B.9).
      area: least and largest share of the image that is cut out.
      blur: whether to blur; by default above 32 pixels, since the paper does not on CIFAR-10.

    Returns:
      The pipeline, to images ``size + (3,)``.

    Raises:
      ValueError: a size below 1, or a strength or an area out of its range.
    """
    if check_number(strength, "strength", least=0) > _LARGEST_STRENGTH:
        raise ValueError(
            f"strength: expected at most {_LARGEST_STRENGTH}, half a turn of hue, "
            f"found {strength!r}"
        )
    jitter = partial(
        color_jitter,
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
    )
    return _view(size, area, jitter, blur)


def simsiam_view(
    size: Size, *, area: tuple[float, float] = (0.2, 1.0), blur: bool | None = None
) -> Pipeline:
    """Make a view as SimSiam does (arXiv 2011.10566, appendix A).

    Crop and resize, flip, jitter colours by 0.4, 0.4, 0.4 and 0.1 with probability 0.8, grey with
    0.2, blur with 0.5. Images must have 3 channels.

    Args:
      size: of the views.
      area: least and largest share of the image that is cut out.
      blur: whether to blur; by default above 32 pixels, since the paper does not on CIFAR-10
        (appendix D).

    Returns:
      The pipeline, to images ``size + (3,)``.

    Raises:
      ValueError: a size below 1, or an area out of its range.
    """
    return _view(size, area, color_jitter, blur)


def _view(size: Size, area: tuple[float, float], jitter: Pipeline, blur: bool | None) -> Pipeline:
    sides = check_size(size)
    check_range(area, "area", least=0, above=True)
    ops: list[Pipeline] = [
        partial(random_resized_crop, size=sides, area=area),
        random_flip,
        jitter,
        random_grayscale,
    ]
    if blur if blur is not None else max(sides) > _LARGEST_UNBLURRED:
        ops.append(random_blur)
    return compose(*ops)
