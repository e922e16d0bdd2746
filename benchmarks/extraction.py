"""Compute the features of images once: the command features."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.agreement import judge_features, linear_agreement
from benchmarks.data import load_array
from benchmarks.folder import check_folder, make_folder
from benchmarks.image_encoders import (
    LoadedEncoder,
    add_encoder,
    encode,
    encoder_settings,
    find_mesh,
    load_encoder,
)
from benchmarks.image_figures import draw_map
from benchmarks.images import Images, add_images, draw_rows, open_images
from benchmarks.measuring import describe_device
from benchmarks.origins import write_lines, write_origin
from benchmarks.outcomes import require, stop
from benchmarks.tables import markdown
from jaxal.checks import check_positive
from jaxal.data import ImageSource, extract_features
from jaxal.records import replacing

__all__ = ["HELP", "add_arguments", "extract", "main"]

HELP = """\
Compute the features of a pool and of its test set by an encoder, on all devices there are.

Writes train.npy and test.npy to --out, each with a .json that says what they are of, report.md and
features.png. Which image a row is of: train_files.txt has a folder's files, a line each;
train_rows.npy says, where --limit or --holdout chose, which of all images they are;
train_left_out.txt lists those that cannot be read. Where classes are known, train_labels.npy and
classes.txt (their names, a line each). Likewise of the test set.

An interrupted extraction goes on by the same command; features of another encoder, weights or
images are refused. The files serve `python -m benchmarks ntkcpl --features ...`."""

_JUDGED, _QUERIES, _MAPPED = 10_000, 5_000, 2_000
_OWN = (
    *(f"{split}{end}" for split in ("train", "test") for end in (".json", ".npy", ".partial.npy")),
    "report.md",
)
_EVERY = 2.0  # seconds between two reports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line options."""
    add_images(parser)
    add_encoder(parser)
    parser.add_argument(
        "--batch-size", type=int, default=256, metavar="N", help="images at once (default 256)"
    )
    parser.add_argument("--precision", choices=("float32", "float16"), default="float32")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE.npy",
        help="features [n, f] of the whole pool from elsewhere, such as those published with the "
        "encoder: reports how far they agree, and with --holdout how good they are",
    )
    parser.add_argument("--out", type=Path, default=Path("results/features"), metavar="DIR")


def main(args: argparse.Namespace) -> int:
    """Extract features and report; return the exit status."""
    require("matplotlib", "sklearn")
    check_positive(args.batch_size, "--batch-size")
    check_folder(args.out, _OWN)
    images = open_images(args)
    reference = None if args.against is None else _open_reference(args.against, images)
    encoder = load_encoder(args)
    print(f"{encoder.name} on {describe_device()}", flush=True)
    try:
        found = extract(images, encoder, args.out, batch_size=args.batch_size, dtype=args.precision)
    except KeyboardInterrupt:
        return stop(args.out, flag=None)
    _report(args, images, encoder, found, reference)
    return 0


