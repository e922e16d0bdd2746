"""Images, encoders and their weights as the command line names them."""

import argparse
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.data import data_root
from benchmarks.digits import load_digits
from jaxal.checks import check_positive
from jaxal.data import ImageSource, from_arrays, open_folder, open_npy, open_tfds, take
from jaxal.models.encoders import ENCODERS, get_encoder
from jaxal.models.preprocess import Preprocessing, preprocess
from jaxal.models.saved import is_saved, load_variables
from jaxal.models.weights import import_weights, read_weights
from jaxal.records import fingerprint

__all__ = [
    "Images",
    "LoadedEncoder",
    "add_encoder",
    "add_images",
    "encode",
    "encoder_settings",
    "load_encoder",
    "open_images",
]

_FILES = ("images", "labels", "test_images", "test_labels")
_FOLDERS = ("folder", "test_folder")


class Images(NamedTuple):
    """A pool and a test set."""

    name: str
    train: ImageSource
    test: ImageSource | None
    num_classes: int | None  # None where no class is known
    tested: str = "test images"  # what the test set is, for reports


class LoadedEncoder(NamedTuple):
    """An encoder with its weights."""

    name: str
    module: Any
    variables: dict[str, Any]
    preprocessing: Preprocessing
    about: dict[str, Any]  # where the weights are from, for reports and fingerprints


