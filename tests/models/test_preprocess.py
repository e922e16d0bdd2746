import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxal.models.preprocess import CIFAR10, CLIP, IMAGENET, Preprocessing, preprocess


def pictures(n=3, height=20, width=20, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_without_a_size_only_the_scale_changes():
    x = pictures(width=14)
    expected = (x / 255 - np.array(CIFAR10.mean)) / np.array(CIFAR10.std)
    found = preprocess(x, CIFAR10)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(preprocess((x / 255).astype(np.float32), CIFAR10), found, atol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda x: preprocess(x, CIFAR10))(x), found, atol=1e-5)


@pytest.mark.parametrize("size", [9, 20, 31])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_resizing_agrees_with_pil(size, method):
    x = pictures(n=2, height=26)
    plain = Preprocessing(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), method)
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[method]
    channels = [
        [
            np.asarray(
                Image.fromarray(image[..., c].astype(np.float32)).resize((size, size), resample)
            )
            for c in range(3)
        ]
        for image in x
    ]
    expected = np.stack([np.stack(image, axis=-1) for image in channels]) / 255
    np.testing.assert_allclose(preprocess(x, plain), expected, atol=2e-5)


def test_known_constants():
    grey = np.full((1, 2, 2, 3), 0.5, np.float32)
    for preprocessing in (CIFAR10, CLIP, IMAGENET):
        assert np.abs(preprocess(grey, preprocessing._replace(size=None))).max() < 0.5
    assert IMAGENET.size == CLIP.size == 224 and CIFAR10.size is None


@pytest.mark.parametrize(
    ("x", "change", "message"),
    [
        (pictures()[0], {}, r"images: expected \[n, h, w, 3\], found shape \(20, 20, 3\)"),
        (pictures()[..., :1], {}, r"images: expected \[n, h, w, 3\]"),
        (pictures().astype(np.int32), {}, "images: expected uint8 or floats, found dtype int32"),
        (pictures().astype(np.float32), {}, r"images: expected floats in 0\.\.1, found .*255"),
        (np.full((1, 2, 2, 3), np.nan), {}, r"images: expected floats in 0\.\.1, found nan"),
        (pictures(), {"size": 0}, "preprocessing.size: expected a whole number"),
        (pictures(), {"std": (1.0, 1.0)}, "preprocessing: expected as many .* 3 and 2"),
        (pictures(), {"std": (1.0, 0.0, 1.0)}, "preprocessing.std: expected numbers above 0"),
        (pictures(), {"method": "nearest"}, "preprocessing.method: expected .* 'nearest'"),
    ],
)
def test_wrong_arguments(x, change, message):
    with pytest.raises(ValueError, match=message):
        preprocess(x, IMAGENET._replace(**change))
