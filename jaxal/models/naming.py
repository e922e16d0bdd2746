"""What published files of weights call the parameters of an encoder."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from jaxal.models.conv4 import Conv4
from jaxal.models.mobilenet import MobileNetV2
from jaxal.models.resnet import ResNet
from jaxal.models.vit import ViT
from jaxal.models.wide_resnet import WideResNet

__all__ = ["NAMINGS", "Naming", "VariablePath"]

# Of a parameter or a statistic in its collection: ("conv1", "kernel").
VariablePath = tuple[str, ...]


class Naming(NamedTuple):
    """How one source of weights names and lays out what an encoder holds."""

    encoder: type[nn.Module]
    source: Callable[
        [Any, VariablePath], str
    ]  # of an encoder and a path: the name, without a prefix
    prefixes: tuple[str, ...] = ("",)  # what files put before names, in the order they are tried
    ignored: str = r"$."  # regular expression: starts of names that are known and not needed
    torch_layout: bool = True  # kernels OIHW, and [out, in]; else as in Flax
    requires: Mapping[str, object] = {}  # attributes without which the same names mean another net


_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# The first of a pair is the network that its authors evaluate: the trained one before its moving
# average, but of DINO the teacher, which is the student's.
_SELF_SUPERVISED = (
    "module.encoder.",  # SimSiam
    "module.encoder_q.",  # MoCo v1 and v2, MoCo-EMAN
    "module.encoder_k.",
    "module.online_net.backbone.",  # BYOL-EMAN
    "module.target_net.backbone.",
    "module.main.backbone.",  # FixMatch-EMAN
    "module.ema.backbone.",
    "module.base_encoder.",  # MoCo v3
    "module.momentum_encoder.",
    "backbone.",  # DINO: the teacher
    "module.backbone.",  # and the student
)
_PLAIN = ("", "module.")  # the second from data-parallel training


def _torch(rename: Callable[[Any, str], str], encoder: Any, path: VariablePath) -> str:
    """Rename each module on the path, and the parameter as PyTorch does."""
    *modules, leaf = path
    return ".".join([*(rename(encoder, name) for name in modules), _TORCH_LEAVES[leaf]])


def _resnet(encoder: ResNet, name: str) -> str:
    renamed = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}
    return renamed.get(name, name.replace("_", "."))  # layer1_0


def _wide_resnet(encoder: WideResNet, name: str) -> str:
    return "convShortcut" if name == "shortcut" else name.replace("_", ".layer.")  # block1_0


def _mobilenet(encoder: MobileNetV2, path: VariablePath) -> str:
    *modules, leaf = path
    layer, kind = modules[-1].split("_")
    offset = 1 if kind == "bn" else 0
    if layer == "stem":
        name = f"features.0.{offset}"
    elif layer == "last":
        name = f"features.{len(encoder.blocks) + 1}.{offset}"
    else:
        block = int(modules[0].removeprefix("block"))
        expands = encoder.blocks[block - 1][0] != 1
        place = {"expand": 0, "depthwise": int(expands), "project": 1 + int(expands)}[layer]
        # Convolutions that are activated have a sub-module of their own.
        inner = f"{place + offset}" if layer == "project" else f"{place}.{offset}"
        name = f"features.{block}.conv.{inner}"
    return f"{name}.{_TORCH_LEAVES[leaf]}"


def _folded_mobilenet(encoder: MobileNetV2, path: VariablePath) -> str:
    """Number the convolutions as they come."""
    order = ["stem_conv"]
    for i, (expansion, *_) in enumerate(encoder.blocks):
        layers = ("expand", "depthwise", "project")[0 if expansion != 1 else 1 :]
        order += [f"block{i + 1}/{layer}_conv" for layer in layers]
    order.append("last_conv")
    name = "/".join(path[:-1])
    return f"conv{order.index(name):02d}/{path[-1]}" if name in order else "/".join(path)


def _timm(encoder: ViT, path: VariablePath) -> str:
    if len(path) == 1:
        return path[0]  # cls_token, pos_embed
    inner = {
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
        "patch_embed": "patch_embed.proj",
    }
    return _torch(lambda _, name: inner.get(name, name.replace("block", "blocks.")), encoder, path)


def _clip(encoder: ViT, path: VariablePath) -> str:
    special = {
        ("cls_token",): "class_embedding",
        ("pos_embed",): "positional_embedding",
        ("projection",): "proj",
    }
    inner = {
        "patch_embed": "conv1",
        "norm_pre": "ln_pre",
        "norm": "ln_post",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "proj": "attn.out_proj",
        "fc1": "mlp.c_fc",
        "fc2": "mlp.c_proj",
    }

    def rename(_: ViT, name: str) -> str:
        return inner.get(name, name.replace("block", "transformer.resblocks."))

    if path in special:
        return special[path]
    if path[-2] == "qkv":
        name = _torch(rename, encoder, (path[0], path[-1]))
        head, _, leaf = name.rpartition(".")
        return f"{head}.attn.in_proj_{leaf}"
    return _torch(rename, encoder, path)


def _conv4(encoder: Conv4, name: str) -> str:
    return f"{name[-1]}.{0 if name.startswith('conv') else 1}"


NAMINGS: dict[str, Naming] = {
    # torchvision, and the self-supervised methods that train its networks
    "torchvision_resnet": Naming(
        ResNet,
        functools.partial(_torch, _resnet),
        (*_PLAIN, *_SELF_SUPERVISED),
        ignored=r"fc\.",
    ),
    "torchvision_mobilenet_v2": Naming(
        MobileNetV2,
        _mobilenet,
        (*_PLAIN, *_SELF_SUPERVISED),
        ignored=r"classifier\.",
        requires={"use_batch_norm": True, "same_padding": False},
    ),
    # convNN/kernel and convNN/bias in the order of the network, exported by TensorFlow
    "folded_mobilenet_v2": Naming(
        MobileNetV2,
        _folded_mobilenet,
        ignored=r"spec$",
        torch_layout=False,
        requires={"use_batch_norm": False, "same_padding": True},
    ),
    "torchssl_wide_resnet": Naming(
        WideResNet,
        functools.partial(_torch, _wide_resnet),
        (*_PLAIN, *_SELF_SUPERVISED),
        ignored=r"fc\.|rot_classifier\.|block[23]\.layer\.0\.bn1\.",
        requires={"activate_transitions": False},
    ),
    # timm, DINO and MoCo v3
    "timm_vit": Naming(
        ViT,
        _timm,
        (*_PLAIN, *_SELF_SUPERVISED),
        ignored=r"head\.",
        requires={"pre_norm": False, "projection": None},
    ),
    "clip_vit": Naming(
        ViT,
        _clip,
        ("visual.", "module.visual.", ""),
        requires={"pre_norm": True},
    ),
    "prototransfer_conv4": Naming(
        Conv4,
        functools.partial(_torch, _conv4),
        ("encoder.", "module.encoder.", ""),
    ),
    # convN/kernel, convN/bias, and bnN/scale, bias, mean and var
    "flax_conv4": Naming(Conv4, lambda _, path: "/".join(path), torch_layout=False),
}
