import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxal.train.optimizers import OptimizerConfig, check_optimizer, make_optimizer
from jaxal.train.schedules import ScheduleConfig

CONSTANT = ScheduleConfig("constant")


def tree(seed):
    rng = np.random.default_rng(seed)
    return {
        "encoder": {
            "stem": {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)},
            "stage_1_block": {"kernel": rng.normal(size=(2, 2))},
            "stage_10": {"kernel": rng.normal(size=(2, 2))},
        },
        "head": {"kernel": rng.normal(size=(2, 3)), "bias": rng.normal(size=3)},
    }


def to_jax(x):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), x)


def updated(groups, steps=4, schedule=CONSTANT):
    """Update ``tree(0)`` by the gradients ``tree(1)``, ``tree(2)``, …"""
    optimizer = make_optimizer(groups, schedule, steps_per_epoch=1, total_steps=steps)
    params = to_jax(tree(0))
    state = optimizer.init(params)
    for t in range(steps):
        updates, state = optimizer.update(to_jax(tree(t + 1)), state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_sgd_equals_nesterov_in_numpy():
    head = OptimizerConfig(learning_rate=0.2, momentum=0.8, weight_decay=0.01)
    found = updated({"encoder": None, "head": head}, schedule=ScheduleConfig("cosine"))
    for name, w in tree(0)["head"].items():
        trace = np.zeros_like(w)
        for t in range(4):
            g = tree(t + 1)["head"][name] + 0.01 * w
            trace = 0.8 * trace + g
            w = w - 0.2 * (1 + np.cos(np.pi * t / 4)) / 2 * (g + 0.8 * trace)
        np.testing.assert_allclose(found["head"][name], w, rtol=1e-5, atol=1e-6)


def test_adamw_equals_numpy():
    head = OptimizerConfig("adamw", learning_rate=0.2, b1=0.8, b2=0.95, weight_decay=0.1)
    found = updated({"encoder": None, "head": head})
    for name, w in tree(0)["head"].items():
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t in range(4):
            g = tree(t + 1)["head"][name]
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
            direction = (m / (1 - 0.8 ** (t + 1))) / (np.sqrt(v / (1 - 0.95 ** (t + 1))) + 1e-8)
            w = w - 0.2 * (direction + 0.1 * w)
        np.testing.assert_allclose(found["head"][name], w, rtol=1e-5, atol=1e-6)


def test_groups_have_their_own_rates_and_frozen_ones_stay():
    plain = OptimizerConfig(learning_rate=0.1, momentum=0.0)
    found = updated({"encoder": plain._replace(learning_rate=0.01), "head": plain}, steps=1)
    expected = jax.tree.map(
        lambda rate, w, g: jax.tree.map(lambda w, g: w - rate * g, w, g),
        {"encoder": 0.01, "head": 0.1},
        tree(0),
        tree(1),
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    frozen = updated({"encoder": None, "head": OptimizerConfig(weight_decay=0.1)})
    start = to_jax(tree(0))
    jax.tree.map(np.testing.assert_array_equal, frozen["encoder"], start["encoder"])
    assert not np.array_equal(frozen["head"]["bias"], start["head"]["bias"])


def test_vectors_may_be_spared_from_decay():
    decayed = OptimizerConfig(learning_rate=0.1, momentum=0.0, weight_decay=0.5)
    spared = decayed._replace(decay_vectors=False)
    everything = updated({"encoder": decayed, "head": decayed}, steps=1)
    found = updated({"encoder": decayed, "head": spared}, steps=1)
    plain = updated({"encoder": decayed, "head": decayed._replace(weight_decay=0.0)}, steps=1)
    np.testing.assert_array_equal(found["head"]["bias"], plain["head"]["bias"])
    np.testing.assert_array_equal(found["head"]["kernel"], everything["head"]["kernel"])
    assert not np.allclose(found["head"]["kernel"], plain["head"]["kernel"])
    adam = spared._replace(name="adamw")
    a = updated({"encoder": None, "head": adam}, steps=1)
    b = updated({"encoder": None, "head": adam._replace(weight_decay=0.0)}, steps=1)
    np.testing.assert_array_equal(a["head"]["bias"], b["head"]["bias"])


def test_layers_nearer_to_the_input_move_less():
    layers = ("stem", "stage_1", "stage_10")
    config = OptimizerConfig(learning_rate=0.1, momentum=0.0, layer_decay=0.5, layers=layers)
    found = updated({"encoder": config, "head": config._replace(layer_decay=1.0)}, steps=1)
    start, gradient = tree(0)["encoder"], tree(1)["encoder"]
    for name, scale in {"stem": 0.25, "stage_1_block": 0.5, "stage_10": 1.0}.items():
        expected = start[name]["kernel"] - 0.1 * scale * gradient[name]["kernel"]
        np.testing.assert_allclose(found["encoder"][name]["kernel"], expected, rtol=1e-5)


def test_unknown_groups_and_layers_are_named():
    config = OptimizerConfig()
    with pytest.raises(ValueError, match=r"params: expected the groups \['head'\]"):
        updated({"head": config})
    short = config._replace(layer_decay=0.5, layers=("stem", "stage_1"))
    with pytest.raises(ValueError, match=r"encoder.layers: expected a name for 'stage_10'"):
        updated({"encoder": short, "head": config})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "lamb"}, "head.name: expected one of .* found 'lamb'"),
        ({"learning_rate": 0}, "head.learning_rate"),
        ({"weight_decay": -1}, "head.weight_decay"),
        ({"momentum": 1.0}, "head.momentum"),
        ({"b2": 1.0}, "head.b2"),
        ({"layer_decay": 0.0}, "head.layer_decay"),
        ({"layer_decay": 1.5}, "head.layer_decay"),
        ({"layer_decay": 0.5}, "head.layers: expected the layers' names"),
        ({"layers": ("a", "a")}, "head.layers: expected distinct names"),
        ({"layers": "stem"}, "head.layers: expected distinct names"),
    ],
)
def test_bad_options_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        check_optimizer(OptimizerConfig()._replace(**change), "head")
    with pytest.raises(ValueError, match="optimizer: expected an OptimizerConfig, found str"):
        check_optimizer("sgd")
