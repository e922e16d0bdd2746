import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.train.siamese import collapse, simsiam_loss


def draw(seed=0, shape=(7, 5)):
    return np.random.default_rng(seed).normal(size=(4, *shape)).astype(np.float32)


def reference(p1, p2, z1, z2):
    """Sum the paper's equation 2 row by row in float64."""

    def negative_cosine(p, z):
        return -np.mean(
            [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(p, z, strict=True)]
        )

    p1, p2, z1, z2 = (np.float64(x) for x in (p1, p2, z1, z2))
    return negative_cosine(p1, z2) / 2 + negative_cosine(p2, z1) / 2


@pytest.mark.parametrize("shape", [(1, 3), (7, 5), (16, 8)])
def test_agrees_with_the_definition(shape):
    views = draw(0, shape)
    np.testing.assert_allclose(
        jax.jit(simsiam_loss)(*views), reference(*views), rtol=1e-5, atol=1e-7
    )


def test_no_gradient_passes_through_the_projections():
    views = draw()
    gradients = jax.grad(simsiam_loss, argnums=(0, 1, 2, 3))(*views)
    assert all(np.any(g) for g in gradients[:2])
    assert not any(np.any(g) for g in gradients[2:])


def test_the_gradient_lowers_the_loss_as_differences_say():
    p1, p2, z1, z2 = draw(1)
    gradient = jax.grad(simsiam_loss)(p1, p2, z1, z2)
    step = np.zeros_like(p1)
    step[2, 3] = 1e-2
    rise = simsiam_loss(p1 + step, p2, z1, z2) - simsiam_loss(p1 - step, p2, z1, z2)
    np.testing.assert_allclose(rise / 2e-2, gradient[2, 3], rtol=1e-2, atol=1e-5)


def test_padding_does_not_count():
    views, mask = draw(2), np.array([True, False, True, True, False, True, True])
    loss = simsiam_loss(*views, mask=mask)
    np.testing.assert_allclose(loss, simsiam_loss(*(x[mask] for x in views)), rtol=1e-6)
    assert not np.any(jax.grad(lambda p: simsiam_loss(p, *views[1:], mask=mask))(views[0])[~mask])


def test_zero_rows_have_a_gradient_that_is_finite():
    views = [jnp.asarray(x).at[0].set(0) for x in draw()]
    assert np.isfinite(jax.grad(simsiam_loss)(*views)).all()


def test_collapse_tells_spread_from_a_point():
    rng = np.random.default_rng(0)
    assert collapse(rng.normal(size=(4000, 64))) == pytest.approx(1, abs=0.02)
    assert collapse(np.ones((50, 64))) == pytest.approx(0, abs=1e-3)


def test_collapse_is_the_definition_on_rows_that_count():
    z = draw(3)[0]
    mask = np.array([True, False, True, True, False, True, True])
    unit = np.float64(z) / np.linalg.norm(z, axis=1, keepdims=True)
    for valid in (np.ones(7, bool), mask):
        expected = np.sqrt(5) * unit[valid].std(axis=0).mean()
        np.testing.assert_allclose(collapse(z, mask=valid), expected, rtol=1e-5)
    assert collapse(z, mask=np.zeros(7, bool)) == 0
    with pytest.raises(ValueError, match=r"z: expected a matrix \[n, d\], found shape \(5,\)"):
        collapse(z[0])
    with pytest.raises(ValueError, match=r"mask: expected shape \(7,\), found \(3,\)"):
        collapse(z, mask=mask[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: (v[0][0], *v[1:]), "four matrices"),
        (lambda v: (v[0], v[1], v[2][:, :2], v[3]), "four matrices"),
        (lambda v: [x[:0] for x in v], "four matrices"),
    ],
)
def test_bad_shapes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        simsiam_loss(*change(draw()))
    with pytest.raises(ValueError, match="mask"):
        simsiam_loss(*draw(), mask=np.ones(3, bool))
