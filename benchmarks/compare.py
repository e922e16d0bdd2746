"""The commands that compare strategies on one data set: digits and ntkcpl."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import INSTALL
from benchmarks.arguments import find_dataset, find_paths, load_data, make_plan, try_plan_options
from benchmarks.data import Data, digits_data
from benchmarks.measuring import processor
from benchmarks.plan import Plan, check_plan

__all__ = ["main"]

_PACKAGES = ("jaxal", "jax", "flax", "optax", "numpy")


def main(args: argparse.Namespace) -> int:
    """Run strategies side by side and report; return the exit status."""
    dataset = find_dataset(args)
    _require("matplotlib", "rich", *(["sklearn"] if dataset == "digits" else []))
    from benchmarks.digits import POOL_SIZE
    from benchmarks.folder import FEATURES, open_folder
    from benchmarks.runner import run_plan

    paths = find_paths(args, dataset)
    plan = make_plan(args, dataset)
    data = None if dataset == "digits" else load_data(args, dataset, paths)
    check_plan(plan, POOL_SIZE if data is None else len(data.features))
    try_plan_options(plan)
    out = args.out or Path("results") / dataset
    began = time.perf_counter()
    open_folder(out, plan, data, resume=args.resume, overwrite=args.overwrite)
    try:
        if data is None:
            print("digits: features of SimCLR, pre-trained on the pool's images", flush=True)
            data = digits_data(out / FEATURES)
            print(f"  ready after {time.perf_counter() - began:.1f} s", flush=True)
        rows = run_plan(plan, data, out)
    except KeyboardInterrupt:
        print(f"\nstopped; the same command with --resume goes on from {out}", file=sys.stderr)
        return 130
    _report(args, plan, data, rows, out)
    print(f"{time.perf_counter() - began:.0f} s; results in {out}")
    return 0


def _require(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)}: not installed; {INSTALL}")


def _report(args: argparse.Namespace, plan: Plan, data: Data, rows: Any, out: Path) -> None:
    from benchmarks import plots, report

    report.write_csv(rows, out / "results.csv")
    title = f"{plan.dataset}, {_encoder_name(args, plan.dataset)}"
    text = "\n\n".join(
        [
            f"# {title}",
            f"Accuracy in percent on {_judge(plan)} by number of labels, mean ± sample standard "
            f"deviation over {len(plan.seeds)} seeds; best mean bold.",
            report.table(rows, plan.dataset),
            report.timing_table(rows),
            "Selection does not count what is done once a pool for all strategies that need it "
            "(the embedding that is clustered); the most includes compilation.",
            "\n".join(f"* {line}" for line in _circumstances(plan, data)),
        ]
    )
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    plots.plot_curves(rows, out / "curves.png", title)
    plots.plot_risk(rows, out / "risk.png", title)
    print("\n" + text + "\n")


def _judge(plan: Plan) -> str:
    return "the test set" if plan.holdout is None else f"{plan.holdout} rows held out of the pool"


def _encoder_name(args: argparse.Namespace, dataset: str) -> str:
    if dataset == "digits":
        return "SimCLR encoder pre-trained on the pool's images (no labels)"
    notes = {
        "mobilenetv2": "MobileNetV2 (supervised on ImageNet)",
        "protoclr": "Conv-4 (self-supervised on mini-ImageNet, ProtoCLR)",
    }
    return notes[args.encoder] if args.encoder else f"features {args.features.name}"


def _circumstances(plan: Plan, data: Data) -> list[str]:
    import jax

    pool = plan.pool_size or len(data.features) - (plan.holdout or 0)
    test = plan.holdout or len(data.test_features)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    device = jax.devices()[0]
    own = [
        f"{name}: {entry.strategy} with {_options(entry.options)}"
        for name, entry in plan.entries.items()
        if entry.options or name != entry.strategy
    ]
    return [
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


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "its defaults"


def _listed(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds))
