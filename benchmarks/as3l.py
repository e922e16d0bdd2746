"""Few labels, prior pseudo-labels and semi-supervised training: the command as3l."""

import argparse
import json
from pathlib import Path

from benchmarks.as3l_jobs import CHANGES, FEATURES, changed_config, make_config, make_job
from benchmarks.as3l_priors import PRIORS
from benchmarks.as3l_priors import STRATEGIES as SELECTIONS
from benchmarks.as3l_report import report
from benchmarks.as3l_runs import is_done, list_runs
from benchmarks.as3l_scales import ANCHORS, SCALES, fill_in
from benchmarks.as3l_work import TIMING, run_all, time_job
from benchmarks.asvp_features import add_features, open_features
from benchmarks.folder import RUNS, feature_files, make_folder, open_described
from benchmarks.image_encoders import (
    LoadedEncoder,
    add_encoder,
    encoder_settings,
    load_encoder,
)
from benchmarks.images import Images, add_images, open_images
from benchmarks.measuring import describe_device
from benchmarks.outcomes import describe_time, require, stop
from benchmarks.pretraining import pretrain_small
from jaxal.checks import check_batch_size, check_number, check_positive
from jaxal.records import describe
from jaxal.train.semi_recipes import check_semi
from jaxal.train.thresholds import RULES

__all__ = ["HELP", "add_arguments", "main"]

HELP = """\
Choose a few labels at once, make prior pseudo-labels of them, and train on the whole pool by a
semi-supervised method, without the prior and with it. Reports accuracy by number of labels, how
many classes the labels cover and how right the prior is, and after how many steps training with
the prior is as good as without it in the end.

--scale smoke: the digits, a small network pre-trained on the way, a minute.
--scale cpu: the same with 10 to 100 labels and 3 seeds; or, with --features, those of any encoder:
the network is then a residual layer on them, trained at a small rate and with the prior to the end,
and views are noise and dropped coordinates.
--scale gpu: WRN-28-2 on CIFAR-10, --weights from pretrain, as many steps as 10 minutes give; with
--resume and more --minutes it goes on.
--scale paper: the same for 2^20 steps; says how long that takes before it starts.

Labels are chosen by as3l (stable groups of the embedding that NTKCPL clusters), as3l_fine (of
fine-tuned features, as in the paper), kmeans (medoids of one run), or other strategies;
class-balanced is an oracle that looks at all labels. Writes results.csv, history.csv, table.md and
curves.png to --out, and saves each training as it goes; --resume goes on."""

_OWN = ("results.csv", "history.csv", "table.md", "curves.png")
_LONG = 120.0  # seconds of a training that is worth saving as it goes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line options."""
    add_images(parser)
    add_features(parser)
    add_encoder(parser)
    parser.set_defaults(encoder=None)
    parser.add_argument("--scale", choices=list(SCALES), default="smoke", help="default smoke")
    parser.add_argument(
        "--selections",
        nargs="+",
        default=["random", "as3l"],
        metavar="S",
        help=f"of {', '.join(SELECTIONS)} (default random as3l)",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=list(RULES), default=["flexmatch"], help="default flexmatch"
    )
    parser.add_argument(
        "--budgets", type=int, nargs="+", metavar="N", help="numbers of labels, not the scale's"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="how many, from 0")
    parser.add_argument(
        "--prior",
        choices=PRIORS,
        default="as3l",
        help="how labels are propagated (default as3l)",
    )
    parser.add_argument(
        "--hard-prior", action="store_true", help="each sample's likeliest class, not shares"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of each training, and of its schedule"
    )
    early = parser.add_mutually_exclusive_group()
    early.add_argument(
        "--stop-at",
        type=int,
        metavar="N",
        help="stop at the first test there or behind, though the schedule goes to --steps",
    )
    early.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="stop all trainings early, at the same step, so that they take as long together",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="labelled samples of a step")
    parser.add_argument("--ratio", type=int, metavar="N", help="unlabelled ones for each of them")
    parser.add_argument("--cutoff", type=float, help="confidence that pseudo-labels have to have")
    parser.add_argument(
        "--switch", type=float, metavar="SHARE", help="of the steps, in which the prior is used"
    )
    parser.add_argument("--targets", choices=("soft", "hard"), help="of samples with a prior")
    parser.add_argument(
        "--judge", choices=("prediction", "posterior"), help="whose confidence is looked at"
    )
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="of the encoder")
    parser.add_argument("--head-learning-rate", type=float, metavar="RATE", help="of the head")
    parser.add_argument("--record-every", type=int, metavar="N", help="steps between tests")
    parser.add_argument(
        "--anchors",
        choices=list(ANCHORS),
        help="published numbers to put beside; by default those of --dataset",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="to train in")
    parser.add_argument(
        "--plan", action="store_true", help="say how long it will take, and do nothing more"
    )
    parser.add_argument("--out", type=Path, default=Path("results/as3l"), metavar="DIR")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what --out holds")
    again.add_argument("--overwrite", action="store_true", help="remove earlier results in --out")


