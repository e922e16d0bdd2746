import functools
import inspect

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy import ndimage, stats

from jaxal.augment.filters import adjust_sharpness, gaussian_blur, random_blur, smooth

KEY = jax.random.key(0)


def unit(image):
    return (image / 255).astype(np.float32)


jitted = functools.cache(jax.jit)
blurred = functools.cache(lambda size: jax.jit(functools.partial(gaussian_blur, kernel_size=size)))


def test_smooth_is_exactly_pil(picture):
    expected = np.asarray(Image.fromarray(picture).filter(ImageFilter.SMOOTH))
    np.testing.assert_array_equal(np.rint(255 * jitted(smooth)(unit(picture))), expected)


@pytest.mark.parametrize("factor", [0.0, 0.05, 0.5, 0.95, 1.0, 2.0, 5.0])
def test_sharpness_is_pil_cut_off(picture, factor):
    expected = ImageEnhance.Sharpness(Image.fromarray(picture)).enhance(factor)
    ours = jitted(adjust_sharpness)(unit(picture), factor)
    difference = 255 * np.asarray(ours, float) - np.asarray(expected, float)
    assert difference.min() > -0.001 and difference.max() < 1.001


@pytest.mark.parametrize(("sigma", "kernel_size"), [(0.1, 3), (0.7, 3), (1.3, 9), (4.0, 33)])
def test_blur_is_scipy(photo, sigma, kernel_size):
    expected = unit(photo).astype(float)
    for axis in (0, 1):
        expected = ndimage.gaussian_filter1d(
            expected, sigma, axis=axis, mode="mirror", radius=kernel_size // 2
        )
    ours = blurred(kernel_size)(unit(photo), sigma)
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize(("height", "radius"), [(17, 1), (32, 1), (96, 4), (224, 11)])
def test_blur_is_a_tenth_of_the_height_wide(height, radius):
    image = np.zeros((height, 64, 1), np.float32)
    image[height // 2, 32] = 1
    row = np.asarray(blurred(None)(image, 50.0))[height // 2, :, 0]
    assert np.sum(row > 0) == 2 * radius + 1


def test_blur_keeps_what_is_flat():
    flat = blurred(7)(np.ones((9, 5, 1), np.float32), 1.7)
    np.testing.assert_allclose(flat, 1, atol=1e-6)
    assert flat.max() <= 1


def test_blur_has_simclrs_defaults():
    options = inspect.signature(random_blur).parameters
    assert options["sigma"].default == (0.1, 2.0) and options["probability"].default == 0.5


def test_random_blurs_are_uniform_and_as_often_as_asked():
    image = np.zeros((9, 9, 1), np.float32)
    image[4, 4] = 1
    op = functools.partial(random_blur, sigma=(0.5, 2.0), kernel_size=3, probability=0.7)
    views = np.asarray(jax.jit(jax.vmap(op, (0, None)))(jax.random.split(KEY, 3000), image))
    changed = views[:, 4, 4, 0] < 1
    assert abs(np.mean(changed) - 0.7) < 4 * np.sqrt(0.7 * 0.3 / 3000)
    ratio = views[changed, 4, 5, 0] / views[changed, 4, 4, 0]
    sigmas = np.sqrt(-0.5 / np.log(ratio))
    assert stats.kstest(sigmas, stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: gaussian_blur(x, 1.0, kernel_size=4), "kernel_size: .*odd number, found 4"),
        (lambda x: gaussian_blur(x, 1.0, kernel_size=0), "kernel_size: .*found 0"),
        (lambda x: gaussian_blur(x, 1.0, kernel_size=9), "kernel_size: .*4 x 5, found 9"),
        (lambda x: gaussian_blur(x[:1], 1.0), "kernel_size: .*1 x 5, found 3"),
        (lambda x: gaussian_blur(x, 0.0), "sigma: .*above 0, found .*0.0"),
        (lambda x: gaussian_blur(x, np.float32(-1)), "sigma: .*above 0, found .*-1.0"),
        (lambda x: gaussian_blur(x, np.ones(2)), "sigma: .*above 0, found array"),
        (lambda x: random_blur(KEY, x, sigma=(0.0, 1.0)), "sigma: .*above 0"),
        (lambda x: random_blur(KEY, x, probability=-1), "probability: .*found -1"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, np.zeros((4, 5, 3), np.float32))
