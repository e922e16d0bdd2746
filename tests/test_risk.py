"""Greedy picks and risks against brute force in float64."""

import functools

import jax
import numpy as np
import pytest

from jaxal.regression import commit, posterior
from jaxal.risk import greedy, zero_one_risk

RIDGE = 1e-2


def problem(n=40, d=5, k=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / d)
    weights = rng.uniform(0.1, 1, size=n)
    return kernel, rng.integers(k, size=n), weights / weights.sum(), rng


def refit(kernel, labeled, targets):
    block = kernel[np.ix_(labeled, labeled)] + RIDGE * np.eye(len(labeled))
    return kernel[:, labeled] @ np.linalg.solve(block, targets[labeled])


def squared(prediction, labels, weights, scale=1.0):
    wanted = scale * np.eye(prediction.shape[1])[labels]
    return (weights * ((prediction - wanted) ** 2).sum(1)).sum()


def zero_one(prediction, labels, weights):
    own = prediction[np.arange(len(labels)), labels]
    rivals = np.where(np.eye(prediction.shape[1], dtype=bool)[labels], -np.inf, prediction)
    return (weights * (own <= rivals.max(1))).sum()


def brute_force(kernel, labels, weights, labeled, rows, batch_size, risks_of):
    """Refit for every candidate; ``risks_of`` gives the risk and what breaks its ties."""
    targets = np.eye(labels.max() + 1)[labels]
    picks, risks = [], []
    for _ in range(batch_size):
        tried = {
            row: risks_of(refit(kernel, [*labeled, *picks, row], targets), labels, weights)
            for row in rows
            if row not in picks
        }
        picks.append(min(tried, key=tried.get))
        risks.append(tried[picks[-1]][0])
    return picks, risks


def run_greedy(kernel, labels, weights, labeled, rows, batch_size, **options):
    targets = np.eye(labels.max() + 1)[labels]
    given = len(labeled) > 0
    state = posterior(
        kernel[:, rows],
        rows,
        kernel_labeled=kernel[:, labeled] if given else None,
        labeled=labeled if given else None,
        targets=targets[labeled] if given else None,
        num_outputs=targets.shape[1],
        ridge=RIDGE,
        capacity=batch_size,
    )
    available = np.ones(len(rows), bool)
    return greedy(state, labels, weights, available, batch_size=batch_size, **options)


@pytest.mark.parametrize("num_labeled", [0, 6])
@pytest.mark.parametrize(("seed", "scale"), [(0, 1.0), (1, 1.0), (2, 1.5), (3, 4.0)])
def test_squared_risk_picks_equal_brute_force(x64, num_labeled, seed, scale):
    kernel, labels, weights, rng = problem(seed=seed)
    order = rng.permutation(40)
    labeled, rows = order[:num_labeled], order[num_labeled:30]
    picks, risks = brute_force(
        kernel, labels, weights, labeled, rows, 12, lambda *seen: (squared(*seen, scale),)
    )
    columns, info, state = run_greedy(
        kernel, labels, weights, labeled, rows, 12, target_scale=scale
    )
    assert list(rows[columns]) == picks
    np.testing.assert_allclose(info.squared_risk, risks, atol=1e-9)
    final = refit(kernel, [*labeled, *picks], np.eye(4)[labels])
    np.testing.assert_allclose(state.mean, final, atol=1e-9)
    np.testing.assert_allclose(info.zero_one_risk[-1], zero_one(final, labels, weights))
    np.testing.assert_allclose(info.disagreement[-1], zero_one(final, labels, 1 / 40))


@pytest.mark.parametrize("num_labeled", [0, 6])
def test_zero_one_risk_picks_equal_brute_force(x64, num_labeled):
    kernel, labels, weights, rng = problem(seed=3)
    order = rng.permutation(40)
    labeled, rows = order[:num_labeled], order[num_labeled:30]
    picks, risks = brute_force(
        kernel,
        labels,
        weights,
        labeled,
        rows,
        8,
        lambda *seen: (round(zero_one(*seen), 12), squared(*seen)),
    )
    columns, info, _ = run_greedy(kernel, labels, weights, labeled, rows, 8, risk="zero_one")
    assert list(rows[columns]) == picks
    np.testing.assert_allclose(info.zero_one_risk, risks, atol=1e-12)


