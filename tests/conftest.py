"""Fixtures that every part of the tests may use."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def x64() -> Iterator[None]:
    """Enable float64 for one test."""
    try:
        from jax.experimental import enable_x64
    except ImportError:
        enable_x64 = jax.enable_x64
    with enable_x64(True):
        yield
