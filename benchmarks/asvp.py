"""Standard active learning, SVPp and ASVP beside one another: the command asvp."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.arguments import HEADS
from benchmarks.asvp_features import add_features, open_features
from benchmarks.asvp_plan import describe_plan, project
from benchmarks.asvp_report import report
from benchmarks.asvp_runs import (
    TRIGGERS,
    Job,
    Run,
    list_runs,
    read_pipeline,
)
from benchmarks.asvp_scales import BUDGETS, SCALES, fill_in
from benchmarks.asvp_work import FEATURES, is_done, run_all, warm_up, with_features
from benchmarks.finetune_runs import make_configs, prepare_images
from benchmarks.folder import feature_files, open_described
from benchmarks.image_encoders import (
    LoadedEncoder,
    add_encoder,
    encoder_settings,
    find_mesh,
    load_encoder,
)
from benchmarks.images import Images, add_images, open_images
from benchmarks.measuring import describe_device
from benchmarks.outcomes import require, stop
from benchmarks.pretraining import pretrain_small
from jaxal.asvp import DEFAULT_CONFIG, PIPELINES, PipelineConfig, lpft_until_refreshed
from jaxal.checks import check_batch_size, check_number, check_positive
from jaxal.costs import DEFAULT_PRICES, Prices
from jaxal.select import STRATEGIES
from jaxal.train.head import PROXY_IMAGENET
from jaxal.train.network import METHODS, ImageNetwork
from jaxal.train.recipes import FinetuneConfig, LpftConfig
from jaxal.train.supervised import Prepare

__all__ = ["HELP", "add_arguments", "main"]

HELP = """\
Choose what to label and train on it in three ways: standard active learning, which fine-tunes the
network every round; SVPp, which selects by a proxy on features computed once; ASVP, which computes
them anew when they no longer serve. Reports accuracy by number of labels, labels saved against
random selection, what each costs, and the history of the scores that ASVP decides by.

--scale smoke: the digits, a small network pre-trained on the way, a minute or two.
--scale cpu: Conv-4 at 32 pixels on CIFAR-10, 100 to 2,000 labels; --weights from pretrain.
With --features, those of any encoder, the network is a residual layer on them.
--scale paper: the ASVP paper's budgets and trainings, ResNet-50 at 224 pixels; --weights of a
self-supervised one. Its rounds on CIFAR-100 and the Pets, which are not published, are ours. That
asvp chooses by the network in the round of a refresh is ours too; --proxy-always is the paper's.

A pipeline is standard, svpp, asvp, or asvp:TRIGGER[,OPTION=VALUE...], such as asvp:falling or
asvp:at_labels,counts=500. A trigger says when features are computed anew: saturating (the default:
once what moving classes apart gains in score stops growing) and slowing (once that score does), of
share and patience; falling (once the features' own score does), of patience; enough_labels, of
per_class and most; at_labels, of counts; every_round, which chooses as standard does; never, which
chooses as svpp does. Random selection is run beside them. Before it starts, the command says
how long it will take and what that costs; --plan ends there.

Writes results.csv, scores.csv, table.md, curves.png, costs.png and scores.png to --out, and saves
each run as it goes; --resume goes on."""

_OWN = ("results.csv", "scores.csv", "table.md", "curves.png", "costs.png", "scores.png")


# With so much to do that every epoch of a training is worth saving.
_LONG = 300.0  # seconds of a training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line options."""
    add_images(parser)
    add_features(parser)
    add_encoder(parser)
    parser.set_defaults(encoder=None)
    parser.add_argument("--scale", choices=list(SCALES), default="smoke", help="default smoke")
    parser.add_argument(
        "--pipelines", nargs="+", default=list(PIPELINES), metavar="P", help="default all three"
    )
    parser.add_argument(
        "--strategies",
        nargs="+",
        metavar="S",
        help=f"confidence, or of {', '.join(STRATEGIES)}; by default the scale's",
    )
    parser.add_argument(
        "--trigger",
        choices=list(TRIGGERS),
        help="of asvp, where --pipelines names none (default saturating)",
    )
    parser.add_argument(
        "--budgets", type=int, nargs="+", metavar="N", help="picks of each round, not the scale's"
    )
    parser.add_argument(
        "--final-at",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of labels, each the end of a round, that networks are finally trained on and "
        "compared at (default: the end of every round)",
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="how many, from 0")
    parser.add_argument(
        "--final",
        choices=("rule", *METHODS),
        help="how networks are trained in the end (default ft at --scale paper, elsewhere lpft, "
        "for all pipelines, so that they differ by what was chosen only); rule: the paper's for "
        "asvp, lpft until features were refreshed, then ft, beside others that stay with lpft",
    )
    parser.add_argument(
        "--tuning",
        choices=METHODS,
        default=DEFAULT_CONFIG.tuning,
        help="how standard trains each round, and asvp to refresh (default "
        f"{DEFAULT_CONFIG.tuning})",
    )
    parser.add_argument(
        "--proxy-always",
        action="store_true",
        help="asvp chooses by a proxy in the round of a refresh too, as in the paper, not by the "
        "network that was trained for it",
    )
    parser.add_argument(
        "--head",
        choices=list(HEADS),
        default="mlp",
        help="that svpp and asvp select by: mlp, the paper's proxy (the default), at --scale paper "
        "on imagenet2012 trained as there; linear, what the library trains elsewhere; or mlp4096, "
        "that of the NTKCPL paper for ImageNet-100",
    )
    parser.add_argument(
        "--compare",
        nargs="*",
        choices=METHODS,
        help="trained beside it at every number of labels (default: all in smoke, else none; "
        "without a value: none)",
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="of each training, not the scale's")
    parser.add_argument(
        "--learning-rate", type=float, metavar="RATE", help="of the encoder, not the scale's"
    )
    parser.add_argument("--head-learning-rate", type=float, metavar="RATE", help="likewise")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="to train in")
    parser.add_argument(
        "--label-price", type=float, default=DEFAULT_PRICES.label, metavar="$", help="of one label"
    )
    parser.add_argument(
        "--device-price",
        type=float,
        default=DEFAULT_PRICES.device_hour,
        metavar="$",
        help="of a device for an hour",
    )
    parser.add_argument(
        "--target",
        type=float,
        metavar="PERCENT",
        help="accuracy whose cost is compared; by default the highest that all pipelines reach",
    )
    parser.add_argument(
        "--plan", action="store_true", help="say how long it will take, and do nothing"
    )
    parser.add_argument(
        "--device-rate",
        type=float,
        metavar="FLOPS",
        help="with --plan: for a device of so many operations a second, not this one",
    )
    parser.add_argument("--out", type=Path, default=Path("results/asvp"), metavar="DIR")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what --out holds")
    again.add_argument("--overwrite", action="store_true", help="remove earlier results in --out")


