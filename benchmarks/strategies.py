"""Compare all strategies over several data sets: the command strategies."""

import argparse
import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import plots, report
from benchmarks.arguments import (
    FILES,
    add_files,
    add_plan,
    find_paths,
    make_plan,
    try_plan_options,
)
from benchmarks.compare import (
    SELECTION_SECONDS,
    Job,
    changed_options,
    circumstances,
    judge,
    make_job,
    open_job,
    run_job,
)
from benchmarks.data import ENCODERS, Data, load_array
from benchmarks.digits import POOL_SIZE
from benchmarks.options import list_options
from benchmarks.outcomes import require, stop
from benchmarks.plan import Plan, check_plan
from benchmarks.presets import BUDGETS
from benchmarks.ranking import LEVEL
from benchmarks.runner import Row
from benchmarks.standings import (
    Standings,
    average_ranks,
    pairs_table,
    rank,
    rounds_table,
    standings_table,
    summary_table,
)
from benchmarks.tables import write_csv
from jaxal.select import STRATEGIES as KNOWN
from jaxal.select import get_strategy

__all__ = ["HELP", "add_arguments", "list_all_options", "main"]

CIFAR_POOL_SIZE = 10_000
_BASELINE = "random"
_OUT = Path("results/strategies")
_SUMMARY = "summary.md"
_SETS = ("digits", *ENCODERS)

HELP = f"""\
Compare all strategies with the same head, seeds, pools and, where they cannot choose them
themselves, first picks: on the digits, on CIFAR-10's features of each encoder that the folder
JAXAL_DATA has, or on your own (--features and the like, with --budgets).

Picks a round: {" ".join(map(str, BUDGETS["digits"]))} for the digits (10 to 200 labels),
{" ".join(map(str, BUDGETS["cifar10"]))} for the encoders (10 to 1,000).

Writes results.csv, table.md, curves.png and wins.png to a folder for each data set, and, with
several, summary.md and wins.png beside them. {_BASELINE} is always run, as what others are held
against. Oracles, which see labels nobody paid for, are marked, and are in no rank, best or test."""

