"""Features that the command ntkcpl makes from images, where it is told of an encoder."""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.arguments import FILES
from benchmarks.data import ENCODERS as PREPARED
from benchmarks.extraction import extract
from benchmarks.image_encoders import LoadedEncoder, load_encoder
from benchmarks.images import Images, open_images
from benchmarks.presets import BUDGETS
from jaxal.checks import check_positive

__all__ = [
    "add_arguments",
    "features_of_images",
    "name_images",
    "open_named",
    "wants_images",
]

# What tensorflow-datasets calls the data sets of NTKCPL's tables.
_NAMES = {"svhn": "svhn_cropped", "pets": "oxford_iiit_pet"}
# What --dataset may say of a folder: no name, or that of a set tensorflow-datasets does not have.
_FOLDERS = (None, "custom", "imagenet100")
# What only other commands let one say of images.
_OTHERS = (
    "images", "labels", "test_images", "test_labels", "limit", "test_limit", "holdout",
)  # fmt: skip
_BATCH_SIZE = 256
_FLAGS = (
    "weights",
    "width",
    "size",
    "folder",
    "test_folder",
    "split",
    "test_split",
    "image_size",
    "batch_size",
    "cache",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags for images; ``--dataset`` and ``--encoder`` are declared elsewhere."""
    group = parser.add_argument_group(
        "from images",
        "With --encoder and one of the networks, features are made from the images of --dataset "
        "(digits, or tensorflow-datasets) or --folder, once, and kept in --cache; by default the "
        "results are in ./results/DATASET-ENCODER. Images in .npy files, and parts of a pool: by "
        "the command features, whose files --features and the like take.",
    )
    group.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="of the encoder: what pretrain wrote, or published ones",
    )
    group.add_argument(
        "--width", type=int, metavar="N", help="of the encoder, not its own or the weights'"
    )
    group.add_argument(
        "--size", type=int, metavar="PIXELS", help="its images' side, not its own or the weights'"
    )
    group.add_argument(
        "--folder", type=Path, metavar="DIR", help="images of the pool, a sub-folder a class"
    )
    group.add_argument("--test-folder", type=Path, metavar="DIR", help="likewise, of the test set")
    group.add_argument("--split", help="of the pool, in tensorflow-datasets (default train)")
    group.add_argument("--test-split", help="of the test set (default test)")
    group.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="to scale and cut images to; by default those of several sizes to the encoder's",
    )
    group.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"images at once (default {_BATCH_SIZE})",
    )
    group.add_argument(
        "--cache", type=Path, metavar="DIR", help="default ./results/features/DATASET-ENCODER"
    )


def wants_images(args: argparse.Namespace) -> bool:
    """Tell whether features have to be made from images.

    Raises:
      ValueError: a flag that is for images beside features, or the other way round.
    """
    encoder = getattr(args, "encoder", None)
    asked = bool(encoder) and encoder not in PREPARED
    for name in (*FILES, "num_classes") if asked else _FLAGS:
        found = getattr(args, name, None)
        if found is not None:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag}: expected none beside --encoder {encoder}, found {found}"
                if asked
                else f"{flag}: expected a network as --encoder, found {encoder}"
            )
    return asked


def name_images(args: argparse.Namespace) -> argparse.Namespace:
    """Name the images, the data set of their features and its budgets; open nothing yet.

    Raises:
      ValueError: no images are named, or two sets, or no budgets where there are none by default.
    """
    name = _name(args)
    if args.folder and args.dataset not in _FOLDERS:
        raise ValueError(
            f"--dataset: expected none beside --folder, or imagenet100, found {args.dataset}"
        )
    if args.batch_size is not None:
        check_positive(args.batch_size, "--batch-size")
    budgets = args.budgets or BUDGETS.get(args.dataset)
    if not budgets:
        raise ValueError(f"--budgets: expected some for {name}, which has none by default")
    # With files the digits are custom data: their own features are others.
    own = args.dataset in (None, "digits")
    folder = f"{name}-{args.encoder}"
    return _changed(
        args,
        dataset="custom" if own else args.dataset,
        budgets=budgets,
        batch_size=_BATCH_SIZE if args.batch_size is None else args.batch_size,
        cache=args.cache or Path("results/features") / folder,
        out=args.out or Path("results") / folder,
        images_of=name,
    )


def open_named(args: argparse.Namespace) -> tuple[Images, LoadedEncoder]:
    """Open the images and the encoder that `name_images` named.

    Raises:
      ValueError: images or weights that are not there, do not fit, or have no labels.
    """
    name = args.images_of
    dataset = None if args.folder else _NAMES.get(name, name)
    images = open_images(_changed(args, **dict.fromkeys(_OTHERS), dataset=dataset))
    if images.train.labels is None or images.test is None or images.test.labels is None:
        raise ValueError(f"{name}: expected images of known class, and a test set of such")
    encoder = load_encoder(args)
    if encoder.about["weights"] is None:
        raise ValueError(
            f"--weights: expected those of {encoder.name}, whose random ones tell nothing"
        )
    return images, encoder


def features_of_images(
    args: argparse.Namespace, images: Images, encoder: LoadedEncoder
) -> argparse.Namespace:
    """Make features, or find them, and name their files as if they had been given."""
    out, began = args.cache, time.perf_counter()
    extract(images, encoder, out, batch_size=args.batch_size)
    print(f"features in {out} after {time.perf_counter() - began:.0f} s", flush=True)
    files = {
        f"{prefix}{kind}": out / f"{split}{suffix}.npy"
        for prefix, split in (("", "train"), ("test_", "test"))
        for kind, suffix in (("features", ""), ("labels", "_labels"))
    }
    title = f"{args.images_of}, {encoder.name} ({encoder.about['weights']})"
    return _changed(args, **files, encoder=None, num_classes=images.num_classes, title=title)


def _name(args: argparse.Namespace) -> str:
    if args.folder and args.dataset in (None, "custom"):
        return str(args.folder.name)
    if not args.dataset:
        raise ValueError("--encoder: expected --dataset or --folder beside it, found none")
    return str(args.dataset)


def _changed(args: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(args), **changes})
