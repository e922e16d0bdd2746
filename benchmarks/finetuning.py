"""Fine-tune an encoder on few labels: the command finetune."""

import argparse
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from benchmarks.image_encoders import (
    LoadedEncoder,
    add_encoder,
    encoder_settings,
    load_encoder,
)
from benchmarks.image_figures import draw_accuracies, draw_history
from benchmarks.images import Images, add_images, open_images
from benchmarks.measuring import describe_device
from benchmarks.outcomes import require, stop
from benchmarks.tables import markdown, write_csv
from jaxal.augment import Pipeline, pad_and_crop, weak
from jaxal.checks import check_positive
from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.models.preprocess import preprocess
from jaxal.records import describe
from jaxal.sharding import data_mesh
from jaxal.train.evaluate import evaluate, make_apply
from jaxal.train.finetune import finetune, lp_ft
from jaxal.train.recipes import (
    FT_CIFAR10,
    FT_IMAGENET,
    FT_SMALL,
    LPFT_CIFAR10,
    LPFT_IMAGENET,
    LPFT_SMALL,
    FinetuneConfig,
    LpftConfig,
)

__all__ = ["HELP", "METHODS", "add_arguments", "main"]

HELP = """\
Train a pre-trained encoder on random labelled images: a linear probe on the frozen encoder (lp),
fine-tuning of everything (ft), and the probe and then fine-tuning (lpft), for several numbers of
labels and seeds, on all devices there are. All methods of a seed see the same labels.

Writes results.csv after every run, and table.md, accuracy.png and curves.png (of the last run) to
--out. --resume runs what is not there yet."""

METHODS = ("lp", "ft", "lpft")
_SCALES: dict[str, tuple[FinetuneConfig, LpftConfig]] = {
    "small": (FT_SMALL, LPFT_SMALL),
    "cifar10": (FT_CIFAR10, LPFT_CIFAR10),
    "imagenet": (FT_IMAGENET, LPFT_IMAGENET),
}
# What the command line may change in the configurations.
_CHANGES = ("epochs", "learning_rate", "head_learning_rate", "statistics", "dtype")
_SETTINGS, _RESULTS = "settings.json", "results.csv"
_OWN = (_SETTINGS, _RESULTS, "runs.json", "table.md", "accuracy.png", "curves.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line options."""
    add_images(parser)
    add_encoder(parser)
    parser.add_argument(
        "--num-labels", type=int, nargs="+", default=[100], metavar="N", help="default 100"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--scale",
        choices=list(_SCALES),
        default="small",
        help="epochs, batches and rates: ours for small networks (small), or those of the ASVP "
        "paper for a ResNet-50 (cifar10, imagenet) (default small)",
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="of each stage, not the scale's")
    parser.add_argument(
        "--learning-rate", type=float, metavar="RATE", help="of the encoder, not the scale's"
    )
    parser.add_argument(
        "--head-learning-rate", type=float, metavar="RATE", help="of the head, not the scale's"
    )
    parser.add_argument(
        "--statistics",
        choices=("trained", "frozen"),
        help="whether batch normalisation learns from the few labelled images, or keeps the "
        "encoder's statistics; not the scale's",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="to compute in")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default 3)")
    parser.add_argument("--out", type=Path, default=Path("results/finetune"), metavar="DIR")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="keep the runs that --out holds")
    again.add_argument("--overwrite", action="store_true", help="remove earlier results in --out")


def main(args: argparse.Namespace) -> int:
    """Train, report; return the exit status."""
    require("matplotlib")
    images = open_images(args)
    labels = _check(args, images)
    encoder = load_encoder(args)
    runs = _open(args, images, encoder)
    wanted = [
        (method, count, seed)
        for seed in range(args.seeds)
        for count in args.num_labels
        for method in args.methods
    ]
    began, done = time.perf_counter(), 0
    history: Sequence[dict[str, Any]] = ()
    left = [run for run in wanted if run not in {_key(row) for row in runs}]
    print(f"{len(left)} runs of {encoder.name} on {describe_device()}", flush=True)
    try:
        for run in left:
            row, history = _run(args, images, encoder, labels, *run)
            runs.append(row)
            _save(args.out, runs)
            done += 1
            seconds = (time.perf_counter() - began) / done * (len(left) - done)
            print(
                f"[{done}/{len(left)}, about {seconds:.0f} s left] {run[0]}, {run[1]} labels, "
                f"seed {run[2]}: {100 * row['accuracy']:.1f} %, {row['seconds']:.0f} s",
                flush=True,
            )
    except KeyboardInterrupt:
        return stop(args.out)
    _report(args, images, encoder, [row for row in runs if _key(row) in wanted], history)
    return 0


