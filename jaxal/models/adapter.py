"""A layer on features that were computed before, in place of an encoder."""

import flax.linen as nn
import jax

__all__ = ["Adapter"]


class Adapter(nn.Module):
    """A residual layer that begins as the identity: features ``[n, d]`` to features ``[n, d]``.

    Attributes:
      width: of its hidden layer; None for that of the features.
    """

    width: int | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Add to the features what they are mapped to."""
        hidden = nn.relu(nn.Dense(self.width or x.shape[1], name="hidden")(x))
        return x + nn.Dense(x.shape[1], kernel_init=nn.initializers.zeros, name="output")(hidden)
