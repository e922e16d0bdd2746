import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import stats

from jaxal.augment.geometry import (
    Box,
    center_crop,
    crop_and_resize,
    flip,
    pad_and_crop,
    random_box,
    random_flip,
    random_resized_crop,
    resize,
)

KEY = jax.random.key(0)


@functools.cache
def jitted(function, **options):
    return jax.jit(functools.partial(function, **options))


def unit(image):
    return (image / 255).astype(np.float32)


def within_one_level(ours, image):
    difference = 255 * np.asarray(ours, float) - np.asarray(image, float)
    assert np.abs(difference).max() <= 1.001


def test_flip_is_pil(picture):
    np.testing.assert_array_equal(
        flip(unit(picture)), unit(np.asarray(ImageOps.mirror(Image.fromarray(picture))))
    )


@pytest.mark.parametrize("probability", [0.0, 0.5, 0.8, 1.0])
def test_random_flip_is_as_often_as_asked(probability):
    image = jnp.array([[[0.0], [1.0]]])
    op = functools.partial(random_flip, probability=probability)
    flipped = jax.jit(jax.vmap(op, (0, None)))(jax.random.split(KEY, 4000), image)[:, 0, 0, 0]
    deviation = np.sqrt(probability * (1 - probability) / 4000)
    assert abs(np.mean(flipped) - probability) <= 4 * deviation


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_pad_and_crop_gives_every_shift_equally_often(mode):
    image = np.arange(1, 43, dtype=np.float32).reshape(6, 7, 1) / 50
    sides = ((2, 2), (2, 2), (0, 0))
    padded = np.pad(image, sides, mode="reflect" if mode == "reflect" else "constant")
    places = {
        padded[top : top + 6, left : left + 7].tobytes(): 5 * top + left
        for top in range(5)
        for left in range(5)
    }
    op = functools.partial(pad_and_crop, padding=2, mode=mode)
    crops = np.asarray(jax.jit(jax.vmap(op, (0, None)))(jax.random.split(KEY, 2500), image))
    found = [places[crop.tobytes()] for crop in crops]  # a KeyError would be no crop at all
    assert stats.chisquare(np.bincount(found, minlength=25)).pvalue > 1e-3


def test_no_padding_changes_nothing(photo):
    for none in (0, np.int64(0)):
        np.testing.assert_array_equal(pad_and_crop(KEY, unit(photo), padding=none), unit(photo))


@pytest.mark.parametrize("size", [1, 2, 16, 17, (5, 40), (4, 9)])
def test_center_crop_is_torchvision(photo, size):
    height, width = (size, size) if isinstance(size, int) else size
    top, left = round((17 - height) / 2.0), round((40 - width) / 2.0)
    expected = Image.fromarray(photo).crop((left, top, left + width, top + height))
    np.testing.assert_array_equal(center_crop(unit(photo), size=size), unit(np.asarray(expected)))


@pytest.mark.parametrize("size", [(7, 9), (60, 11)])
def test_resize_is_pil(picture, size):
    expected = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR)
    within_one_level(jitted(resize, size=size)(unit(picture)), expected)


def test_resize_to_the_same_size_changes_nothing(picture):
    same = jitted(resize, size=picture.shape[:2])(unit(picture))
    np.testing.assert_allclose(same, unit(picture), atol=1e-6)


def test_boxes_that_differ_from_image_to_image_are_pil(photo):
    rng = np.random.default_rng(0)
    tops, lefts = rng.integers(0, 17, 60), rng.integers(0, 40, 60)
    heights = np.array([rng.integers(1, 18 - top) for top in tops])
    widths = np.array([rng.integers(1, 41 - left) for left in lefts])
    crop = jax.jit(
        jax.vmap(functools.partial(crop_and_resize, size=(12, 14)), in_axes=(None, Box(0, 0, 0, 0)))
    )
    ours = crop(unit(photo), Box(tops, lefts, heights, widths))
    for image, top, left, height, width in zip(ours, tops, lefts, heights, widths, strict=True):
        part = Image.fromarray(photo).crop((left, top, left + width, top + height))
        within_one_level(image, part.resize((14, 12), Image.Resampling.BILINEAR))


def test_crops_stay_in_range():
    white = jitted(crop_and_resize, size=23)(np.ones((9, 9, 1), np.float32), Box(1, 2, 7, 5))
    np.testing.assert_allclose(white, 1, atol=1e-6)
    assert white.max() <= 1


def reference_box(rng, height, width, area, ratio):
    """Draw as torchvision's RandomResizedCrop.get_params is documented to."""
    for _ in range(10):
        share = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(share * aspect)), round(math.sqrt(share / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("height", "width", "area", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (20, 60, (0.3, 1.0), (3 / 4, 4 / 3)),  # often the middle
        (50, 20, (0.05, 0.4), (0.5, 3.0)),
    ],
)
def test_random_boxes_are_distributed_as_torchvisions(height, width, area, ratio):
    draw = functools.partial(random_box, height=height, width=width, area=area, ratio=ratio)
    ours = np.stack(jax.jit(jax.vmap(draw))(jax.random.split(KEY, 4000)), axis=1)
    rng = np.random.default_rng(1)
    theirs = np.array([reference_box(rng, height, width, area, ratio) for _ in range(4000)])
    top, left, h, w = ours.T
    assert (top >= 0).all() and (left >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    for product in (ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]):
        assert area[0] * height * width * 0.85 < product.min()
    sizes = [np.stack([x[:, 2] * x[:, 3], x[:, 0] - x[:, 1]]) for x in (ours, theirs)]
    for a, b in zip(*sizes, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10)), (1, 1, (0, 0, 1, 1))],
)
def test_where_nothing_fits_the_middle_is_taken(height, width, expected):
    box = jitted(random_box, height=height, width=width, area=(1.0, 1.0))(KEY)
    assert tuple(map(int, box)) == expected


def test_random_resized_crop_is_its_box_resized_by_pil(photo):
    draw = jitted(random_box, height=17, width=40, area=(0.2, 0.9))
    for key in jax.random.split(KEY, 5):
        top, left, height, width = map(int, draw(key))
        part = Image.fromarray(photo).crop((left, top, left + width, top + height))
        ours = jitted(random_resized_crop, size=16, area=(0.2, 0.9))(key, unit(photo))
        within_one_level(ours, part.resize((16, 16), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pad_and_crop(KEY, x, padding=-1), "padding: .*at least 0, found -1"),
        (lambda x: pad_and_crop(KEY, x, padding=1.5), "padding: .*found 1.5"),
        (lambda x: pad_and_crop(KEY, x, padding=True), "padding: .*found True"),
        (lambda x: pad_and_crop(KEY, x, padding=4), "padding: .*less than .*4 x 5, found 4"),
        (lambda x: pad_and_crop(KEY, x, mode="edge"), "mode: .*reflect.* found 'edge'"),
        (lambda x: center_crop(x, size=5), "size: expected at most .*4 x 5, found 5 x 5"),
        (lambda x: resize(x, size=0), "size: .*found 0"),
        (lambda x: resize(x, size=(2, 3, 3)), r"size: .*found \(2, 3, 3\)"),
        (lambda x: random_resized_crop(KEY, x, size=2, area=(0.0, 1.0)), "area: .*above 0"),
        (lambda x: random_resized_crop(KEY, x, size=2, ratio=(2.0, 1.0)), "ratio: .*low <= high"),
        (lambda x: random_flip(KEY, x, probability=2), "probability: .*found 2"),
        (lambda x: random_box(KEY, 0, 3), "height: .*found 0"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, np.zeros((4, 5, 3), np.float32))
