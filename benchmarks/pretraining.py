"""Pre-train an encoder without labels: the command pretrain."""

import argparse
import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.agreement import judge_features
from benchmarks.folder import check_folder, make_folder
from benchmarks.image_encoders import (
    LoadedEncoder,
    add_encoder,
    encode_array,
    find_mesh,
    load_encoder,
)
from benchmarks.image_figures import draw_history, draw_map
from benchmarks.images import Images, add_images, draw_rows, open_images
from benchmarks.measuring import describe_device
from benchmarks.outcomes import describe_time, quieten, require, stop
from benchmarks.tables import markdown, write_csv
from jaxal.augment import (
    Pipeline,
    color_jitter,
    compose,
    random_resized_crop,
    simclr_view,
    simsiam_view,
)
from jaxal.checks import check_number, check_positive
from jaxal.data import ImageSource
from jaxal.models.preprocess import Preprocessing, preprocess
from jaxal.models.saved import load_variables, save_variables
from jaxal.train.checkpoints import latest_step
from jaxal.train.pretrain import (
    SIMCLR_CIFAR10,
    SIMCLR_SMALL,
    SIMSIAM_CIFAR10,
    SIMSIAM_IMAGENET,
    SIMSIAM_SMALL,
    PretrainConfig,
    check_pretrain,
    pretrain,
)

__all__ = ["HELP", "add_arguments", "main", "pretrain_small"]

HELP = """\
Pre-train an encoder on images without labels, by SimSiam or SimCLR, on all devices there are.

Where the data have labels, an epoch's encoder is judged by a vote of nearest neighbours and a
linear head, on images that it was not trained on. The labels teach it nothing.

Writes encoder.npz, for --weights of the other commands, history.csv, report.md, curves.png and
features.png to --out. Each epoch is saved, encoder.npz too, and --resume goes on."""

_SCALES: dict[str, dict[str, PretrainConfig]] = {
    "simsiam": {"small": SIMSIAM_SMALL, "paper": SIMSIAM_CIFAR10, "imagenet": SIMSIAM_IMAGENET},
    "simclr": {"small": SIMCLR_SMALL, "paper": SIMCLR_CIFAR10},
}
# What is judged: images are enough for accuracies to one percent.
_KNOWN, _QUERIES = 5_000, 2_000
_MAPPED = 2_000
_MEMORY = 2 * 10**9  # bytes of images that are kept in memory
_FEW_EPOCHS = 10
# Where an epoch has more steps, a few are timed first: they have to be compiled once more.
_MANY_STEPS = 50
_CHECKPOINT = "checkpoint"
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
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="in place of the scale's, which is lowered to the number of images",
    )
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
    quieten()
    config = _config(args)
    check_pretrain(config)
    check_positive(args.monitor_every, "--monitor-every")
    check_folder(args.out, (*_OWN, _CHECKPOINT))
    images = open_images(args)
    side = images.train.load(np.zeros(1, np.int64)).shape[1]
    config = _fit_batch(config, len(images.train), given=args.batch_size is not None)
    encoder = load_encoder(args, seed=args.seed)
    checkpoint = open_output(args.out, _OWN, resume=args.resume, overwrite=args.overwrite)
    if args.resume:
        done = latest_step(checkpoint)
        print(f"goes on after epoch {done}" if done else f"{args.out}: holds nothing to go on with")
    judge = _find_judge(images)
    if judge is None and images.num_classes is not None:
        print("not judged, as no test set has labels; --holdout N keeps some images for it")
    view, prepare = _make_view(args.method, images.name, encoder.preprocessing, side)
    pixels = _load_small(images.train)
    train = functools.partial(
        pretrain,
        jax.random.key(args.seed),
        encoder.module,
        view=view,
        prepare=prepare,
        variables=encoder.variables if args.weights else None,
        mesh=find_mesh(),
    )
    print(
        f"{config.method} of {encoder.name} on {len(images.train)} images of {images.name}, "
        f"{config.epochs} epochs of batches of {config.train_batch_size}; {describe_device()}",
        flush=True,
    )
    about = {**encoder.about, "images": images.train.describe(), "config": config._asdict()}
    about |= {"seed": args.seed, "sha256": None, "weights": str(args.weights or "")}
    try:
        many = len(images.train) > _MANY_STEPS * config.train_batch_size
        if many and not checkpoint.exists():
            _time_steps(train, images.train, config)
        found = train(
            pixels,
            config=config,
            monitor=_make_monitor(args, config.epochs, encoder, judge, about, checkpoint),
            checkpoint=checkpoint,
            on_epoch=_reporter(config.epochs),
        )
    except KeyboardInterrupt:
        return stop(args.out)
    save_variables(args.out / "encoder.npz", found.variables, about | {"epochs": config.epochs})
    _report(args, images, config, encoder._replace(variables=found.variables), found.history, judge)
    return 0


def pretrain_small(encoder: LoadedEncoder, images: Images, path: Path) -> dict[str, Any]:
    """Pre-train a small encoder by SimSiam for a few epochs, or read what was written before.

    Args:
      encoder: with its first weights.
      images: whose pool is trained on.
      path: the file to keep the variables in.

    Returns:
      The encoder's variables.
    """
    if path.exists():
        return load_variables(path)[0]
    side = images.train.load(np.zeros(1, np.int64)).shape[1]
    view, prepare = _make_view("simsiam", images.name, encoder.preprocessing, side)
    batch_size = min(SIMSIAM_SMALL.train_batch_size, len(images.train))
    found = pretrain(
        jax.random.key(0),
        encoder.module,
        _load_small(images.train),
        view=view,
        prepare=prepare,
        config=SIMSIAM_SMALL._replace(epochs=_FEW_EPOCHS, train_batch_size=batch_size),
        mesh=find_mesh(),
    )
    save_variables(path, found.variables, encoder.about)
    return found.variables


