"""Random access to the records of TFRecord files, without TensorFlow.

Such a file is a row of frames: a record's length in 8 bytes, a checksum of that in 4, the record,
and a checksum of it in 4. Nothing says where they begin, so one pass from length to length finds
out. The checksums are not compared; damage to a length shows where the frames do not add up.
"""

import dataclasses
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Part", "RecordFiles", "index_records"]

_HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4


class Part(NamedTuple):
    """Some records of one file, one after the other."""

    path: str
    skip: int  # records before them
    take: int
    total: int  # records of the whole file


@dataclasses.dataclass(frozen=True, eq=False)
class RecordFiles:
    """Records in files, found by `index_records`; holds where they are, not what they are."""

    paths: tuple[str, ...]
    files: np.ndarray  # [n] int64, which of the paths has each record
    offsets: np.ndarray  # [n] int64, its first byte there
    lengths: np.ndarray  # [n] int64

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """Read records, each file's in the order they lie in.

        Args:
          rows: any of 0..n-1, repeated or not.

        Returns:
          The records, in the order asked for.

        Raises:
          OSError: a file is gone, or shorter than it was.
        """
        found: dict[int, bytes] = {}
        wanted = np.unique(np.asarray(rows, np.int64))
        for file in np.unique(self.files[wanted]):
            with open(self.paths[file], "rb") as stream:
                for row in wanted[self.files[wanted] == file].tolist():
                    stream.seek(self.offsets[row])
                    found[row] = stream.read(self.lengths[row])
                    if len(found[row]) < self.lengths[row]:
                        raise OSError(f"{self.paths[file]} is cut short")
        return [found[row] for row in rows]


def index_records(parts: Sequence[Part]) -> RecordFiles:
    """Find where records begin.

    Args:
      parts: what is wanted, in this order.

    Returns:
      The records.

    Raises:
      OSError: a file is missing, cut short, or has another number of records.
    """
    frames = [_find_frames(part.path, part.total)[part.skip :][: part.take] for part in parts]
    joined = np.concatenate([np.empty((0, 2), np.int64), *frames])
    files = np.repeat(np.arange(len(parts)), [len(found) for found in frames])
    return RecordFiles(tuple(part.path for part in parts), files, joined[:, 0], joined[:, 1])


def _find_frames(path: str, total: int) -> np.ndarray:
    """Find the first byte and the length of each record, ``[total, 2]`` int64."""
    frames, found = np.empty((total, 2), np.int64), 0
    with open(path, "rb") as stream:
        size, start = stream.seek(0, 2), 0
        while start < size:
            stream.seek(start)
            header = stream.read(_HEADER.size)
            length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
            first = start + _HEADER.size
            start = first + length + _FOOTER_BYTES
            if start > size:
                raise OSError(f"{path} is cut short or damaged after record {found}")
            if found == total:
                raise OSError(f"{path} has more than {total} records")
            frames[found] = first, length
            found += 1
    if found != total:
        raise OSError(f"{path} has {found} records, not {total}")
    return frames
