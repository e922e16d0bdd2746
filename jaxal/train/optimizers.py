"""Optimisers that treat the parts of a network differently, such as its encoder and its head."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import optax

from jaxal.checks import check_choice, check_number
from jaxal.train.schedules import ScheduleConfig, check_schedule, scale_by_rate

__all__ = ["OptimizerConfig", "check_optimizer", "make_optimizer"]

_Name = Literal["sgd", "adamw"]


class OptimizerConfig(NamedTuple):
    """How one group of parameters is optimised."""

    name: _Name = "sgd"
    learning_rate: float = 0.1  # the largest; the schedule goes down from it
    momentum: float = 0.9  # of "sgd", Nesterov's
    b1: float = 0.9  # of "adamw"
    b2: float = 0.999  # of "adamw"
    weight_decay: float = 0.0  # "sgd" adds it to the gradient, "adamw" to the update
    decay_vectors: bool = True  # whether biases and the scales of norms are decayed too
    # The rate of a layer is `layer_decay` times that of the next. `layers` names them from input to
    # output, by what their parameters' names start with: ("stem", "stage_0", "stage_1").
    layer_decay: float = 1.0
    layers: tuple[str, ...] = ()


def check_optimizer(config: OptimizerConfig, name: str = "optimizer") -> None:
    """Check the optimisation of a group.

    Raises:
      ValueError: an unknown optimiser, or a number out of its range.
    """
    if not isinstance(config, OptimizerConfig):
        raise ValueError(f"{name}: expected an OptimizerConfig, found {type(config).__name__}")
    check_choice(config.name, f"{name}.name", _Name)
    check_number(config.learning_rate, f"{name}.learning_rate", least=0, above=True)
    check_number(config.weight_decay, f"{name}.weight_decay", least=0)
    for field in ("momentum", "b1", "b2"):
        value = check_number(getattr(config, field), f"{name}.{field}", least=0)
        if value >= 1:
            raise ValueError(f"{name}.{field}: expected a number below 1, found {value!r}")
    check_number(config.layer_decay, f"{name}.layer_decay", least=0, above=True)
    if config.layer_decay > 1:
        raise ValueError(f"{name}.layer_decay: expected at most 1, found {config.layer_decay!r}")
    if config.layer_decay < 1 and not config.layers:
        raise ValueError(f"{name}.layers: expected the layers' names, as layer_decay is set")
    if isinstance(config.layers, str) or len(set(config.layers)) < len(config.layers):
        raise ValueError(f"{name}.layers: expected distinct names, found {config.layers!r}")


def make_optimizer(
    groups: Mapping[str, OptimizerConfig | None],
    schedule: ScheduleConfig,
    *,
    steps_per_epoch: int,
    total_steps: int,
) -> optax.GradientTransformation:
    """Make the optimiser of a network whose parameters come in groups.

    Args:
      groups: for each entry at the top of the parameters, "encoder" and "head" say, how it is
        optimised; None keeps it as it is.
      schedule: of all learning rates.
      steps_per_epoch: updates in an epoch.
      total_steps: updates in the whole training.

    Returns:
      The optimiser. The two numbers and the learning rates are in its state: an optimiser made with
      others goes on from that state as this one would.

    Raises:
      ValueError: a bad configuration or number; later, parameters that are not in these groups, or
        a layer that ``layers`` does not name.
    """
    check_schedule(schedule)
    transforms = {}
    for name, config in groups.items():
        if config is None:
            transforms[name] = optax.set_to_zero()
            continue
        check_optimizer(config, name)
        rate = scale_by_rate(
            config.learning_rate,
            schedule,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
        )
        transforms[name] = optax.chain(*_direction(config, name), rate)

    def label(params: Mapping[str, Any]) -> dict[str, str]:
        if set(params) != set(groups):
            raise ValueError(
                f"params: expected the groups {sorted(groups)}, found {sorted(params)}"
            )
        return {name: name for name in params}

    return optax.partition(transforms, label)


def _direction(config: OptimizerConfig, group: str) -> list[optax.GradientTransformation]:
    """Give the transformations ahead of the learning rate."""
    parts: list[optax.GradientTransformation] = []
    decay = optax.add_decayed_weights(
        config.weight_decay, mask=None if config.decay_vectors else _matrices
    )
    if config.name == "adamw":
        parts.append(optax.scale_by_adam(config.b1, config.b2))
    if config.weight_decay > 0:
        parts.append(decay)
    if config.name == "sgd" and config.momentum > 0:
        parts.append(optax.trace(config.momentum, nesterov=True))
    if config.layer_decay < 1:
        parts.append(_scale_layers(config, group))
    return parts


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _scale_layers(config: OptimizerConfig, group: str) -> optax.GradientTransformation:
    """Multiply a layer's updates by ``layer_decay`` to the power of the layers behind it."""

    def scale(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        # The group's own name comes first.
        name = str(path[1].key)
        matching = [layer for layer in config.layers if _starts(name, layer)]
        if not matching:
            raise ValueError(f"{group}.layers: expected a name for {name!r}, found {config.layers}")
        behind = len(config.layers) - 1 - config.layers.index(max(matching, key=len))
        return update * config.layer_decay**behind

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def _starts(name: str, layer: str) -> bool:
    """Tell whether a name is a layer's or one within it; "stage_10" is not within "stage_1"."""
    return name == layer or name.startswith(f"{layer}_")
