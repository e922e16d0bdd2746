import csv
import math

import pytest

from benchmarks import speed, speed_cases
from benchmarks.__main__ import main


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow) if case == "ntkcpl_round" else case
        for case in speed_cases.CASES
    ],
)
def test_measures(case):
    found = speed_cases.CASES[case](speed_cases.QUICK)
    assert found["first"] > 0 and found["seconds"] > 0 and found["peak_gib"] > 0
    assert found["ratio"] > 0 and math.isfinite(found["ratio"]) and found["compared"]


def test_writes_the_table(tmp_path, capsys, cells):
    cases = ["look_ahead", "condition"]
    assert main(["speed", "--quick", "--cases", *cases, "--out", str(tmp_path)]) == 0
    with (tmp_path / "speed.csv").open(newline="") as file:
        assert [line["case"] for line in csv.DictReader(file)] == cases
    lines = (tmp_path / "speed.md").read_text().splitlines()
    assert '"pool": 500' in lines[0] and len(lines) == 6
    assert cells(capsys.readouterr().out) == cells("\n".join(lines[-2:]))


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "speed"),
        (["--peers"], "speed_peers"),
        (["--scale"], "speed_scale"),
        (["--images"], "speed_images"),
    ],
)
def test_a_table_is_replaced_only_when_told(flags, name, tmp_path, capsys):
    (tmp_path / f"{name}.csv").write_text("kept")
    assert main(["speed", "--quick", *flags, "--out", str(tmp_path)]) == 2
    assert f"{name}.csv: holds results; pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / f"{name}.csv").read_text() == "kept"


def test_an_earlier_table_is_replaced_when_told(tmp_path):
    (tmp_path / "speed.csv").write_text("old")
    given = ["speed", "--quick", "--cases", "condition", "--out", str(tmp_path)]
    assert main([*given, "--overwrite"]) == 0
    assert "condition" in (tmp_path / "speed.csv").read_text()


def test_a_case_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    def measure(case, *, quick):
        if case == "kernel":
            raise RuntimeError("the speed case kernel failed:\nkilled")
        return {"seconds": 1.0, "first": 2.0, "peak_gib": 0.5, "ratio": 3.0, "compared": "x"}

    monkeypatch.setattr(speed, "measure", measure)
    given = ["speed", "--cases", "condition", "kernel", "head", "--out", str(tmp_path)]
    assert main(given) == 1
    assert "killed" in capsys.readouterr().err
    with (tmp_path / "speed.csv").open(newline="") as file:
        assert [line["case"] for line in csv.DictReader(file)] == ["condition", "head"]


def test_a_case_that_fails_is_named(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "none")
    with pytest.raises(RuntimeError, match="the speed case kernel failed"):
        speed.measure("kernel", quick=True)
