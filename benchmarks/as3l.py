"""Few labels, prior pseudo-labels and semi-supervised training: the command as3l."""

import argparse
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.as3l_priors import PRIORS
from benchmarks.as3l_priors import STRATEGIES as SELECTIONS
from benchmarks.as3l_report import report
from benchmarks.as3l_runs import (
    Choice,
    Job,
    Outcome,
    Run,
    is_done,
    list_runs,
    make_choice,
    run_one,
    time_step,
)
from benchmarks.as3l_scales import ANCHORS, SCALES, fill_in
from benchmarks.asvp_features import add_features, open_features
from benchmarks.data import load_array
from benchmarks.finetune_runs import prepare_images
from benchmarks.folder import RUNS, feature_files, make_folder, open_described
from benchmarks.image_encoders import (
    LoadedEncoder,
    add_encoder,
    encoder_settings,
    find_mesh,
    load_encoder,
)
from benchmarks.images import Images, add_images, open_images
from benchmarks.measuring import describe_device
from benchmarks.outcomes import describe_time, require, stop
from benchmarks.pretraining import pretrain_small
from benchmarks.tables import write_csv
from jaxal.augment import Pipeline, compose, cutout, feature_view, pad_and_crop, rand_augment, weak
from jaxal.checks import check_batch_size, check_number, check_positive
from jaxal.embedding import cluster_embedding
from jaxal.models.adapter import Adapter
from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.records import describe, replacing
from jaxal.select import Pool
from jaxal.train.network import ImageNetwork
from jaxal.train.semi_recipes import SemiConfig, check_semi
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

Labels are chosen by as3l (stable groups of fine-tuned features), as3l_embedding (of the embedding
that NTKCPL clusters), kmeans (medoids of one run), or other strategies; class-balanced is an oracle
that looks at all labels. Writes results.csv, history.csv, table.md and curves.png to
--out, and saves each training as it goes; --resume goes on."""

_OWN = ("results.csv", "history.csv", "table.md", "curves.png")
_FEATURES, _TIMING = "features", "timing.json"
# What the command line changes of a configuration.
_CHANGES = {
    "steps": "steps",
    "batch": "labeled_batch_size",
    "ratio": "unlabeled_ratio",
    "cutoff": "cutoff",
    "switch": "switch",
    "targets": "targets",
    "judge": "judge",
    "record_every": "record_every",
    "dtype": "dtype",
}
_NORM = 4.0  # mean, of features that are trained on
_FEW = 4  # batches
_RESIDENT = 2 * 10**9  # bytes
_LONG = 120.0  # seconds of a training that is worth saving as it goes
# Data sets of signs, which mirrored are others.
_UNFLIPPED = ("digits", "mnist", "svhn", "svhn_cropped")
# Of a row of features: length of noise, share of dropped coordinates.
_WEAK_FEATURES = {"noise": 0.1}
_STRONG_FEATURES = {"noise": 0.3, "dropped": 0.3}


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
        default=["random", "as3l_embedding"],
        metavar="S",
        help=f"of {', '.join(SELECTIONS)} (default random as3l_embedding)",
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
        default="as3l_embedding",
        help="how labels are propagated (default as3l_embedding)",
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
    config = _make_config(args, images)
    if not args.plan:
        _open(args, images, encoder)
    if args.features is None and encoder.about["weights"] is None and not args.plan:
        print(f"pre-training {encoder.name} on {images.name} without labels", flush=True)
        variables = pretrain_small(encoder, images, args.out / "encoder.npz")
        about = {**encoder.about, "weights": "pre-trained on the way"}
        encoder = encoder._replace(variables=variables, about=about)
    job = _make_job(args, images, encoder, config)
    runs = list_runs(args.selections, args.budgets, args.methods, args.seeds)
    timing = _time(args, job, len(runs))
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
        outcomes = _run_all(args.out, job, runs, tell=long)
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
        check_semi(_changed(args), "options")
    except ValueError as error:
        text = str(error)
        for name, field in _CHANGES.items():
            flag = name.replace("_", "-")
            text = text.replace(f"options.{field}:", f"--{flag}:")
        raise ValueError(text) from error


def _check_images(args: argparse.Namespace, images: Images) -> None:
    if images.train.labels is None or images.num_classes is None:
        raise ValueError("images: expected labels of the pool, which stand for those one pays for")
    if images.test is None or images.test.labels is None:
        raise ValueError("images: expected a test set with labels")
    check_batch_size(args.budgets[-1], len(images.train), "--budgets")


class _Timing(NamedTuple):
    """How long a step takes, and where trainings stop for it."""

    seconds: float
    stop_at: int | None  # None: at the end of the schedule


def _time(args: argparse.Namespace, job: Job, num_runs: int) -> _Timing:
    """Time a step, or read how long it took, and find where trainings stop early.

    What was found is kept, so that going on means the same steps, unless the command line says
    others.
    """
    path, every = args.out / _TIMING, job.config.record_every
    minutes = args.minutes
    if path.exists() and not args.plan:
        found = _Timing(**json.loads(path.read_text(encoding="utf-8")))
    else:
        print("timing a step", flush=True)
        found = _Timing(time_step(job), None)
        if args.stop_at is None and minutes is None:
            minutes = SCALES[args.scale].minutes
    if args.stop_at is not None:
        stop_at = -(-args.stop_at // every) * every
        found = found._replace(stop_at=min(job.config.steps, stop_at))
    elif minutes is not None:
        records = int(60 * minutes / (found.seconds * num_runs * every))
        found = found._replace(stop_at=min(job.config.steps, max(records, 1) * every))
    elif args.steps is not None:
        found = found._replace(stop_at=None)
    if not args.plan:
        with replacing(path) as file:
            file.write(json.dumps(found._asdict()).encode())
    return found


def _changed(args: argparse.Namespace) -> SemiConfig:
    """Change the scale's configuration as the command line says."""
    config = SCALES[args.scale].config
    given = {field: getattr(args, name) for name, field in _CHANGES.items()}
    config = config._replace(**{k: v for k, v in given.items() if v is not None})
    if args.learning_rate is not None:
        config = config._replace(encoder=config.encoder._replace(learning_rate=args.learning_rate))
    if args.head_learning_rate is not None:
        config = config._replace(head=config.head._replace(learning_rate=args.head_learning_rate))
    return config


