import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from jaxal.transferability import (
    class_moments,
    feature_statistics,
    log_evidence,
    logme,
    ped_logme,
    push_apart,
    shift_classes,
    standardize,
)


def draw(n=60, d=8, classes=3, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    centres = spread * rng.normal(size=(classes, d))
    return centres[labels] + rng.normal(size=(n, d)), labels


def dense_evidence(x, y, alpha, beta):
    """The log density of the indicator under the model, weights integrated out."""
    covariance = np.eye(len(x)) / beta + x @ x.T / alpha
    return multivariate_normal(np.zeros(len(x)), covariance).logpdf(y) / len(x)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (40, 200), (30, 30)])
def test_is_the_exact_evidence_at_its_best(n, d):
    x, labels = draw(n, d)
    found = log_evidence(class_moments(x, labels))
    assert logme(x, labels) == pytest.approx(found.evidence.mean(), rel=1e-6)
    for c in range(3):
        y = (labels == c).astype(float)
        at_best = dense_evidence(x, y, found.alpha[c], found.beta[c])
        np.testing.assert_allclose(found.evidence[c], at_best, rtol=1e-6)

        def cost(p, y=y):
            return -dense_evidence(x, y, *np.exp(p))

        searched = minimize(cost, np.log([found.alpha[c], found.beta[c]]), method="Nelder-Mead")
        assert -searched.fun <= found.evidence[c] + 1e-6


def test_random_features_of_few_samples_say_nothing():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 200)), rng.integers(2, size=40)
    assert -1.5 < logme(x, labels) < 0


def test_chunks_and_memory_maps_change_nothing(tmp_path):
    x, labels = draw(100, 5)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert logme(mapped, labels, chunk_size=7) == pytest.approx(logme(x, labels), rel=1e-10)


def test_better_features_score_higher():
    scores = [logme(*draw(200, 10, spread=s)) for s in (0.0, 0.5, 2.0)]
    assert scores[0] < scores[1] < scores[2]


@pytest.mark.parametrize("d", [6, 90])
def test_moved_sums_are_sums_of_moved_features(d):
    x, labels = draw(60, d)
    score, info = ped_logme(x, labels, num_sigmas=3.0)
    assert info.num_steps > 0
    assert score == pytest.approx(logme(x + info.shifts[labels], labels), rel=1e-6)
    found = shift_classes(class_moments(x, labels), info.shifts)
    for a, b in zip(found, class_moments(x + info.shifts[labels], labels), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_two_classes_part_along_the_line_between_them():
    x = np.array([[-1.0, 0], [0, 0], [1, 0], [0, 0], [1, 0], [2, 0]])
    labels = np.repeat([0, 1], 3)
    info = push_apart(class_moments(x, labels), num_sigmas=1.0, max_steps=1)
    radius = np.sqrt(2 / 3)
    step = 0.5 * 0.1**2 * (2 * radius - 1)
    np.testing.assert_allclose(info.shifts, [[-step, 0], [step, 0]], atol=1e-12)


def test_distant_or_equal_or_single_classes_stay():
    x, labels = draw(60, 4, spread=100.0)
    assert ped_logme(x, labels)[1].num_steps == 0
    same = np.tile(np.random.default_rng(0).normal(size=(20, 4)), (2, 1))
    score, info = ped_logme(same, np.repeat([0, 1], 20))
    assert info.num_steps == 0 and np.isfinite(score)
    score, info = ped_logme(x, np.zeros(60, int))
    assert info.num_steps == 0 and np.isfinite(score)


def test_constant_and_missing_dimensions_stay_finite():
    x, labels = draw(60, 4)
    x[:, 1] = 0
    x[:, 2] = x[:, 3]
    without = np.delete(x, 1, axis=1)
    assert logme(x, labels) == pytest.approx(logme(without, labels), rel=1e-9)
    assert np.isfinite(logme(np.zeros((5, 3)), [0, 1, 0, 1, 1]))
    assert logme(x, labels + 7) == pytest.approx(logme(x, labels), rel=1e-12)


def test_standardize_leaves_what_does_not_vary():
    found = standardize([[1.0, 5.0]], [0.0, 5.0], [2.0, 0.0])
    np.testing.assert_allclose(found, [[0.5, 0.0]])
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((0, 2)), [], "features"),
        (np.full((2, 2), np.nan), [0, 1], "features"),
        (np.zeros((2, 2)), [0], "labels"),
        (np.zeros((2, 2)), [0, -1], "labels"),
    ],
)
def test_bad_input_is_named(features, labels, message):
    with pytest.raises(ValueError, match=message):
        logme(features, labels)


