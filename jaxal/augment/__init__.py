"""Augmentation on the device: pure functions of a key and one image, for `jit` and `vmap`.

Images are float32 ``[h, w, c]`` in 0..1. `jaxal.augment.presets` has the papers' pipelines,
`augment_batch` applies one to a batch; the operations are in `jaxal.augment.geometry`,
`jaxal.augment.affine`, `jaxal.augment.colour`, `jaxal.augment.levels`, `jaxal.augment.filters` and
`jaxal.augment.randaugment`.
"""

from jaxal.augment.base import Pipeline, augment_batch, augment_features, compose, sometimes
from jaxal.augment.colour import color_jitter, random_grayscale
from jaxal.augment.features import feature_view
from jaxal.augment.filters import random_blur
from jaxal.augment.geometry import (
    center_crop,
    pad_and_crop,
    random_flip,
    random_resized_crop,
    resize,
)
from jaxal.augment.presets import simclr_view, simsiam_view, strong, weak
from jaxal.augment.randaugment import FIXMATCH_RANGES, cutout, rand_augment
from jaxal.augment.throughput import images_per_second

__all__ = [
    "FIXMATCH_RANGES",
    "Pipeline",
    "augment_batch",
    "augment_features",
    "center_crop",
    "color_jitter",
    "compose",
    "cutout",
    "feature_view",
    "images_per_second",
    "pad_and_crop",
    "rand_augment",
    "random_blur",
    "random_flip",
    "random_grayscale",
    "random_resized_crop",
    "resize",
    "simclr_view",
    "simsiam_view",
    "sometimes",
    "strong",
    "weak",
]