def open_output(out: Path, own: tuple[str, ...], *, resume: bool, overwrite: bool) -> Path:
    """Make a folder ready, or refuse it; return where checkpoints go.

    Raises:
      ValueError: it holds results that may not be touched.
    """
    import shutil

    checkpoint = out / _CHECKPOINT
    if overwrite:
        for name in own:
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(checkpoint, ignore_errors=True)
    elif not resume and (checkpoint.exists() or any((out / name).exists() for name in own)):
        raise ValueError(f"{out}: holds results; pass --resume to go on with them, or --overwrite")
    make_folder(out)
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
        check_number(args.learning_rate, "--learning-rate", least=0, above=True)
        rate = config.optimizer._replace(learning_rate=args.learning_rate)
        config = config._replace(optimizer=rate)
    return config._replace(dtype=args.dtype)


def _fit_batch(config: PretrainConfig, num_images: int, *, given: bool) -> PretrainConfig:
    """Lower a scale's batch to the images there are; refuse one that was asked for."""
    if config.train_batch_size <= num_images:
        return config
    if given:
        raise ValueError(
            f"--batch-size: expected at most the {num_images} images there are, "
            f"found {config.train_batch_size}"
        )
    print(f"batches of all {num_images} images, not of {config.train_batch_size}", flush=True)
    return config._replace(train_batch_size=num_images)


def _make_view(
    method: str, dataset: str, preprocessing: Preprocessing, side: int
) -> tuple[Pipeline, Callable[[jax.Array], jax.Array]]:
    """Make the augmentation, which crops to the encoder's size, and the rest of the way."""
    size = preprocessing.size or side
    if dataset == "digits":
        # Ours: a mirrored digit is another sign, and there are no colours to change.
        view = compose(
            functools.partial(random_resized_crop, size=size, area=(0.4, 1.0)),
            functools.partial(color_jitter, saturation=0.0, hue=0.0),
        )
    elif method == "simsiam":
        view = simsiam_view(size)
    else:
        # Both of its scales are for small images, whose colours the paper changes half as much.
        view = simclr_view(size, strength=0.5)
    return view, functools.partial(preprocess, preprocessing=preprocessing)


def _load_small(source: ImageSource) -> ImageSource | np.ndarray:
    """Load images that memory has room for; others are loaded batch by batch."""
    if len(source) * source.load(np.zeros(1, np.int64)).nbytes > _MEMORY:
        return source
    return source.load(np.arange(len(source)))


def _time_steps(train: Callable[..., Any], source: ImageSource, config: PretrainConfig) -> None:
    """Train on one batch for some steps, and say how long all epochs will take."""
    batch = source.load(np.arange(config.train_batch_size))
    few = config._replace(epochs=4, schedule=config.schedule._replace(warmup_epochs=0.0))
    times: list[float] = []
    train(batch, config=few, on_epoch=lambda record: times.append(time.perf_counter()))
    seconds = float(np.diff(times).min())
    steps = config.epochs * -(-len(source) // config.train_batch_size)
    print(
        f"{describe_time(steps * seconds)} for {steps} steps of {seconds:.3g} s, without loading "
        "and judging",
        flush=True,
    )


def _find_judge(images: Images) -> _Judge | None:
    """Take images of known class, if there are any."""
    train, test = images.train, images.test
    if images.num_classes is None or train.labels is None:
        return None
    if test is None or test.labels is None:
        return None
    known, queries = draw_rows(len(train), _KNOWN), draw_rows(len(test), _QUERIES)
    return _Judge(
        train.load(known),
        train.labels[known],
        test.load(queries),
        test.labels[queries],
        images.num_classes,
    )


def _make_monitor(
    args: argparse.Namespace,
    epochs: int,
    encoder: LoadedEncoder,
    judge: _Judge | None,
    about: dict[str, Any],
    checkpoint: Path,
) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Keep the weights after every epoch, and judge those after some."""
    done = itertools.count((latest_step(checkpoint) or 0) + 1)

    def monitor(variables: dict[str, Any]) -> dict[str, float]:
        epoch = next(done)
        save_variables(args.out / "encoder.npz", variables, about | {"epochs": epoch})
        asked = (epoch - 1) % args.monitor_every == 0 or epoch == epochs
        return {} if judge is None or not asked else _judged(encoder, judge, variables)

    return monitor


def _judged(encoder: LoadedEncoder, judge: _Judge, variables: dict[str, Any]) -> dict[str, float]:
    trained = encoder._replace(variables=variables)
    known, queries = (encode_array(trained, x) for x in (judge.known, judge.queries))
    return judge_features(known, judge.labels, queries, judge.query_labels, judge.num_classes)


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
        [
            {**{name: record.get(name) for name in names}, "epoch": record["epoch"] + 1}
            for record in history
        ],
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
    rows = draw_rows(len(source), _MAPPED)
    features = encode_array(encoder, source.load(rows))
    labels = None if source.labels is None else source.labels[rows]
    draw_map(features, labels, args.out / "features.png", source.class_names)
    print(f"\n{text}\n\nresults in {args.out}")
