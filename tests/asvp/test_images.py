"""The pipelines with a real network on images."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxal.asvp import PIPELINES, PipelineConfig, at_labels, run_pipeline
from jaxal.data.arrays import from_arrays
from jaxal.models.saved import load_variables
from jaxal.train.head import LINEAR
from jaxal.train.network import ImageNetwork
from jaxal.train.recipes import FT_SMALL, LpftConfig

FT = FT_SMALL._replace(epochs=2, train_batch_size=16)
CONFIG = PipelineConfig(
    head=LINEAR._replace(epochs=5), trigger=functools.partial(at_labels, counts=16)
)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        x = nn.relu(nn.Conv(6, (3, 3), strides=2)(images))
        return x.reshape(len(x), -1)


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def pool():
    x, y = load_digits(return_X_y=True)
    return from_arrays(np.uint8(x[:200].reshape(-1, 8, 8, 1) * (255 / 16)), y[:200])


def run(pipeline, pool, folder, labels=None, stop_at=None):
    encoder = Encoder()
    variables = encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    network = ImageNetwork(encoder, variables, pool, 10, ft=FT, lpft=LpftConfig(FT, FT))
    told = []

    def on_event(text):
        if len(told) == stop_at:
            raise StoppedError
        told.append(text)

    state = run_pipeline(
        pipeline,
        "margin",
        network,
        (pool.labels if labels is None else labels).take,
        [16, 8, 8],
        seed=0,
        folder=folder,
        evaluate=lambda v: {"accuracy": network.evaluate(v, pool, pool.labels).accuracy},
        config=CONFIG,
        on_event=on_event,
    )
    trainings = [t._replace(seconds=0.0, embed_seconds=0.0) for t in state.trainings]
    scores = [s._replace(seconds=0.0) for s in state.scores]
    return state.active.labeled.tolist(), trainings, scores, len(told)


@pytest.mark.slow
def test_network_is_refreshed_and_trained(pool, tmp_path):
    picks, trainings, scores, _ = run("asvp", pool, tmp_path)
    assert len(set(picks)) == 32
    assert [(t.purpose, t.num_labeled, t.method) for t in trainings] == [
        ("refresh", 16, "ft"),
        ("final", 32, "ft"),
    ]
    assert [(s.num_labeled, s.version) for s in scores] == [(16, 0), (16, 1), (24, 1)]
    assert not (tmp_path / "trainings").exists()


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_killed_before_any_step_it_ends_the_same(pipeline, pool, tmp_path):
    *whole, steps = run(pipeline, pool, tmp_path / "whole")
    for at in range(steps):
        with pytest.raises(StoppedError):
            run(pipeline, pool, tmp_path / str(at), stop_at=at)
        assert run(pipeline, pool, tmp_path / str(at))[:3] == tuple(whole)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_labels_not_paid_for_change_nothing(pipeline, pool, tmp_path):
    picks, trainings, scores, _ = run(pipeline, pool, tmp_path / "a")
    others = np.random.default_rng(0).permutation(pool.labels)
    others[picks] = pool.labels[picks]
    hidden = from_arrays(pool.load(np.arange(200)), others)
    again = run(pipeline, hidden, tmp_path / "b", labels=others)
    assert again[0] == picks and again[2] == scores
    assert [t[:3] for t in again[1]] == [t[:3] for t in trainings]
    name = f"{trainings[-1].method}-32.npz"
    trained, other = (load_variables(tmp_path / x / name)[0] for x in "ab")
    jax.tree.map(np.testing.assert_array_equal, trained, other)
