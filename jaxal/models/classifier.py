"""An encoder and a head in one network."""

import inspect

import flax.linen as nn
import jax

from jaxal.models.heads import DenseHead

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """An encoder with a head on its features; parameters are ``{"encoder": …, "head": …}``.

    Attributes:
      encoder: from `jaxal.models.encoders`, or any module of the same signature.
      head: a module that maps features ``[n, f]`` to logits ``[n, c]``, or to a tuple that begins
        with them, as `DenseHead` does. It is given ``train`` and ``mask`` by keyword where its
        ``__call__`` names them; so `flax.linen.Dense` is one.
    """

    encoder: nn.Module
    head: nn.Module

    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        freeze_stats: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Compute logits and features.

        Args:
          images: ``[n, h, w, c]`` normalised.
          train: normalise by the batch and update the running statistics; else by the latter.
          mask: ``[n]`` bool, False where an image is padding and must not count in the batch's
            statistics; None where all count.
          freeze_stats: run the encoder as in evaluation even while the head trains, so that its
            running statistics are used and stay as they are, which is what a pre-trained encoder
            wants that is frozen or sees few images.

        Returns:
          Logits ``[n, c]`` and the encoder's features ``[n, f]``, float32.

        Raises:
          ValueError: what the encoder or the head raises, or a `DenseHead` that was made for
            another number of features.
        """
        features = self.encoder(images, train=train and not freeze_stats, mask=mask)
        if isinstance(self.head, DenseHead):
            self._check_width(self.head, features.shape[1])
        named = inspect.signature(self.head.__call__).parameters
        options = {"train": train, "mask": mask}
        out = self.head(features, **{name: x for name, x in options.items() if name in named})
        return out[0] if isinstance(out, tuple) else out, features

    def _check_width(self, head: DenseHead, width: int) -> None:
        first = "dense_0" if head.features else "output"
        layers = self.variables.get("params", {}).get("head", {})
        if first in layers and layers[first]["kernel"].shape[0] != width:
            raise ValueError(
                f"variables: expected a head on the {width} features of the encoder, "
                f"found one on {layers[first]['kernel'].shape[0]}"
            )
