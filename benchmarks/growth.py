"""Time and peak memory of strategies as the pool grows, each point in a process of its own."""

import argparse
import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.complexity import COMPLEXITY
from benchmarks.measuring import describe_device
from benchmarks.outcomes import require, stop
from benchmarks.selecting import Sizes, choose_strategies, measure_selection, shown_name
from benchmarks.tables import markdown, write_csv

__all__ = ["Point", "add_arguments", "exponent", "main", "read_points", "table"]

SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
_CSV, _TABLE, _FIGURE = "growth.csv", "growth.md", "growth.png"
# The exponent is that of the largest pools, where fixed costs have faded.
_FITTED = 3


class Point(NamedTuple):
    """A strategy on a pool: one line of the results."""

    strategy: str
    pool: int
    features: int
    classes: int
    labeled: int
    picks: int
    device: str
    status: str  # "ok", "given up" or "failed"
    timeout: float  # seconds after which it would be given up
    seconds: float | None = None  # of a selection after the first
    first: float | None = None  # of the first, which compiles
    peak_gib: float | None = None  # of the whole process, or of the accelerator


_SETTINGS = ("features", "classes", "labeled", "picks", "device")
_NUMBERS = ("seconds", "first", "peak_gib")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line options."""
    parser.add_argument(
        "--strategies", nargs="+", metavar="NAME", help="default all that see no unpaid labels"
    )
    sizes = " ".join(map(str, SIZES))
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=SIZES, metavar="N", help=f"pools; default {sizes}"
    )
    for name, default, text in (
        ("features", 64, "columns of the features"),
        ("classes", 10, "classes, and components of the synthetic mixture"),
        ("labeled", 100, "labelled rows"),
        ("picks", 100, "samples to pick"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default {default})"
        )
    parser.add_argument(
        "--limit",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="a strategy meets no larger pool once a selection took longer (default 60)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="a point is given up after so long, making the pool and compiling included "
        "(default 300)",
    )
    parser.add_argument("--out", type=Path, default=Path("results/growth"), metavar="DIR")
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="keep the points that --out holds, of the same settings and device, and add to them",
    )
    again.add_argument("--overwrite", action="store_true", help="remove earlier results in --out")


def main(args: argparse.Namespace) -> int:
    """Measure the points, and write ``growth.csv``, ``growth.md`` and ``growth.png``.

    Raises:
      ValueError: options out of range, or results that may not be touched.
    """
    from benchmarks.growth_figure import draw

    require("matplotlib")
    names, wanted = choose_strategies(args.strategies), _wanted(args)
    device = describe_device()
    kept = _open(args, wanted[0], device)
    points = {(point.strategy, point.pool): point for point in kept}
    try:
        for name in names:
            _grow(name, wanted, points, args, device)
    except KeyboardInterrupt:
        return stop(args.out)
    text = table(points.values(), args.limit, [sizes.pool for sizes in wanted])
    (args.out / _TABLE).write_text(text + "\n", encoding="utf-8")
    draw(points.values(), args.out / _FIGURE)
    print(f"\n{text}\n\nresults in {args.out}")
    return int(any(point.status == "failed" for point in points.values()))


def _wanted(args: argparse.Namespace) -> list[Sizes]:
    """List the pools to measure, smallest first."""
    for name in ("features", "classes", "labeled", "picks", "limit", "timeout"):
        if not 0 < getattr(args, name) < math.inf:
            raise ValueError(f"--{name}: expected more than 0, found {getattr(args, name)}")
    least = args.labeled + args.picks
    if min(args.sizes) < least:
        raise ValueError(
            f"--sizes: expected at least {least}, what is labelled and picked, "
            f"found {min(args.sizes)}"
        )
    return [
        Sizes(n, args.features, args.classes, args.labeled, args.picks)
        for n in sorted(set(args.sizes))
    ]


def _open(args: argparse.Namespace, sizes: Sizes, device: str) -> list[Point]:
    """Read the points to keep, or refuse the folder."""
    path = args.out / _CSV
    if args.overwrite:
        for name in (_CSV, _TABLE, _FIGURE):
            (args.out / name).unlink(missing_ok=True)
    if not any((args.out / name).exists() for name in (_CSV, _TABLE, _FIGURE)):
        args.out.mkdir(parents=True, exist_ok=True)
        return []
    if not args.resume:
        raise ValueError(
            f"{args.out}: holds results; pass --resume to go on with them, or --overwrite"
        )
    found = read_points(path) if path.exists() else []
    now = {**sizes._asdict(), "device": device}
    differing = {
        f"{name}: now {now[name]!r}, there {getattr(point, name)!r}"
        for point in found
        for name in _SETTINGS
        if getattr(point, name) != now[name]
    }
    if differing:
        raise ValueError(
            f"{args.out}: holds results of other settings ({'; '.join(sorted(differing))}); "
            "choose another --out, or pass --overwrite"
        )
    return [point for point in found if _stands(point, args.timeout)]


def _stands(point: Point, timeout: float) -> bool:
    """Say whether a point need not be measured again."""
    return point.status == "ok" or (point.status == "given up" and point.timeout >= timeout)


def _grow(
    name: str,
    wanted: Sequence[Sizes],
    points: dict[tuple[str, int], Point],
    args: argparse.Namespace,
    device: str,
) -> None:
    """Measure a strategy on ever larger pools, saving each point, until one passes the limit."""
    for sizes in wanted:
        point = points.get((name, sizes.pool))
        if point is None:
            point = _measure(name, sizes, args.timeout, device)
            points[name, sizes.pool] = point
            write_csv([p._asdict() for p in points.values()], args.out / _CSV)
        print(f"{name}, {sizes.pool}: {_result(point)}", flush=True)
        if _stops(point, args.limit):
            return


def _measure(name: str, sizes: Sizes, timeout: float, device: str) -> Point:
    settings: dict[str, Any] = {k: v for k, v in sizes._asdict().items() if k in Point._fields}
    point = Point(name, device=device, status="ok", timeout=timeout, **settings)
    try:
        found: dict[str, Any] = measure_selection(name, sizes, timeout=timeout)
        return point._replace(**found)
    except TimeoutError:
        return point._replace(status="given up")
    except RuntimeError as error:
        print(error)
        return point._replace(status="failed")


def _stops(point: Point, limit: float) -> bool:
    return point.seconds is None or point.seconds > limit


def _result(point: Point) -> str:
    if point.seconds is None:
        return f"over {point.timeout:g} s" if point.status == "given up" else point.status
    return f"{point.seconds:.3g} s, {point.peak_gib:.2f} GiB"


def read_points(path: Path) -> list[Point]:
    """Read what an earlier command measured.

    Raises:
      ValueError: a file that is damaged or of another kind.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_as_point(line) for line in csv.DictReader(file)]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: damaged, or of another version ({error})") from error


