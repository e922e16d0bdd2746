import numpy as np
import pytest

from jaxal.scaling import range_scale, unit_rows


@pytest.mark.parametrize("size", [1.0, 1e-37, 1e-30, 1e-9, 1e9, 1e30, 3e38])
def test_squares_are_in_range(size):
    x = np.float32(size) * np.array([[1, -0.3], [0.1, 0]], np.float32)
    scale = np.asarray(range_scale(x[:1] / 2, x))
    assert np.log2(scale) == np.round(np.log2(scale))
    np.testing.assert_array_equal(x * scale / scale, x)
    squares = (x * scale) ** 2
    assert ((squares > 1e-20) == (x != 0)).all() and squares.sum() < 1e20


@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 1e6])
def test_usual_sizes_are_left_alone(size):
    assert range_scale(np.full((2, 2), size)) == 1


def test_unit_rows():
    x = np.random.default_rng(0).normal(size=(30, 5))
    sizes = 10.0 ** np.linspace(-30, 30, 30)[:, None]
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(unit_rows(x * sizes), expected, rtol=1e-5)
    np.testing.assert_array_equal(unit_rows(np.zeros((2, 3))), 0)
