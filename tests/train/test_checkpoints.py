import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxal.records import write_record
from jaxal.sharding import data_mesh
from jaxal.train.checkpoints import (
    latest_step,
    open_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from jaxal.train.step import Aux, init_state, make_train_step

SETTINGS = {"seed": 3, "config": {"learning_rate": 0.1}}


def loss_fn(params, batch_stats, batch, key):
    noise = jax.random.normal(key, batch["x"].shape)
    hidden = jnp.tanh((batch["x"] + 0.1 * noise) @ params["a"])
    stats = {"mean": 0.9 * batch_stats["mean"] + 0.1 * hidden.mean(0)}
    errors = (hidden @ params["b"])[:, 0] - batch["x"].sum(1)
    return jnp.mean(jnp.where(batch["mask"], errors**2, 0)), Aux(stats, {})


def optimizer():
    return optax.partition(
        {"slow": optax.adamw(1e-3), "fast": optax.sgd(0.05, momentum=0.9, nesterov=True)},
        {"a": "slow", "b": "fast"},
    )


def start(mesh=None):
    rng = np.random.default_rng(0)
    params = {
        "a": jnp.asarray(rng.normal(size=(4, 6)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(6, 1)), jnp.bfloat16),
    }
    variables = {"params": params, "batch_stats": {"mean": jnp.zeros(6)}}
    return init_state(variables, optimizer(), ema=True, mesh=mesh)


def train(state, steps, step=None):
    step = make_train_step(loss_fn, optimizer(), ema_decay=0.9) if step is None else step
    metrics = []
    for _ in range(steps):
        rng = np.random.default_rng(int(state.step))
        batch = {"x": rng.normal(size=(5, 4)).astype(np.float32)}
        state, found = step(state, batch, jax.random.key(7))
        metrics.append(jax.device_get(found))
    return state, metrics


def assert_equal_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_a_restored_training_ends_bit_for_bit_as_one_that_ran_through(tmp_path):
    through, metrics = train(start(), 20)
    half, first = train(start(), 10)
    save_checkpoint(tmp_path / "run", half, SETTINGS, record={"epoch": 1, "loss": 1 / 3})
    restored = restore_checkpoint(tmp_path / "run", start(), SETTINGS)
    assert restored.step == 10
    assert restored.record == {"epoch": 1, "loss": 1 / 3}
    assert_equal_bits(restored.state, half)
    found, second = train(restored.state, 10)
    assert_equal_bits(found, through)
    assert_equal_bits([*first, *second], metrics)


def test_last_steps_are_kept(tmp_path):
    path = tmp_path / "run"
    assert latest_step(path) is None
    state = {"w": np.arange(3.0)}
    for step in range(1, 5):
        save_checkpoint(path, state, SETTINGS, step=step, record=step, keep=2)
    assert latest_step(path) == 4
    assert sorted(entry.name for entry in path.iterdir() if entry.is_dir()) == ["3", "4"]
    assert restore_checkpoint(path, state, SETTINGS, step=3).record == 3
    with pytest.raises(FileNotFoundError, match="step 2"):
        restore_checkpoint(path, state, SETTINGS, step=2)
    with pytest.raises(ValueError, match=r"step: expected more than 4, .* found 4"):
        save_checkpoint(path, state, SETTINGS, step=4)


def test_arrays_come_back_where_the_template_has_them(tmp_path):
    state = {"numpy": np.arange(3, dtype=np.int16), "jax": jnp.ones((2, 2), jnp.bfloat16)}
    save_checkpoint(tmp_path / "run", state, SETTINGS, step=0)
    mesh = data_mesh()
    template = {"numpy": np.zeros(3, np.int16), "jax": jnp.zeros((2, 2), jnp.bfloat16)}
    template["jax"] = jax.device_put(
        template["jax"], jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    )
    found = restore_checkpoint(tmp_path / "run", template, SETTINGS).state
    assert isinstance(found["numpy"], np.ndarray)
    assert found["jax"].sharding == template["jax"].sharding
    assert_equal_bits(found, state)


def test_other_settings_are_refused_by_name(tmp_path):
    path, state = tmp_path / "run", {"w": np.ones(2)}
    save_checkpoint(path, state, SETTINGS, step=1)
    other = {**SETTINGS, "config": {"learning_rate": 0.2}}
    message = r"other settings: config.learning_rate: expected 0.2, found 0.1"
    with pytest.raises(ValueError, match=message):
        restore_checkpoint(path, state, other)
    with pytest.raises(ValueError, match=message):
        save_checkpoint(path, state, other, step=2)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"w": np.ones(3)}, r"\['w'\]: expected float64 \[3\], found float64 \[2\]"),
        ({"w": np.ones(2, np.float32)}, r"\['w'\]: expected float32 \[2\], found float64"),
        ({"v": np.ones(2)}, r"\['v'\]: expected float64 \[2\], found None"),
        ({}, r"\['w'\]: expected None, found float64"),
    ],
)
def test_other_states_are_refused_by_name(tmp_path, template, message):
    save_checkpoint(tmp_path / "run", {"w": np.ones(2)}, SETTINGS, step=1)
    with pytest.raises(ValueError, match=message):
        restore_checkpoint(tmp_path / "run", template, SETTINGS)


