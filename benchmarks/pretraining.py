"""Pre-train an encoder without labels: the command pretrain."""

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.image_figures import draw_history, draw_map
from benchmarks.images import (
    Images,
    LoadedEncoder,
    add_encoder,
    add_images,
    encode,
    load_encoder,
    open_images,
)
from benchmarks.measuring import describe_device
from benchmarks.outcomes import require, stop
from benchmarks.tables import markdown, write_csv
from jaxal.augment import (
    Pipeline,
    color_jitter,
    compose,
    random_resized_crop,
    simclr_view,
    simsiam_view,
)
from jaxal.checks import check_positive
from jaxal.chunking import map_rows
from jaxal.data import ImageSource
from jaxal.models.preprocess import Preprocessing, preprocess
from jaxal.models.saved import save_variables
from jaxal.sharding import data_mesh
from jaxal.train.pretrain import (
    SIMCLR_CIFAR10,
    SIMCLR_SMALL,
    SIMSIAM_CIFAR10,
    SIMSIAM_IMAGENET,
    SIMSIAM_SMALL,
    PretrainConfig,
    pretrain,
)
from jaxal.train.probes import knn_accuracy, linear_accuracy

__all__ = ["HELP", "add_arguments", "main"]

HELP = """\
Pre-train an encoder on images without labels, by SimSiam or SimCLR, on all devices there are.

Where the data have labels, an epoch's encoder is judged by a vote of nearest neighbours and a
linear head, on images that it was not trained on. The labels teach it nothing.

Writes encoder.npz, for --weights of the other commands, history.csv, report.md, curves.png and
features.png to --out. Each epoch is saved, and --resume goes on."""

_SCALES: dict[str, dict[str, PretrainConfig]] = {
    "simsiam": {"small": SIMSIAM_SMALL, "paper": SIMSIAM_CIFAR10, "imagenet": SIMSIAM_IMAGENET},
    "simclr": {"small": SIMCLR_SMALL, "paper": SIMCLR_CIFAR10},
}
# What is judged: images are enough for accuracies to one percent.
_KNOWN, _QUERIES = 5_000, 2_000
_MAPPED = 2_000
_CHUNK = 256
_OWN = ("encoder.npz", "history.csv", "report.md", "curves.png", "features.png")


class _Judge(NamedTuple):
    """Images of known class, and others to be told apart."""

    known: np.ndarray  # uint8 [n, h, w, c]
    labels: np.ndarray
    queries: np.ndarray
    query_labels: np.ndarray
    num_classes: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line options."""
    add_images(parser)
    add_encoder(parser)
    parser.add_argument("--method", choices=list(_SCALES), default="simsiam")
    parser.add_argument(
        "--scale",
        choices=("small", "paper", "imagenet"),
        default="small",
        help="small: minutes on a CPU; paper: as published for CIFAR-10, imagenet: for ImageNet "
        "(simsiam), both for accelerators (default small)",
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="in place of the scale's")
    parser.add_argument("--batch-size", type=int, metavar="N", help="in place of the scale's")
    parser.add_argument(
        "--learning-rate",
        type=float,
        metavar="RATE",
        help="for 256 images, in place of the scale's",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="to compute in")
    parser.add_argument(
        "--monitor-every", type=int, default=1, metavar="N", help="epochs between judgements"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/pretrain"), metavar="DIR")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what --out holds")
    again.add_argument("--overwrite", action="store_true", help="remove earlier results in --out")


def main(args: argparse.Namespace) -> int:
    """Pre-train, report; return the exit status."""
    require("matplotlib", "sklearn")
    config = _config(args)
    images = open_images(args)
    sample = images.train.load(np.zeros(1, np.int64))
    encoder = load_encoder(args, sample.shape[3], seed=args.seed)
    if config.train_batch_size > len(images.train):
        raise ValueError(
            f"--batch-size: expected at most the {len(images.train)} images there are, "
            f"found {config.train_batch_size}"
        )
    checkpoint = open_output(args.out, _OWN, resume=args.resume, overwrite=args.overwrite)
    judge = _find_judge(images)
    view, prepare = _make_view(args, images, encoder.preprocessing, sample.shape[1])
    print(
        f"{config.method} of {encoder.name} on {len(images.train)} images of {images.name}, "
        f"{config.epochs} epochs of batches of {config.train_batch_size}; {describe_device()}",
        flush=True,
    )
    try:
        found = pretrain(
            jax.random.key(args.seed),
            encoder.module,
            images.train if len(images.train) > 200_000 else _load_all(images.train),
            config=config,
            view=view,
            prepare=prepare,
            variables=encoder.variables if args.weights else None,
            mesh=data_mesh() if jax.device_count() > 1 else None,
            monitor=judge and functools.partial(_judged, encoder, judge),
            monitor_every=args.monitor_every,
            checkpoint=checkpoint,
            on_epoch=_reporter(config.epochs),
        )
    except KeyboardInterrupt:
        return stop(args.out)
    about = {**encoder.about, "images": images.train.describe(), "config": config._asdict()}
    about |= {"seed": args.seed, "sha256": None, "weights": str(args.weights or "")}
    save_variables(args.out / "encoder.npz", found.variables, about)
    _report(args, images, config, encoder._replace(variables=found.variables), found.history, judge)
    return 0


def open_output(out: Path, own: tuple[str, ...], *, resume: bool, overwrite: bool) -> Path:
    """Make a folder ready, or refuse it; return where checkpoints go.

    Raises:
      ValueError: it holds results that may not be touched, or is a file.
    """
    import shutil

    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: expected a folder, found the file {out}")
    checkpoint = out / "checkpoint"
    if overwrite:
        for name in own:
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(checkpoint, ignore_errors=True)
    elif not resume and (checkpoint.exists() or any((out / name).exists() for name in own)):
        raise ValueError(f"{out}: holds results; pass --resume to go on with them, or --overwrite")
    out.mkdir(parents=True, exist_ok=True)
    return checkpoint


def _config(args: argparse.Namespace) -> PretrainConfig:
    if args.scale not in _SCALES[args.method]:
        raise ValueError(f"--scale: expected small or paper for {args.method}, found {args.scale}")
    config = _SCALES[args.method][args.scale]
    if args.epochs is not None:
        config = config._replace(epochs=check_positive(args.epochs, "--epochs"))
        if config.schedule.warmup_epochs >= config.epochs:
            config = config._replace(schedule=config.schedule._replace(warmup_epochs=0.0))
    if args.batch_size is not None:
        config = config._replace(train_batch_size=check_positive(args.batch_size, "--batch-size"))
    if args.learning_rate is not None:
        rate = config.optimizer._replace(learning_rate=args.learning_rate)
        config = config._replace(optimizer=rate)
    return config._replace(dtype=args.dtype)


def _make_view(
    args: argparse.Namespace, images: Images, preprocessing: Preprocessing, side: int
) -> tuple[Pipeline, Callable[[jax.Array], jax.Array]]:
    """Make the augmentation, which crops to the encoder's size, and the rest of the way."""
    size = preprocessing.size or side
    if images.name == "digits":
        # Ours: a mirrored digit is another sign, and there are no colours to change.
        view = compose(
            functools.partial(random_resized_crop, size=size, area=(0.4, 1.0)),
            functools.partial(color_jitter, saturation=0.0, hue=0.0),
        )
    else:
        view = (simsiam_view if args.method == "simsiam" else simclr_view)(size)
    return view, functools.partial(preprocess, preprocessing=preprocessing)


