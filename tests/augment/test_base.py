import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.augment import augment_batch, compose, sometimes
from jaxal.augment.base import check_image, check_range

KEY = jax.random.key(0)


augment = jax.jit(augment_batch, static_argnums=0)


def noisy(key, image):
    return image + jax.random.uniform(key, image.shape)


def test_rows_do_not_depend_on_the_batch():
    images = jnp.zeros((6, 2, 3, 1))
    whole = augment(noisy, KEY, images)
    for rows in np.array([[0, 1, 2], [3, 4, 5], [4, 0, 4]]):
        np.testing.assert_array_equal(augment(noisy, KEY, images[:3], rows=rows), whole[rows])
    np.testing.assert_array_equal(augment(noisy, KEY, images[:3]), whole[:3])
    assert len(np.unique(np.asarray(whole))) == whole.size


def test_keys_change_a_batch():
    images = jnp.zeros((2, 2, 2, 1))
    np.testing.assert_array_equal(
        augment(noisy, KEY, images), augment(noisy, jax.random.key(0), images)
    )
    assert not np.any(
        augment(noisy, jax.random.key(1), images) == np.asarray(augment(noisy, KEY, images))
    )


def test_compose_goes_from_first_to_last_with_keys_of_their_own():
    def double(key, image):
        return 2 * image

    image = jnp.ones((2, 2, 1))
    np.testing.assert_array_equal(compose()(KEY, image), image)
    added = compose(noisy)(KEY, image)
    np.testing.assert_allclose(compose(noisy, double)(KEY, image), 2 * added)
    twice = compose(noisy, noisy)(KEY, image)
    assert not np.any(np.isclose(twice - added, added - image))


def test_sometimes_is_as_often_as_asked():
    keys = jax.random.split(KEY, 4000)
    image = jnp.ones((1, 1, 1))
    for probability in (0.0, 0.3, 1.0):
        op = sometimes(lambda key, image: -image, probability=probability)
        share = np.mean(np.asarray(jax.jit(jax.vmap(op, (0, None)))(keys, image)) < 0)
        assert abs(share - probability) < 4 * np.sqrt(probability * (1 - probability) / 4000) + 1e-9


def test_sometimes_draws_apart_from_its_coin():
    op = sometimes(lambda key, image: jax.random.uniform(key, image.shape), probability=0.5)
    drawn = jax.jit(jax.vmap(op, (0, None)))(jax.random.split(KEY, 4000), jnp.full((1, 1, 1), 2.0))
    drawn = np.asarray(drawn).ravel()
    drawn = drawn[drawn < 2]
    # A coin that shares its key would leave one half only.
    assert 0.45 < np.mean(drawn) < 0.55 and drawn.min() < 0.01 and drawn.max() > 0.99


@pytest.mark.parametrize(
    ("images", "rows", "message"),
    [
        (np.zeros((2, 2, 3)), None, r"images: expected a batch \[n, h, w, c\], found .*2, 2, 3"),
        (np.zeros((2, 2, 2, 3), np.uint8), None, "images: expected float32 in 0..1, found .*uint8"),
        (np.zeros((2, 2, 2, 3)), [0], "rows: expected 2 integers, found shape"),
        (np.zeros((2, 2, 2, 3)), [0.0, 1.0], "rows: expected 2 integers, found .*float32"),
    ],
)
def test_bad_batches_are_named(images, rows, message):
    with pytest.raises(ValueError, match=message):
        augment_batch(noisy, KEY, images, rows=rows)


@pytest.mark.parametrize(
    ("image", "channels", "message"),
    [
        (np.zeros((2, 2)), None, r"image: expected one image \[h, w, c\], found shape \(2, 2\)"),
        (np.zeros((2, 0, 3)), None, "image: expected one image"),
        (np.zeros((2, 2, 3), int), None, "image: expected float32 in 0..1.* divide"),
        (np.zeros((2, 2, 4)), (1, 3), "image: expected 1 or 3 channels, found 4"),
    ],
)
def test_bad_images_are_named_even_while_traced(image, channels, message):
    check = functools.partial(check_image, channels=channels)
    for function in (check, jax.jit(check)):
        with pytest.raises(ValueError, match=message):
            function(image)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.0, r"found 1.0"),
        ((1.0, 2.0, 3.0), r"expected \(low, high\)"),
        ((2.0, 1.0), "low <= high"),
        ((0.0, 1.0), "above 0"),
        ((1.0, np.inf), "inf"),
        ((np.nan, 1.0), "low <= high"),
    ],
)
def test_bad_ranges_are_named(value, message):
    with pytest.raises(ValueError, match=f"area: .*{message}"):
        check_range(value, "area", least=0, above=True)


def test_bad_probability_is_named():
    with pytest.raises(ValueError, match=r"in 0\.\.1, found 1\.5"):
        sometimes(noisy, probability=1.5)
    with pytest.raises(ValueError, match="probability"):
        sometimes(noisy, probability=-0.1)