def test_pruning_evaluates_few_and_says_how_far_a_limit_may_be_off(x64):
    kernel, labels, weights, rng = problem(n=200, seed=4)
    order = rng.permutation(200)
    given = (kernel, labels, weights, order[:60], order[60:], 5)
    _, exact, _ = run_greedy(*given, risk="zero_one")
    assert (exact.slack == 0).all()
    assert (exact.evaluated < 140).all()
    _, limited, _ = run_greedy(*given, risk="zero_one", max_evaluations=16)
    assert (limited.evaluated <= 16).all()
    assert limited.zero_one_risk[0] - limited.slack[0] <= exact.zero_one_risk[0] + 1e-12


def test_the_whole_of_the_candidates_can_be_picked():
    kernel, labels, weights, _ = problem()
    columns, info, _ = run_greedy(
        kernel.astype(np.float32), labels, weights, np.zeros(0, int), np.arange(40), 40
    )
    assert sorted(np.asarray(columns)) == list(range(40))
    assert np.isfinite(info.squared_risk).all()


def test_duplicates_are_not_picked_again():
    kernel, labels, _, _ = problem()
    same = np.concatenate([np.zeros(30, int), np.arange(40)])
    kernel, labels = kernel[np.ix_(same, same)].astype(np.float32), labels[same]
    columns, _, _ = run_greedy(
        kernel, labels, np.full(70, 1 / 70), np.zeros(0, int), np.arange(70), 10
    )
    assert (np.asarray(same)[np.asarray(columns)] == 0).sum() <= 1


@pytest.mark.parametrize("risk", ["squared", "zero_one"])
@pytest.mark.parametrize("seed", range(3))
def test_copies_under_a_tiny_ridge_are_each_picked_once(risk, seed):
    x = np.random.default_rng(seed).normal(size=(5, 8))
    same = np.repeat(np.arange(5), 4)
    kernel = (5e4 * x @ x.T)[np.ix_(same, same)].astype(np.float32)
    state = posterior(kernel, np.arange(20), num_outputs=3, ridge=1e-6, capacity=20)
    labels, weights = np.arange(20) % 3, np.full(20, 1 / 20)
    columns, info, state = greedy(
        state, labels, weights, np.ones(20, bool), batch_size=20, risk=risk
    )
    assert sorted(np.asarray(columns)) == list(range(20))
    assert np.max(info.squared_risk) < 5
    np.testing.assert_allclose(
        info.squared_risk[-1], squared(np.asarray(state.mean), labels, weights), atol=0.02
    )


@pytest.mark.parametrize("risk", ["squared", "zero_one"])
@pytest.mark.parametrize("capacity", [1, 3, 4])
def test_a_state_that_fills_up_is_folded(x64, risk, capacity):
    kernel, labels, weights, rng = problem(seed=5)
    rows = rng.permutation(40)[:30]
    given = labels, weights, np.ones(30, bool)
    wide, narrow = (
        posterior(kernel[:, rows], rows, num_outputs=4, ridge=RIDGE, capacity=room)
        for room in (8, capacity)
    )
    before = jax.tree.map(np.array, narrow)
    columns, info, after = greedy(wide, *given, batch_size=8, risk=risk)
    found, seen, state = greedy(narrow, *given, batch_size=8, risk=risk)
    np.testing.assert_array_equal(found, columns)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), seen, info)
    np.testing.assert_allclose(state.mean, after.mean, atol=1e-9)
    jax.tree.map(np.testing.assert_array_equal, narrow, before)


