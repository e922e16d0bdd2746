"""Selection strategies, one module each, of one signature.

To add one, write a module with a `Strategy` and list it in ``STRATEGIES``.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from jaxal.select.activeft import ACTIVEFT
from jaxal.select.as3l import AS3L
from jaxal.select.badge import BADGE
from jaxal.select.bait import BAIT
from jaxal.select.base import Pool, Strategy, check_pool, unlabeled
from jaxal.select.class_balanced import CLASS_BALANCED
from jaxal.select.coreset import CORESET, CORESET_HIDDEN
from jaxal.select.dropquery import DROPQUERY
from jaxal.select.entropy import ENTROPY
from jaxal.select.least_confidence import LEAST_CONFIDENCE
from jaxal.select.lookahead import LOOKAHEAD
from jaxal.select.margin import MARGIN
from jaxal.select.maxherding import MAXHERDING
from jaxal.select.ntkcpl import NTKCPL
from jaxal.select.probcover import PROBCOVER
from jaxal.select.random import RANDOM
from jaxal.select.typiclust import TYPICLUST
from jaxal.select.uherding import UHERDING

__all__ = [
    "STRATEGIES",
    "Pool",
    "Strategy",
    "check_options",
    "check_pool",
    "get_strategy",
    "unlabeled",
]

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        RANDOM,
        CLASS_BALANCED,
        MARGIN,
        LEAST_CONFIDENCE,
        ENTROPY,
        CORESET,
        CORESET_HIDDEN,
        BADGE,
        TYPICLUST,
        PROBCOVER,
        MAXHERDING,
        UHERDING,
        DROPQUERY,
        ACTIVEFT,
        AS3L,
        BAIT,
        LOOKAHEAD,
        NTKCPL,
    )
}


def get_strategy(strategy: Strategy | str) -> Strategy:
    """Look up a strategy by its name; one that is given is given back.

    Raises:
      ValueError: there is none of that name; the error lists those there are.
    """
    if isinstance(strategy, Strategy):
        return strategy
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        known = ", ".join(sorted(STRATEGIES))
        found = repr(strategy) if isinstance(strategy, str) else type(strategy).__name__
        raise ValueError(f"strategy: expected one of {known}, found {found}")
    return STRATEGIES[strategy]


def check_options(strategy: Strategy, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check the names of a strategy's options.

    Args:
      strategy: whose ``select`` takes them by keyword.
      options: by name; None for none.

    Returns:
      The options.

    Raises:
      ValueError: one that it does not take; the error lists those it takes.
    """
    parameters = inspect.signature(strategy.select).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"batch_size"}
    unknown = set(options or ()) - known
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        expected, found = (", ".join(sorted(map(str, names))) for names in (known, unknown))
        raise ValueError(f"options: {strategy.name} takes {expected or 'none'}, found {found}")
    return dict(options or {})
