"""The README's example runs as it stands."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_example_runs(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=200)
    features = 4 * np.eye(10, 12)[labels] + rng.normal(size=(200, 12))
    np.save(tmp_path / "features.npy", features.astype(np.float32))
    np.save(tmp_path / "labels.npy", labels)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    scope: dict = {}
    exec(code, scope)
    assert (tmp_path / "labelled.json").exists()
    assert scope["probs"].shape == (200, 10)
    assert np.mean(np.argmax(scope["probs"], axis=1) == labels) > 0.7
