import matplotlib.axes
import numpy as np
import pytest

from benchmarks.image_figures import draw_accuracies, draw_history, draw_map


def is_figure(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_accuracies_are_shaded_by_the_sample_deviation(tmp_path, monkeypatch):
    shaded = []
    monkeypatch.setattr(
        matplotlib.axes.Axes,
        "fill_between",
        lambda self, x, low, high, **_: shaded.append((low, high)),
    )
    values = {"a": {10: np.array([0.5, 0.6, 0.8]), 20: np.array([0.7])}, "b": {10: np.array([0.1])}}
    draw_accuracies(values, tmp_path / "a.png", "title")
    assert is_figure(tmp_path / "a.png")
    low, high = shaded[0]
    np.testing.assert_allclose((high - low) / 2, [np.std([50, 60, 80], ddof=1), 0])


def test_a_history_may_lack_numbers(tmp_path):
    history = [{"epoch": 0, "loss": 1.0, "knn_accuracy": 0.5}, {"epoch": 1, "loss": 0.5}]
    draw_history(history, tmp_path / "h.png", "title")
    assert is_figure(tmp_path / "h.png")


@pytest.mark.parametrize("labels", [None, np.arange(12) % 3])
def test_a_map_with_and_without_classes(tmp_path, labels):
    features = np.random.default_rng(0).normal(size=(12, 4))
    draw_map(features, labels, tmp_path / "m.png", ("a", "b", "c"))
    assert is_figure(tmp_path / "m.png")