@pytest.mark.parametrize("chunk_size", [7, 100])
def test_statistics_of_a_pool(chunk_size):
    x = (np.random.default_rng(0).normal(size=(50, 4)) + 1e4).astype(np.float32)
    mean, std = feature_statistics(x, chunk_size=chunk_size)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, x.astype(np.float64).std(0), rtol=1e-8)
    with pytest.raises(ValueError, match="features"):
        feature_statistics(np.full((3, 2), np.inf))


def fixed_point(x, y, iterations=200, copied=False):
    """LogME by its published iteration.

    ``copied``: as its widely copied implementation has it, which counts all weights, adds 1e-5 to
    denominators, and stops after 11 iterations or once t moves by a thousandth.
    """
    n, d = x.shape
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    sigma, k = s**2, min(n, d)
    z2 = (u.T @ y) ** 2
    rest = max(y @ y - z2.sum(), 0)
    alpha = beta = 1.0
    extra = 1e-5 if copied else 0.0
    for _ in range(11 if copied else iterations):
        t = alpha / beta
        gamma = (sigma / (sigma + t)).sum()
        m = (sigma * z2 / (t + sigma) ** 2).sum()
        r = (z2 / (1 + sigma / t) ** 2).sum() + rest
        alpha, beta = gamma / (m + extra), (n - gamma) / (r + extra)
        if copied and abs(alpha / beta - t) <= 1e-3 * t:
            break
    counted = d if copied else k
    log = counted / 2 * np.log(alpha) + n / 2 * np.log(beta)
    log -= 0.5 * np.log(alpha + beta * sigma).sum() + beta * r / 2 + alpha * m / 2
    return (log - n / 2 * np.log(2 * np.pi)) / n, alpha


def test_agrees_with_the_published_iteration():
    x, labels = draw(80, 6)
    y = np.eye(3)[labels]
    iterated = np.mean([fixed_point(x, y[:, c])[0] for c in range(3)])
    assert logme(x, labels) == pytest.approx(iterated, rel=1e-5)


def test_the_copied_implementation_counts_weights_that_no_sample_touches():
    # A pure-noise case: the exact evidence is about -1, the copied one far above.
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 200)), rng.integers(3, size=40)
    best = log_evidence(class_moments(x, labels)).evidence
    for c in range(3):
        y = (labels == c).astype(float)
        right, wrong = (fixed_point(x, y, iterations=11, copied=k)[0] for k in (False, True))
        assert right <= best[c] + 1e-6
        assert best[c] < 0 < 1 < wrong


def plain_push(x, labels, sigmas, step, most):
    """PED one pair at a time."""
    classes = np.unique(labels)
    start = np.array([x[labels == c].mean(0) for c in classes])
    radii = [np.sqrt(x[labels == c].var(0).sum()) for c in classes]
    means, first = start.copy(), None
    for taken in range(most):
        moved = np.zeros_like(means)
        for i in range(len(classes)):
            for j in range(len(classes)):
                apart = means[i] - means[j]
                distance = np.linalg.norm(apart)
                force = max(sigmas * (radii[i] + radii[j]) - distance, 0)
                if i != j and distance > 0:
                    moved[i] += apart / distance * min(0.5 * step**2 * force, force)
        total = np.linalg.norm(moved, axis=1).sum()
        if total == 0:
            break
        means = means + moved
        first = total if first is None else first
        if taken and total <= first / 2:
            break
    return means - start


@pytest.mark.parametrize("step", [0.1, 0.7])
def test_classes_are_pushed_as_pair_by_pair(step):
    x, labels = draw(90, 5, classes=6, spread=0.7)
    info = push_apart(class_moments(x, labels), num_sigmas=0.6, time_step=step, max_steps=6)
    np.testing.assert_allclose(info.shifts, plain_push(x, labels, 0.6, step, 6), atol=1e-10)
    assert 1 < info.num_steps <= 6 and np.abs(info.shifts).max() > 0
