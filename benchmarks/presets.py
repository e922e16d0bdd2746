"""What the command ntkcpl runs by default on a data set, and what ``--preset paper`` makes of it.

Published with NTKCPL (arXiv 2306.04099), for all data sets: a Linear-BatchNorm-ReLU-Linear head as
wide as the features (2048-4096-100 on ImageNet-100) on raw features, the kernel of a head so wide,
the zero-one risk of the whole pool, clusters of the head's hidden activations that are split on,
floor((labels + picks) / 2) of them and 100 at the most (300 were used too).

Ours: all picks a round, the encoders and image sizes, how the head is trained (`jaxal.train.head`),
by what clusters are split, the kernel's scale, ridge and lack of batch normalisation, and that a
random 4,000 of a larger pool are the candidates.
"""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxal.models.encoders import ENCODERS

__all__ = ["BUDGETS", "PRESETS", "Preset", "apply_preset", "describe_presets", "preset_note"]

# Ours: picks a round.
BUDGETS: dict[str, tuple[int, ...]] = {
    "digits": (10, 10, 10, 10, 20, 20, 20, 50, 50),
    "cifar10": (10, 10, 20, 20, 40, 100, 100, 200, 500),
    "cifar100": (100,) * 10,
    "svhn": (10, 10, 20, 20, 40, 100, 100, 200, 500),
    "pets": (37,) * 10,
    "imagenet100": (100,) * 10,
}


class Preset(NamedTuple):
    """What ``--preset paper`` chooses on one data set."""

    encoder: str  # ours; of `jaxal.models.encoders.ENCODERS`
    size: int  # ours; its images' side
    num_classes: int
    hidden: int | None = None  # width of the head and of its kernel; None: the encoder's
    max_clusters: int = 100


PRESETS = {
    "cifar10": Preset("resnet18_cifar", 32, 10),
    "cifar100": Preset("resnet18_cifar", 32, 100),
    "svhn": Preset("resnet18_cifar", 32, 10),
    "imagenet100": Preset("resnet50", 224, 100, hidden=4096),
    "pets": Preset("resnet50", 224, 37),
}
_OPTIONS: dict[str, Any] = {
    "risk": "zero_one",
    "weighting": "uniform",
    "cluster_features": "al",
    "refinement": "split",
    "center": False,
}


def apply_preset(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what ``--preset`` chooses and the command line leaves open.

    Raises:
      ValueError: a preset without a data set that it has something for.
    """
    if getattr(args, "preset", None) is None:
        return args
    if args.dataset not in PRESETS:
        raise ValueError(
            f"--preset: expected --dataset of {', '.join(PRESETS)} beside it, found {args.dataset}"
        )
    preset = PRESETS[args.dataset]
    chosen = {
        "head": "mlp" if preset.hidden is None else f"mlp{preset.hidden}",
        "scale": False,
    }
    if not (args.encoder or args.features or args.test_features):
        chosen |= {"encoder": preset.encoder, "size": preset.size}
    left = {name: value for name, value in chosen.items() if getattr(args, name) is None}
    options = {**_OPTIONS, "kernel_width": preset.hidden, "max_clusters": preset.max_clusters}
    return argparse.Namespace(**{**vars(args), **left, "preset_options": options})


def describe_presets() -> str:
    """Tabulate the presets for the help."""
    lines = [("data set", "encoder", "pixels", "head", "clusters", "picks a round")]
    for name, preset in PRESETS.items():
        features = ENCODERS[preset.encoder].num_features
        head = f"{features}-{preset.hidden or features}-{preset.num_classes}"
        picks = " ".join(map(str, BUDGETS[name]))
        row = (name, preset.encoder, str(preset.size), head, str(preset.max_clusters), picks)
        lines.append(row)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def preset_note(options: Mapping[str, Any] | None) -> str:
    """Say in a report what of a preset is published; nothing without one."""
    if options is None:
        return ""
    return (
        "Preset paper, but for what the command line says: the head's layers, raw features, the "
        "risk, what is clustered and how many clusters there are at the most are the NTKCPL "
        "paper's; picks a round, encoder and image size, how the head is trained, by what clusters "
        "are split, the kernel's scale, ridge and lack of batch normalisation, and the random "
        "4,000 candidates of a larger pool are ours."
    )
