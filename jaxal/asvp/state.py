"""Where a pipeline stands, what it took, and its file."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxal.asvp.triggers import Score
from jaxal.records import plain, read_record, write_record
from jaxal.state import ActiveState, restore_state
from jaxal.train.network import Method

__all__ = [
    "PipelineState",
    "Training",
    "load_pipeline",
    "refreshed_at",
    "save_pipeline",
    "selection_seconds",
]


class Training(NamedTuple):
    """A training of the network."""

    # "selection" of standard, "refresh" of asvp, or "failed" where either diverged; "final".
    purpose: str
    num_labeled: int
    method: Method
    seconds: float
    embed_seconds: float = 0.0  # of the pool's features by it, for the first two
    metrics: Mapping[str, Any] = {}  # of `evaluate`, for "final"; "error" of what diverged


class PipelineState(NamedTuple):
    """Where a pipeline stands."""

    active: ActiveState
    trainings: tuple[Training, ...]
    scores: tuple[Score, ...]  # of asvp, one a round from the second, and one a refresh
    seconds: tuple[float, ...]  # [r] of each round asked: proxy, prediction and strategy
    embed_seconds: float  # of the pre-trained network's features


def selection_seconds(state: PipelineState, num_labeled: int | None = None) -> float:
    """Add up the seconds that choosing the first samples took.

    Args:
      state: of a pipeline.
      num_labeled: how many; None for all.

    Returns:
      Seconds for features, proxies, strategies, and trainings that served selection. The last
      round's training by ``standard`` is not among them: it is the final one.
    """
    most = len(state.active.labeled) if num_labeled is None else num_labeled
    counts = [record["num_labeled"] for record in state.active.history[: state.active.round]]
    rounds = sum(s for s, count in zip(state.seconds, counts, strict=False) if count <= most)
    served = [t for t in state.trainings if t.purpose != "final" and t.num_labeled < most]
    scores = sum(s.seconds for s in state.scores if s.num_labeled < most)
    return state.embed_seconds + rounds + scores + sum(t.seconds + t.embed_seconds for t in served)


def refreshed_at(state: PipelineState) -> list[int]:
    """List at how many labels the features were refreshed."""
    return [t.num_labeled for t in state.trainings if t.purpose == "refresh"]


def save_pipeline(state: PipelineState, path: Path, settings: Mapping[str, Any]) -> None:
    """Write a pipeline, whole or not at all.

    Raises:
      ValueError: settings that JSON cannot hold, or a path that no file can have.
    """
    write_record(path, plain(state, "state"), settings)


def load_pipeline(path: Path, settings: Mapping[str, Any]) -> PipelineState:
    """Read what `save_pipeline` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, or was saved with other settings; the error says which.
    """
    content = read_record(path, settings)
    try:
        return PipelineState(
            restore_state(content["active"]),
            tuple(_restore_training(t) for t in content["trainings"]),
            tuple(_restore_score(s) for s in content["scores"]),
            tuple(content["seconds"]),
            content["embed_seconds"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a saved pipeline ({error!r})") from error


def _restore_score(content: Mapping[str, Any]) -> Score:
    return Score(**_restore_nan(content))


def _restore_training(content: Mapping[str, Any]) -> Training:
    found = Training(**content)
    return found._replace(metrics=_restore_nan(found.metrics))


def _restore_nan(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON lacks NaN."""
    return {name: math.nan if x is None else x for name, x in content.items()}
