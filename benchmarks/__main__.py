"""Command line of the benchmarks: ``python -m benchmarks --help``."""

import argparse
import ast
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import speed
from benchmarks.data import ENCODERS, Data, check_data, data_root, digits_data, load_array
from benchmarks.data import tfds_labels as read_tfds_labels

__all__ = ["main"]

STRATEGIES = ("ntkcpl", "random", "margin", "entropy", "coreset", "typiclust")
BUDGETS: dict[str, tuple[int, ...]] = {
    "digits": (10, 10, 10, 10, 20, 20, 20, 50, 50),
    "cifar10": (10, 10, 20, 20, 40, 100, 100, 200, 500),
    "cifar100": (100,) * 10,
}
_FILES = ("features", "labels", "test_features", "test_labels")
_PACKAGES = ("jaxal", "jax", "flax", "optax", "numpy")

_NTKCPL_HELP = """\
Compare NTKCPL with other strategies on fixed features.

The default budgets are this benchmark's own, as the paper's exact ones are not restated here:
picks a round of 10 10 20 20 40 100 100 200 500 for cifar10 (10 to 1,000 labels), 100 ten times for
cifar100, and 10 10 10 10 20 20 20 50 50 for digits; custom data must say.

With --encoder, or where label files are not given, data come from the folder that the environment
variable JAXAL_DATA names: features/cifar10_ENCODER/{train,test}.npy,
features/cifar10_labels_{train,test}.npy and tfds/."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Without a command: digits, a comparison on small images that needs no data.",
    )
    commands = parser.add_subparsers(dest="command")
    digits = commands.add_parser(
        "digits", help="the default: six strategies on handwritten digits, in minutes"
    )
    ntkcpl = commands.add_parser(
        "ntkcpl",
        help="NTKCPL and others on features of CIFAR or your own",
        description=_NTKCPL_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data(ntkcpl)
    for command in (digits, ntkcpl):
        _add_plan(command, seeds=5 if command is digits else 3)
    speed.add_arguments(commands.add_parser("speed", help="time and memory of the hot paths"))
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", choices=[*BUDGETS, "custom"], default="cifar10")
    parser.add_argument("--encoder", choices=ENCODERS, help="prepared features of cifar10")
    for name in _FILES:
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=Path, metavar="FILE.npy", help=f"{name.replace('_', ' ')}")
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="where tensorflow-datasets prepared cifar10 or cifar100 as array_record, for the "
        "labels; by default JAXAL_DATA/tfds",
    )


def _add_plan(parser: argparse.ArgumentParser, *, seeds: int) -> None:
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), metavar="NAME")
    parser.add_argument("--budgets", nargs="+", type=int, metavar="N", help="picks of each round")
    parser.add_argument(
        "--seeds", type=int, default=seeds, help=f"how many, from 0 (default {seeds})"
    )
    parser.add_argument(
        "--pool-size", type=int, metavar="N", help="random rows, other ones each seed (default all)"
    )
    parser.add_argument(
        "--head",
        choices=("mlp", "linear"),
        default="linear",
        help="trained each round: linear, or mlp, the papers' (default linear)",
    )
    parser.add_argument(
        "--scale",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="scale all features by one number to a mean norm of one over the pool",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=_option,
        metavar="KEY=VALUE",
        help="an option of ntkcpl; may be repeated",
    )
    parser.add_argument(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="run ntkcpl with other options beside the strategies; may be repeated",
    )
    parser.add_argument(
        "--holdout",
        type=int,
        metavar="N",
        help="test on N rows kept out of the pool, other ones each seed, in place of the test set: "
        "for choosing between methods",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default ./results/DATASET")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what --out holds")
    again.add_argument("--overwrite", action="store_true", help="remove earlier results in --out")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    named = {"true": True, "false": False, "none": None}
    if value.lower() in named:
        return name, named[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _variants(given: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    names = [name for name, *_ in given]
    if len(set(names)) < len(names):
        raise ValueError(f"--variant: expected each name once, found {names}")
    try:
        return {name: dict(map(_option, options)) for name, *options in given}
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--variant: {error}") from None


def _load(args: argparse.Namespace) -> Data:
    """Read the features and labels that the command line names."""
    paths: dict[str, Path | None] = {name: getattr(args, name) for name in _FILES}
    if args.encoder:
        if args.dataset != "cifar10":
            raise ValueError(f"--encoder: expected --dataset cifar10, found {args.dataset}")
        if paths["features"] or paths["test_features"]:
            raise ValueError("--encoder: expected no --features or --test-features beside it")
        folder = data_root() / "features"
        for prefix, split in (("", "train"), ("test_", "test")):
            paths[f"{prefix}features"] = folder / f"cifar10_{args.encoder}" / f"{split}.npy"
            paths[f"{prefix}labels"] = (
                paths[f"{prefix}labels"] or folder / f"cifar10_labels_{split}.npy"
            )
    needed = _FILES if args.dataset == "custom" else ("features", "test_features")
    missing = [f"--{name.replace('_', '-')}" for name in needed if paths[name] is None]
    if missing:
        either = "--encoder, or " if args.dataset == "cifar10" else ""
        raise ValueError(f"{args.dataset}: expected {either}{', '.join(missing)}")
    arrays = {n: load_array(p, mapped="features" in n) for n, p in paths.items() if p is not None}
    for name, split in (("labels", "train"), ("test_labels", "test")):
        if name not in arrays:
            folder = args.data_dir or data_root() / "tfds"
            arrays[name] = read_tfds_labels(args.dataset, split, folder)
    classes = {"cifar10": 10, "cifar100": 100}.get(args.dataset)
    return check_data(**arrays, num_classes=classes)


def _require(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)}: not installed; pip install jaxal[bench]")


def _compare(args: argparse.Namespace) -> int:
    """Run strategies side by side and report."""
    dataset = "digits" if args.command == "digits" else args.dataset
    _require("matplotlib", "rich", *(["sklearn"] if dataset == "digits" else []))
    from benchmarks.runner import FEATURES, Plan, check_plan, open_folder, run_plan

    if not args.budgets and dataset not in BUDGETS:
        raise ValueError(f"--budgets: expected picks of each round for {dataset}, found none")
    if args.seeds < 1:
        raise ValueError(f"--seeds: expected at least 1, found {args.seeds}")
    variants = {name: dict(map(_option, options)) for name, *options in args.variant}
    if len(variants) < len(args.variant):
        raise ValueError(
            f"--variant: expected each name once, found {[v[0] for v in args.variant]}"
        )
    plan = Plan(
        dataset,
        tuple(args.strategies),
        tuple(args.budgets or BUDGETS[dataset]),
        tuple(range(args.seeds)),
        args.head,
        args.pool_size,
        args.scale,
        dict(args.option),
        _variants(args.variant),
        args.holdout,
    )
    check_plan(plan)
    out = args.out or Path("results") / dataset
    began = time.perf_counter()
    if dataset == "digits":
        if args.command == "ntkcpl" and (args.encoder or any(getattr(args, n) for n in _FILES)):
            raise ValueError("digits: expected neither --encoder nor files, it makes its features")
        open_folder(out, plan, None, resume=args.resume, overwrite=args.overwrite)
        print("digits: features of a SimCLR encoder, pre-trained on the pool's images", flush=True)
        data = digits_data(out / FEATURES)
        print(f"  ready after {time.perf_counter() - began:.1f} s", flush=True)
    else:
        data = _load(args)
        check_plan(plan, len(data.features))
        open_folder(out, plan, data, resume=args.resume, overwrite=args.overwrite)
    try:
        rows = run_plan(plan, data, out)
    except KeyboardInterrupt:
        print(f"\nstopped; the same command with --resume goes on from {out}", file=sys.stderr)
        return 130
    _report(args, plan, data, rows, out)
    print(f"{time.perf_counter() - began:.0f} s; results in {out}")
    return 0


def _report(args: argparse.Namespace, plan: Any, data: Data, rows: Any, out: Path) -> None:
    from benchmarks import report

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
            "(neighbour smoothing); the most includes compilation.",
            "\n".join(f"* {line}" for line in _circumstances(plan, data)),
        ]
    )
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    report.plot_curves(rows, out / "curves.png", title)
    report.plot_risk(rows, out / "risk.png", title)
    print("\n" + text + "\n")


def _judge(plan: Any) -> str:
    return "the test set" if plan.holdout is None else f"{plan.holdout} rows held out of the pool"


def _encoder_name(args: argparse.Namespace, dataset: str) -> str:
    if dataset == "digits":
        return "SimCLR encoder pre-trained on the pool's images (no labels)"
    notes = {
        "mobilenetv2": "MobileNetV2 (supervised on ImageNet)",
        "protoclr": "Conv-4 (self-supervised on mini-ImageNet, ProtoCLR)",
    }
    return notes[args.encoder] if args.encoder else f"features {args.features.name}"


def _circumstances(plan: Any, data: Data) -> list[str]:
    import jax

    pool = plan.pool_size or len(data.features) - (plan.holdout or 0)
    test = plan.holdout or len(data.test_features)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    device = jax.devices()[0]
    return [
        f"pool {pool} of {len(data.features)} rows, {data.features.shape[1]} features, test "
        f"{test}, {data.num_classes} classes; features "
        + ("scaled to a mean norm of one" if plan.scale else "as they are"),
        f"picks a round {' '.join(map(str, plan.budgets))}; seeds {_listed(plan.seeds)}; "
        f"head {plan.head}; ntkcpl with {_options(plan.options)}",
        *(f"{name}: ntkcpl with {_options(own)}" for name, own in plan.variants.items()),
        f"device {device.platform} ({device.device_kind}), processor {_processor()}, "
        f"{os.cpu_count()} cores",
        f"{versions}, Python {platform.python_version()}",
    ]


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "its defaults"


def _listed(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = ["digits", *given]
    args = _parser().parse_args(given)
    try:
        return speed.main(args) if args.command == "speed" else _compare(args)
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
