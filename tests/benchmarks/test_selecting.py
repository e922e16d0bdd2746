import numpy as np
import pytest

from benchmarks import selecting
from benchmarks.scale import QUICK
from jaxal.select import STRATEGIES
from jaxal.train.head import predict_probs


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_pool_has_what_a_strategy_needs(name):
    pool, classes = selecting.make_pool(STRATEGIES[name], QUICK)
    assert np.shape(pool.features) == (QUICK.pool, QUICK.features)
    assert len(np.unique(pool.labeled)) == QUICK.labeled
    np.testing.assert_array_equal(classes[pool.labeled], pool.labels)
    for field in STRATEGIES[name].needs_with(None):
        assert getattr(pool, field) is not None


def test_the_head_is_trained_on_the_labels():
    pool, classes = selecting.make_pool(STRATEGIES["margin"], QUICK)
    np.testing.assert_allclose(pool.probs, predict_probs(pool.trained, pool.features), atol=1e-6)
    assert np.mean(np.argmax(pool.probs, axis=1) == classes) > 0.5


@pytest.mark.parametrize("name", ["random", "class-balanced"])
def test_times_a_selection(name):
    found = selecting.time_selection(name, QUICK)
    assert found["first"] > 0 and found["seconds"] > 0 and found["peak_gib"] > 0.01


def test_times_a_selection_in_a_process_of_its_own():
    found = selecting.measure_selection("margin", QUICK, ceiling=64, timeout=300)
    assert set(found) == {"first", "seconds", "peak_gib", "matmul_rate", "read_rate"}
    assert min(found.values()) > 0


def test_gives_up_after_a_time():
    with pytest.raises(TimeoutError, match=r"margin: stopped after 0\.05 s"):
        selecting.measure_selection("margin", QUICK, timeout=0.05)


def test_a_failure_is_named():
    too_many = QUICK._replace(picks=QUICK.pool)
    with pytest.raises(RuntimeError, match=r"(?s)margin failed:.*batch_size: expected at most 380"):
        selecting.measure_selection("margin", too_many)


def test_strategies_are_checked():
    assert selecting.choose_strategies(["margin", "random"]) == ["margin", "random"]
    names = selecting.choose_strategies(None)
    assert "class-balanced" not in names and set(names) < set(STRATEGIES)
    with pytest.raises(ValueError, match="found 'none'"):
        selecting.choose_strategies(["none"])
    with pytest.raises(ValueError, match="--strategies: expected each once"):
        selecting.choose_strategies(["margin", "margin"])
