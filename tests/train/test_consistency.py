import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.train.consistency import consistency_losses, make_semi_loss, posterior
from jaxal.train.thresholds import init_memory

C, D, N = 3, 5, 20
KEY = jax.random.key(0)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False, mask=None):
        return x


NET = Classifier(Plain(), DenseHead((), C))


def shifted(key, x):
    return x + 0.5


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def batch(prior, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "labeled": {
            "images": rng.normal(size=(4, D)).astype(np.float32),
            "labels": np.array([0, 2, 1, 1]),
            "mask": np.array([1, 1, 1, 0], bool),
        },
        "unlabeled": {
            "images": 2 * rng.normal(size=(7, D)).astype(np.float32),
            "rows": rng.permutation(N)[:7],
            "prior": prior,
            "mask": np.arange(7) < 6,
        },
        "memory": init_memory(N, C),
    }


class Transcription:
    """The three methods with a prior, one sample at a time."""

    def __init__(self, params, method, *, cutoff, decay, weight, fairness, targets, judge):
        self.kernel = np.asarray(params["head"]["output"]["kernel"], float)
        self.bias = np.asarray(params["head"]["output"]["bias"], float)
        self.method, self.cutoff, self.decay = method, cutoff, decay
        self.weight, self.fairness, self.targets, self.judge = weight, fairness, targets, judge
        self.confident, self.used = [-1] * N, [-1] * N
        self.time, self.model, self.histogram = 1 / C, np.full(C, 1 / C), np.full(C, 1 / C)

    def probs(self, x):
        return softmax(np.asarray(x, float) @ self.kernel + self.bias)

    def thresholds(self, judged):
        if self.method == "fixmatch":
            return [self.cutoff] * C
        if self.method == "flexmatch":
            counts = [self.confident.count(c) for c in range(-1, C)]
            shares = [count / max(counts) for count in counts[1:]]
            return [self.cutoff * share / (2 - share) for share in shares]
        self.time = self.decay * self.time + (1 - self.decay) * judged.max(1).mean()
        self.model = self.decay * self.model + (1 - self.decay) * judged.mean(0)
        counts = np.bincount(judged.argmax(1), minlength=C)
        self.histogram = self.decay * self.histogram + (1 - self.decay) * counts / counts.sum()
        return self.time * self.model / self.model.max()

    def spread(self, kept):
        shares = np.bincount(kept.argmax(1), minlength=C) / len(kept)
        mean = kept.mean(0)
        found = np.array([mean[c] / shares[c] if shares[c] > 0 else 0 for c in range(C)])
        expected = self.model / self.histogram
        expected, found = expected / expected.sum(), found / found.sum()
        return sum(expected[c] * np.log(found[c] + 1e-12) for c in range(C))

    def step(self, given):
        labeled, unlabeled = given["labeled"], given["unlabeled"]
        known = self.probs(labeled["images"])
        supervised = np.mean([-np.log(known[i, labeled["labels"][i]]) for i in range(3)])
        weakly = self.probs(unlabeled["images"])[:6]
        strongly = self.probs(unlabeled["images"] + 0.5)[:6]
        prior = np.asarray(unlabeled["prior"], float)[:6]
        mixed = (prior + weakly) / (prior.sum(1, keepdims=True) + 1)
        judged = mixed if self.judge == "posterior" else weakly
        thresholds = self.thresholds(judged)
        total, kept = 0.0, []
        for i in range(6):
            row = int(unlabeled["rows"][i])
            if self.method == "flexmatch" and judged[i].max() >= self.cutoff:
                self.confident[row] = int(judged[i].argmax())
            if judged[i].max() < thresholds[judged[i].argmax()]:
                continue
            hard = np.eye(C)[mixed[i].argmax()]
            aim = mixed[i] if self.targets == "soft" and prior[i].any() else hard
            total += -(aim * np.log(strongly[i])).sum()
            kept.append(strongly[i])
            self.used[row] = int(mixed[i].argmax())
        loss = supervised + self.weight * total / 6
        if self.method == "freematch" and kept:
            loss += self.fairness * self.spread(np.array(kept))
        return supervised, total / 6, loss, len(kept) / 6


