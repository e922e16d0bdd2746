"""Sources of images: rows that are loaded when they are asked for."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_indices, check_labels
from jaxal.records import fingerprint

__all__ = ["ImageSource", "check_annotations", "check_source", "take"]


@runtime_checkable
class ImageSource(Protocol):
    """Images of one size, by row.

    `from_arrays`, `open_npy`, `open_folder`, `open_tfds` and `take` make sources.
    """

    @property
    def labels(self) -> np.ndarray | None:
        """Classes ``[n]`` int32 in 0..c-1, or None where they are not known."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the ``c`` classes, where they have any."""

    def __len__(self) -> int:
        """Count the rows ``n``."""

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Load images.

        Args:
          rows: ``[k]`` integers in 0..n-1, in any order, repeated or not.

        Returns:
          ``[k, h, w, c]`` uint8, with one or three channels.

        Raises:
          ValueError: rows that are not there, or an image that cannot be read; the error names it.
        """

    def describe(self) -> dict[str, Any]:
        """Say what JSON can hold and what tells these images from others, for fingerprints.

        Labels do not enter: features computed from the images stay right when labels change.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class _Subset:
    """Some rows of another source."""

    source: ImageSource
    rows: np.ndarray  # [n] int64, rows of `source`
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, rows: np.ndarray) -> np.ndarray:
        return self.source.load(self.rows[check_indices(rows, len(self), "rows", unique=False)])

    def describe(self) -> dict[str, Any]:
        return {"kind": "subset", "rows": fingerprint(self.rows), "of": self.source.describe()}


def take(source: ImageSource, rows: ArrayLike) -> ImageSource:
    """View some rows of a source as a source of their own; nothing is loaded or copied.

    Args:
      source: the whole.
      rows: ``[k]`` distinct rows of it, at least one, in the order they shall have.

    Returns:
      The view, whose row i is row ``rows[i]`` of ``source``; all class names are kept.

    Raises:
      ValueError: not a source, no rows, rows that are not there, or one of them twice.
    """
    check_source(source)
    chosen = check_indices(rows, len(source), "rows")
    if chosen.size == 0:
        raise ValueError("rows: expected at least one row, found none")
    labels = None if source.labels is None else source.labels[chosen]
    return _Subset(source, chosen, labels, source.class_names)


def check_source(source: ImageSource) -> ImageSource:
    """Check that something is a source of images, with at least one.

    Raises:
      ValueError: it is none, or is empty.
    """
    if not isinstance(source, ImageSource):
        raise ValueError(
            "source: expected a source of images, such as jaxal.data.from_arrays makes, "
            f"found {type(source).__name__}"
        )
    if len(source) == 0:
        raise ValueError("source: expected at least one image, found none")
    return source


def check_annotations(
    labels: ArrayLike | None, class_names: Sequence[str] | None, length: int
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Check labels and names of classes against each other and the number of images.

    Args:
      labels: ``[n]`` integers from 0, or None.
      class_names: distinct names, or None; then the largest label gives the number of classes.
      length: the ``n`` expected.

    Returns:
      ``[n]`` int32 and a tuple, each None where it was.

    Raises:
      ValueError: names that are no distinct strings, or labels of another length, not integers,
        below 0 or beyond the names.
    """
    names = None
    if class_names is not None:
        names = tuple(class_names)
        if isinstance(class_names, str) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"class_names: expected a sequence of strings, found {class_names!r}")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"class_names: expected each name once, found {twice!r} twice")
        if not names:
            raise ValueError("class_names: expected at least one name, found none")
    if labels is None:
        return None, names
    found = np.asarray(labels)
    num_classes = 1 if names is None else len(names)
    if names is None and found.size and np.issubdtype(found.dtype, np.integer):
        # Labels are kept as int32: a larger one is refused, not wrapped.
        num_classes = min(max(1, int(found.max()) + 1), np.iinfo(np.int32).max)
    return check_labels(found, num_classes, length=length), names
