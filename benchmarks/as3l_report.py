"""Tables and figure of the command as3l."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.as3l_priors import ORACLE
from benchmarks.as3l_runs import Outcome, Row
from benchmarks.as3l_scales import ANCHORS
from benchmarks.plots import COLOURS, pyplot
from benchmarks.report import cell, spread
from benchmarks.tables import markdown

__all__ = ["ORACLES", "curve", "report", "steps_to_reach"]

ORACLES = {ORACLE: f"{ORACLE} (oracle)"}


def report(out: Path, outcomes: Sequence[Outcome], about: dict[str, Any]) -> None:
    """Write table.md and curves.png, and print the tables.

    Args:
      out: the folder.
      outcomes: of all runs.
      about: "anchors" (a name of `ANCHORS` or None), "title", "device", "test" (what accuracy is
        of), "prior" (how it is made), "config", "seconds" a step, "steps" of the schedule, and the
        "switch", the step from which the prior is dropped.
    """
    rows = [outcome.row for outcome in outcomes]
    seeds = len({row.seed for row in rows})
    paragraphs = [
        f"# AS3L on {about['title']}",
        f"Accuracy in percent on {about['test']} by number of labels, mean ± sample standard "
        f"deviation over {seeds} seeds, {_tell_steps(rows, about)}; largest mean bold. "
        f"The prior is {about['prior']}, of the labels that were chosen. An oracle looks at labels "
        "nobody paid for.",
        markdown(_accuracy_lines(rows, ANCHORS.get(about["anchors"], {}))),
        "## Labels and prior",
        "Classes with a label; of the samples without one the accuracy in percent of the prior, "
        "and its expected calibration error in brackets.",
        markdown(_prior_lines(rows)),
        "## Steps",
        "Steps after which training with the prior first reaches, on the mean over seeds, what the "
        "same method without it has in the end, which that itself (base) may have reached before. "
        f"A step takes {about['seconds']:.3g} s in either; choosing labels and making the prior "
        f"took {np.median([row.choice_seconds for row in rows]):.3g} s (median, compilation "
        "included).",
        markdown(_step_lines(outcomes)),
        *_tell_unused(outcomes),
        f"Device {about['device']}. Configuration: {about['config']}.",
    ]
    shown = "\n\n".join(paragraphs[:-1])
    (out / "table.md").write_text(f"{shown}\n\n{paragraphs[-1]}\n", encoding="utf-8")
    _draw(outcomes, out / "curves.png", about)
    print(f"\n{shown}\n\nresults, with all settings, in {out}")


def curve(outcomes: Sequence[Outcome]) -> tuple[np.ndarray, np.ndarray]:
    """Give the steps ``[r]`` and the mean test accuracy ``[r]`` over the seeds of one way.

    As far as all of them have come.
    """
    length = min(len(outcome.history) for outcome in outcomes)
    records = [outcome.history[:length] for outcome in outcomes]
    values = [[record["test_accuracy"] for record in history] for history in records]
    return np.array([record["step"] for record in records[0]]), np.mean(values, axis=0)


def steps_to_reach(steps: np.ndarray, accuracy: np.ndarray, wanted: float) -> float:
    """Interpolate at which step a curve first reaches an accuracy; infinity where it does not."""
    above = np.flatnonzero(accuracy >= wanted)
    if not len(above):
        return math.inf
    i = above[0]
    if i == 0:
        return float(steps[0])
    low, high = accuracy[i - 1], accuracy[i]
    return float(steps[i - 1] + (wanted - low) / (high - low) * (steps[i] - steps[i - 1]))


def _tell_steps(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """Say how far trainings have come."""
    least, most = min(row.steps for row in rows), max(row.steps for row in rows)
    told = f"after {least:,} steps" if least == most else f"after {least:,} to {most:,} steps"
    if least == about["steps"]:
        return told
    dropped = "was dropped on the way" if least > about["switch"] else "was not dropped yet"
    return f"{told} of a schedule of {about['steps']:,}, where the prior {dropped}"


def _ways(outcomes: Sequence[Outcome]) -> list[tuple[str, str, bool]]:
    return list(dict.fromkeys((o.row.selection, o.row.method, o.row.prior) for o in outcomes))


def _way(method: str, prior: bool) -> str:
    return f"{method} + prior" if prior else method


def _accuracy_lines(rows: Sequence[Row], anchors: dict[int, str]) -> list[list[str]]:
    budgets = sorted({row.num_labels for row in rows})
    ways = list(dict.fromkeys((row.selection, row.method, row.prior) for row in rows))
    found = {
        (way, budget): spread(
            np.array(
                [
                    100 * row.accuracy
                    for row in rows
                    if (row.selection, row.method, row.prior) == way and row.num_labels == budget
                ]
            )
        )
        for way in ways
        for budget in budgets
    }
    fair = [way for way in ways if way[0] not in ORACLES]
    best = {b: max((found[way, b][0] for way in fair), default=math.nan) for b in budgets}
    lines = [["labels by", "training", *map(str, budgets)]]
    for way in ways:
        cells = [
            cell(*found[way, b], bold=way in fair and found[way, b][0] == best[b]) for b in budgets
        ]
        lines.append([ORACLES.get(way[0], way[0]), _way(*way[1:]), *cells])
    if any(budget in anchors for budget in budgets):
        cells = [anchors.get(budget, "") for budget in budgets]
        lines.append(["published", "", *cells])
    return lines


def _prior_lines(rows: Sequence[Row]) -> list[list[str]]:
    budgets = sorted({row.num_labels for row in rows})
    lines = [["labels by", *(f"classes, {b}" for b in budgets), *(f"prior, {b}" for b in budgets)]]
    for selection in dict.fromkeys(row.selection for row in rows):
        # All ways to train share labels and prior.
        own = {(r.num_labels, r.seed): r for r in rows if r.selection == selection}
        groups = [[r for (budget, _), r in own.items() if budget == b] for b in budgets]
        covered = [f"{np.mean([r.covered for r in group]):.1f}" for group in groups]
        priors = [
            cell(*spread(np.array([100 * r.prior_accuracy for r in group])))
            + f" ({100 * np.mean([r.prior_calibration for r in group]):.0f})"
            for group in groups
        ]
        lines.append([ORACLES.get(selection, selection), *covered, *priors])
    return lines


def _step_lines(outcomes: Sequence[Outcome]) -> list[list[str]]:
    lines = [["labels by", "training", "labels", "base's accuracy", "base", "with prior", "share"]]
    budgets = sorted({o.row.num_labels for o in outcomes})
    for selection, method, prior in _ways(outcomes):
        if not prior:
            continue
        for budget in budgets:
            pair = []
            for with_prior in (False, True):
                own = [o for o in outcomes if o.row[:4] == (selection, budget, method, with_prior)]
                pair.append(curve(own) if own else None)
            base, helped = pair
            if base is None or helped is None:
                continue
            wanted = base[1][-1]
            first, second = (steps_to_reach(*found, wanted) for found in (base, helped))
            reached = math.isfinite(second)
            lines.append(
                [
                    ORACLES.get(selection, selection),
                    method,
                    str(budget),
                    f"{100 * wanted:.1f}",
                    f"{first:.0f}",
                    f"{second:.0f}" if reached else "not reached",
                    f"{second / first:.2f}" if reached else "",
                ]
            )
    return lines


def _tell_unused(outcomes: Sequence[Outcome]) -> list[str]:
    """Name the methods that trained on labels alone, since nothing reached their threshold."""
    used = {
        method: any(
            r["mask_rate"] > 0 for o in outcomes for r in o.history if o.row.method == method
        )
        for method in dict.fromkeys(o.row.method for o in outcomes)
    }
    return [
        f"With {method} no pseudo-label was ever sure enough to be used: it trained on the labels "
        "alone, and the prior changed nothing. More steps, or a lower --cutoff, would."
        for method, any_used in used.items()
        if not any_used
    ]


def _draw(outcomes: Sequence[Outcome], path: Path, about: dict[str, Any]) -> None:
    """Draw accuracy over steps, a panel for each number of labels."""
    plt = pyplot()
    budgets = sorted({o.row.num_labels for o in outcomes})
    columns = min(len(budgets), 2)
    lines = -(-len(budgets) // columns)
    figure, panels = plt.subplots(
        lines,
        columns,
        figsize=(4.5 * columns + 3, 3.6 * lines),
        layout="constrained",
        squeeze=False,
    )
    for axes in panels.flat[len(budgets) :]:
        axes.set_visible(False)
    ways = _ways(outcomes)
    pairs = list(dict.fromkeys(way[:2] for way in ways))
    for axes, budget in zip(panels.flat, budgets, strict=False):
        for way in ways:
            own = [o for o in outcomes if o.row[:4] == (way[0], budget, *way[1:])]
            if not own:
                continue
            steps, accuracy = curve(own)
            axes.plot(
                steps,
                100 * accuracy,
                "-" if way[2] else "--",
                color=COLOURS[pairs.index(way[:2]) % len(COLOURS)],
                label=f"{ORACLES.get(way[0], way[0])}, {_way(*way[1:])}",
            )
        axes.set_title(f"{budget} labels")
        axes.set_xlabel(f"steps of {about['seconds']:.3g} s")
        axes.set_ylabel("test accuracy (%)")
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *panels[0][0].get_legend_handles_labels(),
        loc="outside right upper",
        frameon=False,
        fontsize=8,
    )
    figure.suptitle(about["title"])
    figure.savefig(path, dpi=130)
    plt.close(figure)
