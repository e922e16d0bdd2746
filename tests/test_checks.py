import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.checks import check_features, check_finite


def bad(value, dtype, row=3):
    x = np.ones((5, 4), dtype)
    x[row, 1] = value
    return x


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_first_row_that_is_not_finite_is_named(make, value, dtype):
    with pytest.raises(ValueError, match=r"x: expected finite numbers, .* in row 3"):
        check_features(make(bad(value, dtype)), "x")


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_beyond_float32_is_said_to_be_so(x64, make):
    x = make(bad(-1e40, np.float64))
    with pytest.raises(ValueError, match=r"within the range of float32, found -1e\+40 in row 3"):
        check_features(x, "x")
    check_finite(x, "x")


def test_row_chunks_of_a_memory_map(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxal.checks._CHUNK_ELEMENTS", 8)
    np.save(tmp_path / "x.npy", bad(np.nan, np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.raises(ValueError, match="row 3"):
        check_features(x)
    assert check_features(x[:3]).shape == (3, 4)


def test_an_array_of_the_device_stays_there(monkeypatch):
    x = jnp.ones((50, 40))
    copied = []
    to_host = np.asarray

    def asarray(value, *args, **kwargs):
        copied.append(np.size(value))
        return to_host(value, *args, **kwargs)

    monkeypatch.setattr("jaxal.checks.np.asarray", asarray)
    assert check_features(x) is x
    assert max(copied, default=0) <= 50


def test_values_of_traced_arrays_are_not_looked_at():
    held = jnp.asarray(bad(np.nan, np.float32))
    np.testing.assert_array_equal(jax.jit(check_features)(held), held)
    # What a traced function closes over has values all the same.
    with pytest.raises(ValueError, match="row 3"):
        jax.jit(lambda x: x + check_features(held))(jnp.ones((5, 4)))
