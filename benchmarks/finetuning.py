"""Fine-tune an encoder on few labels: the command finetune."""

import argparse
import contextlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.finetune_runs import (
    METHODS,
    SCALES,
    Task,
    estimate_work,
    make_configs,
    run_task,
    time_work,
)
from benchmarks.folder import check_folder, make_folder
from benchmarks.image_encoders import (
    add_encoder,
    encoder_settings,
    load_encoder,
)
from benchmarks.image_figures import draw_accuracies, draw_history
from benchmarks.images import Images, add_images, open_images
from benchmarks.measuring import describe_device
from benchmarks.outcomes import describe_time, quieten, require, stop
from benchmarks.tables import markdown, write_csv
from jaxal.checks import check_number, check_positive
from jaxal.records import describe, fingerprint
from jaxal.train.recipes import check_finetune

__all__ = ["HELP", "add_arguments", "describe_labels", "main"]

HELP = """\
Train a pre-trained encoder on random labelled images: a linear probe on the frozen encoder (lp),
fine-tuning of everything (ft), and the probe and then fine-tuning (lpft), for several numbers of
labels and seeds, on all devices there are. All methods of a seed see the same labels.

Writes results.csv after every run, and table.md, accuracy.png and curves.png (of the last run) to
--out. --resume runs what is not there yet. Runs of more than five minutes are saved after every
epoch, and gone on with."""

_SETTINGS, _RESULTS, _CHECKPOINTS = "settings.json", "results.csv", "checkpoints"
# Seconds of a run that is worth saving after every epoch, which takes up to a second.
_LONG = 300.0
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
        choices=list(SCALES),
        default="small",
        help="epochs, batches and rates: ours for small networks (small), or those of the ASVP "
        "paper for a ResNet-50 (cifar10, imagenet); where they augment nothing, images are flipped "
        "and shifted all the same, and digits shifted always, which is ours (default small)",
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
    quieten()
    for name in ("learning_rate", "head_learning_rate"):
        if getattr(args, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            check_number(getattr(args, name), flag, least=0, above=True)
    check_folder(args.out, (*_OWN, _CHECKPOINTS))
    images = open_images(args)
    labels = _check(args, images)
    side = images.train.load(np.zeros(1, np.int64)).shape[1]
    single, both = make_configs(args, images.name, side)
    for config in (single, *both):
        check_finetune(config)
    task = Task(images, load_encoder(args), labels, single, both)
    runs = _open(args, task)
    wanted = [
        (method, count, seed)
        for seed in range(args.seeds)
        for count in args.num_labels
        for method in args.methods
    ]
    left = [run for run in wanted if run not in {_key(row) for row in runs}]
    print(f"{len(left)} runs of {task.encoder.name} on {describe_device()}", flush=True)
    try:
        history = _run_all(args.out, task, runs, left)
    except KeyboardInterrupt:
        return stop(args.out)
    _report(args, task, [row for row in runs if _key(row) in wanted], history)
    return 0


def _run_all(
    out: Path, task: Task, rows: list[dict[str, Any]], left: Sequence[tuple[str, int, int]]
) -> Sequence[dict[str, Any]]:
    """Run what is left, adding to the rows and saving them; return the last one's history."""
    history: Sequence[dict[str, Any]] = ()
    if not left:
        return history
    work = [estimate_work(task, method, count) for method, count, _ in left]
    rate = time_work(task, *left[int(np.argmax(work))][:2])
    print(f"{describe_time(rate * sum(work))}, compilation apart", flush=True)
    began = time.perf_counter()
    for i, (run, own) in enumerate(zip(left, work, strict=True), 1):
        checkpoint = out / _CHECKPOINTS / "-".join(map(str, run))
        saved = rate * own > _LONG or checkpoint.exists()
        row, history = run_task(task, *run, checkpoint=checkpoint if saved else None)
        rows.append(row)
        _save(out, rows)
        _remove_checkpoint(checkpoint)
        seconds = (time.perf_counter() - began) * sum(work[i:]) / sum(work[:i])
        print(
            f"[{i}/{len(left)}, {describe_time(seconds)} left] {run[0]}, {run[1]} labels, seed "
            f"{run[2]}: {100 * row['accuracy']:.1f} %, {row['seconds']:.0f} s",
            flush=True,
        )
    return history


def _check(args: argparse.Namespace, images: Images) -> np.ndarray:
    """Check options against the images before anything is trained; return the pool's labels."""
    if images.train.labels is None or images.num_classes is None:
        raise ValueError("images: expected labels of the pool, to draw what is paid for from")
    if images.test is None or images.test.labels is None:
        raise ValueError("images: expected a test set with labels")
    check_positive(args.seeds, "--seeds")
    if args.epochs is not None:
        check_positive(args.epochs, "--epochs")
    for flag, given in (("--num-labels", args.num_labels), ("--methods", args.methods)):
        if len(set(given)) < len(given):
            raise ValueError(f"{flag}: expected each once, found {given}")
    for count in args.num_labels:
        if check_positive(count, "--num-labels") > len(images.train):
            raise ValueError(
                f"--num-labels: expected at most the {len(images.train)} images of the pool, "
                f"found {count}"
            )
    labels: np.ndarray = images.train.labels
    return labels


def _open(args: argparse.Namespace, task: Task) -> list[dict[str, Any]]:
    """Make the folder ready and read the runs that it holds."""
    images, encoder = task.images, task.encoder
    settings = describe(
        {
            "images": images.train.describe(),
            "test": images.test.describe() if images.test is not None else None,
            "labels": describe_labels(images),
            "encoder": encoder_settings(encoder),
            "recipes": {"ft": task.single, "lpft": task.both},
        }
    )
    out = args.out
    if args.overwrite:
        for name in _OWN:
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)
    make_folder(out)
    if not (out / _SETTINGS).exists():
        if any((out / name).exists() for name in (*_OWN, _CHECKPOINTS)):
            raise ValueError(f"{out}: holds other results; choose another --out, or --overwrite")
        _write(out / _SETTINGS, settings)
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


