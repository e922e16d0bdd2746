import sys

import numpy as np
import pytest

from benchmarks import plots
from benchmarks.runner import Row


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return [
        Row(
            name, seed, n, *rng.uniform(size=4).round(4).tolist(), 0.5 if name == "ntkcpl" else None
        )
        for name in ("ntkcpl", "random", "margin")
        for seed in (0, 1, 2)
        for n in (10, 30, 100)
    ]


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
