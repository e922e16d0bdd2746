import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.augment import augment_batch, presets, simclr_view, simsiam_view, strong, weak

KEY = jax.random.key(0)
PRESETS = {
    "weak": weak(),
    "strong": strong(),
    "simclr": simclr_view((24, 36), blur=True),
    "simsiam": simsiam_view(32),
}


@functools.cache
def jitted(name):
    return jax.jit(functools.partial(augment_batch, PRESETS[name]))


def augmented(name, key, images, rows=None):
    # Rows always, so that each preset compiles once.
    return np.asarray(jitted(name)(key, images, rows=np.arange(12) if rows is None else rows))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    small = rng.uniform(size=(12, 8, 8, 3))
    return np.repeat(np.repeat(small, 4, axis=1), 4, axis=2).astype(np.float32)


# SimSiam's view is SimCLR's with other numbers, which are looked at below.
@pytest.fixture(
    params=["weak", "strong", "simclr", pytest.param("simsiam", marks=pytest.mark.slow)]
)
def name(request):
    return request.param


def almost_equal(found, expected):
    # Rounding may put a pixel on the next level, and what follows may enlarge that.
    assert np.mean(np.abs(found - expected) > 1e-5) < 1e-3
    np.testing.assert_allclose(found, expected, atol=3 / 255)


def test_views_are_images(name, images):
    views = augmented(name, KEY, images)
    assert views.dtype == jnp.float32
    assert views.shape == ((12, 24, 36, 3) if name == "simclr" else images.shape)
    assert np.isfinite(views).all() and views.min() >= 0 and views.max() <= 1


def test_one_key_gives_one_result(name, images):
    views = augmented(name, KEY, images)
    np.testing.assert_array_equal(views, augmented(name, jax.random.key(0), images))
    others = augmented(name, jax.random.key(1), images)
    assert np.mean(np.any(views != others, axis=(1, 2, 3))) > 0.9


def test_equal_images_become_different_ones(name, images):
    views = augmented(name, KEY, np.repeat(images[:1], 12, axis=0))
    assert len({view.tobytes() for view in views}) > 10


def test_a_batch_is_its_rows_in_any_order(name, images):
    rows = np.array([8, 3, 3, 0] * 3)
    whole = augmented(name, KEY, images)
    almost_equal(augmented(name, KEY, images[rows], rows), whole[rows])


@pytest.mark.parametrize(
    "name", ["weak", "strong", pytest.param("simsiam", marks=pytest.mark.slow)], indirect=True
)
def test_a_batch_is_its_images_one_by_one(name, images):
    whole = augmented(name, KEY, images)
    single = jax.jit(PRESETS[name])
    for row in range(12):
        almost_equal(single(jax.random.fold_in(KEY, row), images[row]), whole[row])


@pytest.mark.parametrize(
    "name",
    ["weak", *(pytest.param(name, marks=pytest.mark.slow) for name in ("strong", "simclr"))],
    indirect=True,
)
def test_compiled_is_not_compiled(name, images):
    found = PRESETS[name](jax.random.fold_in(KEY, 5), jnp.asarray(images[5]))
    almost_equal(found, augmented(name, KEY, images)[5])


def test_weak_is_a_flip_and_a_shift(images):
    image = images[0]
    candidates = {}
    for flipped in (False, True):
        base = image[:, ::-1] if flipped else image
        padded = np.pad(base, ((2, 2), (2, 2), (0, 0)), mode="reflect")
        for top in range(5):
            for left in range(5):
                crop = padded[top : top + 32, left : left + 32]
                candidates[crop.tobytes()] = (flipped, top, left)
    views = jax.jit(jax.vmap(weak(padding=2), (0, None)))(jax.random.split(KEY, 600), image)
    assert len({candidates[view.tobytes()] for view in np.asarray(views)}) == 50


def test_strong_ends_with_a_gray_rectangle(images):
    for view in augmented("strong", KEY, images):
        gray = np.all(view == 0.5, axis=2)
        height, width = gray.any(axis=1).sum(), gray.any(axis=0).sum()
        assert gray.sum() == height * width
        assert 8 <= height <= 16 and 8 <= width <= 16


@pytest.mark.parametrize("preset", [weak(), strong()])
def test_fixmatch_takes_one_channel(preset, images):
    views = jax.eval_shape(functools.partial(augment_batch, preset), KEY, images[..., :1])
    assert views.shape == (12, 32, 32, 1)


