"""Command line of the benchmarks: ``python -m benchmarks --help``."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from benchmarks import (
    as3l,
    asvp,
    compare,
    extraction,
    finetuning,
    growth,
    image_data,
    pretraining,
    priors,
    speed,
    strategies,
)
from benchmarks.arguments import add_data, add_plan
from benchmarks.options import list_options
from benchmarks.outcomes import STOPPED
from benchmarks.presets import BUDGETS, describe_presets

__all__ = ["main"]

_NTKCPL_HELP = f"""\
Compare NTKCPL with other strategies on fixed features.

--dataset NAME chooses the picks a round, unless --budgets does: those below, and for digits
{" ".join(map(str, BUDGETS["digits"]))}. Custom data must say.

--preset paper, beside --dataset of one of these, also chooses the rest of its line, raw features
(--no-scale) and, for ntkcpl, the options risk=zero_one weighting=uniform cluster_features=al
refinement=split center=false, with kernel_width and max_clusters by the line. What the command line
says goes before. Variants start from the defaults. Features from elsewhere keep their encoder.

{describe_presets()}

Published with NTKCPL are the heads' layers, raw features, the most clusters there are (300 too) and
these options. Ours are the picks a round, the encoders, the pixels, how heads are trained, by what
clusters are split, the kernel's scale, ridge and lack of batch normalisation, and that a random
4,000 of a larger pool are the candidates.

Files of your own (--features and the like) are the data set "custom", unless --dataset names
another. With --encoder, or where label files are not given, data come from the folder that the
environment variable JAXAL_DATA names: features/cifar10_ENCODER/{{train,test}}.npy,
features/cifar10_labels_{{train,test}}.npy and tfds/.
"""

_SPEED = """\
Time the hot paths and their peak memory, beside ceilings measured in the same run; or, with --peers
or --scale, whole strategies; or, with --images, encoders and augmentations. Features and images are
synthetic."""
_GROWTH = """\
Time strategies and their peak memory on ever larger pools of synthetic features, each point in a
process of its own; write growth.csv, growth.md and growth.png."""
_COMMANDS = {
    "strategies": strategies.main,
    "speed": speed.main,
    "growth": growth.main,
    "pretrain": pretraining.main,
    "features": extraction.main,
    "finetune": finetuning.main,
    "asvp": asvp.main,
    "priors": priors.main,
    "as3l": as3l.main,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command")
    listed = (
        "options of ntkcpl, for --option and --variant, with defaults; those of others are in the\n"
        f"help of strategies:\n{list_options('ntkcpl')}"
    )
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
    add_data(ntkcpl)
    ntkcpl.add_argument(
        "--preset",
        choices=("paper",),
        help="settings of the NTKCPL paper where they are known, for --dataset; see above",
    )
    image_data.add_arguments(ntkcpl)
    for command in (digits, ntkcpl):
        add_plan(command, seeds=5 if command is digits else 3)
    strategies.add_arguments(
        commands.add_parser(
            "strategies",
            help="all strategies on several data sets: tables, ranks and tests",
            description=strategies.HELP,
            epilog=strategies.list_all_options(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    speed.add_arguments(
        commands.add_parser(
            "speed", help="time and memory of the hot paths, and of strategies", description=_SPEED
        )
    )
    growth.add_arguments(
        commands.add_parser(
            "growth", help="time and memory of strategies by pool size", description=_GROWTH
        )
    )
    for name, module, text in (
        ("pretrain", pretraining, "pre-train an encoder on images without labels"),
        ("features", extraction, "compute the features of images by an encoder, once"),
        ("finetune", finetuning, "train an encoder on few labelled images"),
        ("asvp", asvp, "standard active learning, SVPp and ASVP: accuracy and cost"),
        ("priors", priors, "few labels, and how right pseudo-labels made of them are"),
        ("as3l", as3l, "few labels, prior pseudo-labels and semi-supervised training"),
    ):
        module.add_arguments(
            commands.add_parser(
                name,
                help=text,
                description=module.HELP,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    parser.description = (
        "Without a command: digits, a comparison on small images that needs no data. Its flags,\n"
        f"explained by `digits --help`, then stand alone:\n\n{digits.format_usage()}"
    )
    return parser


def _format_warning(message: Warning | str, *_: Any) -> str:
    return f"warning: {message}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = ["digits", *given]
    args = _parser().parse_args(given)
    warnings.formatwarning = _format_warning  # type: ignore[assignment]
    # What is measured runs in processes of its own, which find no memory if this one takes all.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        status = _COMMANDS.get(args.command, compare.main)(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Who read the output is gone; what Python flushes at its end must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return STOPPED
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
