"""ASVP beside its rivals: selecting by a proxy, with features that are refreshed when they must be.

See `jaxal.asvp.pipeline` for the three pipelines, `jaxal.asvp.triggers` for when to refresh.
"""

from jaxal.asvp.config import (
    DEFAULT_CONFIG,
    PIPELINES,
    FinalRule,
    Pipeline,
    PipelineConfig,
    final_method,
    lpft_until_refreshed,
)
from jaxal.asvp.pipeline import run_pipeline
from jaxal.asvp.state import PipelineState, Training, refreshed_at, selection_seconds
from jaxal.asvp.triggers import (
    Score,
    Trigger,
    at_labels,
    enough_labels,
    every_round,
    falling,
    never,
    saturating,
    score_features,
    slowing,
)

__all__ = [
    "DEFAULT_CONFIG",
    "PIPELINES",
    "FinalRule",
    "Pipeline",
    "PipelineConfig",
    "PipelineState",
    "Score",
    "Training",
    "Trigger",
    "at_labels",
    "enough_labels",
    "every_round",
    "falling",
    "final_method",
    "lpft_until_refreshed",
    "never",
    "refreshed_at",
    "run_pipeline",
    "saturating",
    "score_features",
    "selection_seconds",
    "slowing",
]
