import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.coverage import cover_unlabeled, coverage_by, greedy_coverage
from jaxal.scaling import unit_rows

KERNELS = [("gaussian", 1.0), ("gaussian", 0.05), ("tophat", 0.5)]


def distances(x):
    x = np.float64(x)
    return ((x[:, None] - x[None]) ** 2).sum(-1)


def similarity(x, kernel, radius_squared):
    squared = distances(x)
    if kernel == "gaussian":
        return np.exp(-squared / radius_squared)
    return np.float64(squared <= radius_squared)


def assert_greedy(x, labeled, found, kernel, radius_squared, weights=None):
    """Follow the picks with the whole kernel in float64: each is the best but for rounding."""
    k = similarity(x, kernel, radius_squared)
    rounding = 0 if kernel == "tophat" and weights is None else 1e-6
    weights = np.ones(len(x)) if weights is None else np.float64(weights)
    covered = k[:, labeled].max(1, initial=0)
    free = np.ones(len(x), bool)
    free[labeled] = False
    for i, pick in enumerate(np.asarray(found.picks)):
        gain = np.where(free, weights @ np.maximum(k - covered[:, None], 0), -1)
        best = int(np.argmax(gain))
        assert pick == best or (free[pick] and gain[best] - gain[pick] < rounding * gain[best]), i
        np.testing.assert_allclose(found.gains[i], gain[pick], rtol=2e-5, atol=1e-5)
        free[pick] = False
        covered = np.maximum(covered, k[:, pick])


def choose(x, labeled, batch_size, kernel, radius_squared, chunk_size=128, weights=None):
    return cover_unlabeled(
        x,
        np.asarray(labeled, int),
        batch_size=batch_size,
        kernel=kernel,
        radius_squared=radius_squared,
        weights=weights,
        chunk_size=chunk_size,
    )


def draw(seed, n=300, d=6, clusters=5):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, d))
    x = centres[rng.integers(clusters, size=n)] + 0.7 * rng.normal(size=(n, d))
    return unit_rows(x), rng


@pytest.mark.parametrize(("kernel", "radius_squared"), KERNELS)
@pytest.mark.parametrize("num_labeled", [0, 3, 40])
def test_equals_dense_numpy(kernel, radius_squared, num_labeled):
    for seed in range(3):
        x, rng = draw(seed)
        labeled = rng.permutation(300)[:num_labeled]
        found = choose(x, labeled, 60, kernel, radius_squared)
        assert_greedy(x, labeled, found, kernel, radius_squared)


@pytest.mark.parametrize(("kernel", "radius_squared"), KERNELS)
def test_weights(kernel, radius_squared):
    x, rng = draw(7)
    weights = rng.uniform(size=300) * (rng.uniform(size=300) < 0.7)
    found = choose(x, [5, 17], 60, kernel, radius_squared, weights=weights)
    assert_greedy(x, [5, 17], found, kernel, radius_squared, np.float32(weights))


@pytest.mark.parametrize(("kernel", "radius_squared"), [("gaussian", 0.3), ("tophat", 0.3)])
def test_chunks_change_nothing(kernel, radius_squared):
    x, _ = draw(3)
    whole = choose(x, [1], 300 - 1, kernel, radius_squared, chunk_size=1000)
    parts = choose(x, [1], 300 - 1, kernel, radius_squared, chunk_size=77)
    np.testing.assert_array_equal(whole.picks, parts.picks)
    assert set(np.asarray(whole.picks).tolist()) == set(range(300)) - {1}


def test_gains_fall_and_few_are_computed():
    x, _ = draw(1, n=2000, d=8)
    found = choose(x, [], 50, "gaussian", 0.2, chunk_size=1000)
    assert (np.diff(found.gains) <= 1e-3).all()
    assert 50 * 32 <= found.evaluations < 3500


def test_ties_go_to_the_lower_index():
    # Four far corners, each five times: all gains are equal until they are all covered.
    x = unit_rows(np.tile(np.eye(4), (5, 1)))
    for kernel in ("gaussian", "tophat"):
        found = choose(x, [], 20, kernel, 0.5)
        np.testing.assert_array_equal(found.picks, np.arange(20))
        np.testing.assert_allclose(found.gains[4:], 0, atol=1e-5)
    found = choose(x, [0, 2], 18, "tophat", 0.5)
    np.testing.assert_array_equal(found.picks[:3], [1, 3, 4])


