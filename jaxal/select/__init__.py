"""Selection strategies, one module each, of one signature.

To add one, write a module with a `Strategy` and list it in ``STRATEGIES``.
"""

from jaxal.select.base import Pool, Strategy, check_pool, unlabeled
from jaxal.select.coreset import CORESET, CORESET_HIDDEN
from jaxal.select.entropy import ENTROPY
from jaxal.select.margin import MARGIN
from jaxal.select.ntkcpl import NTKCPL
from jaxal.select.random import RANDOM
from jaxal.select.typiclust import TYPICLUST

__all__ = ["STRATEGIES", "Pool", "Strategy", "check_pool", "get_strategy", "unlabeled"]

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        RANDOM,
        MARGIN,
        ENTROPY,
        CORESET,
        CORESET_HIDDEN,
        TYPICLUST,
        NTKCPL,
    )
}


def get_strategy(name: str) -> Strategy:
    """Look up a strategy.

    Raises:
      ValueError: there is none of that name; the error lists those there are.
    """
    if name not in STRATEGIES:
        known = ", ".join(sorted(STRATEGIES))
        raise ValueError(f"strategy: expected one of {known}, found {name!r}")
    return STRATEGIES[name]
