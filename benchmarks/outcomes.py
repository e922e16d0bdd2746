"""What every command may come to: a part that is not installed, or an interruption."""

import importlib.util
import logging
import sys
from pathlib import Path

from benchmarks import INSTALL

__all__ = ["STOPPED", "describe_time", "quieten", "require", "stop"]

STOPPED = 130  # the exit status that shells give to what was interrupted


def require(*modules: str) -> None:
    """Check that modules are installed.

    Raises:
      ImportError: they are not; it says how to install them.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)}: not installed; {INSTALL}")


def quieten() -> None:
    """Leave out what Orbax logs in pages beside the errors that it raises.

    Where a disk is full, and where an interruption cuts off its threads.
    """
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def stop(out: Path, *, flag: str | None = "--resume") -> int:
    """Say how to go on after an interruption; return the exit status.

    Args:
      out: where what is done lies.
      flag: what the command has to be given to go on from there; None for nothing.
    """
    added = "" if flag is None else f" with {flag}"
    print(f"\nstopped; the same command{added} goes on from {out}", file=sys.stderr)
    return STOPPED


def describe_time(seconds: float) -> str:
    """Say how long something will take: in seconds under two minutes, in hours from three on."""
    if seconds < 120:
        return f"about {seconds:.0f} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} minutes" if minutes < 180 else f"about {minutes / 60:.0f} hours"
