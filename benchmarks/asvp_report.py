"""Tables of the command asvp: accuracy, labels saved, costs, and final trainings compared."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.asvp_figures import draw_costs, draw_curves, draw_scores
from benchmarks.asvp_runs import Job, Row
from benchmarks.report import cell, spread
from benchmarks.tables import markdown
from jaxal.costs import Cost, Prices, cost_of, labels_to_reach, sample_saving_ratio
from jaxal.records import describe
from jaxal.select import STRATEGIES
from jaxal.train.network import METHODS

__all__ = ["Curve", "Way", "find_curves", "find_ways", "report"]


class Curve(NamedTuple):
    """A pipeline with a strategy, over all seeds in which no final training diverged."""

    num_labeled: np.ndarray  # [r] int
    accuracies: np.ndarray  # [s, r], shares, trained as the rule says
    selection_seconds: np.ndarray  # [s, r]
    selection_passes: np.ndarray  # [s, r] images through the encoder
    training_seconds: np.ndarray  # [s, r] of the final training


class Way(NamedTuple):
    """What a pipeline takes to reach an accuracy."""

    labels: float  # interpolated
    cost: Cost
    passes: float  # images through the encoder for selection; a step back counts two


def report(
    out: Path,
    rows: Sequence[Row],
    scores: Sequence[Mapping[str, Any]],
    job: Job,
    prices: Prices,
    *,
    target: float | None,
    title: Mapping[str, str],
) -> None:
    """Write table.md and the figures, and print the tables.

    Args:
      out: the folder.
      rows: results of all runs.
      scores: of all runs of asvp.
      job: what was run.
      prices: of labels and devices.
      target: accuracy in percent whose cost is compared; None for the highest that all reach.
      title: the "title", the "encoder" and the "device".
    """
    curves = find_curves(rows)
    seeds = len({row.seed for row in rows})
    strategies = [name for name in dict.fromkeys(s for _, s in curves) if name != "random"]
    paragraphs = [f"# Standard active learning, SVPp and ASVP on {title['title']}"]
    paragraphs += [
        f"Accuracy in percent on {len(job.test):,} test images by number of labels, mean ± sample "
        f"standard deviation over {seeds} seeds; largest mean of a strategy bold. Networks are "
        f"trained in the end by {_name_final(job)}.",
        markdown(_accuracy_lines(curves, strategies)),
    ]
    ways: dict[str, dict[str, Way]] = {}
    for strategy in strategies:
        wanted = _find_target(curves, strategy) if target is None else target / 100
        mesh = job.network.mesh
        found = find_ways(curves, strategy, wanted, prices, 1 if mesh is None else mesh.size)
        paragraphs.append(f"## What {100 * wanted:.1f} % costs: {strategy}")
        if not found:
            paragraphs.append("No way reaches it.")
            continue
        ways[strategy] = found
        paragraphs.append(markdown(_cost_lines(found)))
    paragraphs.append(
        f"A label costs ${prices.label:g}, an hour of the device ${prices.device_hour:g}. "
        "Selection is all that chooses: the pool's features, proxies, strategies, scores, and "
        "trainings that serve selection, by the clock, and in images through the encoder, a step "
        "back counting two. The final training comes once. Labels are interpolated on the mean "
        "curves; selection is that of the next number of labels above at which networks were "
        "trained. Labels saved: the mean of 1 - labels / random's at equal accuracy, over the "
        "accuracies that both curves reach, however few; nothing where there are none. What was "
        "interrupted counts from where it went on, and what had to be compiled on the way counts "
        "too: where trainings are short, images tell more than hours."
    )
    if any(not row.chosen for row in rows):
        paragraphs += [
            "## Final trainings",
            "Accuracy over all strategies and seeds, by how the network is trained in the end.",
            markdown(_method_lines(rows)),
        ]
    if scores:
        paragraphs += ["## Refreshes", _tell_refreshes(scores)]
    diverged = [row for row in rows if np.isnan(row.accuracy)]
    if diverged:
        told = "; ".join(
            f"{r.pipeline}, {r.strategy}, seed {r.seed}: {r.method} on {r.num_labeled:,}"
            for r in diverged
        )
        paragraphs.append(
            "Trainings that diverged, for which the seed is left out above but where they were for "
            f"comparison: {told}."
        )
    paragraphs.append(f"Encoder {title['encoder']}; device {title['device']}.")
    recipes = describe({"ft": job.network.ft, "lpft": job.network.lpft, "config": job.config})
    if not any(row.pipeline == "asvp" for row in rows):
        del recipes["config"]["trigger"]  # others name theirs
    paragraphs.append(f"Configurations, lp being the first stage of lpft: {json.dumps(recipes)}.")
    shown = "\n\n".join(paragraphs[:-1])
    (out / "table.md").write_text(f"{shown}\n\n{paragraphs[-1]}\n", encoding="utf-8")
    if strategies:
        draw_curves(curves, strategies, out / "curves.png", title["title"])
    if ways:
        costs = {name: {p: way.cost for p, way in own.items()} for name, own in ways.items()}
        draw_costs(costs, out / "costs.png", title["title"])
    if scores:
        draw_scores(scores, out / "scores.png", title["title"])
    print(f"\n{shown}\n\nresults, with all settings, in {out}")


def find_curves(rows: Sequence[Row]) -> dict[tuple[str, str], Curve]:
    """Gather the networks trained as the rule says, by pipeline and strategy."""
    found: dict[tuple[str, str], Curve] = {}

    def run_of(row: Row) -> tuple[str, str, int]:
        return row.pipeline, row.strategy, row.seed

    diverged = {run_of(row) for row in rows if row.chosen and np.isnan(row.accuracy)}
    chosen = [row for row in rows if row.chosen and run_of(row) not in diverged]
    for name in dict.fromkeys((row.pipeline, row.strategy) for row in chosen):
        own = [row for row in chosen if (row.pipeline, row.strategy) == name]
        seeds = sorted({row.seed for row in own})
        counts = sorted({row.num_labeled for row in own})
        at = {(row.seed, row.num_labeled): row for row in own}

        def values(
            field: str, at: Any = at, seeds: Any = seeds, counts: Any = counts
        ) -> np.ndarray:
            return np.array([[getattr(at[s, n], field) for n in counts] for s in seeds], float)

        found[name] = Curve(
            np.array(counts),
            values("accuracy"),
            values("selection_seconds"),
            values("selection_passes"),
            values("training_seconds"),
        )
    return found


def find_ways(
    curves: Mapping[tuple[str, str], Curve],
    strategy: str,
    target: float,
    prices: Prices,
    num_devices: int = 1,
) -> dict[str, Way]:
    """Find what each pipeline costs at an accuracy, and random selection beside them.

    Selection comes in steps, such as a training each round: that of the first number of labels
    counts which is not below what is needed.

    Returns:
      By pipeline, those that reach it.
    """
    found = {}
    for (pipeline, name), curve in curves.items():
        if name not in (strategy, "random"):
            continue
        labels = float(labels_to_reach(curve.num_labeled, curve.accuracies.mean(0), target))
        if np.isnan(labels):
            continue
        bought = math.ceil(labels - 1e-9)
        step = int(np.searchsorted(curve.num_labeled, bought))
        selecting = float(curve.selection_seconds.mean(0)[step])
        training = float(np.interp(labels, curve.num_labeled, curve.training_seconds.mean(0)))
        cost = cost_of(bought, selecting, training, prices=prices, num_devices=num_devices)
        found[pipeline] = Way(labels, cost, float(curve.selection_passes.mean(0)[step]))
    return found


def _find_target(curves: Mapping[tuple[str, str], Curve], strategy: str) -> float:
    """Take the highest accuracy that all pipelines reach with a strategy."""
    own = [curve for (_, name), curve in curves.items() if name == strategy]
    return min(float(curve.accuracies.mean(0).max()) for curve in own)


def _accuracy_lines(
    curves: Mapping[tuple[str, str], Curve], strategies: Sequence[str]
) -> list[list[str]]:
    counts = np.unique([n for curve in curves.values() for n in curve.num_labeled])
    random = curves.get(("random", "random"))
    lines = [["strategy", "pipeline", *(f"{n:,}" for n in counts), "labels saved"]]
    for strategy in (*strategies, "random"):
        own = {p: curve for (p, name), curve in curves.items() if name == strategy}
        if not own:
            continue
        best = np.max([curve.accuracies.mean(0) for curve in own.values()], axis=0)
        for pipeline, curve in own.items():
            means = curve.accuracies.mean(0)
            cells = [
                cell(
                    *spread(100 * curve.accuracies[:, i]), bold=len(own) > 1 and means[i] == best[i]
                )
                for i in range(len(counts))
            ]
            told = ""
            if random is not None:
                saved = sample_saving_ratio(counts, means, counts, random.accuracies.mean(0))
                told = "" if np.isnan(saved) else f"{100 * saved:.1f} %"
            shown = f"{strategy} (oracle)" if STRATEGIES[strategy].oracle else strategy
            lines.append([shown, pipeline, *cells, told])
    return lines


def _cost_lines(ways: Mapping[str, Way]) -> list[list[str]]:
    prices = ("labels $", "selection $", "training $", "total $")
    lines = [["way", "labels", "against standard", *prices, "selection hours", "selection images"]]
    cheapest = f"{min(way.cost.total for way in ways.values()):.2f}"
    standard = ways.get("standard")
    for name, (labels, cost, passes) in ways.items():
        total = f"{cost.total:.2f}"
        lines.append(
            [
                name,
                f"{labels:.0f}",
                "" if standard is None else f"{100 * (labels / standard.labels - 1):+.1f} %",
                f"{cost.labels:.2f}",
                f"{cost.selection:.3f}",
                f"{cost.training:.3f}",
                f"**{total}**" if total == cheapest else total,
                _share(cost.selection_hours, standard and standard.cost.selection_hours, ".4f"),
                _share(passes, standard and standard.passes, ",.0f"),
            ]
        )
    return lines


def _share(value: float, of: float | None, form: str) -> str:
    """Write a number, and in brackets which part of standard's it is."""
    return f"{value:{form}} ({100 * value / of:.0f} %)" if of else f"{value:{form}}"