def extract(
    images: Images,
    encoder: LoadedEncoder,
    out: Path,
    *,
    batch_size: int = 256,
    dtype: str = "float32",
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Compute or map the features of pool and test set, and write what their rows are.

    What an earlier run wrote of labels and rows is written anew.

    Returns:
      Features ``[n, f]`` and labels ``[n]`` or None, of "train" and, where it is there, "test".

    Raises:
      ValueError: files of another encoder or of other images, or of a test set that there is none
        of now, or bad images.
    """
    make_folder(out)
    if images.test is None and (out / "test.npy").exists():
        raise ValueError(
            f"{out}: holds features of a test set, and there is none now; choose another --out, or "
            "remove test.npy and test.json"
        )
    apply = encode(encoder)
    found: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    sources = (
        ("train", images.train, images.origin),
        ("test", images.test, images.test_origin),
    )
    for name, source, origin in sources:
        if source is None:
            continue
        features = extract_features(
            apply,
            source,
            out / f"{name}.npy",
            fingerprint=encoder_settings(encoder),
            chunk_size=batch_size,
            mesh=find_mesh(),
            dtype=dtype,
            progress=_reporter(name),
        )
        labels = out / f"{name}_labels.npy"
        if source.labels is None:
            labels.unlink(missing_ok=True)
        else:
            with replacing(labels) as file:
                np.save(file, source.labels)
        write_origin(out, name, origin)
        found[name] = features, source.labels
    write_lines(out / "classes.txt", images.train.class_names)
    return found


def _reporter(name: str) -> Callable[[int, int], None]:
    """Print every few seconds how many images are done, and how long the others will take."""
    first, began, last = 0, time.perf_counter(), 0.0

    def report(done: int, total: int) -> None:
        nonlocal first, began, last
        now = time.perf_counter()
        if not first:
            # What was there before, and the chunk that compiled.
            first, began = done, now
        if now - last < _EVERY and done < total:
            return
        last = now
        rate = (done - first) / max(now - began, 1e-9)
        left = f", {rate:.0f} a second, about {(total - done) / rate:.0f} s left" if rate else ""
        print(f"{name}: {done} of {total} images{left}", flush=True)

    return report


def _report(
    args: argparse.Namespace,
    images: Images,
    encoder: LoadedEncoder,
    found: dict[str, tuple[np.ndarray, np.ndarray | None]],
    reference: np.ndarray | None,
) -> None:
    lines = [["split", "images", "features", "mean norm"]]
    for name, (features, _) in found.items():
        norm = np.linalg.norm(np.asarray(features[:_JUDGED], np.float32), axis=1).mean()
        lines.append([name, str(len(features)), str(features.shape[1]), f"{norm:.3g}"])
    paragraphs = [f"# Features of {images.name} by {encoder.name}", markdown(lines)]
    paragraphs += [_judge(images, found)] if _can_judge(images) else []
    if reference is not None:
        paragraphs.append(_compare(args, images, found, reference))
    for split, origin in (("train", images.origin), ("test", images.test_origin)):
        if origin.left_out:
            paragraphs.append(
                f"{len(origin.left_out)} images cannot be read and are left out: "
                f"{split}_left_out.txt lists them."
            )
    paragraphs.append(f"Encoder {encoder_settings(encoder)}; device {describe_device()}.")
    text = "\n\n".join(paragraphs)
    (args.out / "report.md").write_text(text + "\n", encoding="utf-8")
    name = "test" if "test" in found else "train"
    features, labels = found[name]
    source: ImageSource | None = images.test if name == "test" else images.train
    rows = draw_rows(len(features), _MAPPED)
    draw_map(
        np.asarray(features[rows], np.float32),
        None if labels is None else labels[rows],
        args.out / "features.png",
        source.class_names if source is not None else None,
    )
    print(f"\n{text}\n\nresults in {args.out}")


def _judge(images: Images, found: dict[str, tuple[np.ndarray, np.ndarray | None]]) -> str:
    """Say how good the features are."""
    (x, y), (queries, wanted) = found["train"], found["test"]
    assert y is not None and wanted is not None and images.num_classes is not None
    rows, asked = draw_rows(len(x), _JUDGED), draw_rows(len(queries), _QUERIES)
    judged = judge_features(
        np.asarray(x[rows], np.float32),
        y[rows],
        np.asarray(queries[asked], np.float32),
        wanted[asked],
        images.num_classes,
    )
    return (
        f"Of {len(asked)} {images.tested}, by {len(rows)} of known class, a vote of the nearest "
        f"neighbours gets {100 * judged['knn_accuracy']:.1f} % right and a linear head "
        f"{100 * judged['linear_accuracy']:.1f} %."
    )


def _can_judge(images: Images) -> bool:
    labelled = images.test is not None and images.test.labels is not None
    return labelled and images.num_classes is not None


def _open_reference(path: Path, images: Images) -> np.ndarray:
    reference = load_array(path, mapped=True)
    least = 1 + max(int(rows.max()) for rows in (images.rows, images.held_rows) if rows is not None)
    if reference.ndim != 2 or len(reference) < least:
        raise ValueError(
            f"--against: expected features [n, f] of the whole pool, {least} rows or more, found "
            f"shape {reference.shape}"
        )
    return reference


def _compare(
    args: argparse.Namespace,
    images: Images,
    found: dict[str, tuple[np.ndarray, np.ndarray | None]],
    reference: np.ndarray,
) -> str:
    """Say how far the features agree with others of the same images."""
    others = np.asarray(reference[images.rows], np.float32)
    share = linear_agreement(np.asarray(found["train"][0], np.float32), others)
    text = (
        f"An affine map of them explains {100 * share:.2f} % of the variance of those in "
        f"{args.against.name} (fitted on three quarters of the pool's images, judged on the rest)."
    )
    if images.held_rows is None or not _can_judge(images):
        return text
    held = np.asarray(reference[images.held_rows], np.float32)
    given = {"train": (others, found["train"][1]), "test": (held, found["test"][1])}
    return f"{text} Those: {_judge(images, given)}"