_AUC = (
    "AUC: the area under the curve of accuracy over log10(labels), divided by the axis' length, "
    "which makes it the curve's mean height, in percent."
)
_ORACLES = (
    "Oracles see labels nobody paid for: they show what could be had, and are in no best, rank or "
    "test."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line options."""
    parser.add_argument(
        "--datasets",
        nargs="+",
        choices=[*_SETS, "custom"],
        help="default all that are there; custom alone with --features and the like",
    )
    add_files(parser)
    add_plan(
        parser,
        seeds=5,
        strategies=tuple(KNOWN),
        pool_size=f"{CIFAR_POOL_SIZE} for {' and '.join(ENCODERS)}, all for others; data sets of "
        "fewer rows are taken whole",
        out=f"a folder for each data set is made in it; default ./{_OUT}",
    )


def list_all_options() -> str:
    """List the options of all strategies that have any."""
    listed = {name: list_options(name) for name in KNOWN}
    return "\n".join(
        [
            "options, for --option STRATEGY.KEY=VALUE and --variant NAME STRATEGY KEY=VALUE, with "
            "defaults:",
            *(f"{name}\n{text}" for name, text in listed.items() if text),
        ]
    )


def main(args: argparse.Namespace) -> int:
    """Run the strategies on each data set and report; return the exit status."""
    names = _find_sets(args)
    require("matplotlib", "rich", *(["sklearn"] if "digits" in names else []))
    root = args.out or _OUT
    if _BASELINE not in args.strategies:
        print(f"{_BASELINE} is run too, as what the others are held against", flush=True)
        args = _changed(args, strategies=[_BASELINE, *args.strategies])
    # What is wrong with every data set is said of none.
    plan = make_plan(_changed(args, pool_size=None), "digits")
    check_plan(plan)
    jobs = {name: _make_job(args, name, root / name) for name in names}
    try_plan_options(plan)
    if len(jobs) > 1:
        _check_summary(root, replace=args.resume or args.overwrite)
    began = time.perf_counter()
    for job in jobs.values():
        open_job(job, args)
    found: dict[str, Standings] = {}
    for i, (name, job) in enumerate(jobs.items(), 1):
        print(f"{name} ({i} of {len(jobs)})", flush=True)
        try:
            data, rows = run_job(job)
        except KeyboardInterrupt:
            return stop(root)
        found[name] = _report(job, data, rows)
    if len(found) > 1:
        _summarise(jobs, found, root)
    elif (root / _SUMMARY).exists():
        print(f"{root / _SUMMARY} is of earlier results; it is made for several data sets")
    print(f"{time.perf_counter() - began:.0f} s; results in {root}")
    return 0


def _check_summary(root: Path, *, replace: bool) -> None:
    """Refuse to write over a summary, which may be of other data sets, unasked."""
    if not replace and (root / _SUMMARY).exists():
        raise ValueError(
            f"{root / _SUMMARY}: is there already; pass --resume or --overwrite to replace it, or "
            "choose another --out"
        )


def _find_sets(args: argparse.Namespace) -> list[str]:
    """Name the data sets that are meant; say which others are not there."""
    own = any(getattr(args, name) for name in FILES)
    if args.num_classes is not None and not own:
        raise ValueError("--num-classes: expected --features and the like beside it, found none")
    if args.datasets:
        if len(set(args.datasets)) < len(args.datasets):
            raise ValueError(f"--datasets: expected each once, found {args.datasets}")
        if own and "custom" not in args.datasets:
            raise ValueError(
                f"--datasets: expected custom beside --features and the like, found {args.datasets}"
            )
        return list(args.datasets)
    if own:
        return ["custom"]
    lacking = {name: _lacking(args, name) for name in _SETS}
    for name, reason in lacking.items():
        if reason:
            print(f"{name} is left out: {reason}", flush=True)
    names = [name for name, reason in lacking.items() if not reason]
    if not names:
        raise ValueError("--datasets: expected one that is there, found none")
    return names


def _lacking(args: argparse.Namespace, name: str) -> str:
    """Say what a data set needs that is not there; nothing if it is."""
    if name == "digits":
        return "" if importlib.util.find_spec("sklearn") else "scikit-learn is not installed"
    try:
        paths = find_paths(_asked(args, name), "cifar10")
    except ValueError as error:
        return str(error)
    missing = [str(path) for path in paths.values() if not path.is_file()]
    return f"{missing[0]} is missing" if missing else ""


def _changed(args: argparse.Namespace, **changes: object) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(args), **changes})


def _asked(args: argparse.Namespace, name: str) -> argparse.Namespace:
    """Write what one data set is asked for as the command ntkcpl takes it."""
    own = name == "custom"
    return _changed(
        args,
        command="ntkcpl",
        dataset=name if own or name == "digits" else "cifar10",
        encoder=name if name in ENCODERS else None,
        num_classes=args.num_classes if own else None,
        data_dir=None,
        **({} if own else dict.fromkeys(FILES)),
    )


def _make_job(args: argparse.Namespace, name: str, out: Path) -> Job:
    asked = _asked(args, name)
    try:
        paths = find_paths(asked, asked.dataset)
        rows = len(load_array(paths["features"], mapped=True)) if paths else POOL_SIZE
        size = args.pool_size
        if size is None and name in ENCODERS:
            size = CIFAR_POOL_SIZE
        if size is not None and size >= rows - (args.holdout or 0) > 0:
            size = None
        return make_job(_changed(asked, pool_size=size), out)
    except ValueError as error:
        if name == "custom":
            raise
        raise ValueError(f"{name}: {error}") from error


def _report(job: Job, data: Data, rows: Sequence[Row]) -> Standings:
    plan, out, found = job.plan, job.out, rank(rows)
    write_csv([row._asdict() for row in rows], out / "results.csv")
    cold_starts = {
        name
        for name, entry in plan.entries.items()
        if get_strategy(entry.strategy).cold_start and entry.strategy != _BASELINE
    }
    text = "\n\n".join(
        [
            f"# {job.title}",
            f"Accuracy in percent on {judge(plan)} by number of labels, mean ± sample standard "
            f"deviation over {len(plan.seeds)} seeds; best mean bold. {_AUC} {_ORACLES}",
            report.table(rows, last="AUC"),
            "## Standings",
            standings_table(found, cold_starts),
            _explained(found),
            "## AUC of the row less that of the column",
            f"Bold where the test that {_tested(found)} calls them different.",
            pairs_table(found),
            "## Rounds that the row wins against the column",
            f"Of {found.num_rounds}. Uncorrected: of many pairs that do not differ, one in forty "
            "is won by chance.",
            rounds_table(found),
            "## Seconds",
            report.timing_table(rows),
            SELECTION_SECONDS,
            circumstances(plan, data),
        ]
    )
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    plots.plot_field(rows, found.rivals, out / "curves.png", job.title)
    _plot_wins(found.rivals, found.rounds_won, found.num_rounds, out, job.title)
    print("\n" + text + "\n")
    return found


def _tested(found: Standings) -> str:
    pairs = len(found.rivals) * (len(found.rivals) - 1) // 2
    return f"is corrected for {pairs} pairs"


def _explained(found: Standings) -> str:
    lines = [
        "First picks: the strategy's own, or those of random selection, the same for all that "
        "choose only once something is labelled.",
        "Mean rank: over seeds and rounds, by accuracy; 1 is best, and ties share their mean.",
    ]
    if found.num_seeds < 2:
        lines.append("With one seed nothing is tested: no strategy is better than another.")
    else:
        lines += [
            "Better than, worse than: rivals whose AUC is lower, or higher, by a two-sided paired "
            f"t-test over the {found.num_seeds} seeds, p < {LEVEL} after Holm's correction over "
            "all pairs. This is the test to conclude from. It is over what the seeds change, which "
            "on a pool that is taken whole is the picks and the heads only.",
            "Rounds won, lost: over all rivals and rounds, by the same test of the round's "
            f"accuracies, p < {LEVEL} uncorrected, as is customary since BADGE: some are chance.",
        ]
    return "\n".join(f"* {line}" for line in lines)


def _plot_wins(
    names: Sequence[str], wins: np.ndarray, num_rounds: int, out: Path, title: str
) -> None:
    heading = (
        f"{title}\nrounds in which the row beats the column\n"
        f"(paired t-test over seeds, p < {LEVEL}, uncorrected)"
    )
    plots.plot_wins(names, wins, num_rounds, out / "wins.png", heading)


def _summarise(jobs: Mapping[str, Job], found: Mapping[str, Standings], root: Path) -> None:
    plan: Plan = next(iter(jobs.values())).plan
    own = changed_options(plan)
    text = "\n\n".join(
        [
            "# All data sets",
            f"AUC in percent on {judge(plan)}, mean ± sample standard deviation over "
            f"{len(plan.seeds)} seeds, and mean rank over seeds and rounds; best bold. {_AUC} "
            f"{_ORACLES}",
            summary_table(found),
            "\n".join(f"* [{name}]({name}/table.md): {job.title}" for name, job in jobs.items()),
            "Their tables have pools, devices and versions. Options are the defaults"
            + (f", but for these: {'; '.join(own)}." if own else "."),
        ]
    )
    (root / _SUMMARY).write_text(text + "\n", encoding="utf-8")
    names = list(average_ranks(found))
    wins = np.sum([one.rounds_won[np.ix_(*[one.order(names)] * 2)] for one in found.values()], 0)
    total = sum(one.num_rounds for one in found.values())
    _plot_wins(names, wins, total, root, "all data sets")
    print("\n" + text + "\n")
