import argparse
import json
import struct
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models import weight_files
from jaxal.models.weights import read_weights

BFLOAT16 = np.dtype(jnp.bfloat16)
ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "half": np.array([1.5, -2], np.float16),
    "brain": np.array([[3.140625], [-0.5]], BFLOAT16),
    "count": np.array(12, np.int64),
    "empty": np.zeros((0, 3), np.float64),
    "flags": np.array([True, False]),
}
NAMES = {"f4": "F32", "f2": "F16", "i8": "I64", "f8": "F64", "b1": "BOOL"}


def write_safetensors(path, arrays, **changes):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        dtype = "BF16" if array.dtype == BFLOAT16 else NAMES[array.dtype.str[1:]]
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        header[name] |= changes.get(name, {})
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_npz(tmp_path):
    arrays = {name: array for name, array in ARRAYS.items() if name != "brain"}
    np.savez(tmp_path / "x.npz", **arrays)
    assert_same(read_weights(tmp_path / "x.npz"), arrays)


def test_safetensors(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", ARRAYS)
    assert_same(read_weights(str(tmp_path / "x.safetensors")), ARRAYS)


def test_safetensors_written_by_their_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    arrays = {name: array for name, array in ARRAYS.items() if name != "brain"}
    library.save_file(arrays, tmp_path / "x.safetensors")
    assert_same(read_weights(tmp_path / "x.safetensors"), arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"half": {"dtype": "F8_E4M3"}}, "half: expected one of F64, .*found F8_E4M3"),
        ({"half": {"shape": [3]}}, "cannot reshape"),
        ({"flags": {"data_offsets": [40, 4000]}}, "flags: bytes 40 to 4000 lie outside"),
        ({"flags": {"sparse": True}}, "sparse"),
    ],
)
def test_safetensors_that_contradict_themselves(tmp_path, changes, message):
    write_safetensors(tmp_path / "x.safetensors", ARRAYS, **changes)
    with pytest.raises(ValueError, match=f"x.safetensors: damaged, .*{message}"):
        read_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"abc", b"\x05\0\0\0\0\0\0\0[1, 2", bytes(100)])
def test_damaged_files(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"x{suffix}: damaged, or not an? {suffix} file"):
        read_weights(path)


def test_pickled_arrays_are_not_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{"code": 1}], object))
    with pytest.raises(ValueError, match=r"x.npz: damaged, or not an .npz file of arrays"):
        read_weights(tmp_path / "x.npz")


def renamed_npy(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def damaged_stream(path):
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=1000))
    data = bytearray(path.read_bytes())
    data[60:80] = b"\xff" * 20
    path.write_bytes(data)


def with_header(flags, method):
    """Change general purpose flags and compression method in both headers of the one member."""

    def write(path):
        np.savez(path, a=np.ones(3))
        data = bytearray(path.read_bytes())
        for start in (data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8):
            data[start : start + 4] = struct.pack("<HH", flags, method)
        path.write_bytes(data)

    return write


@pytest.mark.parametrize(
    "write",
    [renamed_npy, damaged_stream, with_header(1, 0), with_header(0, 97), with_header(64, 0)],
    ids=["npy", "stream", "encrypted", "method", "strong_encryption"],
)
def test_npz_that_other_errors_come_of(tmp_path, write):
    write(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"x.npz: damaged, or not an .npz file of arrays"):
        read_weights(tmp_path / "x.npz")


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(ValueError, match=r"x.npz: expected a file of weights, found none"):
        read_weights(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"x.h5: expected a file ending in .npz, .safetensors, "):
        read_weights(tmp_path / "x.h5")


def test_without_torch_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "x.pth.tar").write_bytes(b"abc")
    with pytest.raises(ImportError, match=r"x.pth.tar: .*pip install torch"):
        read_weights(tmp_path / "x.pth.tar")


def test_the_network_is_found_among_what_training_saved():
    state = {"conv1.weight": 1, "model": 2}  # a parameter may be called so, too
    for saved in (
        state,
        {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}},
        {"model": state},
        {"student": {}, "teacher": state, "epoch": 1},
        {"state_dict": {"model": state}},
    ):
        assert weight_files._unwrap(saved) == state
    assert weight_files._unwrap([1, 2]) == {}


def test_torch_checkpoints(tmp_path):
    torch = pytest.importorskip("torch")
    state = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([1.5, 3], dtype=torch.half)}
    state["c"] = torch.tensor([3.140625], dtype=torch.bfloat16)
    saved = {"epoch": 3, "arch": "net", "state_dict": state}
    expected = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "b": np.array([1.5, 3], np.float16),
        "c": np.array([3.140625], BFLOAT16),
    }
    torch.save(saved, tmp_path / "x.pth.tar")
    assert_same(read_weights(tmp_path / "x.pth.tar"), expected)
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert_same(read_weights(tmp_path / "x.pth"), expected)


def test_torch_checkpoints_with_the_options_of_their_script(tmp_path):
    torch = pytest.importorskip("torch", minversion="2.5")
    saved = {"teacher": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1, arch="vit")}
    torch.save(saved, tmp_path / "x.pth")
    assert_same(read_weights(tmp_path / "x.pth"), {"a": np.ones(2, np.float32)})


def test_namespaces_are_allowed_where_torch_can():
    allowed = []
    new = types.SimpleNamespace(serialization=types.SimpleNamespace(safe_globals=allowed.append))
    weight_files._namespaces_allowed(new)
    assert allowed == [[argparse.Namespace]]
    old = types.SimpleNamespace(serialization=types.SimpleNamespace())
    with weight_files._namespaces_allowed(old):
        pass


def test_torchscript_archives(tmp_path):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    torch.jit.save(torch.jit.script(layer), str(tmp_path / "x.pt"))
    expected = {name: value.numpy() for name, value in layer.state_dict().items()}
    assert_same(read_weights(tmp_path / "x.pt"), expected)


def test_torch_checkpoints_that_hold_code_or_nothing(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {"a": torch.zeros(2)}, "hook": test_npz}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt: damaged, or holding more than tensors"):
        read_weights(tmp_path / "x.pt")
    torch.save({"epoch": 1}, tmp_path / "y.pt")
    with pytest.raises(ValueError, match=r"y.pt: expected tensors by name, found none"):
        read_weights(tmp_path / "y.pt")
    (tmp_path / "z.pt").write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"z.pt: damaged"):
        read_weights(tmp_path / "z.pt")
