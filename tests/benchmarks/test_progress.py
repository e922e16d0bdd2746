import pytest

from benchmarks import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def run(bar, clock, name, seconds, steps=2):
    bar.start(name)
    for _ in range(steps):
        clock[0] += seconds
        bar.step()
    bar.finish("done")


def test_time_left_follows_the_kinds_that_were_run(clock, capsys):
    with progress.progress(["slow", "fast"] * 3, 2) as bar:
        for seed, compiling in enumerate((1, 0, 0)):
            run(bar, clock, f"slow, seed {seed}", 10 + compiling)
            run(bar, clock, f"fast, seed {seed}", 1)
    assert capsys.readouterr().out.splitlines() == [
        "[1/6, 22 s, about 110 s left] slow, seed 0: done",
        "[2/6, 24 s, about 48 s left] fast, seed 0: done",
        "[3/6, 44 s, about 24 s left] slow, seed 1: done",
        "[4/6, 46 s, about 22 s left] fast, seed 1: done",
        "[5/6, 66 s, about 2 s left] slow, seed 2: done",
        "[6/6, 68 s] fast, seed 2: done",
    ]


def test_rounds_read_from_a_file_tell_nothing_of_time(clock, capsys):
    with progress.progress(["a"] * 3, 2) as bar:
        run(bar, clock, "a, seed 0", 5, steps=0)
        run(bar, clock, "a, seed 1", 5, steps=1)
        run(bar, clock, "a, seed 2", 5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/3, 0 s] a, seed 0: done"
    assert lines[1] == "[2/3, 5 s, about 10 s left] a, seed 1: done"


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True)
    with progress.progress(["a", "b"], 2) as bar:
        for name in ("a", "b"):
            bar.start(name)
            bar.step()
            bar.finish("done")
    out = capsys.readouterr().out
    assert "4/4" in out and "done" not in out


def test_the_third_round_of_the_first_run_stands_for_all(clock, capsys):
    with progress.progress(["a", "b"], 5) as bar:
        bar.start("a, seed 0")
        for seconds in (60, 40, 20, 30):
            clock[0] += seconds
            bar.step()
    # Seven rounds of 20 s.
    said = "about 2 minutes left, if all rounds are like this one of a, seed 0\n"
    assert capsys.readouterr().out == said
