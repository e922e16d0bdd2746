import functools

import jax
import numpy as np
import pytest
from PIL import Image

from jaxal.augment.affine import affine, rotate, rotation_matrix, shear, translate

NEAREST = Image.Resampling.NEAREST
BILINEAR = Image.Resampling.BILINEAR


ROTATE = jax.jit(rotate)


def unit(image):
    return (image / 255).astype(np.float32)


def levels(ours):
    return np.rint(255 * np.asarray(ours)).astype(int)


def warp(image, matrix, resample=NEAREST, fill=0):
    image = Image.fromarray(image)
    matrix = tuple(map(float, matrix))
    color = (fill, fill, fill)
    return np.asarray(
        image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=color)
    )


@functools.cache
def batched(function, **options):
    return jax.jit(jax.vmap(functools.partial(function, **options), in_axes=(None, 0)))


def test_rotations_are_pil(picture):
    angles = np.linspace(-180, 180, 74)[1:-1].astype(np.float32)
    ours = levels(batched(rotate)(unit(picture), angles))
    theirs = [np.asarray(Image.fromarray(picture).rotate(float(a), NEAREST)) for a in angles]
    different = np.any(ours != np.array(theirs), axis=3)
    # The matrix is in float32, which can move a source over the boundary between two pixels.
    assert np.mean(different) < 1e-3


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90])
def test_right_angles_are_exact(degrees):
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).rotate(degrees))
    np.testing.assert_array_equal(levels(ROTATE(unit(image), degrees)), expected)


@pytest.mark.parametrize(
    ("function", "axis", "entry"),
    [(shear, "x", 1), (shear, "y", 3), (translate, "x", 2), (translate, "y", 5)],
)
def test_shears_and_shifts_are_pil(picture, function, axis, entry):
    factors = np.linspace(-0.9, 0.9, 41).astype(np.float32)
    moved = jax.jit(jax.vmap(lambda factor: function(unit(picture), **{axis: factor})))
    ours = levels(moved(factors))
    for image, factor in zip(ours, factors, strict=True):
        matrix = [1, 0, 0, 0, 1, 0]
        sides = {2: picture.shape[1], 5: picture.shape[0]}
        matrix[entry] = np.float32(factor * np.float32(sides.get(entry, 1)))
        np.testing.assert_array_equal(image, warp(picture, matrix))


def test_both_axes_move_at_once(picture):
    height, width = picture.shape[:2]
    for ours, matrix in (
        (shear(unit(picture), x=0.25, y=-0.5), (1, 0.25, 0, -0.5, 1, 0)),
        (translate(unit(picture), x=0.25, y=-0.5), (1, 0, 0.25 * width, 0, 1, -0.5 * height)),
    ):
        np.testing.assert_array_equal(levels(ours), warp(picture, matrix))


def test_any_matrix_is_pil(photo):
    rng = np.random.default_rng(0)
    matrices = np.array([1, 0, 0, 0, 1, 0]) + rng.normal(0, (0.4, 0.4, 9, 0.4, 0.4, 9), (50, 6))
    matrices = matrices.astype(np.float32)
    ours = levels(batched(affine, fill=0.4)(unit(photo), matrices))
    theirs = np.array([warp(photo, m, fill=102) for m in matrices])
    assert np.mean(np.any(ours != theirs, axis=3)) < 1e-3
    assert np.mean(theirs == 102) > 0.1  # the fill was seen


def test_bilinear_is_less_than_a_level_above_pil(picture):
    rng = np.random.default_rng(1)
    matrices = np.array([1, 0, 0, 0, 1, 0]) + rng.normal(0, (0.3, 0.3, 2, 0.3, 0.3, 2), (50, 6))
    matrices = matrices.astype(np.float32)
    ours = 255 * np.asarray(batched(affine, resample="bilinear")(unit(picture), matrices), float)
    theirs = np.array([warp(picture, m, BILINEAR) for m in matrices], float)
    # At the very edge, what is outside is decided in float32 here.
    off = np.any((ours - theirs < -0.01) | (ours - theirs > 1.01), axis=3)
    assert np.mean(off) < 1e-3


def test_bilinear_stays_in_range():
    white = batched(rotate, resample="bilinear", fill=1.0)(
        np.ones((9, 9, 1), np.float32), np.linspace(0, 90, 20)
    )
    assert white.max() <= 1 and white.min() > 1 - 1e-6


def test_bilinear_between_two_pixels_is_their_mean_and_outside_is_the_fill():
    image = np.array([[[0.2], [0.6], [1.0]]], np.float32)
    moved = batched(affine, resample="bilinear")(image, np.array([[1, 0, 0.5, 0, 1, 0]]))
    np.testing.assert_allclose(moved[0, 0, :, 0], [0.4, 0.8, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: affine(x, np.zeros(5)), r"matrix: expected 6 numbers, found shape \(5,\)"),
        (lambda x: rotate(x, 3, resample="cubic"), "resample: .*nearest.* found 'cubic'"),
        (lambda x: shear(x, x=0.1, fill=128), "fill: .*0..1, found 128"),
        (lambda x: translate(x[0], y=0.1), "image: expected one image"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, np.zeros((4, 5, 3), np.float32))


def test_rotation_keeps_the_middle():
    a, b, c, d, e, f = np.asarray(rotation_matrix(33.0, 12, 20))
    np.testing.assert_allclose([a * 10 + b * 6 + c, d * 10 + e * 6 + f], [10, 6], atol=1e-5)
