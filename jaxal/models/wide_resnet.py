"""Wide residual networks, as semi-supervised learning uses them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxal.models.layers import Conv, Norm, bound_batch_norm, check_images

__all__ = ["WideResNet"]

_SLOPE = 0.1


class WideResNet(nn.Module):
    """A WideResNet without its classifier ("Wide Residual Networks", arXiv 1605.07146).

    Ours follows FixMatch (arXiv 2001.07685) and TorchSSL (FlexMatch, arXiv 2110.08263) rather than
    the paper: leaky ReLU of slope 0.1, convolutions with a bias, a batch normalisation that keeps
    0.999 of its running statistics, with epsilon 1e-3, and a first block whose shortcut is
    activated too. The defaults are WideResNet-28-2.

    Attributes:
      depth: layers, four more than a multiple of six.
      width: widening factor.
      base_features: channels of the stem; the groups have 1, 2 and 4 times this times ``width``.
      activate_transitions: whether the first blocks of the second and the third group normalise
        and activate what they convolve, as FixMatch does. TorchSSL convolves it as it is there (it
        computes the activation and drops it), so its weights need False.
      momentum: how much of the running statistics a training step keeps.
      epsilon: added to variances.
      dtype: what is computed in; parameters, statistics and features are float32.
    """

    depth: int = 28
    width: int = 2
    base_features: int = 16
    activate_transitions: bool = True
    momentum: float = 0.999
    epsilon: float = 1e-3
    dtype: DTypeLike = jnp.float32

    @property
    def num_features(self) -> int:
        """Count the features: 128 for WideResNet-28-2, 512 for WideResNet-28-8."""
        return 4 * self.base_features * self.width

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Extract features, the mean over positions of the last group.

        Args:
          images: ``[n, h, w, c]`` normalised, of about 32 pixels.
          train: normalise by the batch and update the running statistics; else by the latter.
          mask: ``[n]`` bool, False where an image is padding and must not count in the batch's
            statistics; None where all count.

        Returns:
          ``[n, num_features]`` float32.

        Raises:
          ValueError: images of another shape or number of channels or not floating-point, a mask
            of another length, or a depth that no network has.
        """
        check_images(images, mask, self, "conv1")
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(
                f"depth: expected 4 more than a multiple of 6, at least 10, found {self.depth}"
            )
        norm = bound_batch_norm(self, train=train, mask=mask)
        x = Conv(self.base_features, use_bias=True, dtype=self.dtype, name="conv1")(images)
        for group in range(3):
            features = self.base_features * self.width << group
            for i in range((self.depth - 4) // 6):
                x = _Block(
                    features,
                    stride=2 if group > 0 and i == 0 else 1,
                    activate=i > 0 or group == 0 or self.activate_transitions,
                    activate_shortcut=i == 0 and group == 0,
                    dtype=self.dtype,
                    name=f"block{group + 1}_{i}",
                )(x, norm)
        x = nn.leaky_relu(norm(x, name="bn1"), _SLOPE)
        return x.astype(jnp.float32).mean((1, 2))


class _Block(nn.Module):
    features: int
    stride: int
    activate: bool  # what is convolved
    activate_shortcut: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm) -> jax.Array:
        conv = functools.partial(Conv, use_bias=True, dtype=self.dtype)
        y = nn.leaky_relu(norm(x, name="bn1"), _SLOPE) if self.activate else x
        x = y if self.activate_shortcut and x.shape[-1] != self.features else x
        y = conv(self.features, stride=self.stride, name="conv1")(y)
        y = nn.leaky_relu(norm(y, name="bn2"), _SLOPE)
        y = conv(self.features, name="conv2")(y)
        if x.shape[-1] != self.features:
            x = conv(self.features, size=1, stride=self.stride, name="shortcut")(x)
        return x + y