def test_commits_of_the_state_are_taken_into_account(x64):
    kernel, labels, weights, rng = problem(seed=6)
    rows, targets = rng.permutation(40)[:30], np.eye(4)[labels]
    state = posterior(kernel[:, rows], rows, num_outputs=4, ridge=RIDGE, capacity=6)
    for column in (4, 11):
        state = commit(state, column, targets[rows[column]])
    before = jax.tree.map(np.array, state)
    open_ = ~np.isin(np.arange(30), (4, 11))
    columns, info, _ = greedy(state, labels, weights, open_, batch_size=4)
    picks, risks = brute_force(
        kernel, labels, weights, rows[[4, 11]], rows[open_], 4, lambda *seen: (squared(*seen),)
    )
    np.testing.assert_array_equal(rows[np.asarray(columns)], picks)
    np.testing.assert_allclose(info.squared_risk, risks, rtol=1e-8)
    jax.tree.map(np.testing.assert_array_equal, state, before)


def test_under_jit():
    kernel, labels, weights, _ = problem()
    state = posterior(
        kernel.astype(np.float32), np.arange(40), num_outputs=4, ridge=RIDGE, capacity=3
    )
    open_ = np.ones(40, bool)
    plain, _, _ = greedy(state, labels, weights, open_, batch_size=3)
    traced = jax.jit(lambda *given: greedy(*given, batch_size=3)[0])
    np.testing.assert_array_equal(traced(state, labels, weights, open_), plain)


def test_products_are_exact_on_accelerators():
    kernel, labels, weights, _ = problem()
    state = posterior(
        kernel.astype(np.float32), np.arange(40), num_outputs=4, ridge=RIDGE, capacity=3
    )
    for risk in ("squared", "zero_one"):
        pick = functools.partial(greedy, batch_size=3, risk=risk)
        program = str(jax.make_jaxpr(pick)(state, labels, weights, np.ones(40, bool)))
        assert program.count("dot_general") == program.count("Precision.HIGHEST,") > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pseudo_labels": np.full(40, 4)}, "pseudo_labels: expected labels in 0..3, found 4"),
        ({"pseudo_labels": np.full(40, -1)}, "pseudo_labels: expected labels in 0..3, found -1"),
        ({"pseudo_labels": np.zeros(39, int)}, "pseudo_labels: expected 40 labels"),
        ({"weights": np.ones(39)}, "weights: expected shape"),
        ({"weights": np.full(40, np.nan)}, "weights: expected finite"),
        ({"weights": -np.ones(40)}, "weights: expected numbers of zero or more"),
        ({"available": np.ones(40)}, "available: expected bool"),
        ({"available": np.ones(39, bool)}, "available: expected bool of shape"),
        ({"available": np.arange(40) < 2}, "batch_size: expected at most 2"),
        ({"batch_size": 0}, "batch_size"),
        ({"risk": "absolute"}, "risk: expected 'squared' or 'zero_one', found 'absolute'"),
        ({"max_evaluations": 0}, "max_evaluations"),
    ],
)
def test_bad_input_is_named(change, message):
    kernel, labels, weights, _ = problem()
    state = posterior(kernel, np.arange(40), num_outputs=4, ridge=RIDGE, capacity=5)
    arguments = {
        "state": state,
        "pseudo_labels": labels,
        "weights": weights,
        "available": np.ones(40, bool),
        "batch_size": 3,
    }
    with pytest.raises(ValueError, match=message):
        greedy(**(arguments | change))
    if change.keys() <= {"pseudo_labels", "weights"}:
        given = {"pseudo_labels": labels, "weights": weights} | change
        with pytest.raises(ValueError, match=message):
            zero_one_risk(state.mean, **given)


@pytest.mark.parametrize("risk", ["squared", "zero_one"])
def test_a_kernel_that_is_not_finite_is_named(risk):
    kernel, labels, weights, _ = problem()
    state = posterior(kernel, np.arange(40), num_outputs=4, ridge=RIDGE, capacity=5)
    state = state._replace(residual=state.residual.at[3, 7].set(np.nan))
    with pytest.raises(ValueError, match=r"state.residual: expected finite .* row 3"):
        greedy(state, labels, weights, np.ones(40, bool), batch_size=3, risk=risk)


def test_a_tie_counts_as_wrong():
    mean = np.array([[0.5, 0.5], [0.0, 0.0], [0.2, 0.1]], np.float32)
    labels = np.array([0, 0, 0])
    assert zero_one_risk(mean, labels, np.full(3, 1 / 3)) == pytest.approx(2 / 3)
