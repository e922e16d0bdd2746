"""Time and peak memory of the hot paths, beside a ceiling or a peer measured in the same run.

Every case runs in a process of its own, so that its peak resident memory is its own; the first
call, which compiles, is timed apart from the others. Ceilings: the rate of a large float32 matrix
product and the rate at which a large array is read.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import peers, scale
from benchmarks.measuring import describe_device, refuse_to_replace, run_alone, write_report
from benchmarks.speed_cases import CASES, FULL, QUICK
from benchmarks.tables import markdown, table_line

__all__ = ["add_arguments", "main", "measure"]

_TIMEOUT = 900.0


def measure(case: str, *, quick: bool = False) -> dict[str, Any]:
    """Measure one case in a process of its own.

    Raises:
      RuntimeError: the process failed; with what it printed.
    """
    given = ["--cases", case, "--in-process", *["--quick"] * quick]
    return run_alone("benchmarks.speed", given, f"the speed case {case}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--cases",
        nargs="+",
        choices=list(CASES),
        default=list(CASES),
        metavar="CASE",
        help=f"of {', '.join(CASES)}; default all",
    )
    what.add_argument(
        "--peers",
        action="store_true",
        help="instead: strategies beside scikit-activeml's, into speed_peers.md and .csv",
    )
    what.add_argument(
        "--scale",
        action="store_true",
        help="instead: strategies on a large pool, time and peak memory beside the ceiling of "
        "their own arithmetic, into speed_scale.md and .csv",
    )
    what.add_argument(
        "--images",
        nargs="*",
        metavar="NAME",
        help="instead: encoders (training and features too) and augmentations, all or those named, "
        "in images a second, into speed_images.md and .csv",
    )
    parser.add_argument(
        "--strategies",
        nargs="+",
        metavar="NAME",
        help="with --peers or --scale: only these; default all that there are",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help=f"with --scale: after which a strategy is given up (default {_TIMEOUT:g})",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument(
        "--out", type=Path, default=Path("results/speed"), help="default ./results/speed"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the table in --out")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> int:
    """Run the speed benchmark: print a table, write it as ``.csv`` and ``.md``."""
    if args.in_process:
        print(json.dumps(CASES[args.cases[0]](QUICK if args.quick else FULL)))
        return 0
    if args.strategies and not (args.peers or args.scale):
        raise ValueError("--strategies: expected --peers or --scale beside it")
    if args.timeout is not None and not args.scale:
        raise ValueError("--timeout: expected --scale beside it")
    chosen = [kind for kind in ("peers", "scale") if getattr(args, kind)]
    chosen += ["images"] if args.images is not None else []
    name = "_".join(["speed", *chosen])
    refuse_to_replace(args.out / name, overwrite=args.overwrite)
    if args.images is not None:
        from benchmarks.image_speed import image_names, measure_images

        names = image_names(args.images, quick=args.quick)
        return int(len(measure_images(args.out, names, quick=args.quick)) < len(names))
    if args.peers:
        peers.compare(args.strategies, args.out, quick=args.quick)
        return 0
    if args.scale:
        timeout = _TIMEOUT if args.timeout is None else args.timeout
        measured = scale.measure_all(args.strategies, args.out, timeout=timeout, quick=args.quick)
        return int(any(row["status"] == "failed" for row in measured))
    sizes = QUICK if args.quick else FULL
    header = ["case", "seconds", "first call, with compilation", "peak GiB", "ratio", "compared"]
    rows, cells = [], []
    failed = False
    for case in args.cases:
        try:
            found = measure(case, quick=args.quick)
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            failed = True
            continue
        rows.append({"case": case, **found})
        numbers = [f"{found[name]:.3g}" for name in ("seconds", "first")]
        numbers += [f"{found['peak_gib']:.2f}", f"{found['ratio']:.3g}"]
        cells.append([case, *numbers, found["compared"]])
        print(table_line(cells[-1]), flush=True)
        write_report(
            args.out / "speed",
            rows,
            [f"Device {describe_device()}; sizes {json.dumps(sizes)}.", markdown([header, *cells])],
        )
    return int(failed)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser()
    add_arguments(_parser)
    sys.exit(main(_parser.parse_args()))
