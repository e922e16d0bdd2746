"""On one device here; tests/train/test_step.py covers several devices and processes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxal.sharding import data_mesh, local_rows, pad_batch, replicate, shard_batch


def batch(n=5):
    return {"images": np.arange(2 * n, dtype=np.float32).reshape(n, 2), "labels": np.arange(n)}


def test_mesh_has_one_axis_over_all_devices():
    mesh = data_mesh()
    assert mesh.axis_names == ("data",)
    assert list(mesh.devices.flat) == jax.devices()
    assert data_mesh(jax.devices()[:1]).size == 1


@pytest.mark.parametrize("multiple", [1, 2, 5, 8])
@pytest.mark.parametrize("asarray", [np.asarray, jnp.asarray])
def test_padding_repeats_the_last_row_under_a_mask(multiple, asarray):
    given = {name: asarray(x) for name, x in batch().items()}
    padded = pad_batch(given, multiple)
    size = -(-5 // multiple) * multiple
    np.testing.assert_array_equal(padded["mask"], np.arange(size) < 5)
    for name, x in given.items():
        assert padded[name].dtype == x.dtype
        np.testing.assert_array_equal(padded[name], x[np.minimum(np.arange(size), 4)])


def test_padding_keeps_the_mask_that_is_there():
    given = {**batch(3), "mask": np.array([True, False, True])}
    np.testing.assert_array_equal(pad_batch(given, 4)["mask"], [True, False, True, False])
    jax_given = {**given, "mask": jnp.asarray(given["mask"])}
    np.testing.assert_array_equal(pad_batch(jax_given, 4)["mask"], [True, False, True, False])


def test_batches_within_a_batch_are_padded_each():
    padded = pad_batch({"labeled": batch(3), "unlabeled": batch(5)}, 4)
    assert padded["labeled"]["images"].shape == (4, 2)
    assert padded["unlabeled"]["images"].shape == (8, 2)
    sharded = shard_batch(data_mesh(), {"labeled": batch(3), "unlabeled": batch(5)}, multiple=4)
    np.testing.assert_array_equal(sharded["unlabeled"]["mask"], padded["unlabeled"]["mask"])


def test_sharded_batch_lies_along_the_mesh_and_passes_through():
    mesh = data_mesh(jax.devices()[:1])
    sharded = shard_batch(mesh, batch(), multiple=3)
    target = NamedSharding(mesh, PartitionSpec("data"))
    assert all(x.sharding.is_equivalent_to(target, x.ndim) for x in sharded.values())
    np.testing.assert_array_equal(sharded["labels"], [0, 1, 2, 3, 4, 4])
    again = shard_batch(mesh, sharded, multiple=3)
    assert all(again[name] is x for name, x in sharded.items())
    assert shard_batch(mesh, sharded, multiple=4)["mask"].shape == (8,)


def test_replicated_trees_keep_their_values():
    mesh = data_mesh()
    tree = {"a": np.arange(3), "b": (jnp.ones(()), {})}
    copied = replicate(mesh, tree)
    assert jax.tree.structure(copied) == jax.tree.structure(tree)
    assert copied["a"].sharding.is_fully_replicated
    np.testing.assert_array_equal(copied["a"], tree["a"])


def test_one_process_holds_all_rows():
    mesh = data_mesh()
    assert local_rows(mesh, 6 * mesh.size) == slice(0, 6 * mesh.size)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "batch: expected a mapping of one or more arrays, found none"),
        ([np.ones(3)], "batch: expected a mapping .* found list"),
        ({"a": np.ones(3), "b": np.ones(2)}, r"equally many rows.*\(3,\).*\(2,\)"),
        ({"a": np.ones((0, 2))}, "one or more"),
        ({"a": np.float32(1)}, "equally many rows"),
        ({"a": np.ones(2), "mask": np.ones(2)}, r"mask: expected bool \[2\], found float"),
        ({"a": np.ones(2), "mask": np.ones((2, 1), bool)}, "mask: expected bool"),
    ],
)
def test_bad_batches_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        pad_batch(given, 2)
    with pytest.raises(ValueError, match=message):
        shard_batch(data_mesh(), given)


class Device(NamedTuple):
    """A device of some process."""

    id: int
    process_index: int


def test_processes_of_different_sizes_are_named():
    devices = [Device(0, 0), Device(1, 0), Device(2, 1)]
    with pytest.raises(ValueError, match=r"devices: .*each process, found {0: 2, 1: 1}"):
        data_mesh(devices)


def test_bad_meshes_are_named():
    device = jax.devices()[0]
    with pytest.raises(ValueError, match="devices: expected distinct devices"):
        data_mesh([])
    with pytest.raises(ValueError, match="devices: expected distinct devices"):
        data_mesh([device, device])
    other = Mesh(np.asarray([device]), ("model",))
    for call in (
        lambda: shard_batch(other, batch()),
        lambda: replicate(other, batch()),
        lambda: local_rows(other, 8),
        lambda: shard_batch("data", batch()),
    ):
        with pytest.raises(ValueError, match='mesh: expected the single axis "data"'):
            call()
    with pytest.raises(ValueError, match="multiple"):
        pad_batch(batch(), 0)
