import csv

from benchmarks.tables import markdown, write_csv


def test_csv_reads_back(rows, tmp_path):
    write_csv([row._asdict() for row in rows], tmp_path / "new" / "x.csv")
    with (tmp_path / "new" / "x.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == len(rows)
    for line, row in zip(found, rows, strict=True):
        assert line["strategy"] == row.strategy and float(line["accuracy"]) == row.accuracy
        assert line["estimated_risk"] == ("0.5" if row.strategy == "ntkcpl" else "")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.csv"]


def test_markdown_lines_up():
    assert markdown([["name", "s"], ["a", "12.5"]]).splitlines() == [
        "| name |    s |",
        "| ---- | ---: |",
        "| a    | 12.5 |",
    ]