@pytest.mark.parametrize("preset", [simclr_view(8), simsiam_view(8)])
def test_views_need_three_channels(preset, images):
    with pytest.raises(ValueError, match="image: expected 3 channels, found 1"):
        jax.eval_shape(functools.partial(augment_batch, preset), KEY, images[..., :1])


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [
        pytest.param(simclr_view(4), 0.2, 1.8, marks=pytest.mark.slow),
        pytest.param(simsiam_view(4), 0.6, 1.4, marks=pytest.mark.slow),
    ],
)
def test_strengths_and_probabilities_are_the_papers(preset, low, high):
    # A flat grey image shows brightness and nothing else, a flat red one whether it is made grey.
    colors = jnp.array([[0.4, 0.4, 0.4], [0.8, 0.0, 0.2]])  # whole levels of 1/255
    images = jnp.broadcast_to(colors[:, None, None], (2, 8, 8, 3))[jnp.arange(4000) % 2]
    views = np.asarray(jax.jit(jax.vmap(preset))(jax.random.split(KEY, 4000), images))
    factors, red = views[::2, 0, 0, 0] / 0.4, views[1::2, 0, 0]
    assert low - 0.01 < factors.min() < low + 0.02
    assert high - 0.02 < factors.max() < high + 0.01
    assert abs(np.mean(np.abs(factors - 1) < 1e-3) - 0.2) < 0.04
    assert abs(np.mean(np.ptp(red, axis=1) < 1e-6) - 0.2) < 0.04


@pytest.mark.parametrize(
    ("view", "options", "area", "strengths"),
    [
        (simclr_view, {}, (0.08, 1.0), (0.8, 0.8, 0.8, 0.2)),
        (simclr_view, {"strength": 0.5}, (0.08, 1.0), (0.4, 0.4, 0.4, 0.1)),
        (simclr_view, {"area": (0.2, 0.9)}, (0.2, 0.9), (0.8, 0.8, 0.8, 0.2)),
        (simsiam_view, {}, (0.2, 1.0), (0.4, 0.4, 0.4, 0.1)),
    ],
)
def test_options_are_the_papers(view, options, area, strengths, monkeypatch):
    found = {}

    def record(name):
        function = getattr(presets, name)
        signature = inspect.signature(function)

        def recorded(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            found[name] = bound.arguments
            return function(*args, **kwargs)

        monkeypatch.setattr(presets, name, recorded)

    for name in ("color_jitter", "random_resized_crop"):
        record(name)
    views = jax.eval_shape(view(8, **options), KEY, jnp.zeros((16, 16, 3)))
    assert views.shape == (8, 8, 3)
    assert found["random_resized_crop"]["area"] == area
    jitter = found["color_jitter"]
    names = ("brightness", "contrast", "saturation", "hue")
    assert tuple(jitter[name] for name in names) == strengths


@pytest.mark.parametrize("view", [simclr_view, simsiam_view])
@pytest.mark.parametrize(
    ("size", "blur", "blurs"),
    [(32, None, 0), (33, None, 1), ((8, 33), None, 1), (32, True, 1), (64, False, 0)],
)
def test_blur_is_left_to_images_over_32_pixels(view, size, blur, blurs, monkeypatch):
    calls = []

    def blurred(key, image):
        calls.append(image.shape)
        return image

    monkeypatch.setattr(presets, "random_blur", blurred)
    jax.eval_shape(view(size, blur=blur), KEY, jnp.zeros((40, 40, 3)))
    assert len(calls) == blurs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simclr_view(0), "size: .*found 0"),
        (lambda: simsiam_view(0), "size: .*found 0"),
        (lambda: simsiam_view(8, area=(0.5, 0.2)), "area: .*low <= high"),
        (lambda: simclr_view(8, area=(0.0, 1.0)), "area: .*above 0"),
        (lambda: simclr_view(8, strength=3), "strength: expected at most 2.5, .*found 3"),
        (lambda: simclr_view(8, strength=-1), "strength: .*found -1"),
        (lambda: weak(padding=-1), "padding: .*at least 0, found -1"),
        (lambda: strong(padding=-1), "padding: .*at least 0, found -1"),
        (lambda: strong(num_operations=0), "num_operations: .*found 0"),
        (lambda: strong(cutout_size=0), "cutout_size: .*found 0"),
    ],
)
def test_bad_options_are_named_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_largest_strength_is_half_a_turn_of_hue():
    jax.eval_shape(simclr_view(8, strength=2.5), KEY, jnp.zeros((16, 16, 3)))
