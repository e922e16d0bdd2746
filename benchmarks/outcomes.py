"""What every command may come to: a part that is not installed, or an interruption."""

import importlib.util
import sys
from pathlib import Path

from benchmarks import INSTALL

__all__ = ["require", "stop"]

_STOPPED = 130  # the exit status that shells give to what was interrupted


def require(*modules: str) -> None:
    """Check that modules are installed.

    Raises:
      ImportError: they are not; it says how to install them.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)}: not installed; {INSTALL}")


def stop(out: Path) -> int:
    """Say how to go on after an interruption; return the exit status."""
    print(f"\nstopped; the same command with --resume goes on from {out}", file=sys.stderr)
    return _STOPPED
