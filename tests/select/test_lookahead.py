import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.heads import DenseHead
from jaxal.select import Pool, get_strategy
from jaxal.select.lookahead import select_lookahead
from jaxal.train.head import TrainedHead

KEY = jax.random.key(0)
N, D, C = 70, 4, 3


def problem(seed, num_labeled, hidden=()):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32)
    head = DenseHead(hidden, C)
    variables = head.init(jax.random.key(seed), x[:1])
    labeled, labels = rng.permutation(N)[:num_labeled], rng.integers(0, C, num_labeled)
    probs = jax.nn.softmax(3 * head.apply(variables, x)[0])
    trained = TrainedHead(head, variables, jnp.zeros(1))
    return Pool(x, C, labeled, labels, probs=np.asarray(probs), trained=trained)


def kernel_of(pool, feature_norm):
    """The NTK by Jacobians, averaged over outputs, of features at a mean norm."""
    x = np.asarray(pool.features, np.float64)
    scale = 1 if feature_norm is None else feature_norm / np.linalg.norm(x, axis=1).mean()
    head, params = pool.trained.head, pool.trained.variables["params"]
    first = "dense_0" if head.features else "output"
    layer = {**params[first], "kernel": params[first]["kernel"] / scale}
    params = {**params, first: layer}
    jacobian = jax.jacrev(
        lambda p: head.apply({"params": p}, jnp.asarray(x * scale, jnp.float32))[0]
    )
    flat = [
        np.asarray(leaf, np.float64).reshape(N, C, -1) for leaf in jax.tree.leaves(jacobian(params))
    ]
    flat = np.concatenate(flat, axis=2)
    return np.einsum("iop,jop->ij", flat, flat) / C


def reference(
    pool, batch_size, *, sequential=False, outputs="probs", baseline="network", ridge=1e-3, norm=4.0
):
    kernel, labeled = kernel_of(pool, norm), list(pool.labeled)
    network = np.asarray(pool.probs, np.float64)
    if outputs == "logits":
        network = np.asarray(pool.trained.head.apply(pool.trained.variables, pool.features)[0])
    free = [i for i in range(N) if i not in labeled]
    supposed, onehot = network.argmax(axis=1), np.eye(C)
    r = ridge * np.diag(kernel)[labeled or free].mean()

    def fit(rows, targets):
        if not rows:
            return network
        block = kernel[np.ix_(rows, rows)] + r * np.eye(len(rows))
        return network + kernel[:, rows] @ np.linalg.solve(block, targets - network[rows])

    rows, targets, picks, found = list(labeled), onehot[np.asarray(pool.labels, int)], [], []
    start = fit(rows, targets)
    before = network if baseline == "network" else start
    for _ in range(batch_size if sequential else 1):
        current = fit(rows, targets)
        scores = {}
        for i in free:
            if i in picks:
                continue
            after = fit([*rows, i], np.concatenate([targets, onehot[supposed[i]][None]]))
            unlabelled = [j for j in free if j not in picks]
            change = after - current + start - before
            scores[i] = np.linalg.norm(change[unlabelled], axis=1).sum()
        order = sorted(scores, key=lambda i: -scores[i])
        chosen = order[: 1 if sequential else batch_size]
        picks += chosen
        found += [scores[i] for i in chosen]
        rows += chosen
        targets = np.concatenate([targets, onehot[supposed[chosen]]])
    return picks, found


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("hidden", [(), (5,)])
@pytest.mark.parametrize(
    ("num_labeled", "options"),
    [
        (8, {}),
        (8, {"baseline": "linearized"}),
        (8, {"outputs": "logits", "ridge": 0.1}),
        (0, {}),
        (40, {"feature_norm": None}),
    ],
)
def test_equals_retraining(sequential, hidden, num_labeled, options):
    pool = problem(num_labeled, num_labeled, hidden)
    picks, info = select_lookahead(
        KEY, pool, batch_size=6, sequential=sequential, chunk_size=30, **options
    )
    changed = {("norm" if k == "feature_norm" else k): v for k, v in options.items()}
    expected, scores = reference(pool, 6, sequential=sequential, **changed)
    np.testing.assert_allclose(info.scores, scores, rtol=2e-3)
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_array_equal(info.labels, np.asarray(pool.probs)[expected].argmax(axis=1))


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize(("num_labeled", "batch_size"), [(8, 1), (64, 6)])
def test_one_and_all_that_is_left(sequential, num_labeled, batch_size):
    pool = problem(3, num_labeled)
    picks, _ = select_lookahead(KEY, pool, batch_size=batch_size, sequential=sequential)
    expected, _ = reference(pool, batch_size, sequential=sequential)
    np.testing.assert_array_equal(picks, expected)


