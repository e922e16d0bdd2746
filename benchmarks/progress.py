"""Show how far a benchmark is: a bar on a terminal, one line a run elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.outcomes import describe_time

__all__ = ["Progress", "progress"]

_TELLING = 3  # the round that tells what those of the first run take: those before it compile


class Progress:
    """Runs of equally many rounds; rounds read from a file count when their run is finished.

    The time left is taken from the rounds that were run: a run takes, each round, what the last one
    of the same kind did, or what all kinds do where there was none of its own. Compilation, which
    first runs have to themselves, makes that too long rather than too short. Before any run is
    finished, its third round stands for all.
    """

    def __init__(self, kinds: Sequence[str], rounds: int, bar: Any = None) -> None:
        self._kinds, self._rounds, self._bar = tuple(kinds), rounds, bar
        self._task = bar.add_task("", total=len(kinds) * rounds, left="") if bar else None
        self._name, self._finished, self._began = "", 0, time.perf_counter()
        self._steps, self._started, self._stepped = 0, self._began, self._began
        self._spent: dict[str, tuple[float, int]] = {}  # by kind: seconds, rounds

    def start(self, name: str) -> None:
        """Name the run that begins."""
        self._name, self._steps, self._started = name, 0, time.perf_counter()
        if self._bar:
            self._bar.update(self._task, description=name)

    def step(self) -> None:
        """Count a round."""
        now = time.perf_counter()
        self._steps += 1
        if self._bar:
            self._bar.advance(self._task)
        if self._steps == _TELLING and not self._spent:
            rounds = (len(self._kinds) - self._finished) * self._rounds - self._steps
            left = f"{describe_time(rounds * (now - self._stepped))} left"
            if self._bar:
                self._bar.update(self._task, left=left)
            elif rounds:
                print(f"{left}, if all rounds are like this one of {self._name}", flush=True)
        self._stepped = now

    def finish(self, result: str) -> None:
        """Count a run."""
        kind, now = self._kinds[self._finished], time.perf_counter()
        if self._steps:
            self._spent[kind] = now - self._started, self._steps
        self._finished += 1
        left = self._left()
        if self._bar:
            self._bar.update(self._task, completed=self._finished * self._rounds, left=left)
            return
        told = ", ".join(part for part in (f"{now - self._began:.0f} s", left) if part)
        done = f"[{self._finished}/{len(self._kinds)}, {told}]"
        print(f"{done} {self._name}: {result}", flush=True)

    def _left(self) -> str:
        to_come = self._kinds[self._finished :]
        if not self._spent or not to_come:
            return ""
        totals = [sum(numbers) for numbers in zip(*self._spent.values(), strict=True)]
        pairs = (self._spent.get(kind, totals) for kind in to_come)
        return f"about {self._rounds * sum(s / n for s, n in pairs):.0f} s left"


@contextlib.contextmanager
def progress(kinds: Sequence[str], rounds: int) -> Iterator[Progress]:
    """Show the progress of runs of ``rounds`` rounds each, whose kinds are given in their order."""
    if not sys.stdout.isatty():
        yield Progress(kinds, rounds)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeElapsedColumn(), TextColumn("{task.fields[left]}")) as bar:
        yield Progress(kinds, rounds, bar)
