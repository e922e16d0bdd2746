"""The command as3l, on the digits and on features, and what its tables are made of."""

import csv
import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from benchmarks.__main__ import _parser, main
from benchmarks.as3l_priors import choose
from benchmarks.as3l_report import curve, steps_to_reach
from benchmarks.as3l_runs import Job, Outcome, Run, list_runs, run_one
from benchmarks.as3l_scales import fill_in
from jaxal.augment import feature_view
from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.select import Pool
from jaxal.train.semi_recipes import SemiConfig

SHORT = ["--steps", "4", "--record-every", "2", "--batch", "4", "--ratio", "2"]
SMALL = ["--size", "16", "--width", "4", "--limit", "120", "--test-limit", "40"]
IMAGES = ["as3l", *SMALL, *SHORT, "--encoder", "conv4"]


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Files of features, and the command on them."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    y = np.arange(80) % 4
    x = (3 * rng.normal(size=(4, 6))[y] + rng.normal(size=(80, 6))).astype(np.float32)
    files = {"features": x[:60], "labels": y[:60], "test-features": x[60:], "test-labels": y[60:]}
    flags = []
    for name, array in files.items():
        np.save(folder / f"{name}.npy", array)
        flags += [f"--{name}", str(folder / f"{name}.npy")]
    return ["as3l", *flags, *SHORT, "--budgets", "6"]


@pytest.fixture(scope="module")
def ran(given, tmp_path_factory):
    out = tmp_path_factory.mktemp("as3l") / "out"
    assert main([*given, "--out", str(out)]) == 0
    return out


