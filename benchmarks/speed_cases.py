"""The hot paths that the speed benchmark times, each beside a ceiling or a peer."""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import best, draw_mixture, matmul_rate, peak_gib, read_rate

__all__ = ["CASES", "FULL", "QUICK", "Sizes"]

Sizes = dict[str, int]
FULL: Sizes = dict(
    pool=50_000, candidates=5_000, d=512, labeled=1_000, picks=100, clusters=100, ceiling=4096
)
QUICK: Sizes = dict(pool=500, candidates=100, d=32, labeled=50, picks=5, clusters=10, ceiling=512)
_LOOKED_AT = 500  # candidates


def _features(n: int, d: int) -> Any:
    return draw_mixture(n, d)[0]


def kernel(s: Sizes) -> dict[str, Any]:
    """Compute the closed-form NTK of a dense head, pool by candidates."""
    import jax
    import jax.numpy as jnp

    from jaxal.kernels.dense import dense_ntk, init_dense_layers

    x = jnp.asarray(_features(s["pool"], s["d"]))
    layers = init_dense_layers(jax.random.key(0), (s["d"], s["d"], 10))
    columns = x[: s["candidates"]]
    first, seconds = best(lambda: dense_ntk(layers, x, columns))
    work = 2 * s["pool"] * s["candidates"] * 3 * s["d"]
    return _row(
        first,
        seconds,
        lambda: work / seconds / matmul_rate(s["ceiling"]),
        "of the matrix-product rate",
    )


def kernel_peer(s: Sizes) -> dict[str, Any]:
    """Compute the same kernel, 128 x 128 points, in closed form and by neural-tangents."""
    import jax
    import jax.numpy as jnp

    from jaxal.kernels.dense import apply_layers, dense_ntk, init_dense_layers
    from jaxal.kernels.empirical import empirical_ntk

    d = s["d"]
    x = jnp.asarray(_features(128, d))
    layers = init_dense_layers(jax.random.key(0), (d, d, 10))

    def apply(params: Any, inputs: jax.Array) -> jax.Array:
        replaced = [layer._replace(**p) for layer, p in zip(layers, params, strict=True)]
        return apply_layers(replaced, inputs)

    params = [{"kernel": layer.kernel, "bias": layer.bias} for layer in layers]
    first, seconds = best(lambda: dense_ntk(layers, x))
    _, peer = best(lambda: empirical_ntk(apply, params, x, engine="neural-tangents"), repeats=1)
    return _row(first, seconds, lambda: peer / seconds, "x faster than neural-tangents")


def condition(s: Sizes) -> dict[str, Any]:
    """Condition the posterior on a labelled set."""
    import jax.numpy as jnp
    import numpy as np

    from jaxal.regression import posterior

    x, n, m, count = _features(s["pool"], s["d"]), s["pool"], s["candidates"], s["labeled"]
    rng = np.random.default_rng(0)
    rows = rng.permutation(n)[: m + count]
    columns = jnp.asarray(x @ x[rows[:m]].T)
    left = jnp.asarray(x @ x[rows[m:]].T)
    targets = np.eye(s["clusters"], dtype=np.float32)[rng.integers(s["clusters"], size=count)]

    def fit() -> Any:
        return posterior(
            columns,
            rows[:m],
            kernel_labeled=left,
            labeled=rows[m:],
            targets=targets,
            ridge=float(s["d"]),
        )

    first, seconds = best(fit)
    work = 2 * n * count * (m + count + s["clusters"])
    return _row(
        first,
        seconds,
        lambda: work / seconds / matmul_rate(s["ceiling"]),
        "of the matrix-product rate",
    )


def look_ahead(s: Sizes) -> dict[str, Any]:
    """Look ahead at 500 candidates, one at a time, each a new prediction of the whole pool."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxal import regression

    x, n, k = _features(s["pool"], s["d"]), s["pool"], s["clusters"]
    count = min(_LOOKED_AT, s["candidates"])
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(n)[: s["candidates"]])
    state = regression.posterior(
        jnp.asarray(x @ x[rows].T), rows, num_outputs=k, ridge=float(s["d"])
    )
    columns, targets = np.arange(count), np.eye(k, dtype=np.float32)[rng.integers(k, size=count)]

    def look() -> None:
        for i in range(count):
            jax.block_until_ready(
                regression.look_ahead(state, columns[i : i + 1], targets[i : i + 1])
            )

    first, seconds = best(look, repeats=1)
    # each prediction is made of the one before, which is read, and written
    moved = count * 2 * 4 * n * k
    return _row(
        first,
        seconds,
        lambda: seconds * read_rate(s["ceiling"]) / moved,
        "x the time of its passes over memory",
    )


def greedy_picks(s: Sizes) -> dict[str, Any]:
    """Make greedy picks by the squared risk: one read of the kernel a pick is unavoidable."""
    import jax.numpy as jnp
    import numpy as np

    from jaxal.regression import posterior
    from jaxal.risk import greedy

    x, n, m = _features(s["pool"], s["d"]), s["pool"], s["candidates"]
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(n)[:m])
    state = posterior(
        jnp.asarray(x @ x[rows].T),
        rows,
        num_outputs=s["clusters"],
        ridge=float(s["d"]),
        capacity=s["picks"],
    )
    labels = rng.integers(s["clusters"], size=n)
    weights, open_ = np.full(n, 1 / n, np.float32), np.ones(m, bool)
    first, seconds = best(
        lambda: greedy(state, labels, weights, open_, batch_size=s["picks"])[0], repeats=1
    )

    # the scores' start reads the kernel twice, and multiplies it by the clusters' errors
    def ratio() -> float:
        passes = (s["picks"] + 2) * 4 * n * m / read_rate(s["ceiling"])
        return seconds / (passes + 2 * n * m * s["clusters"] / matmul_rate(s["ceiling"]))

    return _row(first, seconds, ratio, "x the time of its passes over memory")


def clusters(s: Sizes) -> dict[str, Any]:
    """Run k-means beside scikit-learn's, one start each, the mean of three seeds."""
    import jax
    import numpy as np
    from sklearn.cluster import KMeans

    from jaxal.clustering import kmeans

    x = _features(s["pool"], min(s["d"], 256))
    k = s["clusters"]
    first, _ = best(lambda: kmeans(jax.random.key(9), x, k).inertia, repeats=1)
    ours, theirs, inertias = [], [], []
    for seed in range(3):
        start = time.perf_counter()
        found = jax.block_until_ready(kmeans(jax.random.key(seed), x, k))
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        peer = KMeans(k, n_init=1, random_state=seed).fit(x)
        theirs.append(time.perf_counter() - start)
        inertias.append(float(found.inertia) / peer.inertia_)
    note = f"x faster than scikit-learn; inertia ratio {np.mean(inertias):.4f}"
    return _row(first, float(np.mean(ours)), lambda: float(np.mean(theirs) / np.mean(ours)), note)


