import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxal.augment.features import feature_view
from jaxal.augment.presets import weak
from jaxal.data import from_arrays
from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.train.evaluate import evaluate, make_apply
from jaxal.train.optimizers import OptimizerConfig
from jaxal.train.schedules import ScheduleConfig
from jaxal.train.semi_recipes import SemiConfig
from jaxal.train.semisupervised import train_semi

KEY = jax.random.key(0)
C = 4
RATE = OptimizerConfig(learning_rate=0.05)
CONFIG = SemiConfig(
    steps=12,
    labeled_batch_size=4,
    unlabeled_ratio=2,
    cutoff=0.5,
    encoder=RATE,
    head=RATE,
    ema_decay=0.5,
    weak=feature_view(noise=0.05),
    strong=feature_view(noise=0.3),
    record_every=5,
)


class Nothing(nn.Module):
    """An encoder without parameters."""

    def __call__(self, x, *, train=False, mask=None):
        return x


class Convolution(nn.Module):
    """A convolution with batch normalisation."""

    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        x = nn.Conv(4, (3, 3))(images)
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
        x = norm(x, mask=None if mask is None else mask[:, None, None, None])
        return nn.relu(x).reshape(len(x), -1)


def noisy(key, image):
    return image + 0.1 * jax.random.normal(key, image.shape)


class StoppedError(Exception):
    """Stands for a kill."""


NET = Classifier(Nothing(), DenseHead((), C))


def blobs(n=60, seed=0):
    rng = np.random.default_rng(seed)
    centers = 4 * rng.normal(size=(C, 6))
    labels = np.arange(n) % C
    return (centers[labels] + rng.normal(size=(n, 6))).astype(np.float32), labels


X, Y = blobs()
ROWS = np.array([5, 0, 3, 2, 9])


@functools.cache
def start():
    return jax.jit(NET.init)(KEY, X[:1])


def train(config=CONFIG, *, images=X, rows=ROWS, labels=None, **options):
    labels = Y[rows] if labels is None else labels
    return train_semi(KEY, NET, start(), images, rows, labels, config=config, **options)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)
    np.testing.assert_array_equal(a.pseudo_labels, b.pseudo_labels)


@pytest.mark.parametrize("method", ["fixmatch", "flexmatch", "freematch"])
def test_clusters_are_learned(method):
    config = CONFIG._replace(method=method, steps=150, record_every=50)
    found = train(config)
    apply = make_apply(NET, found.variables)
    assert evaluate(apply, X, Y, C).accuracy > 0.95
    assert [record["step"] for record in found.history] == [50, 100, 150]
    for record in found.history:
        assert record["with_prior"] == 0
        assert 0 <= record["mask_rate"] <= 1
        assert len(record["thresholds"]) == C
        assert record["unseen"] == []
    used = found.pseudo_labels >= 0
    assert (found.pseudo_labels[used] == Y[used]).mean() > 0.95
    assert found.history[-1]["mask_rate"] > 0.5


def test_the_weights_given_stay_and_the_last_ones_come_back():
    found = train()
    assert set(found.variables) == {"params"}
    assert not start()["params"]["head"]["output"]["kernel"].is_deleted()
    last = train(CONFIG._replace(ema_decay=None))
    kernels = [x.variables["params"]["head"]["output"]["kernel"] for x in (found, last)]
    assert not np.array_equal(*kernels)


def test_the_prior_is_dropped_at_the_switching_point():
    wrong = (Y + 1) % C
    free = train()
    with_prior = train(prior=wrong)
    assert [r["with_prior"] for r in with_prior.history] == [pytest.approx(4 / 5), 0, 0]
    assert with_prior.history[0]["loss"] != free.history[0]["loss"]
    # Without time for the prior, all is as without one, bit for bit.
    assert_same(train(CONFIG._replace(switch=0), prior=wrong), free)
    always = train(CONFIG._replace(switch=1), prior=wrong)
    assert [r["with_prior"] for r in always.history] == [1, 1, 1]


