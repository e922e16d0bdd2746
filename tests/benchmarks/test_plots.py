import sys

import numpy as np
import pytest

from benchmarks import plots


@pytest.mark.parametrize("seeds", [1, 3])
def test_figures_are_drawn(rows, tmp_path, seeds):
    few = [row for row in rows if row.seed < seeds]
    plots.plot_curves(few, tmp_path / "curves.png", "title")
    plots.plot_risk(few, tmp_path / "risk.png", "title")
    for name in ("curves.png", "risk.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_no_risk_figure_without_ntkcpl(rows, tmp_path):
    plots.plot_risk([r for r in rows if r.strategy != "ntkcpl"], tmp_path / "risk.png", "")
    assert not (tmp_path / "risk.png").exists()


def test_figures_without_matplotlib_say_how(rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[bench\]"'):
        plots.plot_curves(rows, tmp_path / "x.png", "")


def test_many_strategies_are_drawn_with_few_emphasised(rows, tmp_path):
    names = [f"s{i}" for i in range(12)]
    more = [
        row._replace(strategy=name, oracle=name == "s11")
        for name in names
        for row in rows
        if row.strategy == "margin"
    ]
    order = ["margin", "ntkcpl", *names[:11], "random"]
    styles = plots._field_styles([*names, "margin", "random", "ntkcpl"], order)
    thick = {name for name, style in styles.items() if style["linewidth"] > 1}
    assert thick == {"ntkcpl", "random", "margin", "s0", "s1"}
    looks = [(s["color"], s["linestyle"], s["linewidth"]) for s in styles.values()]
    assert len(set(looks)) == len(styles) == 15 and styles["s11"]["linestyle"] == ":"
    plots.plot_field([*rows, *more], order, tmp_path / "field.png", "title")
    assert (tmp_path / "field.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("k", [1, 3])
def test_wins_are_drawn(tmp_path, k):
    wins = np.arange(k * k).reshape(k, k)
    plots.plot_wins([f"s{i}" for i in range(k)], wins, 9, tmp_path / "wins.png", "title")
    assert (tmp_path / "wins.png").read_bytes().startswith(b"\x89PNG")