def _check(args: argparse.Namespace, images: Images) -> np.ndarray:
    """Check options against the images before anything is trained; return the pool's labels."""
    if images.train.labels is None or images.num_classes is None:
        raise ValueError("images: expected labels of the pool, to draw what is paid for from")
    if images.test is None or images.test.labels is None:
        raise ValueError("images: expected a test set with labels")
    check_positive(args.seeds, "--seeds")
    if args.epochs is not None:
        check_positive(args.epochs, "--epochs")
    for count in args.num_labels:
        if check_positive(count, "--num-labels") > len(images.train):
            raise ValueError(
                f"--num-labels: expected at most the {len(images.train)} images of the pool, "
                f"found {count}"
            )
    labels: np.ndarray = images.train.labels
    return labels


def _open(args: argparse.Namespace, images: Images, encoder: LoadedEncoder) -> list[dict[str, Any]]:
    """Make the folder ready and read the runs that it holds."""
    settings = describe(
        {
            "images": images.train.describe(),
            "test": images.test.describe() if images.test is not None else None,
            "encoder": encoder_settings(encoder),
            "scale": args.scale,
            **{name: getattr(args, name) for name in _CHANGES},
        }
    )
    out = args.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: expected a folder, found the file {out}")
    if args.overwrite:
        for name in _OWN:
            (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / _SETTINGS).exists():
        if any((out / name).exists() for name in _OWN):
            raise ValueError(f"{out}: holds other results; choose another --out, or --overwrite")
        (out / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return []
    if not args.resume:
        raise ValueError(f"{out}: holds results; pass --resume to add to them, or --overwrite")
    found = json.loads((out / _SETTINGS).read_text(encoding="utf-8"))
    differing = [name for name in settings if found.get(name) != settings[name]]
    if differing:
        raise ValueError(
            f"{out}: holds results of other settings ({', '.join(differing)}); choose another "
            "--out, or pass --overwrite"
        )
    path = out / "runs.json"
    rows: list[dict[str, Any]] = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    )
    return rows


def _key(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["method"], row["num_labels"], row["seed"]


def _save(out: Path, runs: list[dict[str, Any]]) -> None:
    temporary = out / ".runs.json.tmp"
    temporary.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out / "runs.json")
    write_csv(runs, out / _RESULTS)


@functools.lru_cache(maxsize=8)
def _prepare(preprocessing: Any) -> Any:
    """Bind the preprocessing; the same function each time, so that programs are shared."""
    return functools.partial(preprocess, preprocessing=preprocessing)


@functools.lru_cache(maxsize=8)
def _augment(name: str, padding: int) -> Pipeline:
    if name == "digits":
        # A mirrored digit is another sign.
        return functools.partial(pad_and_crop, padding=padding, mode="zero")
    return weak(padding=padding)


def _run(
    args: argparse.Namespace,
    images: Images,
    encoder: LoadedEncoder,
    labels: np.ndarray,
    method: str,
    count: int,
    seed: int,
) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    """Train one classifier and test it."""
    began = time.perf_counter()
    rows = np.sort(np.random.default_rng([seed, count]).permutation(len(labels))[:count])
    pixels = images.train.load(rows)
    num_classes = images.num_classes or 1
    classifier = Classifier(encoder.module, DenseHead((), num_classes))
    variables = _with_head(classifier, encoder, seed)
    options = {
        "prepare": _prepare(encoder.preprocessing),
        "mesh": data_mesh() if jax.device_count() > 1 else None,
    }
    given = jax.random.key(seed), classifier, variables, pixels, labels[rows]
    single, both = _configs(args, images.name, pixels.shape[1])
    if method == "lpft":
        stages: Sequence[Any] = lp_ft(*given, config=both, **options)
    else:
        config = both.probe if method == "lp" else single
        stages = [finetune(*given, config=config, **options)]
    trained = time.perf_counter()
    history = [record for stage in stages for record in stage.history]
    history = [{**record, "epoch": i} for i, record in enumerate(history)]
    apply = make_apply(classifier, stages[-1].variables, prepare=options["prepare"])
    assert images.test is not None
    found = evaluate(apply, images.test, images.test.labels, num_classes)
    row = {
        "method": method,
        "num_labels": count,
        "seed": seed,
        "accuracy": found.accuracy,
        "calibration_error": found.calibration_error,
        "loss": found.loss,
        "train_accuracy": history[-1]["accuracy"],
        "seconds": trained - began,
        "classes_labelled": len(np.unique(labels[rows])),
    }
    return row, history


