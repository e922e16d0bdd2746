import math
import re

import pytest

from benchmarks import growth
from benchmarks.__main__ import main

SMALL = ["--features", "8", "--labeled", "10", "--picks", "5", "--classes", "4"]


@pytest.fixture
def calls(monkeypatch):
    """Let a selection take 1e-5 n^1.5 seconds, and list what was measured."""
    calls = []

    def measure(name, sizes, *, timeout):
        calls.append((name, sizes.pool))
        seconds = 1e-5 * sizes.pool**1.5
        if seconds > timeout:
            raise TimeoutError(name)
        if name == "entropy":
            raise RuntimeError("entropy failed:\nkilled")
        return {"first": seconds + 1, "seconds": seconds, "peak_gib": 1 + sizes.pool / 1e4}

    monkeypatch.setattr(growth, "measure_selection", measure)
    return calls


def run(out, *extra, strategies=("margin",), sizes=("100", "1000", "10000", "40000")):
    given = ["growth", *SMALL, "--strategies", *strategies, "--sizes", *sizes]
    return main([*given, "--out", str(out), *extra])


def test_a_strategy_stops_at_the_limit(calls, tmp_path, capsys, cells):
    assert run(tmp_path, "--limit", "9", strategies=("margin", "coreset")) == 0
    assert calls == [(n, s) for n in ("margin", "coreset") for s in (100, 1000, 10000)]
    text = (tmp_path / "growth.md").read_text()
    lines = cells(text)
    assert ["margin", "0.01", "0.316", "10", "stopped", "1.50", "n·c"] in lines
    assert ["margin", "1.01", "1.10", "2.00", "", "n"] in lines
    assert "over 9 s" in text and "10 labeled" in text
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert text.strip() in capsys.readouterr().out


def test_resuming_measures_what_is_missing(calls, tmp_path):
    assert run(tmp_path, sizes=("100", "1000")) == 0
    before = growth.read_points(tmp_path / "growth.csv")
    calls.clear()
    assert (
        run(tmp_path, "--resume", sizes=("100", "500", "1000"), strategies=("margin", "random"))
        == 0
    )
    assert calls == [("margin", 500), *(("random", n) for n in (100, 500, 1000))]
    assert set(before) < set(growth.read_points(tmp_path / "growth.csv"))


def test_an_interrupted_command_keeps_its_points(calls, tmp_path, monkeypatch):
    measure = growth.measure_selection

    def stop(name, sizes, **kwargs):
        if sizes.pool == 10000:
            raise KeyboardInterrupt
        return measure(name, sizes, **kwargs)

    monkeypatch.setattr(growth, "measure_selection", stop)
    assert run(tmp_path) == 130
    assert [point.pool for point in growth.read_points(tmp_path / "growth.csv")] == [100, 1000]


def test_what_was_given_up_is_tried_again_with_more_time(calls, tmp_path, cells):
    assert run(tmp_path, "--timeout", "5") == 0
    assert calls[-1] == ("margin", 10000)
    first = next(line for line in cells((tmp_path / "growth.md").read_text()) if "margin" in line)
    assert first[3:5] == ["over 5", "stopped"]
    calls.clear()
    assert run(tmp_path, "--timeout", "4", "--resume") == 0 and calls == []
    assert run(tmp_path, "--timeout", "90", "--resume") == 0
    assert calls == [("margin", 10000), ("margin", 40000)]
    first = next(line for line in cells((tmp_path / "growth.md").read_text()) if "margin" in line)
    assert first[3:5] == ["10", "80"]


def test_a_failure_stops_no_other_and_is_tried_again(calls, tmp_path, capsys, cells):
    assert run(tmp_path, strategies=("entropy", "margin"), sizes=("100", "200")) == 1
    assert calls == [("entropy", 100), ("margin", 100), ("margin", 200)]
    assert "killed" in capsys.readouterr().out
    lines = cells((tmp_path / "growth.md").read_text())
    assert ["entropy", "failed", "stopped"] in [line[:3] for line in lines]
    calls.clear()
    assert run(tmp_path, "--resume", strategies=("entropy",), sizes=("100",)) == 1
    assert calls == [("entropy", 100)]


def test_results_are_not_touched_unasked(calls, tmp_path, capsys):
    assert run(tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert run(tmp_path) == 2
    assert "pass --resume to go on with them, or --overwrite" in capsys.readouterr().err
    assert run(tmp_path, "--resume", "--picks", "6") == 2
    assert re.search(r"other settings \(picks: now 6, there 5\)", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "mine.txt").write_text("keep")
    assert run(tmp_path, "--overwrite", "--picks", "6", sizes=("100",)) == 0
    assert [(p.pool, p.picks) for p in growth.read_points(tmp_path / "growth.csv")] == [(100, 6)]
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_damaged_file_is_named(calls, tmp_path, capsys):
    (tmp_path / "growth.csv").write_text("strategy,pool\nmargin,many\n")
    assert run(tmp_path, "--resume") == 2
    assert "growth.csv: damaged, or of another version" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        (("--picks", "0"), "--picks: expected more than 0, found 0"),
        (("--timeout", "-1"), "--timeout: expected more than 0"),
        (("--labeled", "96"), "--sizes: expected at least 101, .* found 100"),
        (("--strategies", "none"), "found 'none'"),
    ],
)
def test_refuses_before_anything_is_written(calls, tmp_path, capsys, extra, match):
    out = tmp_path / "out"
    assert run(out, *extra) == 2
    assert re.search(match, capsys.readouterr().err)
    assert calls == [] and not out.exists()


def test_the_exponent_is_of_the_largest_pools():
    points = [
        growth.Point("margin", n, 8, 4, 10, 5, "", "ok", 300.0, seconds)
        for n, seconds in ((16, 1.0), (8, 0.25), (4, 0.0625), (2, 7.0), (32, None))
    ]
    assert growth.exponent(points) == pytest.approx(2)
    assert math.isnan(growth.exponent(points[:1]))


def test_measures(tmp_path):
    assert run(tmp_path, strategies=("random",), sizes=("40",)) == 0
    (point,) = growth.read_points(tmp_path / "growth.csv")
    assert point.status == "ok" and point.seconds > 0 and point.first > 0 and point.peak_gib > 0
