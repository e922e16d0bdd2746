"""How the learning rate goes down over a training."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxal.checks import check_choice, check_number, check_positive

__all__ = ["RateState", "Schedule", "ScheduleConfig", "check_schedule", "rate_at", "scale_by_rate"]

Schedule = Literal["cosine_7_16", "cosine", "step", "constant"]


class ScheduleConfig(NamedTuple):
    """How the learning rate moves: a factor on it at update t of T."""

    # "cosine_7_16": cos(7π/16 · t/T), which ends at 0.195; "cosine": (1 + cos(π · t/T)) / 2;
    # "step": `factor` to the power of the milestones passed; "constant": 1.
    name: Schedule = "cosine_7_16"
    milestones: tuple[int, ...] = ()  # epochs, for "step"
    factor: float = 0.1  # for "step"
    warmup_epochs: float = 0.0  # ahead of it the rate grows linearly; t and T of cosines exclude it


def check_schedule(
    config: ScheduleConfig, name: str = "schedule", *, epochs: int | None = None
) -> None:
    """Check a schedule.

    Args:
      config: the schedule.
      name: what to call it in an error.
      epochs: of the training, which the warm-up has to be shorter than; None for any.

    Raises:
      ValueError: an unknown name, or epochs or a factor out of their range.
    """
    if not isinstance(config, ScheduleConfig):
        raise ValueError(f"{name}: expected a ScheduleConfig, found {type(config).__name__}")
    check_choice(config.name, f"{name}.name", Schedule)
    for epoch in config.milestones:
        check_positive(epoch, f"{name}.milestones")
    if list(config.milestones) != sorted(set(config.milestones)):
        raise ValueError(f"{name}.milestones: expected growing epochs, found {config.milestones}")
    if bool(config.milestones) != (config.name == "step"):
        raise ValueError(
            f'{name}.milestones: expected some just for "step", found {config.milestones} for '
            f"{config.name!r}"
        )
    check_number(config.factor, f"{name}.factor", least=0)
    check_number(config.warmup_epochs, f"{name}.warmup_epochs", least=0)
    if epochs is not None and config.warmup_epochs >= epochs:
        raise ValueError(
            f"{name}.warmup_epochs: expected less than the {epochs} epochs, "
            f"found {config.warmup_epochs}"
        )


def rate_at(
    config: ScheduleConfig, step: ArrayLike, *, steps_per_epoch: ArrayLike, total_steps: ArrayLike
) -> jax.Array:
    """Compute the factor on the learning rate.

    The cosine of 7/16 is FixMatch's (arXiv 2001.07685) and that of the proxy of arXiv 2403.01101.

    Args:
      config: the schedule.
      step: ``()`` updates done before this one; may be traced, like the two below.
      steps_per_epoch: ``()`` updates in an epoch.
      total_steps: ``()`` updates in the whole training.

    Returns:
      ``()`` float32, 0 or more.
    """
    t = jnp.asarray(step, jnp.float32)
    per_epoch = jnp.asarray(steps_per_epoch, jnp.float32)
    warmup = jnp.round(config.warmup_epochs * per_epoch)
    span = jnp.maximum(jnp.asarray(total_steps, jnp.float32) - warmup, 1)
    progress = jnp.clip((t - warmup) / span, 0, 1)
    if config.name == "cosine_7_16":
        factor = jnp.cos(7 * jnp.pi / 16 * progress)
    elif config.name == "cosine":
        factor = (1 + jnp.cos(jnp.pi * progress)) / 2
    elif config.name == "step":
        passed = jnp.sum(t >= jnp.asarray(config.milestones, jnp.float32) * per_epoch)
        factor = jnp.float32(config.factor) ** passed
    else:
        factor = jnp.float32(1)
    return jnp.where(t < warmup, (t + 1) / jnp.maximum(warmup, 1), 1) * factor


class RateState(NamedTuple):
    """The learning rate and where a training stands in its schedule.

    All are numbers in the state rather than in the program, so that trainings at other rates and of
    other lengths share what was compiled.
    """

    learning_rate: jax.Array  # () float32, the largest
    updates: jax.Array  # () int32, those done
    steps_per_epoch: jax.Array  # () int32
    total_steps: jax.Array  # () int32


def scale_by_rate(
    learning_rate: float, schedule: ScheduleConfig, *, steps_per_epoch: int, total_steps: int
) -> optax.GradientTransformation:
    """Multiply updates by minus the learning rate of the moment.

    Args:
      learning_rate: its largest value.
      schedule: how it moves.
      steps_per_epoch: updates in an epoch.
      total_steps: updates in the whole training.

    Returns:
      The transformation, with a `RateState` that holds the three numbers: made with others, it goes
      on from that state as this one would.

    Raises:
      ValueError: a bad schedule, or a number out of its range.
    """
    check_schedule(schedule)
    check_number(learning_rate, "learning_rate", least=0, above=True)
    check_positive(steps_per_epoch, "steps_per_epoch")
    check_positive(total_steps, "total_steps")

    def init(params: Any) -> RateState:
        del params
        counts = (jnp.asarray(x, jnp.int32) for x in (0, steps_per_epoch, total_steps))
        return RateState(jnp.asarray(learning_rate, jnp.float32), *counts)

    def update(updates: Any, state: RateState, params: Any = None) -> tuple[Any, RateState]:
        del params
        rate = state.learning_rate * rate_at(
            schedule,
            state.updates,
            steps_per_epoch=state.steps_per_epoch,
            total_steps=state.total_steps,
        )
        scaled = jax.tree.map(lambda u: u * (-rate).astype(u.dtype), updates)
        return scaled, state._replace(updates=state.updates + 1)

    return optax.GradientTransformation(init, update)
