"""Residual networks."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxal.checks import check_choice
from jaxal.models.layers import Conv, Norm, bound_batch_norm, check_images

__all__ = ["ResNet"]

Stem = Literal["imagenet", "cifar"]


class ResNet(nn.Module):
    """A ResNet without its classifier ("Deep Residual Learning", arXiv 1512.03385).

    As torchvision builds it: in a bottleneck block the 3×3 convolution has the stride ("v1.5").
    The defaults are ResNet-18; ResNet-50 is ``stage_sizes=(3, 4, 6, 3), bottleneck=True``, and
    twice the ``width`` gives the 2× networks of self-supervised learning.

    Attributes:
      stage_sizes: blocks of each stage.
      bottleneck: whether blocks are 1×1, 3×3 and 1×1 convolutions, or two of 3×3.
      width: channels of the stem; each stage has twice those of the one before.
      stem: "imagenet", a 7×7 convolution of stride 2 and a max-pooling of stride 2, or "cifar", a
        3×3 convolution, for images of about 32 pixels.
      momentum: how much of the running statistics a training step keeps.
      epsilon: added to variances.
      dtype: what is computed in; parameters, statistics and features are float32.
    """

    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    bottleneck: bool = False
    width: int = 64
    stem: Stem = "imagenet"
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @property
    def num_features(self) -> int:
        """Count the features: 512 for ResNet-18, 2048 for ResNet-50."""
        block = _BottleneckBlock if self.bottleneck else _BasicBlock
        return self.width * 2 ** (len(self.stage_sizes) - 1) * block.expansion

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Extract features, the mean over positions of the last stage.

        Args:
          images: ``[n, h, w, c]`` normalised.
          train: normalise by the batch and update the running statistics; else by the latter.
          mask: ``[n]`` bool, False where an image is padding and must not count in the batch's
            statistics; None where all count.

        Returns:
          ``[n, num_features]`` float32.

        Raises:
          ValueError: images of another shape or number of channels or not floating-point, a mask
            of another length, or a stem that is not one of the two.
        """
        check_images(images, mask, self, "conv1")
        check_choice(self.stem, "stem", Stem)
        norm = bound_batch_norm(self, train=train, mask=mask)
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = Conv(self.width, size=size, stride=stride, dtype=self.dtype, name="conv1")(images)
        x = nn.relu(norm(x, name="bn1"))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        block = _BottleneckBlock if self.bottleneck else _BasicBlock
        for stage, blocks in enumerate(self.stage_sizes):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"layer{stage + 1}_{i}"
                x = block(self.width << stage, stride, self.dtype, name=name)(x, norm)
        return x.astype(jnp.float32).mean((1, 2))


class _BasicBlock(nn.Module):
    features: int
    stride: int
    dtype: DTypeLike

    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm) -> jax.Array:
        conv = functools.partial(Conv, dtype=self.dtype)
        y = conv(self.features, stride=self.stride, name="conv1")(x)
        y = nn.relu(norm(y, name="bn1"))
        y = norm(conv(self.features, name="conv2")(y), name="bn2")
        return nn.relu(y + _shortcut(x, self.features, self.stride, conv, norm))


class _BottleneckBlock(nn.Module):
    features: int
    stride: int
    dtype: DTypeLike

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm) -> jax.Array:
        conv = functools.partial(Conv, dtype=self.dtype)
        widened = self.features * self.expansion
        y = nn.relu(norm(conv(self.features, size=1, name="conv1")(x), name="bn1"))
        y = conv(self.features, stride=self.stride, name="conv2")(y)
        y = nn.relu(norm(y, name="bn2"))
        y = norm(conv(widened, size=1, name="conv3")(y), name="bn3")
        return nn.relu(y + _shortcut(x, widened, self.stride, conv, norm))


def _shortcut(
    x: jax.Array, features: int, stride: int, conv: Callable[..., Conv], norm: Norm
) -> jax.Array:
    """Give ``x``, projected where the block changes its shape."""
    if stride == 1 and x.shape[-1] == features:
        return x
    x = conv(features, size=1, stride=stride, name="downsample_conv")(x)
    return norm(x, name="downsample_bn")
