"""Dense heads on top of features.

Networks here are Flax Linen modules. Flax recommends NNX for new code, but a Linen module is a
stateless description whose variables are passed in by collection, so ``module.apply`` already is
the pure function on arrays that the rest of the library works on: parameters that a kernel
differentiates and batch statistics that it must not stay apart without splitting and merging.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.typing import ArrayLike

from jaxal.checks import check_positive
from jaxal.kernels.dense import Activation, BatchNormStats, DenseLayer
from jaxal.models.layers import batch_norm

__all__ = ["DenseHead", "frozen_apply", "head_layers"]


class DenseHead(nn.Module):
    """Hidden layers of dense, batch normalisation and activation, then a dense output layer.

    Attributes:
      features: widths of the hidden layers; none gives a linear head.
      num_outputs: number of classes.
      activation: elementwise, after every hidden layer.
      use_bias: whether dense layers have a bias.
      use_batch_norm: whether hidden layers are normalised.
      momentum: how much of the running statistics a training step keeps.
      epsilon: added to variances.
    """

    features: Sequence[int]
    num_outputs: int
    activation: Activation = nn.relu
    use_bias: bool = True
    use_batch_norm: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Compute logits and what the output layer sees.

        Args:
          x: ``[n, d]`` features.
          train: normalise by the batch and update the running statistics; else by the latter.
          mask: ``[n]`` bool, False where a row is padding and must not count in the batch's
            statistics; None where all count.

        Returns:
          Logits ``[n, c]``, and hidden activations ``[n, w]``, ``x`` itself for a linear head.

        Raises:
          ValueError: a width below one, or a mask of another length.
        """
        for width in (*self.features, self.num_outputs):
            check_positive(width, "features and num_outputs")
        if mask is not None and mask.shape != x.shape[:1]:
            raise ValueError(f"mask: expected shape {x.shape[:1]}, found {mask.shape}")
        for i, width in enumerate(self.features):
            x = nn.Dense(width, use_bias=self.use_bias, name=f"dense_{i}")(x)
            if self.use_batch_norm:
                x = batch_norm(
                    x,
                    name=f"norm_{i}",
                    train=train,
                    mask=mask,
                    momentum=self.momentum,
                    epsilon=self.epsilon,
                )
            x = self.activation(x)
        return nn.Dense(self.num_outputs, use_bias=self.use_bias, name="output")(x), x


def head_layers(head: DenseHead, variables: Mapping[str, Any]) -> tuple[DenseLayer, ...]:
    """Describe a head to the kernels, which know nothing of Flax.

    Args:
      head: the module.
      variables: its ``params`` and, with batch normalisation, ``batch_stats``.

    Returns:
      One `DenseLayer` a hidden layer and one for the output.

    Raises:
      ValueError: a collection or a layer is missing.
    """
    layers = []
    for i in range(len(head.features)):
        dense = _entry(variables, "params", f"dense_{i}")
        norm = None
        if head.use_batch_norm:
            affine = _entry(variables, "params", f"norm_{i}")
            stats = _entry(variables, "batch_stats", f"norm_{i}")
            norm = BatchNormStats(
                stats["mean"], stats["var"], affine["scale"], affine["bias"], head.epsilon
            )
        layers.append(DenseLayer(dense["kernel"], dense.get("bias"), norm, head.activation))
    output = _entry(variables, "params", "output")
    return (*layers, DenseLayer(output["kernel"], output.get("bias")))


def frozen_apply(
    module: nn.Module, variables: Mapping[str, Any], **kwargs: Any
) -> tuple[Callable[[Any, ArrayLike], jax.Array], Any]:
    """Part a module into a pure function of its parameters and these parameters.

    Every other collection, batch statistics above all, is held fixed, which is what
    `jaxal.empirical_ntk` needs::

        kernel = jaxal.empirical_ntk(*frozen_apply(module, variables), x)

    Args:
      module: any Flax Linen module.
      variables: its collections.
      **kwargs: passed to the module's ``__call__``; choose evaluation mode here where it is not the
        module's default, as by ``train=False``.

    Returns:
      ``apply``, ``(params, x [n, ...]) -> [n, o]``, the first output where the module gives
      several; and ``params``.

    Raises:
      ValueError: ``variables`` has no ``params``.
    """
    if "params" not in variables:
        raise ValueError(f"variables: expected a collection 'params', found {list(variables)}")
    fixed = {name: variables[name] for name in variables if name != "params"}

    def apply(params: Any, x: ArrayLike) -> jax.Array:
        out = module.apply({"params": params, **fixed}, x, **kwargs)
        return out[0] if isinstance(out, tuple) else out

    return apply, variables["params"]


def _entry(variables: Mapping[str, Any], collection: str, name: str) -> Mapping[str, Any]:
    try:
        return variables[collection][name]
    except KeyError:
        raise ValueError(f"variables: expected {collection!r} to hold {name!r}") from None
