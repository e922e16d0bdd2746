"""Bring labelled images to the device, batch by batch, in an order that a key decides."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxal.checks import check_features
from jaxal.chunking import next_power
from jaxal.data.batches import load_ahead
from jaxal.data.sources import ImageSource
from jaxal.sharding import (
    batch_sharding,
    check_mesh,
    local_rows,
    replicate,
    replicated_sharding,
    shard_batch,
)

__all__ = [
    "Loader",
    "RowBatch",
    "check_images",
    "even_batches",
    "fetcher",
    "make_loader",
    "next_capacity",
    "padded_size",
    "plain_batches",
    "resident_loader",
    "split_validation",
    "streaming_loader",
]

_SMALLEST_CAPACITY = 16


class RowBatch(NamedTuple):
    """Which rows make up a batch."""

    rows: np.ndarray  # [b] int64
    mask: np.ndarray  # [b] bool, False for padding


# Batches of rows to batches of {"images": [b, ...] as they are given, "labels": int32 [b], "mask"}.
Loader = Callable[[Iterable[RowBatch]], Iterator[dict[str, Any]]]


def next_capacity(count: int) -> int:
    """Choose how many rows a growing set is padded to, so that few sizes are compiled.

    Args:
      count: rows, one or more.

    Returns:
      The power of two, 16 or more, that is not below ``count``.
    """
    return next_power(count, _SMALLEST_CAPACITY)


def padded_size(count: int, mesh: Mesh | None, *, accumulate: int = 1) -> int:
    """Choose how many rows a batch is padded to.

    Args:
      count: the most rows of a batch.
      mesh: devices to lay it over; None for one.
      accumulate: parts that it is cut into.

    Returns:
      The multiple of devices and parts that is not below ``count``.

    Raises:
      ValueError: another mesh.
    """
    multiple = accumulate * (1 if mesh is None else check_mesh(mesh).size)
    return -(-count // multiple) * multiple


def even_batches(
    key: jax.Array, rows: np.ndarray, *, train_batch_size: int, step_rows: int
) -> list[RowBatch]:
    """Shuffle rows into batches whose sizes differ by one at most.

    Even batches, since a small remainder would give poor batch statistics.

    Args:
      key: the order, which is the same in every process.
      rows: ``[n]``, one or more.
      train_batch_size: the most rows of a batch.
      step_rows: what batches are padded to, at least the rows of the largest.

    Returns:
      ``ceil(n / train_batch_size)`` batches of every row once.
    """
    # Drawn at the padded length, which a growing labelled set shares: one compilation.
    draws = np.asarray(jax.random.uniform(key, (next_capacity(len(rows)),)))[: len(rows)]
    shuffled = rows[np.argsort(draws, kind="stable")]
    parts = np.array_split(shuffled, -(-len(rows) // train_batch_size))
    return [_padded(part, step_rows) for part in parts]


def plain_batches(rows: np.ndarray, step_rows: int) -> list[RowBatch]:
    """Cut rows into batches in their order.

    Args:
      rows: ``[n]``.
      step_rows: of a batch.

    Returns:
      ``ceil(n / step_rows)`` batches, the last one padded by its last row.
    """
    return [
        _padded(rows[start : start + step_rows], step_rows)
        for start in range(0, len(rows), step_rows)
    ]


def split_validation(
    key: jax.Array, labels: np.ndarray, fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a part of the labelled samples, class by class.

    The share of each class is ``fraction`` of its samples, remainders going to the largest ones, to
    ``round(fraction · n)`` in all, while one sample of every class stays. None are held out where
    there are fewer than two samples for each class seen.

    Args:
      key: which samples of a class are held out.
      labels: ``[n]`` int.
      fraction: 0 or more, under 1.

    Returns:
      The rows left and those held out, ascending.
    """
    n = len(labels)
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    target = round(fraction * n)
    if target == 0 or n < 2 * len(classes):
        return np.arange(n), np.zeros(0, np.int64)
    taken = np.minimum(np.floor(fraction * counts).astype(int), counts - 1)
    while taken.sum() < target and (taken < counts - 1).any():
        lack = np.where(taken < counts - 1, fraction * counts - taken, -np.inf)
        taken[np.argmax(lack)] += 1
    draws = np.asarray(jax.random.uniform(key, (next_capacity(n),)))[:n]
    order = np.lexsort((draws, inverse))
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n) - (np.cumsum(counts) - counts)[inverse[order]]
    held = rank < taken[inverse]
    return np.flatnonzero(~held), np.flatnonzero(held)