def test_all_ways_are_run_and_reported(ran):
    rows = lines_of(ran / "results.csv")
    assert [(row["selection"], row["prior"]) for row in rows] == [
        (selection, prior) for selection in ("random", "as3l") for prior in ("False", "True")
    ]
    assert all(0 <= float(row["accuracy"]) <= 1 and row["steps"] == "4" for row in rows)
    # Both ways to train have the same labels.
    assert rows[0]["covered"] == rows[1]["covered"]
    history = lines_of(ran / "history.csv")
    assert [line["step"] for line in history] == ["2", "4"] * 4
    assert {"test_accuracy", "pseudo_accuracy", "mask_rate", "threshold"} <= set(history[0])
    text = (ran / "table.md").read_text()
    for part in ("flexmatch + prior", "Classes with a label", "base's accuracy", "after 4 steps"):
        assert part in text
    assert "as3l, soft" in text
    assert (ran / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_goes_on_with_what_is_there(ran, given, capsys):
    before = (ran / "results.csv").read_text()
    assert main([*given, "--out", str(ran)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*given, "--out", str(ran), "--resume"]) == 0
    assert (ran / "results.csv").read_text() == before
    assert main([*given, "--cutoff", "0.9", "--out", str(ran), "--resume"]) == 2
    assert "saved with other settings: config.cutoff" in capsys.readouterr().err


@pytest.mark.slow
def test_trainings_stopped_early_go_on_to_the_same_end(ran, given, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main([*given, *out, "--stop-at", "2"]) == 0
    rows = lines_of(tmp_path / "out" / "results.csv")
    assert {row["steps"] for row in rows} == {"2"}
    capsys.readouterr()
    assert main([*given, *out, "--resume"]) == 0
    assert "4 trainings of 4 steps" in capsys.readouterr().out
    for name in ("accuracy", "pseudo_accuracy", "steps"):
        expected = [row[name] for row in lines_of(ran / "results.csv")]
        assert [row[name] for row in lines_of(tmp_path / "out" / "results.csv")] == expected
    assert not list((tmp_path / "out" / "runs").glob("*/settings.json"))
    # What goes on without saying otherwise stops at the same step, with more seeds, too.
    timed = [*given, "--out", str(tmp_path / "timed"), "--seeds"]
    del timed[timed.index("--steps") : timed.index("--steps") + 2]
    assert main([*timed, "1", "--minutes", "1e-6"]) == 0
    assert main([*timed, "2", "--resume"]) == 0
    assert {row["steps"] for row in lines_of(tmp_path / "timed" / "results.csv")} == {"2"}
    text = (tmp_path / "timed" / "table.md").read_text()
    assert "after 2 steps of a schedule of 100, where the prior was not dropped yet" in text


@pytest.mark.slow
def test_images_are_trained_on(tmp_path):
    assert main([*IMAGES, "--out", str(tmp_path / "out")]) == 0
    assert len(lines_of(tmp_path / "out" / "results.csv")) == 4
    assert (tmp_path / "out" / "encoder.npz").exists()


@pytest.mark.slow
def test_methods_and_oracles_are_named(given, tmp_path):
    ways = ["--selections", "class-balanced", "--methods", "fixmatch", "freematch"]
    ways += ["--hard-prior", "--anchors", "cifar10", "--budgets", "10"]
    assert main([*given, *ways, "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert "class-balanced (oracle)" in text and "**" not in text
    assert "the likeliest class" in text and "AS3L 84.10" in text
    assert {row["covered"] for row in lines_of(tmp_path / "out" / "results.csv")} == {"4"}


def test_says_what_it_would_take(given, tmp_path, capsys):
    assert main([*given, "--plan", "--out", str(tmp_path / "out")]) == 0
    assert "4 trainings of 4 steps" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--selections", "best"], "--selections"),
        (["--budgets", "0"], "--budgets"),
        (["--budgets", "61"], "--budgets"),
        (["--seeds", "0"], "--seeds"),
        (["--cutoff", "2"], "--cutoff: expected"),
        (["--stop-at", "0"], "--stop-at"),
        (["--minutes", "0"], "--minutes"),
        (["--dataset", "digits"], "--dataset: expected none beside --features"),
    ],
)
def test_bad_options_are_named(flags, message, given, tmp_path, capsys):
    assert main([*given, *flags, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_published_numbers_stand_beside_their_data_set():
    for scale in ("gpu", "paper"):
        args = fill_in(_parser().parse_args(["as3l", "--scale", scale]))
        assert (args.dataset, args.anchors) == ("cifar10", "cifar10")
    assert fill_in(_parser().parse_args(["as3l"])).anchors is None


def test_large_scales_want_weights(tmp_path, capsys):
    assert main(["as3l", "--scale", "gpu", "--out", str(tmp_path / "out")]) == 2
    assert "--weights: expected" in capsys.readouterr().err


class Nothing(nn.Module):
    def __call__(self, x, *, train=False, mask=None):
        return x


def small_job(labels):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 4  # as many as above, so that programs are shared
    x = (3 * rng.normal(size=(4, 6))[y] + rng.normal(size=(60, 6))).astype(np.float32)
    labels = y if labels is None else labels
    config = SemiConfig(
        steps=6, labeled_batch_size=4, weak=None, strong=feature_view(noise=0.1), record_every=3
    )
    pool = Pool(x, 4, np.zeros(0, int), np.zeros(0, int), embedding=x)
    net = Classifier(Nothing(), DenseHead((), 4))
    return Job(x, labels, x, y, pool, net, {}, None, config, "as3l", None, checkpoints=False)


def test_labels_not_paid_for_reach_nothing(tmp_path):
    truth = np.arange(60) % 4
    run = Run("as3l", 6, "flexmatch", True, 0)

    def outcome(labels, name):
        (tmp_path / name).mkdir()
        return run_one(small_job(labels), run, tmp_path / name).history

    expected = outcome(truth, "true")
    # Whatever is chosen keeps its label: all that is not has another.
    key = jax.random.fold_in(jax.random.key(0), 0)
    rows = choose("as3l", key, small_job(truth).pool, 6, truth)
    permuted = (truth + 1) % 4
    permuted[rows] = truth[rows]
    found = outcome(permuted, "permuted")
    for ours, theirs in zip(found, expected, strict=True):
        # What is judged by true labels differs; training and its test do not, to the bit.
        assert ours.pop("pseudo_accuracy") != theirs.pop("pseudo_accuracy")
        assert ours == theirs


def test_runs_are_listed_seed_by_seed():
    runs = list_runs(["random", "as3l"], [10], ["flexmatch"], 2)
    assert [run.seed for run in runs] == [0] * 4 + [1] * 4
    assert runs[1].way == "flexmatch + prior"
    assert len({run.name for run in runs}) == 8


def test_steps_to_reach_by_hand():
    steps, values = np.array([10, 20, 30]), np.array([0.5, 0.7, 0.6])
    assert steps_to_reach(steps, values, 0.6) == pytest.approx(15)
    assert steps_to_reach(steps, values, 0.4) == 10
    assert steps_to_reach(steps, values, 0.8) == math.inf
    outcomes = [
        Outcome(None, [{"step": 1, "test_accuracy": a}, {"step": 2, "test_accuracy": 1.0}])
        for a in (0.2, 0.4)
    ]
    np.testing.assert_allclose(curve(outcomes)[1], [0.3, 1])
    # As far as all have come.
    outcomes[1] = outcomes[1]._replace(history=outcomes[1].history[:1])
    np.testing.assert_allclose(curve(outcomes), [[1], [0.3]])
