"""What each strategy costs: its time and memory as it is built here, and a lower bound.

n is the pool's rows, d its features, c the classes, l the labelled rows, b the picks. The bound
counts the matrix products a strategy cannot do without and the passes over memory that its
picks, one after the other, need; what it does beside that is overhead.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.selecting import Sizes

__all__ = ["COMPLEXITY", "Complexity", "Work", "ceiling_seconds"]

# k-means stops when the data let it; so many sweeps are counted.
_SWEEPS = 10
_RUNS = 6  # of k-means in as3l
# Dropout decides how many samples DropQuery clusters; such a share of the unlabelled is counted.
_DOUBTED = 0.5
_FLOAT = 4  # bytes


class Work(NamedTuple):
    """What cannot be avoided."""

    flops: float = 0.0  # of matrix products
    bytes: float = 0.0  # read from or written to memory beside them


class Complexity(NamedTuple):
    """What a strategy costs with its default options."""

    time: str
    memory: str  # beside the pool's features
    work: Callable[[Sizes], Work]


def ceiling_seconds(name: str, sizes: Sizes, matmul_rate: float, read_rate: float) -> float:
    """Say how long a strategy's unavoidable work takes at the device's measured rates.

    Args:
      name: of the strategy.
      sizes: of its pool.
      matmul_rate: operations a second.
      read_rate: bytes a second.
    """
    work = COMPLEXITY[name].work(sizes)
    return work.flops / matmul_rate + work.bytes / read_rate


def _random(s: Sizes) -> Work:
    return Work(bytes=_FLOAT * s.pool)


def _scores(s: Sizes) -> Work:
    return Work(bytes=_FLOAT * s.pool * s.classes)


def _coreset(s: Sizes) -> Work:
    return Work(
        flops=2 * s.pool * s.features * s.labeled, bytes=_FLOAT * s.pool * s.features * s.picks
    )


def _kmeans(n: int, d: int, k: int) -> float:
    """Count the operations of one start and its sweeps."""
    return 2 * n * k * d * (2 + int(math.log(k)) + _SWEEPS)


def _badge(s: Sizes) -> Work:
    return Work(bytes=_FLOAT * s.pool * (s.classes + s.features) * s.picks)


def _bait(s: Sizes) -> Work:
    n, d, q = s.pool, s.features, s.classes - 1
    if q * d > 4096 or n * q**2 > 1 << 26:
        q = 1
    rows, picks = q * d, 2 * s.picks
    # F, C and D at the start, M⁻¹ and M⁻¹ F M⁻¹; the samples' activations at every pick
    start = 6 * n * rows**2 + 6 * rows**3
    return Work(
        flops=start + 4 * picks * n * rows * q,
        bytes=_FLOAT * picks * (n * d + 4 * n * q**2 + 4 * rows**2),
    )


def _dropquery(s: Sizes) -> Work:
    predictions = 2 * s.pool * s.features * s.classes * 4
    candidates = int(_DOUBTED * (s.pool - s.labeled))
    return Work(flops=predictions + _kmeans(candidates, s.features, s.picks))


def _typiclust(s: Sizes) -> Work:
    k = min(s.labeled + s.picks, 500)
    # all pairs within each cluster, were the clusters of one size
    return Work(flops=_kmeans(s.pool, s.features, k) + 2 * s.pool**2 / k * s.features)


def _coverage(s: Sizes) -> Work:
    # the kernel of all pairs, which is symmetric, of the labelled, and a row of it a pick
    return Work(flops=s.pool * s.features * (s.pool + 2 * s.labeled + 2 * s.picks))


def _uherding(s: Sizes) -> Work:
    return _coverage(s)._replace(bytes=_FLOAT * s.pool * s.classes)


def _probcover(s: Sizes) -> Work:
    # all pairs once more, for the radius
    pairs = s.pool**2 * s.features
    clusters = _kmeans(s.pool, s.features, s.classes)
    return Work(flops=_coverage(s).flops + pairs + clusters)


def _lookahead(s: Sizes) -> Work:
    free = s.pool - s.labeled
    candidates = min(4000, free)
    kernel = (candidates + s.labeled) * s.features
    given = s.labeled * (s.labeled + candidates)
    return Work(flops=2 * free * (kernel + given + candidates * s.classes))


def _ntkcpl(s: Sizes) -> Work:
    candidates, width = min(4000, s.pool - s.labeled), 512
    clusters = min(max((s.labeled + s.picks) // 2, 2), 100)
    kernel = 2 * s.pool * (candidates + s.labeled) * (s.features + 2 * width)
    given = 2 * s.pool * s.labeled * (candidates + s.labeled + clusters)
    scores = 2 * s.pool * candidates * clusters
    return Work(
        flops=kernel + given + scores + 5 * _kmeans(s.pool, s.embedding, clusters),
        bytes=_FLOAT * s.pool * candidates * (s.picks + 2),
    )


def _activeft(s: Sizes) -> Work:
    step = 2 * s.pool * s.features * s.picks
    return Work(flops=301 * step + 2 * s.pool * s.features * s.labeled)


def _as3l(s: Sizes) -> Work:
    return Work(flops=_RUNS * _kmeans(s.pool, s.embedding, s.labeled + s.picks))


_SCORES = Complexity("n·c", "n", _scores)
_CORESET = Complexity("n·d·(l + b)", "n·d", _coreset)

COMPLEXITY: dict[str, Complexity] = {
    "random": Complexity("n", "n", _random),
    "margin": _SCORES,
    "entropy": _SCORES,
    "least-confidence": _SCORES,
    "class-balanced": Complexity("n·log n", "n", _random),
    "coreset": _CORESET,
    "coreset-hidden": _CORESET,
    "badge": Complexity("n·(c + d)·b", "n·(c + d)", _badge),
    "typiclust": Complexity(
        "n·d·k a sweep of k-means, + n²·d/k; k = min(l + b, 500)", "n·d", _typiclust
    ),
    "bait": Complexity(
        "n·q²·d² + q³·d³ + (n·d·q² + n·q³ + q³·d²)·b; q = c - 1, or 1 where that is much",
        "n·(d + q²) + q²·d²",
        _bait,
    ),
    "dropquery": Complexity(
        "n·d·c·(1 + M), + m·d·b a sweep of k-means; M = 3 predictions, m candidates",
        "m·d + 4096·(d + b)",
        _dropquery,
    ),
    "probcover": Complexity(
        "n²·d + n·d·(l + e·b), + n·d·c a sweep of k-means; e gains computed anew a pick",
        "n·d",
        _probcover,
    ),
    "maxherding": Complexity(
        "n²·d + n·d·(l + e·b); e gains computed anew a pick", "n·d", _coverage
    ),
    "uherding": Complexity(
        "n²·d + n·d·(l + e·b) + n·c; e gains computed anew a pick", "n·(d + c)", _uherding
    ),
    "lookahead": Complexity(
        "n·((m + l)·d + l·(m + l) + m·c); m = 4000 candidates",
        "n·d + (2048 + l)·(m + l)",
        _lookahead,
    ),
    "activeft": Complexity(
        "n·d·(b·S + l); S = 300 steps", "n·d + 4096·(b + l) + b² + l²", _activeft
    ),
    "as3l": Complexity(
        "R·n·e·k a sweep of k-means + b·g·R; R = 6 runs, k = l + b, e the embedding's width, g ≤ n "
        "groups",
        "n·(e + R)",
        _as3l,
    ),
    "ntkcpl": Complexity(
        "n·(m + l)·(d + 2w) + n·l·(m + l + k) + n·m·(k + b); m = 4000 candidates, w = 512, "
        "k = min((l + b)/2, 100)",
        "n·(m + l + k + b)",
        _ntkcpl,
    ),
}
