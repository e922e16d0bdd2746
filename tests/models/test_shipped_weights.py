"""Features of CIFAR-10 by imported weights, against features that were computed elsewhere.

The latter are principal components, rotated by what is not at hand. So they are compared through
distances between images, which a projection keeps or shortens, and through a linear map that is
fitted on some images and judged on others.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.encoders import ENCODERS, get_encoder
from jaxal.models.preprocess import preprocess
from jaxal.models.weights import import_weights, read_weights

ROOT = Path(os.environ.get("JAXAL_DATA", "/nowhere"))

pytestmark = pytest.mark.skipif(
    not (ROOT / "weights").is_dir(), reason="JAXAL_DATA does not name the folder of prepared data"
)


def first_images(count):
    """Read the first images of the test set as stored, and their rows."""
    tfds = pytest.importorskip("tensorflow_datasets")
    source = tfds.data_source("cifar10", data_dir=ROOT / "tfds", split="test")
    examples = [source[i] for i in range(count)]
    rows = [int(example["id"].decode().split("_")[1]) for example in examples]
    return np.stack([example["image"] for example in examples]), np.array(rows)


def features(name, file, images):
    """Extract features with imported weights, in batches."""
    encoder, preprocessing = get_encoder(name), ENCODERS[name].preprocessing
    size = preprocessing.size
    template = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    variables, _ = import_weights(encoder, template, read_weights(ROOT / "weights" / file))
    extract = jax.jit(lambda batch: encoder.apply(variables, preprocess(batch, preprocessing)))
    batches = [extract(images[i : i + 50]) for i in range(0, len(images), 50)]
    return np.concatenate(batches).astype(float)


def distances(x):
    squares = (x**2).sum(1)
    pairs = np.triu_indices(len(x), 1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * x @ x.T, 0)[pairs])


def explained(x, target, components):
    """Share of the leading components that a map fitted on 3/4 of the images explains in others."""
    fitted = 3 * len(x) // 4
    centred, wanted = x - x[:fitted].mean(0), target[:, :components]
    gram = centred[:fitted] @ centred[:fitted].T
    ridge = 1e-6 * np.trace(gram) / fitted * np.eye(fitted)
    mean = wanted[:fitted].mean(0)
    weights = np.linalg.solve(gram + ridge, wanted[:fitted] - mean)
    found = centred[fitted:] @ centred[:fitted].T @ weights + mean
    error = ((found - wanted[fitted:]) ** 2).sum()
    return 1 - error / ((wanted[fitted:] - wanted[fitted:].mean(0)) ** 2).sum()


def test_conv4_gives_the_features_that_were_computed_elsewhere():
    images, rows = first_images(400)
    target = np.load(ROOT / "features/cifar10_protoclr/test.npy")[rows].astype(float)
    x = features("conv4", "conv4_protoclr_miniimagenet.npz", images)
    assert explained(x, target, 8) > 0.998
    assert explained(x, target, 32) > 0.99
    ratios = distances(target) / distances(x)
    assert 0.7 < ratios.min() and ratios.max() < 1
    assert np.corrcoef(distances(x), distances(target))[0, 1] > 0.97
    # Rows of other images would not do.
    assert explained(x, target[::-1], 8) < 0.5


def cubic_resize(images, size):
    """Resize bicubically with a = -3/4 and round to uint8, as OpenCV does."""
    side = images.shape[1]
    centres = (np.arange(size) + 0.5) * side / size - 0.5
    weights = np.zeros((size, side))
    for offset in (-1, 0, 1, 2):
        place = np.floor(centres).astype(int) + offset
        t = np.abs(centres - place)
        near, far = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
        np.add.at(
            weights, (np.arange(size), np.clip(place, 0, side - 1)), np.where(t <= 1, near, far)
        )
    resized = np.einsum("ri,cj,nijk->nrck", weights, weights, images.astype(float), optimize=True)
    return np.clip(np.round(resized), 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_folded_mobilenet_gives_the_features_that_were_computed_elsewhere(monkeypatch):
    """Against the network before it was dequantised, whose ReLU6 has 255 steps."""
    monkeypatch.setattr(jax.nn, "relu6", lambda x: jnp.round(jnp.clip(x, 0, 6) * 42.5) / 42.5)
    images, rows = first_images(200)
    target = np.load(ROOT / "features/cifar10_mobilenetv2/test.npy")[rows].astype(float)
    x = features("mobilenet_v2_folded", "mobilenet_v2_imagenet.npz", cubic_resize(images, 224))
    assert explained(x, target, 8) > 0.98
    ratios = distances(target) / distances(x)
    assert 0.7 < ratios.min() and ratios.max() < 1
    assert np.corrcoef(distances(x), distances(target))[0, 1] > 0.98
