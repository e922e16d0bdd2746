"""The posterior against dense float64 refits."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.regression import commit, fit_predict, fold, look_ahead, posterior

RIDGE = 1e-3


def dense_refit(kernel, labeled, targets, initial=0.0):
    """Solve from scratch in float64 NumPy."""
    start = np.broadcast_to(np.asarray(initial, np.float64), (len(kernel), targets.shape[1]))
    block = kernel[np.ix_(labeled, labeled)] + RIDGE * np.eye(len(labeled))
    return start + kernel[:, labeled] @ np.linalg.solve(block, targets - start[labeled])


def problem(n=60, d=8, k=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / (2 * d)) + 0.1 * x @ x.T
    return kernel, np.eye(k)[rng.integers(k, size=n)], rng


def state_for(kernel, targets, labeled, rows, capacity=1, initial=0.0):
    given = len(labeled) > 0
    return posterior(
        kernel[:, rows],
        rows,
        kernel_labeled=kernel[:, labeled] if given else None,
        labeled=labeled if given else None,
        targets=targets[labeled] if given else None,
        initial=initial,
        num_outputs=targets.shape[1],
        ridge=RIDGE,
        capacity=capacity,
    )


@pytest.mark.parametrize("num_labeled", [0, 1, 15])
@pytest.mark.parametrize("initial", ["zero", "matrix"])
def test_look_ahead_equals_a_refit(x64, num_labeled, initial):
    kernel, targets, rng = problem()
    start = 0.0 if initial == "zero" else rng.normal(size=targets.shape)
    order = rng.permutation(len(kernel))
    labeled, rows = order[:num_labeled], order[num_labeled : num_labeled + 20]
    state = state_for(kernel, targets, labeled, rows, initial=start)
    ahead = look_ahead(state, np.arange(20), targets[rows])
    for column, row in enumerate(rows):
        refit = dense_refit(
            kernel, np.append(labeled, row), targets[np.append(labeled, row)], start
        )
        np.testing.assert_allclose(ahead[column], refit, atol=1e-9)


def test_prediction_equals_a_refit(x64):
    kernel, targets, rng = problem()
    labeled = rng.permutation(60)[:25]
    state = state_for(kernel, targets, labeled, np.arange(5))
    refit = dense_refit(kernel, labeled, targets[labeled])
    np.testing.assert_allclose(state.mean, refit, atol=1e-10)
    direct = fit_predict(kernel[:, labeled], labeled, targets[labeled], ridge=RIDGE)
    np.testing.assert_allclose(direct, refit, atol=1e-10)


@pytest.mark.parametrize("capacity", [500, 64])
def test_500_commits_equal_a_refit_to_1e_8(x64, capacity):
    kernel, targets, rng = problem(n=700, d=20)
    order = rng.permutation(700)
    labeled, rows = order[:30], order[30:630]
    state = state_for(kernel, targets, labeled, rows, capacity)
    for column in range(500):
        if int(state.num_commits) == capacity:
            state = fold(state)
        state = commit(state, column, targets[rows[column]])
    everything = np.concatenate([labeled, rows[:500]])
    refit = dense_refit(kernel, everything, targets[everything])
    np.testing.assert_allclose(state.mean, refit, atol=1e-8)
    state = fold(state)
    block = kernel[np.ix_(everything, everything)] + RIDGE * np.eye(530)
    left = kernel[:, everything]
    residual = kernel[:, rows] - left @ np.linalg.solve(block, kernel[np.ix_(everything, rows)])
    np.testing.assert_allclose(state.residual, residual, atol=1e-8)


def test_float32_drift_stays_in_bound():
    kernel, targets, rng = problem(n=700, d=20)
    rows = rng.permutation(700)[:600]
    state = state_for(kernel.astype(np.float32), targets, np.zeros(0, int), rows, capacity=500)
    for column in range(500):
        state = commit(state, column, targets[rows[column]])
    refit = dense_refit(kernel, rows[:500], targets[rows[:500]])
    # the kernel's largest value over the ridge is about 3e3: float32's 6e-8 times that, accumulated
    assert np.abs(state.mean - refit).max() < 5e-3


def test_a_duplicate_of_a_labelled_sample_changes_little():
    kernel, targets, _ = problem()
    kernel[1], kernel[:, 1] = kernel[0], kernel[:, 0]
    kernel[1, 1] = kernel[0, 0]
    state = state_for(kernel.astype(np.float32), targets, np.array([0]), np.array([1, 2]))
    other = 1 - targets[0]
    ahead = look_ahead(state, np.array([0]), other[None])[0]
    assert np.isfinite(ahead).all()
    assert np.abs(ahead).max() < 3


def test_a_full_state_refuses_a_commit():
    kernel, targets, _ = problem()
    state = commit(state_for(kernel, targets, np.zeros(0, int), np.arange(5)), 0, targets[0])
    with pytest.raises(ValueError, match="room for a commit"):
        commit(state, 1, targets[1])


def test_bad_input_is_named():
    kernel, targets, _ = problem()
    with pytest.raises(ValueError, match="rows"):
        posterior(kernel, np.arange(3), num_outputs=2)
    with pytest.raises(ValueError, match="num_outputs"):
        posterior(kernel[:, :3], np.arange(3))
    with pytest.raises(ValueError, match="kernel_labeled"):
        posterior(kernel[:, :3], np.arange(3), labeled=[1], targets=targets[:1])
    with pytest.raises(ValueError, match="not positive definite"):
        posterior(
            -kernel[:, :3],
            np.arange(3),
            kernel_labeled=-kernel[:, 4:6],
            labeled=np.array([4, 5]),
            targets=targets[4:6],
        )


def test_dtype_follows_the_kernel():
    kernel, targets, _ = problem()
    state = state_for(jnp.asarray(kernel, jnp.float32), targets, np.array([3]), np.arange(2))
    assert state.mean.dtype == state.residual.dtype == jnp.float32
