import numpy as np
import pytest

from benchmarks.curves import areas, curves
from benchmarks.ranking import mean_ranks
from benchmarks.runner import Row
from benchmarks.standings import pairs_table, rank, rounds_table, standings_table, summary_table

LEVELS = {"worst": 0.3, "best": 0.8, "seer": 0.95, "middle": 0.5}


def make_rows(levels=LEVELS, seeds=4, noise=0.01):
    rng = np.random.default_rng(0)
    return [
        Row(name, seed, n, level + float(rng.normal(scale=noise)), 0.5, 0.1, 0.2, None)._replace(
            oracle=name == "seer"
        )
        for name, level in levels.items()
        for seed in range(seeds)
        for n in (10, 30, 100)
    ]


def read(text):
    """Read a table into {row: {column: cell}}, in order."""
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    return {line[0]: dict(zip(lines[0][1:], line[1:], strict=True)) for line in lines[2:]}


def test_standings_are_in_order_and_leave_the_oracle_out():
    rows = make_rows()
    found = read(standings_table(rank(rows), {"best", "seer"}))
    assert list(found) == ["seer (oracle)", "best", "middle", "worst"]
    own = curves(rows)
    for name in ("best", "middle", "worst"):
        mean, deviation = (float(x) for x in found[name]["AUC"].strip("*").split(" ± "))
        each = 100 * areas(own[name])
        assert mean == pytest.approx(each.mean(), abs=0.051)
        assert deviation == pytest.approx(each.std(ddof=1), abs=0.051)
    assert [line["first picks"] for line in found.values()] == ["own", "own", "random", "random"]
    assert [line["mean rank"] for line in found.values()] == ["", "**1.0**", "2.0", "3.0"]
    for column, counts in {
        "better than": ["", "2", "1", "0"],
        "worse than": ["", "0", "1", "2"],
        "rounds won": ["", "6", "3", "0"],
        "rounds lost": ["", "0", "3", "6"],
    }.items():
        assert [line[column] for line in found.values()] == counts
    assert found["best"]["AUC"].startswith("**")
    assert "**" not in found["seer (oracle)"]["AUC"] + found["middle"]["AUC"]


def test_pairs_say_by_how_much():
    found = rank(make_rows())
    table = read(pairs_table(found))
    assert list(table) == found.rivals == ["best", "middle", "worst"]
    assert table["best"]["best"] == "" and table["best"]["worst"].startswith("**+")
    difference = found.areas["middle"].mean() - found.areas["worst"].mean()
    assert table["middle"]["worst"] == f"**{difference:+.1f}**"
    assert table["worst"]["middle"] == f"**{-difference:+.1f}**"
    assert read(rounds_table(found))["best"] == {"best": "", "middle": "3", "worst": "3"}


def test_what_is_not_sure_is_not_bold():
    found = rank(make_rows({"a": 0.5, "b": 0.5}, noise=0.1))
    assert "**" not in pairs_table(found)
    one = rank(make_rows({"a": 0.5, "b": 0.8}, seeds=1))
    assert "**" not in pairs_table(one)
    assert read(standings_table(one, ()))["b"]["AUC"].count("±") == 0


def test_summary_averages_ranks():
    rows = {"one": make_rows(), "two": make_rows(LEVELS | {"worst": 0.6})}
    found = {name: rank(own) for name, own in rows.items()}
    table = read(summary_table(found))
    assert list(table) == ["best", "middle", "worst", "seer (oracle)"]
    for name in ("best", "middle", "worst"):
        ranks = []
        for dataset, own in rows.items():
            all_curves = {k: v for k, v in curves(own).items() if k != "seer"}
            ranks.append(mean_ranks(all_curves)[name])
            assert table[name][f"{dataset}, rank"].strip("*") == f"{ranks[-1]:.1f}"
            assert f"{found[dataset].areas[name].mean():.1f}" in table[name][f"{dataset}, AUC"]
        assert table[name]["average rank"].strip("*") == f"{np.mean(ranks):.1f}"
    assert table["best"]["average rank"] == "**1.0**"
    assert table["seer (oracle)"]["average rank"] == table["seer (oracle)"]["one, rank"] == ""
    assert "**" not in "".join(table["seer (oracle)"].values())


def test_oracles_alone_have_no_standings():
    with pytest.raises(ValueError, match="expected one that is no oracle"):
        rank(make_rows({"seer": 0.9}))
