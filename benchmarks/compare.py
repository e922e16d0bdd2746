"""Compare strategies on one data set; the commands digits and ntkcpl."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import plots, report, runner
from benchmarks.arguments import (
    find_dataset,
    find_paths,
    find_title,
    load_data,
    make_plan,
    try_plan_options,
)
from benchmarks.data import Data, digits_data
from benchmarks.digits import POOL_SIZE
from benchmarks.folder import FEATURES, open_folder
from benchmarks.image_data import features_of_images, name_images, open_named, wants_images
from benchmarks.measuring import processor
from benchmarks.outcomes import require, stop
from benchmarks.plan import Plan, check_plan
from benchmarks.presets import apply_preset, preset_note
from benchmarks.runner import Row
from benchmarks.tables import write_csv

__all__ = [
    "SELECTION_SECONDS",
    "Job",
    "circumstances",
    "judge",
    "main",
    "make_job",
    "open_job",
    "run_job",
]

_PACKAGES = ("jaxal", "jax", "flax", "optax", "numpy")
SELECTION_SECONDS = (
    "Selection does not count what is done once a pool for all strategies that need it "
    "(the embedding that is clustered); the most includes compilation."
)


class Job(NamedTuple):
    """Strategies to compare on one data set."""

    plan: Plan
    data: Data | None  # None: the digits', whose features are made where the results go
    title: str
    out: Path
    note: str = ""  # of what was chosen by a preset, for the report


def main(args: argparse.Namespace) -> int:
    """Run strategies side by side and report; return the exit status."""
    args = apply_preset(args)
    if wants_images(args):
        require("matplotlib", "rich")
        args = name_images(args)
        try:
            args = _make_features(args)
        except KeyboardInterrupt:
            return stop(args.cache, flag=None)
    dataset = find_dataset(args)
    require("matplotlib", "rich", *(["sklearn"] if dataset == "digits" else []))
    job = make_job(args, _find_out(args, dataset))
    try_plan_options(job.plan)
    began = time.perf_counter()
    open_job(job, args)
    try:
        data, rows = run_job(job)
    except KeyboardInterrupt:
        return stop(job.out)
    _report(job, data, rows)
    print(f"{time.perf_counter() - began:.0f} s; results in {job.out}")
    return 0


def _make_features(args: argparse.Namespace) -> argparse.Namespace:
    """Make features from images, after what needs none of them is found to be in order."""
    plan = make_plan(args, args.dataset)
    check_plan(plan)
    images, encoder = open_named(args)
    check_plan(plan, len(images.train))
    try_plan_options(plan)
    if not (args.resume or args.overwrite):
        # Refuses what holds results; a folder without any is begun anew.
        open_folder(_find_out(args, plan.dataset), plan, None, resume=False, overwrite=False)
    return features_of_images(args, images, encoder)


def _find_out(args: argparse.Namespace, dataset: str) -> Path:
    return args.out or Path("results") / dataset


def make_job(args: argparse.Namespace, out: Path) -> Job:
    """Read data and a plan, and check them against each other; nothing is written.

    Raises:
      ValueError: something is missing, malformed or does not fit.
    """
    dataset = find_dataset(args)
    paths = find_paths(args, dataset)
    plan = make_plan(args, dataset)
    check_plan(plan)  # what needs no data, before any is read
    data = None if dataset == "digits" else load_data(args, dataset, paths)
    check_plan(plan, POOL_SIZE if data is None else len(data.features))
    note = preset_note(getattr(args, "preset_options", None))
    return Job(plan, data, find_title(args, dataset), out, note)


def open_job(job: Job, args: argparse.Namespace) -> None:
    """Make the folder of the results ready, or refuse it; see `benchmarks.folder`."""
    open_folder(job.out, job.plan, job.data, resume=args.resume, overwrite=args.overwrite)


def run_job(job: Job) -> tuple[Data, list[Row]]:
    """Run all strategies with all seeds, going on from what the folder holds."""
    data = job.data
    if data is None:
        began = time.perf_counter()
        print("digits: features of SimCLR, pre-trained on the pool's images", flush=True)
        data = digits_data(job.out / FEATURES)
        print(f"  ready after {time.perf_counter() - began:.1f} s", flush=True)
    return data, runner.run_plan(job.plan, data, job.out)


def _report(job: Job, data: Data, rows: Sequence[Row]) -> None:
    plan, out = job.plan, job.out
    write_csv([row._asdict() for row in rows], out / "results.csv")
    text = "\n\n".join(
        [
            f"# {job.title}",
            f"Accuracy in percent on {judge(plan)} by number of labels, mean ± sample standard "
            f"deviation over {len(plan.seeds)} seeds; best mean bold.",
            report.table(rows),
            report.timing_table(rows),
            SELECTION_SECONDS,
            *([job.note] if job.note else []),
            circumstances(plan, data),
        ]
    )
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    plots.plot_curves(rows, out / "curves.png", job.title)
    plots.plot_risk(rows, out / "risk.png", job.title)
    print("\n" + text + "\n")


def judge(plan: Plan) -> str:
    """Say what accuracies are measured on."""
    return "the test set" if plan.holdout is None else f"{plan.holdout} rows held out of the pool"


def circumstances(plan: Plan, data: Data) -> str:
    """List what results depend on, in Markdown."""
    import jax

    pool = plan.pool_size or len(data.features) - (plan.holdout or 0)
    test = plan.holdout or len(data.test_features)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    device = jax.devices()[0]
    own = changed_options(plan)
    lines = [
        f"pool {pool} of {len(data.features)} rows, {data.features.shape[1]} features, test "
        f"{test}, {data.num_classes} classes; features "
        + ("scaled to a mean norm of one" if plan.scale else "as they are"),
        f"picks a round {' '.join(map(str, plan.budgets))}; seeds {_listed(plan.seeds)}; "
        f"head {plan.head}; options are the defaults" + (", but for these:" if own else ""),
        *own,
        f"device {device.platform} ({device.device_kind}), processor {processor()}, "
        f"{os.cpu_count()} cores",
        f"{versions}, Python {platform.python_version()}",
    ]
    return "\n".join(f"* {line}" for line in lines)


def changed_options(plan: Plan) -> list[str]:
    """List the strategies that run with other options than the defaults."""
    return [
        f"{name}: {entry.strategy} with {_options(entry.options)}"
        for name, entry in plan.entries.items()
        if entry.options or name != entry.strategy
    ]


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "its defaults"


def _listed(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds))
