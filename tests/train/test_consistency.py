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


def transcription(params, given, *, cutoff, weight, targets, judge):
    """Compute FixMatch's loss with a prior, one sample at a time."""
    kernel = np.asarray(params["head"]["output"]["kernel"], float)
    bias = np.asarray(params["head"]["output"]["bias"], float)
    labeled, unlabeled = given["labeled"], given["unlabeled"]

    def probs(x):
        return softmax(np.asarray(x, float) @ kernel + bias)

    known = probs(labeled["images"])
    supervised = np.mean([-np.log(known[i, labeled["labels"][i]]) for i in range(3)])
    weakly, strongly = probs(unlabeled["images"]), probs(unlabeled["images"] + 0.5)
    total, used, classes = 0.0, 0, {}
    for i in range(6):
        prior = np.asarray(unlabeled["prior"][i], float)
        mixed = (prior + weakly[i]) / (prior.sum() + 1)
        judged = mixed if judge == "posterior" else weakly[i]
        if judged.max() < cutoff:
            continue
        hard = np.eye(C)[mixed.argmax()]
        aim = mixed if targets == "soft" and prior.any() else hard
        total += -(aim * np.log(strongly[i])).sum()
        used += 1
        classes[int(unlabeled["rows"][i])] = int(mixed.argmax())
    return supervised, total / 6, supervised + weight * total / 6, used / 6, classes


PRIORS = {
    "none": np.zeros((7, C), np.float32),
    "hard": np.eye(C, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0]],
    "soft": softmax(np.random.default_rng(3).normal(size=(7, C))).astype(np.float32),
    "some": np.eye(C, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0]] * (np.arange(7) % 2)[:, None],
}


@pytest.mark.parametrize("targets", ["soft", "hard"])
@pytest.mark.parametrize("judge", ["prediction", "posterior"])
@pytest.mark.parametrize("prior", PRIORS)
def test_the_loss_equals_a_transcription(prior, targets, judge):
    given = batch(PRIORS[prior].astype(np.float32))
    params = NET.init(KEY, np.zeros((1, D), np.float32))["params"]
    loss_fn = make_semi_loss(
        NET,
        "fixmatch",
        weak=None,
        strong=shifted,
        cutoff=0.45,
        decay=0.9,
        unlabeled_weight=0.7,
        fairness_weight=1.0,
        targets=targets,
        judge=judge,
    )
    loss, aux = loss_fn(params, {}, jax.tree.map(jnp.asarray, given), KEY)
    supervised, unsupervised, whole, rate, classes = transcription(
        params, given, cutoff=0.45, weight=0.7, targets=targets, judge=judge
    )
    np.testing.assert_allclose(loss, whole, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["supervised_loss"], supervised, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["unsupervised_loss"], unsupervised, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["mask_rate"], rate, rtol=1e-6)
    expected = [classes.get(row, -1) for row in range(N)]
    np.testing.assert_array_equal(aux.memory.used, expected)
    assert 0 < rate


def test_weak_views_have_no_gradient():
    given = jax.tree.map(jnp.asarray, batch(PRIORS["none"]))
    params = NET.init(KEY, np.zeros((1, D), np.float32))["params"]
    options = {"cutoff": 0.0, "decay": 0.9, "fairness_weight": 0.0}
    options |= {"targets": "soft", "judge": "prediction", "unlabeled_weight": 1.0}

    def gradient(strong, weak):
        loss_fn = make_semi_loss(NET, "fixmatch", weak=weak, strong=strong, **options)
        return jax.grad(lambda p: loss_fn(p, {}, given, KEY)[0])(params)

    # A strong view of zeros: all that is left of the unlabelled samples' gradient is the bias's.
    zero = gradient(lambda key, x: 0 * x, None)
    twice = gradient(lambda key, x: 0 * x, lambda key, x: x)
    np.testing.assert_array_equal(
        zero["head"]["output"]["kernel"], twice["head"]["output"]["kernel"]
    )
    given["unlabeled"]["mask"] = jnp.zeros(7, bool)
    alone = gradient(lambda key, x: 0 * x, None)
    np.testing.assert_allclose(
        zero["head"]["output"]["kernel"], alone["head"]["output"]["kernel"], atol=1e-7
    )


def test_posterior_and_losses_by_hand():
    probs = jnp.array([[0.6, 0.4], [0.6, 0.4]])
    found = posterior(jnp.array([[0.0, 1.0], [0.0, 0.0]]), probs)
    np.testing.assert_allclose(found, [[0.3, 0.7], [0.6, 0.4]], rtol=1e-6)
    losses = consistency_losses(jnp.zeros((2, 2)), found, jnp.array([True, False]))
    np.testing.assert_allclose(losses, [np.log(2), 0], rtol=1e-6)
