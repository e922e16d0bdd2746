"""Errors of the library in the command line's words."""

import contextlib
from collections.abc import Iterator

__all__ = ["as_flags"]


@contextlib.contextmanager
def as_flags(**flags: str) -> Iterator[None]:
    """Let errors that begin with the name of an argument begin with that of a flag.

    Args:
      **flags: the flag for each argument, such as ``path="--folder"``.
    """
    try:
        yield
    except ValueError as error:
        name, colon, rest = str(error).partition(":")
        if not colon or name not in flags:
            raise
        raise ValueError(f"{flags[name]}:{rest}") from error