def main(args: argparse.Namespace) -> int:
    """Run all pipelines, report; return the exit status."""
    require("matplotlib")
    args = fill_in(args)
    prices = _check(args)
    if args.features is None and args.test_features is None:
        images = open_images(args)
        budgets, runs = _plan_runs(args, images)
        encoder = load_encoder(args)
        prepare = prepare_images(encoder.preprocessing)
        _check_weights(args, encoder)
    else:
        images, encoder, prepare = open_features(args)
        budgets, runs = _plan_runs(args, images)
    if not args.plan:
        _open(args, images, encoder)
        if encoder.about["weights"] is None:
            encoder = _pretrained(args, encoder, images)
    job = _make_job(args, images, encoder, budgets, prepare)
    projected = project(job, runs, args.device_rate)
    print(describe_plan(projected, prices, args.device_rate), flush=True)
    if args.plan:
        return 0
    long = projected.longest_training > _LONG
    job = job._replace(network=dataclasses.replace(job.network, checkpoints=long))
    try:
        job = with_features(args.out, job)
        if any(not is_done(job, run, args.out) for run in runs):
            warm_up(job, runs)
        rows, scores = run_all(args.out, job, runs)
    except KeyboardInterrupt:
        return stop(args.out)
    report(args.out, rows, scores, job, prices, target=args.target, title=_title(images, encoder))
    return 0


def _check(args: argparse.Namespace) -> Prices:
    """Check options before anything is opened."""
    check_positive(args.seeds, "--seeds")
    for name in args.strategies:
        if name not in STRATEGIES:
            raise ValueError(
                f"--strategies: expected confidence, or of {', '.join(STRATEGIES)}, found {name!r}"
            )
    if args.strategies == ["random"]:
        raise ValueError("--strategies: expected one beside random, found none")
    if args.epochs is not None:
        check_positive(args.epochs, "--epochs")
    if args.target is not None and not 0 < args.target <= 100:
        raise ValueError(f"--target: expected a percentage in 0..100, found {args.target}")
    if args.device_rate is not None:
        check_number(args.device_rate, "--device-rate", least=0, above=True)
        if not args.plan:
            raise ValueError("--device-rate: expected --plan beside it, found none")
    if args.proxy_always and not any(text.startswith("asvp") for text in args.pipelines):
        raise ValueError("--proxy-always: expected asvp among --pipelines, found none")
    prices = Prices(args.label_price, args.device_price)
    for name, value in prices._asdict().items():
        check_number(value, f"--{name.split('_')[0]}-price", least=0)
    return prices


