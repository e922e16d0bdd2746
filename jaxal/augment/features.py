"""Augmentation of features: noise and dropped coordinates, for heads on a frozen encoder.

A weak and a strong view of a row of features stand for those of an image in semi-supervised
training. Both are ours.
"""

import functools

import jax
import jax.numpy as jnp

from jaxal.augment.base import Pipeline, check_share
from jaxal.checks import check_number

__all__ = ["feature_view"]


def feature_view(*, noise: float = 0.0, dropped: float = 0.0) -> Pipeline:
    """Make a view of a row of features.

    Args:
      noise: length of the Gaussian noise that is added, as a share of the row's.
      dropped: share of the coordinates that are set to 0, the others growing so that each keeps its
        mean.

    Returns:
      ``(key, features [d]) -> [d]`` for `jaxal.augment.base.augment_features`; images are refused
      by a ValueError.

    Raises:
      ValueError: a share below 0, or none of the coordinates kept.
    """
    check_number(noise, "noise", least=0)
    if check_share(dropped, "dropped") == 1:
        raise ValueError("dropped: expected a share below 1, found 1")
    return functools.partial(_view, noise=float(noise), dropped=float(dropped))


def _view(key: jax.Array, x: jax.Array, *, noise: float, dropped: float) -> jax.Array:
    if x.ndim != 1:
        raise ValueError(f"feature_view: expected a row of features [d], found shape {x.shape}")
    noise_key, drop_key = jax.random.split(key)
    spread = noise * jnp.sqrt(jnp.mean(x**2))
    x = x + spread * jax.random.normal(noise_key, x.shape)
    kept = jax.random.bernoulli(drop_key, 1 - dropped, x.shape)
    return jnp.where(kept, x / (1 - dropped), 0)
