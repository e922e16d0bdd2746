"""The encoders that the library knows by name."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from jaxal.checks import check_choice
from jaxal.models.conv4 import Conv4
from jaxal.models.mobilenet import MobileNetV2
from jaxal.models.preprocess import CIFAR10, CLIP, IMAGENET, Preprocessing
from jaxal.models.resnet import ResNet
from jaxal.models.vit import ViT, quick_gelu
from jaxal.models.wide_resnet import WideResNet

__all__ = ["ENCODERS", "EncoderSpec", "get_encoder"]


class EncoderSpec(NamedTuple):
    """An encoder and what its usual weights expect."""

    make: Callable[..., nn.Module]  # keyword attributes -> module
    preprocessing: Preprocessing
    num_features: int  # with no attribute changed
    description: str


_resnet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True)
_clip = functools.partial(
    ViT, pre_norm=True, patch_bias=False, activation=quick_gelu, epsilon=1e-5, projection=512
)

ENCODERS: dict[str, EncoderSpec] = {
    "conv4": EncoderSpec(
        Conv4,
        Preprocessing(84, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        1600,
        "four convolutions, as in few-shot learning on mini-ImageNet (ProtoTransfer)",
    ),
    "resnet18_cifar": EncoderSpec(
        functools.partial(ResNet, stem="cifar"),
        CIFAR10,
        512,
        "ResNet-18 with a 3×3 stem and no max-pooling, for images of 32 pixels",
    ),
    "resnet18": EncoderSpec(ResNet, IMAGENET, 512, "torchvision's ResNet-18"),
    "resnet50": EncoderSpec(
        _resnet50, IMAGENET, 2048, "torchvision's ResNet-50 (SimSiam, MoCo, BYOL-EMAN)"
    ),
    "resnet50_2x": EncoderSpec(
        functools.partial(_resnet50, width=128),
        IMAGENET,
        4096,
        "ResNet-50 of twice the width (MoCo-2X-EMAN)",
    ),
    "wrn_28_2": EncoderSpec(
        WideResNet, CIFAR10, 128, "WideResNet-28-2, as FixMatch trains it on CIFAR-10"
    ),
    "wrn_28_8": EncoderSpec(
        functools.partial(WideResNet, width=8),
        CIFAR10,
        512,
        "WideResNet-28-8, as FixMatch trains it on CIFAR-100",
    ),
    "mobilenet_v2": EncoderSpec(
        MobileNetV2, IMAGENET, 1280, "torchvision's MobileNetV2, with batch normalisation"
    ),
    "mobilenet_v2_folded": EncoderSpec(
        functools.partial(MobileNetV2, use_batch_norm=False, same_padding=True),
        # (pixel - 128) / 128; bicubic comes nearest to features that were made with it elsewhere.
        Preprocessing(224, (128 / 255,) * 3, (128 / 255,) * 3, "bicubic"),
        1280,
        "TensorFlow's MobileNetV2, batch normalisation folded into its convolutions",
    ),
    "vit_s16": EncoderSpec(ViT, IMAGENET, 384, "timm's ViT-S/16 (DINO)"),
    "vit_b16": EncoderSpec(
        functools.partial(ViT, width=768, num_heads=12), IMAGENET, 768, "timm's ViT-B/16 (DINO)"
    ),
    "clip_vit_b32": EncoderSpec(
        functools.partial(_clip, width=768, num_heads=12, patch_size=32),
        CLIP,
        512,
        "image tower of CLIP ViT-B/32",
    ),
    "clip_vit_b16": EncoderSpec(
        functools.partial(_clip, width=768, num_heads=12),
        CLIP,
        512,
        "image tower of CLIP ViT-B/16",
    ),
}


def get_encoder(name: str, **overrides: Any) -> Any:
    """Make an encoder by name.

    Its usual preprocessing is ``ENCODERS[name].preprocessing``.

    Args:
      name: key of `ENCODERS`.
      **overrides: attributes of the module that shall differ, such as ``dtype=jnp.bfloat16``.

    Returns:
      The Flax module.

    Raises:
      ValueError: no such encoder, or an attribute that it does not have.
    """
    check_choice(name, "name", ENCODERS)
    make = ENCODERS[name].make
    attributes = {field.name for field in dataclasses.fields(make())} - {"parent", "name"}
    for attribute in overrides:
        if attribute not in attributes:
            raise ValueError(
                f"{attribute}: expected an attribute of {name}, one of "
                f"{', '.join(sorted(attributes))}"
            )
    return make(**overrides)