def test_candidates_and_samples_are_drawn():
    pool = problem(1, 8)
    whole, info = select_lookahead(KEY, pool, batch_size=62)
    scores = dict(zip(np.asarray(whole).tolist(), np.asarray(info.scores), strict=True))
    few, seen = select_lookahead(KEY, pool, batch_size=3, num_candidates=20)
    assert seen.num_candidates == 20
    np.testing.assert_allclose(seen.scores, [scores[i] for i in few.tolist()], rtol=1e-5)
    for sequential in (False, True):
        _, part = select_lookahead(
            KEY, pool, batch_size=3, num_samples=30, num_candidates=20, sequential=sequential
        )
        assert part.scores[0] < seen.scores[0]


def test_fewer_candidates_than_picks_are_filled_up():
    picks, _ = select_lookahead(KEY, problem(1, 8), batch_size=6, num_candidates=2)
    assert len(np.unique(picks)) == 6


@pytest.mark.parametrize("scale", [2.0**90, 2.0**-90])
def test_huge_and_tiny_features(scale):
    pool = problem(2, 8)
    params = pool.trained.variables["params"]
    output = {**params["output"], "kernel": params["output"]["kernel"] / scale}
    trained = pool.trained._replace(variables={"params": {"output": output}})
    scaled = pool._replace(features=pool.features * np.float32(scale), trained=trained)
    picks, _ = select_lookahead(KEY, scaled, batch_size=6)
    np.testing.assert_array_equal(picks, select_lookahead(KEY, pool, batch_size=6)[0])


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_duplicates_go_by_index(sequential, value):
    pool = problem(0, 8)._replace(features=np.full((N, D), value), labeled=np.arange(8))
    pool = pool._replace(probs=np.full((N, C), 1 / C), labels=np.zeros(8, int))
    picks, info = select_lookahead(KEY, pool, batch_size=6, sequential=sequential)
    assert np.isfinite(info.scores).all()
    np.testing.assert_array_equal(picks, range(8, 14))


def test_single_sample():
    pool = problem(0, 0)
    pool = pool._replace(features=pool.features[:1], probs=pool.probs[:1])
    picks, _ = select_lookahead(KEY, pool, batch_size=1)
    np.testing.assert_array_equal(picks, [0])


def test_needs_follow_the_outputs():
    strategy = get_strategy("lookahead")
    assert strategy.needs_with({}) == {"trained", "probs"}
    assert strategy.needs_with({"outputs": "logits"}) == {"trained"}
    pool = problem(0, 8)
    select_lookahead(KEY, pool._replace(probs=None), batch_size=1, outputs="logits")
    with pytest.raises(ValueError, match=r"lookahead needs pool\.probs"):
        select_lookahead(KEY, pool._replace(probs=None), batch_size=1)
    with pytest.raises(ValueError, match=r"pool\.trained: expected a head from 2 features"):
        select_lookahead(KEY, pool._replace(features=pool.features[:, :2]), batch_size=1)


def test_a_ridge_under_the_rounding_is_named():
    with pytest.raises(ValueError, match=r"ridge: expected enough .* found 1e-12"):
        select_lookahead(KEY, problem(0, 40), batch_size=1, ridge=1e-12)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sequential", "yes"),
        ("num_candidates", 0),
        ("num_samples", 0),
        ("outputs", "loss"),
        ("baseline", "none"),
        ("ridge", 0),
        ("feature_norm", 0),
        ("chunk_size", 0),
    ],
)
def test_bad_options_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        select_lookahead(KEY, problem(0, 8), batch_size=1, **{option: value})
