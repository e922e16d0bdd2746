import math

import pytest

from benchmarks.complexity import COMPLEXITY, ceiling_seconds
from benchmarks.scale import FULL, QUICK
from jaxal.select import STRATEGIES


def test_every_strategy_states_its_complexity():
    assert set(COMPLEXITY) == set(STRATEGIES)
    assert all(entry.time and entry.memory for entry in COMPLEXITY.values())


@pytest.mark.parametrize("name", sorted(COMPLEXITY))
def test_work_grows_with_the_pool(name):
    for sizes in (QUICK, FULL):
        small, large = (COMPLEXITY[name].work(sizes._replace(pool=k * sizes.pool)) for k in (1, 2))
        assert small.flops >= 0 and small.bytes >= 0
        assert small.flops <= large.flops and small.bytes <= large.bytes
        assert 0 < small.bytes + small.flops < large.bytes + large.flops < math.inf


def test_work_takes_as_long_as_the_rates_say():
    work = COMPLEXITY["coreset"].work(FULL)
    assert work.flops == 2 * 50_000 * 512 * 1_000
    assert work.bytes == 4 * 50_000 * 512 * 1_000
    assert ceiling_seconds("coreset", FULL, work.flops, work.bytes / 2) == pytest.approx(3)
