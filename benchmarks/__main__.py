"""Command line of the benchmarks: ``python -m benchmarks --help``."""

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

from benchmarks import INSTALL, speed
from benchmarks.data import ENCODERS, Data, check_data, data_root, digits_data, load_array
from benchmarks.data import tfds_labels as read_tfds_labels
from benchmarks.options import list_options, read_options, try_options
from benchmarks.plan import Plan, check_plan
from jaxal.select import STRATEGIES as KNOWN

__all__ = ["main"]

STRATEGIES = ("ntkcpl", "random", "margin", "entropy", "coreset", "typiclust")
BUDGETS: dict[str, tuple[int, ...]] = {
    "digits": (10, 10, 10, 10, 20, 20, 20, 50, 50),
    "cifar10": (10, 10, 20, 20, 40, 100, 100, 200, 500),
    "cifar100": (100,) * 10,
}
_CLASSES = {"cifar10": 10, "cifar100": 100}
_FILES = {
    "features": "the pool's features [n, d], float, raw, one row a sample",
    "labels": "its labels [n], integers from 0",
    "test_features": "test features [m, d], float",
    "test_labels": "their labels [m], integers from 0",
}
_PACKAGES = ("jaxal", "jax", "flax", "optax", "numpy")

_NTKCPL_HELP = """\
Compare NTKCPL with other strategies on fixed features.

The default budgets are this benchmark's own, as the paper's exact ones are not restated here:
picks a round of 10 10 20 20 40 100 100 200 500 for cifar10 (10 to 1,000 labels), 100 ten times for
cifar100, and 10 10 10 10 20 20 20 50 50 for digits; custom data must say.

Files of your own (--features and the like) are the data set "custom", unless --dataset names
another. With --encoder, or where label files are not given, data come from the folder that the
environment variable JAXAL_DATA names: features/cifar10_ENCODER/{train,test}.npy,
features/cifar10_labels_{train,test}.npy and tfds/.

The figures that NTKCPL's paper gives stand in no table: they are of encoders that are not here."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command")
    listed = f"options of ntkcpl, for --option and --variant, with defaults:\n{list_options()}"
    digits = commands.add_parser(
        "digits",
        help="the default: six strategies on handwritten digits, in minutes",
        epilog=listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ntkcpl = commands.add_parser(
        "ntkcpl",
        help="NTKCPL and others on features of CIFAR or your own",
        description=_NTKCPL_HELP,
        epilog=listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data(ntkcpl)
    for command in (digits, ntkcpl):
        _add_plan(command, seeds=5 if command is digits else 3)
    speed.add_arguments(commands.add_parser("speed", help="time and memory of the hot paths"))
    parser.description = (
        "Without a command: digits, a comparison on small images that needs no data. Its flags,\n"
        f"explained by `digits --help`, then stand alone:\n\n{digits.format_usage()}"
    )
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        choices=[*BUDGETS, "custom"],
        help="default custom with --features and the like, else cifar10",
    )
    parser.add_argument("--encoder", choices=ENCODERS, help="prepared features of cifar10")
    for name, text in _FILES.items():
        parser.add_argument(_flag(name), type=Path, metavar="FILE.npy", help=text)
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="default one more than the largest label; of cifar10 and cifar100, theirs",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="where tensorflow-datasets prepared cifar10 or cifar100 as array_record, for the "
        "labels; by default JAXAL_DATA/tfds",
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add_plan(parser: argparse.ArgumentParser, *, seeds: int) -> None:
    parser.add_argument(
        "--strategies",
        nargs="+",
        default=list(STRATEGIES),
        metavar="NAME",
        help=f"of {', '.join(KNOWN)}; default {' '.join(STRATEGIES)}",
    )
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
        metavar="KEY=VALUE",
        help="an option of ntkcpl, listed below; may be repeated",
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
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on with what --out holds; the command may name more strategies, variants, seeds "
        "and rounds than the earlier one, or leave out all but rounds, and the report shows those "
        "it names",
    )
    again.add_argument("--overwrite", action="store_true", help="remove earlier results in --out")


def _variants(given: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    names = [name for name, *_ in given]
    if len(set(names)) < len(names):
        raise ValueError(f"--variant: expected each name once, found {names}")
    return {name: read_options(pairs, f"--variant {name}") for name, *pairs in given}


def _dataset(args: argparse.Namespace) -> str:
    if args.command == "digits":
        return "digits"
    own = any(getattr(args, name) for name in _FILES)
    return args.dataset or ("custom" if own and not args.encoder else "cifar10")


def _paths(args: argparse.Namespace, dataset: str) -> dict[str, Path]:
    """Find the files that the command line names, or say what it lacks."""
    if args.command == "digits":
        return {}
    paths = {name: getattr(args, name) for name in _FILES if getattr(args, name)}
    if dataset == "digits":
        if args.encoder or paths or args.num_classes is not None:
            raise ValueError("digits: expected no --encoder, files or --num-classes beside it")
        return {}
    if args.encoder:
        if dataset != "cifar10":
            raise ValueError(f"--encoder: expected --dataset cifar10, found {dataset}")
        if "features" in paths or "test_features" in paths:
            raise ValueError("--encoder: expected no --features or --test-features beside it")
        folder = data_root() / "features"
        for prefix, split in (("", "train"), ("test_", "test")):
            paths[f"{prefix}features"] = folder / f"cifar10_{args.encoder}" / f"{split}.npy"
            paths.setdefault(f"{prefix}labels", folder / f"cifar10_labels_{split}.npy")
    needed = _FILES if dataset == "custom" else ("features", "test_features")
    missing = [_flag(name) for name in needed if name not in paths]
    if dataset not in BUDGETS and not args.budgets:
        missing.append("--budgets")
    if missing:
        either = "--encoder, or " if dataset == "cifar10" else ""
        raise ValueError(f"{dataset}: expected {either}{', '.join(missing)}")
    return paths


def _load(args: argparse.Namespace, dataset: str, paths: Mapping[str, Path]) -> Data:
    """Read the files, and labels that none is given for."""
    arrays = {name: load_array(path, mapped="features" in name) for name, path in paths.items()}
    for name, split in (("labels", "train"), ("test_labels", "test")):
        if name not in arrays:
            folder = args.data_dir or data_root() / "tfds"
            arrays[name] = read_tfds_labels(dataset, split, folder)
    known = _CLASSES.get(dataset)
    return check_data(**arrays, num_classes=known if args.num_classes is None else args.num_classes)


def _require(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)}: not installed; {INSTALL}")


def _plan(args: argparse.Namespace, dataset: str) -> Plan:
    if args.seeds < 1:
        raise ValueError(f"--seeds: expected at least 1, found {args.seeds}")
    plan = Plan(
        dataset,
        tuple(args.strategies),
        tuple(args.budgets or BUDGETS[dataset]),
        tuple(range(args.seeds)),
        args.head,
        args.pool_size,
        args.scale,
        read_options(args.option, "--option"),
        _variants(args.variant),
        args.holdout,
    )
    check_plan(plan)
    return plan


def _compare(args: argparse.Namespace) -> int:
    """Run strategies side by side and report."""
    dataset = _dataset(args)
    _require("matplotlib", "rich", *(["sklearn"] if dataset == "digits" else []))
    from benchmarks.digits import POOL_SIZE
    from benchmarks.folder import FEATURES, open_folder
    from benchmarks.runner import run_plan

    paths = _paths(args, dataset)
    plan = _plan(args, dataset)
    data = None if dataset == "digits" else _load(args, dataset, paths)
    check_plan(plan, POOL_SIZE if data is None else len(data.features))
    _try_options(plan)
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


def _try_options(plan: Plan) -> None:
    named = {"--option": plan.options, **{f"--variant {n}": o for n, o in plan.variants.items()}}
    for flag, options in named.items():
        if options:
            try_options(options, flag)


def _report(args: argparse.Namespace, plan: Plan, data: Data, rows: Any, out: Path) -> None:
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
            "(the embedding that is clustered); the most includes compilation.",
            "\n".join(f"* {line}" for line in _circumstances(plan, data)),
        ]
    )
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    report.plot_curves(rows, out / "curves.png", title)
    report.plot_risk(rows, out / "risk.png", title)
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
        status = speed.main(args) if args.command == "speed" else _compare(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Who read the output is gone; what Python flushes at its end must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
