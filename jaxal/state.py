"""Where a labelling project stands: a tuple, functions from one to the next, and its file."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_indices, check_labels, check_positive
from jaxal.records import read_record, write_record

__all__ = [
    "ActiveState",
    "cancel",
    "load",
    "relabel",
    "restore_state",
    "save",
    "skip",
    "start",
    "tell",
]

_RECORDED = ("round", "picks", "selection_seconds", "info")


class ActiveState(NamedTuple):
    """Where a run stands."""

    seed: int  # in 0..2^32-1
    pool_size: int
    num_classes: int
    labeled: np.ndarray  # [l] int64, in the order they were labelled, those given at first ahead
    labels: np.ndarray  # [l] int32
    pending: np.ndarray  # [b] int64, asked and not told yet; empty otherwise
    excluded: np.ndarray  # [e] int64, skipped: never labelled, never asked for again
    round: int  # rounds told
    history: tuple[
        dict[str, Any], ...
    ]  # one a round asked, of plain numbers; see `jaxal.active.run`


def start(
    pool_size: int,
    num_classes: int,
    *,
    seed: int,
    labeled: ArrayLike | Sequence[int] = (),
    labels: ArrayLike | Sequence[int] = (),
) -> ActiveState:
    """Begin a run.

    Args:
      pool_size: number of samples, labelled ones included.
      num_classes: number of classes.
      seed: decides everything random.
      labeled: ``[l]`` distinct rows whose labels are there already.
      labels: ``[l]`` their classes, in 0..num_classes-1.

    Returns:
      The state before the first round.

    Raises:
      ValueError: a count under 1, a seed outside 0..2^32-1, or bad rows or labels.
    """
    if np.ndim(pool_size):
        raise ValueError(f"pool_size: expected a count, found an array {np.shape(pool_size)}")
    check_positive(pool_size, "pool_size")
    check_positive(num_classes, "num_classes")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << 32:
        raise ValueError(f"seed: expected a whole number in 0..2^32-1, found {seed!r}")
    rows = check_indices(np.asarray(labeled), pool_size, "labeled")
    found = check_labels(np.asarray(labels), num_classes, length=len(rows))
    none = np.zeros(0, np.int64)
    return ActiveState(
        int(seed), int(pool_size), int(num_classes), rows, found, none, none, round=0, history=()
    )


def tell(state: ActiveState, labels: ArrayLike | Sequence[int]) -> ActiveState:
    """Give the labels of the pending samples.

    Args:
      state: from `jaxal.asktell.ask`.
      labels: ``[b]`` in the order of ``state.pending``; leave out by `skip` what has none.

    Returns:
      The state of the next round.

    Raises:
      ValueError: nothing is pending, or labels of the wrong number or outside 0..num_classes-1.
    """
    if len(state.pending) == 0:
        raise ValueError("labels: no samples wait for labels, ask for some first")
    found = check_labels(np.asarray(labels), state.num_classes, length=len(state.pending))
    labeled = np.concatenate([state.labeled, state.pending])
    record = {**state.history[-1], "num_labeled": len(labeled)}
    return state._replace(
        labeled=labeled,
        labels=np.concatenate([state.labels, found]),
        pending=np.zeros(0, np.int64),
        round=state.round + 1,
        history=(*state.history[:-1], record),
    )


def skip(state: ActiveState, rows: ArrayLike | Sequence[int]) -> ActiveState:
    """Leave out samples that cannot be labelled: they are asked for no more.

    Args:
      state: where the run stands, with samples pending or not.
      rows: ``[k]`` unlabelled rows of the pool, pending or not.

    Returns:
      The state without them. The round's record keeps all its picks. With nothing left to wait for,
      the batch is dropped as by `cancel`.

    Raises:
      ValueError: rows that are labelled, skipped already, repeated or outside the pool.
    """
    rows = check_indices(np.asarray(rows), state.pool_size, "rows")
    settled = np.isin(rows, np.concatenate([state.labeled, state.excluded]))
    if settled.any():
        raise ValueError(
            f"rows: expected unlabelled samples not skipped before, found {rows[settled][0]}"
        )
    left = state.pending[~np.isin(state.pending, rows)]
    if len(state.pending) and not len(left):
        state = cancel(state)
    return state._replace(pending=left, excluded=np.concatenate([state.excluded, rows]))


def cancel(state: ActiveState) -> ActiveState:
    """Drop the pending batch: the state is that before the question, but for what was skipped.

    Raises:
      ValueError: nothing is pending.
    """
    if len(state.pending) == 0:
        raise ValueError("state: expected samples that wait for labels, found none")
    return state._replace(pending=np.zeros(0, np.int64), history=state.history[:-1])


def relabel(state: ActiveState, row: int, label: int) -> ActiveState:
    """Mend the label of one sample.

    Picks of the past stay, and so do metrics in the history. A head trained before is out of date.

    Args:
      state: where the run stands.
      row: a labelled row of the pool.
      label: its class.

    Returns:
      The state with that label.

    Raises:
      ValueError: a row without a label, or a label outside 0..num_classes-1.
    """
    (label,) = check_labels(np.asarray([label]), state.num_classes, "label")
    if row not in state.labeled:
        raise ValueError(f"row: expected a labelled row, found {row!r}")
    return state._replace(labels=np.where(state.labeled == row, label, state.labels))


def save(state: ActiveState, path: str | Path, settings: Mapping[str, Any]) -> None:
    """Write a run, whole or not at all.

    Args:
      state: where the run stands, with samples pending or not.
      path: the JSON file to replace.
      settings: all that its picks depend on; `load` asks for the same. Numbers, strings, paths,
        functions (whose names are compared) and collections of them, such as
        ``{"features": jaxal.fingerprint(features)}``.

    Raises:
      ValueError: a path that no file can have, or settings that JSON cannot hold.
    """
    write_record(path, state._asdict(), settings)


def load(path: str | Path, settings: Mapping[str, Any]) -> ActiveState:
    """Read a run that `save` wrote.

    JSON lacks NaN and infinities: they are saved as null, and null in what a strategy or `evaluate`
    recorded is read as NaN.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or was saved with other settings; the error says which.
    """
    content = read_record(path, settings)
    try:
        return restore_state(content)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a saved run ({error!r})") from error


def restore_state(content: Mapping[str, Any]) -> ActiveState:
    """Rebuild a state of what JSON held of it, and check that all in it tells one story.

    Raises:
      ValueError: rows, rounds or a history that contradict one another.
      KeyError: something is missing.
    """
    state = start(
        content["pool_size"],
        content["num_classes"],
        seed=content["seed"],
        labeled=content["labeled"],
        labels=content["labels"],
    )
    pending = check_indices(content["pending"], state.pool_size, "pending")
    excluded = check_indices(content["excluded"], state.pool_size, "excluded")
    check_indices(np.concatenate([state.labeled, pending, excluded]), state.pool_size, "rows")
    state = state._replace(
        pending=pending,
        excluded=excluded,
        round=content["round"],
        history=tuple(
            {name: _with_nan(item) for name, item in record.items()}
            for record in content["history"]
        ),
    )
    _check_history(state)
    return state


def _check_history(state: ActiveState) -> None:
    kept = [np.zeros(0, np.int64)]
    for record in state.history:
        missing = [name for name in _RECORDED if name not in record]
        if missing:
            raise ValueError(f"history: expected {missing[0]} in every record")
        picks = check_indices(record["picks"], state.pool_size, "picks")
        kept.append(picks[~np.isin(picks, state.excluded)])
    told = len(state.history) - (len(state.pending) > 0)
    if type(state.round) is not int or state.round != told:
        raise ValueError(f"round: expected {told}, as the history tells, found {state.round!r}")
    settled = np.concatenate(kept[: told + 1])
    num_given = len(state.labeled) - len(settled)
    if num_given < 0 or not np.array_equal(state.labeled[num_given:], settled):
        raise ValueError("labeled: expected the picks in the history at its end")
    if len(state.pending) and not np.array_equal(state.pending, kept[-1]):
        raise ValueError("pending: expected the last picks in the history")
    counts = num_given + np.cumsum([len(rows) for rows in kept[1 : told + 1]])
    for index, record in enumerate(state.history):
        if record["round"] != index:
            raise ValueError(f"history: expected round {index}, found {record['round']!r}")
        if index < told and record["num_labeled"] != counts[index]:
            raise ValueError(
                f"num_labeled: expected {counts[index]} in round {index}, "
                f"found {record['num_labeled']!r}"
            )


def _with_nan(value: Any) -> Any:
    """Turn null in a collection back into NaN."""
    if isinstance(value, dict):
        return {name: math.nan if v is None else _with_nan(v) for name, v in value.items()}
    if isinstance(value, list):
        return [math.nan if v is None else _with_nan(v) for v in value]
    return value
