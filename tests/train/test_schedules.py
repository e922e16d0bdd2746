import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.train.schedules import ScheduleConfig, check_schedule, rate_at, scale_by_rate

PER_EPOCH, EPOCHS = 5, 12


def factors(config):
    total = PER_EPOCH * EPOCHS
    at = jax.vmap(lambda t: rate_at(config, t, steps_per_epoch=PER_EPOCH, total_steps=total))
    return at(jnp.arange(total)), np.arange(total)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ScheduleConfig("constant"), lambda t: np.ones(len(t))),
        (ScheduleConfig("cosine_7_16"), lambda t: np.cos(7 * np.pi / 16 * t / 60)),
        (ScheduleConfig("cosine"), lambda t: (1 + np.cos(np.pi * t / 60)) / 2),
        (
            ScheduleConfig("step", milestones=(3, 8)),
            lambda t: np.where(t < 15, 1, np.where(t < 40, 0.1, 0.01)),
        ),
        (
            ScheduleConfig("step", milestones=(6,), factor=0.5),
            lambda t: np.where(t < 30, 1, 0.5),
        ),
        (
            ScheduleConfig("constant", warmup_epochs=2),
            lambda t: np.minimum((t + 1) / 10, 1),
        ),
        (
            ScheduleConfig("cosine", warmup_epochs=1.6),
            lambda t: np.where(t < 8, (t + 1) / 8, (1 + np.cos(np.pi * (t - 8) / 52)) / 2),
        ),
        (
            ScheduleConfig("step", milestones=(3, 8), warmup_epochs=1),
            lambda t: np.minimum((t + 1) / 5, 1) * np.where(t < 15, 1, np.where(t < 40, 0.1, 0.01)),
        ),
    ],
)
def test_factors_are_the_formulas(config, expected):
    check_schedule(config)
    found, steps = factors(config)
    np.testing.assert_allclose(found, expected(steps), atol=2e-6)


def test_rate_moves_with_every_update():
    config = ScheduleConfig("cosine")
    transform = scale_by_rate(0.3, config, steps_per_epoch=1, total_steps=4)
    state = transform.init({})
    for t in range(4):
        updates, state = transform.update({"w": jnp.ones(2), "h": jnp.ones(1, jnp.bfloat16)}, state)
        rate = 0.3 * (1 + np.cos(np.pi * t / 4)) / 2
        np.testing.assert_allclose(updates["w"], -rate, rtol=1e-5)
        assert updates["h"].dtype == jnp.bfloat16
    assert state.updates == 4


def test_rates_and_lengths_come_from_the_state():
    config = ScheduleConfig("cosine")
    long = scale_by_rate(0.3, config, steps_per_epoch=1, total_steps=100)
    short = scale_by_rate(1.0, config, steps_per_epoch=1, total_steps=2)
    state = long.init({})._replace(updates=jnp.int32(50))
    np.testing.assert_allclose(short.update(jnp.ones(()), state)[0], -0.15, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("cosine", "schedule: expected a ScheduleConfig, found str"),
        (ScheduleConfig("linear"), "schedule.name: expected one of .* found 'linear'"),
        (ScheduleConfig("step"), "milestones: expected some just"),
        (ScheduleConfig("cosine", milestones=(3,)), "milestones: expected some just"),
        (ScheduleConfig("step", milestones=(3, 3)), "milestones: expected growing"),
        (ScheduleConfig("step", milestones=(0,)), "milestones: expected a whole number"),
        (ScheduleConfig("step", milestones=(1,), factor=-1), "factor"),
        (ScheduleConfig(warmup_epochs=-1), "schedule.warmup_epochs: expected a number of 0"),
        (ScheduleConfig(warmup_epochs=2), "schedule.warmup_epochs: expected less than the 2 epo"),
    ],
)
def test_bad_schedules_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        check_schedule(config, epochs=2)
    with pytest.raises(ValueError, match=r"stage\.schedule: expected a ScheduleConfig, found int"):
        check_schedule(3, "stage.schedule")


def test_bad_numbers_are_named():
    for options, message in (
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"total_steps": 0}, "total_steps"),
        ({"steps_per_epoch": 1.5}, "steps_per_epoch"),
    ):
        given = {"learning_rate": 0.1, "steps_per_epoch": 1, "total_steps": 1} | options
        with pytest.raises(ValueError, match=message):
            scale_by_rate(given.pop("learning_rate"), ScheduleConfig(), **given)