def _configs(
    args: argparse.Namespace, dataset: str, side: int
) -> tuple[FinetuneConfig, LpftConfig]:
    augment = _augment("digits" if dataset == "digits" else "weak", max(1, side // 8))

    def changed(config: FinetuneConfig) -> FinetuneConfig:
        config = config._replace(augment=augment, dtype=args.dtype)
        if args.learning_rate is not None and config.encoder is not None:
            encoder = config.encoder._replace(learning_rate=args.learning_rate)
            config = config._replace(encoder=encoder)
        if args.head_learning_rate is not None:
            head = config.head._replace(learning_rate=args.head_learning_rate)
            config = config._replace(head=head)
        if args.statistics is not None:
            config = config._replace(freeze_stats=args.statistics == "frozen")
        if args.epochs is None:
            return config
        schedule = config.schedule
        milestones = tuple(
            max(1, round(m * args.epochs / config.epochs)) for m in schedule.milestones
        )
        schedule = schedule._replace(
            milestones=tuple(sorted(set(milestones))),
            warmup_epochs=min(schedule.warmup_epochs, args.epochs / 4),
        )
        return config._replace(epochs=args.epochs, schedule=schedule)

    single, both = _SCALES[args.scale]
    return changed(single), LpftConfig(*map(changed, both))


def _with_head(classifier: nn.Module, encoder: LoadedEncoder, seed: int) -> dict[str, Any]:
    """Draw a head for the encoder's weights."""
    side = encoder.preprocessing.size or 32
    image = np.zeros((1, side, side, len(encoder.preprocessing.mean)), np.float32)
    drawn = jax.jit(classifier.init)(jax.random.key(seed), image)
    variables = {name: dict(tree) for name, tree in drawn.items()}
    for name, tree in encoder.variables.items():
        variables[name]["encoder"] = tree
    return variables


def _report(
    args: argparse.Namespace,
    images: Images,
    encoder: LoadedEncoder,
    runs: list[dict[str, Any]],
    history: Sequence[dict[str, Any]],
) -> None:
    values: dict[str, dict[int, np.ndarray]] = {
        method: {
            count: np.array(
                [r["accuracy"] for r in runs if _key(r)[:2] == (method, count)], np.float64
            )
            for count in args.num_labels
        }
        for method in args.methods
    }
    means = {
        count: max(np.mean(points[count]) for points in values.values())
        for count in args.num_labels
    }
    lines = [["method", *(f"{count:,}" for count in args.num_labels), "seconds a training"]]
    for method, points in values.items():
        cells = []
        for count in args.num_labels:
            accuracies = 100 * points[count]
            text = f"{accuracies.mean():.1f}"
            if len(accuracies) > 1:
                text += f" ± {accuracies.std(ddof=1):.1f}"
            cells.append(f"**{text}**" if accuracies.mean() == 100 * means[count] else text)
        seconds = np.median([r["seconds"] for r in runs if r["method"] == method])
        lines.append([method, *cells, f"{seconds:.1f}"])
    single, both = _configs(args, images.name, 32)
    recipes = {"ft": single, "lpft": both}
    text = "\n\n".join(
        [
            f"# {encoder.name} on {images.name} from few labels",
            f"Accuracy in percent on {len(images.test or ())} {images.tested} by number of random "
            f"labels, mean ± sample standard deviation over {args.seeds} seeds; best mean bold.",
            markdown(lines),
            f"Seconds are the median, compilation included; device {describe_device()}.",
            f"Encoder {encoder_settings(encoder)}. Configurations, lp being the first stage of "
            f"lpft: {json.dumps(describe(recipes))}.",
        ]
    )
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    draw_accuracies(values, args.out / "accuracy.png", f"{encoder.name} on {images.name}")
    if history:
        draw_history(history, args.out / "curves.png", "the last run")
    print(f"\n{text}\n\nresults in {args.out}")