def test_an_old_bound_that_ties_is_looked_at():
    # A first pick covers what 32 candidates, one block of the kernel, share. What each adds falls
    # to 2, as much as the pair in front has always added.
    shared, own = np.eye(20)[[1] * 100], (np.eye(20)[1] + np.sqrt(3) * np.eye(20)[3:]) / 2
    x = unit_rows(np.concatenate([np.eye(20)[[0, 0]], shared, own[[0] * 3], own[1:].repeat(2, 0)]))
    candidates = np.isin(np.arange(len(x)), [0, 1, 102, *range(105, 137)])
    found = greedy_coverage(
        x, jnp.zeros(len(x)), candidates, batch_size=5, kernel="tophat", radius_squared=1.2
    )
    np.testing.assert_array_equal(found.picks, [102, 0, 105, 107, 109])
    np.testing.assert_array_equal(found.gains, [103, 2, 2, 2, 2])


@pytest.mark.parametrize("radius_squared", [1e-40, 1e-8, 1e3, np.inf])
def test_radii_of_any_size_leave_duplicates_together(radius_squared):
    rng = np.random.default_rng(0)
    x = unit_rows(np.repeat(rng.normal(size=(10, 30)), [1, 2, 1, 1, 3, 1, 1, 2, 1, 7], axis=0))
    for kernel in ("gaussian", "tophat"):
        found = choose(x, [], 20, kernel, radius_squared)
        assert np.isfinite(found.gains).all()
        if radius_squared < 1:
            np.testing.assert_array_equal(found.gains[:10], [7, 3, 2, 2, 1, 1, 1, 1, 1, 1])
            np.testing.assert_array_equal(found.gains[10:], 0)


def test_one_sample():
    found = choose(unit_rows(np.ones((1, 3))), [], 1, "gaussian", 1.0)
    assert (int(found.picks[0]), float(found.gains[0])) == (0, 1.0)


def test_bad_numbers_are_named():
    x = unit_rows(np.ones((4, 2)))
    with pytest.raises(ValueError, match="batch_size: expected at most 3"):
        choose(x, [1], 4, "gaussian", 1.0)
    with pytest.raises(ValueError, match="chunk_size"):
        choose(x, [], 1, "gaussian", 1.0, chunk_size=0)
    for weights in ([1, 1, 1], [1, 1, 1, np.nan], [1, 1, 1, np.inf], [1, 1, 1, -1]):
        with pytest.raises(ValueError, match="weights: expected"):
            choose(x, [], 1, "gaussian", 1.0, weights=weights)
    given = {"kernel": "gaussian", "radius_squared": 1.0}
    for bad, message in (
        ({"kernel": "cosine"}, "kernel: expected one of gaussian, tophat, found 'cosine'"),
        ({"radius_squared": np.nan}, "radius_squared: expected 0 or more, found nan"),
        ({"radius_squared": -1.0}, "radius_squared: expected 0 or more, found -1"),
    ):
        with pytest.raises(ValueError, match=message):
            coverage_by(x, np.array([1]), **given | bad)
        with pytest.raises(ValueError, match=message):
            greedy_coverage(x, jnp.zeros(4), np.ones(4, bool), batch_size=1, **given | bad)


@pytest.mark.parametrize("kernel", ["gaussian", "tophat"])
def test_what_is_not_finite_or_does_not_fit_is_named(kernel):
    x, _ = draw(0, n=20)
    given = {"kernel": kernel, "radius_squared": 1.0}
    hole = np.array(x)
    hole[4, 1] = np.nan
    open_, none = np.ones(20, bool), np.zeros(20, np.float32)
    for rows, covered, candidates, message in (
        (hole, none, open_, "x: expected finite"),
        (x, none * np.nan, open_, "covered: expected finite"),
        (x, none[1:], open_, "covered: expected shape"),
        (x, none, open_[1:], "candidates: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            greedy_coverage(rows, covered, candidates, batch_size=3, **given)
    with pytest.raises(ValueError, match="x: expected finite"):
        coverage_by(hole, np.array([0]), **given)
    for centres in ([20], [-1], [0.5]):
        with pytest.raises(ValueError, match="centres"):
            coverage_by(x, np.array(centres), **given)
    with pytest.raises(ValueError, match="labeled"):
        cover_unlabeled(x, np.array([21]), batch_size=3, **given)
