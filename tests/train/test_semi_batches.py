import collections
import itertools

import jax
import numpy as np
import pytest

from jaxal.train import semi_batches
from jaxal.train.semi_batches import (
    make_batches,
    pass_steps,
    plan_chain,
    plan_passes,
    plan_turns,
)

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(12, 4, [4, 4, 4]), (9, 8, [5, 4]), (8, 8, [8]), (3, 8, [3]), (1, 1, [1])],
)
def test_passes_see_all_samples_once(count, size, sizes):
    assert pass_steps(count, size) == len(sizes)
    plans = list(plan_passes(KEY, count, size, 0, 2 * len(sizes)))
    assert [plan.mask.sum() for plan in plans] == 2 * sizes
    assert {len(plan.rows) for plan in plans} == {max(sizes)}
    for part in (plans[: len(sizes)], plans[len(sizes) :]):
        seen = np.concatenate([plan.rows[plan.mask] for plan in part])
        np.testing.assert_array_equal(np.sort(seen), np.arange(count))


def test_orders_differ_from_pass_to_pass():
    first, second = (plan.rows for plan in plan_passes(KEY, 50, 50, 0, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("count", "size"), [(3, 8), (4, 4), (1, 5), (5, 7)])
def test_turns_are_equal_up_to_one(count, size, monkeypatch):
    monkeypatch.setattr(semi_batches, "_DRAWN", 4)
    plans = list(plan_turns(KEY, count, size, 0, 9))
    for plan in plans:
        counts = collections.Counter(plan.rows.tolist())
        assert set(counts) == set(range(count))
        assert max(counts.values()) - min(counts.values()) <= 1
        assert plan.mask.all()
    counted = {tuple(np.bincount(plan.rows, minlength=count)) for plan in plans}
    assert (len(counted) > 1) == (size % count > 0)


@pytest.mark.parametrize(("count", "size"), [(9, 4), (5, 4), (20, 16), (4, 4)])
def test_chained_passes_have_whole_batches(count, size):
    plans = list(plan_chain(KEY, count, size, 0, 3 * count))
    assert all(plan.mask.sum() == size == len(plan.rows) for plan in plans)
    seen = np.concatenate([plan.rows for plan in plans])
    for turn in seen.reshape(-1, count):
        np.testing.assert_array_equal(np.sort(turn), np.arange(count))
    assert not np.array_equal(seen[:count], seen[count : 2 * count])


@pytest.mark.parametrize("plan", [plan_chain, plan_passes, plan_turns])
def test_a_step_sees_the_same_wherever_the_steps_begin(plan, monkeypatch):
    monkeypatch.setattr(semi_batches, "_DRAWN", 4)
    whole = list(plan(KEY, 7, 8 if plan is plan_turns else 3, 0, 11))
    for start in (1, 3, 4, 10):
        parts = plan(KEY, 7, 8 if plan is plan_turns else 3, start, 11)
        for found, expected in zip(parts, whole[start:], strict=True):
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.mask, expected.mask)


@pytest.mark.parametrize("start", [0, 2, 5])
def test_priors_go_with_their_samples_until_the_switch(start):
    images = np.arange(10, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    prior = np.eye(4, dtype=np.float32)[np.arange(10) % 4]
    rows, labels = np.array([7, 2]), np.array([3, 1], np.int32)
    given = make_batches(
        KEY, images, rows, labels, prior, 4, labeled_size=3, unlabeled_size=4, mesh=None
    )
    steps = list(given.steps(start, 8, 4))
    assert len(steps) == 8 - start
    for step, batch in enumerate(steps, start):
        pool = batch["unlabeled"]
        numbers = np.asarray(pool["images"])[:, 0].astype(int)
        np.testing.assert_array_equal(pool["rows"], numbers)
        wanted = prior[numbers] if step < 4 else np.zeros((4, 4))
        np.testing.assert_array_equal(pool["prior"], wanted)
        known = batch["labeled"]
        expected = dict(zip(rows.tolist(), labels.tolist(), strict=True))
        for image, label in zip(known["images"], known["labels"], strict=True):
            assert expected[int(image[0])] == label


def test_without_a_prior_there_are_zeros():
    images = np.zeros((5, 2), np.float32)
    given = make_batches(
        KEY, images, np.arange(2), np.zeros(2, np.int32), None, 3,
        labeled_size=2, unlabeled_size=2, mesh=None,
    )  # fmt: skip
    for batch in itertools.islice(given.steps(0, 4, 0), 4):
        assert batch["unlabeled"]["prior"].shape == (2, 3)
        assert not np.asarray(batch["unlabeled"]["prior"]).any()