def check_images(images: Any, name: str = "images", *, features: bool = False) -> int:
    """Check images and count them.

    Args:
      images: what to check.
      name: what to call them in an error.
      features: whether they may be features instead, ``[n, d]``.

    Raises:
      ValueError: neither uint8 ``[n, h, w, c]`` nor an `ImageSource`, or none of them.
    """
    if isinstance(images, ImageSource):
        pass
    elif features and isinstance(images, np.ndarray | jax.Array) and images.ndim == 2:
        check_features(images, name)
        if images.dtype == np.uint8:
            raise ValueError(f"{name}: expected features of another dtype than uint8, found it")
    else:
        shape, dtype = getattr(images, "shape", ()), getattr(images, "dtype", None)
        if len(shape) != 4 or dtype != np.uint8:
            found = type(images).__name__ if dtype is None else f"{dtype} {shape}"
            others = ", features [n, d]" if features else ""
            raise ValueError(
                f"{name}: expected uint8 [n, h, w, c]{others} or an image source, found {found}"
            )
    n = len(images)
    if n == 0:
        raise ValueError(f"{name}: expected one image or more, found none")
    return n


def fetcher(images: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function that loads rows of images.

    Args:
      images: see `check_images`.

    Returns:
      ``fetch(rows [k]) -> [k, ...]``, uint8 images or features, on the host.
    """
    if isinstance(images, ImageSource):
        return images.load
    return lambda rows: np.asarray(images[rows])


def make_loader(images: Any, labels: np.ndarray, mesh: Mesh | None) -> Loader:
    """Choose a loader: arrays are kept on the devices, images of a source loaded when needed.

    Args:
      images: ``[n, h, w, c]`` uint8, features ``[n, d]``, or an `ImageSource` of n images.
      labels: ``[n]`` int32.
      mesh: devices to lay batches over; None for the default one.

    Returns:
      The loader.
    """
    if isinstance(images, ImageSource):
        return streaming_loader(images.load, labels, mesh)
    return resident_loader(np.asarray(images), labels, mesh)


def resident_loader(images: np.ndarray, labels: np.ndarray, mesh: Mesh | None) -> Loader:
    """Keep images on the device, or a copy on each, and gather batches there.

    Every device holds all images, padded to the next capacity, so that growing labelled sets share
    one compiled gather: less than twice their ``n · h · w · c`` bytes, or those of 16 images.

    Args:
      images: ``[n, h, w, c]`` uint8, or features ``[n, d]``.
      labels: ``[n]`` int32.
      mesh: devices to lay batches over; None for the default one.

    Returns:
      The loader.
    """
    extra = next_capacity(len(images)) - len(images)
    beside = ((0, 0),) * (images.ndim - 1)
    held: Any = (np.pad(images, ((0, extra), *beside)), np.pad(labels, (0, extra)))
    held = jax.tree.map(jnp.asarray, held) if mesh is None else replicate(mesh, held)
    take = _compiled_take(mesh)

    def load(batches: Iterable[RowBatch]) -> Iterator[dict[str, Any]]:
        for batch in batches:
            own = _own_rows(batch, mesh)
            placed = {"rows": own.rows.astype(np.int32), "mask": own.mask}
            yield take(*held, placed if mesh is None else shard_batch(mesh, placed))

    return load


def streaming_loader(
    fetch: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, mesh: Mesh | None
) -> Loader:
    """Load images as they are needed, one batch ahead in a thread.

    Every process loads the rows of its own devices, and holds two batches of them.

    Args:
      fetch: see `fetcher`; called in the thread. What it raises is raised to who iterates.
      labels: ``[n]`` int32.
      mesh: devices to lay batches over; None for the default one.

    Returns:
      The loader.
    """

    def read(batch: RowBatch) -> dict[str, Any]:
        own = _own_rows(batch, mesh)
        return {"images": fetch(own.rows), "labels": labels[own.rows], "mask": own.mask}

    def load(batches: Iterable[RowBatch]) -> Iterator[dict[str, Any]]:
        for loaded in load_ahead(read, batches, 1):
            yield _placed(loaded, mesh)

    return load


def _padded(rows: np.ndarray, size: int) -> RowBatch:
    padded = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))])
    return RowBatch(padded, np.arange(size) < len(rows))


def _own_rows(batch: RowBatch, mesh: Mesh | None) -> RowBatch:
    if mesh is None:
        return batch
    own = local_rows(mesh, len(batch.rows))
    return RowBatch(batch.rows[own], batch.mask[own])


def _placed(batch: dict[str, Any], mesh: Mesh | None) -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, batch) if mesh is None else shard_batch(mesh, batch)


@lru_cache(maxsize=16)
def _compiled_take(mesh: Mesh | None) -> Callable[..., dict[str, jax.Array]]:
    def take(images: jax.Array, labels: jax.Array, batch: dict[str, Any]) -> dict[str, jax.Array]:
        rows = batch["rows"]
        return {"images": images[rows], "labels": labels[rows], "mask": batch["mask"]}

    if mesh is None:
        return jax.jit(take)
    copied, spread = replicated_sharding(mesh), batch_sharding(mesh)
    return jax.jit(take, in_shardings=(copied, copied, spread), out_shardings=spread)
