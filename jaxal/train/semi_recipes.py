"""How a classifier is trained on a few labels and many images without: the settings."""

from typing import NamedTuple

from jaxal.augment.base import Pipeline
from jaxal.augment.presets import strong, weak
from jaxal.checks import check_choice, check_number, check_positive
from jaxal.train.consistency import Judge, Targets
from jaxal.train.optimizers import OptimizerConfig, check_optimizer
from jaxal.train.recipes import Dtype
from jaxal.train.schedules import ScheduleConfig, check_schedule
from jaxal.train.thresholds import Method

__all__ = [
    "FIXMATCH_CIFAR10",
    "FLEXMATCH_CIFAR10",
    "FREEMATCH_CIFAR10",
    "SemiConfig",
    "check_semi",
]

_WRN = OptimizerConfig(learning_rate=0.03, weight_decay=5e-4, decay_vectors=False)


# Made once, so that trainings share what is compiled of them.
_WEAK, _STRONG = weak(), strong()


class SemiConfig(NamedTuple):
    """How a classifier is trained on a few labels and many images without."""

    method: Method = "flexmatch"
    steps: int = 2**20
    labeled_batch_size: int = 64  # B, labelled samples of a step, fewer ones several times
    unlabeled_ratio: int = 7  # μ: a step sees up to μ · B unlabelled samples
    cutoff: float = 0.95  # τ, of FixMatch and FlexMatch
    unlabeled_weight: float = 1.0  # λ
    decay: float = 0.999  # of FreeMatch's moving means
    fairness_weight: float = 0.01  # of FreeMatch
    switch: float = 0.3  # share of the steps in which the prior is mixed in
    targets: Targets = "hard"  # in that time: the likeliest class, or the mixed probabilities
    judge: Judge = "prediction"  # whose largest probability is held against the threshold then
    encoder: OptimizerConfig = _WRN
    head: OptimizerConfig = _WRN
    schedule: ScheduleConfig = ScheduleConfig("cosine_7_16")
    ema_decay: float | None = 0.999  # of the average, of batch statistics too, that is returned
    dtype: Dtype | None = None  # what the encoder computes in; None: as it is
    weak: Pipeline | None = _WEAK
    strong: Pipeline = _STRONG
    record_every: int = 1000  # steps from one record, and one checkpoint, to the next


# The published settings for WRN-28-2 at 32 pixels, but for AS3L's targets, which are soft.
FIXMATCH_CIFAR10 = SemiConfig("fixmatch")
FLEXMATCH_CIFAR10 = SemiConfig("flexmatch")
FREEMATCH_CIFAR10 = SemiConfig("freematch")


def check_semi(config: SemiConfig, name: str = "config") -> None:
    """Check a configuration.

    Args:
      config: the configuration.
      name: what to call it in an error.

    Raises:
      ValueError: no `SemiConfig`, or something in it that is out of its range.
    """
    if not isinstance(config, SemiConfig):
        raise ValueError(f"{name}: expected a SemiConfig, found {type(config).__name__}")
    for field, kind in (("method", Method), ("targets", Targets), ("judge", Judge)):
        check_choice(getattr(config, field), f"{name}.{field}", kind)
    for field in ("steps", "labeled_batch_size", "unlabeled_ratio", "record_every"):
        check_positive(getattr(config, field), f"{name}.{field}")
    for field in ("cutoff", "switch"):
        if check_number(getattr(config, field), f"{name}.{field}", least=0) > 1:
            raise ValueError(
                f"{name}.{field}: expected a number in 0..1, found {getattr(config, field)!r}"
            )
    for field in ("decay", "ema_decay"):
        value = getattr(config, field)
        if value is None and field == "ema_decay":
            continue
        if check_number(value, f"{name}.{field}", least=0) >= 1:
            raise ValueError(f"{name}.{field}: expected a number below 1, found {value!r}")
    for field in ("unlabeled_weight", "fairness_weight"):
        check_number(getattr(config, field), f"{name}.{field}", least=0)
    for field in ("encoder", "head"):
        check_optimizer(getattr(config, field), f"{name}.{field}")
    check_schedule(config.schedule, f"{name}.schedule")
    if config.dtype is not None:
        check_choice(config.dtype, f"{name}.dtype", Dtype)
    for field in ("weak", "strong"):
        value = getattr(config, field)
        if not callable(value) and (field == "strong" or value is not None):
            raise ValueError(f"{name}.{field}: expected an augmentation, found {value!r}")
