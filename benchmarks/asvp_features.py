"""Given features in place of images: the command asvp on what any encoder made.

A network that can be fine-tuned is then a residual layer on the features, ours, which begins as the
identity. Features pass as grey images of one line, the bytes of their float32 numbers, so that all
that trains on images trains on them, bit for bit.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.data import load_array
from benchmarks.image_encoders import LoadedEncoder
from benchmarks.images import Images
from jaxal.checks import check_features
from jaxal.data import ImageSource, from_arrays
from jaxal.models.adapter import Adapter
from jaxal.models.preprocess import Preprocessing
from jaxal.records import fingerprint

__all__ = ["add_features", "as_images", "open_features", "read_features"]

_NORM = 4.0  # mean norm that features are scaled to, as a linear head of the library's has them
_SAMPLE = 10_000  # rows that their norm is taken from
_FILES = ("features", "test_features", "labels", "test_labels")
# What says which images, or which network, is meant.
_OTHERS = (
    "dataset", "data_dir", "split", "test_split", "folder", "test_folder", "images", "test_images",
    "image_size", "encoder", "width", "size", "weights", "limit", "test_limit", "holdout",
)  # fmt: skip


def add_features(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that name features; those of their labels are declared elsewhere."""
    for name, text in (
        ("features", "[n, d] of the pool, in place of images; with --labels, --test-features and "
         "--test-labels"),
        ("test-features", "of the test set"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=Path, metavar="FILE.npy", help=text)


def open_features(args: argparse.Namespace) -> tuple[Images, LoadedEncoder, Any]:
    """Open the features that the command line names.

    Returns:
      They as images, the network on them, and what it reads images by.

    Raises:
      ValueError: a file that is missing, damaged or does not fit, or a flag that is for images.
    """
    missing = [name for name in _FILES if getattr(args, name) is None]
    if missing:
        flag = missing[0].replace("_", "-")
        raise ValueError(f"--{flag}: expected with the other files of features, found none")
    for name in _OTHERS:
        if getattr(args, name) is not None:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag}: expected none beside --features, found one")
    path = Path(args.features)
    x, queries, y, wanted = (load_array(getattr(args, name)) for name in _FILES)
    check_features(x, "--features")
    check_features(queries, "--test-features")
    if x.shape[1] != queries.shape[1]:
        raise ValueError(
            f"--test-features: expected {x.shape[1]} columns, as --features has, found "
            f"{queries.shape[1]}"
        )
    train, test = as_images(x, y), as_images(queries, wanted)
    assert train.labels is not None and test.labels is not None
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    norm = float(np.linalg.norm(np.asarray(x[:_SAMPLE], np.float32), axis=1).mean())
    prepare = functools.partial(read_features, scale=_NORM / norm if norm > 0 else 1.0)
    module = Adapter()
    variables = dict(module.init(jax.random.key(0), jnp.zeros((1, x.shape[1]))))
    about = {
        "encoder": "adapter",
        "weights": path.name,
        "sha256": fingerprint(x)["sha256"],
    }
    unchanged = Preprocessing(None, (0.0,), (1.0,))
    return (
        Images(path.stem, train, test, num_classes),
        LoadedEncoder("adapter", module, variables, unchanged, about),
        prepare,
    )


def as_images(features: np.ndarray, labels: np.ndarray) -> ImageSource:
    """View features ``[n, d]`` as images ``[n, 1, 4 d, 1]``, uint8."""
    x = np.ascontiguousarray(features, np.float32)
    return from_arrays(x.view(np.uint8).reshape(len(x), 1, -1, 1), labels)


def read_features(images: jax.Array, *, scale: float) -> jax.Array:
    """Turn images in 0..1 back into features ``[n, d]``, scaled."""
    pixels = jnp.round(images * 255).astype(jnp.uint8)
    return jax.lax.bitcast_convert_type(pixels.reshape(len(images), -1, 4), jnp.float32) * scale
