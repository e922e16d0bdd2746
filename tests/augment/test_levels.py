import functools

import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxal.augment.levels import autocontrast, equalize, posterize, solarize


def unit(image):
    return (image / 255).astype(np.float32)


def exactly(ours, image):
    np.testing.assert_allclose(255 * np.asarray(ours, float), np.asarray(image), atol=1e-4)


jitted = functools.cache(jax.jit)


@pytest.mark.parametrize("threshold", [0, 1, 64, 128, 255, 256])
def test_solarize_is_pil(picture, threshold):
    expected = ImageOps.solarize(Image.fromarray(picture), threshold)
    exactly(jitted(solarize)(unit(picture), threshold / 256), expected)


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_is_pil(picture, bits):
    expected = ImageOps.posterize(Image.fromarray(picture), bits)
    exactly(jitted(posterize)(unit(picture), float(bits)), expected)
    if bits < 8:
        exactly(jitted(posterize)(unit(picture), bits + 0.9), expected)


def test_no_bits_are_black():
    np.testing.assert_array_equal(posterize(np.ones((2, 2, 1), np.float32), 0), 0)


def test_autocontrast_is_pil_cut_off(picture):
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(picture)), float)
    difference = 255 * np.asarray(jitted(autocontrast)(unit(picture)), float) - expected
    assert difference.min() > -0.001 and difference.max() < 1.001


def test_autocontrast_leaves_rounding_alone():
    flat = np.full((4, 4, 1), 0.5, np.float32)
    flat[0, 0] += 1e-6
    np.testing.assert_array_equal(autocontrast(flat), flat)


def test_equalize_is_pil(picture):
    exactly(jitted(equalize)(unit(picture)), ImageOps.equalize(Image.fromarray(picture)))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [24, 120])
def test_equalize_of_skewed_histograms_is_pil(seed, size):
    rng = np.random.default_rng(seed)
    image = (255 * rng.beta(*rng.uniform(0.2, 4, 2), (size, size, 3))).astype(np.uint8)
    exactly(jitted(equalize)(unit(image)), ImageOps.equalize(Image.fromarray(image)))


@pytest.mark.parametrize("function", [autocontrast, equalize])
@pytest.mark.parametrize("channels", [1, 5])
def test_channels_are_on_their_own(function, channels):
    rng = np.random.default_rng(0)
    image = unit(rng.integers(0, 256, (17, 40, channels)))
    together = jitted(function)(image)
    for c in range(channels):
        alone = jitted(function)(image[..., c : c + 1])
        np.testing.assert_array_equal(together[..., c : c + 1], alone)


def test_operations_on_levels_take_the_nearest():
    between = np.array([[[63.6], [64.4], [127.6]]], np.float32) / 255
    exactly(posterize(between, 2), [[[64], [64], [128]]])
    exactly(solarize(between, 0.5), [[[63.6], [64.4], [127.4]]])