def _plan_runs(args: argparse.Namespace, images: Images) -> tuple[tuple[int, ...], list[Run]]:
    if images.train.labels is None or images.num_classes is None:
        raise ValueError("images: expected labels of the pool, which stand for those one pays for")
    if images.test is None or images.test.labels is None:
        raise ValueError("images: expected a test set with labels")
    budgets = args.budgets or BUDGETS[args.scale].get(args.dataset or "")
    if not budgets:
        raise ValueError(
            f"--budgets: expected the picks of each round, as --scale {args.scale} has none for "
            f"{images.name}; found none"
        )
    for size in budgets:
        check_positive(size, "--budgets")
    check_batch_size(sum(budgets), len(images.train), "--budgets")
    _final_at(args, budgets)
    if args.trigger is not None and any(text.startswith("asvp:") for text in args.pipelines):
        raise ValueError("--trigger: expected none beside a pipeline that names its own")
    found = [read_pipeline(text) for text in dict.fromkeys(args.pipelines)]
    if args.trigger is not None:
        if "asvp" not in args.pipelines:
            raise ValueError("--trigger: expected asvp among --pipelines, found none")
        read_pipeline(f"asvp:{args.trigger}")  # as one that wants options is refused
    return tuple(budgets), list_runs(found, args.strategies, args.seeds)


def _final_at(args: argparse.Namespace, budgets: Sequence[int]) -> tuple[int, ...]:
    ends = np.cumsum(budgets).tolist()
    for count in args.final_at or ():
        if count not in ends:
            told = ", ".join(map(str, ends))
            raise ValueError(f"--final-at: expected ends of rounds, some of {told}, found {count}")
    counts = tuple(sorted(set(args.final_at or ends)))
    if counts[-1] != ends[-1]:
        raise ValueError(
            f"--final-at: expected the last round's {ends[-1]} among them, as labels beyond "
            f"{counts[-1]} would be bought for nothing"
        )
    return counts


def _check_weights(args: argparse.Namespace, encoder: LoadedEncoder) -> None:
    if encoder.about["weights"] is None and args.scale != "smoke" and not args.plan:
        raise ValueError(
            f"--weights: expected those of {encoder.name}, such as the command pretrain writes, "
            "whose random ones tell nothing"
        )


def _make_job(
    args: argparse.Namespace,
    images: Images,
    encoder: LoadedEncoder,
    budgets: tuple[int, ...],
    prepare: Prepare,
) -> Job:
    scale = SCALES[args.scale]
    recipe = "imagenet" if args.scale == "paper" and images.name == "imagenet2012" else scale.recipe
    given = argparse.Namespace(**{**vars(args), "scale": recipe, "statistics": None})
    side = images.train.load(np.zeros(1, np.int64)).shape[1]
    single, both = make_configs(given, images.name, side)
    if args.features is not None:  # there is nothing to augment
        single, both = single._replace(augment=None), LpftConfig(*map(_plain, both))
    assert images.num_classes is not None and images.test is not None
    network = ImageNetwork(
        encoder.module,
        encoder.variables,
        images.train,
        images.num_classes,
        prepare,
        ft=single,
        lpft=both,
        mesh=find_mesh(),
    )
    head = PROXY_IMAGENET if (recipe, args.head) == ("imagenet", "mlp") else HEADS[args.head]
    config = PipelineConfig(
        head=head,
        tuning=args.tuning,
        tuned_head=not args.proxy_always,
        final=lpft_until_refreshed if args.final == "rule" else args.final,
        compare=tuple(args.compare),
        save_final=False,
    )
    if args.trigger is not None:
        config = config._replace(trigger=TRIGGERS[args.trigger])
    none = np.zeros((0, 0), np.float32)
    return Job(network, images.test, none, 0.0, budgets, _final_at(args, budgets), config)


def _plain(config: FinetuneConfig) -> FinetuneConfig:
    return config._replace(augment=None)


def _open(args: argparse.Namespace, images: Images, encoder: LoadedEncoder) -> None:
    about = {
        "encoder": encoder_settings(encoder),
        "images": images.train.describe(),
        "test": None if images.test is None else images.test.describe(),
    }
    own = (*_OWN, "encoder.npz", *feature_files(FEATURES))
    open_described(args.out, about, own, resume=args.resume, overwrite=args.overwrite)


def _pretrained(args: argparse.Namespace, encoder: LoadedEncoder, images: Images) -> LoadedEncoder:
    """Pre-train the small network of the smoke scale on the pool, without labels."""
    print(f"pre-training {encoder.name} on {images.name} without labels", flush=True)
    variables = pretrain_small(encoder, images, args.out / "encoder.npz")
    about = {**encoder.about, "weights": "pre-trained on the way"}
    return encoder._replace(variables=variables, about=about)


def _title(images: Images, encoder: LoadedEncoder) -> Mapping[str, str]:
    return {
        "title": f"{images.name}, {encoder.name}",
        "encoder": str(encoder_settings(encoder)),
        "device": describe_device(),
    }
