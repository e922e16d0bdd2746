"""Fixtures of the benchmarks' tests."""

import numpy as np
import pytest

from benchmarks.runner import Row


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return [
        Row(
            name, seed, n, *rng.uniform(size=4).round(4).tolist(), 0.5 if name == "ntkcpl" else None
        )
        for name in ("ntkcpl", "random", "margin")
        for seed in (0, 1, 2)
        for n in (10, 30, 100)
    ]


@pytest.fixture
def cells():
    """Read the cells of all lines of a text with tables."""

    def read(text):
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]

    return read
