"""How a pipeline works: its proxy, when features are refreshed, how the network is trained."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, cast

from jaxal.asvp.triggers import Score, Trigger, saturating
from jaxal.checks import check_choice
from jaxal.train.head import PROXY, HeadConfig, check_config
from jaxal.train.network import Method

__all__ = [
    "DEFAULT_CONFIG",
    "PIPELINES",
    "FinalRule",
    "Pipeline",
    "PipelineConfig",
    "check_pipeline_config",
    "final_method",
    "lpft_until_refreshed",
]

Pipeline = Literal["standard", "svpp", "asvp"]
PIPELINES: tuple[Pipeline, ...] = ("standard", "svpp", "asvp")

# (number of labels, whether features had been refreshed by then) -> how the network is trained.
FinalRule = Callable[[int, bool], Method]


def lpft_until_refreshed(num_labeled: int, refreshed: bool) -> Method:
    """Train by LP-FT while labels are few, by fine-tuning once features were refreshed (ASVP)."""
    return "ft" if refreshed else "lpft"


def final_method(final: Method | FinalRule, num_labeled: int, refreshed: Sequence[int]) -> Method:
    """Say how the network is trained in the end on the first picks.

    Args:
      final: a method, or a rule.
      num_labeled: how many picks.
      refreshed: at how many labels features were refreshed, see `refreshed_at`; a refresh at
        exactly ``num_labeled`` served the picks after them.

    Returns:
      The method.

    Raises:
      ValueError: the rule gives none.
    """
    method = final
    if callable(final):
        method = final(num_labeled, any(at < num_labeled for at in refreshed))
    check_choice(method, "config.final", Method)
    return cast(Method, method)


class PipelineConfig(NamedTuple):
    """How a pipeline works."""

    head: HeadConfig = PROXY  # the proxy; of standard only where its training diverged
    trigger: Trigger = saturating  # when asvp refreshes its features
    tuning: Method = "ft"  # how standard trains each round, and asvp to refresh
    # In the round of a refresh asvp chooses by the network trained for it (ours), not by a proxy on
    # its features: these set the samples that it was trained on apart from all others.
    tuned_head: bool = True
    final: Method | FinalRule = lpft_until_refreshed  # how the network is trained in the end
    compare: tuple[Method, ...] = ()  # trained beside it, for comparison
    save_final: bool = True  # whether final networks are kept, such as lpft-100.npz of 100 labels


DEFAULT_CONFIG = PipelineConfig()


def check_pipeline_config(config: PipelineConfig) -> None:
    """Check a configuration.

    Raises:
      ValueError: no `PipelineConfig`, or something in it that is none or out of its range.
    """
    if not isinstance(config, PipelineConfig):
        raise ValueError(f"config: expected a PipelineConfig, found {type(config).__name__}")
    check_config(config.head, "config.head")
    check_choice(config.tuning, "config.tuning", Method)
    for method in config.compare:
        check_choice(method, "config.compare", Method)
    if not callable(config.trigger):
        raise ValueError(
            f"config.trigger: expected a function of the scores, found {config.trigger!r}"
        )
    # Its options are found bad here, rather than when it first looks at scores.
    config.trigger([Score(1, 1, 0, 0.0, 0.0)])
    if not callable(config.final):
        check_choice(config.final, "config.final", Method)
