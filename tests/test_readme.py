"""The README's examples run as they stand."""

import re
from pathlib import Path

import numpy as np

from benchmarks.__main__ import _parser

README = Path(__file__).parents[1] / "README.md"


def test_examples_run(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=200)
    features = 4 * np.eye(10, 12)[labels] + rng.normal(size=(200, 12))
    np.save(tmp_path / "features.npy", features.astype(np.float32))
    np.save(tmp_path / "labels.npy", labels)
    monkeypatch.chdir(tmp_path)
    ask, tell, run, images, pipeline, few = re.findall(
        r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S
    )

    first: dict = {}
    exec(ask, first)
    later: dict = {}  # as in another process
    for asked in (10, 30):
        np.savetxt("answers.txt", labels[first["rows"]], fmt="%d")
        exec(tell, later)
        assert later["state"].labeled.size == asked and later["rows"].size == 20
        np.testing.assert_array_equal(later["state"].labels, labels[later["state"].labeled])
        first = dict(later)
    probs = later["outputs"].probs
    assert np.mean(np.argmax(probs, axis=1) == labels) > 0.7
    np.testing.assert_allclose(later["probs"], probs[:5], atol=1e-6)

    exec(run, later)
    assert later["state"].labeled.size == 30

    pictures: dict = {}
    exec(images, pictures)
    assert np.load(tmp_path / "pool.npy").shape == (8, 200)
    exec(pipeline, pictures)
    assert (tmp_path / "asvp" / "lpft-6.npz").exists()

    semi: dict = {}
    exec(few, semi)
    assert len(set(semi["labels"].tolist())) == 10
    assert np.mean(np.argmax(semi["probs"], axis=1) == labels) > 0.8


def test_set_up_commands_come_first():
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert blocks[0].split("\n")[1] == "python -m benchmarks"
    assert blocks[1].split("\n")[1] == "python -m pytest -n auto"


def test_benchmark_commands_are_understood():
    text = re.sub(r"\\\n\s*", " ", README.read_text(encoding="utf-8"))
    commands = re.findall(r"^python -m benchmarks(.*)$", text, re.M)
    commands += re.findall(r"`python -m benchmarks([^`]*)`", text)
    assert len(commands) > 5
    for command in commands:
        given = command.partition("#")[0].split()
        _parser().parse_args(given or ["digits"])
