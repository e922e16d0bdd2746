"""Strategies on a large pool: time and peak memory, beside the ceiling of their own arithmetic."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.complexity import COMPLEXITY, ceiling_seconds
from benchmarks.measuring import describe_device, write_report
from benchmarks.selecting import Sizes, choose_strategies, measure_selection, shown_name
from benchmarks.tables import markdown, table_line
from jaxal.select import STRATEGIES
from jaxal.select.bait import fisher_form

__all__ = ["FULL", "QUICK", "measure_all"]

FULL = Sizes(pool=50_000, features=512, classes=100, labeled=1_000, picks=1_000)
QUICK = Sizes(pool=400, features=16, classes=5, labeled=20, picks=10, embedding=8)
_MOST_BYTES, _MOST_SECONDS = 3e9, 120.0
_CEILING = {False: 4096, True: 256}

_HEADER = [
    "strategy",
    "seconds",
    "compile s",
    "peak GiB",
    "ceiling s",
    "ratio",
    "within",
    "time",
    "memory",
]
_NOTE = (
    "Seconds are of a selection after the first; compile s is what the first took longer. Peak "
    "memory is of the whole process, its pool included. The ceiling is the time that the matrix "
    "products and passes over memory which a strategy cannot avoid would take at the rates "
    "measured in the same process; the ratio is seconds to ceiling. What the data decide is "
    "assumed: 10 sweeps of k-means, and half of the unlabelled rows as candidates of dropquery. "
    "The rate of passes is that of reading a large array, so that a ratio below one says that a "
    "smaller one stayed in the processor's cache. "
    "Within: whether it takes at most 3 GB and 120 s. "
    "Time and memory are those of the algorithms as they are built here, of n rows, d features, c "
    "classes, l labelled, b picks."
)


def measure_all(
    strategies: Sequence[str] | None, out: Path, *, timeout: float, quick: bool = False
) -> list[dict[str, Any]]:
    """Measure strategies, each in a process of its own; print and write a table.

    Args:
      strategies: names; None for all. Those that see labels nobody paid for are only named then.
      out: folder of ``speed_scale.csv`` and ``speed_scale.md``.
      timeout: seconds after which a strategy is given up.
      quick: small sizes.

    Returns:
      The rows of the table.

    Raises:
      ValueError: an unknown strategy, or a timeout out of range.
    """
    names = choose_strategies(strategies)
    if not 0 < timeout < math.inf:
        raise ValueError(f"--timeout: expected more than 0, found {timeout}")
    sizes = QUICK if quick else FULL
    paragraphs = [f"Device {describe_device()}; sizes {json.dumps(sizes._asdict())}."]
    notes = [_NOTE]
    if "bait" in names and fisher_form((sizes.pool, sizes.features), sizes.classes) == "binary":
        notes.append("bait takes its binary form here, an approximation of the paper's.")
    if strategies is None and (left_out := [name for name in STRATEGIES if name not in names]):
        notes.append(f"Not measured, as they see labels nobody paid for: {', '.join(left_out)}.")
    rows, cells = [], []
    for name in names:
        rows.append(_measure(name, sizes, timeout, _CEILING[quick]))
        cells.append(_cells(rows[-1]))
        print(table_line(cells[-1]), flush=True)
        write_report(out / "speed_scale", rows, [*paragraphs, markdown([_HEADER, *cells]), *notes])
    return rows


def _measure(name: str, sizes: Sizes, timeout: float, ceiling: int) -> dict[str, Any]:
    row = dict.fromkeys(("seconds", "first", "peak_gib", "ceiling", "ratio"))
    stated = {"time": COMPLEXITY[name].time, "memory": COMPLEXITY[name].memory}
    try:
        found = measure_selection(name, sizes, ceiling=ceiling, timeout=timeout)
    except TimeoutError:
        return {"strategy": name, "status": f"over {timeout:g} s", **row, **stated}
    except RuntimeError as error:
        print(error, flush=True)
        return {"strategy": name, "status": "failed", **row, **stated}
    floor = ceiling_seconds(name, sizes, found.pop("matmul_rate"), found.pop("read_rate"))
    own = {**found, "ceiling": floor, "ratio": found["seconds"] / floor}
    return {"strategy": name, "status": "ok", **row, **own, **stated}


def _within(row: dict[str, Any]) -> str:
    """Say whether a strategy stays within the limits of time and memory."""
    if row["peak_gib"] * 1024**3 > _MOST_BYTES:
        return "no: memory"
    if row["seconds"] <= _MOST_SECONDS:
        return "yes"
    return "no: its ceiling is longer" if row["ceiling"] > _MOST_SECONDS else "no: time"


def _cells(row: dict[str, Any]) -> list[str]:
    name, stated = shown_name(row["strategy"]), [row["time"], row["memory"]]
    if row["status"] != "ok":
        return [name, row["status"], *[""] * 4, "no", *stated]
    numbers = row["seconds"], max(row["first"] - row["seconds"], 0), row["peak_gib"]
    return [
        name,
        *(f"{number:.3g}" for number in numbers),
        f"{row['ceiling']:.2g}",
        f"{row['ratio']:.2g}",
        _within(row),
        *stated,
    ]
