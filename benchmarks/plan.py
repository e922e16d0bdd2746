"""What a benchmark is to run, and whether it can."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.options import check_options
from jaxal.checks import check_batch_size, check_positive
from jaxal.select import STRATEGIES, get_strategy

__all__ = ["Entry", "Plan", "check_plan", "flag_of"]


class Entry(NamedTuple):
    """A strategy, with options for it."""

    strategy: str
    options: Mapping[str, Any] = {}


class Plan(NamedTuple):
    """What to run."""

    dataset: str
    entries: Mapping[str, Entry]  # by name: a strategy's own, or that of a variant
    budgets: tuple[int, ...]  # picks of each round
    seeds: tuple[int, ...]
    head: str = "linear"  # of `benchmarks.runner.HEADS`
    pool_size: int | None = None  # random rows, by seed; None: all
    scale: bool = True  # features to a mean norm of one
    holdout: int | None = None  # rows kept out of the pool, by seed, to test on; None: the test set


def check_plan(plan: Plan, available: int | None = None) -> None:
    """Check a plan before any work starts.

    Args:
      plan: what to run.
      available: rows of the pool, where known.

    Raises:
      ValueError: unknown strategies or options, bad names, repeated seeds, or too large a budget.
    """
    if not plan.entries:
        raise ValueError("strategies: expected at least one, found none")
    if len(set(plan.seeds)) < len(plan.seeds) or not plan.seeds:
        raise ValueError(f"seeds: expected at least one, each once, found {list(plan.seeds)}")
    for name, entry in plan.entries.items():
        _check_entry(name, entry)
    if not plan.budgets:
        raise ValueError("budgets: expected at least one round, found none")
    for size in plan.budgets:
        check_positive(size, "budgets")
    for flag, asked in (("pool-size", plan.pool_size), ("holdout", plan.holdout)):
        if asked is not None:
            check_positive(asked, flag)
    if available is not None:
        kept = available - (plan.holdout or 0)
        if (plan.pool_size or 1) > kept:
            beside = f" beside {plan.holdout} held out" if plan.holdout else ""
            raise ValueError(
                f"pool-size: expected at most {kept}{beside}, found {plan.pool_size or 'all'}"
            )
        check_batch_size(sum(plan.budgets), plan.pool_size or kept, "budgets")
    elif plan.pool_size is not None:
        check_batch_size(sum(plan.budgets), plan.pool_size, "budgets")


def _check_entry(name: str, entry: Entry) -> None:
    get_strategy(entry.strategy)
    if name != entry.strategy and (name in STRATEGIES or not re.fullmatch(r"[\w.+]+", name)):
        raise ValueError(
            "--variant: expected a name of letters, digits, _ . + that is no strategy's, "
            f"found {name!r}"
        )
    check_options(entry.strategy, entry.options, flag_of(name, entry))


def flag_of(name: str, entry: Entry) -> str:
    """Name what gave an entry its options, for errors."""
    return f"--option {name}" if name == entry.strategy else f"--variant {name}"
