"""How networks are fine-tuned: one configuration for probes, fine-tuning and both in turn.

`FT_IMAGENET`, `FT_CIFAR10`, `LPFT_IMAGENET` and `LPFT_CIFAR10` are those of "Feature Alignment:
Rethinking Efficient Active Learning via Proxy in the Context of Pre-trained Models" (arXiv
2403.01101), with a ResNet-50 on images of 224 pixels: epochs, batch sizes, learning rates, weight
decay and the steps of fine-tuning. Ours are: Nesterov momentum of 0.9; the weak augmentation on
CIFAR-10, and none on ImageNet, where large photographs want `jaxal.augment.random_resized_crop`;
for LP-FT ("Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", arXiv
2202.10054) the batch sizes and weight decay of fine-tuning, a cosine schedule, and which of the
paper's two rates for probes goes with which data. `FT_SMALL` and `LPFT_SMALL` are ours, for small
networks on CPUs.
"""

from typing import Literal, NamedTuple

from jaxal.augment.base import Pipeline
from jaxal.augment.presets import strong, weak
from jaxal.checks import check_choice, check_number, check_positive
from jaxal.train.optimizers import OptimizerConfig, check_optimizer
from jaxal.train.schedules import ScheduleConfig, check_schedule

__all__ = [
    "FT_CIFAR10",
    "FT_IMAGENET",
    "FT_SMALL",
    "LPFT_CIFAR10",
    "LPFT_IMAGENET",
    "LPFT_SMALL",
    "AugmentName",
    "Dtype",
    "FinetuneConfig",
    "LpftConfig",
    "check_finetune",
    "find_augment",
]

AugmentName = Literal["weak", "strong"]
Dtype = Literal["float32", "bfloat16"]

# Made once, so that trainings share what is compiled of them.
_AUGMENTS = {"weak": weak(), "strong": strong()}


class FinetuneConfig(NamedTuple):
    """How a classifier is trained on labelled images."""

    epochs: int = 50
    train_batch_size: int = 128  # the most images a step sees
    encoder: OptimizerConfig | None = OptimizerConfig(learning_rate=0.01)  # None: frozen
    head: OptimizerConfig = OptimizerConfig(learning_rate=0.1)
    schedule: ScheduleConfig = ScheduleConfig()
    freeze_stats: bool = False  # whether the encoder keeps its batch statistics and uses them
    label_smoothing: float = 0.0  # share of a target that all classes get alike
    ema_decay: float | None = None  # of the average over steps that is evaluated and returned
    dtype: Dtype | None = None  # what the encoder computes in; None: as it is
    accumulate: int = 1  # parts of a batch whose gradients are summed, to save memory
    augment: Pipeline | AugmentName | None = None  # "weak" is `weak()` of `jaxal.augment`
    validation_fraction: float = 0.0  # of the labelled images: held out to choose the best epoch
    patience: int | None = None  # epochs without a better one before it stops; None: never


class LpftConfig(NamedTuple):
    """A probe, and the fine-tuning that starts from it."""

    probe: FinetuneConfig
    finetune: FinetuneConfig


def check_finetune(config: FinetuneConfig, name: str = "config") -> None:
    """Check a configuration.

    Args:
      config: the configuration.
      name: what to call it in an error.

    Raises:
      ValueError: no `FinetuneConfig`, or something in it that is out of its range.
    """
    if not isinstance(config, FinetuneConfig):
        raise ValueError(f"{name}: expected a FinetuneConfig, found {type(config).__name__}")
    for count in ("epochs", "train_batch_size", "accumulate"):
        check_positive(getattr(config, count), f"{name}.{count}")
    if config.encoder is not None:
        check_optimizer(config.encoder, f"{name}.encoder")
    check_optimizer(config.head, f"{name}.head")
    check_schedule(config.schedule, f"{name}.schedule", epochs=config.epochs)
    for share in ("label_smoothing", "validation_fraction", "ema_decay"):
        value = getattr(config, share)
        if value is not None and check_number(value, f"{name}.{share}", least=0) >= 1:
            raise ValueError(f"{name}.{share}: expected a number below 1, found {value!r}")
    if config.dtype is not None:
        check_choice(config.dtype, f"{name}.dtype", Dtype)
    find_augment(config.augment, f"{name}.augment")
    if config.patience is not None:
        check_positive(config.patience, f"{name}.patience")
        if config.validation_fraction == 0:
            raise ValueError(
                f"{name}.validation_fraction: expected more than 0, as patience is set, found 0"
            )


def find_augment(augment: Pipeline | AugmentName | None, name: str = "augment") -> Pipeline | None:
    """Find an augmentation by name; functions and None are given back.

    Args:
      augment: what to find.
      name: what to call it in an error.

    Raises:
      ValueError: an unknown name.
    """
    if augment is None or callable(augment):
        return augment
    check_choice(augment, name, AugmentName)
    return _AUGMENTS[augment]


def _probe(learning_rate: float, train_batch_size: int, weight_decay: float) -> FinetuneConfig:
    return FinetuneConfig(
        epochs=80,
        train_batch_size=train_batch_size,
        encoder=None,
        head=OptimizerConfig(learning_rate=learning_rate, weight_decay=weight_decay),
        schedule=ScheduleConfig("cosine"),
        freeze_stats=True,
    )


def _after_probe(train_batch_size: int, weight_decay: float) -> FinetuneConfig:
    return FinetuneConfig(
        epochs=40,
        train_batch_size=train_batch_size,
        encoder=OptimizerConfig(learning_rate=1e-4, weight_decay=weight_decay),
        head=OptimizerConfig(learning_rate=0.1, weight_decay=weight_decay),
        schedule=ScheduleConfig("cosine"),
    )


FT_IMAGENET = FinetuneConfig(
    epochs=50,
    train_batch_size=128,
    encoder=OptimizerConfig(learning_rate=0.01, weight_decay=1e-4),
    head=OptimizerConfig(learning_rate=0.1, weight_decay=1e-4),
    schedule=ScheduleConfig("step", milestones=(30, 40)),
)
FT_CIFAR10 = FinetuneConfig(
    epochs=130,
    train_batch_size=256,
    encoder=OptimizerConfig(learning_rate=0.1),
    head=OptimizerConfig(learning_rate=0.1),
    schedule=ScheduleConfig("step", milestones=(60, 80)),
    augment="weak",
)
LPFT_IMAGENET = LpftConfig(_probe(10.0, 128, 1e-4), _after_probe(128, 1e-4))
LPFT_CIFAR10 = LpftConfig(_probe(0.5, 256, 0.0), _after_probe(256, 0.0)._replace(augment="weak"))

FT_SMALL = FinetuneConfig(
    epochs=30,
    train_batch_size=64,
    encoder=OptimizerConfig(learning_rate=0.01, weight_decay=5e-4),
    head=OptimizerConfig(learning_rate=0.05, weight_decay=5e-4),
    schedule=ScheduleConfig("cosine", warmup_epochs=1.0),
)
# The probe sees the batch statistics that fine-tuning sees: a head of others has to be learnt anew.
LPFT_SMALL = LpftConfig(
    FT_SMALL._replace(encoder=None, head=OptimizerConfig(learning_rate=0.1)),
    FT_SMALL._replace(epochs=15),
)
