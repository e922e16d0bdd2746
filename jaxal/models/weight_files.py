"""Read arrays by name from the files that weights are published in."""

import argparse
import contextlib
import importlib
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = ["read_weights"]

_BFLOAT16 = np.dtype(jnp.bfloat16)
_SAFETENSORS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": _BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# Where training scripts keep the network among optimiser states and counters.
_WRAPPERS = ("state_dict", "model", "teacher", "student")
# What damaged and foreign archives make zipfile, zlib and NumPy raise.
_NPZ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,  # and NotImplementedError
    zipfile.BadZipFile,
    zlib.error,
)


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Read a file of weights.

    Args:
      path: ``.npz``, ``.safetensors``, or a PyTorch checkpoint (``.pt``, ``.pth``, ``.bin``,
        ``.ckpt``, ``.tar``), for which torch has to be installed. Of a checkpoint tensors and
        plain values are loaded, never code, and the network is looked for under ``state_dict``,
        ``model``, ``teacher`` and ``student``, in this order.

    Returns:
      Arrays by their names in the file and in its dtypes, bfloat16 as the one of ml_dtypes.

    Raises:
      ValueError: no such file, one of another or a damaged format, or a checkpoint without
        tensors.
      ImportError: a PyTorch checkpoint, and torch is not installed.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: expected a file ending in {', '.join(_READERS)}")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file of weights, found none")
    return reader(path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _NPZ_ERRORS as error:
        raise ValueError(f"{path}: damaged, or not an .npz file of arrays ({error})") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read the format of https://github.com/huggingface/safetensors.

    Eight bytes give the length of a JSON header, which gives each tensor's dtype, shape and place
    in what follows.
    """
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError(f"a header of {length} bytes is longer than the file")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            data = file.read()
        return {name: _tensor(name, data=data, **entry) for name, entry in header.items()}
    except (struct.error, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged, or not a .safetensors file ({error})") from error


def _tensor(
    name: str, *, dtype: str, shape: list[int], data_offsets: list[int], data: bytes
) -> np.ndarray:
    if dtype not in _SAFETENSORS:
        raise ValueError(f"{name}: expected one of {', '.join(_SAFETENSORS)}, found {dtype}")
    start, stop = data_offsets
    if not 0 <= start <= stop <= len(data):
        raise ValueError(f"{name}: bytes {start} to {stop} lie outside of {len(data)}")
    return np.frombuffer(data[start:stop], _SAFETENSORS[dtype]).reshape(shape)


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"{path}: PyTorch checkpoints need torch, which is not installed; install it (pip "
            "install torch), or convert the file to .safetensors or .npz where it is"
        ) from error
    try:
        if _is_torchscript(path):  # as OpenAI publishes CLIP
            loaded = torch.jit.load(str(path), map_location="cpu").state_dict()
        else:
            with _namespaces_allowed(torch):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes unpickling raise anything
        raise ValueError(
            f"{path}: damaged, or holding more than tensors, which is not loaded since it could "
            f"run code; save its state_dict alone where you trust it ({error})"
        ) from error
    tensors = {
        name: value for name, value in _unwrap(loaded).items() if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise ValueError(f"{path}: expected tensors by name, found none")
    return {name: _to_numpy(value, torch) for name, value in tensors.items()}


def _unwrap(loaded: Any) -> Mapping[str, Any]:
    """Find the network in what a training script saved.

    Returns:
      The first of the known wrappers that is there, and what it wraps in turn; else ``loaded``, or
      nothing where that is no mapping.
    """
    if not isinstance(loaded, Mapping):
        return {}
    for wrapper in _WRAPPERS:
        if isinstance(loaded.get(wrapper), Mapping):
            return _unwrap(loaded[wrapper])
    return loaded


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("/constants.pkl") for name in file.namelist())


def _namespaces_allowed(torch: Any) -> contextlib.AbstractContextManager[Any]:
    """Let checkpoints hold the options of the script that made them, as DINO's do.

    A namespace is plain attributes and runs no code. Before torch 2.5, none can be allowed.
    """
    safe_globals = getattr(torch.serialization, "safe_globals", None)
    return safe_globals([argparse.Namespace]) if safe_globals else contextlib.nullcontext()


def _to_numpy(tensor: Any, torch: Any) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:  # which NumPy's side of torch does not know
        return tensor.view(torch.int16).numpy().view(_BFLOAT16)
    return tensor.numpy()


_READERS = {".npz": _read_npz, ".safetensors": _read_safetensors} | dict.fromkeys(
    (".pt", ".pth", ".bin", ".ckpt", ".tar"), _read_torch
)
