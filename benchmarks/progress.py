"""Show how far a benchmark is: a bar on a terminal, one line a run elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["Progress", "progress"]


class Progress:
    """Runs of equally many rounds; rounds read from a file count when their run is finished."""

    def __init__(self, runs: int, rounds: int, bar: Any = None) -> None:
        self._runs, self._rounds, self._bar = runs, rounds, bar
        self._task = bar.add_task("", total=runs * rounds) if bar else None
        self._name, self._finished, self._began = "", 0, time.perf_counter()

    def start(self, name: str) -> None:
        """Name the run that begins."""
        self._name = name
        if self._bar:
            self._bar.update(self._task, description=name)

    def step(self) -> None:
        """Count a round."""
        if self._bar:
            self._bar.advance(self._task)

    def finish(self, result: str) -> None:
        """Count a run."""
        self._finished += 1
        if self._bar:
            self._bar.update(self._task, completed=self._finished * self._rounds)
            return
        seconds = time.perf_counter() - self._began
        print(
            f"[{self._finished}/{self._runs}, {seconds:.0f} s] {self._name}: {result}", flush=True
        )


@contextlib.contextmanager
def progress(runs: int, rounds: int) -> Iterator[Progress]:
    """Show the progress of ``runs`` runs of ``rounds`` rounds each."""
    if not sys.stdout.isatty():
        yield Progress(runs, rounds)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeElapsedColumn(), Remaining()) as bar:
        yield Progress(runs, rounds, bar)
