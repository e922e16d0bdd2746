"""Lay batches over several devices, and copies of everything else on each of them.

There is one axis, "data". A function that is written on the whole batch and jitted with the batch
laid along that axis computes what it would on one device, up to rounding: batch statistics are
those of the whole batch, and gradients are summed over devices by the compiler. No function needs
an axis name.

Several processes (`jax.distributed.initialize`) each hand over their own rows of a batch; with one
process its rows are the batch.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxal.checks import check_positive

__all__ = [
    "DATA_AXIS",
    "batch_sharding",
    "check_mesh",
    "data_mesh",
    "local_rows",
    "pad_batch",
    "replicate",
    "replicated_sharding",
    "shard_batch",
]

DATA_AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Make a mesh with the single axis "data".

    Args:
      devices: distinct devices, equally many of each process; None for all there are.

    Returns:
      The mesh.

    Raises:
      ValueError: no devices, one of them twice, or more of one process than of another.
    """
    found = jax.devices() if devices is None else list(devices)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"devices: expected distinct devices, one or more, found {found}")
    counts = Counter(device.process_index for device in found)
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"devices: expected equally many of each process, found {dict(counts)} by process"
        )
    return Mesh(np.asarray(found), (DATA_AXIS,))


def check_mesh(mesh: Mesh) -> Mesh:
    """Check a mesh.

    Raises:
      ValueError: it has other axes than "data".
    """
    if not isinstance(mesh, Mesh) or mesh.axis_names != (DATA_AXIS,):
        found = mesh.axis_names if isinstance(mesh, Mesh) else type(mesh).__name__
        raise ValueError(f'mesh: expected the single axis "data", as of data_mesh, found {found}')
    return mesh


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Give the sharding that lays rows along the mesh."""
    return NamedSharding(check_mesh(mesh), PartitionSpec(DATA_AXIS))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Give the sharding that keeps a copy on every device."""
    return NamedSharding(check_mesh(mesh), PartitionSpec())


def local_rows(mesh: Mesh, num_rows: int) -> slice:
    """Tell which rows of a batch lie on this process's devices.

    Args:
      mesh: from `data_mesh`, the devices of a process next to one another.
      num_rows: of the whole batch, a multiple of the devices.

    Raises:
      ValueError: the batch does not divide by the devices, or the process's devices are scattered
        over the mesh.
    """
    check_mesh(mesh)
    if num_rows % mesh.size:
        raise ValueError(
            f"num_rows: expected a multiple of the {mesh.size} devices, found {num_rows}"
        )
    own = [i for i, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()]
    if not own or own[-1] - own[0] != len(own) - 1:
        raise ValueError(
            f"mesh: expected the devices of process {jax.process_index()} next to one another, "
            f"found them at {own}"
        )
    per_device = num_rows // mesh.size
    return slice(own[0] * per_device, (own[-1] + 1) * per_device)


def pad_batch(batch: Mapping[str, Any], multiple: int = 1) -> dict[str, Any]:
    """Pad the rows of a batch, and mark the padding in its ``mask``.

    Args:
      batch: arrays of equal first dimension, one or more rows, and maybe a bool ``"mask"`` of them;
        or a mapping of such batches, each of which is padded by itself.
      multiple: what the number of rows shall divide by.

    Returns:
      The batch, its last row repeated as often as needed, with a ``"mask"`` that is False there:
      a real row rather than zeros, so that no network makes NaN of it.

    Raises:
      ValueError: no arrays or no rows, unequal numbers of them, or a mask that is not bool.
    """
    check_positive(multiple, "multiple")
    if _is_nested(batch):
        return {name: pad_batch(part, multiple) for name, part in batch.items()}
    n = _num_rows(batch)
    padded = {name: _repeat_last(x, -n % multiple) for name, x in batch.items()}
    padded["mask"] = _padded_mask(batch.get("mask"), n, -n % multiple)
    return padded


def shard_batch(mesh: Mesh, batch: Mapping[str, Any], *, multiple: int = 1) -> dict[str, Any]:
    """Lay a batch over the devices, padded to a multiple of them.

    Args:
      mesh: from `data_mesh`.
      batch: see `pad_batch`; this process's rows, equally many in every process. A batch that lies
        so already passes through.
      multiple: what the rows on each device shall divide by.

    Returns:
      Global arrays ``[rows, ...]`` and their ``"mask"``.

    Raises:
      ValueError: another mesh or a malformed batch.
    """
    check_mesh(mesh)
    check_positive(multiple, "multiple")
    if _is_nested(batch):
        return {name: shard_batch(mesh, part, multiple=multiple) for name, part in batch.items()}
    target = batch_sharding(mesh)
    if _lies_at(batch, target, mesh.size * multiple):
        return dict(batch)
    padded = pad_batch(batch, len(mesh.local_devices) * multiple)
    if jax.process_count() > 1:
        padded = jax.tree.map(np.asarray, padded)
    return jax.make_array_from_process_local_data(target, padded)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Copy a pytree of arrays to every device; the same values in every process.

    Args:
      mesh: from `data_mesh`.
      tree: arrays. Those that lie so already are not copied.

    Returns:
      Global arrays.

    Raises:
      ValueError: another mesh.
    """
    target = replicated_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, target)

    def place(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, target)
        x = np.asarray(x)
        return jax.make_array_from_process_local_data(target, x, x.shape)

    return jax.tree.map(place, tree)


def _is_nested(batch: Mapping[str, Any]) -> bool:
    if not isinstance(batch, Mapping) or not batch:
        raise ValueError(
            "batch: expected a mapping of one or more arrays, found "
            + ("none" if isinstance(batch, Mapping) else type(batch).__name__)
        )
    return all(isinstance(part, Mapping) for part in batch.values())


def _num_rows(batch: Mapping[str, Any]) -> int:
    shapes = {name: np.shape(x) for name, x in batch.items()}
    sizes = {shape[0] if shape else None for shape in shapes.values()}
    if len(sizes) > 1 or None in sizes or 0 in sizes:
        raise ValueError(f"batch: expected equally many rows, one or more, found shapes {shapes}")
    return sizes.pop()  # type: ignore[return-value]


def _repeat_last(x: ArrayLike, extra: int) -> ArrayLike:
    if extra == 0:
        return x
    if isinstance(x, jax.Array):
        return jnp.concatenate([x, jnp.repeat(x[-1:], extra, axis=0)])
    x = np.asarray(x)
    return np.concatenate([x, np.repeat(x[-1:], extra, axis=0)])


def _padded_mask(mask: ArrayLike | None, n: int, extra: int) -> ArrayLike:
    if mask is None:
        return np.arange(n + extra) < n
    if np.ndim(mask) != 1 or jnp.asarray(mask).dtype != bool:
        raise ValueError(
            f"mask: expected bool [{n}], found {jnp.asarray(mask).dtype} {np.shape(mask)}"
        )
    if isinstance(mask, jax.Array):
        return jnp.pad(mask, (0, extra)) if extra else mask
    return np.pad(np.asarray(mask), (0, extra))


def _lies_at(batch: Mapping[str, Any], target: NamedSharding, multiple: int) -> bool:
    return "mask" in batch and all(
        isinstance(x, jax.Array)
        and x.ndim > 0
        and x.shape[0] % multiple == 0
        and x.sharding.is_equivalent_to(target, x.ndim)
        for x in batch.values()
    )
