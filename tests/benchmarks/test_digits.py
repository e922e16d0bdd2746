import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from benchmarks.digits import Encoder, _warp, augment, encode, load_digits, pretrain


def test_split_is_fixed_and_disjoint():
    first, again = load_digits(), load_digits()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.pool.shape == (1297, 8, 8) and first.test.shape == (500, 8, 8)
    assert first.pool.min() == 0 and first.pool.max() == 1
    np.testing.assert_array_equal(np.unique(first.test_labels), np.arange(10))
    pool = {image.tobytes() for image in first.pool}
    assert not any(image.tobytes() in pool for image in first.test)


def test_warp_agrees_with_scipy():
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(8, 8))
    matrix = np.eye(2) + 0.2 * rng.normal(size=(2, 2))
    shift = rng.uniform(-1, 1, size=2)
    # Zeros around the border let scipy interpolate to them, as the hat functions do.
    offset = 3.5 - matrix @ np.array([4.5, 4.5]) + shift + 1
    expected = scipy.ndimage.affine_transform(
        np.pad(image, 1), matrix, offset, output_shape=(10, 10), order=1
    )[1:-1, 1:-1]
    found = _warp(jnp.asarray(image), jnp.asarray(matrix), jnp.asarray(shift))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_warp_by_nothing_changes_nothing():
    image = np.random.default_rng(1).uniform(size=(8, 8))
    np.testing.assert_allclose(
        _warp(jnp.asarray(image), jnp.eye(2), jnp.zeros(2)), image, atol=1e-6
    )


def test_augment_is_a_function_of_its_key_and_each_image_alone():
    images = jnp.asarray(load_digits().pool[:5])
    distort = jax.jit(augment)
    one, again = (distort(jax.random.key(0), images) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    other = distort(jax.random.key(1), images)
    assert one.shape == images.shape and not np.allclose(one, other)
    changed = distort(jax.random.key(0), images.at[2].set(0))
    np.testing.assert_array_equal(np.delete(changed, 2, 0), np.delete(one, 2, 0))


def test_pretraining_lowers_the_loss_and_repeats():
    images = load_digits().pool[:200]
    encoder = Encoder(widths=(8, 8), num_features=32, num_projected=16)
    settings = {"encoder": encoder, "steps": 30, "batch_size": 64}
    params, losses = pretrain(jax.random.key(0), images, **settings)
    again, _ = pretrain(jax.random.key(0), images, **settings)
    assert losses.shape == (30,) and losses[-5:].mean() < losses[:5].mean() - 0.1
    features = encode(params, images[:50], encoder=encoder)
    assert features.shape == (50, 32) and np.isfinite(features).all()
    np.testing.assert_array_equal(features, encode(again, images[:50], encoder=encoder))


@pytest.mark.parametrize(
    ("shape", "kwargs", "match"),
    [
        ((10, 64), {}, r"images: expected \[n, 8, 8\]"),
        ((10, 8, 8), {}, "batch_size: expected at most 10 images, found 256"),
        ((10, 8, 8), {"steps": 0, "batch_size": 2}, "steps"),
    ],
)
def test_refuses(shape, kwargs, match):
    with pytest.raises(ValueError, match=match):
        pretrain(jax.random.key(0), np.zeros(shape), **kwargs)
