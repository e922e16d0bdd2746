"""What the command as3l does: it times a step, and runs all that is left."""

import argparse
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.as3l_runs import (
    Choice,
    Job,
    Outcome,
    Run,
    is_done,
    make_choice,
    run_one,
    time_step,
)
from benchmarks.as3l_scales import SCALES
from benchmarks.folder import RUNS
from benchmarks.tables import write_csv
from jaxal.records import replacing

__all__ = ["TIMING", "Timing", "run_all", "time_job"]

TIMING = "timing.json"


class Timing(NamedTuple):
    """How long a step takes, and where trainings stop for it."""

    seconds: float
    stop_at: int | None  # None: at the end of the schedule


def time_job(args: argparse.Namespace, job: Job, num_runs: int) -> Timing:
    """Time a step, or read how long it took, and find where trainings stop early.

    What was found is kept, so that going on means the same steps, unless the command line says
    others.
    """
    path, every = args.out / TIMING, job.config.record_every
    minutes = args.minutes
    if path.exists() and not args.plan:
        found = Timing(**json.loads(path.read_text(encoding="utf-8")))
    else:
        print("timing a step", flush=True)
        found = Timing(time_step(job), None)
        if args.stop_at is None and minutes is None:
            minutes = SCALES[args.scale].minutes
    if args.stop_at is not None:
        stop_at = -(-args.stop_at // every) * every
        found = found._replace(stop_at=min(job.config.steps, stop_at))
    elif minutes is not None:
        records = int(60 * minutes / (found.seconds * num_runs * every))
        found = found._replace(stop_at=min(job.config.steps, max(records, 1) * every))
    elif args.steps is not None:
        found = found._replace(stop_at=None)
    if not args.plan:
        with replacing(path) as file:
            file.write(json.dumps(found._asdict()).encode())
    return found


def run_all(out: Path, job: Job, runs: Sequence[Run], *, tell: bool) -> list[Outcome]:
    """Run all that is left, saving the results after each run; ``tell`` of each record, too."""
    outcomes: list[Outcome] = []
    chosen: dict[tuple[str, int, int], Choice] = {}
    for i, run in enumerate(runs):
        key = run.selection, run.num_labels, run.seed
        if key not in chosen and not is_done(job, run, out / RUNS):
            chosen = {key: make_choice(job, run, out / RUNS)}
        told = functools.partial(_tell, run) if tell else None
        outcome = run_one(job, run, out / RUNS, chosen.get(key), told)
        outcomes.append(outcome)
        write_csv([o.row._asdict() for o in outcomes], out / "results.csv")
        write_csv([line for o in outcomes for line in _history(o)], out / "history.csv")
        row = outcome.row
        print(
            f"[{i + 1}/{len(runs)}] {run.num_labels} labels by {run.selection}, {run.way}, seed "
            f"{run.seed}: {100 * row.accuracy:.1f} %, {row.covered} classes labelled, prior "
            f"{100 * row.prior_accuracy:.1f} %",
            flush=True,
        )
    return outcomes


def _tell(run: Run, record: Mapping[str, Any]) -> None:
    print(
        f"  {run.name}: step {record['step']:,}, test {100 * record['test_accuracy']:.1f} %, "
        f"{100 * record['mask_rate']:.0f} % of pseudo-labels used",
        flush=True,
    )


def _history(outcome: Outcome) -> list[dict[str, Any]]:
    """Flatten a history: thresholds become their mean, least and largest."""
    named = dict(zip(Run._fields, outcome.row, strict=False))
    lines = []
    for record in outcome.history:
        thresholds = record["thresholds"]
        rest = {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in record.items()
            if name not in ("thresholds", "unseen")
        }
        lines.append(
            {
                **named,
                **rest,
                "threshold": round(float(np.mean(thresholds)), 6),
                "least_threshold": round(min(thresholds), 6),
                "largest_threshold": round(max(thresholds), 6),
            }
        )
    return lines
