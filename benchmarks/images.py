"""Images as the command line names them."""

import argparse
import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.data import data_root
from benchmarks.digits import load_digits
from benchmarks.flags import as_flags
from benchmarks.image_encoders import name_encoder
from benchmarks.origins import Origin, find_origin
from jaxal.checks import check_positive
from jaxal.data import ImageSource, from_arrays, open_folder, open_npy, open_tfds, take
from jaxal.models.encoders import ENCODERS

__all__ = [
    "Images",
    "add_images",
    "draw_rows",
    "open_images",
]

_FILES = ("images", "labels", "test_images", "test_labels")
# What names a test set, in whose place --holdout puts another.
_TESTS = ("test_folder", "test_images", "test_split")
_SHOWN_CLASSES = 10
_MOST_CLASSES = 10_000  # however few images there are; ids in place of classes are larger
_FOLDERS = ("folder", "test_folder")
# Which ways of naming images a flag is for, and what they are called.
_TFDS = "a data set of tensorflow-datasets"
_ONLY_FOR = {
    "data_dir": {"dataset": _TFDS},
    "split": {"dataset": _TFDS},
    "test_split": {"dataset": _TFDS},
    "image_size": {"dataset": _TFDS, "folder": "--folder"},
}


class Images(NamedTuple):
    """A pool and a test set."""

    name: str
    train: ImageSource
    test: ImageSource | None
    num_classes: int | None  # None where no class is known
    tested: str = "test images"  # what the test set is, for reports
    rows: np.ndarray | None = None  # [n] of the whole pool, that `train` has; None for all
    held_rows: np.ndarray | None = None  # likewise, that `test` has where it was held out
    origin: Origin = Origin(None, None, ())  # of `train`
    test_origin: Origin = Origin(None, None, ())


