"""Say what a training depends on, so that a saved one can be told from others."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from jaxal.data.sources import ImageSource
from jaxal.records import describe, fingerprint

__all__ = ["describe_training"]


def describe_training(
    keys: Sequence[jax.Array],
    module: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    config: Any,
    **others: Any,
) -> dict[str, Any]:
    """Describe all that a training depends on.

    Args:
      keys: of its randomness.
      module: what is trained.
      variables: that it starts from.
      images: ``[n, h, w, c]`` uint8, features ``[n, d]``, or an `ImageSource`.
      config: a NamedTuple of numbers, names and functions.
      **others: functions, and what JSON can hold.

    Returns:
      What JSON can hold: settings for `jaxal.train.checkpoints`.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(dict(variables))
    settings: dict[str, Any] = {
        "keys": [jax.random.key_data(key) for key in keys],
        "module": module,
        "variables": {jax.tree_util.keystr(path): fingerprint(x) for path, x in leaves},
        "images": images.describe() if isinstance(images, ImageSource) else fingerprint(images),
        "config": config,
        **others,
    }
    return describe(settings)
