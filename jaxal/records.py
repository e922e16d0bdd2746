"""Small files that hold a run: written whole or not at all, and tied to their settings."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
from jax.typing import ArrayLike

__all__ = [
    "check_path",
    "describe",
    "fingerprint",
    "plain",
    "read_record",
    "replacing",
    "write_record",
]

_CHUNK_BYTES = 1 << 26
# Larger arrays among settings are compared by their fingerprints.
_LISTED_ELEMENTS = 1000


def plain(value: Any, name: str = "value") -> Any:
    """Turn a value into numbers, strings, None, and lists and dicts of them.

    Args:
      value: numbers, strings, None, arrays, and tuples, lists, NamedTuples and mappings of them.
      name: what to call it in an error.

    Returns:
      The same, plain; a NamedTuple becomes a dict.

    Raises:
      ValueError: something else is in it.
    """
    return _walk(value, name, _number)


def describe(value: Any, name: str = "settings") -> Any:
    """Turn settings into what JSON can hold and compare.

    As `plain`, and beside that a path becomes its string, NaN and infinities their names, a
    function its qualified name (what it does is not compared), a `functools.partial` its function
    and what is bound to it, a Flax module or another data class that can be called its ``repr``,
    and an array of more than 1,000 elements its `fingerprint`.

    Raises:
      ValueError: something else is in it.
    """
    return _walk(value, name, _named, _LISTED_ELEMENTS)


def fingerprint(x: ArrayLike) -> dict[str, Any]:
    """Describe an array by its shape, dtype and a digest of all that is in it.

    Memory-mapped arrays are read in chunks. It takes a second for every one or two GB, or what the
    disk needs to read them. Arrays on an accelerator are copied to the host.

    Args:
      x: ``[...]`` of any dtype but object; NumPy, memory-mapped or JAX.

    Returns:
      What JSON can hold, the same for equal arrays: a setting for `write_record`.

    Raises:
      ValueError: an array of objects.
    """
    x = np.asanyarray(x)
    if x.dtype == object:
        raise ValueError("x: expected an array of numbers or strings, found one of objects")
    digest = hashlib.sha256()
    rows = x if x.ndim else x[None]
    size = max(1, _CHUNK_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), size):
        chunk = np.ascontiguousarray(rows[start : start + size]).reshape(-1)
        digest.update(chunk.view(np.uint8).data)
    return {"shape": list(x.shape), "dtype": str(x.dtype), "sha256": digest.hexdigest()}


def check_path(path: str | Path) -> Path:
    """Check that a file can be where ``path`` says, there or not.

    Raises:
      ValueError: it is a folder, or its folder is missing.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"path: expected a file, found the folder {path}")
    if not path.parent.is_dir():
        raise ValueError(f"path: expected a file in a folder that exists, found {path}")
    return path


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that replaces the one at ``path`` when the context ends without an error.

    A crash at any moment leaves the old file or the new one.

    Args:
      path: in a folder that exists.

    Returns:
      A context that gives the new file, open for writing bytes.

    Raises:
      ValueError: a path that no file can have.
    """
    path = check_path(path)
    # Next to the file, since a rename is atomic within one file system only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def write_record(path: str | Path, content: Any, settings: Mapping[str, Any]) -> None:
    """Replace the file at ``path``: a crash at any moment leaves the old one or the new one.

    Args:
      path: in a folder that exists.
      content: see `plain`; NaN and infinities, which JSON lacks, become null.
      settings: what the content depends on, see `describe`; `read_record` asks for the same ones.

    Raises:
      ValueError: content or settings that JSON cannot hold, or a path that no file can have.
    """
    record = {"settings": describe(settings), "content": _walk(content, "content", _null)}
    text = json.dumps(record, allow_nan=False)
    with replacing(path) as file:
        file.write(text.encode())


def read_record(path: str | Path, settings: Mapping[str, Any]) -> Any:
    """Read what `write_record` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, or was written with other settings; the error says which.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        saved, content = record["settings"], record["content"]
    except (IsADirectoryError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: truncated or not a saved run ({error})") from error
    differing = _differences(describe(settings), saved)
    if differing:
        raise ValueError(f"{path}: saved with other settings: " + "; ".join(differing))
    return content


def _walk(value: Any, name: str, leaf: Callable[[Any, str], Any], listed: float = math.inf) -> Any:
    """Rebuild a value from plain collections, ``leaf`` saying what becomes of most else.

    Arrays of up to ``listed`` elements become lists, larger ones their fingerprints.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        if array.size > listed and array.dtype != object:
            return fingerprint(array)
        return _walk(array.tolist(), name, leaf)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _walk(item, f"{name}.{key}", leaf, listed) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(item, f"{name}[{i}]", leaf, listed) for i, item in enumerate(value)]
    return leaf(value, name)


def _number(value: Any, name: str) -> float:
    if isinstance(value, float):
        return value
    raise ValueError(
        f"{name}: expected numbers, strings, arrays or collections of them, "
        f"found {type(value).__name__}"
    )


def _null(value: Any, name: str) -> float | None:
    value = _number(value, name)
    return value if math.isfinite(value) else None


def _named(value: Any, name: str) -> Any:
    if isinstance(value, Path) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    if isinstance(value, functools.partial):
        parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
        return _walk(parts, name, _named, _LISTED_ELEMENTS)
    if dataclasses.is_dataclass(value) and callable(value) and not isinstance(value, type):
        # Such as a Flax module. Addresses differ in every process.
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    if callable(value):
        # An instance that can be called has no name of its own: its class's is the best there is.
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}.{named.__qualname__}"
    return _number(value, name)


def _differences(wanted: Any, saved: Any, name: str = "") -> list[str]:
    if isinstance(wanted, dict) and isinstance(saved, dict):
        return [
            line
            for key in sorted(wanted.keys() | saved.keys())
            for line in _differences(
                wanted.get(key), saved.get(key), f"{name}.{key}" if name else key
            )
        ]
    return [] if wanted == saved else [f"{name}: expected {wanted!r}, found {saved!r}"]


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
