import jax
import numpy as np
import pytest

from jaxal.chunking import map_rows


@pytest.mark.parametrize("chunk_size", [1, 4, 10, 99])
def test_chunks_are_joined(chunk_size):
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    shapes = set()

    def fn(x, y):
        shapes.add(x.shape)
        return {"sum": x.sum(1), "y": y}

    found = map_rows(fn, x, y, chunk_size=chunk_size)
    jax.tree.map(np.testing.assert_array_equal, found, {"sum": x.sum(1), "y": y})
    assert shapes == {(min(chunk_size, 10), 2)}


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5])
def test_bad_chunk_sizes_are_named(chunk_size):
    with pytest.raises(ValueError, match="chunk_size: expected a whole number"):
        map_rows(lambda x: x, np.ones((3, 2)), chunk_size=chunk_size)


def test_bad_arrays_are_named():
    with pytest.raises(ValueError, match=r"arrays: expected equally many rows, .* found 3, 4"):
        map_rows(lambda x, y: x, np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="one or more, found 0"):
        map_rows(lambda x: x, np.ones((0, 2)))
