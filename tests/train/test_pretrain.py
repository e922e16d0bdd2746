import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.records import write_record
from jaxal.train.checkpoints import latest_step
from jaxal.train.optimizers import OptimizerConfig
from jaxal.train.pretrain import (
    SIMCLR_CIFAR10,
    SIMCLR_SMALL,
    SIMSIAM_CIFAR10,
    SIMSIAM_IMAGENET,
    SIMSIAM_SMALL,
    check_pretrain,
    pretrain,
)
from jaxal.train.probes import knn_accuracy
from jaxal.train.schedules import ScheduleConfig

slow = pytest.mark.slow

KEY = jax.random.key(0)


class Tiny(nn.Module):
    """A dense encoder with batch normalisation."""

    width: int = 16
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        x = nn.Dense(self.width, dtype=self.dtype)(images.reshape(len(images), -1))
        mask = None if mask is None else mask[:, None]
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x, mask=mask)
        return nn.relu(x).astype(jnp.float32)


def noisy(key, image, level=0.3):
    return image + level * jax.random.normal(key, image.shape)


def shift(images):
    return images - 0.5


def draw(n=96, seed=0):
    """Images of three patterns, each faint under noise of its own."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(9).uniform(size=(3, 4, 4, 1))
    labels = rng.integers(3, size=n)
    images = patterns[labels] + 0.15 * rng.normal(size=(n, 4, 4, 1))
    return np.uint8(np.clip(images, 0, 1) * 255), labels


SIMSIAM = SIMSIAM_SMALL._replace(
    epochs=3,
    train_batch_size=32,
    optimizer=OptimizerConfig(learning_rate=1.0, weight_decay=5e-4),
    projector=(16, 16),
    predictor=(8, 16),
)
SIMCLR = SIMCLR_SMALL._replace(
    epochs=3,
    train_batch_size=32,
    optimizer=OptimizerConfig("adamw", learning_rate=0.1),
    projector=(16, 8),
)


def run(config, images=None, **options):
    images = draw()[0] if images is None else images
    return pretrain(KEY, Tiny(), images, config=config, view=noisy, prepare=shift, **options)


@pytest.mark.parametrize("config", [SIMSIAM, SIMCLR])
def test_loss_falls_and_the_encoder_stays_spread(config):
    found = run(config._replace(epochs=12))
    losses = [record["loss"] for record in found.history]
    assert losses[-1] < losses[0] - 0.1
    assert found.history[-1]["spread"] > 0.3
    assert [record["epoch"] for record in found.history] == list(range(12))
    assert set(found.variables) == {"params", "batch_stats"}
    features = Tiny().apply(found.variables, shift(jnp.zeros((2, 4, 4, 1))))
    assert features.shape == (2, 16)


def test_the_first_loss_is_that_of_two_views():
    images, _ = draw(40)
    config = SIMSIAM._replace(epochs=1, train_batch_size=40)
    found = run(config, images, variables=None)
    # Predictions of new weights have little to do with the other view's projections.
    assert -0.5 < found.history[0]["loss"] < 0.5


@pytest.mark.parametrize("config", [SIMSIAM, pytest.param(SIMCLR, marks=slow)])
def test_same_key_same_weights_and_another_key_others(config):
    first, second = run(config), run(config)
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    other = pretrain(jax.random.key(1), Tiny(), draw()[0], config=config, view=noisy, prepare=shift)
    assert other.history != first.history


@pytest.mark.parametrize("config", [SIMSIAM, pytest.param(SIMCLR, marks=slow)])
def test_a_stopped_training_goes_on_to_the_same_end(config, tmp_path):
    def stop(record):
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    whole = run(config)
    with pytest.raises(KeyboardInterrupt):
        run(config, checkpoint=tmp_path / "run", on_epoch=stop)
    seen = []
    resumed = run(config, checkpoint=tmp_path / "run", on_epoch=seen.append)
    assert [record["epoch"] for record in seen] == [2]
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, whole.variables)
    assert resumed.history == whole.history
    with pytest.raises(ValueError, match="epochs"):
        run(config._replace(epochs=4), checkpoint=tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("config", [SIMSIAM, pytest.param(SIMCLR, marks=slow)])
def test_padding_changes_nothing(config):
    images, _ = draw(50)
    # Steps of 13, 13, 12 and 12 images either way, at one rate, padded to 13 and to 16.
    little, more = (
        config._replace(
            epochs=2,
            train_batch_size=size,
            optimizer=config.optimizer._replace(learning_rate=0.1 * 256 / size),
        )
        for size in (13, 16)
    )
    expected, found = run(little, images).history, run(more, images).history
    for name in ("loss", "spread"):
        np.testing.assert_allclose(
            [record[name] for record in found], [record[name] for record in expected], atol=1e-5
        )


@pytest.mark.slow
def test_the_monitor_is_told_of_the_encoder_alone():
    images, labels = draw()
    test_images, test_labels = draw(60, seed=1)

    def monitor(variables):
        encode = functools.partial(Tiny().apply, variables)
        features, queries = (encode(shift(x / np.float32(255))) for x in (images, test_images))
        return {"knn": knn_accuracy(features, labels, queries, test_labels, 3)}

    found = run(SIMSIAM._replace(epochs=5), monitor=monitor, monitor_every=2)
    assert ["knn" in record for record in found.history] == [True, False, True, False, True]
    assert found.history[-1]["knn"] > 0.6


@pytest.mark.slow
def test_given_weights_are_started_from():
    images = draw()[0]
    given = Tiny().init(jax.random.key(5), shift(images[:1] / np.float32(255)))
    config = SIMSIAM._replace(
        epochs=1, optimizer=OptimizerConfig(learning_rate=1e-12), train_batch_size=96
    )
    found = run(config, variables=given)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        found.variables["params"],
        given["params"],
    )
    with pytest.raises(ValueError, match="variables: expected those of the encoder"):
        run(config, variables=Tiny(8).init(KEY, shift(images[:1] / np.float32(255))))


@slow
def test_half_precision_trains_like_float32():
    plain, half = (run(SIMSIAM._replace(dtype=dtype)) for dtype in (None, "bfloat16"))
    assert half.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], abs=0.05)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "config", [SIMSIAM_CIFAR10, SIMSIAM_IMAGENET, SIMSIAM_SMALL, SIMCLR_CIFAR10, SIMCLR_SMALL]
)
def test_shipped_configurations_are_sound(config):
    check_pretrain(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "byol"}, "method: expected one of simsiam, simclr, found 'byol'"),
        ({"epochs": 0}, "epochs"),
        ({"train_batch_size": 0}, "train_batch_size"),
        ({"predictor": ()}, "predictor: expected widths just for"),
        ({"predictor": (8, 15)}, "predictor: expected the projector's width of 16"),
        ({"projector": ()}, "projector"),
        ({"temperature": 0}, "temperature"),
        ({"dtype": "float16"}, "dtype"),
        ({"optimizer": OptimizerConfig(learning_rate=0)}, "optimizer.learning_rate"),
        ({"schedule": ScheduleConfig("linear")}, "schedule.name"),
        ({"schedule": ScheduleConfig("cosine", warmup_epochs=3)}, "schedule.warmup_epochs"),
    ],
)
def test_bad_configurations_are_named(change, message):
    with pytest.raises(ValueError, match=f"^config.{message}"):
        run(SIMSIAM._replace(**change))
    with pytest.raises(ValueError, match=f"^second.{message}"):
        check_pretrain(SIMSIAM._replace(**change), "second")


@pytest.mark.filterwarnings("ignore:overflow")
def test_divergence_is_noticed(tmp_path):
    wild = SIMSIAM._replace(optimizer=OptimizerConfig(learning_rate=1e30))
    message = r"config: training diverged in epoch \d .* optimizer.learning_rate 1e\+30"
    with pytest.raises(ValueError, match=message):
        run(wild)
    # The loss of the only step is finite: what it makes of the weights is not.
    last = wild._replace(
        epochs=1, train_batch_size=96, optimizer=OptimizerConfig(learning_rate=1e39)
    )
    with pytest.raises(ValueError, match=r"diverged in epoch 0 \(loss -?\d"):
        run(last, checkpoint=tmp_path / "run")
    assert latest_step(tmp_path / "run") is None


def test_places_that_cannot_be_a_checkpoint_are_refused_before_training(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    (tmp_path / "cut").mkdir()
    write_record(tmp_path / "cut" / "settings.json", None, {"config": {"epochs": 9}})

    def monitor(variables):
        raise AssertionError("trained")

    for name, message in (
        ("file", "path: expected a folder, found the file"),
        ("photos", "path: expected a checkpoint or a free place"),
        ("cut", "saved with other settings"),
    ):
        with pytest.raises(ValueError, match=message):
            run(SIMSIAM, checkpoint=tmp_path / name, monitor=monitor)


def test_bad_images_are_named():
    for images in (np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4, 1)), draw(1)[0]):
        with pytest.raises(ValueError, match="images"):
            run(SIMSIAM, images)