def describe_labels(images: Images) -> dict[str, Any]:
    """Say what tells the labels from others, which the images' descriptions leave out."""
    return {
        "num_classes": images.num_classes,
        "class_names": images.train.class_names,
        **{
            name: None if source is None or source.labels is None else fingerprint(source.labels)
            for name, source in (("train", images.train), ("test", images.test))
        },
    }


def _key(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["method"], row["num_labels"], row["seed"]


def _save(out: Path, runs: list[dict[str, Any]]) -> None:
    _write(out / "runs.json", runs)
    write_csv(runs, out / _RESULTS)


def _write(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _remove_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # of another run that was interrupted
        folder.parent.rmdir()


def _report(
    args: argparse.Namespace,
    task: Task,
    runs: list[dict[str, Any]],
    history: Sequence[dict[str, Any]],
) -> None:
    images, encoder = task.images, task.encoder
    values: dict[str, dict[int, np.ndarray]] = {
        method: {
            count: np.array(
                [r["accuracy"] for r in runs if _key(r)[:2] == (method, count)], np.float64
            )
            for count in args.num_labels
        }
        for method in args.methods
    }
    own = "shifted" if images.name == "digits" else "flipped and shifted"
    where = "" if images.name == "digits" else ", where the configuration has nothing else"
    recipes = {"ft": task.single, "lpft": task.both}
    text = "\n\n".join(
        [
            f"# {encoder.name} on {images.name} from few labels",
            f"Accuracy in percent on {len(images.test or ())} {images.tested} by number of random "
            f"labels, mean ± sample standard deviation over {args.seeds} seeds; best mean bold.",
            markdown(_table(values, runs)),
            f"Seconds are the median, compilation and saving included; device {describe_device()}.",
            f"Images are {own} in training{where}; this augmentation is ours.",
            f"Encoder {encoder_settings(encoder)}. Configurations, lp being the first stage of "
            f"lpft: {json.dumps(describe(recipes))}.",
        ]
    )
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    draw_accuracies(values, args.out / "accuracy.png", f"{encoder.name} on {images.name}")
    if history:
        draw_history(history, args.out / "curves.png", "the last run")
    print(f"\n{text}\n\nresults in {args.out}")


def _table(values: dict[str, dict[int, np.ndarray]], runs: list[dict[str, Any]]) -> list[list[str]]:
    """Make the lines of the table, of accuracies by method and number of labels."""
    counts = list(next(iter(values.values())))
    means = {
        method: {count: 100 * float(np.mean(points[count])) for count in counts}
        for method, points in values.items()
    }
    best = {count: max(of[count] for of in means.values()) for count in counts}
    lines = [["method", *(f"{count:,}" for count in counts), "seconds a training"]]
    for method, points in values.items():
        cells = []
        for count in counts:
            text = f"{means[method][count]:.1f}"
            if len(points[count]) > 1:
                text += f" ± {100 * points[count].std(ddof=1):.1f}"
            cells.append(f"**{text}**" if means[method][count] == best[count] else text)
        seconds = np.median([r["seconds"] for r in runs if r["method"] == method])
        lines.append([method, *cells, f"{seconds:.1f}"])
    return lines
