"""Tables of how strategies stand to one another, on one data set and over several."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.curves import Curve, areas, curves, oracles, shown_names
from benchmarks.ranking import LEVEL, Pairs, compare_areas, count_wins, mean_ranks
from benchmarks.report import cell, spread
from benchmarks.runner import Row
from benchmarks.tables import markdown

__all__ = [
    "Standings",
    "average_ranks",
    "pairs_table",
    "rank",
    "rounds_table",
    "standings_table",
    "summary_table",
]


class Standings(NamedTuple):
    """Strategies by the area under their curves, the largest mean first.

    Oracles have an area and nothing else: they are in no rank and no pair.
    """

    areas: dict[str, np.ndarray]  # [s] percent, of all strategies
    shown: dict[str, str]  # what tables call them
    rivals: list[str]  # those that are no oracle
    ranks: dict[str, float]  # of the rivals, mean over seeds and rounds
    pairs: Pairs  # of the rivals, in their order
    rounds_won: np.ndarray  # [k, k] int, of the rivals, uncorrected
    num_rounds: int
    num_seeds: int

    def order(self, names: Sequence[str]) -> list[int]:
        """Say where rivals stand in the pairs, in the order of ``names``."""
        return [self.rivals.index(name) for name in names]


def rank(rows: Sequence[Row]) -> Standings:
    """Compare the strategies of one data set."""
    found = curves(rows)
    each = {name: 100 * areas(curve) for name, curve in found.items()}
    order = sorted(each, key=lambda name: -float(each[name].mean()))
    seers = oracles(rows)
    rivals: dict[str, Curve] = {name: found[name] for name in order if name not in seers}
    if not rivals:
        raise ValueError("strategies: expected one that is no oracle, found none")
    seeds, rounds = next(iter(rivals.values())).values.shape
    return Standings(
        {name: each[name] for name in order},
        shown_names(rows),
        list(rivals),
        mean_ranks(rivals),
        compare_areas(rivals),
        count_wins(rivals),
        rounds,
        seeds,
    )


def standings_table(found: Standings, cold_starts: Collection[str]) -> str:
    """Tabulate areas, ranks and wins, best first.

    Args:
      found: of one data set.
      cold_starts: strategies that choose their first samples themselves.
    """
    header = ["strategy", "first picks", "AUC", "mean rank", "better than", "worse than"]
    lines = [[*header, "rounds won", "rounds lost"]]
    wins, rounds = found.pairs.wins, found.rounds_won
    best_area = max(round(float(found.areas[name].mean()), 1) for name in found.rivals)
    best_rank = min(round(value, 1) for value in found.ranks.values())
    for name, own in found.areas.items():
        mean, deviation = spread(own)
        first = "own" if name in cold_starts else "random"
        if name not in found.rivals:
            lines.append([found.shown[name], first, cell(mean, deviation), *[""] * 5])
            continue
        i = found.rivals.index(name)
        counts = wins[i].sum(), wins[:, i].sum(), rounds[i].sum(), rounds[:, i].sum()
        area = cell(mean, deviation, bold=round(mean, 1) == best_area)
        lines.append([found.shown[name], first, area, _rank(found.ranks[name], best_rank)])
        lines[-1] += map(str, counts)
    return markdown(lines)


def pairs_table(found: Standings) -> str:
    """Tabulate the area of each row less that of each column; significant ones bold."""
    texts = np.char.mod("%+.1f", 100 * found.pairs.difference)
    sure = found.pairs.p_value < LEVEL
    cells = np.where(sure, np.char.add(np.char.add("**", texts), "**"), texts)
    return _matrix(found.rivals, cells)


def rounds_table(found: Standings) -> str:
    """Tabulate the rounds that each row wins against each column."""
    return _matrix(found.rivals, found.rounds_won.astype(str))


def average_ranks(found: Mapping[str, Standings]) -> dict[str, float]:
    """Average each rival's mean rank over data sets, all of the same strategies; best first."""
    names = next(iter(found.values())).rivals
    average = {n: float(np.mean([one.ranks[n] for one in found.values()])) for n in names}
    return dict(sorted(average.items(), key=lambda item: item[1]))


def summary_table(found: Mapping[str, Standings]) -> str:
    """Tabulate areas and mean ranks on each data set, and the average of the ranks; best first.

    Args:
      found: by data set, all of the same strategies.
    """
    sets = list(found.values())
    header = ["strategy", *(f"{name}, {what}" for name in found for what in ("AUC", "rank"))]
    average = average_ranks(found)
    names = [*average, *(name for name in sets[0].areas if name not in average)]
    bests = [max(round(float(s.areas[n].mean()), 1) for n in average) for s in sets]
    leasts = [min(round(s.ranks[n], 1) for n in average) for s in sets]
    least = min(round(value, 1) for value in average.values())
    lines = [[*header, "average rank"]]
    for name in names:
        cells = []
        for standings, best, lowest in zip(sets, bests, leasts, strict=True):
            mean, deviation = spread(standings.areas[name])
            bold = name in average and round(mean, 1) == best
            cells.append(cell(mean, deviation, bold=bold))
            cells.append(_rank(standings.ranks.get(name), lowest))
        lines.append([sets[0].shown[name], *cells, _rank(average.get(name), least)])
    return markdown(lines)


def _rank(value: float | None, best: float) -> str:
    if value is None:
        return ""
    return f"**{value:.1f}**" if round(value, 1) == best else f"{value:.1f}"


def _matrix(names: Sequence[str], cells: np.ndarray) -> str:
    lines = [["row against column", *names]]
    for i, name in enumerate(names):
        own = [text if i != j else "" for j, text in enumerate(cells[i].tolist())]
        lines.append([name, *own])
    return markdown(lines)
