"""Active learning on pre-trained and self-supervised vision models, in JAX."""

__version__ = "0.1.0"
