"""A matrix on the disk that grows by rows and is there whole or not at all.

Three files stand for one matrix: ``NAME.json`` says what it depends on and how many rows are done,
``NAME.partial.npy`` grows, and ``NAME.npy`` is what that is renamed to when all rows are done.
"""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from jaxal.records import check_path, read_record, write_record

__all__ = ["CachePaths", "RowWriter", "cache_paths", "map_cache", "open_writer"]

# Progress is recorded at most this often, since making it last takes the disk some time.
_SAVE_SECONDS = 5.0
_HEADER_BYTES = 128
# What is given up of the rows to record the others, when the disk is full.
_ROOM_BYTES = 1 << 16


class CachePaths(NamedTuple):
    """Where the files of one matrix are."""

    final: Path
    partial: Path
    record: Path


class _Progress(NamedTuple):
    """What the record holds."""

    columns: int
    done: int  # rows


def cache_paths(path: str | Path) -> CachePaths:
    """Name the files of one matrix.

    Args:
      path: the matrix's file; ``.npy`` may be left out.

    Raises:
      ValueError: its folder is missing, or it is a folder.
    """
    path = Path(path)
    stem = path.with_name(path.name.removesuffix(".npy"))
    paths = CachePaths(
        *(stem.with_name(stem.name + end) for end in (".npy", ".partial.npy", ".json"))
    )
    check_path(paths.final)
    return paths


