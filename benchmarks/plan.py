"""What a benchmark is to run, and whether it can."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.options import check_options
from jaxal.checks import check_batch_size, check_positive
from jaxal.select import STRATEGIES, get_strategy

__all__ = ["Plan", "check_plan"]


class Plan(NamedTuple):
    """What to run."""

    dataset: str
    strategies: tuple[str, ...]
    budgets: tuple[int, ...]  # picks of each round
    seeds: tuple[int, ...]
    head: str = "linear"  # of `benchmarks.runner.HEADS`
    pool_size: int | None = None  # random rows, by seed; None: all
    scale: bool = True  # features to a mean norm of one
    options: Mapping[str, Any] = {}  # for ntkcpl
    variants: Mapping[str, Mapping[str, Any]] = {}  # ntkcpl again, by name, with other options
    holdout: int | None = None  # rows kept out of the pool, by seed, to test on; None: the test set


def check_plan(plan: Plan, available: int | None = None) -> None:
    """Check a plan before any work starts.

    Args:
      plan: what to run.
      available: rows of the pool, where known.

    Raises:
      ValueError: unknown strategies or options, repeated names or seeds, or too large a budget.
    """
    for name, found in (("strategies", plan.strategies), ("seeds", plan.seeds)):
        if len(set(found)) < len(found) or not (found or (name == "strategies" and plan.variants)):
            raise ValueError(f"{name}: expected at least one, each once, found {list(found)}")
    for name in plan.strategies:
        get_strategy(name)
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
    if plan.options and "ntkcpl" not in plan.strategies:
        raise ValueError("--option: expected ntkcpl among the strategies, it is what takes them")
    check_options(plan.options, "--option")
    for name, options in plan.variants.items():
        if name in STRATEGIES or not re.fullmatch(r"[\w.+]+", name):
            raise ValueError(
                "--variant: expected a name of letters, digits, _ . + that is no strategy's, "
                f"found {name!r}"
            )
        check_options(options, f"--variant {name}")
