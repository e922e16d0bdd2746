import csv

import pytest

from benchmarks import scale
from benchmarks.__main__ import main


@pytest.fixture
def measured(monkeypatch):
    """Let strategies take a known time, or none."""

    def measure(name, sizes, *, ceiling, timeout):
        if name == "coreset":
            raise TimeoutError(name)
        if name == "entropy":
            raise RuntimeError("entropy failed:\nkilled")
        return {
            "first": 3.0, "seconds": 2.0, "peak_gib": 1.5, "matmul_rate": 1e9, "read_rate": 8e3,
        }  # fmt: skip

    monkeypatch.setattr(scale, "measure_selection", measure)


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_that_takes_too_long_or_fails_stops_no_other(measured, tmp_path, capsys, cells):
    given = ["speed", "--scale", "--quick", "--out", str(tmp_path), "--timeout", "7"]
    assert main([*given, "--strategies", "coreset", "entropy", "margin"]) == 1
    rows = lines_of(tmp_path / "speed_scale.csv")
    assert [row["status"] for row in rows] == ["over 7 s", "failed", "ok"]
    # four bytes a probability, 400 x 5 of them, at 8000 a second
    assert float(rows[2]["ceiling"]) == 1 and float(rows[2]["ratio"]) == 2
    text = (tmp_path / "speed_scale.md").read_text()
    lines = [line[:7] for line in cells(text)]
    assert ["coreset", "over 7 s", "", "", "", "", "no"] in lines
    assert ["margin", "2", "1", "1.5", "1", "2", "yes"] in lines
    assert '"pool": 400' in text
    assert "killed" in capsys.readouterr().out
    given.append("--overwrite")
    assert main([*given, "--strategies", "coreset", "margin"]) == 0


@pytest.mark.parametrize(
    ("seconds", "ceiling", "peak_gib", "within"),
    [
        (120, 1, 2.7, "yes"),
        (121, 1, 2.7, "no: time"),
        (130, 125, 2.7, "no: its ceiling is longer"),
        (10, 1, 2.8, "no: memory"),
    ],
)
def test_limits(seconds, ceiling, peak_gib, within):
    row = {"seconds": seconds, "ceiling": ceiling, "peak_gib": peak_gib}
    assert scale._within(row) == within


def test_oracles_are_only_named(measured, tmp_path):
    assert main(["speed", "--scale", "--quick", "--out", str(tmp_path)]) == 1
    names = [row["strategy"] for row in lines_of(tmp_path / "speed_scale.csv")]
    assert "ntkcpl" in names and "class-balanced" not in names
    assert "labels nobody paid for: class-balanced" in (tmp_path / "speed_scale.md").read_text()


def test_oracles_that_are_named_are_marked(measured, tmp_path):
    given = ["speed", "--scale", "--quick", "--strategies", "class-balanced"]
    assert main([*given, "--out", str(tmp_path)]) == 0
    assert "| class-balanced (oracle) |" in (tmp_path / "speed_scale.md").read_text()


def test_strategies_want_to_be_told_what_for(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main(["speed", "--strategies", "margin", *out]) == 2
    assert "--strategies: expected --peers or --scale" in capsys.readouterr().err
    assert main(["speed", "--scale", "--strategies", "none", *out]) == 2
    assert "found 'none'" in capsys.readouterr().err
    for timeout in ("0", "inf"):
        assert main(["speed", "--scale", "--timeout", timeout, *out]) == 2
        assert "--timeout: expected more than 0" in capsys.readouterr().err
    assert main(["speed", "--peers", "--timeout", "5", *out]) == 2
    assert "--timeout: expected --scale" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
