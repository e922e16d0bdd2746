"""Empirical neural tangent kernels."""

from jaxal.kernels.dense import (
    BatchNormStats,
    DenseLayer,
    apply_layers,
    dense_ntk,
    init_dense_layers,
)
from jaxal.kernels.empirical import Engine, empirical_ntk

__all__ = [
    "BatchNormStats",
    "DenseLayer",
    "Engine",
    "apply_layers",
    "dense_ntk",
    "empirical_ntk",
    "init_dense_layers",
]