def add_images(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that say which images are meant."""
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="digits (scikit-learn's, needs no data), or any that tensorflow-datasets prepared as "
        "array_record, such as cifar10",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="where tensorflow-datasets prepared it; by default JAXAL_DATA/tfds",
    )
    parser.add_argument("--split", default="train", help="of the pool (default train)")
    parser.add_argument("--test-split", default="test", help="of the test set (default test)")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="images, a sub-folder a class or none"
    )
    parser.add_argument("--test-folder", type=Path, metavar="DIR", help="likewise, of the test set")
    for name, text in (
        ("images", "uint8 [n, h, w, c] of the pool"),
        ("labels", "their classes [n], integers from 0"),
        ("test-images", "of the test set"),
        ("test-labels", "of the test set"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE.npy", help=text)
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="scale and cut images of a folder or a data set of several sizes to this square",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only N random images of the pool (key 0)"
    )
    parser.add_argument(
        "--test-limit", type=int, metavar="N", help="only the first N of the test set"
    )
    parser.add_argument(
        "--holdout",
        type=int,
        metavar="N",
        help="test on N random images kept out of the pool (key 1), not on the test set, so that "
        "choices can be compared without it",
    )


def add_encoder(parser: argparse.ArgumentParser, *, weights: bool = True) -> None:
    """Declare the flags that say which encoder is meant."""
    parser.add_argument(
        "--encoder",
        default="conv4",
        choices=list(ENCODERS),
        metavar="NAME",
        help=f"of {', '.join(ENCODERS)} (default conv4)",
    )
    parser.add_argument(
        "--width",
        type=int,
        metavar="N",
        help="of the encoder, in place of its own (num_filters of conv4)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side that images are scaled to for the encoder, in place of its own",
    )
    if weights:
        parser.add_argument(
            "--weights",
            type=Path,
            metavar="FILE",
            help="what pretrain wrote, or published weights: .npz, .safetensors or a PyTorch "
            "checkpoint; new random ones without it",
        )


def open_images(args: argparse.Namespace) -> Images:
    """Open the images that the command line names.

    Raises:
      ValueError: none or several are named, or they are not there.
    """
    files = [name for name in _FILES if getattr(args, name)]
    folders = [name for name in _FOLDERS if getattr(args, name)]
    ways = [bool(args.dataset), bool(folders), bool(files)]
    if sum(ways) != 1:
        raise ValueError(
            "images: expected one of --dataset, --folder and --images, found "
            + (f"{sum(ways)} of them" if sum(ways) else "none")
        )
    train: ImageSource
    test: ImageSource | None
    if args.dataset == "digits":
        name, train, test = "digits", *_digits()
    elif args.dataset:
        name, (train, test) = args.dataset, _tfds(args)
    elif folders:
        if not args.folder:
            raise ValueError("--folder: expected beside --test-folder, found none")
        name = args.folder.name
        train = open_folder(args.folder, size=args.image_size)
        test = args.test_folder and open_folder(args.test_folder, size=args.image_size)
    else:
        if not args.images:
            raise ValueError("--images: expected beside the other files, found none")
        name = args.images.stem
        train = open_npy(args.images, args.labels)
        test = args.test_images and open_npy(args.test_images, args.test_labels)
    num_classes = _count_classes(train, test or None)
    train, test = _choose_rows(args, train, test or None)
    tested = "test images" if args.holdout is None else "images held out of the pool"
    return Images(name, train, test, num_classes, tested)


def _choose_rows(
    args: argparse.Namespace, train: ImageSource, test: ImageSource | None
) -> tuple[ImageSource, ImageSource | None]:
    """Take the rows that --holdout, --limit and --test-limit leave."""
    if args.holdout is not None:
        if check_positive(args.holdout, "--holdout") >= len(train):
            raise ValueError(
                f"--holdout: expected less than the {len(train)} images, found {args.holdout}"
            )
        order = np.asarray(jax.random.permutation(jax.random.key(1), len(train)))
        held, left = np.sort(order[: args.holdout]), np.sort(order[args.holdout :])
        train, test = take(train, left), take(train, held)
    if test is not None and args.test_limit is not None:
        count = min(check_positive(args.test_limit, "--test-limit"), len(test))
        test = take(test, np.arange(count))
    if args.limit is not None and check_positive(args.limit, "--limit") < len(train):
        order = np.asarray(jax.random.permutation(jax.random.key(0), len(train)))
        train = take(train, np.sort(order[: args.limit]))
    return train, test


def _digits() -> tuple[ImageSource, ImageSource]:
    """Take the digits as colour images, which all encoders and augmentations know."""
    found = load_digits()

    def source(images: np.ndarray, labels: np.ndarray) -> ImageSource:
        grey = np.round(images * 255).astype(np.uint8)[..., None]
        return from_arrays(np.repeat(grey, 3, axis=3), labels, [str(i) for i in range(10)])

    return source(found.pool, found.pool_labels), source(found.test, found.test_labels)


def _tfds(args: argparse.Namespace) -> tuple[ImageSource, ImageSource | None]:
    folder = args.data_dir or data_root() / "tfds"
    opened = functools.partial(open_tfds, args.dataset, data_dir=folder, size=args.image_size)
    return opened(args.split), opened(args.test_split) if args.test_split else None


def _count_classes(train: ImageSource, test: ImageSource | None) -> int | None:
    if train.labels is None:
        return None
    if train.class_names is not None:
        names = train.class_names
        if test is not None and test.class_names not in (None, names):
            raise ValueError(f"test images: expected the classes {names}, found {test.class_names}")
        return len(names)
    known = [source.labels for source in (train, test) if source is not None]
    return int(max(labels.max() for labels in known if labels is not None)) + 1


def load_encoder(args: argparse.Namespace, channels: int = 3, *, seed: int = 0) -> LoadedEncoder:
    """Make the encoder that the command line names, and read its weights.

    Raises:
      ValueError: an option it does not have, or weights that do not fit.
    """
    preprocessing = ENCODERS[args.encoder].preprocessing
    if args.size is not None:
        preprocessing = preprocessing._replace(size=check_positive(args.size, "--size"))
    if channels != len(preprocessing.mean):
        raise ValueError(
            f"--encoder: {args.encoder} expects {len(preprocessing.mean)} channels, found images "
            f"of {channels}"
        )
    attributes: dict[str, Any] = {}
    if args.width is not None:
        attributes["num_filters" if args.encoder == "conv4" else "width"] = args.width
    if args.size is not None and args.encoder == "conv4":
        attributes["image_size"] = args.size
    module = get_encoder(args.encoder, **attributes)
    side = preprocessing.size or 32
    image = jnp.zeros((1, side, side, channels))
    about: dict[str, Any] = {"encoder": args.encoder, **attributes, "size": preprocessing.size}
    path = getattr(args, "weights", None)
    if path is None:
        variables = jax.jit(module.init)(jax.random.key(seed), image)
        return LoadedEncoder(
            args.encoder, module, dict(variables), preprocessing, {**about, "weights": None}
        )
    template = jax.eval_shape(module.init, jax.random.key(0), image)
    if is_saved(path):
        variables, found = load_variables(path)
        _check_alike(path, template, variables, found)
    else:
        variables, _ = import_weights(module, template, read_weights(path))
    leaves = jax.tree.leaves_with_path(variables)
    digest = fingerprint(np.concatenate([np.ravel(x) for _, x in leaves]))["sha256"]
    about |= {"weights": path.name, "sha256": digest}
    return LoadedEncoder(args.encoder, module, variables, preprocessing, about)


def _check_alike(path: Path, template: Any, variables: Any, found: Any) -> None:
    wanted, given = (
        {jax.tree_util.keystr(p): np.shape(x) for p, x in jax.tree.leaves_with_path(tree)}
        for tree in (template, variables)
    )
    if wanted != given:
        differing = sorted(set(wanted.items()) ^ set(given.items()))[:3]
        raise ValueError(
            f"{path}: expected weights of the encoder named, found those of {found}; they differ "
            f"in {differing}"
        )


def encode(encoder: LoadedEncoder) -> Any:
    """Compile ``images uint8 [n, h, w, c] -> features [n, f]``."""
    variables = encoder.variables

    @jax.jit
    def compiled(variables: Any, images: jax.Array) -> jax.Array:
        found = encoder.module.apply(variables, preprocess(images, encoder.preprocessing))
        return jnp.asarray(found)

    return functools.partial(compiled, variables)


def encoder_settings(encoder: LoadedEncoder) -> dict[str, Any]:
    """Describe all of an encoder that features depend on."""
    return {**encoder.about, "preprocessing": encoder.preprocessing._asdict()}