def neighbors(s: Sizes) -> dict[str, Any]:
    """Find each pool sample's 20 nearest by cosine."""
    from jaxal.neighbors import nearest_neighbors

    d = min(s["d"], 256)
    x = _features(s["pool"], d)
    first, seconds = best(lambda: nearest_neighbors(x, 20), repeats=1)
    work = 2 * s["pool"] ** 2 * d
    return _row(
        first,
        seconds,
        lambda: work / seconds / matmul_rate(s["ceiling"]),
        "of the matrix-product rate",
    )


def embedding(s: Sizes) -> dict[str, Any]:
    """Embed the pool for clustering, its neighbours included."""
    from jaxal.embedding import cluster_embedding

    x = _features(s["pool"], s["d"])
    first, seconds = best(lambda: cluster_embedding(x), repeats=1)
    work = 2 * s["pool"] ** 2 * min(s["d"], 128)
    return _row(
        first,
        seconds,
        lambda: seconds * matmul_rate(s["ceiling"]) / work,
        "x the product that finds its neighbours",
    )


def head(s: Sizes) -> dict[str, Any]:
    """Train the paper's head, 100 epochs on the labelled samples."""
    import jax
    import numpy as np

    from jaxal.train.head import PROXY, train_head

    x, d, count = _features(s["pool"], s["d"]), s["d"], s["labeled"]
    rng = np.random.default_rng(0)
    rows, labels = rng.permutation(len(x))[:count], rng.integers(10, size=count)
    first, seconds = best(
        lambda: train_head(jax.random.key(0), x, rows, labels, 10, config=PROXY).losses
    )
    work = 6 * count * PROXY.epochs * (d * d + 10 * d)
    return _row(
        first,
        seconds,
        lambda: work / seconds / matmul_rate(s["ceiling"]),
        "of the matrix-product rate",
    )


def ntkcpl_round(s: Sizes) -> dict[str, Any]:
    """Run a full NTKCPL round: clusters, kernel, posterior, picks."""
    import jax
    import numpy as np

    from jaxal.select import Pool
    from jaxal.select.ntkcpl import select_ntkcpl

    x, n = _features(s["pool"], s["d"]), s["pool"]
    rng = np.random.default_rng(0)
    count = 2 * s["clusters"] - s["picks"]
    labeled, labels = rng.permutation(n)[:count], rng.integers(10, size=count)
    probs = rng.dirichlet(np.ones(10), size=n).astype(np.float32)
    embedded = _features(n, 100)  # made once a pool, not once a round
    pool = Pool(x, 10, labeled, labels, probs=probs, embedding=embedded)

    def run() -> Any:
        return select_ntkcpl(
            jax.random.key(0), pool, batch_size=s["picks"], num_candidates=s["candidates"]
        )[0]

    first, seconds = best(run, repeats=1)

    def ratio() -> float:
        product = 3 * 2 * n * s["candidates"] * s["d"] / matmul_rate(s["ceiling"])
        passes = (s["picks"] + 3) * 4 * n * s["candidates"] / read_rate(s["ceiling"])
        return seconds / (product + passes)

    return _row(first, seconds, ratio, "x the kernel's product and the passes over memory")


def transferability(s: Sizes) -> dict[str, Any]:
    """Score a labelled pool of four times as many columns by LogME with classes moved."""
    from jaxal.transferability import ped_logme

    x, labels = draw_mixture(s["pool"], 4 * s["d"], components=s["clusters"])
    first, seconds = best(lambda: ped_logme(x, labels)[0], repeats=1)
    work = 2 * x.shape[0] * x.shape[1] ** 2
    return _row(
        first,
        seconds,
        lambda: work / seconds / matmul_rate(s["ceiling"]),
        "of the matrix-product rate, by the sums alone; in float64",
    )


def _row(first: float, seconds: float, ratio: Callable[[], float], note: str) -> dict[str, Any]:
    # read before the ratio, whose ceilings take memory of their own
    peak = peak_gib()
    return dict(first=first, seconds=seconds, peak_gib=peak, ratio=ratio(), compared=note)


CASES: dict[str, Callable[[Sizes], dict[str, Any]]] = {
    fn.__name__: fn
    for fn in (
        kernel,
        kernel_peer,
        condition,
        look_ahead,
        greedy_picks,
        clusters,
        neighbors,
        embedding,
        head,
        ntkcpl_round,
        transferability,
    )
}
