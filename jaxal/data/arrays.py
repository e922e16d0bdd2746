"""Images in NumPy arrays, in memory or mapped from ``.npy`` files."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from numpy.lib.format import open_memmap

from jaxal.checks import check_indices
from jaxal.data.sources import ImageSource, check_annotations
from jaxal.records import fingerprint

__all__ = ["from_arrays", "open_npy"]

_CHUNK_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True, eq=False)
class _Arrays:
    """Images that an array holds."""

    images: np.ndarray  # [n, h, w, c] uint8, or floating point in 0..1
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.images)

    def load(self, rows: np.ndarray) -> np.ndarray:
        chosen = np.asarray(self.images[check_indices(rows, len(self), "rows", unique=False)])
        if chosen.dtype == np.uint8:
            return chosen
        # float16 would round once more at 255 times as much.
        return np.rint(chosen.astype(np.float32) * 255).astype(np.uint8)

    def describe(self) -> dict[str, Any]:
        return {"kind": "arrays", "images": self._fingerprint}

    @functools.cached_property
    def _fingerprint(self) -> dict[str, Any]:
        return fingerprint(self.images)


def from_arrays(
    images: ArrayLike,
    labels: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
) -> ImageSource:
    """Make a source of images that an array holds.

    The array is kept as it is, memory-mapped ones on the disk. Floating-point images, whose numbers
    must lie in 0..1, are rounded to uint8 (255 times as much) as they are loaded.

    Args:
      images: ``[n, h, w, c]`` with one or three channels, or ``[n, h, w]`` for one; uint8 or
        floating point. ``n`` is one or more.
      labels: ``[n]`` integers from 0, or None.
      class_names: distinct names, more than the largest label; or None.

    Returns:
      The source. Its description reads all images, once: a second for every one or two GB.

    Raises:
      ValueError: another shape, dtype or number of channels, no images, numbers outside 0..1, or
        labels or names that do not fit.
    """
    array = images if isinstance(images, np.ndarray) else np.asarray(images)
    if array.ndim not in (3, 4):
        raise ValueError(
            f"images: expected shape [n, h, w, c] or [n, h, w], found shape {array.shape}"
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.shape[3] not in (1, 3):
        raise ValueError(
            f"images: expected one or three channels, on the last axis, found shape {array.shape}"
        )
    if 0 in array.shape:
        raise ValueError(f"images: expected at least one image and pixel, found {array.shape}")
    found_labels, names = check_annotations(labels, class_names, len(array))
    if np.issubdtype(array.dtype, np.floating):
        _check_unit_range(array)
    elif array.dtype != np.uint8:
        raise ValueError(
            f"images: expected uint8, or floating point in 0..1, found dtype {array.dtype}"
        )
    return _Arrays(array, found_labels, names)


def open_npy(
    path: str | Path,
    labels_path: str | Path | None = None,
    class_names: Sequence[str] | None = None,
) -> ImageSource:
    """Make a source of images in a ``.npy`` file, which are read from the disk as they are loaded.

    Args:
      path: the file; see `from_arrays` for what it may hold.
      labels_path: a ``.npy`` file of their labels, or None.
      class_names: as for `from_arrays`.

    Returns:
      The source, the same as of the arrays: its description is, too.

    Raises:
      ValueError: a file is missing, truncated or of another format, or the arrays do not fit.
    """
    labels = None if labels_path is None else np.array(_mapped(labels_path, "labels_path"))
    return from_arrays(_mapped(path, "path"), labels, class_names)


def _mapped(path: str | Path, name: str) -> np.ndarray:
    if not Path(path).is_file():
        raise ValueError(f"{name}: expected a .npy file, found none at {path}")
    try:
        return open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{name}: expected a whole .npy file of numbers, found {path} ({error})"
        ) from error


def _check_unit_range(images: np.ndarray) -> None:
    size = max(1, _CHUNK_BYTES // images[:1].nbytes)
    for start in range(0, len(images), size):
        chunk = images[start : start + size].reshape(-1, images[0].size)
        # NaN compares as False.
        inside = (chunk >= 0) & (chunk <= 1)
        if not inside.all():
            row = int(inside.all(axis=1).argmin())
            value = float(chunk[row][~inside[row]][0])
            raise ValueError(
                "images: expected uint8, or floating point in 0..1, "
                f"found {value:g} in image {start + row}"
            )