def map_cache(
    paths: CachePaths, settings: Mapping[str, Any], rows: int, dtype: np.dtype
) -> np.memmap | None:
    """Map a matrix that is complete.

    Args:
      paths: its files.
      settings: what it depends on, see `jaxal.records.describe`.
      rows: how many it has to have.
      dtype: of its numbers.

    Returns:
      ``[rows, columns]``, read-only; None where there is none yet or it is not complete.

    Raises:
      ValueError: it depends on other settings (the error says which), or its files are damaged or
        do not belong together.
    """
    if not paths.record.exists():
        if paths.final.exists():
            raise ValueError(
                f"path: expected {paths.record.name} beside {paths.final}, to say what it holds, "
                "found none; move the file away or choose another path"
            )
        return None
    progress = _read_progress(paths, settings, rows)
    if not paths.final.exists():
        return None
    try:
        matrix = npy.open_memmap(paths.final, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{paths.final}: truncated or damaged ({error}); {_ADVICE}") from error
    shape = (rows, progress.columns)
    if progress.done < rows or matrix.shape != shape or matrix.dtype != dtype:
        raise ValueError(
            f"{paths.final}: expected shape {shape}, {dtype}, and all rows done, found shape "
            f"{matrix.shape}, {matrix.dtype}, and {progress.done} done; {_ADVICE}"
        )
    return matrix


@contextlib.contextmanager
def open_writer(
    paths: CachePaths, settings: Mapping[str, Any], rows: int, dtype: np.dtype, *, resume: bool
) -> Iterator["RowWriter"]:
    """Open a matrix that is not complete, to append rows.

    Progress is recorded when the context ends, for whatever reason, and now and then before. A
    matrix whose rows are all done gets its final name at the end.

    Args:
      paths: its files.
      settings: what it depends on.
      rows: how many it will have.
      dtype: of its numbers.
      resume: go on behind the rows that are done; else start over.

    Raises:
      BlockingIOError: another process has it open.
      ValueError: other settings, or the rows that should be done are not there.
      OSError: the disk is full.
    """
    paths.partial.touch()
    # Not buffered, so that what was written is known when the disk is full.
    with paths.partial.open("r+b", buffering=0) as file:
        locked = _lock(file, paths)
        writer = RowWriter(file, paths, settings, rows, dtype)
        if resume and paths.record.exists() and _length(file):
            writer.resume(_read_progress(paths, settings, rows))
        else:
            # The record first: it must never speak of rows that are gone.
            paths.record.unlink(missing_ok=True)
            file.truncate(0)
        try:
            yield writer
            writer.save()
            # While it is locked, so that no other process has begun it anew.
            if locked and writer.done == rows:
                os.replace(paths.partial, paths.final)
        except BaseException:
            # What went wrong first is what to tell.
            with contextlib.suppress(OSError):
                writer.save()
            raise
        finally:
            if writer.done == 0:
                # While it is locked, so that no other process has begun to write it.
                with contextlib.suppress(OSError):
                    paths.partial.unlink()
    if not locked and writer.done == rows:
        # Systems without such locks may not rename an open file either.
        with contextlib.suppress(FileNotFoundError):
            os.replace(paths.partial, paths.final)


class RowWriter:
    """Appends rows to a matrix; `open_writer` makes it.

    Attributes:
      done: rows that are written.
    """

    def __init__(
        self,
        file: BinaryIO,
        paths: CachePaths,
        settings: Mapping[str, Any],
        rows: int,
        dtype: np.dtype,
    ):
        self.done = 0
        self._file = file
        self._paths = paths
        self._settings = settings
        self._rows = rows
        self._dtype = dtype
        self._columns: int | None = None
        self._start = 0  # bytes before the first row
        self._recorded = 0  # rows
        self._saved = time.monotonic()

    def resume(self, progress: _Progress) -> None:
        """Go on behind the rows that are done."""
        header = {}
        with contextlib.suppress(ValueError, EOFError):
            header = _read_header(self._file)
        self._start = self._file.tell()
        self._columns = progress.columns
        self.done = self._recorded = progress.done
        expected = {"shape": (self._rows, progress.columns), "dtype": self._dtype}
        if header != expected or _length(self._file) < self._end():
            raise ValueError(
                f"{self._paths.partial}: expected {progress.done} rows of {progress.columns} "
                f"{self._dtype} numbers, as {self._paths.record.name} says, found it truncated or "
                "damaged; with resume=False the work starts over"
            )
        self._cut()
        self._check_space()

    def append(self, chunk: np.ndarray) -> None:
        """Write rows.

        Args:
          chunk: ``[k, columns]`` in the matrix's dtype.

        Raises:
          ValueError: another number of columns than before.
          OSError: the disk is full; what was done before is kept, or most of it.
        """
        if self._columns is None:
            self._columns = chunk.shape[1]
            self._check_space()
            with self._explained():
                _write_header(self._file, (self._rows, self._columns), self._dtype)
            self._start = self._file.tell()
        if chunk.shape[1] != self._columns:
            raise ValueError(
                f"apply: expected {self._columns} features, as in the rows done before, "
                f"found {chunk.shape[1]}"
            )
        with self._explained():
            _write(self._file, np.ascontiguousarray(chunk).data.cast("B"))
        self.done += len(chunk)
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Make the rows last, then record how many they are.

        Raises:
          OSError: the disk is full; what was done before is kept, or most of it.
        """
        with self._explained():
            self._record()

    def _record(self) -> None:
        if self.done > self._recorded:
            os.fsync(self._file.fileno())
            progress = _Progress(self._columns or 0, self.done)
            write_record(self._paths.record, progress, self._settings)
        self._recorded, self._saved = self.done, time.monotonic()

    def _end(self) -> int:
        return self._start + self.done * (self._columns or 0) * self._dtype.itemsize

    def _cut(self) -> None:
        """Drop what follows the rows that are done, and go there."""
        self._file.truncate(self._end())
        self._file.seek(self._end())

    def _check_space(self) -> None:
        left = (self._rows - self.done) * (self._columns or 0) * self._dtype.itemsize
        free = shutil.disk_usage(self._paths.partial.parent).free
        if left + _HEADER_BYTES > free:
            raise OSError(
                errno.ENOSPC,
                f"expected {left / 1e9:.3g} GB free for {self._rows - self.done} rows of "
                f"{self._columns} {self._dtype} numbers, found {free / 1e9:.3g} GB; free some "
                "space and call again",
                str(self._paths.partial.parent),
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut()
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._record_on_full_disk()
            raise OSError(
                error.errno,
                f"disk full with {self.done} of {self._rows} rows done; free some space and call "
                "again to go on from there",
                str(self._paths.partial),
            ) from error

    def _record_on_full_disk(self) -> None:
        for given_up in (0, _ROOM_BYTES):
            rows = -(-given_up // max(1, (self._columns or 0) * self._dtype.itemsize))
            self.done = max(self._recorded, self.done - rows)
            with contextlib.suppress(OSError):
                self._cut()
                self._record()
                return
        self.done = self._recorded
        with contextlib.suppress(OSError):
            self._cut()


_ADVICE = "to compute it anew, delete its files; or choose another path"


def _read_progress(paths: CachePaths, settings: Mapping[str, Any], rows: int) -> _Progress:
    try:
        content = read_record(paths.record, settings)
    except ValueError as error:
        raise ValueError(f"{error}; {_ADVICE}") from error
    try:
        progress = _Progress(**content)
        valid = 0 < progress.done <= rows and progress.columns > 0
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"{paths.record}: damaged, found {content!r}; {_ADVICE}")
    return progress


def _lock(file: BinaryIO, paths: CachePaths) -> bool:
    """Keep other processes away while the file is open, and tell whether the system has locks."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(
            errno.EAGAIN, "another process is writing it; wait until it is done", str(paths.partial)
        ) from error
    except OSError:
        return False
    # Between our opening and locking it, another process may have renamed or removed it.
    try:
        same = os.path.samestat(os.fstat(file.fileno()), paths.partial.stat())
    except FileNotFoundError:
        same = False
    if not same or paths.final.exists():
        if same and not _length(file):
            paths.partial.unlink()
        raise BlockingIOError(
            errno.EAGAIN, "another process has just written it; call again", str(paths.partial)
        )
    return True


def _length(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _read_header(file: BinaryIO) -> dict[str, Any]:
    if npy.read_magic(file) != (1, 0):
        return {}
    shape, _, dtype = npy.read_array_header_1_0(file)
    return {"shape": shape, "dtype": dtype}


def _write_header(file: BinaryIO, shape: tuple[int, int], dtype: np.dtype) -> None:
    descr = npy.dtype_to_descr(dtype)
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def _write(file: BinaryIO, data: memoryview) -> None:
    # A file without a buffer may take less than it is given.
    while data:
        data = data[file.write(data) :]
