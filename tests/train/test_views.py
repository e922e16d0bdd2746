import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.train.views import unit_rows, valid_rows


def test_rows_have_length_one_and_a_gradient_even_at_zero():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    x[2] = 0
    norms = np.linalg.norm(unit_rows(jnp.asarray(x)), axis=1)
    np.testing.assert_allclose(norms, [1, 1, 0, 1, 1, 1], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: unit_rows(x).sum())(x)).all()
    assert unit_rows(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32


def test_masks_are_checked():
    np.testing.assert_array_equal(valid_rows(None, 3), [True] * 3)
    np.testing.assert_array_equal(valid_rows([True, False], 2), [True, False])
    with pytest.raises(ValueError, match=r"mask: expected shape \(3,\), found \(2,\)"):
        valid_rows([True, False], 3)
