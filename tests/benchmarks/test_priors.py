"""The command priors."""

import csv

import numpy as np
import pytest

from benchmarks import priors
from benchmarks.__main__ import main
from benchmarks.data import check_data


@pytest.fixture(autouse=True)
def blobs(monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 90)
    x = rng.normal(size=(4, 6))[y] * 4 + 0.2 * rng.normal(size=(90, 6))
    monkeypatch.setattr(priors, "_load", lambda name: check_data(x, y, x[:1], y[:1], 4))


WAYS = ["--selections", "random", "class-balanced", "--priors", "nearest"]
GIVEN = ["priors", "--pool-size", "60", "--budgets", "4", *WAYS]


def test_pools_are_evaluated_and_gone_on_with(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main([*GIVEN, *out, "--seeds", "1"]) == 0
    first = (tmp_path / "out" / "results.csv").read_text()
    assert main([*GIVEN, *out, "--seeds", "2"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*GIVEN, *out, "--seeds", "2", "--resume"]) == 0
    assert (tmp_path / "out" / "results.csv").read_text().startswith(first)
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["strategy"], row["seed"]) for row in rows] == [
        (strategy, seed) for seed in "01" for strategy in ("random", "class-balanced")
    ]
    assert {row["covered"] for row in rows if row["strategy"] == "class-balanced"} == {"4"}
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Means over 2 pools" in text and "class-balanced is an oracle" in text
    assert main([*GIVEN, *out, "--seeds", "2", "--resume", "--budgets", "5"]) == 2
    assert "saved with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0"], "--seeds"),
        (["--budgets", "-1"], "--budgets"),
        (["--budgets", "61"], "--budgets"),
        (["--pool-size", "1298"], "--pool-size"),
        (["--pool-size", "0"], "--pool-size"),
    ],
)
def test_bad_options_are_named(flags, message, tmp_path, capsys):
    assert main([*GIVEN, *flags, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
