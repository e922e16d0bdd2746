"""What the convolutional encoders are made of."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

__all__ = ["Conv", "Norm", "batch_norm", "bound_batch_norm", "check_images"]

# Variance 2 / fan-out, as ResNet and those after it start (He et al., arXiv 1502.01852).
_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

Norm = Callable[..., jax.Array]  # of channels [n, ..., c], by keyword the module's name
Pads = list[tuple[int, int]]


class Conv(nn.Module):
    """Convolve with a square kernel of odd size.

    On CPUs, XLA's own way is slow for two kinds of it. Depthwise convolutions are sums of shifted
    images there, measured 6 to 60 times as fast forward and 3 to 40 times with gradients on the
    shapes of MobileNetV2; kernels of size 1 are matrix products everywhere, up to 5 times as fast.

    The parameters are those of `nn.Conv`: ``kernel [size, size, in, features]``, for a depthwise
    convolution ``[size, size, 1, features]``, and ``bias [features]``.

    Attributes:
      features: output channels; for a depthwise convolution as many as the input has.
      size: side of the kernel.
      stride: step of the kernel, in both directions.
      depthwise: whether each channel is convolved alone.
      use_bias: whether a bias is added.
      same_padding: whether zeros are added as TensorFlow does, only as many as the last window
        needs and the odd one behind, or as PyTorch does, ``size // 2`` on every side. The two
        differ at strides above one.
      dtype: what is computed in.
    """

    features: int
    size: int = 3
    stride: int = 1
    depthwise: bool = False
    use_bias: bool = False
    same_padding: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[n, h, w, in]`` to ``[n, ceil(h / stride), ceil(w / stride), features]``."""
        channels = 1 if self.depthwise else x.shape[-1]
        shape = (self.size, self.size, channels, self.features)
        kernel = self.param("kernel", _INIT, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.same_padding:
            strides = (self.stride, self.stride)
            pads = lax.padtype_to_pads(x.shape[1:3], shape[:2], strides, "SAME")
        else:
            pads = [(self.size // 2, self.size // 2)] * 2
        if self.depthwise:
            x = _depthwise(x, kernel, self.stride, pads)
        elif self.size == 1:
            x = jnp.dot(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        else:
            x = _convolve(x, kernel, self.stride, pads)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(self.dtype)
        return x


def batch_norm(
    x: jax.Array,
    *,
    name: str,
    train: bool,
    mask: jax.Array | None,
    momentum: float,
    epsilon: float,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """Normalise channels, inside a module's ``__call__``.

    Args:
      x: ``[n, ..., c]``.
      name: of the `nn.BatchNorm`.
      train: normalise by the batch and update the running statistics; else by the latter.
      mask: ``[n]`` bool, False where an image is padding and must not count; None where all count.
      momentum: how much of the running statistics a training step keeps.
      epsilon: added to variances.
      dtype: of the result, None for that of ``x`` but float32 at least; statistics are float32 at
        least.

    Returns:
      ``[n, ..., c]``.
    """
    norm = nn.BatchNorm(
        use_running_average=not train, momentum=momentum, epsilon=epsilon, dtype=dtype, name=name
    )
    return norm(x, mask=None if mask is None else mask.reshape(-1, *[1] * (x.ndim - 1)))


def bound_batch_norm(module: Any, *, train: bool, mask: jax.Array | None) -> Norm:
    """Bind `batch_norm` to a module's ``momentum``, ``epsilon`` and ``dtype``."""
    return functools.partial(
        batch_norm,
        train=train,
        mask=mask,
        momentum=module.momentum,
        epsilon=module.epsilon,
        dtype=module.dtype,
    )


def check_images(images: jax.Array, mask: jax.Array | None, encoder: nn.Module, first: str) -> None:
    """Check what an encoder is given, inside its ``__call__``.

    Args:
      images: to be ``[n, h, w, c]``.
      mask: to be ``[n]``, or None.
      encoder: the module.
      first: name of its first convolution, whose kernel, where there is one yet, gives ``c``.

    Raises:
      ValueError: images of another shape, not floating-point numbers or of another number of
        channels than the parameters are for, or a mask of another length.
    """
    if jnp.ndim(images) != 4:
        raise ValueError(f"images: expected [n, h, w, c], found shape {jnp.shape(images)}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            "images: expected normalised floating-point numbers, as jaxal.models.preprocess "
            f"makes them, found dtype {images.dtype}"
        )
    if mask is not None and mask.shape != images.shape[:1]:
        raise ValueError(f"mask: expected shape {images.shape[:1]}, found {mask.shape}")
    kernel = encoder.variables.get("params", {}).get(first, {}).get("kernel")
    if kernel is not None and kernel.shape[2] != images.shape[3]:
        raise ValueError(
            f"images: expected {kernel.shape[2]} channels, as the encoder's parameters are for, "
            f"found shape {images.shape}"
        )


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int = 1) -> Any:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _depthwise(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Convolve each channel alone, by the way that is fast on the device at hand."""
    grouped = functools.partial(_convolve, stride=stride, pads=pads, groups=x.shape[-1])
    shifted = functools.partial(_shifted, stride=stride, pads=pads)
    return lax.platform_dependent(x, kernel, cpu=shifted, default=grouped)


def _shifted(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Add up shifted images, each times one position of the kernel."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    size = len(kernel)
    rows, columns = ((side - size) // stride * stride + 1 for side in x.shape[1:3])
    return sum(  # type: ignore[return-value]
        x[:, i : i + rows : stride, j : j + columns : stride] * kernel[i, j, 0]
        for i in range(size)
        for j in range(size)
    )
