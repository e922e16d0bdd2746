"""Parts of the command pretrain; the whole is in test_image_commands."""

import argparse

import numpy as np
import pytest

from benchmarks import pretraining
from jaxal.data import from_arrays
from jaxal.models.preprocess import CIFAR10
from jaxal.models.saved import load_variables
from jaxal.train.pretrain import SIMCLR_CIFAR10


def test_simclr_changes_colours_as_on_cifar(monkeypatch):
    made = []

    def record(size, **options):
        made.append((size, options))

    monkeypatch.setattr(pretraining, "simclr_view", record)
    pretraining._make_view("simclr", "cifar10", CIFAR10, 8)
    assert made == [(8, {"strength": 0.5})]


@pytest.mark.parametrize(("memory", "kept"), [(6 * 48, True), (6 * 48 - 1, False)])
def test_images_stay_in_memory_by_their_bytes(monkeypatch, memory, kept):
    source = from_arrays(np.zeros((6, 4, 4, 3), np.uint8))
    monkeypatch.setattr(pretraining, "_MEMORY", memory)
    assert isinstance(pretraining._load_small(source), np.ndarray) == kept


def test_time_is_told_by_steps_on_one_batch(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pretraining.time, "perf_counter", lambda: now[0])

    def train(batch, *, config, on_epoch):
        assert len(batch) == 4 and config.schedule.warmup_epochs == 0
        for epoch in range(config.epochs):
            now[0] += 2 if epoch else 30
            on_epoch({})

    config = SIMCLR_CIFAR10._replace(epochs=50, train_batch_size=4)
    pretraining._time_steps(train, from_arrays(np.zeros((10, 4, 4, 3), np.uint8)), config)
    assert "about 5 minutes for 150 steps of 2 s" in capsys.readouterr().out


def test_a_scales_batch_is_lowered_and_one_asked_for_is_not(capsys):
    assert pretraining._fit_batch(SIMCLR_CIFAR10, 20, given=False).train_batch_size == 20
    assert "batches of all 20 images, not of 512" in capsys.readouterr().out
    assert pretraining._fit_batch(SIMCLR_CIFAR10, 512, given=True) is SIMCLR_CIFAR10
    with pytest.raises(ValueError, match="--batch-size: expected at most the 20"):
        pretraining._fit_batch(SIMCLR_CIFAR10, 20, given=True)


def test_weights_are_kept_after_every_epoch(tmp_path, monkeypatch):
    judged = []
    monkeypatch.setattr(pretraining, "_judged", lambda *x: judged.append(x) or {"knn_accuracy": 1})
    args = argparse.Namespace(out=tmp_path, monitor_every=2)
    (tmp_path / "checkpoint" / "1").mkdir(parents=True)  # goes on after the first epoch
    monitor = pretraining._make_monitor(
        args, 4, None, "judge", {"encoder": "conv4"}, tmp_path / "checkpoint"
    )
    for epoch, count in ((2, 0), (3, 1), (4, 2)):
        monitor({"params": {"x": np.full(2, epoch, np.float32)}})
        variables, about = load_variables(tmp_path / "encoder.npz")
        assert about == {"encoder": "conv4", "epochs": epoch} and len(judged) == count
        np.testing.assert_array_equal(variables["params"]["x"], epoch)
