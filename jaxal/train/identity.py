"""Say what a training depends on, so that a saved one can be told from others."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from jaxal.data.sources import ImageSource
from jaxal.records import describe, fingerprint

__all__ = ["describe_function", "describe_module", "describe_training"]


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
      images: ``[n, h, w, c]`` uint8, or an `ImageSource`.
      config: a NamedTuple of numbers, names and functions.
      **others: functions, and what JSON can hold.

    Returns:
      What JSON can hold: settings for `jaxal.train.checkpoints`.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(dict(variables))
    settings: dict[str, Any] = {
        "keys": [jax.random.key_data(key) for key in keys],
        "module": describe_module(module),
        "variables": {jax.tree_util.keystr(path): fingerprint(x) for path, x in leaves},
        "images": images.describe() if isinstance(images, ImageSource) else fingerprint(images),
        "config": describe_function(config),
        **{name: describe_function(other) for name, other in others.items()},
    }
    return describe(settings)


def describe_module(module: nn.Module) -> str:
    """Describe a module by its fields, without the addresses that differ in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(module))


def describe_function(fn: Any) -> Any:
    """Part a function from the arguments bound to it, so that both are compared.

    Args:
      fn: a function. A `functools.partial` is parted, and so are those among its arguments, alone
        or in collections; modules among them are described by their fields.

    Returns:
      Dicts and lists of functions and values, which `jaxal.records.describe` names. Other functions
      than partials are given back.
    """
    if isinstance(fn, functools.partial):
        bound = {"args": fn.args, "keywords": fn.keywords}
        return {"function": describe_function(fn.func), **describe_function(bound)}
    if isinstance(fn, nn.Module):
        return describe_module(fn)
    if hasattr(fn, "_asdict"):
        return describe_function(fn._asdict())
    if isinstance(fn, Mapping):
        return {name: describe_function(value) for name, value in fn.items()}
    if isinstance(fn, list | tuple):
        return [describe_function(value) for value in fn]
    return fn
