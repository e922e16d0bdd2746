import colorsys
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats

from jaxal.augment.colour import (
    Jitter,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    apply_jitter,
    color_jitter,
    draw_jitter,
    grayscale,
    luma,
    mean_gray,
    random_grayscale,
)

KEY = jax.random.key(0)
FACTORS = np.array([0.0, 0.05, 0.3, 0.77, 0.95, 1.0, 1.4, 3.0], np.float32)


def unit(image):
    return (image / 255).astype(np.float32)


JITTERED = jax.jit(jax.vmap(apply_jitter, (None, 0)))
ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)


def cut_off(ours, image):
    """Check that PIL's image is ours, cut off to whole levels."""
    difference = 255 * np.asarray(ours, float) - np.asarray(image, float)
    assert difference.min() > -0.001 and difference.max() < 1.001


@functools.cache
def batched(function):
    return jax.jit(jax.vmap(function, in_axes=(None, 0)))


@pytest.mark.parametrize(
    ("function", "enhancer"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
)
def test_enhancements_are_pil_cut_off(picture, function, enhancer):
    for ours, factor in zip(batched(function)(unit(picture), FACTORS), FACTORS, strict=True):
        cut_off(ours, enhancer(Image.fromarray(picture)).enhance(float(factor)))


@pytest.mark.parametrize(
    ("function", "enhancer"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
    ],
)
def test_enhancements_of_one_channel_are_pil_cut_off(photo, function, enhancer):
    one = photo[..., :1]
    for ours, factor in zip(batched(function)(unit(one), FACTORS), FACTORS, strict=True):
        cut_off(ours[..., 0], enhancer(Image.fromarray(one[..., 0])).enhance(float(factor)))


def test_gray_is_exactly_pil(picture):
    expected = np.asarray(Image.fromarray(picture).convert("L"))
    ours = np.asarray(jax.jit(grayscale)(unit(picture)))
    for channel in range(3):
        np.testing.assert_allclose(255 * ours[..., channel], expected, atol=1e-4)
    mean = int(expected.mean() + 0.5)
    np.testing.assert_allclose(255 * jax.jit(mean_gray)(unit(picture)), mean, atol=1e-4)


def test_gray_of_many_colours_is_exactly_pil():
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(np.rint(255 * jax.jit(luma)(unit(image))[..., 0]), expected)


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.02, 1 / 3, 0.5])
def test_hue_is_colorsys(picture, turns):
    ours = np.asarray(batched(adjust_hue)(unit(picture), np.array([turns], np.float32))[0])
    for pixel, expected in zip(ours.reshape(-1, 3), picture.reshape(-1, 3) / 255, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*expected)
        np.testing.assert_allclose(pixel, colorsys.hsv_to_rgb((h + turns) % 1, s, v), atol=2e-6)


def test_a_third_of_a_turn_makes_red_green():
    np.testing.assert_allclose(
        adjust_hue(jnp.array([[[1.0, 0, 0]]]), 1 / 3), [[[0, 1, 0]]], atol=1e-6
    )


def test_jitter_in_any_order_is_its_steps(photo):
    image = unit(photo)
    steps = [
        jax.jit(f) for f in (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    ]
    factors = np.array([1.3, 0.6, 1.5, -0.15], np.float32)
    results = JITTERED(image, Jitter(np.tile(factors, (24, 1)), ORDERS))
    assert np.abs(results[0] - results[-1]).max() > 0.01  # orders matter
    for ours, order in zip(results, ORDERS, strict=True):
        expected = image
        for which in order:
            expected = steps[which](expected, factors[which])
        # Rounding may put the grey of a pixel on the next level.
        assert np.mean(np.abs(ours - expected) > 1e-5) < 0.01
        np.testing.assert_allclose(ours, expected, atol=1.5 / 255)


def test_draws_are_uniform_and_orders_equally_often():
    draw = functools.partial(draw_jitter, brightness=0.4, contrast=0.8, saturation=1.5, hue=0.1)
    jitter = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 4800))
    for values, low, high in zip(
        np.asarray(jitter.factors).T, (0.6, 0.2, 0.0, -0.1), (1.4, 1.8, 2.5, 0.1), strict=True
    ):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    correlations = np.corrcoef(np.asarray(jitter.factors).T)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(4800)
    codes = np.asarray(jitter.order) @ [64, 16, 4, 1]
    counts = np.unique(codes, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_no_strength_changes_nothing(photo):
    factors = np.asarray(draw_jitter(KEY).factors)
    results = JITTERED(unit(photo), Jitter(np.tile(factors, (24, 1)), ORDERS))
    np.testing.assert_allclose(results, np.tile(unit(photo), (24, 1, 1, 1)), atol=1e-6)


@pytest.mark.parametrize("op", [color_jitter, random_grayscale])
def test_jitter_and_gray_are_as_often_as_asked(op):
    image = jnp.array([[[0.2, 0.5, 0.4], [0.1, 0.1, 0.3]]])
    keys = jax.random.split(KEY, 2000)
    apply = jax.jit(jax.vmap(functools.partial(op, probability=0.7), (0, None)))
    changed = np.any(np.asarray(apply(keys, image)) != image, axis=(1, 2, 3))
    assert abs(np.mean(changed) - 0.7) < 4 * np.sqrt(0.7 * 0.3 / 2000)


def test_one_channel_takes_brightness_and_contrast_only(photo):
    one = unit(photo[..., :1])
    options = {"brightness": 0.5, "contrast": 0.5, "probability": 1.0}
    jitter = jax.jit(functools.partial(color_jitter, **options, saturation=0.0, hue=0.0))
    changed = jitter(KEY, one)
    assert changed.shape == one.shape and np.abs(changed - one).max() > 0.01
    for colour in ({"saturation": 0.1, "hue": 0.0}, {"saturation": 0.0, "hue": 0.1}):
        with pytest.raises(ValueError, match="image: expected 3 channels, found 1"):
            color_jitter(KEY, one, **options, **colour)


@pytest.mark.parametrize("function", [adjust_saturation, adjust_hue])
def test_colour_needs_three_channels_even_while_traced(function):
    with pytest.raises(ValueError, match="image: expected 3 channels, found 1"):
        jax.jit(function)(np.zeros((2, 2, 1), np.float32), 0.5)
    with pytest.raises(ValueError, match="image: expected 3 channels, found 1"):
        random_grayscale(KEY, np.zeros((2, 2, 1), np.float32))
    with pytest.raises(ValueError, match="image: expected 1 or 3 channels, found 4"):
        adjust_contrast(np.zeros((2, 2, 4), np.float32), 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brightness": -0.1}, "brightness: .*found -0.1"),
        ({"contrast": np.nan}, "contrast"),
        ({"saturation": "much"}, "saturation: .*found 'much'"),
        ({"hue": 0.6}, "hue: expected at most 0.5.*found 0.6"),
        ({"probability": 1.1}, "probability: .*found 1.1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        color_jitter(KEY, np.zeros((4, 5, 3), np.float32), **options)
