import numpy as np
import pytest

from benchmarks import report
from benchmarks.curves import areas, curves


def test_table_holds_means_and_deviations(rows):
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in report.table(rows).splitlines()
    ]
    assert lines[0] == ["strategy", "10", "30", "100", "average"]
    assert [line[0] for line in lines[2:]] == ["ntkcpl", "random", "margin"]
    values = np.array([row.accuracy for row in rows]).reshape(3, 3, 3) * 100  # strategy, seed, n
    for i, line in enumerate(lines[2:]):
        whole = np.column_stack([values[i], values[i].mean(axis=1)])
        for j, cell in enumerate(line[1:]):
            mean, deviation = (float(x) for x in cell.strip("*").split(" ± "))
            assert mean == pytest.approx(whole[:, j].mean(), abs=0.051)
            assert deviation == pytest.approx(whole[:, j].std(ddof=1), abs=0.051)
            best = values.mean(axis=1)[:, j] if j < 3 else values.mean(axis=(1, 2))
            assert cell.startswith("**") == (i == best.argmax())


def test_one_seed_has_no_deviation(rows):
    assert "±" not in report.table([row for row in rows if row.seed == 0])


def test_oracles_are_marked_and_never_best(rows):
    best = [
        row._replace(strategy="seer", accuracy=1.0, oracle=True)
        for row in rows
        if row.strategy == "random"
    ]
    text = report.table(best + rows)
    assert text.splitlines()[2].startswith("| seer (oracle) ")
    others = report.table(rows).splitlines()[2:]
    assert [line.split() for line in text.splitlines()[3:]] == [line.split() for line in others]
    assert "**" not in text.splitlines()[2] and "100.0 ± 0.0" in text.splitlines()[2]
    assert "| seer (oracle) " in report.timing_table(best)


def test_the_last_column_may_be_the_area(rows):
    found = curves(rows)
    lines = report.table(rows, last="AUC").splitlines()
    for name, line in zip(found, lines[2:], strict=True):
        mean = float(line.split("|")[-2].strip().strip("*").split(" ± ")[0])
        assert mean == pytest.approx(100 * areas(found[name]).mean(), abs=0.051)
