"""Check what a caller passed in, before any work starts.

Every check raises a `ValueError` that names the argument, what was expected and what was found,
and returns the argument ready for use. Under `jax.jit` values cannot be looked at: there only
shapes and dtypes are checked.
"""

import jax
import numpy as np
from jax.typing import ArrayLike

__all__ = [
    "check_batch_size",
    "check_features",
    "check_indices",
    "check_labels",
    "check_positive",
]

_CHUNK_ELEMENTS = 1 << 24


def check_features(x: ArrayLike, name: str = "features", *, min_rows: int = 1) -> ArrayLike:
    """Check a matrix of features.

    Args:
      x: ``[n, d]`` real numbers; NumPy, memory-mapped or JAX, read in row chunks.
      name: what to call it in an error.
      min_rows: the smallest ``n`` allowed.

    Returns:
      ``x``, as an array.

    Raises:
      ValueError: not a matrix, too few rows, no columns, not real-valued, or NaN or infinite.
    """
    x = x if isinstance(x, np.ndarray | jax.Array) else np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"{name}: expected a matrix [n, d], found shape {x.shape}")
    if x.shape[0] < min_rows:
        raise ValueError(f"{name}: expected at least {min_rows} rows, found {x.shape[0]}")
    if x.shape[1] == 0:
        raise ValueError(f"{name}: expected at least one column, found shape {x.shape}")
    if not (np.issubdtype(x.dtype, np.integer) or jax.numpy.issubdtype(x.dtype, np.floating)):
        raise ValueError(f"{name}: expected real numbers, found dtype {x.dtype}")
    if isinstance(x, jax.core.Tracer) or np.issubdtype(x.dtype, np.integer):
        return x
    rows = max(1, _CHUNK_ELEMENTS // x.shape[1])
    for start in range(0, x.shape[0], rows):
        finite = np.isfinite(np.asarray(x[start : start + rows], np.float32)).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise ValueError(f"{name}: expected finite numbers, found NaN or infinity in row {row}")
    return x


def check_indices(
    indices: ArrayLike, size: int, name: str = "indices", *, unique: bool = True
) -> np.ndarray:
    """Check row indices into a pool.

    Args:
      indices: ``[k]`` integers.
      size: number of rows of the pool.
      name: what to call them in an error.
      unique: whether an index may occur once only.

    Returns:
      ``[k]`` int64 on the host.

    Raises:
      ValueError: not one-dimensional, not integers, outside ``0..size-1``, or repeated.
    """
    found = np.asarray(indices)
    if found.ndim != 1:
        raise ValueError(f"{name}: expected a vector [k], found shape {found.shape}")
    if found.size == 0:
        return np.zeros(0, np.int64)
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{name}: expected integers, found dtype {found.dtype}")
    outside = found[(found < 0) | (found >= size)]
    if outside.size:
        raise ValueError(f"{name}: expected indices in 0..{size - 1}, found {outside[0]}")
    if unique:
        values, counts = np.unique(found, return_counts=True)
        if counts.max() > 1:
            raise ValueError(
                f"{name}: expected each index once, found {values[counts.argmax()]} twice"
            )
    return found.astype(np.int64)


def check_labels(
    labels: ArrayLike, num_classes: int, name: str = "labels", *, length: int | None = None
) -> np.ndarray:
    """Check class labels.

    Args:
      labels: ``[k]`` integers.
      num_classes: number of classes.
      name: what to call them in an error.
      length: the ``k`` expected, where one is.

    Returns:
      ``[k]`` int32 on the host.

    Raises:
      ValueError: fewer than one class, wrong length, not integers, or outside ``0..num_classes-1``.
    """
    check_positive(num_classes, "num_classes")
    found = np.asarray(labels)
    if found.ndim != 1:
        raise ValueError(f"{name}: expected a vector [k], found shape {found.shape}")
    if length is not None and found.shape[0] != length:
        raise ValueError(f"{name}: expected {length} labels, found {found.shape[0]}")
    if found.size == 0:
        return np.zeros(0, np.int32)
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{name}: expected integers, found dtype {found.dtype}")
    outside = found[(found < 0) | (found >= num_classes)]
    if outside.size:
        raise ValueError(f"{name}: expected labels in 0..{num_classes - 1}, found {outside[0]}")
    return found.astype(np.int32)


def check_batch_size(batch_size: int, available: int, name: str = "batch_size") -> int:
    """Check how many samples are asked for against how many are left.

    Raises:
      ValueError: less than one, or more than ``available``.
    """
    check_positive(batch_size, name)
    if batch_size > available:
        raise ValueError(
            f"{name}: expected at most {available}, the samples left to choose from, "
            f"found {batch_size}"
        )
    return int(batch_size)


def check_positive(value: int, name: str) -> int:
    """Check a count.

    Raises:
      ValueError: not a whole number of at least one.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, found {value!r}")
    return int(value)
