"""Small files that hold a run: written whole or not at all, and tied to their settings."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

__all__ = ["fingerprint", "plain", "read_record", "write_record"]

_FINGERPRINT_ROWS = 64


def plain(value: Any, name: str = "value") -> Any:
    """Turn a value into what JSON can hold.

    Args:
      value: numbers, strings, None, arrays, and tuples, lists, NamedTuples and mappings of them.
      name: what to call it in an error.

    Returns:
      Numbers, strings, None, and lists and dicts of them; a NamedTuple becomes a dict.

    Raises:
      ValueError: something else is in it.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    raise ValueError(
        f"{name}: expected numbers, strings, arrays or collections of them, "
        f"found {type(value).__name__}"
    )


def fingerprint(x: ArrayLike) -> dict[str, Any]:
    """Describe an array by its shape, dtype and a digest of up to 64 evenly spaced rows."""
    x = x if isinstance(x, np.ndarray | jax.Array) else np.asarray(x)
    rows = np.unique(np.linspace(0, max(len(x) - 1, 0), _FINGERPRINT_ROWS).astype(np.int64))
    found = np.ascontiguousarray(np.asarray(x[rows]) if len(x) else np.asarray(x))
    digest = hashlib.sha256(found.tobytes()).hexdigest()
    return {"shape": list(x.shape), "dtype": str(x.dtype), "sha256": digest}


def write_record(path: str | Path, content: Any, settings: Mapping[str, Any]) -> None:
    """Replace the file at ``path``: a crash at any moment leaves the old one or the new one.

    Args:
      path: in a folder that exists.
      content: see `plain`.
      settings: what the content depends on; `read_record` asks for the same ones.

    Raises:
      ValueError: content or settings that JSON cannot hold.
    """
    path = Path(path)
    text = json.dumps({"settings": plain(settings, "settings"), "content": plain(content)})
    # Next to the file, since a rename is atomic within one file system only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def read_record(path: str | Path, settings: Mapping[str, Any]) -> Any:
    """Read what `write_record` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, or was written with other settings; the error says which.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        saved, content = record["settings"], record["content"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: truncated or not a saved run ({error})") from error
    wanted = json.loads(json.dumps(plain(settings, "settings")))
    differing = _differences(wanted, saved)
    if differing:
        raise ValueError(f"{path}: saved with other settings: " + "; ".join(differing))
    return content


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
