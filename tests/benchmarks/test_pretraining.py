"""Parts of the command pretrain; the whole is in test_image_commands."""

import numpy as np
import pytest

from benchmarks import pretraining
from jaxal.data import from_arrays
from jaxal.models.preprocess import CIFAR10
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
