"""Parts of the command finetune; the whole is in test_image_commands."""

import argparse

import jax
import numpy as np
import pytest

from benchmarks import finetuning
from benchmarks.finetune_runs import SCALES, Task, estimate_work, make_configs
from benchmarks.image_encoders import LoadedEncoder
from benchmarks.images import Images
from jaxal.data import from_arrays
from jaxal.models.preprocess import CIFAR10
from jaxal.train.recipes import FT_SMALL, LPFT_SMALL


def parsed(*given):
    parser = argparse.ArgumentParser()
    finetuning.add_arguments(parser)
    return parser.parse_args(given)


def test_the_best_mean_is_bold():
    # 100 times the mean of these differs from the mean of 100 times each by rounding.
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = {"lp": {10: rng.random(3) / 2}, "ft": {10: 0.5 + rng.random(3) / 2}}
        runs = [{"method": method, "seconds": 1.0} for method in values]
        lines = finetuning._table(values, runs)
        assert lines[1][1][:2] != "**" and lines[2][1].startswith("**")


def test_recipes_keep_their_augmentation():
    ours, digits = (make_configs(parsed("--scale", "cifar10"), x, 64) for x in ("mine", "digits"))
    assert ours[0].augment == ours[1].finetune.augment == "weak"
    own = ours[1].probe.augment
    assert callable(own) and make_configs(parsed("--scale", "imagenet"), "x", 64)[0].augment is own
    assert digits[0].augment is digits[1].probe.augment is digits[1].finetune.augment
    # A mirrored digit is another sign.
    image = np.random.default_rng(0).random((8, 8, 3), np.float32)
    shift = make_configs(parsed(), "digits", 8)[0].augment
    found = {float(shift(jax.random.key(i), image)[4, 4, 0]) for i in range(20)}
    assert found <= set(image[3:6, 3:6, 0].ravel().tolist())


def test_work_counts_what_is_trained():
    images = argparse.Namespace(test=range(7))
    task = Task(images, None, np.arange(100), *SCALES["small"])
    lp, ft, lpft = (estimate_work(task, method, 10) for method in ("lp", "ft", "lpft"))
    assert (lp, ft, lpft) == (10 * 30 + 7, 3 * 10 * 30 + 7, 10 * 30 + 3 * 10 * 15 + 7)


def test_long_runs_are_saved_and_short_ones_are_not(tmp_path, capsys, monkeypatch):
    kept = []

    def run_task(task, *run, checkpoint):
        kept.append(checkpoint)
        return {"accuracy": 0.5, "seconds": 1.0}, ()

    monkeypatch.setattr(finetuning, "run_task", run_task)
    monkeypatch.setattr(finetuning, "estimate_work", lambda task, method, count: count)
    left = [("lp", 9, 0), ("ft", 40, 0), ("ft", 31, 0)]
    monkeypatch.setattr(finetuning, "time_work", lambda task, *run: {("ft", 40): 9.0}[run])
    finetuning._run_all(tmp_path, None, [], left)
    assert kept == [None, tmp_path / "checkpoints" / "ft-40-0", None]
    assert capsys.readouterr().out.startswith("about 12 minutes, compilation apart")


def test_settings_are_written_whole(tmp_path):
    path = tmp_path / "settings.json"
    finetuning._write(path, {"a": 1})
    with pytest.raises(TypeError):
        finetuning._write(path, {"a": object()})
    assert path.read_text() == '{\n "a": 1\n}\n' and list(tmp_path.iterdir()) == [path]


def test_other_labels_are_other_settings(tmp_path):
    encoder = LoadedEncoder("conv4", None, {}, CIFAR10, {"encoder": "conv4"})
    pixels, labels = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6) % 3

    def opened(train, test, names="abc", resume=True, both=LPFT_SMALL):
        sources = (from_arrays(pixels, y, tuple(names)) for y in (train, test))
        args = parsed("--out", str(tmp_path), *["--resume"][:resume])
        images = Images("x", *sources, len(names))
        return finetuning._open(args, Task(images, encoder, train, FT_SMALL, both))

    assert opened(labels, labels, resume=False) == opened(labels, labels) == []
    for others in ((1 - labels // 2, labels), (labels, labels[::-1]), (labels, labels, "abd")):
        with pytest.raises(ValueError, match=r"other settings \(labels\)"):
            opened(*others)
    both = LPFT_SMALL._replace(finetune=FT_SMALL._replace(epochs=2))
    with pytest.raises(ValueError, match=r"other settings \(recipes\)"):
        opened(labels, labels, both=both)
