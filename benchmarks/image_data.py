"""Features that the command ntkcpl makes from images, where it is told of an encoder."""

import argparse
import time
from pathlib import Path

from benchmarks.arguments import BUDGETS
from benchmarks.data import ENCODERS as PREPARED
from benchmarks.extraction import extract
from benchmarks.image_encoders import load_encoder
from benchmarks.images import open_images

__all__ = ["add_arguments", "features_of_images", "wants_images"]

# What tensorflow-datasets calls the data sets of NTKCPL's tables.
_NAMES = {"svhn": "svhn_cropped", "pets": "oxford_iiit_pet"}
_PLURAL = ("train", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags for images; ``--dataset`` and ``--encoder`` are declared elsewhere."""
    group = parser.add_argument_group(
        "from images",
        "With --encoder and one of the networks, features are made from the images of --dataset "
        "(tensorflow-datasets) or --folder, once, and kept in --cache.",
    )
    group.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="of the encoder: what pretrain wrote, or published ones",
    )
    group.add_argument("--width", type=int, metavar="N", help="of the encoder, not its own")
    group.add_argument("--size", type=int, metavar="PIXELS", help="its images' side, not its own")
    group.add_argument(
        "--folder", type=Path, metavar="DIR", help="images of the pool, a sub-folder a class"
    )
    group.add_argument("--test-folder", type=Path, metavar="DIR", help="likewise, of the test set")
    group.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="to scale images of several sizes to"
    )
    group.add_argument(
        "--cache", type=Path, metavar="DIR", help="default ./results/features/DATASET-ENCODER"
    )


def wants_images(args: argparse.Namespace) -> bool:
    """Tell whether features have to be made from images."""
    asked = getattr(args, "encoder", None) and args.encoder not in PREPARED
    if not asked:
        for name in ("weights", "width", "size", "folder", "test_folder", "image_size", "cache"):
            if getattr(args, name, None) is not None:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag}: expected a network as --encoder, found {args.encoder}")
    return bool(asked)


def features_of_images(args: argparse.Namespace) -> argparse.Namespace:
    """Make features from images, or find them, and name their files as if they had been given.

    Raises:
      ValueError: images or weights that are not there, do not fit, or have no labels.
    """
    name = args.dataset or (args.folder.name if args.folder else None)
    if name is None:
        raise ValueError("--encoder: expected --dataset or --folder beside it, found none")
    asked = argparse.Namespace(
        dataset=None if args.folder else _NAMES.get(name, name),
        data_dir=args.data_dir,
        split=None,
        test_split=None,
        folder=args.folder,
        test_folder=args.test_folder,
        images=None,
        labels=None,
        test_images=None,
        test_labels=None,
        image_size=args.image_size,
        limit=None,
        test_limit=None,
        holdout=None,
    )
    images = open_images(asked)
    if images.train.labels is None or images.test is None or images.test.labels is None:
        raise ValueError(f"{name}: expected images of known class, and a test set of such")
    encoder = load_encoder(args)
    if encoder.about["weights"] is None:
        raise ValueError(
            f"--weights: expected those of {encoder.name}, whose random ones tell nothing"
        )
    out = args.cache or Path("results/features") / f"{name}-{encoder.name}"
    began = time.perf_counter()
    extract(images, encoder, out)
    print(f"features in {out} after {time.perf_counter() - began:.0f} s", flush=True)
    files = {
        f"{prefix}{kind}": out / f"{split}{suffix}.npy"
        for prefix, split in zip(("", "test_"), _PLURAL, strict=True)
        for kind, suffix in (("features", ""), ("labels", "_labels"))
    }
    own = args.folder or name == "digits"
    budgets = BUDGETS["digits"] if name == "digits" else None
    return argparse.Namespace(
        **{
            **vars(args),
            **files,
            "dataset": "custom" if own else name,
            "budgets": args.budgets or budgets,
            "encoder": None,
            "num_classes": images.num_classes,
            "title": f"{name}, {encoder.name} ({encoder.about['weights']})",
        }
    )
