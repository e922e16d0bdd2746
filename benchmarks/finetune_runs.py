"""One training of the command finetune: its configuration, what it costs, and how it is run."""

import argparse
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from benchmarks.image_encoders import LoadedEncoder, find_mesh
from benchmarks.images import Images
from jaxal.augment import Pipeline, pad_and_crop, weak
from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.models.preprocess import preprocess
from jaxal.train.evaluate import evaluate, make_apply
from jaxal.train.finetune import finetune, lp_ft
from jaxal.train.network import METHODS
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

__all__ = [
    "METHODS",
    "SCALES",
    "Task",
    "estimate_work",
    "make_configs",
    "passes_of",
    "prepare_images",
    "run_task",
    "stages_of",
    "time_work",
]

SCALES: dict[str, tuple[FinetuneConfig, LpftConfig]] = {
    "small": (FT_SMALL, LPFT_SMALL),
    "cifar10": (FT_CIFAR10, LPFT_CIFAR10),
    "imagenet": (FT_IMAGENET, LPFT_IMAGENET),
}


class Task(NamedTuple):
    """What all trainings share."""

    images: Images
    encoder: LoadedEncoder
    labels: np.ndarray  # [n] of the pool
    single: FinetuneConfig  # of "ft"
    both: LpftConfig  # of "lpft"; its first stage is "lp"

    def stages(self, method: str) -> tuple[FinetuneConfig, ...]:
        """Give the configurations that a method trains with, one after another."""
        return stages_of(method, self.single, self.both)


def stages_of(method: str, single: FinetuneConfig, both: LpftConfig) -> tuple[FinetuneConfig, ...]:
    """Give the configurations that a method trains with, by those of "ft" and "lpft"."""
    return {"lp": (both.probe,), "ft": (single,), "lpft": tuple(both)}[method]


def passes_of(stages: Sequence[FinetuneConfig], count: int) -> int:
    """Count images through the encoder in a training; one that learns goes back as well."""
    return sum(count * config.epochs * _cost(config) for config in stages)


def make_configs(
    args: argparse.Namespace, dataset: str, side: int
) -> tuple[FinetuneConfig, LpftConfig]:
    """Change the scale's configurations as the command line says, and augment where they do not.

    Returns:
      Those of "ft" and of "lpft".
    """
    augment = _augment("digits" if dataset == "digits" else "weak", max(1, side // 8))

    def changed(config: FinetuneConfig) -> FinetuneConfig:
        config = config._replace(dtype=args.dtype)
        if config.augment is None or dataset == "digits":
            config = config._replace(augment=augment)
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

    single, both = SCALES[args.scale]
    return changed(single), LpftConfig(*map(changed, both))


def estimate_work(task: Task, method: str, count: int) -> float:
    """Estimate what a run has to do: images seen, threefold where the encoder learns from them."""
    return passes_of(task.stages(method), count) + len(task.images.test or ())


def time_work(task: Task, method: str, count: int) -> float:
    """Train for two epochs; return the seconds that a unit of `estimate_work` takes, compiled."""
    config = task.stages(method)[0]
    few = config._replace(epochs=2, schedule=config.schedule._replace(warmup_epochs=0.0))
    times: list[float] = []
    given, options = _inputs(task, count, 0)
    finetune(*given, config=few, on_epoch=lambda *_: times.append(time.perf_counter()), **options)
    return (times[1] - times[0]) / (count * _cost(config))


def run_task(
    task: Task, method: str, count: int, seed: int, *, checkpoint: Path | None = None
) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    """Train one classifier and test it.

    Args:
      task: what all trainings share.
      method: of `METHODS`.
      count: of labels.
      seed: which labels, and the head's first weights.
      checkpoint: a folder to save to after every epoch, and to go on from; None to save nothing.

    Returns:
      A row of the results, and a record for each epoch.
    """
    began = time.perf_counter()
    images = task.images
    given, options = _inputs(task, count, seed)
    _, classifier, _, _, labels = given
    options["checkpoint"] = checkpoint
    if method == "lpft":
        stages: Sequence[Any] = lp_ft(*given, config=task.both, **options)
    else:
        stages = [finetune(*given, config=task.stages(method)[0], **options)]
    trained = time.perf_counter()
    history = [record for stage in stages for record in stage.history]
    history = [{**record, "epoch": i} for i, record in enumerate(history)]
    apply = make_apply(classifier, stages[-1].variables, prepare=options["prepare"])
    assert images.test is not None and images.num_classes is not None
    found = evaluate(
        apply, images.test, images.test.labels, images.num_classes, mesh=options["mesh"]
    )
    row = {
        "method": method,
        "num_labels": count,
        "seed": seed,
        "accuracy": found.accuracy,
        "calibration_error": found.calibration_error,
        "loss": found.loss,
        "train_accuracy": history[-1]["accuracy"],
        "seconds": trained - began,
        "classes_labelled": len(np.unique(labels)),
    }
    return row, history


def _inputs(task: Task, count: int, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Draw labels and a head; return what trainings are given, by position and by name."""
    assert task.images.num_classes is not None
    rows = np.sort(np.random.default_rng([seed, count]).permutation(len(task.labels))[:count])
    classifier = Classifier(task.encoder.module, DenseHead((), task.images.num_classes))
    variables = _with_head(classifier, task.encoder, seed)
    pixels = task.images.train.load(rows)
    return (jax.random.key(seed), classifier, variables, pixels, task.labels[rows]), {
        "prepare": prepare_images(task.encoder.preprocessing),
        "mesh": find_mesh(),
    }


@functools.lru_cache(maxsize=8)
def prepare_images(preprocessing: Any) -> Any:
    """Bind an encoder's preprocessing; the same function each time, so that programs are shared."""
    return functools.partial(preprocess, preprocessing=preprocessing)


@functools.lru_cache(maxsize=8)
def _augment(name: str, padding: int) -> Pipeline:
    if name == "digits":
        # A mirrored digit is another sign.
        return functools.partial(pad_and_crop, padding=padding, mode="zero")
    return weak(padding=padding)


def _with_head(classifier: nn.Module, encoder: LoadedEncoder, seed: int) -> dict[str, Any]:
    """Draw a head for the encoder's weights."""
    side = encoder.preprocessing.size or 32
    image = np.zeros((1, side, side, len(encoder.preprocessing.mean)), np.float32)
    drawn = jax.jit(classifier.init)(jax.random.key(seed), image)
    variables = {name: dict(tree) for name, tree in drawn.items()}
    for name, tree in encoder.variables.items():
        variables[name]["encoder"] = tree
    return variables


def _cost(config: FinetuneConfig) -> int:
    return 1 if config.encoder is None else 3
