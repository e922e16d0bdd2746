"""Say what a network and a function are, so that a saved training can tell its own again."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

__all__ = ["describe_function", "describe_module"]


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