def test_hard_priors_are_shares_of_one_class():
    assert_same(train(prior=Y), train(prior=np.eye(C)[Y]))


def test_true_labels_of_others_reach_nothing():
    # All that is passed in is the labels of the labelled samples; the pool of a source brings the
    # labels of all along, which are permuted here.
    images = np.random.default_rng(1).integers(0, 256, (30, 6, 6, 1), np.uint8)
    truth = np.arange(30) % 3
    rows = np.array([4, 1, 2])
    others = np.setdiff1d(np.arange(30), rows)
    permuted = truth.copy()
    permuted[others] = np.random.default_rng(2).permutation(truth[others])
    assert not np.array_equal(permuted, truth)
    net = Classifier(Convolution(), DenseHead((), 3))
    variables = jax.jit(net.init)(KEY, images[:1] / np.float32(255))
    config = CONFIG._replace(steps=3, weak=None, strong=noisy)
    results = [
        train_semi(KEY, net, variables, from_arrays(images, y), rows, truth[rows], config=config)
        for y in (truth, permuted)
    ]
    assert_same(*results)
    assert results[0].history == results[1].history
    resident = train_semi(KEY, net, variables, images, rows, truth[rows], config=config)
    assert_same(resident, results[0])


@pytest.mark.parametrize("method", ["flexmatch", "freematch"])
@pytest.mark.parametrize("stop", [1, 2])
def test_a_training_that_was_stopped_goes_on_to_the_same_end(method, stop, tmp_path):
    config = CONFIG._replace(method=method)
    whole = train(config, prior=Y)

    def halt(record, variables):
        if record["step"] == 5 * stop:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(config, prior=Y, checkpoint=tmp_path / "c", on_record=halt)
    steps = []
    found = train(
        config,
        prior=Y,
        checkpoint=tmp_path / "c",
        on_record=lambda record, _: steps.append(record["step"]),
    )
    assert steps == [5, 10, 12][stop:]
    assert_same(found, whole)
    assert found.history == whole.history


def test_another_training_is_not_gone_on_with(tmp_path):
    train(checkpoint=tmp_path / "c", prior=Y)
    for changed in (
        {"prior": (Y + 1) % C},
        {"prior": None},
        {"prior": Y, "labels": Y[ROWS][::-1].copy()},
        {"prior": Y, "config": CONFIG._replace(cutoff=0.6)},
    ):
        with pytest.raises(ValueError, match=r"saved with (other|another)"):
            train(checkpoint=tmp_path / "c", **changed)


def test_the_monitor_sees_variables_and_pseudo_labels():
    def monitor(variables, pseudo_labels):
        assert pseudo_labels.shape == (60,)
        return {"used": (pseudo_labels >= 0).mean(), "accuracy": 0.5}

    history = train(monitor=monitor).history
    assert [record["accuracy"] for record in history] == [0.5] * 3
    used = [record["used"] for record in history]
    assert used == sorted(used)


def test_a_pool_smaller_than_a_batch_is_one_batch():
    config = CONFIG._replace(
        unlabeled_ratio=50, steps=3, record_every=3, cutoff=0.0, method="fixmatch"
    )
    found = train(config)
    # All samples were seen, each once a step.
    assert (found.pseudo_labels >= 0).all()
    assert found.history[0]["mask_rate"] == 1


def test_more_labels_than_a_batch_are_trained_on():
    config = CONFIG._replace(labeled_batch_size=2, steps=40, record_every=40, unlabeled_weight=0.0)
    found = train(config, rows=np.arange(60), labels=Y)
    assert evaluate(make_apply(NET, found.variables), X, Y, C).accuracy > 0.9


def test_a_training_can_stop_early_and_go_on(tmp_path):
    steps = []

    def told(record, _):
        steps.append(record["step"])

    first = train(checkpoint=tmp_path / "c", stop_at=4, on_record=told)
    assert steps == [5] and first.history[-1]["step"] == 5
    found = train(checkpoint=tmp_path / "c", on_record=told)
    assert steps == [5, 10, 12]
    assert_same(found, train())


