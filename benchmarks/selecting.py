"""Time one selection on synthetic features, in a process of its own.

Only the selection is timed: features, labels and, where the strategy needs them, a linear head
trained on the labelled rows and an embedding, another mixture, are made before.
"""

import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measuring import best, draw_mixture, peak_gib, run_alone
from jaxal.select import STRATEGIES, Pool, Strategy, get_strategy

__all__ = [
    "Sizes",
    "choose_strategies",
    "make_pool",
    "measure_selection",
    "shown_name",
    "time_selection",
]

# Calls that take longer are not repeated more than once.
_SHORT = 2.0
_EMBEDDING_SEED = 2


class Sizes(NamedTuple):
    """What one selection is made from."""

    pool: int
    features: int
    classes: int
    labeled: int
    picks: int
    embedding: int = 100


def choose_strategies(names: Sequence[str] | None) -> list[str]:
    """Check names of strategies; None stands for all that see no labels nobody paid for.

    Raises:
      ValueError: one that is unknown, or given twice.
    """
    if names is None:
        return [name for name, strategy in STRATEGIES.items() if not strategy.oracle]
    for name in names:
        get_strategy(name)
    if len(set(names)) < len(names):
        raise ValueError(f"--strategies: expected each once, found {list(names)}")
    return list(names)


def shown_name(name: str) -> str:
    """Name a strategy in a table: one that sees labels nobody paid for is marked."""
    return name + " (oracle)" * get_strategy(name).oracle


def make_pool(strategy: Strategy, sizes: Sizes) -> tuple[Pool, np.ndarray]:
    """Make a pool with what a strategy needs.

    Args:
      strategy: whose needs are met.
      sizes: of the pool.

    Returns:
      The pool, and the true classes of all its rows, ``[pool]``.
    """
    x, classes = draw_mixture(sizes.pool, sizes.features, components=sizes.classes)
    rng = np.random.default_rng(1)
    labeled = rng.permutation(sizes.pool)[: sizes.labeled]
    pool = Pool(x, sizes.classes, labeled, classes[labeled])
    needs = strategy.needs_with(None)
    if "embedding" in needs:
        embedding, _ = draw_mixture(
            sizes.pool, sizes.embedding, components=sizes.classes, seed=_EMBEDDING_SEED
        )
        pool = pool._replace(embedding=embedding)
    if needs & {"probs", "hidden", "trained"}:
        pool = with_head(pool)
    return pool, classes


def with_head(pool: Pool) -> Pool:
    """Train a linear head on the labelled rows; its hidden activations are the features."""
    import jax

    from jaxal.train.head import predict_probs, train_head

    trained = train_head(
        jax.random.key(0), pool.features, pool.labeled, pool.labels, pool.num_classes
    )
    probs = np.asarray(predict_probs(trained, pool.features))
    return pool._replace(probs=probs, hidden=pool.features, trained=trained)


def time_selection(name: str, sizes: Sizes) -> dict[str, float]:
    """Time a strategy in this process.

    Returns:
      Seconds of the ``first`` call, which compiles, and of the best later one (``seconds``), and
      the ``peak_gib`` of the process.
    """
    import jax

    strategy = get_strategy(name)
    pool, classes = make_pool(strategy, sizes)
    given: dict[str, Any] = {"true_labels": classes} if strategy.oracle else {}
    run: Callable[[], Any] = functools.partial(
        strategy.select, jax.random.key(0), pool, batch_size=sizes.picks, **given
    )
    first, seconds = best(run, repeats=1)
    if seconds < _SHORT:
        seconds = min(seconds, best(run, repeats=2)[1])
    return {"first": first, "seconds": seconds, "peak_gib": peak_gib()}


def measure_selection(
    name: str, sizes: Sizes, *, ceiling: int | None = None, timeout: float | None = None
) -> dict[str, float]:
    """Time a strategy in a process of its own.

    Args:
      name: of the strategy.
      sizes: of its pool.
      ceiling: size of the products that the device's rates are measured by afterwards, for
        ``matmul_rate`` (operations a second) and ``read_rate`` (bytes a second) in the result;
        None for neither.
      timeout: seconds after which it is given up, all included; None for never.

    Returns:
      As `time_selection`, and the rates.

    Raises:
      RuntimeError: it failed.
      TimeoutError: it was given up.
    """
    given = json.dumps({"name": name, "sizes": sizes._asdict(), "ceiling": ceiling})
    return run_alone("benchmarks.selecting", [given], name, timeout)


def _main(given: str) -> None:
    from benchmarks.measuring import matmul_rate, read_rate

    asked = json.loads(given)
    found = time_selection(asked["name"], Sizes(**asked["sizes"]))
    if asked["ceiling"] is not None:
        # after the peak was read, as these take memory of their own
        found |= {
            "matmul_rate": matmul_rate(asked["ceiling"]),
            "read_rate": read_rate(asked["ceiling"]),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    _main(sys.argv[1])
