"""Fine-tuned features: one linear layer that moves each sample to the centres of its clusters.

k-means runs C times on the self-supervised features, and run r gives sample i the centre μ_r(i).
With the backbone frozen a linear layer is trained to hit them all,

    L(W, b) = mean_i mean_r mean_j (W f_i + b - μ_r(i))_j²,

and W f_i + b are the fine-tuned features (AS3L, arXiv 2203.04560). The paper gives the runs of
k-means, the one linear layer, the mean squared error and the 40 epochs. Ours are the rest: that
features are brought to length 1 first, the number of clusters, that the layer starts at the
identity, Adam with a rate that falls to zero by a cosine, the batches of 256, and what the layer
puts out.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxal.checks import check_choice, check_features, check_number, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE, map_rows
from jaxal.clustering.groups import repeat_kmeans
from jaxal.scaling import unit_rows

__all__ = ["FineTuned", "Outputs", "fine_tune_features"]

Outputs = Literal["one", "each"]

_PRECISION = jax.lax.Precision.HIGHEST


class FineTuned(NamedTuple):
    """Fine-tuned features."""

    features: jax.Array  # [n, m] float32
    losses: jax.Array  # [epochs] float32, mean squared error over each epoch's samples


def fine_tune_features(
    key: jax.Array,
    features: ArrayLike,
    num_clusters: int,
    *,
    num_runs: int = 6,
    outputs: Outputs = "one",
    epochs: int = 40,
    train_batch_size: int = 256,
    learning_rate: float = 1e-3,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> FineTuned:
    """Train a linear layer to hit the centres of each sample's clusters, without any label.

    Holds ``O(n · (d + m + num_runs) + num_runs · (num_clusters · d + train_batch_size · d))``; an
    epoch costs ``O(n · d · m)``.

    Args:
      key: the starts of k-means and the order of samples in each epoch.
      features: ``[n, d]`` self-supervised features of any real dtype and size.
      num_clusters: of each run of k-means, at most ``n``. With one all samples share their centre,
        and little is left of what tells them apart.
      num_runs: C, runs of k-means.
      outputs: "one" puts out d numbers, compared with the centre in each run: m = d, and the best
        layer hits the mean of the centres. "each" puts out d numbers a run: m = C · d.
      epochs: passes over all samples.
      train_batch_size: the most samples a step sees; an epoch is cut in nearly equal batches.
      learning_rate: Adam's first one, above 0.
      chunk_size: rows whose distances are held at once; changes no result but by rounding.

    Returns:
      Features ``[n, m]`` and the losses.

    Raises:
      ValueError: features that are no matrix of finite numbers, more clusters than samples, a bad
        option, or training that diverges.
    """
    x = check_features(features)
    n, _ = np.shape(x)
    check_choice(outputs, "outputs", Outputs)
    check_positive(epochs, "epochs")
    check_positive(train_batch_size, "train_batch_size")
    check_number(learning_rate, "learning_rate", least=0, above=True)
    cluster_key, train_key = jax.random.split(key)
    x = unit_rows(x)
    found = repeat_kmeans(cluster_key, x, num_clusters, num_runs=num_runs, chunk_size=chunk_size)
    num_steps = -(-n // train_batch_size)
    params, losses = _fit(
        train_key,
        x,
        found.centers,
        found.labels,
        jnp.float32(learning_rate),
        num_layers=num_runs if outputs == "each" else 1,
        epochs=epochs,
        num_steps=num_steps,
    )
    tuned = map_rows(functools.partial(_joined, params), x, chunk_size=chunk_size)
    if not bool(jnp.isfinite(tuned).all()):
        raise ValueError(
            f"learning_rate: training diverged with {learning_rate}; expected a lower one"
        )
    return FineTuned(tuned, losses)


@functools.partial(jax.jit, static_argnames=("num_layers", "epochs", "num_steps"))
def _fit(
    key: jax.Array,
    x: jax.Array,
    centers: jax.Array,
    labels: jax.Array,
    learning_rate: jax.Array,
    *,
    num_layers: int,
    epochs: int,
    num_steps: int,
) -> tuple[Any, jax.Array]:
    """Train on ``x [n, d]`` toward ``centers [runs, k, d]`` of ``labels [runs, n]``."""
    n, dim = x.shape
    step_rows = -(-n // num_steps)
    optimizer = optax.adam(lambda t: learning_rate * _cosine(t / (epochs * num_steps)))
    runs = jnp.arange(len(labels))[:, None]

    def loss_fn(params: Any, rows: jax.Array, valid: jax.Array) -> jax.Array:
        aims = centers[runs, labels[:, rows]]
        errors = ((_layers(params, x[rows]) - aims) ** 2).mean((0, 2))
        return jnp.where(valid, errors, 0).sum() / valid.sum()

    def epoch(carry: Any, index: jax.Array) -> Any:
        order = jax.random.permutation(jax.random.fold_in(key, index), n)
        # Batches take every num_steps-th sample, so that their sizes differ by one at most.
        order = jnp.pad(order, (0, num_steps * step_rows - n), constant_values=-1)
        batches = order.reshape(step_rows, num_steps).T

        def step(carry: Any, rows: jax.Array) -> Any:
            params, state = carry
            valid = rows >= 0
            loss, grads = jax.value_and_grad(loss_fn)(params, jnp.maximum(rows, 0), valid)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss * valid.sum()

        carry, totals = jax.lax.scan(step, carry, batches)
        return carry, totals.sum() / n

    params = {
        "kernel": jnp.tile(jnp.eye(dim), (num_layers, 1, 1)),
        "bias": jnp.zeros((num_layers, 1, dim)),
    }
    (params, _), losses = jax.lax.scan(epoch, (params, optimizer.init(params)), jnp.arange(epochs))
    return params, losses


def _cosine(progress: jax.Array) -> jax.Array:
    return (1 + jnp.cos(jnp.pi * progress)) / 2


def _layers(params: Any, x: jax.Array) -> jax.Array:
    """Outputs ``[layers, rows, d]``."""
    return jnp.matmul(x, params["kernel"], precision=_PRECISION) + params["bias"]


@jax.jit
def _joined(params: Any, x: jax.Array) -> jax.Array:
    """Outputs of a row behind one another, ``[rows, layers · d]``."""
    return _layers(params, x).transpose(1, 0, 2).reshape(len(x), -1)