def _load_all(source: ImageSource) -> np.ndarray:
    return source.load(np.arange(len(source)))


def _find_judge(images: Images) -> _Judge | None:
    """Take images of known class, if there are any."""
    train, test = images.train, images.test
    if images.num_classes is None or train.labels is None:
        return None
    rng = np.random.default_rng(0)
    known = np.sort(rng.permutation(len(train))[:_KNOWN])
    if test is None or test.labels is None:
        return None
    queries = np.sort(rng.permutation(len(test))[:_QUERIES])
    return _Judge(
        train.load(known),
        train.labels[known],
        test.load(queries),
        test.labels[queries],
        images.num_classes,
    )


def _judged(encoder: LoadedEncoder, judge: _Judge, variables: dict[str, Any]) -> dict[str, float]:
    apply = encode(encoder._replace(variables=variables))
    known, queries = (
        np.asarray(map_rows(apply, x, chunk_size=_CHUNK)) for x in (judge.known, judge.queries)
    )
    given = known, judge.labels, queries, judge.query_labels, judge.num_classes
    return {
        "knn_accuracy": knn_accuracy(*given),
        "linear_accuracy": linear_accuracy(jax.random.key(0), *given),
    }


def _reporter(epochs: int) -> Callable[[dict[str, Any]], None]:
    """Print each epoch, and how long the others will take."""
    times = [time.perf_counter()]

    def report(record: dict[str, Any]) -> None:
        times.append(time.perf_counter())
        left = (times[-1] - times[0]) / (len(times) - 1) * (epochs - 1 - record["epoch"])
        judged = "".join(
            f", {name.removesuffix('_accuracy')} {100 * record[name]:.1f} %"
            for name in ("knn_accuracy", "linear_accuracy")
            if name in record
        )
        print(
            f"[{record['epoch'] + 1}/{epochs}, about {left:.0f} s left] loss {record['loss']:.3f}, "
            f"spread {record['spread']:.2f}{judged}",
            flush=True,
        )

    return report


def _report(
    args: argparse.Namespace,
    images: Images,
    config: PretrainConfig,
    encoder: LoadedEncoder,
    history: tuple[dict[str, Any], ...],
    judge: _Judge | None,
) -> None:
    names = list(dict.fromkeys(name for record in history for name in record))
    write_csv(
        [{name: record.get(name) for name in names} for record in history],
        args.out / "history.csv",
    )
    shown = [record for record in history if len(history) <= 20 or "knn_accuracy" in record]
    cells = [
        [
            str(record["epoch"] + 1),
            *("" if name not in record else f"{record[name]:.3f}" for name in names[1:]),
        ]
        for record in shown
    ]
    text = "\n\n".join(
        [
            f"# {config.method} of {encoder.name} on {images.name}",
            f"{len(images.train)} images without labels; accuracies are shares of "
            f"{len(judge.queries)} {images.tested}, by {len(judge.known)} of known class."
            if judge
            else f"{len(images.train)} images without labels.",
            markdown([["epoch", *names[1:]], *cells]),
            f"Configuration {config._asdict()}; encoder {encoder.about}; seed {args.seed}; "
            f"device {describe_device()}.",
        ]
    )
    (args.out / "report.md").write_text(text + "\n", encoding="utf-8")
    draw_history(history, args.out / "curves.png", f"{config.method} on {images.name}")
    source = images.test if images.test is not None else images.train
    rows = np.arange(min(_MAPPED, len(source)))
    features = np.asarray(map_rows(encode(encoder), source.load(rows), chunk_size=_CHUNK))
    labels = None if source.labels is None else source.labels[rows]
    draw_map(features, labels, args.out / "features.png", source.class_names)
    print(f"\n{text}\n\nresults in {args.out}")
