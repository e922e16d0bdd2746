"""Batches of a source's images, loaded ahead of their use."""

import collections
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_count, check_indices, check_positive
from jaxal.data.sources import ImageSource, check_source

__all__ = ["epoch_batches", "epoch_order", "load_ahead", "load_batches"]

T = TypeVar("T")
U = TypeVar("U")


def epoch_batches(
    key: jax.Array,
    source: ImageSource,
    batch_size: int,
    *,
    epoch: int,
    drop_remainder: bool = False,
    prefetch: int = 2,
    put: Callable[[dict[str, np.ndarray]], Any] | None = None,
) -> Generator[Any, None, None]:
    """Go through all images once, in the order of one epoch.

    Nothing is remembered from call to call: key and epoch give the order, so that training that was
    interrupted goes on with the very same batches.

    Args:
      key: the order, with ``epoch``.
      source: the images.
      batch_size: rows a batch; see `load_batches` for how the last one is filled.
      epoch: which, 0 or more.
      drop_remainder: see `load_batches`.
      prefetch: see `load_batches`.
      put: see `load_batches`.

    Returns:
      The batches, see `load_batches`.

    Raises:
      ValueError: a bad source or option, or as `load_batches`.
    """
    check_source(source)
    return load_batches(
        source,
        epoch_order(key, len(source), epoch),
        batch_size,
        drop_remainder=drop_remainder,
        prefetch=prefetch,
        put=put,
    )


def epoch_order(key: jax.Array, n: int, epoch: int) -> np.ndarray:
    """Shuffle the rows ``0..n-1`` for one epoch.

    It happens on the host, where no compilation for each ``n`` is needed.

    Args:
      key: decides, with ``epoch``.
      n: number of rows.
      epoch: which, 0 or more.

    Returns:
      ``[n]`` int64, each row once.

    Raises:
      ValueError: a number of rows below one, or an epoch that is no whole number of 0 or more.
    """
    check_positive(n, "n")
    check_count(epoch, "epoch")
    words = np.asarray(jax.random.key_data(jax.random.fold_in(key, epoch)))
    seed = np.random.SeedSequence(words.ravel().tolist())
    return np.random.Generator(np.random.Philox(seed)).permutation(n)


def load_batches(
    source: ImageSource,
    rows: ArrayLike,
    batch_size: int,
    *,
    drop_remainder: bool = False,
    prefetch: int = 2,
    put: Callable[[dict[str, np.ndarray]], Any] | None = None,
) -> Generator[Any, None, None]:
    """Load rows of a source, batch by batch, in a thread ahead of their use.

    Every batch has ``batch_size`` rows, so that compiled functions see one shape only: the last is
    filled by repeating its first row, and so is the only one of a source smaller than a batch.
    ``mask`` is False there.

    Iterating over what is returned starts the thread; it ends with the last batch, or when the
    generator is closed or forgotten. What goes wrong in it is raised to who iterates.

    Args:
      source: the images.
      rows: ``[k]`` rows of it, at least one, in the order to load them; may repeat.
      batch_size: rows a batch.
      drop_remainder: leave out the last batch if it is not full.
      prefetch: how many batches are held ready beside the one in use; with 0 none is loaded ahead.
      put: applied to each batch in the thread, to send it to devices for example; what it returns
        is given out in the batch's stead.

    Returns:
      Batches: ``images`` ``[batch_size, h, w, c]`` uint8, ``rows`` ``[batch_size]`` int32,
      ``labels`` ``[batch_size]`` int32 where the source has them, and ``mask`` ``[batch_size]``
      bool.

    Raises:
      ValueError: a bad source or option, no rows, rows that are not there, or fewer of them than a
        batch where the remainder is dropped; while iterating, an image that cannot be read.
    """
    check_source(source)
    check_positive(batch_size, "batch_size")
    check_count(prefetch, "prefetch")
    chosen = check_indices(rows, len(source), "rows", unique=False)
    if chosen.size == 0:
        raise ValueError("rows: expected at least one row, found none")
    if drop_remainder and len(chosen) < batch_size:
        raise ValueError(
            f"batch_size: expected at most {len(chosen)}, the number of rows, where the remainder "
            f"is dropped, found {batch_size}"
        )

    def load(start: int) -> Any:
        batch = _load(source, chosen[start : start + batch_size], batch_size)
        return batch if put is None else put(batch)

    stop = len(chosen) - batch_size + 1 if drop_remainder else len(chosen)
    return load_ahead(load, range(0, stop, batch_size), prefetch)


def load_ahead(
    load: Callable[[T], U], items: Iterable[T], prefetch: int
) -> Generator[U, None, None]:
    """Give what ``load`` makes of every item in turn, the next being worked on meanwhile.

    Args:
      load: called in a thread. What it raises is raised to who iterates.
      items: what to load, in order.
      prefetch: how many are loaded ahead of the one in use, 0 or more.

    Returns:
      What is loaded. The thread ends with the last item, or when the generator is closed.
    """
    waiting: collections.deque[Future[U]] = collections.deque()
    with ThreadPoolExecutor(1, "jaxal-batches") as thread:
        try:
            for item in items:
                waiting.append(thread.submit(load, item))
                if len(waiting) > prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Whatever ended the iteration, what is not begun yet need not be loaded any more.
            for future in waiting:
                future.cancel()


def _load(source: ImageSource, rows: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    images = source.load(rows)
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(rows):
        raise ValueError(
            f"source: expected it to load [{len(rows)}, h, w, c] uint8, "
            f"found shape {images.shape}, {images.dtype}"
        )
    missing = batch_size - len(rows)
    mask = np.arange(batch_size) < len(rows)
    if missing:
        # Repeated here, not in what is loaded: no image is decoded twice.
        images = np.concatenate([images, np.repeat(images[:1], missing, axis=0)])
        rows = np.concatenate([rows, np.repeat(rows[:1], missing)])
    batch = {"images": images, "rows": rows.astype(np.int32), "mask": mask}
    if source.labels is not None:
        batch["labels"] = source.labels[rows]
    return batch
