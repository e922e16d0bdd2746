"""The command asvp, on the digits, and what its tables are made of."""

import csv
import functools
import types

import numpy as np
import pytest

from benchmarks import asvp
from benchmarks.__main__ import _parser, main
from benchmarks.asvp_report import find_curves, find_ways, report
from benchmarks.asvp_runs import Job, Row, count_passes, list_runs, read_pipeline
from benchmarks.asvp_work import is_done
from jaxal.asvp import DEFAULT_CONFIG, at_labels, falling
from jaxal.costs import Prices
from jaxal.train.head import LINEAR, PROXY
from jaxal.train.recipes import FT_SMALL, LPFT_SMALL

SMALL = ["--size", "16", "--width", "4", "--limit", "200", "--test-limit", "60", "--epochs", "2"]
GIVEN = ["asvp", *SMALL, "--encoder", "conv4", "--budgets", "8", "8", "--compare", "ft"]
GIVEN += ["--final", "rule"]


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("asvp") / "out"
    pipelines = ["--pipelines", "standard", "svpp", "asvp:at_labels,counts=8"]
    assert main([*GIVEN, *pipelines, "--out", str(out)]) == 0
    return out


def test_all_pipelines_are_run_and_reported(ran):
    rows = lines_of(ran / "results.csv")
    names = {(row["pipeline"], row["num_labeled"], row["method"]) for row in rows}
    assert ("standard", "8", "ft") in names and ("random", "16", "lpft") in names
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    seconds = {
        row["pipeline"]: float(row["selection_seconds"])
        for row in rows
        if row["num_labeled"] == "16"
    }
    assert seconds["random"] == 0 and min(seconds["standard"], seconds["svpp"]) > 0
    text = (ran / "table.md").read_text()
    for part in ("labels saved", "What ", "against standard", "Final trainings", "at 8 labels"):
        assert part in text
    scores = lines_of(ran / "scores.csv")
    assert [(s["num_labeled"], s["version"]) for s in scores] == [("8", "0"), ("8", "1")]
    refreshes = {
        (row["num_labeled"], row["method"], row["chosen"]): row["refreshes"]
        for row in rows
        if row["pipeline"].startswith("asvp")
    }
    assert refreshes["8", "lpft", "True"] == "0" and refreshes["16", "ft", "True"] == "1"
    for name in ("curves.png", "costs.png", "scores.png"):
        assert (ran / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_goes_on_with_what_is_there(ran, capsys):
    before = (ran / "results.csv").read_text()
    pipelines = ["--pipelines", "standard", "svpp", "asvp:at_labels,counts=8"]
    assert main([*GIVEN, *pipelines, "--out", str(ran)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*GIVEN, *pipelines, "--out", str(ran), "--resume"]) == 0
    assert (ran / "results.csv").read_text() == before
    others = [*GIVEN[:4], "8", *GIVEN[5:]]
    assert main([*others, *pipelines, "--out", str(ran), "--resume"]) == 2
    assert "other encoder" in capsys.readouterr().err


@pytest.mark.slow
def test_says_what_it_would_take(tmp_path, capsys):
    assert main([*GIVEN, "--plan", "--out", str(tmp_path / "out")]) == 0
    assert "at $3 an hour" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*GIVEN, "--plan", "--device-rate", "1e14"]) == 0
    assert "1e+14 operations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--pipelines", "other"], "--pipelines"),
        (["--pipelines", "svpp:falling"], "--pipelines"),
        (["--pipelines", "asvp:slowing,other=1"], "other"),
        (["--pipelines", "asvp:slowing,share=-1"], "share"),
        (["--pipelines", "asvp:at_labels,counts=x"], "at_labels"),
        (["--strategies", "random"], "--strategies"),
        (["--pipelines", "asvp:falling", "--trigger", "slowing"], "--trigger"),
        (["--strategies", "other"], "--strategies"),
        (["--pipelines", "standard", "svpp", "--proxy-always"], "--proxy-always"),
        (["--budgets", "2000"], "--budgets"),
        (["--budgets", "0"], "--budgets"),
        (["--budgets", "8", "8", "--final-at", "12", "16"], "--final-at"),
        (["--budgets", "8", "8", "--final-at", "8"], "--final-at"),
        (["--seeds", "0"], "--seeds"),
        (["--epochs", "0"], "--epochs"),
        (["--target", "0"], "--target"),
        (["--label-price", "-1"], "--label-price"),
        (["--device-rate", "1e12"], "--plan"),
        (["--scale", "cpu", "--dataset", "digits"], "--weights"),
        (["--folder", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_are_refused_before_anything_is_done(given, named, tmp_path, capsys):
    assert main(["asvp", *given, "--out", str(tmp_path / "out")]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_others_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*GIVEN, "--out", str(tmp_path), "--overwrite"]) == 2
    assert "other files" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_pipelines_are_read_with_their_triggers():
    assert read_pipeline("asvp") == ("asvp", "asvp", None)
    assert read_pipeline("asvp:falling") == ("asvp:falling", "asvp", falling)
    _, _, trigger = read_pipeline("asvp:at_labels,counts=(5,9)")
    assert isinstance(trigger, functools.partial) and trigger.func is at_labels
    assert trigger.keywords == {"counts": (5, 9)}


def test_random_is_run_once_a_seed():
    runs = list_runs([read_pipeline(p) for p in ("svpp", "asvp")], ["margin", "random"], 2)
    assert [(r.shown, r.strategy, r.seed) for r in runs] == [
        ("svpp", "margin", 0),
        ("asvp", "margin", 0),
        ("random", "random", 0),
        ("svpp", "margin", 1),
        ("asvp", "margin", 1),
        ("random", "random", 1),
    ]
    assert len({r.folder for r in runs}) == len(runs)


@pytest.mark.parametrize(
    ("pipeline", "strategy", "selection", "final"),
    [
        # Two fine-tunings of two epochs, three passes each, and the pool by both; the one on 20
        # labels serves in the end too, whose five test images are counted.
        ("standard", "margin", 6 * 30 + 200, 5 + 5 + 240),
        ("standard", "typiclust", 6 * 30 + 300, 5 + 5 + 240),  # reads features from the start
        ("svpp", "margin", 100, 5 + 120 + 5 + 240),
        ("asvp", "margin", 6 * 20 + 200, 250),  # at half, as nothing is known before; it serves too
        ("asvp:at_labels,counts=10", "margin", 6 * 10 + 200, 370),
        ("asvp:every_round", "margin", 6 * 30 + 300, 250),
        ("asvp:never", "margin", 100, 370),
        ("svpp", "random", 0, 370),
    ],
)
def test_what_a_run_has_to_do(pipeline, strategy, selection, final):
    ft = FT_SMALL._replace(epochs=2)
    network = types.SimpleNamespace(images=range(100), num_classes=10, ft=ft, lpft=LPFT_SMALL)
    config = DEFAULT_CONFIG._replace(final="ft")
    job = Job(network, range(5), None, 0.0, (10, 10, 20), (20, 40), config)
    (run,) = list_runs([read_pipeline(pipeline)], [strategy], 1)
    assert count_passes(job, run) == {"selection": selection, "final": final}


def test_how_pipelines_choose_is_as_the_command_line_says(monkeypatch):
    found = []

    def stop(job, *_):
        found.append(job.config)
        raise KeyboardInterrupt

    monkeypatch.setattr(asvp, "project", stop)
    for given in ([], ["--proxy-always", "--head", "linear", "--tuning", "lpft"]):
        with pytest.raises(KeyboardInterrupt):
            asvp.main(_parser().parse_args([*GIVEN, "--plan", *given]))
    assert found[0].tuned_head and found[0].head == PROXY and found[0].tuning == "ft"
    assert not found[1].tuned_head and found[1].head == LINEAR and found[1].tuning == "lpft"


@pytest.mark.slow
def test_a_run_is_done_once_all_its_labels_are_trained_on(ran, tmp_path):
    (run,) = list_runs([read_pipeline("svpp")], ["margin"], 1)
    job = Job(None, None, None, 0.0, (8, 8), (8, 16), DEFAULT_CONFIG)
    assert is_done(job, run, ran) and not is_done(job, run, tmp_path)
    assert not is_done(job._replace(budgets=(8, 8, 8), final_at=(8, 24)), run, ran)


def row(pipeline, strategy, seed, count, accuracy, **changes):
    found = Row(
        pipeline, strategy, seed, count, "lpft", True, accuracy, 0.1, 36.0, 360.0, 5e4, refreshes=0
    )
    return found._replace(**changes)


def test_costs_are_read_off_the_mean_curves():
    rows = [
        row("standard", "margin", 0, 100, 0.5),
        row("standard", "margin", 0, 200, 0.7, selection_seconds=720.0, selection_passes=9e4),
        row("standard", "margin", 1, 100, 0.6),
        row("standard", "margin", 1, 200, 0.8, selection_seconds=720.0, selection_passes=9e4),
        row("standard", "margin", 1, 200, 0.99, chosen=False, method="ft"),
        row("random", "random", 0, 100, 0.5, selection_seconds=0.0),
        row("random", "random", 0, 200, 0.6, selection_seconds=0.0),
    ]
    curves = find_curves(rows)
    assert set(curves) == {("standard", "margin"), ("random", "random")}
    np.testing.assert_allclose(curves["standard", "margin"].accuracies, [[0.5, 0.7], [0.6, 0.8]])
    costs = find_ways(curves, "margin", 0.65, Prices(label=0.1, device_hour=2.0))
    # 150 labels, the 720 s of selection that come before any beyond 100, and 36 s of training;
    # random never gets there.
    assert set(costs) == {"standard"}
    found = costs["standard"]
    assert found.labels == pytest.approx(150) and found.cost.labels == pytest.approx(15)
    assert found.cost.selection == pytest.approx(2 * 720 / 3600) and found.passes == 9e4
    assert found.cost.training == pytest.approx(2 * 36 / 3600)
    assert found.cost.selection_hours == pytest.approx(0.2)
    # 100 labels take what they took.
    assert find_ways(curves, "margin", 0.55, Prices(0.1, 2.0))["standard"].passes == 5e4
    assert find_ways(curves, "margin", 0.9, Prices(0.1, 2.0)) == {}
    twice = find_ways(curves, "margin", 0.65, Prices(0.1, 2.0), num_devices=2)
    assert twice["standard"].cost.training == pytest.approx(2 * found.cost.training)


def test_what_the_tables_say(tmp_path, capsys):
    rows = []
    for name, strategy, seconds, heights in (
        ("standard", "margin", 3600.0, (0.5, 0.8)),
        ("svpp", "margin", 36.0, (0.4, 0.7)),
        ("random", "random", 0.0, (0.4, 0.6)),
    ):
        for count, height in zip((100, 200), heights, strict=True):
            spent = {"selection_seconds": seconds, "selection_passes": 100 * seconds}
            rows.append(row(name, strategy, 0, count, height, **spent))
    rows.append(rows[0]._replace(method="ft", chosen=False, accuracy=0.55))
    rows.append(row("asvp", "margin", 0, 100, float("nan")))
    network = types.SimpleNamespace(ft=FT_SMALL, lpft=LPFT_SMALL, mesh=None)
    config = DEFAULT_CONFIG._replace(final="lpft")
    job = Job(network, range(5), None, 0.0, (100, 100), (100, 200), config)
    about = {"title": "x", "encoder": "y", "device": "z"}
    prices = Prices(0.1, 3.0)
    for left in ([], [r for r in rows if r.strategy == "random"], rows[:4]):
        lost = [r if r in left else r._replace(accuracy=float("nan")) for r in rows]
        report(tmp_path, lost, [], job, prices, target=None, title=about)
        assert "diverged" in (tmp_path / "table.md").read_text()
    report(tmp_path, rows, [], job, prices, target=None, title=about)
    text = (tmp_path / "table.md").read_text()
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    # The highest that both pipelines reach, 70 %: two thirds of the way to 200 labels by standard,
    # whose hour of selection costs less than the 33 labels that it saves; random stays below.
    assert "## What 70.0 % costs: margin" in text
    ways = {
        line[0]: line[1:] for line in lines if line[0] in ("standard", "svpp") and len(line) > 6
    }
    assert ways["standard"][:6] == ["167", "+0.0 %", "16.70", "3.000", "0.030", "**19.73**"]
    assert ways["standard"][6:] == ["1.0000 (100 %)", "360,000 (100 %)"]
    assert ways["svpp"][:6] == ["200", "+20.0 %", "20.00", "0.030", "0.030", "20.06"]
    assert ways["svpp"][6:] == ["0.0100 (1 %)", "3,600 (1 %)"]
    assert ["standard", "ft", "55.0", ""] in lines
    assert "asvp, margin, seed 0: lpft on 100" in text
    assert "What 70.0 % costs" in capsys.readouterr().out


def test_seeds_whose_training_diverged_are_left_out():
    rows = [row("svpp", "margin", seed, count, 0.5) for seed in (0, 1) for count in (10, 20)]
    rows[-1] = rows[-1]._replace(accuracy=float("nan"))
    assert find_curves(rows)["svpp", "margin"].accuracies.shape == (1, 2)
