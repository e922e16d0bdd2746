"""Which image a row of features is of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxal.records import replacing

__all__ = ["Origin", "find_origin", "write_lines", "write_origin"]

_ROWS, _FILES, _LEFT_OUT = "_rows.npy", "_files.txt", "_left_out.txt"
# Names with line breaks would shift all lines behind them: all that str.splitlines breaks at.
_BREAKS = str.maketrans(
    {c: c.encode("unicode_escape").decode() for c in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}
)


class Origin(NamedTuple):
    """Where the images of a pool or a test set are from."""

    rows: np.ndarray | None  # [n] of all that were named, where some were chosen
    files: tuple[str, ...] | None  # n of them, where they are files in a folder
    left_out: tuple[tuple[str, str], ...]  # what cannot be read, and why


def find_origin(source: Any, rows: np.ndarray | None) -> Origin:
    """Say where images are from.

    Args:
      source: all that were named, as `jaxal.data` opened them.
      rows: ``[n]`` of it that were chosen; None for all.
    """
    files = getattr(source, "files", None)
    if files is not None:
        paths = [str(source.root / file) for file in files]
        files = tuple(paths if rows is None else (paths[row] for row in rows))
    return Origin(rows, files, tuple(getattr(source, "problems", ())))


def write_origin(out: Path, name: str, origin: Origin) -> None:
    """Write the files ``NAME_rows.npy``, ``NAME_files.txt`` and ``NAME_left_out.txt``.

    Those that there is nothing for are removed, since they are of an earlier run.
    """
    write_lines(out / f"{name}{_FILES}", origin.files)
    write_lines(out / f"{name}{_LEFT_OUT}", [f"{x}: {why}" for x, why in origin.left_out])
    if origin.rows is None:
        (out / f"{name}{_ROWS}").unlink(missing_ok=True)
    else:
        with replacing(out / f"{name}{_ROWS}") as file:
            np.save(file, origin.rows)


def write_lines(path: Path, lines: Sequence[str] | None) -> None:
    """Write one name a line, line breaks in them escaped; without any, remove the file."""
    if not lines:
        path.unlink(missing_ok=True)
        return
    text = "".join(line.translate(_BREAKS) + "\n" for line in lines)
    with replacing(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