def add_images(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that say which images are meant."""
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="digits (scikit-learn's, needs no data), or any that tensorflow-datasets prepared, as "
        "array_record or TFRecord, such as cifar10; grey images are repeated to three channels",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="where tensorflow-datasets prepared it; by default JAXAL_DATA/tfds",
    )
    parser.add_argument("--split", help="of the pool (default train)")
    parser.add_argument("--test-split", help="of the test set (default test)")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="images, a sub-folder a class or none"
    )
    parser.add_argument("--test-folder", type=Path, metavar="DIR", help="likewise, of the test set")
    for name, text in (
        ("images", "uint8 [n, h, w, c] of the pool; one channel is repeated to three"),
        ("labels", "their classes [n], integers from 0"),
        ("test-images", "of the test set"),
        ("test-labels", "of the test set"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE.npy", help=text)
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="scale and cut images of a folder or a data set to this square; by default those of "
        "several sizes to the encoder's",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only N random images of the pool (key 0)"
    )
    parser.add_argument(
        "--test-limit", type=int, metavar="N", help="only N random images of the test set (seed 0)"
    )
    parser.add_argument(
        "--holdout",
        type=int,
        metavar="N",
        help="test on N random images kept out of the pool (key 1), not on the test set, so that "
        "choices can be compared without it",
    )


def open_images(args: argparse.Namespace) -> Images:
    """Open the images that the command line names, in colour, and print their classes.

    Raises:
      ValueError: none or several are named, they are not there, or a flag does not go with them.
    """
    way = _find_way(args)
    train: ImageSource
    test: ImageSource | None
    if way == "digits":
        name, (train, test) = "digits", _digits()
    elif way == "dataset":
        name, (train, test) = args.dataset, _open_sized(args, _open_tfds)
    elif way == "folder":
        name, (train, test) = args.folder.name, _open_sized(args, _open_folders)
    else:
        name, train, test = args.images.stem, *_open_files(args)
    whole, whole_test = train, test
    if way != "digits" and name == "digits":
        name = "own digits"  # the others are trained on without mirroring
    train, test = _coloured(train), None if test is None else _coloured(test)
    num_classes = _count_classes(train, test)
    _tell_classes(train, num_classes)
    size = len(train)
    train, test, rows, test_rows = _choose_rows(args, train, test)
    origin = find_origin(whole, None if len(rows) == size else rows)
    held = None if args.holdout is None else test_rows
    test_origin = find_origin(whole_test if held is None else whole, test_rows)
    if held is not None:
        test_origin = test_origin._replace(left_out=())  # the pool's, listed there
    tested = "test images" if held is None else "images held out of the pool"
    return Images(name, train, test, num_classes, tested, rows, held, origin, test_origin)


def draw_rows(count: int, most: int) -> np.ndarray:
    """Draw rows of ``0..count-1``, ``most`` at the most; the same each time, and ascending.

    Random ones, since the images of folders are ordered by class.
    """
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _find_way(args: argparse.Namespace) -> str:
    """Tell how images are named: "digits", "dataset", "folder" or "images"."""
    ways = {
        "dataset": bool(args.dataset),
        "folder": any(getattr(args, name) for name in _FOLDERS),
        "images": any(getattr(args, name) for name in _FILES),
    }
    found = [way for way, named in ways.items() if named]
    if len(found) != 1:
        raise ValueError(
            "images: expected one of --dataset, --folder and --images, found "
            + (f"{len(found)} of them" if found else "none")
        )
    (way,) = found
    if way == "folder" and not args.folder:
        raise ValueError("--folder: expected beside --test-folder, found none")
    if way == "images" and not args.images:
        raise ValueError("--images: expected beside the other files, found none")
    if args.test_labels and not args.test_images:
        raise ValueError("--test-images: expected beside --test-labels, found none")
    for flag in _TESTS:
        if args.holdout is not None and getattr(args, flag):
            raise ValueError(
                f"--holdout: expected no other test set beside it, found --{flag.replace('_', '-')}"
            )
    way, name = ("digits", "the digits") if args.dataset == "digits" else (way, f"--{way}")
    for flag, known in _ONLY_FOR.items():
        if getattr(args, flag) is not None and way not in known:
            raise ValueError(
                f"--{flag.replace('_', '-')}: expected {' or '.join(known.values())} beside it, "
                f"found {name}"
            )
    if args.image_size is not None:
        check_positive(args.image_size, "--image-size")
    return way


def _open_sized(
    args: argparse.Namespace,
    opened: Callable[[argparse.Namespace, int | None], tuple[ImageSource, ImageSource | None]],
) -> tuple[ImageSource, ImageSource | None]:
    """Open images scaled to ``--image-size``, and those of several sizes to the encoder's."""
    try:
        return opened(args, args.image_size)
    except ValueError as error:
        said = str(error)
        if not said.startswith("size: expected one to scale to"):
            raise
        size = _encoder_size(args)
        if size is None:
            # The library's argument, which is not the encoder's --size.
            raise ValueError(f"--image-{said}") from error
    print(f"images of several sizes: scaled and cut to squares of {size} pixels", flush=True)
    return opened(args, size)


def _encoder_size(args: argparse.Namespace) -> int | None:
    if not hasattr(args, "encoder"):
        return None
    args = name_encoder(args)
    size: int | None = args.size
    return ENCODERS[args.encoder].preprocessing.size if size is None else size


def _open_tfds(
    args: argparse.Namespace, size: int | None
) -> tuple[ImageSource, ImageSource | None]:
    folder = args.data_dir or data_root() / "tfds"
    opened = functools.partial(open_tfds, args.dataset, data_dir=folder, size=size)
    split, test_split = (
        default if given is None else given
        for given, default in ((args.split, "train"), (args.test_split, "test"))
    )
    with _without_lists():
        with as_flags(data_dir="--data-dir", name="--dataset", split="--split"):
            train = opened(split)
        test = None
        if test_split and args.holdout is None:
            with as_flags(data_dir="--data-dir", split="--test-split"):
                test = opened(test_split)
    _tell_left_out(train, test)
    return train, test


def _open_folders(
    args: argparse.Namespace, size: int | None
) -> tuple[ImageSource, ImageSource | None]:
    test = None
    with _without_lists():
        with as_flags(path="--folder"):
            train = open_folder(args.folder, size=size)
        if args.test_folder:
            with as_flags(path="--test-folder", class_names="--test-folder"):
                # It may lack a class.
                names = train.class_names
                test = open_folder(args.test_folder, size=size, class_names=names)
    _tell_left_out(train, test)
    return train, test


def _open_files(args: argparse.Namespace) -> tuple[ImageSource, ImageSource | None]:
    with as_flags(path="--images", images="--images", labels="--labels", labels_path="--labels"):
        train = open_npy(args.images, args.labels)
    if not args.test_images:
        return train, None
    flags = {"path": "images", "images": "images", "labels": "labels", "labels_path": "labels"}
    with as_flags(**{name: f"--test-{flag}" for name, flag in flags.items()}):
        return train, open_npy(args.test_images, args.test_labels)


@contextlib.contextmanager
def _without_lists() -> Iterator[None]:
    """Leave out the warnings that `_tell_left_out` prints in the command line's words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* images that cannot be read, listed in problems")
        yield


def _tell_left_out(*sources: Any) -> None:
    for source in sources:
        if source is not None and source.problems:
            (name, why), count = source.problems[0], len(source.problems)
            more = f" and {count - 1} more" if count > 1 else ""
            print(f"left out as unreadable: {name} ({why}){more}", flush=True)


@dataclasses.dataclass(frozen=True, eq=False)
class _Coloured:
    """Grey images as colour images, which all encoders and augmentations know."""

    source: ImageSource
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.source)

    def load(self, rows: np.ndarray) -> np.ndarray:
        return np.repeat(self.source.load(rows), 3, axis=3)

    def describe(self) -> dict[str, Any]:
        return {"kind": "coloured", "of": self.source.describe()}


def _coloured(source: ImageSource) -> ImageSource:
    if source.load(np.zeros(1, np.int64)).shape[3] == 3:
        return source
    return _Coloured(source, source.labels, source.class_names)


def _choose_rows(
    args: argparse.Namespace, train: ImageSource, test: ImageSource | None
) -> tuple[ImageSource, ImageSource | None, np.ndarray, np.ndarray | None]:
    """Take the rows that --holdout, --limit and --test-limit leave.

    Returns:
      Pool and test set, and the rows that they have, of all that were named: the test set's of the
      pool where it was held out, and None where it is whole.
    """
    rows, held = np.arange(len(train)), None
    if args.holdout is not None:
        if check_positive(args.holdout, "--holdout") >= len(train):
            raise ValueError(
                f"--holdout: expected less than the {len(train)} images, found {args.holdout}"
            )
        order = np.asarray(jax.random.permutation(jax.random.key(1), len(train)))
        held, rows = np.sort(order[: args.holdout]), np.sort(order[args.holdout :])
        train, test = take(train, rows), take(train, held)
    if args.test_limit is not None:
        if test is None:
            raise ValueError("--test-limit: expected a test set beside it, found none")
        _check_limit(args.test_limit, "--test-limit", test)
        kept = draw_rows(len(test), args.test_limit)
        test, held = take(test, kept), kept if held is None else held[kept]
    if args.limit is not None and _check_limit(args.limit, "--limit", train) < len(train):
        order = np.asarray(jax.random.permutation(jax.random.key(0), len(train)))
        kept = np.sort(order[: args.limit])
        train, rows = take(train, kept), rows[kept]
    return train, test, rows, held


def _check_limit(limit: int, flag: str, source: ImageSource) -> int:
    if check_positive(limit, flag) > len(source):
        raise ValueError(f"{flag}: expected at most the {len(source)} images, found {limit}")
    return limit


def _digits() -> tuple[ImageSource, ImageSource]:
    found = load_digits()

    def source(images: np.ndarray, labels: np.ndarray) -> ImageSource:
        grey = np.round(images * 255).astype(np.uint8)[..., None]
        return from_arrays(np.repeat(grey, 3, axis=3), labels, [str(i) for i in range(10)])

    return source(found.pool, found.pool_labels), source(found.test, found.test_labels)


def _count_classes(train: ImageSource, test: ImageSource | None) -> int | None:
    if train.labels is None:
        return None
    if train.class_names is not None:
        names = train.class_names
        if test is not None and test.class_names not in (None, names):
            raise ValueError(f"test images: expected the classes {names}, found {test.class_names}")
        return len(names)
    largest = 0
    for flag, source in (("--labels", train), ("--test-labels", test)):
        if source is not None and source.labels is not None:
            largest = max(largest, int(source.labels.max()))
            most = max(_MOST_CLASSES, 10 * len(train))
            if largest >= most:
                raise ValueError(
                    f"{flag}: expected classes numbered from 0, found {largest}; of {len(train)} "
                    f"images {most} are the most"
                )
    return largest + 1


def _tell_classes(train: ImageSource, num_classes: int | None) -> None:
    """Print which classes there are, so that a folder of another layout is noticed."""
    if num_classes is None or train.labels is None:
        print("images without labels", flush=True)
        return
    names = train.class_names or ()
    shown = f": {', '.join(names[:_SHOWN_CLASSES])}" if names else ""
    shown += ", …" if len(names) > _SHOWN_CLASSES else ""
    found = len(np.unique(train.labels))
    lacking = "" if found == num_classes else f", {found} of them with images"
    if num_classes == 1:
        print(f"warning: one class only{shown}; a sub-folder is a class", flush=True)
    else:
        print(f"{num_classes} classes{lacking}{shown}", flush=True)