def _as_point(line: dict[str, Any]) -> Point:
    for name in ("pool", "features", "classes", "labeled", "picks"):
        line[name] = int(line[name])
    for name in _NUMBERS:
        line[name] = float(line[name]) if line[name] else None
    return Point(**line | {"timeout": float(line["timeout"])})


def exponent(points: Iterable[Point]) -> float:
    """Fit a in seconds ∝ pool^a to the largest pools of one strategy; NaN for fewer than two."""
    done = sorted((p.pool, p.seconds) for p in points if p.seconds is not None)[-_FITTED:]
    if len(done) < 2:
        return math.nan
    pools, seconds = np.log(np.array(done)).T
    return float(np.polyfit(pools, seconds, 1)[0])


def table(points: Iterable[Point], limit: float, wanted: Iterable[int] = ()) -> str:
    """Tabulate seconds and peak memory by pool size, beside the complexity that is stated.

    Args:
      points: of one command's settings.
      limit: seconds after which a strategy was stopped.
      wanted: pool sizes that get a column even where no point is.

    Returns:
      Markdown.
    """
    points = list(points)
    sizes = sorted({*wanted, *(point.pool for point in points)})
    times, peaks = [], []
    for name in dict.fromkeys(point.strategy for point in points):
        own = {point.pool: point for point in points if point.strategy == name}
        fitted, stated = exponent(own.values()), COMPLEXITY[name]
        grown = "" if math.isnan(fitted) else f"{fitted:.2f}"
        cells = [_time_cell(own.get(size), own.values(), limit) for size in sizes]
        times.append([shown_name(name), *cells, grown, stated.time])
        held = (own.get(size) for size in sizes)
        cells = ["" if p is None or p.peak_gib is None else f"{p.peak_gib:.2f}" for p in held]
        peaks.append([shown_name(name), *cells, stated.memory])
    heads = [f"{size:,}" for size in sizes]
    fixed = ", ".join(f"{getattr(points[0], name)} {name}" for name in _SETTINGS[:-1])
    return "\n\n".join(
        [
            "# Time and memory by pool size",
            f"Device {points[0].device}; {fixed}. Synthetic features; a selection after the first, "
            "so without compilation.",
            "Seconds:",
            markdown([["strategy", *heads, "exponent", "stated time"], *times]),
            f"The exponent is a of seconds ∝ rows^a over the {_FITTED} largest pools. A strategy "
            f"was stopped once a selection took over {limit:g} s; what is over a number of "
            "seconds was given up, making the pool and compiling included. Stated: of n rows, d "
            "features, c classes, l labelled, b picks.",
            "Peak memory of the whole process, its pool included, in GiB:",
            markdown([["strategy", *heads, "stated memory"], *peaks]),
        ]
    )


def _time_cell(point: Point | None, own: Iterable[Point], limit: float) -> str:
    if point is None:
        return "stopped" if any(_stops(p, limit) for p in own) else ""
    if point.seconds is None:
        return f"over {point.timeout:g}" if point.status == "given up" else point.status
    return f"{point.seconds:.3g}"