def test_a_save_that_was_cut_off_leaves_the_step_before(tmp_path):
    path, state = tmp_path / "run", {"w": np.ones(2)}
    save_checkpoint(path, state, SETTINGS, step=1)
    shutil.copytree(path / "1", path / "2.orbax-checkpoint-tmp-0")
    assert latest_step(path) == 1
    assert restore_checkpoint(path, state, SETTINGS).step == 1
    save_checkpoint(path, state, SETTINGS, step=2)
    assert restore_checkpoint(path, state, SETTINGS).step == 2


def test_missing_and_foreign_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a saved step, found none"):
        restore_checkpoint(tmp_path / "none", {"w": np.ones(2)}, SETTINGS)
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    with pytest.raises(ValueError, match="expected a checkpoint or a free place"):
        save_checkpoint(tmp_path / "photos", {"w": np.ones(2)}, SETTINGS, step=1)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="path: expected a folder, found the file"):
        save_checkpoint(tmp_path / "file", {"w": np.ones(2)}, SETTINGS, step=1)
    with pytest.raises(ValueError, match=r"no empty arrays, found \['w'\]"):
        save_checkpoint(tmp_path / "run", {"w": np.ones(0)}, SETTINGS, step=1)
    with pytest.raises(ValueError, match="keep"):
        save_checkpoint(tmp_path / "run", {"w": np.ones(1)}, SETTINGS, step=1, keep=0)


def test_places_are_checked_before_a_training(tmp_path):
    path = tmp_path / "run"
    assert open_checkpoint(path, SETTINGS) is None and not path.exists()
    path.mkdir()
    assert open_checkpoint(path, SETTINGS) is None
    # What a kill during the first save leaves.
    write_record(path / "settings.json", None, SETTINGS)
    (path / ".settings.json.1.tmp").touch()
    assert open_checkpoint(path, SETTINGS) is None
    with pytest.raises(ValueError, match="other settings: seed: expected 4, found 3"):
        open_checkpoint(path, {**SETTINGS, "seed": 4})
    save_checkpoint(path, {"w": np.ones(2)}, SETTINGS, step=5)
    assert open_checkpoint(path, SETTINGS) == 5


def test_places_that_cannot_be_are_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "within"):
        with pytest.raises(ValueError, match=r"path: expected a folder, found the file .*/file"):
            open_checkpoint(path, SETTINGS)
    with pytest.raises(ValueError, match="expected a checkpoint or a free place"):
        open_checkpoint(tmp_path, SETTINGS)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="not a saved run"):
        open_checkpoint(tmp_path, SETTINGS)


def test_a_full_disk_is_told_of_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"MB free to save in, found 0\.0001 MB"):
        save_checkpoint(tmp_path / "at", start(), SETTINGS)
    assert not (tmp_path / "at").exists()
