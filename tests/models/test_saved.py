import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.heads import DenseHead
from jaxal.models.saved import is_saved, load_variables, read_about, save_variables


def make():
    head = DenseHead((4,), 3, use_batch_norm=True)
    return dict(head.init(jax.random.key(0), np.ones((2, 5), np.float32)))


def test_variables_come_back_bit_for_bit(tmp_path):
    variables = make()
    save_variables(tmp_path / "head.npz", variables, {"encoder": "none", "epochs": 3})
    found, about = load_variables(tmp_path / "head.npz")
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert about == {"encoder": "none", "epochs": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["head.npz"]
    assert is_saved(tmp_path / "head.npz")


def test_other_files_are_told_apart(tmp_path):
    np.savez(tmp_path / "other.npz", kernel=np.ones(3))
    assert not is_saved(tmp_path / "other.npz") and not is_saved(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="expected variables that save_variables wrote"):
        load_variables(tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"none\.npz"):
        load_variables(tmp_path / "none.npz")


def test_only_names_are_read_to_tell_a_file(tmp_path):
    path = tmp_path / "head.npz"
    variables = {"params": {"kernel": np.ones((40, 50), np.float32)}}
    save_variables(path, variables)
    whole = bytearray(path.read_bytes())
    place = whole.index(np.ones(100, np.float32).tobytes())
    whole[place : place + 4] = b"\0" * 4  # a wrong checksum, whoever reads it
    path.write_bytes(whole)
    assert is_saved(path)
    with pytest.raises(ValueError, match=r"head\.npz: damaged"):
        load_variables(path)
    path.write_bytes(whole[:100])
    assert not is_saved(path) and not is_saved(tmp_path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path, variables = tmp_path / "head.npz", make()
    save_variables(path, variables)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        save_variables(path, jax.tree.map(jnp.zeros_like, variables))
    monkeypatch.undo()
    jax.tree.map(np.testing.assert_array_equal, load_variables(path)[0], variables)
    assert list(tmp_path.iterdir()) == [path]


def test_dtypes_that_cannot_be_read_back_are_refused(tmp_path):
    variables = {"params": {"dense": {"kernel": jnp.ones(3, jnp.bfloat16)}}}
    with pytest.raises(ValueError, match=r"found bfloat16 in params/dense/kernel"):
        save_variables(tmp_path / "head.npz", variables)
    assert not list(tmp_path.iterdir())
    half = {"params": {"kernel": jnp.ones(3, jnp.float16)}}
    save_variables(tmp_path / "half.npz", half)
    assert load_variables(tmp_path / "half.npz")[0]["params"]["kernel"].dtype == jnp.float16


def test_a_damaged_file_is_named(tmp_path):
    save_variables(tmp_path / "head.npz", make())
    whole = (tmp_path / "head.npz").read_bytes()
    (tmp_path / "head.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"head\.npz"):
        load_variables(tmp_path / "head.npz")


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"\.npz"):
        save_variables(tmp_path / "head.bin", make())
    with pytest.raises(ValueError, match="variables: expected params"):
        save_variables(tmp_path / "head.npz", {"weights": {}})
    assert not list(tmp_path.iterdir())


def test_what_a_file_says_of_itself_is_read_alone(tmp_path):
    path = tmp_path / "head.npz"
    save_variables(path, make(), {"encoder": "conv4", "size": 16})
    assert read_about(path) == {"encoder": "conv4", "size": 16}
    np.savez(tmp_path / "other.npz", kernel=np.ones(3))
    with pytest.raises(ValueError, match="expected variables that save_variables wrote"):
        read_about(tmp_path / "other.npz")