def test_integer_features_are_not_taken_for_pixels():
    whole = np.round(10 * X)
    assert_same(train(images=whole.astype(np.int64)), train(images=whole))


def test_the_prior_of_a_sample_is_its_own():
    # One step, all weight on pseudo-labels that the prior decides.
    config = CONFIG._replace(
        steps=1, record_every=1, unlabeled_ratio=50, cutoff=0.0, method="fixmatch", switch=1.0,
        encoder=RATE._replace(learning_rate=1e-6), head=RATE._replace(learning_rate=1e-6),
    )  # fmt: skip
    sure = np.random.default_rng(0).integers(0, C, 60)
    found = train(config, prior=sure, images=X * 1e-3)
    np.testing.assert_array_equal(found.pseudo_labels, sure)


def test_classes_without_label_are_told():
    rows = np.flatnonzero(Y != 1)[:6]
    found = train(rows=rows)
    assert all(record["unseen"] == [1] for record in found.history)
    assert np.isfinite(found.history[-1]["loss"])


def test_equal_samples_are_trained_on():
    found = train(images=np.ones((60, 6), np.float32))
    assert np.isfinite(found.history[-1]["loss"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": np.zeros(0, int), "labels": []}, "labeled: expected one labelled sample or more"),
        ({"rows": [1, 1], "labels": [0, 1]}, "labeled"),
        ({"rows": [60], "labels": [0]}, "labeled"),
        ({"labels": [0, 1]}, "labels"),
        ({"labels": [0, 1, 2, 3, 4]}, "labels"),
        ({"images": np.full((60, 6), np.nan)}, "images"),
        ({"images": np.zeros((60, 6, 6))}, r"images: expected uint8 .*, features \[n, d\]"),
        ({"images": X.tolist()}, "images: expected uint8 .*, found list"),
        ({"images": np.zeros((60, 6), np.uint8)}, "images: expected features of another dtype"),
        ({"stop_at": 0}, "stop_at"),
        (
            {"config": CONFIG._replace(weak=weak())},
            r"config.weak: expected an augmentation of samples \(6,\), such as .*feature_view",
        ),
        (
            {"config": CONFIG._replace(strong=lambda key, x: x[:3])},
            r"config.strong: expected views of the weak ones' shape \(6,\), found \(3,\)",
        ),
        (
            {"config": CONFIG._replace(schedule=ScheduleConfig("cosine", warmup_epochs=9))},
            "config.schedule.warmup_epochs: expected less than the 12 steps, found 9 passes",
        ),
        ({"prior": np.zeros((60, 3))}, r"prior: expected \[60\] classes or shares \[60, 4\]"),
        ({"prior": np.zeros((60, 4))}, r"prior: .* sum to 1 in each row, found \[0.0, .* in row 0"),
        ({"prior": np.full((60, 4), np.nan)}, "prior"),
        ({"prior": np.full(60, 4)}, "prior: expected labels in 0..3"),
        ({"config": CONFIG._replace(steps=0)}, "config.steps"),
        (
            {"config": CONFIG._replace(head=OptimizerConfig(learning_rate=1e38))},
            r"diverged in steps 0..4 .* with learning rates 1e\+38 of the head",
        ),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


@pytest.mark.slow
def test_a_prior_helps_a_few_labels_on_the_digits():
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target
    rows = np.array([np.flatnonzero(y == c)[0] for c in range(10)])
    net = Classifier(Nothing(), DenseHead((), 10))
    variables = jax.jit(net.init)(KEY, x[:1])
    config = CONFIG._replace(steps=300, labeled_batch_size=32, cutoff=0.95, ema_decay=0.99)
    accuracy = []
    for prior in (None, y):
        found = train_semi(KEY, net, variables, x, rows, y[rows], config=config, prior=prior)
        accuracy.append(evaluate(make_apply(net, found.variables), x, y, 10).accuracy)
    assert accuracy[1] > accuracy[0] + 0.05
