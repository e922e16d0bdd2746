"""Map a compiled function over the rows of a pool, one padded chunk at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxal.checks import check_positive

__all__ = ["DEFAULT_CHUNK_SIZE", "map_rows", "next_power", "padded_rows"]

DEFAULT_CHUNK_SIZE = 4096


def next_power(count: int, least: int = 1) -> int:
    """Give the power of two that ``count`` fits into, and no less than ``least``.

    Arrays of such lengths let calls with ever more labelled samples share compiled programs.
    """
    return max(least, 1 << (count - 1).bit_length() if count > 0 else 1)


def padded_rows(rows: np.ndarray, *, multiple: int = 1, fill: int | None = None) -> np.ndarray:
    """Pad row numbers to a power of two times ``multiple``.

    Args:
      rows: ``[count]`` integers.
      multiple: of which the length is a power of two.
      fill: what follows; None for the first of them, or 0 where there are none.

    Returns:
      ``[length]`` int64.
    """
    if fill is None:
        fill = rows[0] if len(rows) else 0
    padded = np.full(multiple * next_power(-(-len(rows) // multiple)), fill, np.int64)
    padded[: len(rows)] = rows
    return padded


def map_rows(
    fn: Callable[..., Any],
    *arrays: ArrayLike,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    dtype: DTypeLike | None = None,
) -> Any:
    """Apply ``fn`` to the rows of ``arrays`` in chunks and join the results.

    The last chunk is padded by repeating its last row and the padding's results are dropped, so
    ``fn`` (jit it) compiles for one shape and no divisibility is asked for. Rows must not influence
    one another within ``fn``.

    Args:
      fn: maps ``[chunk, ...]`` arrays to a pytree of ``[chunk, ...]`` arrays.
      *arrays: ``[n, ...]``, equal ``n``; NumPy, memory-mapped or JAX.
      chunk_size: rows held at once; changes no result.
      dtype: what each chunk of floating-point numbers is cast to on its way to the device.

    Returns:
      The pytree of ``[n, ...]`` results.

    Raises:
      ValueError: a chunk size below one, no rows, or arrays of unequal length.
    """
    check_positive(chunk_size, "chunk_size")
    n = np.shape(arrays[0])[0]
    if n == 0 or any(np.shape(array)[0] != n for array in arrays):
        found = ", ".join(str(np.shape(array)[0]) for array in arrays)
        raise ValueError(f"arrays: expected equally many rows, one or more, found {found}")
    size = min(chunk_size, n)
    pieces = []
    for start in range(0, n, size):
        stop = min(start + size, n)
        chunk = [_padded(array, start, stop, size, dtype) for array in arrays]
        piece = fn(*chunk)
        if stop - start < size:
            piece = jax.tree.map(lambda leaf, rows=stop - start: leaf[:rows], piece)
        pieces.append(piece)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pieces)


def _padded(array: Any, start: int, stop: int, size: int, dtype: DTypeLike | None) -> jax.Array:
    rows = jnp.asarray(array[start:stop])
    if dtype is not None and jnp.issubdtype(rows.dtype, jnp.floating):
        rows = rows.astype(dtype)
    if stop - start < size:
        rows = jnp.concatenate([rows, jnp.repeat(rows[-1:], size - (stop - start), axis=0)])
    return rows
