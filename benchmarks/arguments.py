"""What the command line says of data and of what to run: its flags, and what they come to."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.data import ENCODERS, Data, check_data, data_root, load_array
from benchmarks.data import tfds_labels as read_tfds_labels
from benchmarks.options import read_options, try_options
from benchmarks.plan import Entry, Plan, flag_of
from benchmarks.presets import BUDGETS
from benchmarks.runner import HEADS
from jaxal.models.encoders import ENCODERS as NETWORKS
from jaxal.select import STRATEGIES as KNOWN

__all__ = [
    "FILES",
    "STRATEGIES",
    "add_data",
    "add_files",
    "add_plan",
    "find_dataset",
    "find_paths",
    "find_title",
    "load_data",
    "make_plan",
    "read_entries",
    "try_plan_options",
]

STRATEGIES = ("ntkcpl", "random", "margin", "entropy", "coreset", "typiclust")
_CLASSES = {"cifar10": 10, "cifar100": 100}
FILES = {
    "features": "the pool's features [n, d], float, raw, one row a sample",
    "labels": "its labels [n], integers from 0",
    "test_features": "test features [m, d], float",
    "test_labels": "their labels [m], integers from 0",
}


def add_files(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that name files of features and labels."""
    for name, text in FILES.items():
        parser.add_argument(_flag(name), type=Path, metavar="FILE.npy", help=text)
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="default one more than the largest label; of cifar10 and cifar100, theirs",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that say where the features and labels of one data set are."""
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"of {', '.join(BUDGETS)} and custom, or, from images, any that tensorflow-datasets "
        "prepared; default custom with --features and the like, else cifar10",
    )
    parser.add_argument(
        "--encoder",
        choices=[*ENCODERS, *NETWORKS],
        metavar="NAME",
        help=f"{' or '.join(ENCODERS)}: prepared features of cifar10; or a network that makes "
        f"features from images: {', '.join(NETWORKS)}",
    )
    add_files(parser)
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="where tensorflow-datasets prepared the data set, for images, or for the labels of "
        "cifar10 and cifar100; by default JAXAL_DATA/tfds",
    )


def add_plan(
    parser: argparse.ArgumentParser,
    *,
    seeds: int,
    strategies: Sequence[str] = STRATEGIES,
    pool_size: str = "all",
    out: str = "default ./results/DATASET",
) -> None:
    """Declare the flags that say what to run.

    Args:
      parser: of the command.
      seeds: the default of ``--seeds``.
      strategies: the default of ``--strategies``.
      pool_size: what the default of ``--pool-size`` is, in words.
      out: help for ``--out``.
    """
    default = "all" if len(strategies) == len(KNOWN) else " ".join(strategies)
    parser.add_argument(
        "--strategies",
        nargs="+",
        default=list(strategies),
        metavar="NAME",
        help=f"of {', '.join(KNOWN)}; default {default}",
    )
    parser.add_argument("--budgets", nargs="+", type=int, metavar="N", help="picks of each round")
    parser.add_argument(
        "--seeds", type=int, default=seeds, help=f"how many, from 0 (default {seeds})"
    )
    parser.add_argument(
        "--pool-size",
        type=int,
        metavar="N",
        help=f"random rows, other ones each seed (default {pool_size})",
    )
    parser.add_argument(
        "--head",
        choices=list(HEADS),
        help="trained each round: linear; mlp, the papers', as wide as the features; or mlp4096, "
        "that of the NTKCPL paper for ImageNet-100 (default linear)",
    )
    parser.add_argument(
        "--scale",
        action=argparse.BooleanOptionalAction,
        help="scale all features by one number to a mean norm of one over the pool (default yes)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="[STRATEGY.]KEY=VALUE",
        help="an option of a strategy, of ntkcpl where none is named; may be repeated",
    )
    parser.add_argument(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "[STRATEGY] KEY=VALUE"),
        help="run a strategy, ntkcpl where none is named, with other options beside the "
        "strategies; may be repeated",
    )
    parser.add_argument(
        "--holdout",
        type=int,
        metavar="N",
        help="test on N rows kept out of the pool, other ones each seed, in place of the test set: "
        "for choosing between methods",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on with what --out holds; the command may name more strategies, variants, seeds "
        "and rounds than the earlier one, or leave out all but rounds, and the report shows those "
        "it names",
    )
    again.add_argument("--overwrite", action="store_true", help="remove earlier results in --out")


def find_dataset(args: argparse.Namespace) -> str:
    """Name the data set that is meant."""
    if args.command == "digits":
        return "digits"
    own = any(getattr(args, name) for name in FILES)
    return args.dataset or ("custom" if own and not args.encoder else "cifar10")


def find_paths(args: argparse.Namespace, dataset: str) -> dict[str, Path]:
    """Find the files that the command line names, or say what it lacks."""
    if args.command == "digits":
        return {}
    paths = {name: getattr(args, name) for name in FILES if getattr(args, name)}
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
    needed = FILES if dataset == "custom" else ("features", "test_features")
    missing = [_flag(name) for name in needed if name not in paths]
    if dataset not in BUDGETS and not args.budgets:
        missing.append("--budgets")
    if missing:
        either = "--encoder, or " if dataset == "cifar10" else ""
        raise ValueError(f"{dataset}: expected {either}{', '.join(missing)}")
    return paths


def load_data(args: argparse.Namespace, dataset: str, paths: Mapping[str, Path]) -> Data:
    """Read the files, and labels that none is given for."""
    arrays = {name: load_array(path, mapped="features" in name) for name, path in paths.items()}
    for name, split in (("labels", "train"), ("test_labels", "test")):
        if name not in arrays:
            folder = args.data_dir or data_root() / "tfds"
            arrays[name] = read_tfds_labels(dataset, split, folder)
    known = _CLASSES.get(dataset)
    return check_data(**arrays, num_classes=known if args.num_classes is None else args.num_classes)


def find_title(args: argparse.Namespace, dataset: str) -> str:
    """Say which features they are."""
    if dataset == "digits":
        return "digits, SimCLR encoder pre-trained on the pool's images (no labels)"
    if title := getattr(args, "title", None):
        return str(title)
    notes = {
        "mobilenetv2": "MobileNetV2 (supervised on ImageNet)",
        "protoclr": "Conv-4 (self-supervised on mini-ImageNet, ProtoCLR)",
    }
    return f"{dataset}, {notes[args.encoder] if args.encoder else 'features ' + args.features.name}"


def make_plan(args: argparse.Namespace, dataset: str) -> Plan:
    """Read what to run."""
    if args.seeds < 1:
        raise ValueError(f"--seeds: expected at least 1, found {args.seeds}")
    entries = read_entries(args.strategies, args.option, args.variant)
    chosen = getattr(args, "preset_options", None)
    if chosen is not None and "ntkcpl" in entries:
        entries["ntkcpl"] = Entry("ntkcpl", {**chosen, **entries["ntkcpl"].options})
    return Plan(
        dataset,
        entries,
        tuple(args.budgets or BUDGETS[dataset]),
        tuple(range(args.seeds)),
        args.head or "linear",
        args.pool_size,
        args.scale is not False,
        args.holdout,
    )


def try_plan_options(plan: Plan) -> None:
    """Check the values of all options, by small selections."""
    for name, entry in plan.entries.items():
        if entry.options:
            try_options(entry.strategy, entry.options, flag_of(name, entry))


def read_entries(
    strategies: Sequence[str], options: Sequence[str], variants: Sequence[Sequence[str]]
) -> dict[str, Entry]:
    """Read what to run.

    Args:
      strategies: names of strategies.
      options: ``KEY=VALUE`` for ntkcpl, ``STRATEGY.KEY=VALUE`` for any.
      variants: of each its name, then a strategy where it is not ntkcpl, then ``KEY=VALUE``.

    Raises:
      ValueError: names that come twice, options of what is not run, or something unreadable.
    """
    if len(set(strategies)) < len(strategies):
        raise ValueError(f"strategies: expected each once, found {list(strategies)}")
    given: dict[str, list[str]] = {name: [] for name in strategies}
    for pair in options:
        key, equals, value = pair.partition("=")
        strategy, _, key = key.rpartition(".")
        strategy = strategy or "ntkcpl"
        if strategy not in given:
            raise ValueError(f"--option: expected {strategy} among the strategies, for {pair!r}")
        given[strategy].append(f"{key}{equals}{value}")
    entries = {n: Entry(n, read_options(pairs, f"--option {n}")) for n, pairs in given.items()}
    names = [name for name, *_ in variants]
    if len(set(names)) < len(names):
        raise ValueError(f"--variant: expected each name once, found {names}")
    for name, *pairs in variants:
        named = bool(pairs) and pairs[0] in KNOWN
        own = read_options(pairs[named:], f"--variant {name}")
        if name in entries:
            raise ValueError(f"--variant: expected a name that is no strategy's, found {name!r}")
        entries[name] = Entry(pairs[0] if named else "ntkcpl", own)
    return entries


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
