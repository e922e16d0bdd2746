import pytest

from jaxal.augment.presets import strong
from jaxal.train.optimizers import OptimizerConfig
from jaxal.train.semi_recipes import (
    FIXMATCH_CIFAR10,
    FLEXMATCH_CIFAR10,
    FREEMATCH_CIFAR10,
    SemiConfig,
    check_semi,
)


@pytest.mark.parametrize("config", [FIXMATCH_CIFAR10, FLEXMATCH_CIFAR10, FREEMATCH_CIFAR10])
def test_presets_are_valid(config):
    check_semi(config)
    assert (config.steps, config.labeled_batch_size, config.unlabeled_ratio) == (2**20, 64, 7)
    assert config.encoder == OptimizerConfig(
        learning_rate=0.03, weight_decay=5e-4, decay_vectors=False
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "mixmatch"}, "config.method: expected"),
        ({"targets": "sharp"}, "config.targets: expected"),
        ({"judge": "label"}, "config.judge: expected"),
        ({"steps": 0}, "config.steps"),
        ({"unlabeled_ratio": 1.5}, "config.unlabeled_ratio"),
        ({"record_every": 0}, "config.record_every"),
        ({"cutoff": 1.1}, r"config.cutoff: expected a number in 0..1, found 1.1"),
        ({"switch": -0.1}, "config.switch"),
        ({"decay": 1.0}, "config.decay: expected a number below 1"),
        ({"ema_decay": 1}, "config.ema_decay: expected a number below 1"),
        ({"unlabeled_weight": -1}, "config.unlabeled_weight"),
        ({"head": OptimizerConfig("lars")}, "config.head.name"),
        ({"schedule": "cosine"}, "config.schedule: expected a ScheduleConfig"),
        ({"dtype": "int8"}, "config.dtype"),
        ({"strong": None}, "config.strong: expected"),
        ({"weak": 3, "strong": strong()}, "config.weak: expected"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        check_semi(SemiConfig()._replace(**changes))


def test_another_thing_is_no_configuration():
    with pytest.raises(ValueError, match="config: expected a SemiConfig, found dict"):
        check_semi({})
