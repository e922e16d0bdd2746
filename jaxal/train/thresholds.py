"""Which pseudo-labels are sure enough to train on: FixMatch, FlexMatch and FreeMatch.

Each rule gives a threshold for every class, and what it remembers of the batch: pure functions of
one signature, ``(memory, probs, rows, mask, *, cutoff, decay) -> (thresholds, memory)``.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "RULES",
    "Memory",
    "Method",
    "Rule",
    "fairness",
    "fixmatch",
    "flexmatch",
    "flexmatch_thresholds",
    "freematch",
    "freematch_thresholds",
    "init_memory",
    "place",
]

Method = Literal["fixmatch", "flexmatch", "freematch"]

_TINY = 1e-12  # within logarithms


class Memory(NamedTuple):
    """What is kept from step to step of a semi-supervised training."""

    used: jax.Array  # [n] int32, the class each sample was last trained on; -1: never
    confident: jax.Array  # [n] int32, FlexMatch: that last predicted at the cutoff; -1: never
    mean_confidence: jax.Array  # () float32, FreeMatch: moving mean of the largest probability
    mean_probs: jax.Array  # [c] float32, FreeMatch: moving mean of the probabilities
    histogram: jax.Array  # [c] float32, FreeMatch: moving shares of the predicted classes


# (memory, probs [m, c], rows [m], mask [m], *, cutoff, decay) -> (thresholds [c], memory)
Rule = Callable[..., tuple[jax.Array, Memory]]


def init_memory(num_samples: int, num_classes: int) -> Memory:
    """Begin with nothing predicted, and as FreeMatch does with all classes alike.

    Args:
      num_samples: n, of the pool.
      num_classes: c.
    """
    never = jnp.full(num_samples, -1, jnp.int32)
    even = jnp.full(num_classes, 1 / num_classes, jnp.float32)
    return Memory(never, never, jnp.float32(1 / num_classes), even, even)


def fixmatch(
    memory: Memory,
    probs: jax.Array,
    rows: jax.Array,
    mask: jax.Array,
    *,
    cutoff: float,
    decay: float,
) -> tuple[jax.Array, Memory]:
    """Use one threshold for all classes, always (FixMatch, arXiv 2001.07685).

    Args:
      memory: from the step before; comes back as it is.
      probs: ``[m, c]`` predictions of weakly augmented samples.
      rows: ``[m]`` int32, which samples of the pool they are, each once.
      mask: ``[m]`` bool, False for padding.
      cutoff: τ.
      decay: not used.

    Returns:
      Thresholds ``[c]``, and the memory.
    """
    del rows, mask, decay
    return jnp.full(probs.shape[1], cutoff, probs.dtype), memory


def flexmatch(
    memory: Memory,
    probs: jax.Array,
    rows: jax.Array,
    mask: jax.Array,
    *,
    cutoff: float,
    decay: float,
) -> tuple[jax.Array, Memory]:
    """Lower the threshold of classes that few samples were surely predicted as.

    FlexMatch, arXiv 2110.08263, algorithm 1: thresholds are of what earlier batches left, and this
    one's predictions at ``cutoff`` or above are remembered for later ones.

    Args:
      memory: from the step before.
      probs: see `fixmatch`, like the others.
      rows: ``[m]`` int32.
      mask: ``[m]`` bool.
      cutoff: τ.
      decay: not used.

    Returns:
      Thresholds ``[c]``, and the memory.
    """
    del decay
    thresholds = flexmatch_thresholds(memory.confident, probs.shape[1], cutoff)
    sure = mask & (probs.max(1) >= cutoff)
    confident = place(memory.confident, rows, probs.argmax(1), sure)
    return thresholds, memory._replace(confident=confident)


def flexmatch_thresholds(confident: jax.Array, num_classes: int, cutoff: float) -> jax.Array:
    """Compute FlexMatch's thresholds τ · β / (2 - β) (arXiv 2110.08263, with its warm-up).

    β of a class is the number of samples last predicted as it at the cutoff, over the largest such
    number, that of samples never predicted so included.

    Args:
      confident: ``[n]`` int32 of the memory.
      num_classes: c.
      cutoff: τ.

    Returns:
      ``[c]`` float32, 0..τ.
    """
    counts = jnp.zeros(num_classes + 1, jnp.int32).at[confident + 1].add(1)
    status = counts[1:] / counts.max()
    return cutoff * status / (2 - status)


def freematch(
    memory: Memory,
    probs: jax.Array,
    rows: jax.Array,
    mask: jax.Array,
    *,
    cutoff: float,
    decay: float,
) -> tuple[jax.Array, Memory]:
    """Let the threshold grow with the confidence of the model, class by class.

    FreeMatch's self-adaptive thresholds (arXiv 2205.07246); moving means take in the batch before
    its thresholds are made.

    Args:
      memory: from the step before.
      probs: see `fixmatch`, like the others.
      rows: not used.
      mask: ``[m]`` bool.
      cutoff: not used.
      decay: λ, share of the moving means that a step keeps.

    Returns:
      Thresholds ``[c]``, and the memory.
    """
    del rows, cutoff
    count = jnp.maximum(mask.sum(), 1)
    held = jnp.where(mask[:, None], probs, 0)
    predicted = jax.nn.one_hot(probs.argmax(1), probs.shape[1])

    def moved(old: jax.Array, new: jax.Array) -> jax.Array:
        return decay * old + (1 - decay) * new

    memory = memory._replace(
        mean_confidence=moved(memory.mean_confidence, held.max(1).sum() / count),
        mean_probs=moved(memory.mean_probs, held.sum(0) / count),
        histogram=moved(memory.histogram, jnp.where(mask[:, None], predicted, 0).sum(0) / count),
    )
    return freematch_thresholds(memory), memory


def freematch_thresholds(memory: Memory) -> jax.Array:
    """Compute FreeMatch's thresholds, mean confidence · p̃ / max p̃ (arXiv 2205.07246).

    Returns:
      ``[c]`` float32.
    """
    return memory.mean_confidence * memory.mean_probs / memory.mean_probs.max()


def fairness(memory: Memory, probs: jax.Array, used: jax.Array) -> jax.Array:
    """Compute FreeMatch's self-adaptive fairness (arXiv 2205.07246).

    Args:
      memory: after the batch.
      probs: ``[m, c]`` predictions of strongly augmented samples.
      used: ``[m]`` bool, whose pseudo-label is trained on.

    Returns:
      ``()``: Σ_c p_c log q_c, p the moving mean of probabilities and q the mean of these, each over
      the shares of predicted classes and brought to sum 1; 0 where none is used.
    """
    count = jnp.maximum(used.sum(), 1)
    predicted = jax.nn.one_hot(probs.argmax(1), probs.shape[1])
    shares = jnp.where(used[:, None], predicted, 0).sum(0) / count
    mean = jnp.where(used[:, None], probs, 0).sum(0) / count
    expected = _unit_sum(_ratio(memory.mean_probs, memory.histogram))
    found = _unit_sum(_ratio(mean, shares))
    return jnp.where(used.any(), jnp.sum(expected * jnp.log(found + _TINY)), 0)


def place(memory: jax.Array, rows: jax.Array, values: jax.Array, where: jax.Array) -> jax.Array:
    """Write ``values [m]`` to ``rows [m]`` of ``memory [n]`` where ``where [m]`` says so."""
    rows = jnp.where(where, rows, len(memory))
    return memory.at[rows].set(values.astype(memory.dtype), mode="drop")


def _ratio(x: jax.Array, by: jax.Array) -> jax.Array:
    """Divide, and give 0 where ``by`` is."""
    return jnp.where(by > 0, x / jnp.where(by > 0, by, 1), 0)


def _unit_sum(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(x.sum(), _TINY)


RULES: Mapping[Method, Rule] = MappingProxyType(
    {"fixmatch": fixmatch, "flexmatch": flexmatch, "freematch": freematch}
)
