import itertools

import numpy as np
import pytest
import scipy.optimize

from benchmarks.figures import line_style, part


def test_heights_are_parted_by_the_least_squares():
    rng = np.random.default_rng(0)
    for gap in (0.05, 0.15):
        heights = np.sort(rng.uniform(size=6))
        found = part(heights, gap)
        steps = [
            {"type": "ineq", "fun": lambda x, i=i, gap=gap: x[i + 1] - x[i] - gap}
            for i in range(len(heights) - 1)
        ]
        best = scipy.optimize.minimize(
            lambda x, heights=heights: ((x - heights) ** 2).sum(),
            np.linspace(0, 1, 6),
            bounds=[(0, 1)] * 6,
            constraints=steps,
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(found, best.x, atol=1e-4)


@pytest.mark.parametrize("heights", [[0.5] * 50, [0.99] * 4, [-0.2, 0.0, 1.3]])
def test_heights_stay_inside(heights):
    found = part(np.array(heights), 0.04)
    assert found.min() >= -1e-9 and found.max() <= 1 + 1e-9
    assert (np.diff(found) >= min(0.04, 1 / (len(heights) - 1)) - 1e-9).all()


def test_lines_differ():
    names = [f"s{i}" for i in range(25)] + ["ntkcpl"]
    styles = [line_style(name, names) for name in names]
    for a, b in itertools.combinations(styles, 2):
        assert (a["color"], a["linestyle"]) != (b["color"], b["linestyle"])
