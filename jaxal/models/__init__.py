"""Flax networks."""

from jaxal.models.heads import DenseHead, frozen_apply, head_layers

__all__ = ["DenseHead", "frozen_apply", "head_layers"]
