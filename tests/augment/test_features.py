import jax
import numpy as np
import pytest

from jaxal.augment.base import augment_features
from jaxal.augment.features import feature_view

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 4000)).astype(np.float32)


def test_nothing_is_done_by_default():
    np.testing.assert_array_equal(augment_features(feature_view(), KEY, X), X)


def test_noise_has_its_share_of_a_rows_length():
    scaled = X * np.arange(1, 7, dtype=np.float32)[:, None]
    found = np.asarray(augment_features(feature_view(noise=0.3), KEY, scaled)) - scaled
    lengths = np.linalg.norm(found, axis=1) / np.linalg.norm(scaled, axis=1)
    np.testing.assert_allclose(lengths, 0.3, rtol=0.05)


def test_dropped_coordinates_keep_the_mean():
    found = np.asarray(augment_features(feature_view(dropped=0.25), KEY, X))
    kept = found != 0
    np.testing.assert_allclose(kept.mean(1), 0.75, atol=0.03)
    np.testing.assert_allclose(found[kept], (X / 0.75)[kept], rtol=1e-6)


def test_a_row_is_augmented_alike_in_any_batch():
    view = feature_view(noise=0.1, dropped=0.1)
    whole = augment_features(view, KEY, X)
    part = augment_features(view, KEY, X[4:], rows=[4, 5])
    np.testing.assert_array_equal(part, whole[4:])
    assert not np.array_equal(whole[0] - X[0], whole[1] - X[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -1}, "noise"),
        ({"dropped": 1.5}, "dropped: expected a number in 0..1"),
        ({"dropped": 1}, "dropped: expected a share below 1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        feature_view(**options)


def test_features_have_two_dimensions():
    with pytest.raises(
        ValueError, match=r"features: expected a batch \[n, d\], found shape \(3,\)"
    ):
        augment_features(feature_view(), KEY, X[0, :3])


def test_images_are_refused():
    with pytest.raises(ValueError, match=r"a row of features \[d\], found shape \(4, 4, 3\)"):
        feature_view()(KEY, np.zeros((4, 4, 3), np.float32))
