import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.augment.presets import weak
from jaxal.train import recipes
from jaxal.train.optimizers import OptimizerConfig
from jaxal.train.recipes import FinetuneConfig, LpftConfig, check_finetune, find_augment
from jaxal.train.schedules import ScheduleConfig


def test_presets_are_valid():
    for name in ("FT_IMAGENET", "FT_CIFAR10", "FT_SMALL"):
        check_finetune(getattr(recipes, name))
    for name in ("LPFT_IMAGENET", "LPFT_CIFAR10", "LPFT_SMALL"):
        preset = getattr(recipes, name)
        assert isinstance(preset, LpftConfig)
        for stage in preset:
            check_finetune(stage)
        assert preset.probe.encoder is None
        assert preset.probe.freeze_stats == (name != "LPFT_SMALL")
        assert preset.finetune.encoder is not None


def test_presets_carry_the_numbers_of_the_paper():
    ft = recipes.FT_IMAGENET
    assert (ft.epochs, ft.train_batch_size, ft.schedule.milestones) == (50, 128, (30, 40))
    assert (ft.encoder.learning_rate, ft.head.learning_rate) == (0.01, 0.1)
    assert ft.encoder.weight_decay == ft.head.weight_decay == 1e-4
    ft = recipes.FT_CIFAR10
    assert (ft.epochs, ft.train_batch_size, ft.schedule.milestones) == (130, 256, (60, 80))
    assert (ft.encoder.learning_rate, ft.head.learning_rate) == (0.1, 0.1)
    assert ft.encoder.weight_decay == ft.head.weight_decay == 0
    for preset in (recipes.LPFT_IMAGENET, recipes.LPFT_CIFAR10):
        assert (preset.probe.epochs, preset.finetune.epochs) == (80, 40)
        assert preset.finetune.encoder.learning_rate == 1e-4
        assert preset.finetune.head.learning_rate == 0.1
    rates = {p.probe.head.learning_rate for p in (recipes.LPFT_IMAGENET, recipes.LPFT_CIFAR10)}
    assert rates == {10.0, 0.5}


def test_augmentations_are_found_by_name():
    def own(key, image):
        return image

    assert find_augment(None) is None
    assert find_augment(own) is own
    assert find_augment("weak") is find_augment("weak") is not find_augment("strong")
    key, image = jax.random.key(0), jnp.linspace(0, 1, 108).reshape(6, 6, 3)
    np.testing.assert_array_equal(find_augment("weak")(key, image), weak()(key, image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: expected a whole number"),
        ({"train_batch_size": 0}, "train_batch_size"),
        ({"accumulate": 0}, "accumulate"),
        ({"encoder": "frozen"}, "encoder: expected an OptimizerConfig"),
        ({"head": None}, "head: expected an OptimizerConfig"),
        ({"head": OptimizerConfig(learning_rate=0)}, "head.learning_rate"),
        ({"schedule": None}, "schedule: expected a ScheduleConfig"),
        ({"schedule": ScheduleConfig("linear")}, "schedule.name: expected one of"),
        (
            {"schedule": ScheduleConfig(warmup_epochs=50)},
            "schedule.warmup_epochs: expected less than",
        ),
        ({"label_smoothing": 1.0}, "label_smoothing: expected a number below 1"),
        ({"validation_fraction": -0.1}, "validation_fraction"),
        ({"ema_decay": 1}, "ema_decay"),
        ({"dtype": "float16"}, "dtype: expected one of .* found 'float16'"),
        ({"augment": "flip"}, "augment: expected one of weak, strong, found 'flip'"),
        ({"patience": 0, "validation_fraction": 0.1}, "patience"),
        ({"patience": 3}, "validation_fraction: expected more than 0, as patience is set"),
    ],
)
def test_bad_options_are_named(change, message):
    with pytest.raises(ValueError, match=rf"^stages\.second\.{message}"):
        check_finetune(FinetuneConfig()._replace(**change), "stages.second")
    with pytest.raises(ValueError, match="config: expected a FinetuneConfig, found str"):
        check_finetune("ft")
