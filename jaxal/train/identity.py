"""Say what a network and a function are, so that a saved training can tell its own again."""

import functools
import re
from typing import Any

import flax.linen as nn

__all__ = ["describe_function", "describe_module"]


def describe_module(module: nn.Module) -> str:
    """Describe a module by its fields, without the addresses that differ in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(module))


def describe_function(fn: Any) -> Any:
    """Part a function from the arguments bound to it, so that both are compared.

    What is no `functools.partial` is given back, for `jaxal.records.describe` to name.
    """
    if not isinstance(fn, functools.partial):
        return fn
    bound = {"args": fn.args, "keywords": fn.keywords}
    return {"function": describe_function(fn.func), **bound}
