"""What self-supervised training puts on an encoder and throws away after it."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxal.checks import check_positive
from jaxal.models.layers import batch_norm

__all__ = ["MLP", "Projected"]

_EPSILON = 1e-5


class MLP(nn.Module):
    """Dense layers with batch normalisation and ReLU between them.

    Attributes:
      widths: of the layers, the last being the output's.
      normalize_output: whether the output is normalised too, without a ReLU.
      momentum: how much of the running statistics a training step keeps.
      dtype: that products are computed in; parameters and statistics are float32.
    """

    widths: Sequence[int]
    normalize_output: bool = False
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Map ``[n, d]`` to ``[n, widths[-1]]`` float32; ``mask [n]`` is False for padding."""
        for width in self.widths:
            check_positive(width, "widths")
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            normalized = not last or self.normalize_output
            x = nn.Dense(width, use_bias=not normalized, dtype=self.dtype, name=f"dense_{i}")(x)
            if normalized:
                x = batch_norm(
                    x,
                    name=f"norm_{i}",
                    train=train,
                    mask=mask,
                    momentum=self.momentum,
                    epsilon=_EPSILON,
                    dtype=self.dtype,
                )
            if not last:
                x = nn.relu(x)
        return x.astype(jnp.float32)


class Projected(nn.Module):
    """What a view of an image becomes: features, projections and, with a predictor, predictions.

    Attributes:
      encoder: a module that maps images ``[n, h, w, c]`` to features ``[n, f]``.
      projector: its features' head.
      predictor: the projections' head; None for none.
    """

    encoder: Any
    projector: MLP
    predictor: MLP | None = None

    def __call__(
        self, images: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Compute features ``[n, f]``, projections ``[n, p]`` and predictions ``[n, p]`` or None.

        Args:
          images: ``[n, h, w, c]`` as the encoder wants them.
          train: normalise by the batch, and update the running statistics.
          mask: ``[n]`` bool, False for padding.
        """
        features = self.encoder(images, train=train, mask=mask)
        projections = self.projector(features, train=train, mask=mask)
        predicted = None
        if self.predictor is not None:
            predicted = self.predictor(projections, train=train, mask=mask)
        return features, projections, predicted