def main(args: argparse.Namespace) -> int:
    """Run all trainings, report; return the exit status."""
    args = fill_in(args)
    learnt = args.dataset == "digits" or args.prior in ("spreading", "logistic")
    require("matplotlib", *(["sklearn"] if learnt else []))
    _check(args)
    if args.features is None and args.test_features is None:
        if args.scale in ("gpu", "paper") and args.weights is None and not args.plan:
            raise ValueError(
                "--weights: expected those of an encoder, such as the command pretrain writes: "
                "random ones tell nothing of which samples to label"
            )
        images = open_images(args)
        _check_images(args, images)
        encoder = load_encoder(args)
    else:
        images, encoder, _ = open_features(args)
        _check_images(args, images)
    config = make_config(args, images)
    if not args.plan:
        _open(args, images, encoder)
    if args.features is None and encoder.about["weights"] is None and not args.plan:
        print(f"pre-training {encoder.name} on {images.name} without labels", flush=True)
        variables = pretrain_small(encoder, images, args.out / "encoder.npz")
        about = {**encoder.about, "weights": "pre-trained on the way"}
        encoder = encoder._replace(variables=variables, about=about)
    job = make_job(args, images, encoder, config)
    runs = list_runs(args.selections, args.budgets, args.methods, args.seeds)
    timing = time_job(args, job, len(runs))
    job = job._replace(stop_at=timing.stop_at)
    seconds, steps = timing.seconds, timing.stop_at or config.steps
    left = sum(args.plan or not is_done(job, run, args.out / RUNS) for run in runs)
    print(
        f"{left} trainings of {steps:,} steps of {seconds:.3g} s: "
        f"{describe_time(seconds * steps * left)} on {describe_device()}, choices and tests apart",
        flush=True,
    )
    if args.plan:
        return 0
    long = seconds * steps > _LONG
    job = job._replace(checkpoints=long or job.stop_at is not None)
    try:
        outcomes = run_all(args.out, job, runs, tell=long)
    except KeyboardInterrupt:
        return stop(args.out)
    about = {
        "anchors": args.anchors,
        "prior": args.prior + (", the likeliest class" if args.hard_prior else ", soft"),
        "title": f"{images.name}, {encoder.name}",
        "device": describe_device(),
        "test": f"{len(job.test_labels):,} {images.tested}",
        "config": json.dumps(
            describe(
                {
                    "methods": args.methods,
                    "training": config,
                    "prior": args.prior,
                    "network": encoder_settings(encoder),
                }
            )
        ),
        "seconds": seconds,
        "steps": config.steps,
        "switch": round(config.switch * config.steps),
    }
    report(args.out, outcomes, about)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check options before anything is opened."""
    check_positive(args.seeds, "--seeds")
    for size in args.budgets:
        check_positive(size, "--budgets")
    for name in args.selections:
        if name not in SELECTIONS:
            raise ValueError(f"--selections: expected some of {SELECTIONS}, found {name!r}")
    if args.stop_at is not None:
        check_positive(args.stop_at, "--stop-at")
    if args.minutes is not None:
        check_number(args.minutes, "--minutes", least=0, above=True)
    args.budgets = sorted(set(args.budgets))
    args.selections = list(dict.fromkeys(args.selections))
    args.methods = list(dict.fromkeys(args.methods))
    try:
        check_semi(changed_config(args), "options")
    except ValueError as error:
        text = str(error)
        for name, field in CHANGES.items():
            flag = name.replace("_", "-")
            text = text.replace(f"options.{field}:", f"--{flag}:")
        raise ValueError(text) from error


def _check_images(args: argparse.Namespace, images: Images) -> None:
    if images.train.labels is None or images.num_classes is None:
        raise ValueError("images: expected labels of the pool, which stand for those one pays for")
    if images.test is None or images.test.labels is None:
        raise ValueError("images: expected a test set with labels")
    check_batch_size(args.budgets[-1], len(images.train), "--budgets")


def _open(args: argparse.Namespace, images: Images, encoder: LoadedEncoder) -> None:
    about = {
        "encoder": encoder_settings(encoder),
        "images": images.train.describe(),
        "test": None if images.test is None else images.test.describe(),
    }
    own = (*_OWN, TIMING, "encoder.npz", *feature_files(FEATURES))
    open_described(args.out, about, own, resume=args.resume, overwrite=args.overwrite)
    make_folder(args.out / RUNS)