def _method_lines(rows: Sequence[Row]) -> list[list[str]]:
    counts = sorted({row.num_labeled for row in rows})
    lines = [["pipeline", "method", *(f"{n:,}" for n in counts)]]
    for pipeline in dict.fromkeys(row.pipeline for row in rows):
        for method in METHODS:
            cells = []
            for count in counts:
                key = (pipeline, method, count)
                own = [r for r in rows if (r.pipeline, r.method, r.num_labeled) == key]
                found = np.array([100 * r.accuracy for r in own if not np.isnan(r.accuracy)])
                cells.append(cell(*spread(found)) if found.size else "")
            if any(cells):
                lines.append([pipeline, method, *cells])
    return lines


def _tell_refreshes(scores: Sequence[Mapping[str, Any]]) -> str:
    """Say at how many labels features were refreshed: where a version was first scored."""
    at: dict[tuple[str, str], dict[int, dict[int, int]]] = {}
    for score in scores:
        versions = at.setdefault((score["pipeline"], score["strategy"]), {})
        versions.setdefault(score["seed"], {}).setdefault(score["version"], score["num_labeled"])
    sentences = []
    for (pipeline, strategy), by_seed in at.items():
        told = []
        for found in by_seed.values():
            counts = [str(count) for version, count in found.items() if version]
            told.append("at " + ", ".join(counts) + " labels" if counts else "never")
        sentences.append(f"{pipeline}, {strategy}: {'; '.join(told)}.")
    return "Features were refreshed, seed by seed: " + " ".join(sentences)


def _name_final(job: Job) -> str:
    final = job.config.final
    return "LP-FT until features were refreshed, FT from then on" if callable(final) else final
