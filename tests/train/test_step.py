import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxal.sharding import data_mesh
from jaxal.train.step import Aux, init_state, make_train_step, state_variables

KEY = jax.random.key(0)
SCRIPT = Path(__file__).with_name("train_on_devices.py")


def linear_loss(params, batch_stats, batch, key):
    """Mean squared error, with the mean of the rows as the only batch statistics."""
    errors = (batch["x"] @ params["w"] - batch["y"]) ** 2
    count = jnp.maximum(batch["mask"].sum(), 1)

    def mean(values):
        return jnp.where(batch["mask"], values, 0).sum() / count

    stats = {"seen": 0.5 * batch_stats["seen"] + 0.5 * mean(batch["x"][:, 0])}
    noise = jax.random.uniform(key)
    return mean(errors), Aux(stats, {"largest": mean(jnp.abs(batch["y"])), "noise": noise})


def data(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return {"x": x, "y": (x @ [1.0, -2.0, 0.5] + 0.1).astype(np.float32)}


def start(optimizer, **options):
    variables = {"params": {"w": jnp.zeros(3)}, "batch_stats": {"seen": jnp.zeros(())}}
    return init_state(variables, optimizer, **options)


def run(batches, *, options=None, ema=False, mesh=None):
    optimizer = optax.sgd(0.1, momentum=0.9)
    step = make_train_step(linear_loss, optimizer, mesh=mesh, **(options or {}))
    state, seen = start(optimizer, ema=ema, mesh=mesh), []
    for batch in batches:
        state, metrics = step(state, batch, KEY)
        seen.append(jax.device_get(metrics))
    return jax.device_get(state), seen


def test_step_equals_numpy():
    batches = [data(7, seed) for seed in range(5)]
    state, metrics = run(batches, options={"ema_decay": 0.8}, ema=True)
    w, trace, average, seen, seen_average = np.zeros(3), np.zeros(3), np.zeros(3), 0.0, 0.0
    for batch, found in zip(batches, metrics, strict=True):
        x, y = batch["x"].astype(float), batch["y"].astype(float)
        np.testing.assert_allclose(found["loss"], ((x @ w - y) ** 2).mean(), rtol=1e-5)
        np.testing.assert_allclose(found["largest"], np.abs(y).mean(), rtol=1e-5)
        gradient = 2 * x.T @ (x @ w - y) / len(x)
        np.testing.assert_allclose(found["grad_norm"], np.linalg.norm(gradient), rtol=1e-4)
        trace = 0.9 * trace + gradient
        w = w - 0.1 * trace
        average = 0.8 * average + 0.2 * w
        seen = 0.5 * seen + 0.5 * x[:, 0].mean()
        seen_average = 0.8 * seen_average + 0.2 * seen
    assert state.step == 5
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-4)
    np.testing.assert_allclose(state.batch_stats["seen"], seen, rtol=1e-4)
    variables = state_variables(state)
    np.testing.assert_allclose(variables["params"]["w"], average, rtol=1e-4)
    np.testing.assert_allclose(variables["batch_stats"]["seen"], seen_average, rtol=1e-4)


@pytest.mark.parametrize(("rows", "parts"), [(1, 4), (8, 2), (11, 4)])
def test_accumulated_parts_equal_the_whole_batch(rows, parts):
    batches = [data(rows, seed) for seed in range(4)]
    batches[1]["mask"] = np.arange(rows) % 3 != 1
    whole, whole_metrics = run(batches)
    found, metrics = run(batches, options={"accumulate": parts})
    np.testing.assert_allclose(found.params["w"], whole.params["w"], rtol=1e-5, atol=1e-6)
    for a, b in zip(metrics, whole_metrics, strict=True):
        for name in ("loss", "largest", "grad_norm"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5)


def test_batch_statistics_skip_parts_of_padding():
    # One row in four parts: three of them are padding, which would drag the mean on.
    found, _ = run([data(1)], options={"accumulate": 4})
    np.testing.assert_allclose(found.batch_stats["seen"], 0.5 * data(1)["x"][0, 0], rtol=1e-6)


def test_masked_rows_change_nothing():
    batch = data(5)
    spoiled = {name: np.concatenate([x, np.full_like(x[:2], 1e3)]) for name, x in batch.items()}
    spoiled["mask"] = np.arange(7) < 5
    expected, _ = run([batch] * 3)
    found, _ = run([spoiled] * 3)
    np.testing.assert_allclose(found.params["w"], expected.params["w"], rtol=1e-6)


def test_every_step_has_its_own_key():
    _, metrics = run([data(4)] * 3)
    drawn = [float(m["noise"]) for m in metrics]
    assert len(set(drawn)) == 3
    expected = [float(jax.random.uniform(jax.random.fold_in(KEY, t))) for t in range(3)]
    np.testing.assert_array_equal(drawn, expected)


