import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxal.data.arrays import from_arrays
from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.records import write_record
from jaxal.train.batches import even_batches
from jaxal.train.evaluate import evaluate, make_apply
from jaxal.train.finetune import finetune, lp_ft
from jaxal.train.optimizers import OptimizerConfig
from jaxal.train.recipes import FT_SMALL, LPFT_SMALL, FinetuneConfig, LpftConfig

KEY = jax.random.key(0)
# Tests share it, and what it compiles: only rates and lengths are others.
SMALL = FinetuneConfig(epochs=3, train_batch_size=16)
# Of next to nothing: the losses of all epochs are those of the start.
STILL = OptimizerConfig(learning_rate=1e-12)
PROBE = SMALL._replace(encoder=None, freeze_stats=True)
traced = []


class Encoder(nn.Module):
    """A convolution of stride 2 with batch normalisation, on images of 8 pixels."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        traced.append((train, images.shape))
        x = nn.Conv(8, (3, 3), strides=2, dtype=self.dtype)(images)
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)
        x = nn.relu(norm(x, mask=None if mask is None else mask[:, None, None, None]))
        return x.reshape(len(x), -1).astype(jnp.float32)


NET = Classifier(Encoder(), DenseHead(features=(), num_outputs=10))


def shifted(images, *, by):
    return images - by


prepare = functools.partial(shifted, by=0.5)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return np.uint8(x[order].reshape(-1, 8, 8, 1) * (255 / 16)), y[order]


@pytest.fixture(scope="module")
def variables():
    return jax.device_get(jax.jit(NET.init)(jax.random.key(1), jnp.zeros((1, 8, 8, 1))))


def tune(variables, images, labels, *, config=SMALL, key=KEY, **options):
    options = {"prepare": prepare} | options
    return finetune(key, NET, variables, images, labels, config=config, **options)


def assert_equal_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def accuracy(found, images, labels, net=NET):
    apply = make_apply(net, found.variables, prepare=prepare)
    return evaluate(apply, images, labels, 10).accuracy


def test_fine_tuning_learns(digits, variables):
    x, y = digits
    found = tune(variables, x[:300], y[:300], config=FT_SMALL)
    assert accuracy(found, x[600:], y[600:]) > 0.9
    assert [record["epoch"] for record in found.history] == list(range(30))
    assert found.history[-1]["loss"] < 0.1 * found.history[0]["loss"]
    assert found.history[-1]["accuracy"] > 0.98
    assert found.best_epoch == 29 and len(found.validation) == 0
    assert jax.tree.structure(found.variables) == jax.tree.structure(variables)


def test_a_probe_is_softmax_regression_on_fixed_features(digits, variables):
    x, y = digits[0][:13], digits[1][:13]
    config = PROBE._replace(epochs=4, head=OptimizerConfig(learning_rate=0.2))
    found = tune(variables, x, y, config=config)
    assert_equal_bits(found.variables["params"]["encoder"], variables["params"]["encoder"])
    assert_equal_bits(found.variables["batch_stats"], variables["batch_stats"])
    features = np.asarray(NET.apply(variables, prepare(np.float32(x) / 255))[1], float)
    weights = {k: np.asarray(v, float) for k, v in variables["params"]["head"]["output"].items()}
    trace = {name: np.zeros_like(w) for name, w in weights.items()}
    for t, record in enumerate(found.history):
        logits = features @ weights["kernel"] + weights["bias"]
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = -np.log(probs[np.arange(13), y]).mean()
        np.testing.assert_allclose(record["loss"], loss, rtol=1e-4)
        np.testing.assert_allclose(record["accuracy"], np.mean(logits.argmax(1) == y), rtol=1e-6)
        delta = (probs - np.eye(10)[y]) / 13
        rate = 0.2 * np.cos(7 * np.pi / 16 * t / 4)
        for name, g in {"kernel": features.T @ delta, "bias": delta.sum(0)}.items():
            trace[name] = 0.9 * trace[name] + g
            weights[name] = weights[name] - rate * (g + 0.9 * trace[name])
    for name, expected in weights.items():
        learned = found.variables["params"]["head"]["output"][name]
        np.testing.assert_allclose(learned, expected, rtol=1e-3, atol=1e-5)


def test_epochs_see_even_batches_in_the_order_of_the_key(digits, variables):
    x, y = digits[0][:33], digits[1][:33]
    found = tune(variables, x, y, config=SMALL._replace(epochs=1, encoder=STILL, head=STILL))
    order_key = jax.random.split(jax.random.split(KEY)[1], 3)[0]
    batches = even_batches(
        jax.random.fold_in(order_key, 0), np.arange(33), train_batch_size=16, step_rows=16
    )
    total = 0.0
    for batch in batches:
        rows = batch.rows[batch.mask]
        assert len(rows) == 11
        (logits, _), _ = NET.apply(
            variables, prepare(np.float32(x[rows]) / 255), train=True, mutable=["batch_stats"]
        )
        logits = np.asarray(logits, float)
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        total -= np.log(probs[np.arange(11), y[rows]]).sum()
    np.testing.assert_allclose(found.history[0]["loss"], total / 33, rtol=1e-5)


def test_growing_labels_do_not_recompile(digits, variables):
    x, y = digits

    # A number that no other test uses, so that nothing is compiled yet.
    config = SMALL._replace(
        encoder=None, train_batch_size=32, label_smoothing=0.0625, validation_fraction=0.25
    )

    def train(count, **change):
        traced.clear()
        tune(variables, x[:count], y[:count], config=config._replace(**change))
        return {shape for train, shape in traced if train}

    assert train(17) == {(32, 8, 8, 1)}
    for count in (18, 25, 32, 33, 64, 90):
        assert train(count) == set()
    assert train(40, epochs=4, head=OptimizerConfig(learning_rate=0.01)) == set()
    assert train(5) == {(16, 8, 8, 1)}
    for count in (1, 2, 16):
        assert train(count) == set()


def test_the_best_epoch_on_held_out_labels_is_restored(digits, variables):
    x, y = digits[0][:80], digits[1][:80]
    config = SMALL._replace(epochs=12, validation_fraction=0.25, patience=3)
    kept = []

    def keep(record, variables):
        kept.append(jax.device_get(variables))

    found = tune(variables, x, y, config=config, on_epoch=keep)
    assert len(found.validation) == 20 and len(set(found.validation)) == 20
    scores = [(r["validation_accuracy"], -r["validation_loss"]) for r in found.history]
    assert found.best_epoch == scores.index(max(scores))
    assert_equal_bits(found.variables, kept[found.best_epoch])
    assert len(found.history) in (12, found.best_epoch + 4)
    apply = make_apply(NET, found.variables, prepare=prepare)
    best = evaluate(apply, x[found.validation], y[found.validation], 10)
    record = found.history[found.best_epoch]
    assert record["num_train"] == 60 and record["num_validation"] == 20
    assert record["validation_accuracy"] == best.accuracy
    np.testing.assert_allclose(record["validation_loss"], best.loss, rtol=1e-5)


def test_patience_ends_a_training_that_gets_worse(digits, variables):
    x, y = digits[0][:60], np.random.default_rng(0).permutation(digits[1][:60])
    config = SMALL._replace(epochs=40, validation_fraction=0.3, patience=2)
    found = tune(variables, x, y, config=config)
    assert len(found.history) == found.best_epoch + 3 < 40


def test_held_out_images_are_not_trained_on(digits, variables):
    x, y = digits[0][:40], digits[1][:40]
    config = SMALL._replace(validation_fraction=0.25, epochs=1)
    first = tune(variables, x, y, config=config)
    spoiled = x.copy()
    spoiled[first.validation] = 255 - spoiled[first.validation]
    second = tune(variables, spoiled, y, config=config)
    assert_equal_bits(first.variables, second.variables)
    assert first.history[0]["validation_loss"] != second.history[0]["validation_loss"]


def test_too_few_labels_to_hold_out_are_noted(digits, variables):
    x, y = digits[0][:5], np.array([0, 1, 2, 1, 2])
    config = SMALL._replace(validation_fraction=0.2, patience=1)
    found = tune(variables, x, y, config=config)
    assert len(found.history) == 3 and len(found.validation) == 0
    assert all("no images held out" in record["note"] for record in found.history)
    assert "note" not in tune(variables, x, y, config=SMALL).history[0]


def test_an_interrupted_training_ends_bit_for_bit_the_same(digits, variables, tmp_path):
    x, y = digits[0][:40], digits[1][:40]
    config = SMALL._replace(epochs=4, validation_fraction=0.3, ema_decay=0.9, augment=noisy)

    def train(folder, on_epoch=None):
        folder = tmp_path / folder
        return tune(variables, x, y, config=config, checkpoint=folder, on_epoch=on_epoch)

    def interrupt(record, variables):
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    through = train("through")
    with pytest.raises(KeyboardInterrupt):
        train("cut", interrupt)
    epochs = []
    found = train("cut", lambda record, variables: epochs.append(record["epoch"]))
    assert epochs == [2, 3]
    assert found.history == through.history
    assert found.best_epoch == through.best_epoch
    assert_equal_bits(found.variables, through.variables)
    again = train("cut", interrupt)
    assert again.history == through.history
    assert_equal_bits(again.variables, through.variables)


def noisy(key, image):
    return jnp.clip(image + 0.3 * jax.random.normal(key, image.shape), 0, 1)


def test_a_checkpoint_of_another_training_is_refused(digits, variables, tmp_path):
    x, y = digits[0][:20], digits[1][:20]

    def train(images=x, **options):
        return tune(variables, images, y, checkpoint=tmp_path / "run", **options)

    first, again = train(), train()
    assert first.history == again.history
    assert_equal_bits(first.variables, again.variables)
    slower = SMALL._replace(head=OptimizerConfig(learning_rate=0.01))
    with pytest.raises(ValueError, match=r"config.head.learning_rate: expected 0.01, found 0.1"):
        train(config=slower)
    with pytest.raises(ValueError, match=r"images\.sha256"):
        train(images=x[::-1])
    with pytest.raises(ValueError, match="keys"):
        train(key=jax.random.key(5))
    for other in (None, functools.partial(shifted, by=0.4)):
        with pytest.raises(ValueError, match="prepare"):
            train(prepare=other)


def test_places_that_cannot_be_a_checkpoint_are_refused_before_training(
    digits, variables, tmp_path
):
    (tmp_path / "file").touch()
    for name in ("photos", "cut"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    write_record(tmp_path / "cut" / "settings.json", None, {"config": {"epochs": 9}})

    def augment(key, image):
        raise AssertionError("trained")

    for name, message in (
        ("file", "path: expected a folder, found the file"),
        ("photos", "path: expected a checkpoint or a free place"),
        ("cut", "saved with other settings"),
    ):
        with pytest.raises(ValueError, match=message):
            tune(variables, *(x[:8] for x in digits), checkpoint=tmp_path / name, augment=augment)


def test_augmentation_is_drawn_anew_for_every_image_and_epoch(digits, variables):
    x, y = np.repeat(digits[0][:1], 8, axis=0), np.zeros(8, int)
    config = SMALL._replace(encoder=STILL, head=STILL)

    def losses(**options):
        found = tune(variables, x, y, **options)
        return [record["loss"] for record in found.history]

    plain = losses(config=config)
    np.testing.assert_allclose(plain, plain[0], rtol=1e-6)
    augmented = losses(config=config._replace(augment=noisy))
    assert len(set(augmented)) == 3
    assert augmented == losses(config=config, augment=noisy)


def test_images_from_a_source_train_the_same(digits, variables, tmp_path):
    x, y = digits[0][:40], digits[1][:40]
    config = SMALL._replace(validation_fraction=0.2)
    a = tune(variables, x, y, config=config)
    b = tune(variables, from_arrays(x), y, config=config, checkpoint=tmp_path / "run")
    assert a.history == b.history
    assert_equal_bits(a.variables, b.variables)


def test_moving_averages_are_what_is_returned(digits, variables):
    x, y = digits[0][:16], digits[1][:16]
    live = []
    tune(variables, x, y, on_epoch=lambda record, now: live.append(jax.device_get(now)))
    found = tune(variables, x, y, config=SMALL._replace(ema_decay=0.9))
    # One step an epoch: the average over epochs is that over steps.
    expected = variables
    for moved in live:
        expected = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, expected, moved)
    for a, b in zip(*map(jax.tree.leaves, (found.variables, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_accumulated_batches_hold_all_images(digits, variables):
    x, y = digits[0][:21], digits[1][:21]
    a = tune(variables, x, y, config=PROBE)
    b = tune(variables, x, y, config=PROBE._replace(accumulate=3))
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(
            [r[name] for r in a.history], [r[name] for r in b.history], rtol=1e-4
        )


def test_bfloat16_trains_close_to_float32(digits, variables):
    x, y = digits
    config = FT_SMALL._replace(epochs=10)
    found = [
        tune(variables, x[:200], y[:200], config=config._replace(dtype=dtype))
        for dtype in ("float32", "bfloat16")
    ]
    leaves = jax.tree.leaves(found[1].variables)
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    a, b = ([record["loss"] for record in result.history] for result in found)
    assert a != b
    np.testing.assert_allclose(a, b, rtol=0.05, atol=0.01)
    first, second = (accuracy(result, x[600:], y[600:]) for result in found)
    assert abs(first - second) < 0.02


def test_lp_ft_starts_from_the_probe(digits, variables, tmp_path):
    x, y = digits
    config = LpftConfig(
        LPFT_SMALL.probe._replace(epochs=8, validation_fraction=0.2),
        LPFT_SMALL.finetune._replace(epochs=4, validation_fraction=0.2),
    )

    seen = []

    def train():
        return lp_ft(
            KEY,
            NET,
            variables,
            x[:100],
            y[:100],
            config=config,
            prepare=prepare,
            checkpoint=tmp_path / "run",
            on_epoch=lambda record, variables: seen.append((record["stage"], record["epoch"])),
        )

    probe, tuned = train()
    assert seen == [("probe", i) for i in range(8)] + [("finetune", i) for i in range(4)]
    assert_equal_bits(probe.variables["params"]["encoder"], variables["params"]["encoder"])
    np.testing.assert_array_equal(probe.validation, tuned.validation)
    split_key, _, tune_key = jax.random.split(KEY, 3)
    alone = tune(
        probe.variables,
        x[:100],
        y[:100],
        config=config.finetune,
        key=tune_key,
        split_key=split_key,
    )
    assert alone.history == tuned.history
    assert_equal_bits(alone.variables, tuned.variables)
    assert train()[1].history == tuned.history


@pytest.mark.filterwarnings("ignore:overflow")
def test_divergence_is_noticed(digits, variables):
    x, y = digits[0][:40], digits[1][:40]
    wild = OptimizerConfig(learning_rate=1e30)
    with pytest.raises(ValueError, match=r"diverged in epoch \d.*head at learning_rate 1e\+30"):
        tune(variables, x, y, config=SMALL._replace(encoder=wild, head=wild))
    # The loss of the only step is finite: what it makes of the weights is not.
    last = SMALL._replace(epochs=1, encoder=None, head=OptimizerConfig(learning_rate=1e39))
    with pytest.raises(ValueError, match=r"diverged in epoch 0 \(loss \d"):
        tune(variables, x[:16], y[:16], config=last)


class Plain(nn.Module):
    """A classifier without an encoder that has a dtype."""

    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        x = images.reshape(len(images), -1)
        return nn.Dense(10, name="head")(nn.Dense(4, name="encoder")(x)), x


def test_networks_without_statistics_train(digits):
    x, y = digits[0][:20], digits[1][:20]
    start = jax.jit(Plain().init)(KEY, jnp.zeros((1, 8, 8, 1)))
    found = finetune(KEY, Plain(), start, x, y, config=SMALL)
    assert set(found.variables) == {"params"}
    assert found.history[-1]["loss"] < found.history[0]["loss"]
    with pytest.raises(ValueError, match="dtype: expected a classifier whose encoder has one"):
        finetune(KEY, Plain(), start, x, y, config=SMALL._replace(dtype="bfloat16"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 8, 8, 1))}, "images: expected uint8"),
        ({"images": np.zeros((0, 8, 8, 1), np.uint8), "labels": []}, "images: expected one image"),
        ({"labels": [0]}, "labels: expected 2 labels, found 1"),
        ({"labels": [0, 10]}, "labels: expected labels in 0..9"),
        ({"variables": {"params": {"encoder": {}}}}, "variables: expected params of 'encoder'"),
        ({"variables": {}}, "variables: expected params"),
        ({"config": LPFT_SMALL}, "config: expected a FinetuneConfig, found LpftConfig"),
        ({"config": SMALL._replace(epochs=0)}, "epochs"),
        ({"augment": "flip"}, "augment: expected one of weak, strong"),
        ({"mesh": "data"}, "mesh"),
    ],
)
def test_bad_input_is_named(variables, change, message):
    given = {"images": np.zeros((2, 8, 8, 1), np.uint8), "labels": [0, 1], "variables": variables}
    given |= {"config": SMALL, "prepare": prepare} | change
    with pytest.raises(ValueError, match=message):
        finetune(KEY, NET, **given)


def test_lp_ft_names_bad_configurations(variables):
    images = np.zeros((2, 8, 8, 1), np.uint8)
    with pytest.raises(ValueError, match="config: expected an LpftConfig, found FinetuneConfig"):
        lp_ft(KEY, NET, variables, images, [0, 1], config=SMALL)
    bad = SMALL._replace(epochs=0)
    for config in (LpftConfig(bad, SMALL), LpftConfig(SMALL, bad)):
        stage = LpftConfig._fields[config.index(bad)]
        with pytest.raises(ValueError, match=rf"^config\.{stage}\.epochs: expected"):
            lp_ft(KEY, NET, variables, images, [0, 1], config=config)


def test_lp_ft_checks_the_second_checkpoint_before_the_first_training(variables, tmp_path):
    images = np.zeros((2, 8, 8, 1), np.uint8)
    (tmp_path / "finetune").touch()
    with pytest.raises(ValueError, match=r"found the file .*/finetune"):
        lp_ft(
            KEY,
            NET,
            variables,
            images,
            [0, 1],
            config=LpftConfig(SMALL, SMALL),
            checkpoint=tmp_path,
        )
    assert not (tmp_path / "probe").exists()