PRIORS = {
    "hard": np.eye(C, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0]],
    "soft": softmax(np.random.default_rng(3).normal(size=(7, C))).astype(np.float32),
    "some": np.eye(C, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0]] * (np.arange(7) % 2)[:, None],
}


OPTIONS = {"cutoff": 0.45, "decay": 0.6, "targets": "soft", "judge": "prediction"}


def start():
    params = NET.init(KEY, np.zeros((1, D), np.float32))["params"]
    params["head"]["output"]["bias"] = jnp.array([0.3, -0.2, 0.1])
    return params


@pytest.mark.parametrize("method", ["fixmatch", "flexmatch", "freematch"])
@pytest.mark.parametrize(
    ("targets", "judge", "prior"),
    [
        ("soft", "prediction", "some"),
        ("soft", "posterior", "soft"),
        ("hard", "prediction", "hard"),
    ],
)
def test_losses_and_memory_equal_a_transcription(method, targets, judge, prior):
    params = start()
    options = OPTIONS | {"targets": targets, "judge": judge}
    loss_fn = make_semi_loss(
        NET,
        method,
        weak=None,
        strong=shifted,
        unlabeled_weight=0.7,
        fairness_weight=0.4,
        **options,
    )
    expected = Transcription(params, method, weight=0.7, fairness=0.4, **options)
    memory, rates = init_memory(N, C), []
    for seed in range(4):
        given = batch(PRIORS[prior].astype(np.float32), seed)
        arrays = jax.tree.map(jnp.asarray, given | {"memory": memory})
        loss, aux = loss_fn(params, {}, arrays, KEY)
        memory = aux.memory
        supervised, unsupervised, whole, rate = expected.step(given)
        np.testing.assert_allclose(loss, whole, rtol=1e-5)
        np.testing.assert_allclose(aux.metrics["supervised_loss"], supervised, rtol=1e-5)
        np.testing.assert_allclose(aux.metrics["unsupervised_loss"], unsupervised, rtol=1e-5)
        np.testing.assert_allclose(aux.metrics["mask_rate"], rate, rtol=1e-6)
        np.testing.assert_array_equal(memory.used, expected.used)
        np.testing.assert_array_equal(memory.confident, expected.confident)
        np.testing.assert_allclose(memory.mean_confidence, expected.time, rtol=1e-5)
        np.testing.assert_allclose(memory.mean_probs, expected.model, rtol=1e-5)
        np.testing.assert_allclose(memory.histogram, expected.histogram, rtol=1e-5)
        rates.append(rate)
    assert max(rates) > 0


def test_weak_views_have_no_gradient():
    # All that the kernel can learn of unlabelled samples comes through weak views: strong ones are
    # zeros, whose logits are the bias.
    params = start()
    loss_fn = make_semi_loss(
        NET,
        "fixmatch",
        weak=None,
        strong=lambda key, x: 0 * x,
        unlabeled_weight=1.0,
        fairness_weight=0.0,
        **OPTIONS | {"cutoff": 0.0},
    )
    given = jax.tree.map(jnp.asarray, batch(PRIORS["soft"]))

    def gradient(given):
        found = jax.grad(lambda p: loss_fn(p, {}, given, KEY)[0])(params)
        return found["head"]["output"]["kernel"]

    with_pool = gradient(given)
    given["unlabeled"]["mask"] = jnp.zeros(7, bool)
    np.testing.assert_allclose(with_pool, gradient(given), atol=1e-7)


def test_posterior_and_losses_by_hand():
    probs = jnp.array([[0.6, 0.4], [0.6, 0.4]])
    found = posterior(jnp.array([[0.0, 1.0], [0.0, 0.0]]), probs)
    np.testing.assert_allclose(found, [[0.3, 0.7], [0.6, 0.4]], rtol=1e-6)
    losses = consistency_losses(jnp.zeros((2, 2)), found, jnp.array([True, False]))
    np.testing.assert_allclose(losses, [np.log(2), 0], rtol=1e-6)
