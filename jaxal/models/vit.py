"""Vision transformers."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxal.models.layers import check_images

__all__ = ["ViT", "exact_gelu", "quick_gelu"]

_INIT = nn.initializers.truncated_normal(0.02)


def exact_gelu(x: jax.Array) -> jax.Array:
    """Multiply by the normal distribution function: GELU (arXiv 1606.08415), not approximated."""
    return jax.nn.gelu(x, approximate=False)


def quick_gelu(x: jax.Array) -> jax.Array:
    """Multiply by the logistic function of 1.702 x, GELU as CLIP approximates it."""
    return x * jax.nn.sigmoid(1.702 * x)


class ViT(nn.Module):
    """A vision transformer whose features are those of its class token.

    The network of "An Image is Worth 16x16 Words" (arXiv 2010.11929) as timm and DINO build it,
    without classifier: layer normalisation before each half of a block and at the end. The
    defaults are ViT-S/16. CLIP's image tower (arXiv 2103.00020) is the same with ``pre_norm``,
    ``patch_bias=False``, `quick_gelu`, ``epsilon=1e-5`` and a ``projection``.

    Attributes:
      image_size: side of the images that the position embeddings were learned for.
      patch_size: side of a patch.
      width: of the embeddings.
      depth: number of blocks.
      num_heads: heads of the attention, which divide the width (MoCo v3 has 12 in ViT-S).
      mlp_ratio: hidden units of each block's perceptron, in widths.
      pre_norm: whether embeddings are normalised before the first block.
      patch_bias: whether the embedding of patches has a bias.
      projection: outputs of a linear layer without bias behind the last normalisation; None for
        no such layer.
      activation: of the perceptrons.
      epsilon: added to variances.
      dtype: what is computed in; parameters and features are float32.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: int = 4
    pre_norm: bool = False
    patch_bias: bool = True
    projection: int | None = None
    activation: Callable[[jax.Array], jax.Array] = exact_gelu
    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @property
    def num_features(self) -> int:
        """Count the features: the width, or the outputs of the projection."""
        return self.width if self.projection is None else self.projection

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Extract features.

        At another size than ``image_size`` the position embeddings are resized bicubically, with
        antialiasing, as timm does.

        Args:
          images: ``[n, h, w, c]`` normalised, their sides multiples of the patch size.
          train: changes nothing, since neither dropout nor batch statistics are used.
          mask: ``[n]`` bool; changes nothing, since images do not see one another.

        Returns:
          ``[n, num_features]`` float32.

        Raises:
          ValueError: images of another shape or number of channels or not floating-point, a mask
            of another length, or sizes that do not divide one another.
        """
        check_images(images, mask, self, "patch_embed")
        self._check_sizes(images.shape)
        patch = self.patch_size
        norm = functools.partial(_layer_norm, epsilon=self.epsilon, dtype=self.dtype)
        x = nn.Conv(
            self.width,
            (patch, patch),
            strides=patch,
            padding="VALID",
            use_bias=self.patch_bias,
            dtype=self.dtype,
            kernel_init=_INIT,
            name="patch_embed",
        )(images)
        n, *grid, width = x.shape
        token = self.param("cls_token", _INIT, (width,)).astype(self.dtype)
        token = jnp.broadcast_to(token, (n, 1, width))
        x = jnp.concatenate([token, x.reshape(n, -1, width)], axis=1)
        x = x + self._positions(*grid).astype(self.dtype)
        if self.pre_norm:
            x = norm("norm_pre")(x)
        for i in range(self.depth):
            x = _Block(
                self.num_heads,
                self.mlp_ratio * width,
                self.activation,
                self.epsilon,
                self.dtype,
                name=f"block{i}",
            )(x)
        x = norm("norm")(x[:, 0])
        if self.projection is not None:
            projection = self.param("projection", _INIT, (width, self.projection))
            x = x @ projection.astype(self.dtype)
        return x.astype(jnp.float32)

    def _check_sizes(self, shape: tuple[int, ...]) -> None:
        patch = self.patch_size
        if self.image_size % patch:
            raise ValueError(
                f"image_size: expected a multiple of the patch size {patch}, "
                f"found {self.image_size}"
            )
        if shape[1] % patch or shape[2] % patch:
            raise ValueError(
                f"images: expected sides that are multiples of the patch size {patch}, "
                f"found shape {shape}"
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of the width {self.width}, found {self.num_heads}"
            )

    def _positions(self, rows: int, columns: int) -> jax.Array:
        """Give the position embeddings ``[1 + rows · columns, width]``, resized where need be."""
        side = self.image_size // self.patch_size
        learned = self.param("pos_embed", _INIT, (1 + side * side, self.width))
        if (rows, columns) == (side, side):
            return learned
        token, patches = learned[:1], learned[1:].reshape(side, side, -1)
        patches = jax.image.resize(patches, (rows, columns, self.width), "cubic", antialias=True)
        return jnp.concatenate([token, patches.reshape(-1, self.width)])


class _Block(nn.Module):
    num_heads: int
    hidden: int
    activation: Callable[[jax.Array], jax.Array]
    epsilon: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=_INIT)
        norm = functools.partial(_layer_norm, epsilon=self.epsilon, dtype=self.dtype)
        n, tokens, width = x.shape
        y = dense(3 * width, name="qkv")(norm("norm1")(x))
        query, key, value = jnp.moveaxis(y.reshape(n, tokens, 3, self.num_heads, -1), 2, 0)
        y = jax.nn.dot_product_attention(query, key, value).reshape(n, tokens, width)
        x = x + dense(width, name="proj")(y)
        y = self.activation(dense(self.hidden, name="fc1")(norm("norm2")(x)))
        return x + dense(width, name="fc2")(y)


def _layer_norm(name: str, *, epsilon: float, dtype: DTypeLike) -> nn.LayerNorm:
    # The fast variance loses digits where the mean is large, as it is in trained transformers.
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)
