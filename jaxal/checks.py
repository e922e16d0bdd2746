"""Check what a caller passed in, before any work starts.

Every check raises a `ValueError` that names the argument, what was expected and what was found,
and returns the argument ready for use. Under `jax.jit` values cannot be looked at: there only
shapes and dtypes are checked.
"""

from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

__all__ = [
    "NotFiniteError",
    "check_batch_size",
    "check_choice",
    "check_count",
    "check_features",
    "check_finite",
    "check_indices",
    "check_labels",
    "check_number",
    "check_positive",
    "check_weights",
    "is_traced",
]

_CHUNK_ELEMENTS = 1 << 24


class NotFiniteError(ValueError):
    """NaN or infinity among numbers that should be finite, in the type that holds them."""


def check_features(x: ArrayLike, name: str = "features", *, min_rows: int = 1) -> ArrayLike:
    """Check a matrix of features.

    Args:
      x: ``[n, d]`` real numbers; NumPy and memory-mapped ones are read in row chunks, a `jax.Array`
        on its device.
      name: what to call it in an error.
      min_rows: the smallest ``n`` allowed.

    Returns:
      ``x``, as an array.

    Raises:
      ValueError: not a matrix, too few rows, no columns, not real-valued, NaN or infinite, or
        beyond float32's range.
    """
    x = x if isinstance(x, np.ndarray | jax.Array) else np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"{name}: expected a matrix [n, d], found shape {x.shape}")
    if x.shape[0] < min_rows:
        raise ValueError(f"{name}: expected at least {min_rows} rows, found {x.shape[0]}")
    if x.shape[1] == 0:
        raise ValueError(f"{name}: expected at least one column, found shape {x.shape}")
    if not (np.issubdtype(x.dtype, np.integer) or jnp.issubdtype(x.dtype, np.floating)):
        raise ValueError(f"{name}: expected real numbers, found dtype {x.dtype}")
    check_finite(x, name, jnp.float32)
    return x


def check_finite(x: ArrayLike, name: str, dtype: DTypeLike | None = None) -> None:
    """Check that all numbers are finite, where they can be looked at.

    Args:
      x: ``[n, ...]`` numbers; NumPy and memory-mapped ones are read in row chunks, a `jax.Array` on
        its device.
      name: what to call it in an error.
      dtype: floating-point type that shall hold them too; None for their own.

    Raises:
      ValueError: a NaN, an infinity, or a number beyond the range of ``dtype``.
    """
    x = x if isinstance(x, np.ndarray | jax.Array) else np.asarray(x)
    if is_traced(x) or x.size == 0 or not jnp.issubdtype(x.dtype, np.floating):
        return
    dtype = x.dtype if dtype is None else np.dtype(dtype)
    # What a traced function closes over has values all the same.
    with jax.ensure_compile_time_eval():
        row = _first_bad_row(x, dtype)
        if row is None:
            return
        bad = np.asarray(x[row], np.float64).ravel()
    if not np.isfinite(bad).all():
        raise NotFiniteError(f"{name}: expected finite numbers, found NaN or infinity in row {row}")
    beyond = bad[np.abs(bad) > float(jnp.finfo(dtype).max)][0]
    raise NotFiniteError(
        f"{name}: expected numbers within the range of {dtype}, found {beyond:g} in row {row}"
    )


def _first_bad_row(x: np.ndarray | jax.Array, dtype: np.dtype) -> int | None:
    if isinstance(x, jax.Array):
        finite = np.asarray(_finite_rows(x, dtype))
        return None if finite.all() else int(finite.argmin())
    rows = max(1, _CHUNK_ELEMENTS * len(x) // x.size)
    for start in range(0, len(x), rows):
        chunk = x[start : start + rows].reshape(-1, x[0].size)
        with np.errstate(over="ignore"):
            finite = np.isfinite(chunk.astype(dtype, copy=False)).all(axis=1)
        if not finite.all():
            return start + int(finite.argmin())
    return None


@partial(jax.jit, static_argnames="dtype")
def _finite_rows(x: jax.Array, dtype: np.dtype) -> jax.Array:
    # NaN and infinity times zero are NaN: three times as fast on CPUs as to ask for each.
    return (x.astype(dtype) * 0).reshape(len(x), -1).sum(axis=1) == 0


def is_traced(*values: object) -> bool:
    """Tell whether any of the values is being traced, so that it cannot be looked at."""
    return any(isinstance(value, jax.core.Tracer) for value in values)


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
    """Check a count that has to be one or more.

    Raises:
      ValueError: not a whole number of at least one.
    """
    return check_count(value, name, least=1)


def check_count(value: int, name: str, *, least: int = 0) -> int:
    """Check a count.

    Raises:
      ValueError: not a whole number of at least ``least``.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    return int(value)


def check_number(value: float, name: str, *, least: float, above: bool = False) -> float:
    """Check a finite number against its least value.

    Args:
      value: the number.
      name: its name, for errors.
      least: the least value.
      above: whether the number has to be above it.

    Raises:
      ValueError: it is no number, not finite, or too small.
    """
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not least <= value < np.inf or (above and value == least):
        limit = f"above {least}" if above else f"of {least} or more"
        raise ValueError(f"{name}: expected a number {limit}, found {value!r}")
    return value


def check_choice(value: Any, name: str, kind: Any) -> None:
    """Check one of a few names.

    Args:
      value: what was given.
      name: its name, for errors.
      kind: the `typing.Literal` that lists them, or a sequence of them.

    Raises:
      ValueError: another value.
    """
    choices = get_args(kind) or tuple(kind)
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")


def check_weights(weights: ArrayLike | None, n: int) -> np.ndarray:
    """Check what each of ``n`` rows counts for.

    Args:
      weights: ``[n]`` zero or more; None for one each.
      n: number of rows.

    Returns:
      ``[n]`` float32 on the host.

    Raises:
      ValueError: another shape, or a weight that is negative or not finite in float32.
    """
    if weights is None:
        return np.ones(n, np.float32)
    found = np.asarray(weights, np.float32)
    if found.shape != (n,):
        raise ValueError(f"weights: expected shape ({n},), found {found.shape}")
    bad = ~(np.isfinite(found) & (found >= 0))
    if bad.any():
        raise ValueError(
            f"weights: expected finite numbers of zero or more, found {found[bad.argmax()]} "
            f"in row {bad.argmax()}"
        )
    return found
