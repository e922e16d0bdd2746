"""Empirical neural tangent kernels."""
