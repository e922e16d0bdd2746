import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.train.contrastive import nt_xent


def reference(z1, z2, temperature):
    """Sum the definition term by term in float64."""
    z = np.concatenate([z1, z2]).astype(np.float64)
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    n = len(z1)
    total = 0.0
    for i in range(2 * n):
        terms = [np.exp(u[i] @ u[k] / temperature) for k in range(2 * n) if k != i]
        total -= np.log(np.exp(u[i] @ u[(i + n) % (2 * n)] / temperature) / np.sum(terms))
    return total / (2 * n)


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (7, 5), (16, 8)])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_agrees_with_the_definition(shape, temperature):
    rng = np.random.default_rng(0)
    z1, z2 = 3 * rng.normal(size=(2, *shape)).astype(np.float32)
    found = jax.jit(nt_xent, static_argnames="temperature")(z1, z2, temperature=temperature)
    np.testing.assert_allclose(found, reference(z1, z2, temperature), rtol=2e-5, atol=1e-6)


def test_is_symmetric_scale_free_and_blind_to_order():
    rng = np.random.default_rng(1)
    z1, z2 = rng.normal(size=(2, 9, 4)).astype(np.float32)
    loss = nt_xent(z1, z2)
    np.testing.assert_allclose(nt_xent(z2, z1), loss, rtol=1e-5)
    np.testing.assert_allclose(nt_xent(10 * z1, 0.1 * z2), loss, rtol=1e-5)
    order = rng.permutation(9)
    np.testing.assert_allclose(nt_xent(z1[order], z2[order]), loss, rtol=1e-5)


def test_one_pair_costs_nothing():
    assert nt_xent(np.ones((1, 3)), -np.ones((1, 3))) == pytest.approx(0, abs=1e-6)


def test_gradient_is_finite_with_a_zero_and_equal_embeddings():
    z = jnp.ones((4, 3)).at[0].set(0)
    gradient = jax.grad(lambda z: nt_xent(z, z))(z)
    assert np.isfinite(gradient).all()


def test_gradient_agrees_with_differences():
    rng = np.random.default_rng(2)
    z1, z2, step = rng.normal(size=(3, 5, 4))
    gradient = jax.grad(nt_xent)(jnp.asarray(z1, jnp.float32), z2.astype(np.float32))
    h = 1e-5
    expected = (reference(z1 + h * step, z2, 0.5) - reference(z1 - h * step, z2, 0.5)) / (2 * h)
    np.testing.assert_allclose(np.sum(np.asarray(gradient) * step), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("z1", "z2", "temperature", "match"),
    [
        (np.ones(3), np.ones(3), 0.5, r"expected two matrices .* found \(3,\)"),
        (np.ones((2, 3)), np.ones((3, 3)), 0.5, r"\(2, 3\) and \(3, 3\)"),
        (np.ones((0, 3)), np.ones((0, 3)), 0.5, r"\(0, 3\)"),
        (np.ones((2, 3)), np.ones((2, 3)), 0.0, "temperature: expected more than 0"),
        (np.ones((2, 3)), np.ones((2, 3)), -1.0, "temperature"),
    ],
)
def test_refuses(z1, z2, temperature, match):
    with pytest.raises(ValueError, match=match):
        nt_xent(z1, z2, temperature=temperature)


def test_padding_neither_counts_nor_is_compared_with():
    rng = np.random.default_rng(3)
    z1, z2 = rng.normal(size=(2, 9, 4)).astype(np.float32)
    mask = np.array([True, False, True, True, False, True, True, True, False])
    loss, gradient = jax.value_and_grad(lambda z: nt_xent(z, z2, mask=mask))(z1)
    np.testing.assert_allclose(loss, nt_xent(z1[mask], z2[mask]), rtol=1e-6)
    expected = jax.grad(lambda z: nt_xent(z, z2[mask]))(z1[mask])
    np.testing.assert_allclose(gradient[mask], expected, rtol=1e-5, atol=1e-7)
    assert not np.any(gradient[~mask])
    with pytest.raises(ValueError, match="mask: expected shape"):
        nt_xent(z1, z2, mask=mask[1:])
