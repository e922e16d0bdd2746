import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from jaxal.augment import randaugment as module
from jaxal.augment.randaugment import (
    FIXMATCH_RANGES,
    OPERATIONS,
    apply_operation,
    cutout,
    draw_operations,
    rand_augment,
)

KEY = jax.random.key(0)


def unit(image):
    return (image / 255).astype(np.float32)


def warp(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


PIL = {
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(m),
    "color": lambda image, m: ImageEnhance.Color(image).enhance(m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(m),
    "equalize": lambda image, m: ImageOps.equalize(image),
    "identity": lambda image, m: image,
    "posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "rotate": lambda image, m: image.rotate(m, Image.Resampling.NEAREST),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(m),
    "shear_x": lambda image, m: warp(image, 1, m, 0, 0, 1, 0),
    "shear_y": lambda image, m: warp(image, 1, 0, 0, m, 1, 0),
    "solarize": lambda image, m: ImageOps.solarize(image, 256 * m),
    "translate_x": lambda image, m: warp(image, 1, 0, m * image.width, 0, 1, 0),
    "translate_y": lambda image, m: warp(image, 1, 0, 0, 0, 1, m * image.height),
}

BATCHED = jax.jit(jax.vmap(apply_operation))
WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def grid():
    """Every operation at eleven magnitudes of its range: indices and magnitudes."""
    magnitudes = [np.linspace(*FIXMATCH_RANGES[name], 11) for name in OPERATIONS]
    return np.repeat(np.arange(14), 11), np.concatenate(magnitudes).astype(np.float32)


def apply_grid(image):
    """Apply all of the grid to one image."""
    operations, magnitudes = grid()
    images = np.broadcast_to(image, (len(operations), *image.shape))
    return np.asarray(BATCHED(images, operations, magnitudes))


def test_there_are_fixmatchs_fourteen():
    assert set(OPERATIONS) == set(FIXMATCH_RANGES) == set(PIL) and len(OPERATIONS) == 14


def test_every_operation_is_pil_cut_off(picture):
    operations, magnitudes = grid()
    results = 255 * apply_grid(unit(picture)).astype(float)
    for ours, operation, magnitude in zip(results, operations, magnitudes, strict=True):
        name = OPERATIONS[operation]
        theirs = np.asarray(PIL[name](Image.fromarray(picture), float(magnitude)), float)
        if name in WARPS:
            # The matrix is in float32, which can move a source over a boundary.
            assert np.sum(np.any(np.abs(ours - theirs) > 0.01, axis=2)) <= 2
        else:
            difference = ours - theirs
            assert difference.min() > -0.001 and difference.max() < 1.001, name


def test_every_operation_on_one_channel_is_pil_cut_off(photo):
    image = photo[..., :1]
    for ours, operation, magnitude in zip(apply_grid(unit(image)), *grid(), strict=True):
        name = OPERATIONS[operation]
        theirs = PIL[name](Image.fromarray(image[..., 0]), float(magnitude))
        difference = 255 * np.asarray(ours[..., 0], float) - np.asarray(theirs, float)
        off = (difference < -0.001) | (difference > 1.001)
        assert np.sum(off) <= 2 * (name in WARPS), name


def test_one_by_one_and_all_at_once_agree(photo):
    image = unit(photo)
    operations, magnitudes = grid()
    branches = module._branches(3, 0.0)

    def switch(operation, magnitude):
        return jax.lax.switch(operation, branches, image, magnitude)

    found = apply_grid(image)
    at_once = jax.jit(jax.vmap(switch))(operations, magnitudes)
    np.testing.assert_allclose(found, at_once, atol=1e-6)
    alone = jax.jit(apply_operation)
    for i in range(0, len(operations), 7):
        np.testing.assert_allclose(found[i], alone(image, operations[i], magnitudes[i]), atol=1e-6)


def test_only_cpus_go_image_by_image():
    shapes = [jax.ShapeDtypeStruct(*s) for s in (((4, 8, 8, 3), "f4"), ((4,), "i4"), ((4,), "f4"))]
    batch = jax.jit(jax.vmap(apply_operation))
    for platform, loops in (("cpu", True), ("cuda", False), ("tpu", False)):
        lowered = jax.export.export(batch, platforms=[platform])(*shapes).mlir_module()
        assert ("stablehlo.while" in lowered) == loops


@pytest.mark.slow
def test_batches_of_batches_agree(photo):
    operations, magnitudes = (x[:24].reshape(4, 6) for x in grid())
    image = unit(photo)
    nested = jax.vmap(jax.vmap(apply_operation, (None, 0, 0)), (None, 0, 0))
    found = jax.jit(nested)(image, operations, magnitudes)
    whole = apply_grid(image)[:24]
    np.testing.assert_allclose(np.concatenate(found), whole, atol=1e-6)


def test_draws_are_uniform_and_with_replacement():
    operations, magnitudes = jax.jit(jax.vmap(draw_operations))(jax.random.split(KEY, 7000))
    operations, magnitudes = np.asarray(operations), np.asarray(magnitudes)
    pairs = np.bincount(14 * operations[:, 0] + operations[:, 1], minlength=196)
    assert stats.chisquare(pairs).pvalue > 1e-3
    for i, name in enumerate(OPERATIONS):
        low, high = FIXMATCH_RANGES[name]
        drawn = magnitudes[operations == i]
        assert drawn.min() >= low and drawn.max() <= high
        if high > low:
            assert stats.kstest(drawn, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_ranges_choose_operations_in_any_order():
    ranges = {"rotate": (5.0, 6.0), "color": (0.2, 0.3)}
    forward, backward = (
        functools.partial(draw_operations, num_operations=3, ranges=r)
        for r in (ranges, dict(reversed(ranges.items())))
    )
    assert str(jax.make_jaxpr(forward)(KEY)) == str(jax.make_jaxpr(backward)(KEY))
    drawn = jax.jit(jax.vmap(forward))(jax.random.split(KEY, 500))
    operations, magnitudes = map(np.asarray, drawn)
    assert operations.shape == (500, 3)
    names = np.array(OPERATIONS)[operations]
    assert set(names.ravel()) == {"rotate", "color"}
    assert np.all((magnitudes > 4) == (names == "rotate"))


def test_rand_augment_applies_what_it_draws(photo):
    keys = jax.random.split(KEY, len(grid()[0]))
    images = np.broadcast_to(unit(photo), (len(keys), *photo.shape))
    ours = jax.jit(jax.vmap(rand_augment))(keys, images)
    operations, magnitudes = jax.jit(jax.vmap(draw_operations))(keys)
    for step in range(2):
        images = BATCHED(images, operations[:, step], magnitudes[:, step])
    np.testing.assert_allclose(ours, images, atol=1e-6)


def test_warps_leave_the_fill():
    ranges = {"translate_x": (0.25, 0.25)}
    shift = functools.partial(rand_augment, num_operations=1, ranges=ranges, fill=0.3)
    moved = jax.jit(shift)(KEY, np.ones((4, 8, 1)))
    expected = np.ones((4, 8))
    expected[:, 6:] = 0.3
    np.testing.assert_allclose(moved[..., 0], expected)


def test_cutout_centres_are_uniform():
    op = functools.partial(cutout, size=1)
    painted = jax.jit(jax.vmap(op, (0, None)))(jax.random.split(KEY, 3000), np.ones((5, 6, 2)))
    counts = np.sum(np.asarray(painted)[..., 0] == 0.5, axis=0)
    assert counts.sum() == 3000
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    np.testing.assert_array_equal(painted[..., 0], painted[..., 1])


def test_cutout_is_a_square_cut_at_the_edges():
    image = np.random.default_rng(0).uniform(0.6, 1, (32, 20, 3)).astype(np.float32)
    keys = jax.random.split(KEY, 300)
    squares = {}
    for row in range(32):
        for column in range(20):
            mask = np.zeros((32, 20), bool)
            mask[max(row - 8, 0) : row + 8, max(column - 8, 0) : column + 8] = True
            squares[mask.tobytes()] = mask.sum()
    sizes = []
    for painted in np.asarray(jax.jit(jax.vmap(cutout, (0, None)))(keys, image)):
        mask = painted[..., 0] == 0.5
        sizes.append(squares[mask.tobytes()])  # a KeyError would be no such square
        np.testing.assert_array_equal(painted, np.where(mask[..., None], 0.5, image))
    assert max(sizes) == 256 and min(sizes) < 150


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: rand_augment(KEY, x, num_operations=0), "num_operations: .*found 0"),
        (lambda x: rand_augment(KEY, x, ranges={}), "ranges: expected names of autocontrast"),
        (lambda x: rand_augment(KEY, x, ranges={"blur": (0, 1)}), r"ranges: .*found \['blur'\]"),
        (
            lambda x: rand_augment(KEY, x, ranges={"rotate": (3, 1)}),
            r"ranges\['rotate'\]: .*low <= high",
        ),
        (
            lambda x: rand_augment(KEY, x, ranges={"posterize": (4, 9)}),
            r"ranges\['posterize'\]: expected magnitudes in 0..8, found \(4, 9\)",
        ),
        (
            lambda x: rand_augment(KEY, x, ranges={"solarize": (0, 256)}),
            r"ranges\['solarize'\]: expected magnitudes in 0..1, found \(0, 256\)",
        ),
        (
            lambda x: rand_augment(KEY, x, ranges={"contrast": (-0.1, 1)}),
            r"ranges\['contrast'\]: .* 0.0 or more, found -0.1",
        ),
        (lambda x: apply_operation(x, 14, 0.5), "operation: expected indices in 0..13, found 14"),
        (lambda x: apply_operation(x, -1, 0.5), "operation: expected indices in 0..13, found -1"),
        (lambda x: rand_augment(KEY, x, fill=2), "fill: .*found 2"),
        (lambda x: rand_augment(KEY, x[..., :2]), "image: expected 1 or 3 channels, found 2"),
        (lambda x: cutout(KEY, x, size=0), "size: .*found 0"),
        (lambda x: cutout(KEY, x, fill=-1), "fill: .*found -1"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, jnp.zeros((4, 5, 3)))