def test_a_mesh_of_one_device_changes_no_bit():
    batches = [data(5, seed) for seed in range(3)]
    plain, _ = run(batches)
    found, _ = run(batches, mesh=data_mesh(jax.devices()[:1]))
    np.testing.assert_array_equal(found.params["w"], plain.params["w"])


def test_the_state_given_is_used_up_and_the_variables_are_not():
    optimizer = optax.sgd(0.1)
    variables = {"params": {"w": jnp.zeros(3)}, "batch_stats": {"seen": jnp.zeros(())}}
    state = init_state(variables, optimizer)
    step = make_train_step(linear_loss, optimizer)
    moved, _ = step(state, data(4), KEY)
    np.testing.assert_array_equal(variables["params"]["w"], 0)
    assert state.params["w"].is_deleted()
    assert not moved.params["w"].is_deleted()


def test_networks_without_batch_statistics_have_none():
    def loss_fn(params, batch_stats, batch, key):
        return jnp.mean((params["w"] - batch["x"]) ** 2), Aux(batch_stats, {})

    state = init_state({"params": {"w": jnp.zeros(3)}}, optax.sgd(0.1))
    state, metrics = make_train_step(loss_fn, optax.sgd(0.1))(state, data(4), KEY)
    assert state.batch_stats == {}
    assert set(metrics) == {"loss", "grad_norm"}


def test_batches_of_batches_train():
    def loss_fn(params, batch_stats, batch, key):
        loss, aux = linear_loss(params, batch_stats, batch["labeled"], key)
        other, _ = linear_loss(params, batch_stats, batch["unlabeled"], key)
        return loss + 0.5 * other, aux

    optimizer = optax.sgd(0.1)
    batch = {"labeled": data(3), "unlabeled": data(7, 1)}
    _, metrics = make_train_step(loss_fn, optimizer)(start(optimizer), batch, KEY)
    expected = np.mean(data(3)["y"] ** 2) + 0.5 * np.mean(data(7, 1)["y"] ** 2)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="accumulate: expected 1"):
        make_train_step(loss_fn, optimizer, accumulate=2)(start(optimizer), batch, KEY)


def test_a_memory_goes_from_step_to_step():
    def loss_fn(params, batch_stats, batch, key):
        loss, aux = linear_loss(params, batch_stats, batch, key)
        return loss, aux._replace(memory={"rows": batch["memory"]["rows"] + batch["mask"].sum()})

    optimizer = optax.sgd(0.1)
    given = {"rows": jnp.int32(1)}
    state = start(optimizer, memory=given)
    step = make_train_step(loss_fn, optimizer)
    for n in (4, 4):
        state, _ = step(state, data(n), KEY)
    assert state.memory["rows"] == 9
    assert not given["rows"].is_deleted()
    with pytest.raises(ValueError, match="accumulate: expected 1 with a memory, found 2"):
        make_train_step(loss_fn, optimizer, accumulate=2)(state, data(4), KEY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate"),
        ({"ema_decay": 1.0}, "ema_decay: expected a number below 1"),
        ({"ema_decay": -0.1}, "ema_decay"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_train_step(linear_loss, optax.sgd(0.1), **options)


def test_bad_states_and_batches_are_named():
    optimizer = optax.sgd(0.1, momentum=0.9)
    with pytest.raises(ValueError, match="variables: expected 'params'"):
        init_state({"weights": {}}, optimizer)
    with pytest.raises(ValueError, match=r"found \['cache', 'params'\]"):
        init_state({"params": {}, "cache": {}}, optimizer)
    with pytest.raises(ValueError, match="state: expected moving averages"):
        run([data(3)], options={"ema_decay": 0.9})
    with pytest.raises(ValueError, match="state: expected moving averages"):
        run([data(3)], ema=True)
    with pytest.raises(ValueError, match="equally many rows"):
        run([{**data(3), "z": np.ones(2)}])


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("train_on_devices", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.train(None, tmp_path_factory.mktemp("one") / "checkpoint")


def start_process(num_devices, *arguments):
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(out.splitlines()[-1])


def assert_same_training(found, expected):
    for name, numbers in expected.items():
        np.testing.assert_allclose(found[name], numbers, atol=1e-5, rtol=0, err_msg=name)


def test_eight_devices_train_as_one(on_one_device, tmp_path):
    found = result(start_process(8, tmp_path / "checkpoint"))
    assert found["devices"] == 8
    assert_same_training(found, on_one_device)


@pytest.mark.slow
def test_two_processes_train_as_one(on_one_device, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [start_process(2, tmp_path / "checkpoint", i, address) for i in range(2)]
    for process in processes:
        found = result(process)
        assert found["devices"] == 4
        assert_same_training(found, on_one_device)
