"""One training step for every kind of training: gradient, update, moving averages.

What is trained, frozen, supervised or not is in the loss function and the optimiser that the step
is made of. The loss is written on the whole batch, so that over several devices batch statistics
and means are those of the whole batch; see `jaxal.sharding`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxal.checks import check_number, check_positive
from jaxal.sharding import (
    DATA_AXIS,
    batch_sharding,
    pad_batch,
    replicate,
    replicated_sharding,
    shard_batch,
)

__all__ = [
    "Aux",
    "LossFn",
    "TrainState",
    "TrainStep",
    "init_state",
    "make_train_step",
    "state_variables",
]


class TrainState(NamedTuple):
    """Where a training stands."""

    step: jax.Array  # () int32, updates done
    params: Any
    batch_stats: Any  # {} for networks without batch statistics
    opt_state: Any
    ema_params: Any = None  # moving average of params, where one is kept
    ema_stats: Any = None  # of batch_stats
    memory: Any = None  # what the loss function keeps from step to step, such as thresholds


class Aux(NamedTuple):
    """What a loss function gives beside the loss."""

    batch_stats: Any  # as the batch has moved them
    metrics: dict[str, jax.Array]  # scalars, means over the rows that the mask holds
    memory: Any = None  # for the next step, where the state has one


# (params, batch_stats, batch, key) -> (loss, Aux): the loss is the mean over the rows that
# ``batch["mask"]`` holds, 0 where it holds none. Where the state has a memory, the loss function
# finds it in ``batch["memory"]``.
LossFn = Callable[[Any, Any, dict[str, Any], jax.Array], tuple[jax.Array, Aux]]

# (state, batch, key) -> (state, metrics)
TrainStep = Callable[
    [TrainState, Mapping[str, Any], jax.Array], tuple[TrainState, dict[str, jax.Array]]
]


def init_state(
    variables: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    *,
    ema: bool = False,
    memory: Any = None,
    mesh: Mesh | None = None,
) -> TrainState:
    """Start a training.

    Args:
      variables: a network's ``params`` and, where it has them, ``batch_stats``; copied, since a
        step overwrites the state that it is given.
      optimizer: from optax or `jaxal.train.optimizers.make_optimizer`.
      ema: whether moving averages are kept, which start at ``variables``.
      memory: what the loss function begins with, a pytree of arrays; None if it keeps nothing.
      mesh: what devices to copy the state to; None for the default one.

    Returns:
      The state before the first step.

    Raises:
      ValueError: no ``params``, collections beside these two, or another mesh.
    """
    unknown = variables.keys() - {"params", "batch_stats"}
    if unknown or "params" not in variables:
        raise ValueError(
            f"variables: expected 'params' and maybe 'batch_stats', found {sorted(variables)}"
        )
    params = _copy(variables["params"])
    stats = _copy(variables.get("batch_stats", {}))
    state = TrainState(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params))
    if ema:
        state = state._replace(ema_params=_copy(params), ema_stats=_copy(stats))
    if memory is not None:
        state = state._replace(memory=_copy(memory))
    return state if mesh is None else replicate(mesh, state)


def state_variables(state: TrainState) -> dict[str, Any]:
    """Give the variables to predict with: the moving averages where they are kept.

    The next step overwrites them; copy what shall outlive it.
    """
    if state.ema_params is None:
        return {"params": state.params, "batch_stats": state.batch_stats}
    return {"params": state.ema_params, "batch_stats": state.ema_stats}


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh | None = None,
    ema_decay: float | None = None,
    accumulate: int = 1,
) -> TrainStep:
    """Compile a training step.

    A batch that does not divide by the devices and ``accumulate`` is padded by masked rows, which
    change no loss. With ``accumulate`` k the batch is cut into k parts whose gradients are averaged
    by their numbers of real rows before the one update, so that activations of a k-th are held at
    once; without batch normalisation or randomness this equals the whole batch. Batch statistics
    are each part's own, and move with every part.

    Args:
      loss_fn: a `LossFn`, written on the whole batch.
      optimizer: what updates the parameters.
      mesh: devices to lay the batch over, from `jaxal.sharding.data_mesh`; None for the default
        one.
      ema_decay: share of the moving averages that a step keeps, in [0, 1); None for no averages.
      accumulate: parts of a batch.

    Returns:
      ``step(state, batch, key) -> (state, metrics)``. The state given is used up. ``batch`` is as
      of `jaxal.sharding.shard_batch`. ``key`` may be the same for all steps, since the state's step
      is folded in. The metrics are the loss function's, ``"loss"`` and ``"grad_norm"``.

    Raises:
      ValueError: an option out of its range or another mesh; the step raises one for a malformed
        batch, and for a state made with other moving averages.
    """
    check_positive(accumulate, "accumulate")
    if ema_decay is not None:
        check_number(ema_decay, "ema_decay", least=0)
        if ema_decay >= 1:
            raise ValueError(f"ema_decay: expected a number below 1, found {ema_decay!r}")

    def update(
        state: TrainState, batch: dict[str, Any], key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        if (state.ema_params is None) != (ema_decay is None):
            raise ValueError(
                "state: expected moving averages just if ema_decay is set; see init_state's ema"
            )
        key = jax.random.fold_in(key, state.step)
        if state.memory is not None:
            if accumulate > 1:
                raise ValueError(f"accumulate: expected 1 with a memory, found {accumulate}")
            batch = {**batch, "memory": state.memory}
        loss, aux, grads = _gradient(loss_fn, state, batch, key, accumulate, mesh)
        if (aux.memory is None) != (state.memory is None):
            raise ValueError("loss_fn: expected Aux.memory just if the state has a memory")
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        moved = TrainState(state.step + 1, params, aux.batch_stats, opt_state, memory=aux.memory)
        if ema_decay is not None:
            moved = moved._replace(
                ema_params=optax.incremental_update(params, state.ema_params, 1 - ema_decay),
                ema_stats=optax.incremental_update(aux.batch_stats, state.ema_stats, 1 - ema_decay),
            )
        return moved, {**aux.metrics, "loss": loss, "grad_norm": _norm(grads)}

    if mesh is None:
        compiled = jax.jit(update, donate_argnums=0)
    else:
        copied = replicated_sharding(mesh)
        compiled = jax.jit(
            update,
            donate_argnums=0,
            in_shardings=(copied, batch_sharding(mesh), copied),
            out_shardings=copied,
        )

    def step(
        state: TrainState, batch: Mapping[str, Any], key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        if mesh is None:
            return compiled(state, pad_batch(batch, accumulate), key)
        return compiled(state, shard_batch(mesh, batch, multiple=accumulate), key)

    return step


def _gradient(
    loss_fn: LossFn,
    state: TrainState,
    batch: dict[str, Any],
    key: jax.Array,
    accumulate: int,
    mesh: Mesh | None,
) -> tuple[jax.Array, Aux, Any]:
    """Compute loss, the rest and gradients of a whole batch, in ``accumulate`` parts."""
    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
        (loss, aux), grads = gradient(state.params, state.batch_stats, batch, key)
        return loss, aux, grads
    if "mask" not in batch:
        raise ValueError(
            f"accumulate: expected 1 for a batch of several batches, found {accumulate}"
        )
    parts = jax.tree.map(lambda x: _cut(x, accumulate, mesh), batch)
    total = jnp.maximum(jnp.sum(batch["mask"]), 1)

    def add(carry: Any, part: Any) -> tuple[Any, None]:
        stats, sums = carry
        part, index = part
        count = jnp.sum(part["mask"])
        part_key = jax.random.fold_in(key, index)
        (loss, aux), grads = gradient(state.params, stats, part, part_key)
        # A part of padding only has no mean, and no statistics, that could be counted.
        stats = jax.tree.map(
            lambda new, old: jnp.where(count > 0, new, old), aux.batch_stats, stats
        )
        sums = jax.tree.map(
            lambda sum_, x: sum_ + jnp.where(count > 0, x * (count / total), 0).astype(sum_.dtype),
            sums,
            (loss, aux.metrics, grads),
        )
        return (stats, sums), None

    first = jax.tree.map(lambda x: x[0], parts)
    (loss, aux), grads = jax.eval_shape(gradient, state.params, state.batch_stats, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, aux.metrics, grads))
    carry, _ = jax.lax.scan(add, (state.batch_stats, zeros), (parts, jnp.arange(accumulate)))
    stats, (loss, metrics, grads) = carry
    return loss, Aux(stats, metrics), grads


def _cut(x: jax.Array, parts: int, mesh: Mesh | None) -> jax.Array:
    """Cut ``[n, ...]`` into ``[parts, n / parts, ...]``, every part spread over all devices."""
    # Row j of part i is row j · parts + i, so that no row leaves its device.
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(None, DATA_AXIS)))


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.array, tree)
