"""The sizes of the command asvp: what it runs where the command line says nothing else."""

import argparse
from typing import NamedTuple

from benchmarks.scales import Origin, fill_origin
from jaxal.train.network import METHODS

__all__ = ["BUDGETS", "SCALES", "Scale", "fill_in"]

_NAMES = {"confidence": "least-confidence"}


class Scale(NamedTuple):
    """What a scale stands for, where the command line says nothing else."""

    origin: Origin
    recipe: str  # of `finetune_runs.SCALES`
    strategies: tuple[str, ...]
    seeds: int


_PAPER = ("margin", "confidence", "badge", "activeft")
SCALES = {
    "smoke": Scale(Origin("digits", "conv4", 16, width=32), "small", ("margin",), 1),
    "cpu": Scale(Origin("cifar10", "conv4", 32), "small", ("margin", "badge"), 3),
    "paper": Scale(Origin("cifar10", "resnet50", 224), "cifar10", _PAPER, 3),
}
BUDGETS: dict[str, dict[str, tuple[int, ...]]] = {
    "smoke": {"digits": (20, 20, 40, 80)},
    "cpu": {
        "digits": (20, 20, 20, 40, 40, 60, 100),
        "cifar10": (100, 100, 200, 200, 400, 500, 500),
    },
    # Published for ImageNet and CIFAR-10; the others are ours.
    "paper": {
        "cifar10": (200,) * 10,
        "cifar100": (1000,) * 10,
        "oxford_iiit_pet": (37,) * 10,
        "imagenet2012": (10_000,) * 10 + (50_000,) * 6,
    },
}


def fill_in(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what the scale says."""
    scale = SCALES[args.scale]
    given = fill_origin(args, scale.origin)
    if args.seeds is None:
        given["seeds"] = scale.seeds
    names = [_NAMES.get(name, name) for name in args.strategies or scale.strategies]
    given["strategies"] = list(dict.fromkeys([*names, "random"]))
    if args.final is None:
        given["final"] = "ft" if args.scale == "paper" else "lpft"
    if args.compare is None:
        given["compare"] = list(METHODS) if args.scale == "smoke" else []
    return argparse.Namespace(**given)
