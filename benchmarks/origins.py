"""Which image a row of features is of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Origin", "find_origin", "write_origin"]

_ROWS, _FILES, _LEFT_OUT = "_rows.npy", "_files.txt", "_left_out.txt"
# Names with line breaks would shift all lines behind them.
_BREAKS = str.maketrans({"\n": "\\n", "\r": "\\r"})


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
    _write_lines(out / f"{name}{_FILES}", origin.files)
    _write_lines(out / f"{name}{_LEFT_OUT}", [f"{x}: {why}" for x, why in origin.left_out])
    if origin.rows is None:
        (out / f"{name}{_ROWS}").unlink(missing_ok=True)
    else:
        np.save(out / f"{name}{_ROWS}", origin.rows)


def _write_lines(path: Path, lines: Sequence[str] | None) -> None:
    if not lines:
        path.unlink(missing_ok=True)
        return
    text = "".join(line.translate(_BREAKS) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