def _make_config(args: argparse.Namespace, images: Images) -> SemiConfig:
    config = _changed(args)
    if args.features is not None:
        return config._replace(
            weak=feature_view(**_WEAK_FEATURES), strong=feature_view(**_STRONG_FEATURES)
        )
    side = images.train.load(np.zeros(1, np.int64)).shape[1]
    light, heavy = _views(images.name not in _UNFLIPPED, side)
    return config._replace(weak=light, strong=heavy)


@functools.lru_cache(maxsize=8)
def _views(flipped: bool, side: int) -> tuple[Pipeline, Pipeline]:
    """Make FixMatch's views for images of a side of 32 pixels, in proportion for others."""
    padding = max(1, side // 8)
    shift = functools.partial(pad_and_crop, padding=padding, mode="zero")
    light = weak(padding=padding) if flipped else shift
    heavy = compose(light, rand_augment, functools.partial(cutout, size=max(1, side // 2)))
    return light, heavy


def _make_job(
    args: argparse.Namespace, images: Images, encoder: LoadedEncoder, config: SemiConfig
) -> Job:
    assert images.test is not None and images.num_classes is not None
    labels, test_labels = np.asarray(images.train.labels), np.asarray(images.test.labels)
    mesh = find_mesh()
    if args.features is not None:
        files = load_array(args.features), load_array(args.test_features)
        train, test = _scaled(_NORM, *files)
        data: tuple[Any, Any, Any] = train, test, None
        features = train / np.float32(_NORM)
        module: Any = Adapter()
        variables = dict(module.init(jax.random.key(0), jnp.zeros((1, features.shape[1]))))
    else:
        prepare = prepare_images(encoder.preprocessing)
        few = _FEW * config.labeled_batch_size * config.unlabeled_ratio if args.plan else None
        data = _resident(images.train, few), _resident(images.test, few), prepare
        module, variables = encoder.module, encoder.variables
        features = np.zeros((len(labels), 1), np.float32)
        if not args.plan:
            network = ImageNetwork(
                module, variables, images.train, images.num_classes, prepare, mesh=mesh
            )
            features = _scaled(1, np.asarray(network.embed(None, args.out / f"{_FEATURES}.npy")))[0]
    none = np.zeros(0, np.int64)
    pool = Pool(features, images.num_classes, none, none)
    return Job(
        data[0],
        labels,
        data[1],
        test_labels,
        pool if args.plan else pool._replace(embedding=cluster_embedding(pool.features)),
        Classifier(module, DenseHead((), images.num_classes)),
        variables,
        data[2],
        config,
        args.prior,
        mesh,
        hard=args.hard_prior,
    )


def _resident(source: Any, few: int | None) -> Any:
    """Load images that fit, which saves decoding them again and again; to time steps, a few."""
    size = int(np.prod(source.load(np.zeros(1, np.int64)).shape)) * len(source)
    if few is not None:
        return source.load(np.arange(min(len(source), few)))
    return source.load(np.arange(len(source))) if size <= _RESIDENT else source


def _scaled(norm: float, *features: np.ndarray) -> list[np.ndarray]:
    """Scale features so that the first ones have this mean norm."""
    arrays = [np.asarray(x, np.float32) for x in features]
    found = np.linalg.norm(arrays[0], axis=1).mean()
    return [x * np.float32(norm / found if found > 0 else 1) for x in arrays]


def _open(args: argparse.Namespace, images: Images, encoder: LoadedEncoder) -> None:
    about = {
        "encoder": encoder_settings(encoder),
        "images": images.train.describe(),
        "test": None if images.test is None else images.test.describe(),
    }
    own = (*_OWN, _TIMING, "encoder.npz", *feature_files(_FEATURES))
    open_described(args.out, about, own, resume=args.resume, overwrite=args.overwrite)
    make_folder(args.out / RUNS)


def _run_all(out: Path, job: Job, runs: Sequence[Run], *, tell: bool) -> list[Outcome]:
    """Run all that is left, saving the results after each run; ``tell`` of each record, too."""
    outcomes: list[Outcome] = []
    chosen: dict[tuple[str, int, int], Choice] = {}
    for i, run in enumerate(runs):
        key = run.selection, run.num_labels, run.seed
        if key not in chosen and not is_done(job, run, out / RUNS):
            chosen = {key: make_choice(job, run, out / RUNS)}
        told = functools.partial(_tell, run) if tell else None
        outcome = run_one(job, run, out / RUNS, chosen.get(key), told)
        outcomes.append(outcome)
        write_csv([o.row._asdict() for o in outcomes], out / "results.csv")
        write_csv([line for o in outcomes for line in _history(o)], out / "history.csv")
        row = outcome.row
        print(
            f"[{i + 1}/{len(runs)}] {run.num_labels} labels by {run.selection}, {run.way}, seed "
            f"{run.seed}: {100 * row.accuracy:.1f} %, {row.covered} classes labelled, prior "
            f"{100 * row.prior_accuracy:.1f} %",
            flush=True,
        )
    return outcomes


def _tell(run: Run, record: Mapping[str, Any]) -> None:
    print(
        f"  {run.name}: step {record['step']:,}, test {100 * record['test_accuracy']:.1f} %, "
        f"{100 * record['mask_rate']:.0f} % of pseudo-labels used",
        flush=True,
    )


def _history(outcome: Outcome) -> list[dict[str, Any]]:
    """Flatten a history: thresholds become their mean, least and largest."""
    named = dict(zip(Run._fields, outcome.row, strict=False))
    lines = []
    for record in outcome.history:
        thresholds = record["thresholds"]
        rest = {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in record.items()
            if name not in ("thresholds", "unseen")
        }
        lines.append(
            {
                **named,
                **rest,
                "threshold": round(float(np.mean(thresholds)), 6),
                "least_threshold": round(min(thresholds), 6),
                "largest_threshold": round(max(thresholds), 6),
            }
        )
    return lines
