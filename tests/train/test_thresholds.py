import collections

import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.train.thresholds import (
    RULES,
    fairness,
    flexmatch_thresholds,
    freematch_thresholds,
    init_memory,
    place,
)

N, C, M = 30, 4, 8
OPTIONS = {"cutoff": 0.8, "decay": 0.9}


def batches(count, seed=0):
    """Draw batches of confident and of unsure predictions, with padding at the end of some."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        logits = 3 * rng.normal(size=(M, C)) + [2, 0, 0, -1]
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        yield probs.astype(np.float32), rng.permutation(N)[:M], np.arange(M) < M - i % 3


def run(method, count=12):
    """Give what the rule says of each batch, and the memory after it."""
    memory, found = init_memory(N, C), []
    for probs, rows, mask in batches(count):
        thresholds, memory = RULES[method](
            memory, jnp.asarray(probs), jnp.asarray(rows), jnp.asarray(mask), **OPTIONS
        )
        found.append((np.asarray(thresholds), memory))
    return found


def test_fixmatch_has_one_threshold():
    for thresholds, memory in run("fixmatch"):
        np.testing.assert_allclose(thresholds, np.full(C, 0.8), rtol=1e-6)
        assert (memory.confident == -1).all()


def test_flexmatch_equals_a_transcription():
    selected = [-1] * N
    for (probs, rows, mask), (thresholds, memory) in zip(
        batches(12), run("flexmatch"), strict=True
    ):
        counter = collections.Counter(selected)
        expected = []
        for c in range(C):
            beta = counter[c] / max(counter.values())
            expected.append(0.8 * (beta / (2.0 - beta)))
        np.testing.assert_allclose(thresholds, expected, rtol=1e-5)
        for i in range(M):
            if mask[i] and probs[i].max() >= 0.8:
                selected[rows[i]] = int(probs[i].argmax())
        np.testing.assert_array_equal(memory.confident, selected)
    assert len(set(selected)) > 2


@pytest.mark.parametrize(
    ("confident", "expected"),
    [
        ([-1, -1, -1, -1], [0, 0]),
        ([0, 0, 0, 0], [0.9, 0]),
        ([0, 0, 1, 1], [0.9, 0.9]),
        # As many never predicted so as of the largest class, and more.
        ([0, -1, 1, 0], [0.9, 0.9 * 0.5 / 1.5]),
        ([0, -1, -1, -1], [0.9 * (1 / 3) / (5 / 3), 0]),
    ],
)
def test_flexmatch_thresholds_by_hand(confident, expected):
    found = flexmatch_thresholds(jnp.asarray(confident), 2, 0.9)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_freematch_equals_a_transcription():
    time, model, histogram = 1 / C, np.full(C, 1 / C), np.full(C, 1 / C)
    for (probs, _, mask), (thresholds, memory) in zip(batches(12), run("freematch"), strict=True):
        kept = probs[mask].astype(float)
        time = time * 0.9 + 0.1 * kept.max(1).mean()
        model = model * 0.9 + 0.1 * kept.mean(0)
        counts = np.bincount(kept.argmax(1), minlength=C)
        histogram = histogram * 0.9 + 0.1 * counts / counts.sum()
        np.testing.assert_allclose(thresholds, time * model / model.max(), rtol=1e-5)
        np.testing.assert_allclose(memory.histogram, histogram, rtol=1e-5)
        np.testing.assert_array_equal(thresholds, freematch_thresholds(memory))


def test_fairness_equals_a_transcription():
    _, memory = run("freematch")[-1]
    probs, _, used = next(batches(1, seed=5))
    used = np.arange(M) % 3 > 0
    kept = probs[used].astype(float)
    counts = np.bincount(kept.argmax(1), minlength=C) / len(kept)
    with np.errstate(divide="ignore"):
        inverse = np.where(counts > 0, 1 / counts, 0)
    expected = np.asarray(memory.mean_probs, float) / np.asarray(memory.histogram, float)
    expected /= expected.sum()
    found = kept.mean(0) * inverse
    found /= found.sum()
    loss = (expected * np.log(found + 1e-12)).sum()
    value = fairness(memory, jnp.asarray(probs), jnp.asarray(used))
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    assert fairness(memory, jnp.asarray(probs), jnp.zeros(M, bool)) == 0


def test_only_what_is_asked_for_is_written():
    memory = jnp.full(5, -1, jnp.int32)
    found = place(memory, jnp.array([4, 0, 4]), jnp.array([2, 1, 3]), jnp.array([1, 1, 0], bool))
    np.testing.assert_array_equal(found, [1, -1, -1, -1, 2])
