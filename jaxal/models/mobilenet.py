"""MobileNetV2."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxal.models.layers import Conv, Norm, bound_batch_norm, check_images

__all__ = ["MobileNetV2"]

# The paper's table 2: expansion, channels, repeats and first stride of each stage.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

Layer = Callable[..., jax.Array]


class MobileNetV2(nn.Module):
    """A MobileNetV2 without its classifier (arXiv 1801.04381), of width 1.0 by default.

    Where batch normalisation has been folded into the convolutions, as in networks exported for
    devices, ``use_batch_norm=False`` gives them a bias instead.

    Attributes:
      stages: expansion, channels, repeats and first stride of each stage of blocks.
      stem_features: channels of the first convolution.
      num_features: channels of the last convolution: the features.
      use_batch_norm: whether convolutions are normalised, or have a bias.
      same_padding: whether convolutions are padded as TensorFlow does, or as PyTorch does.
      momentum: how much of the running statistics a training step keeps.
      epsilon: added to variances.
      dtype: what is computed in; parameters, statistics and features are float32.
    """

    stages: Sequence[tuple[int, int, int, int]] = _STAGES
    stem_features: int = 32
    num_features: int = 1280
    use_batch_norm: bool = True
    same_padding: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @property
    def blocks(self) -> tuple[tuple[int, int, int], ...]:
        """List expansion, channels and stride of every block."""
        return tuple(
            (expansion, features, stride if i == 0 else 1)
            for expansion, features, repeats, stride in self.stages
            for i in range(repeats)
        )

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Extract features, the mean over positions of the last convolution.

        Args:
          images: ``[n, h, w, c]`` normalised.
          train: normalise by the batch and update the running statistics; else by the latter.
          mask: ``[n]`` bool, False where an image is padding and must not count in the batch's
            statistics; None where all count.

        Returns:
          ``[n, num_features]`` float32.

        Raises:
          ValueError: images of another shape or number of channels or not floating-point, or a
            mask of another length.
        """
        check_images(images, mask, self, "stem_conv")
        conv = functools.partial(
            Conv,
            use_bias=not self.use_batch_norm,
            same_padding=self.same_padding,
            dtype=self.dtype,
        )
        norm = bound_batch_norm(self, train=train, mask=mask)
        layer = functools.partial(_layer, conv, norm if self.use_batch_norm else None)
        x = layer(images, "stem", self.stem_features, stride=2)
        for i, block in enumerate(self.blocks):
            x = _InvertedResidual(*block, name=f"block{i + 1}")(x, layer)
        x = layer(x, "last", self.num_features, size=1)
        return x.astype(jnp.float32).mean((1, 2))


class _InvertedResidual(nn.Module):
    expansion: int
    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, layer: Layer) -> jax.Array:
        y, channels = x, x.shape[-1] * self.expansion
        if self.expansion != 1:
            y = layer(y, "expand", channels, size=1)
        y = layer(y, "depthwise", channels, stride=self.stride, depthwise=True)
        y = layer(y, "project", self.features, size=1, activate=False)
        return x + y if x.shape == y.shape else y


def _layer(
    conv: Callable[..., Conv],
    norm: Norm | None,
    x: jax.Array,
    name: str,
    features: int,
    *,
    activate: bool = True,
    **options: int,
) -> jax.Array:
    """Convolve, normalise and activate, inside a module's ``__call__``."""
    x = conv(features, name=f"{name}_conv", **options)(x)
    x = x if norm is None else norm(x, name=f"{name}_bn")
    return jax.nn.relu6(x) if activate else x
