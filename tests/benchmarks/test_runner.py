import json

import numpy as np
import pytest

from benchmarks.data import Data, draw_pool
from benchmarks.folder import open_folder
from benchmarks.plan import Entry, Plan, check_plan
from benchmarks.runner import run_plan
from jaxal.select import STRATEGIES, Strategy, unlabeled
from jaxal.train.head import LINEAR, PROXY


def entries(*names):
    return {name: Entry(name) for name in names}


PLAN = Plan("custom", entries("random"), (3, 4), (0, 1))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    means = 4 * rng.normal(size=(3, 5))
    labels, test_labels = rng.integers(3, size=50), rng.integers(3, size=20)
    features, test = (means[y] + rng.normal(size=(len(y), 5)) for y in (labels, test_labels))
    return Data(features.astype(np.float32), labels, test.astype(np.float32), test_labels, 3)


def rows_of(plan, data, out):
    open_folder(out, plan, data, resume=False, overwrite=False)
    return run_plan(plan, data, out)


def test_gives_a_row_a_round(data, tmp_path):
    rows = rows_of(PLAN._replace(entries=entries("random", "coreset")), data, tmp_path)
    assert [row[:3] for row in rows] == [
        (name, seed, count) for name in ("random", "coreset") for seed in (0, 1) for count in (3, 7)
    ]
    for row in rows:
        assert row.accuracy * 20 == pytest.approx(round(row.accuracy * 20))
        assert row.pool_accuracy * 50 == pytest.approx(round(row.pool_accuracy * 50))
        assert row.estimated_risk is None


def test_the_holdout_takes_the_place_of_the_test_set(data, tmp_path):
    plan = PLAN._replace(holdout=10)
    held = rows_of(plan, data, tmp_path / "held")
    broken = data._replace(test_labels=(data.test_labels + 1) % 3)
    assert [r[:5] for r in rows_of(plan, broken, tmp_path / "broken")] == [r[:5] for r in held]
    for row in held:
        assert row.accuracy * 10 == pytest.approx(round(row.accuracy * 10))


def test_a_variant_is_a_strategy_by_another_name(data, tmp_path):
    options = {"kernel_width": 16, "num_restarts": 1}
    both = {name: Entry("ntkcpl", options) for name in ("ntkcpl", "same")}
    plan = PLAN._replace(entries=both, seeds=(0,))
    rows = rows_of(plan, data, tmp_path)
    first, second = rows[:2], rows[2:]
    assert [row.strategy for row in rows] == ["ntkcpl"] * 2 + ["same"] * 2
    assert [r[1:5] + r[7:] for r in first] == [r[1:5] + r[7:] for r in second]
    assert all(0 <= row.estimated_risk <= 1 for row in rows)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"entries": {}}, "strategies: expected at least one"),
        ({"entries": entries("oracle")}, "expected one of .*random.*found 'oracle'"),
        ({"seeds": (1, 1)}, "seeds: expected at least one, each once"),
        ({"budgets": ()}, "budgets: expected at least one round"),
        ({"holdout": 45}, "budgets: expected at most 5"),
        ({"holdout": 50}, "pool-size: expected at most 0 beside 50 held out, found all"),
        ({"holdout": 10, "pool_size": 45}, "at most 40 beside 10 held out, found 45"),
        ({"entries": {"a b": Entry("random")}}, "--variant: expected a name"),
        ({"entries": {"margin": Entry("random")}}, "that is no strategy's, found 'margin'"),
        ({"entries": {"a": Entry("ntkcpl", {"kernel": 1})}}, "--variant a: expected one of"),
        ({"entries": {"coreset": Entry("coreset", {"x": 1})}}, "--option coreset: expected one"),
    ],
)
def test_refuses_a_plan(changes, match):
    with pytest.raises(ValueError, match=match):
        check_plan(PLAN._replace(**changes), 50)


def test_variants_alone_are_a_plan():
    check_plan(PLAN._replace(entries={"a": Entry("ntkcpl", {"ridge": 1})}), 50)


def test_an_oracle_sees_the_labels_and_others_do_not(data, tmp_path, monkeypatch):
    seen = []

    def peek(key, pool, *, batch_size, true_labels):
        seen.append(true_labels)
        return unlabeled(pool)[:batch_size], None

    def plain(key, pool, *, batch_size):
        return unlabeled(pool)[:batch_size], {"risk": [0.5]}

    for name, select in (("peeking", peek), ("plain", plain)):
        strategy = Strategy(name, select, cold_start=True, oracle=name == "peeking")
        monkeypatch.setitem(STRATEGIES, name, strategy)
    rows = rows_of(PLAN._replace(entries=entries("peeking", "plain"), holdout=10), data, tmp_path)
    assert len(seen) == 4 and len(rows) == 8
    for seed in (0, 1):
        pool = draw_pool(data, seed, pool_size=None, scale=True, holdout=10)
        np.testing.assert_array_equal(seen[2 * seed], pool.labels)
    assert [row.oracle for row in rows] == [True] * 4 + [False] * 4
    # What others call a risk is not NTKCPL's.
    assert all(row.estimated_risk is None for row in rows)


@pytest.mark.parametrize(("head", "config"), [("linear", LINEAR), ("mlp", PROXY)])
def test_a_strategy_that_trains_heads_trains_the_plans(data, tmp_path, monkeypatch, head, config):
    seen = []

    def learn(key, pool, *, batch_size, head=LINEAR):
        seen.append(head)
        return unlabeled(pool)[:batch_size], None

    monkeypatch.setitem(STRATEGIES, "learning", Strategy("learning", learn, cold_start=True))
    plan = PLAN._replace(entries=entries("learning"), seeds=(0,), head=head)
    rows_of(plan, data, tmp_path)
    assert seen == [config] * 2
    # A default stays out of the run's settings.
    settings = json.loads((tmp_path / "runs" / "learning-0.json").read_text())["settings"]
    assert list(settings["options"]) == ([] if head == "linear" else ["head"])


def test_uncertainty_herding_is_given_the_plans_head(data, tmp_path):
    plan = PLAN._replace(entries=entries("uherding"), seeds=(0,), head="mlp")
    rows_of(plan, data, tmp_path)
    settings = json.loads((tmp_path / "runs" / "uherding-0.json").read_text())["settings"]
    assert settings["options"] == {"head": settings["head"]}
