"""The posterior against dense float64 refits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal import regression
from jaxal.regression import (
    commit,
    fit_predict,
    fold,
    look_ahead,
    posterior,
    residual_column,
)

RIDGE = 1e-3


def dense_refit(kernel, labeled, targets, initial=0.0, ridge=RIDGE):
    """Solve from scratch in float64 NumPy."""
    start = np.broadcast_to(np.asarray(initial, np.float64), (len(kernel), targets.shape[1]))
    block = kernel[np.ix_(labeled, labeled)] + ridge * np.eye(len(labeled))
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


def test_folding_in_chunks_equals_folding_whole(x64, monkeypatch):
    kernel, targets, _ = problem(n=53, d=7)
    states = []
    for size in (4096, 10):
        monkeypatch.setattr(regression, "_CHUNK_ROWS", size)
        jax.clear_caches()
        state = state_for(kernel, targets, np.arange(5), np.arange(5, 40), 6)
        for column in range(6):
            state = commit(state, column, targets[5 + column])
        states.append(fold(state))
    np.testing.assert_allclose(states[1].residual, states[0].residual, atol=1e-12)
    assert int(states[1].num_commits) == 0 and not np.any(states[1].factor)


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


def copies(seed=0, size=4e5):
    """A kernel of five samples, four copies of each, with a large diagonal."""
    x = np.random.default_rng(seed).normal(size=(5, 8))
    kernel = x @ x.T
    same = np.repeat(np.arange(5), 4)
    return (kernel / np.diag(kernel).mean() * size)[np.ix_(same, same)].astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_commits_of_copies_stay_bounded_under_a_tiny_ridge(seed):
    kernel, targets = copies(seed), np.eye(3)[np.arange(20) % 3]
    state = posterior(kernel, np.arange(20), num_outputs=3, ridge=1e-3, capacity=20)
    for column in range(20):
        assert np.abs(look_ahead(state, np.arange(20), targets)).max() < 4
        state = commit(state, column, targets[column])
    refit = dense_refit(kernel, np.arange(20), targets, ridge=float(state.ridge))
    # The ridge is 16 roundings of the kernel, whose sums processors round in other orders.
    np.testing.assert_allclose(state.mean, refit, atol=0.1)


def test_the_default_ridge_follows_the_kernel():
    kernel, targets, _ = problem()
    labeled, rows = np.array([3, 8]), np.arange(20, 25)
    for scale in (1.0, 1e6):
        state = posterior(scale * kernel[:, rows], rows, num_outputs=4)
        assert state.ridge == pytest.approx(1e-3 * scale * np.diag(kernel)[rows].mean())
        left = scale * kernel[:, labeled]
        given = {"kernel_labeled": left, "labeled": labeled, "targets": targets[labeled]}
        state = posterior(scale * kernel[:, rows], rows, **given)
        assert state.ridge == pytest.approx(1e-3 * scale * np.diag(kernel)[labeled].mean())
        found = fit_predict(left, labeled, targets[labeled])
        np.testing.assert_allclose(found, state.mean, atol=1e-4)
    with pytest.raises(ValueError, match=r"ridge: expected, since .* not positive definite"):
        posterior(-kernel[:, rows], rows, num_outputs=4)


def test_under_jit_and_grad():
    kernel, targets, _ = problem()
    kernel, rows = jnp.float32(kernel), np.arange(10)

    @jax.jit
    def steps(kernel, columns, targets, ridge):
        state = posterior(kernel, rows, num_outputs=4, ridge=ridge, capacity=2)
        ahead = look_ahead(state, columns, targets)
        return ahead, commit(state, columns[0], targets[0])

    ahead, state = steps(kernel[:, :10], np.array([4, 2]), targets[[4, 2]], RIDGE)
    np.testing.assert_allclose(ahead[0], state.mean, atol=1e-5)

    def error(kernel, labeled):
        return (fit_predict(kernel, labeled, targets[:5], ridge=RIDGE) ** 2).sum()

    slope = jax.grad(error)(kernel[:, :5], jnp.arange(5))
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
    both = jax.jit(jax.vmap(error))(jnp.stack([kernel[:, :5]] * 2), jnp.array([range(5)] * 2))
    np.testing.assert_allclose(both[0], both[1])


def test_products_are_exact_on_accelerators():
    kernel, targets, _ = problem()
    state = posterior(jnp.float32(kernel), np.arange(60), num_outputs=4, ridge=RIDGE)
    for fn, args in [
        (residual_column, (state, 0)),
        (look_ahead, (state, np.array([0]), targets[:1])),
        (lambda state: commit(state, 0, targets[0]), (state,)),
        (fold, (state,)),
        (fit_predict, (jnp.float32(kernel), np.arange(60), targets)),
    ]:
        program = str(jax.make_jaxpr(fn)(*args))
        assert program.count("dot_general") == program.count("Precision.HIGHEST,") > 0


def test_a_full_state_refuses_a_commit():
    kernel, targets, _ = problem()
    state = commit(state_for(kernel, targets, np.zeros(0, int), np.arange(5)), 0, targets[0])
    with pytest.raises(ValueError, match="room for a commit"):
        commit(state, 1, targets[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_candidates": np.ones(5)}, "kernel_candidates: expected shape"),
        ({"kernel_candidates": np.ones((60, 3), int)}, "kernel_candidates: .*floating-point"),
        ({"kernel_candidates": np.full((60, 3), np.nan)}, "kernel_candidates: expected finite"),
        ({"rows": np.arange(4)}, "rows: expected shape"),
        ({"rows": [0, 1, 60]}, "rows: expected indices in 0..59, found 60"),
        ({"rows": [0, 1, -1]}, "rows: expected indices in 0..59, found -1"),
        ({"rows": [0, 1, 1]}, "rows: expected each index once"),
        ({"rows": [0.0, 1.0, 2.0]}, "rows: expected integers"),
        ({"labeled": None, "targets": None}, "num_outputs: expected"),
        ({"targets": None, "num_outputs": 2}, "kernel_labeled and targets"),
        ({"kernel_labeled": None}, "kernel_labeled and targets"),
        ({"kernel_labeled": np.ones((60, 3))}, "labeled: expected shape"),
        ({"kernel_labeled": np.full((60, 2), np.inf)}, "kernel_labeled: expected finite"),
        ({"kernel_labeled": np.ones((60, 2), int)}, "kernel_labeled: .*floating-point"),
        ({"kernel_labeled": -np.eye(60)[:, 4:6]}, "not positive definite"),
        ({"labeled": [4, 60]}, "labeled: expected indices"),
        ({"labeled": [4, -1]}, "labeled: expected indices"),
        ({"labeled": [4, 4]}, "labeled: expected each index once"),
        ({"targets": np.ones(2)}, "targets: expected a matrix"),
        ({"targets": np.ones((3, 4))}, "targets: expected shape"),
        ({"targets": np.full((2, 4), np.nan)}, "targets: expected finite"),
        ({"initial": np.nan}, "initial: expected finite"),
        ({"ridge": 0.0}, "ridge: expected a number above 0, found 0"),
        ({"ridge": -1.0}, "ridge: expected a number above 0, found -1"),
        ({"ridge": np.nan}, "ridge: expected a number above 0"),
        ({"ridge": np.ones(3)}, "ridge: expected a number above 0"),
        ({"capacity": 0}, "capacity"),
    ],
)
def test_bad_input_is_named(change, message):
    kernel, targets, _ = problem()
    arguments = {
        "kernel_candidates": kernel[:, :3],
        "rows": np.arange(3),
        "kernel_labeled": kernel[:, 4:6],
        "labeled": np.array([4, 5]),
        "targets": targets[4:6],
        "ridge": RIDGE,
    }
    with pytest.raises(ValueError, match=message):
        posterior(**(arguments | change))
    if change.keys() <= {"kernel_labeled", "labeled", "targets", "initial", "ridge"} and all(
        value is not None for value in change.values()
    ):
        del arguments["kernel_candidates"], arguments["rows"]
        with pytest.raises(ValueError, match=message):
            fit_predict(**(arguments | change))


@pytest.mark.parametrize("column", [5, -1])
def test_columns_out_of_range_are_named(column):
    kernel, targets, _ = problem()
    state = state_for(kernel, targets, np.zeros(0, int), np.arange(5))
    with pytest.raises(ValueError, match="columns: expected indices"):
        look_ahead(state, [0, column], targets[:2])
    with pytest.raises(ValueError, match="column: expected indices"):
        commit(state, column, targets[0])
    with pytest.raises(ValueError, match="column: expected indices"):
        residual_column(state, column)


def test_bad_targets_are_named():
    kernel, targets, _ = problem()
    state = state_for(kernel, targets, np.zeros(0, int), np.arange(5))
    with pytest.raises(ValueError, match="targets: expected shape"):
        look_ahead(state, [0, 1], targets[:1])
    with pytest.raises(ValueError, match="target: expected shape"):
        commit(state, 0, targets[0, :2])
    with pytest.raises(ValueError, match="target: expected finite"):
        commit(state, 0, targets[0] * np.nan)


def test_a_singular_block_is_named():
    # Indefinite, with a diagonal that no rounding explains.
    block = np.array([[1.0, 2.0], [2.0, 1.0]], np.float32)
    with pytest.raises(ValueError, match="not positive definite; raise ridge"):
        fit_predict(block, [0, 1], np.eye(2))
    # What a ridge of nothing would make NaN of.
    assert np.isfinite(fit_predict(np.ones((2, 2), np.float32), [0, 1], np.eye(2))).all()


def test_dtype_follows_the_kernel():
    kernel, targets, _ = problem()
    state = state_for(jnp.asarray(kernel, jnp.float32), targets, np.array([3]), np.arange(2))
    assert state.mean.dtype == state.residual.dtype == jnp.float32


def test_a_diagonal_below_zero_by_rounding_counts_as_zero():
    """A copy of a labelled sample whose residual is noise is neither NaN nor a huge gain."""
    state = posterior(np.eye(4, 2), [0, 1], num_outputs=2, ridge=1e-3, capacity=1)
    noise = jnp.asarray(state.residual).at[0, 0].set(-2e-3)
    state = state._replace(residual=noise)
    ahead = look_ahead(state, [0], np.eye(2)[:1])[0]
    after = commit(state, 0, np.eye(2)[0])
    np.testing.assert_allclose(ahead[0], [-2, 0])  # -2e-3 / ridge
    np.testing.assert_allclose(after.mean, ahead)
    assert np.isfinite(after.factor).all()
