"""Few labels and prior pseudo-labels by many seeds, without training: the command priors."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import as3l_priors
from benchmarks.as3l_priors import BUDGETS, PRIORS, STRATEGIES, Result, evaluate, table
from benchmarks.data import ENCODERS, Data, check_data, data_root, digits_data, load_array
from benchmarks.digits import POOL_SIZE
from benchmarks.folder import check_folder, make_folder
from benchmarks.measuring import describe_device
from benchmarks.outcomes import require, stop
from benchmarks.tables import write_csv
from jaxal.checks import check_batch_size, check_positive
from jaxal.records import fingerprint, read_record, write_record

__all__ = ["HELP", "add_arguments", "main"]

HELP = """\
Choose a few labels at once, from nothing, and say what they tell of the rest of the pool: how many
classes have a label, and how right prior pseudo-labels are that are made of them in several ways,
over many pools drawn from the training rows. Nothing is trained, and no test set is touched.

On the digits, and on CIFAR-10's features of each encoder that the folder JAXAL_DATA has. Chosen by
class-balanced, an oracle, labels are drawn equally from every class.

Writes results.csv and table.md to --out, and saves each pool's results; --resume goes on."""

_OWN = ("results.csv", "table.md")
_RUNS = "runs"
_POOLS = {"digits": 1100, **dict.fromkeys(ENCODERS, 2500)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line options."""
    parser.add_argument("--datasets", nargs="+", choices=list(_POOLS), default=["digits"])
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="pools (default 20)")
    parser.add_argument(
        "--pool-size",
        type=int,
        metavar="N",
        help="rows of a pool (default 1,100 of the digits, 2,500 of others)",
    )
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), metavar="N")
    parser.add_argument(
        "--selections", nargs="+", choices=STRATEGIES, default=list(STRATEGIES), metavar="S",
        help=f"of {', '.join(STRATEGIES)} (default all)",
    )  # fmt: skip
    parser.add_argument(
        "--priors", nargs="+", choices=PRIORS, default=list(PRIORS), metavar="P",
        help=f"of {', '.join(PRIORS)} (default all)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("results/priors"), metavar="DIR")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what --out holds")
    again.add_argument("--overwrite", action="store_true", help="remove earlier results in --out")


def main(args: argparse.Namespace) -> int:
    """Evaluate all pools and report; return the exit status."""
    require("sklearn")
    check_positive(args.seeds, "--seeds")
    if args.pool_size is not None:
        check_positive(args.pool_size, "--pool-size")
    for size in args.budgets:
        check_positive(size, "--budgets")
    sizes = {
        name: _POOLS[name] if args.pool_size is None else args.pool_size
        for name in dict.fromkeys(args.datasets)
    }
    for size in sizes.values():
        check_batch_size(max(args.budgets), size, "--budgets")
    if "digits" in sizes:
        check_batch_size(sizes["digits"], POOL_SIZE, "--pool-size")
    _open(args)
    data = {name: _load(name) for name in sizes}
    for name, found in data.items():
        check_batch_size(sizes[name], len(found.features), "--pool-size")
    try:
        results = _run_all(args, data, sizes)
    except KeyboardInterrupt:
        return stop(args.out)
    _report(args, results)
    return 0


def _load(name: str) -> Data:
    if name == "digits":
        return digits_data()
    root = data_root() / "features"
    x, y = load_array(root / f"cifar10_{name}" / "train.npy"), "cifar10_labels_train.npy"
    labels = load_array(root / y)
    # No row of the test set is needed.
    return check_data(x, labels, x[:1], labels[:1], 10)


def _open(args: argparse.Namespace) -> None:
    out = args.out
    check_folder(out, (*_OWN, _RUNS))
    if (out / _RUNS).exists() and not (args.resume or args.overwrite):
        raise ValueError(f"{out}: holds results; pass --resume to add to them, or --overwrite")
    make_folder(out / _RUNS)
    if args.overwrite:
        for path in (out / _RUNS).glob("*.json"):
            path.unlink()


def _run_all(
    args: argparse.Namespace, data: dict[str, Data], sizes: dict[str, int]
) -> list[Result]:
    """Evaluate what is left, pool by pool of each data set."""
    results: list[Result] = []
    for seed in range(args.seeds):
        for name, found in data.items():
            options = {
                "pool_size": sizes[name],
                "budgets": args.budgets,
                "strategies": args.selections,
                "priors": args.priors,
            }
            path = args.out / _RUNS / f"{name}-{seed}.json"
            settings = {**options, "features": fingerprint(found.features), "seed": seed}
            if path.exists():
                saved = [Result(*fields) for fields in read_record(path, settings)]
            else:
                saved = evaluate(name, found, seeds=[seed], **options)
                write_record(path, [list(result) for result in saved], settings)
            results += saved
            write_csv([result._asdict() for result in results], args.out / "results.csv")
            print(f"{name}, pool {seed + 1} of {args.seeds}", flush=True)
    return sorted(results, key=lambda result: (args.datasets.index(result.data), result.seed))


def _report(args: argparse.Namespace, results: Sequence[Result]) -> None:
    text = "\n\n".join(
        [
            "# Few labels, and what they tell of the rest",
            f"Means over {args.seeds} pools: classes with a label; accuracy in percent of prior "
            "pseudo-labels, by how they are made, over the samples without label, ± its standard "
            "error, and in brackets their expected calibration error.",
            table(results),
            f"{as3l_priors.ORACLE} is an oracle. Device {describe_device()}.",
        ]
    )
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nresults in {args.out}")
