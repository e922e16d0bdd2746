"""Train a classification head from scratch on the labelled rows of fixed features.

`LINEAR`, ours, is what the library trains unless told otherwise. `PROXY`, which is `HeadConfig` as
it stands, is that of "Feature Alignment: Rethinking Efficient Active Learning via Proxy in the
Context of Pre-trained Models" (arXiv 2403.01101): Linear-BatchNorm-ReLU-Linear of width d on raw
features, SGD with Nesterov momentum 0.9, learning rate 0.1, no weight decay, the rate of step t of
T being ``lr · cos(7π/16 · t/T)``, initialised afresh each round. `PROXY_IMAGENET` has the paper's
50 epochs and batches of 2048 for ImageNet; the 100 epochs and batches of 256 of `PROXY` are ours.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_indices, check_labels, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE, map_rows, next_power
from jaxal.models.heads import DenseHead
from jaxal.train.epochs import DivergedError

__all__ = [
    "LINEAR",
    "PROXY",
    "PROXY_IMAGENET",
    "HeadConfig",
    "TrainedHead",
    "check_config",
    "first_layer",
    "make_head",
    "predict_head",
    "predict_probs",
    "train_head",
]

_SMALLEST_CAPACITY = 1024


class HeadConfig(NamedTuple):
    """How a head is built and trained."""

    hidden: tuple[int, ...] | Literal["same"] = "same"  # layer widths; "same": one as wide as d
    use_batch_norm: bool = True  # after each hidden layer
    epochs: int = 100
    train_batch_size: int = 256  # the most rows a step sees
    learning_rate: float = 0.1
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 0.0
    feature_norm: float | None = None  # mean row norm it trains at, by one factor; None: as is


PROXY = HeadConfig()  # the papers'
PROXY_IMAGENET = PROXY._replace(epochs=50, train_batch_size=2048)
# Ours: logistic regression stopped early. At few labels it beats the proxy by far, because batch
# statistics of ten rows say little; the learning rate wants features of a known size.
LINEAR = HeadConfig(hidden=(), use_batch_norm=False, feature_norm=4.0)


class TrainedHead(NamedTuple):
    """A trained head."""

    head: DenseHead  # the module
    variables: Any  # {"params": ..., "batch_stats": ...} for head.apply
    losses: jax.Array  # [epochs] float32, mean cross-entropy over each epoch's rows


def check_config(config: HeadConfig, name: str = "config") -> None:
    """Check a configuration.

    Raises:
      ValueError: no `HeadConfig`, or a width, count or rate out of its range.
    """
    if not isinstance(config, HeadConfig):
        raise ValueError(
            f"{name}: expected a HeadConfig, such as jaxal.LINEAR or jaxal.PROXY, found "
            + (repr(config) if isinstance(config, str) else type(config).__name__)
        )
    if config.hidden != "same":
        if isinstance(config.hidden, str):
            raise ValueError(f'hidden: expected widths or "same", found {config.hidden!r}')
        for width in config.hidden:
            check_positive(width, "hidden")
    check_positive(config.epochs, "epochs")
    check_positive(config.train_batch_size, "train_batch_size")
    if not config.learning_rate > 0:
        raise ValueError(f"learning_rate: expected more than 0, found {config.learning_rate}")
    if not 0 <= config.momentum < 1:
        raise ValueError(f"momentum: expected 0 <= momentum < 1, found {config.momentum}")
    if config.feature_norm is not None and not 0 < config.feature_norm < float("inf"):
        raise ValueError(f"feature_norm: expected more than 0, found {config.feature_norm}")
    if not config.weight_decay >= 0:
        raise ValueError(f"weight_decay: expected at least 0, found {config.weight_decay}")


def make_head(config: HeadConfig, num_features: int, num_classes: int) -> DenseHead:
    """Make the untrained module that a configuration describes.

    Args:
      config: of which the layers are read.
      num_features: ``d``, columns of the features.
      num_classes: ``c``, outputs.

    Returns:
      A module ``(features [n, d]) -> (logits [n, c], last hidden activations [n, w])``.
    """
    widths = (num_features,) if config.hidden == "same" else tuple(config.hidden)
    return DenseHead(features=widths, num_outputs=num_classes, use_batch_norm=config.use_batch_norm)


def train_head(
    key: jax.Array,
    features: ArrayLike,
    labeled: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    config: HeadConfig = LINEAR,
    capacity: int | None = None,
) -> TrainedHead:
    """Train a freshly initialised head on the labelled rows.

    The rows are gathered, padded to ``capacity`` and masked, and the number of real ones is no
    part of the compiled program: a growing labelled set compiles once per capacity. An epoch of l
    rows takes ``ceil(l / train_batch_size)`` steps whose sizes differ by one at most, so that no
    step computes batch statistics from a small remainder; few labels make one full batch.

    Args:
      key: initial weights and the order of rows in each epoch.
      features: ``[n, d]`` of the whole pool, of which only the labelled rows are read.
      labeled: ``[l]`` distinct rows of the pool, at least one.
      labels: ``[l]`` their classes, in 0..num_classes-1.
      num_classes: outputs of the head.
      config: the head and its optimisation.
      capacity: rows to pad to, at least l; by default 1024 or the next power of two.

    Returns:
      The trained head; memory is ``O(capacity · d)`` and the parameters three times.

    Raises:
      ValueError: no or bad labels, NaN in the labelled rows, a bad ``config`` or ``capacity``, or
        training that diverges (`DivergedError`).
    """
    check_config(config)
    if np.ndim(features) != 2:
        raise ValueError(f"features: expected a matrix [n, d], found shape {np.shape(features)}")
    rows = check_indices(labeled, np.shape(features)[0], "labeled")
    targets = check_labels(labels, num_classes, length=len(rows))
    if len(rows) == 0:
        raise ValueError("labeled: expected at least one labelled row to train on, found none")
    if capacity is None:
        capacity = next_power(len(rows), _SMALLEST_CAPACITY)
    elif check_positive(capacity, "capacity") < len(rows):
        raise ValueError(f"capacity: expected at least {len(rows)}, found {capacity}")
    x = _gather(features, rows, capacity)
    check_features(x)
    scale = jnp.float32(1)
    if config.feature_norm is not None:
        scale = _scale_to(config.feature_norm, x, jnp.asarray(len(rows), jnp.int32))
    y = np.zeros(capacity, np.int32)
    y[: len(rows)] = targets
    head = make_head(config, x.shape[1], num_classes)
    rates = (config.learning_rate, config.momentum, config.weight_decay)
    init_key, order_key = jax.random.split(key)
    variables, losses, finite = _fit(
        order_key,
        _init(init_key, x[:1], head=head),
        x * scale,
        jnp.asarray(y),
        jnp.asarray(len(rows), jnp.int32),
        jnp.asarray(rates, jnp.float32),
        head=head,
        epochs=config.epochs,
        step_rows=min(config.train_batch_size, capacity),
    )
    if not finite:
        raise DivergedError(
            f"config: training diverged, with learning_rate {config.learning_rate} on features of "
            f"feature_norm {config.feature_norm}; lower the rate, or set feature_norm (LINEAR's is "
            f"{LINEAR.feature_norm})"
        )
    # The factor moves into the first layer, so that the head reads features as they are.
    first = first_layer(head, variables)
    first["kernel"] = first["kernel"] * scale
    return TrainedHead(head, variables, losses)


def predict_head(
    trained: TrainedHead, features: ArrayLike, *, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> tuple[jax.Array, jax.Array]:
    """Predict classes and embed.

    Args:
      trained: from `train_head`.
      features: ``[n, d]``; NumPy, memory-mapped or JAX.
      chunk_size: rows held at once; changes no result.

    Returns:
      Probabilities ``[n, num_classes]`` and the last hidden activations ``[n, w]`` (the features
      themselves for a linear head), float32: ``O(n · (num_classes + w))``.

    Raises:
      ValueError: features that do not fit the head, or NaN or infinite ones.
    """
    return _map(trained, features, chunk_size, with_hidden=True)


def predict_probs(
    trained: TrainedHead, features: ArrayLike, *, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> jax.Array:
    """Predict classes only: as `predict_head`, without holding the ``[n, w]`` activations.

    Args:
      trained: from `train_head`.
      features: ``[n, d]``; NumPy, memory-mapped or JAX.
      chunk_size: rows held at once; changes no result.

    Returns:
      Probabilities ``[n, num_classes]`` float32.

    Raises:
      ValueError: features that do not fit the head, or NaN or infinite ones.
    """
    return _map(trained, features, chunk_size, with_hidden=False)[0]


def first_layer(head: DenseHead, variables: Any) -> dict[str, jax.Array]:
    """Give the parameters of the layer that reads the features: its kernel is ``[d, ...]``."""
    return variables["params"]["dense_0" if head.features else "output"]


def _map(trained: TrainedHead, features: ArrayLike, chunk_size: int, *, with_hidden: bool) -> Any:
    if not isinstance(trained, TrainedHead):
        raise ValueError(
            "trained: expected what train_head gives, or fit_head's outputs.trained, found "
            f"{type(trained).__name__}"
        )
    check_positive(chunk_size, "chunk_size")
    check_features(features)
    expected, _ = first_layer(trained.head, trained.variables)["kernel"].shape
    if np.shape(features)[1] != expected:
        raise ValueError(
            f"features: expected {expected} columns, as the head was trained on, "
            f"found {np.shape(features)[1]}"
        )
    predict = functools.partial(
        _predict, trained.variables, head=trained.head, with_hidden=with_hidden
    )
    return map_rows(predict, features, chunk_size=chunk_size, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnames=("head", "with_hidden"))
def _predict(
    variables: Any, rows: jax.Array, *, head: DenseHead, with_hidden: bool
) -> tuple[Any, ...]:
    logits, hidden = head.apply(variables, rows.astype(jnp.float32))
    probs = jax.nn.softmax(logits)
    return (probs, hidden) if with_hidden else (probs,)


@jax.jit
def _scale_to(norm: float, x: jax.Array, count: jax.Array) -> jax.Array:
    """Find the factor that gives the first ``count`` rows a mean norm; 1 for rows of zeros."""
    norms = jnp.where(jnp.arange(len(x)) < count, jnp.linalg.norm(x, axis=1), 0)
    found = norms.sum() / count
    return jnp.where(found > 0, norm / jnp.where(found > 0, found, 1), 1)


def _gather(features: ArrayLike, rows: np.ndarray, capacity: int) -> jax.Array:
    """Take ``rows`` in float32, padded with repeats of the first to ``[capacity, d]``."""
    padded = np.full(capacity, rows[0])
    padded[: len(rows)] = rows
    if isinstance(features, jax.Array):
        # The padded length keeps the gather, too, at one compilation a capacity.
        return features[jnp.asarray(padded)].astype(jnp.float32)
    return jnp.asarray(np.asarray(np.asanyarray(features)[padded], np.float32))


@functools.partial(jax.jit, static_argnames="head")
def _init(key: jax.Array, x: jax.Array, *, head: DenseHead) -> Any:
    # Apart from `_fit`, since it takes half the compilation and fits every capacity and schedule.
    return head.init(key, x)


@functools.partial(jax.jit, static_argnames=("head", "epochs", "step_rows"))
def _fit(
    key: jax.Array,
    variables: Any,
    x: jax.Array,
    y: jax.Array,
    count: jax.Array,
    rates: jax.Array,
    *,
    head: DenseHead,
    epochs: int,
    step_rows: int,
) -> tuple[Any, jax.Array, jax.Array]:
    """Run SGD on the first ``count`` rows of ``x [capacity, d]`` and ``y [capacity]``.

    Returns variables, losses and whether all of them are finite.
    """
    params, stats = variables["params"], variables.get("batch_stats", {})
    num_steps = (count + step_rows - 1) // step_rows
    learning_rate, momentum, weight_decay = rates

    def rate(step: Any) -> jax.Array:
        return learning_rate * jnp.cos(7 * jnp.pi / 16 * step / (epochs * num_steps))

    optimizer = optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum, nesterov=True)
    )

    def loss_fn(params: Any, stats: Any, rows: jax.Array, valid: jax.Array) -> Any:
        (logits, _), updated = head.apply(
            {"params": params, "batch_stats": stats},
            x[rows],
            train=True,
            mask=valid,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y[rows])
        total = jnp.sum(jnp.where(valid, losses, 0))
        return total / jnp.sum(valid), (updated.get("batch_stats", {}), total)

    def epoch(carry: Any, index: jax.Array) -> Any:
        order = _shuffled(jax.random.fold_in(key, index), count, x.shape[0], step_rows)

        def step(i: jax.Array, carry: Any) -> Any:
            params, stats, opt_state, total = carry
            rows, valid = _batch(order, i, count, num_steps, step_rows)
            grads, (stats, loss) = jax.grad(loss_fn, has_aux=True)(params, stats, rows, valid)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), stats, opt_state, total + loss

        *carry, total = jax.lax.fori_loop(0, num_steps, step, (*carry, jnp.zeros(())))
        return tuple(carry), total / count

    carry = (params, stats, optimizer.init(params))
    (params, stats, _), losses = jax.lax.scan(epoch, carry, jnp.arange(epochs))
    # Not the losses alone: the last step comes after them.
    finite = jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves((params, stats, losses))])
    return {"params": params, "batch_stats": stats}, losses, finite.all()


def _shuffled(key: jax.Array, count: jax.Array, capacity: int, step_rows: int) -> jax.Array:
    """Shuffle the first ``count`` rows; the others and ``step_rows`` of padding come behind."""
    draws = jnp.where(jnp.arange(capacity) < count, jax.random.uniform(key, (capacity,)), jnp.inf)
    return jnp.pad(jnp.argsort(draws), (0, step_rows))


def _batch(
    order: jax.Array, i: jax.Array, count: jax.Array, num_steps: jax.Array, step_rows: int
) -> tuple[jax.Array, jax.Array]:
    """Cut batch ``i`` of ``num_steps`` nearly equal ones: rows and which of them are real."""
    size, extra = count // num_steps, count % num_steps
    start = i * size + jnp.minimum(i, extra)
    rows = jax.lax.dynamic_slice(order, (start,), (step_rows,))
    return rows, jnp.arange(step_rows) < size + (i < extra)
