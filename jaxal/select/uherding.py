"""Uncertainty Herding selection (arXiv 2412.20644): MaxHerding, weighted by uncertainty."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxal.calibration import fit_temperature
from jaxal.checks import check_choice, check_number, check_positive
from jaxal.chunking import map_rows
from jaxal.coverage import CHUNK_SIZE, cover_unlabeled
from jaxal.scaling import unit_rows
from jaxal.select.base import Pool, Strategy, check_pool, unlabeled
from jaxal.select.entropy import entropies
from jaxal.select.least_confidence import confidences
from jaxal.select.margin import margins
from jaxal.train.head import LINEAR, HeadConfig, check_config, predict_probs, train_head
from jaxal.unit_distances import NOISE

__all__ = ["UHERDING", "UherdingInfo", "Uncertainty", "select_uherding"]

Uncertainty = Literal["margin", "entropy", "least-confidence"]

# MaxHerding's, for when there are no two labelled samples to measure.
_SIGMA = 1.0
_HELD_OUT = 0.3
# The smallest normal float32, whose logarithm stands for that of 0.
_SMALLEST = float(jnp.finfo(jnp.float32).tiny)
_PAIR_ROWS = 1024
# Below this the logits' quotients are so large that their rounding makes the softmax NaN.
_LEAST_TEMPERATURE = 1e-6

_MEASURES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "margin": lambda probs: 1 - margins(probs),
    "entropy": entropies,
    "least-confidence": lambda probs: 1 - confidences(probs),
}


class UherdingInfo(NamedTuple):
    """What the chosen samples added, and by which parameters."""

    gains: jax.Array  # [batch_size] float32, what each pick added to the weighted coverage
    uncertainties: jax.Array  # [batch_size] float32, the picks' weights
    temperature: jax.Array  # float32, what logits were divided by
    sigma: jax.Array  # float32, width of the kernel
    evaluations: jax.Array  # int32, gains computed after the first pass


def select_uherding(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    uncertainty: Uncertainty = "margin",
    temperature: float | None = None,
    sigma: float | None = None,
    head: HeadConfig = LINEAR,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[jax.Array, UherdingInfo]:
    """Choose, one at a time, the sample that adds most to the uncertainty coverage of the pool.

    That is ``sum_x U(x) max_l k(x, l)``, over all samples x and the labelled or chosen samples l,
    with the Gaussian kernel ``k(x, l) = exp(-|x - l|^2 / sigma^2)`` of the L2-normalised features
    and the uncertainty U of the head's class probabilities, after its logits have been divided by
    the temperature (the paper's Algorithm 1). Both parameters adapt to the labels there are:

    * sigma is the smallest distance above 0 between two labelled samples;
    * the temperature is the one with the smallest expected calibration error on labelled samples
      that a head did not see. As in the published code, a head is trained for it on the first 70 %
      of the labels and 1, 1.1 … 19.9 are tried on the last 30 %, in the order of labelling. The
      head of ``pool.probs`` was trained on all of them.

    With nothing labelled U is 1 and sigma is 1: MaxHerding. Ours: the temperature is 1 for fewer
    than 4 labels, of which 30 % is no sample; sigma is 1 while no two labelled samples differ; U is
    1 where it is 0 for all unlabelled samples; 15 bins of confidence. Logits are the logarithms of
    ``pool.probs``, whose smallest are cut off at 1e-38.

    Args:
      key: initial weights and order of rows of the head that the temperature is fitted with.
      pool: features, labelled rows, and ``probs`` where there are any.
      batch_size: how many.
      uncertainty: U: ``"margin"``, 1 less the gap between the two largest probabilities;
        ``"entropy"``, in nats; ``"least-confidence"``, 1 less the largest.
      temperature: what to divide logits by, 1e-6 or more; None to fit it.
      sigma: width of the kernel, above 0; None for the smallest distance between labelled samples.
      head: how the head that the temperature is fitted with is built and trained; give what that of
        ``pool.probs`` was trained with.
      chunk_size: side of the square of the kernel held at once; changes no result but by rounding.

    Returns:
      Rows ``[batch_size]`` int32 in the order they were picked, ties to the lower index, their
      gains and uncertainties, and the parameters. Holds ``O(chunk_size² + n · (d + num_classes))``
      and the distances of 1024 to all labelled samples.

    Raises:
      ValueError: a malformed pool or option, one without ``probs``, or more samples than are left.
    """
    check_choice(uncertainty, "uncertainty", Uncertainty)
    if temperature is not None:
        check_number(temperature, "temperature", least=_LEAST_TEMPERATURE)
    if sigma is not None:
        check_number(sigma, "sigma", least=0, above=True)
    check_config(head, "head")
    check_positive(chunk_size, "chunk_size")
    cold = np.size(pool.labeled) == 0
    pool = check_pool(
        pool, batch_size, ("features",) if cold else ("features", "probs"), "uherding"
    )
    labeled = np.asarray(pool.labeled)
    x = unit_rows(pool.features)
    weights = np.ones(len(x), np.float32)
    if temperature is None:
        temperature = 1.0 if cold else _temperature(key, pool, head)
    if not cold:
        found = np.asarray(_uncertainties(pool, uncertainty, temperature))
        weights = found if found[unlabeled(pool)].any() else weights
    if sigma is None:
        sigma = _smallest_distance(np.asarray(x)[labeled])
    chosen = cover_unlabeled(
        x,
        labeled,
        batch_size=batch_size,
        kernel="gaussian",
        radius_squared=float(sigma) * float(sigma),
        weights=weights,
        chunk_size=chunk_size,
    )
    info = UherdingInfo(
        chosen.gains,
        jnp.asarray(weights[np.asarray(chosen.picks)]),
        jnp.asarray(temperature, jnp.float32),
        jnp.asarray(sigma, jnp.float32),
        chosen.evaluations,
    )
    return chosen.picks, info


def _temperature(key: jax.Array, pool: Pool, head: HeadConfig) -> float:
    """Fit the temperature of a head trained on the first labels to the others."""
    labeled, labels = np.asarray(pool.labeled), np.asarray(pool.labels)
    first = len(labeled) - int(_HELD_OUT * len(labeled))
    if first == len(labeled):
        return 1.0
    trained = train_head(
        key, pool.features, labeled[:first], labels[:first], pool.num_classes, config=head
    )
    # Of the whole pool, so that rounds with more labels share a program.
    probs = np.asarray(predict_probs(trained, pool.features))[labeled[first:]]
    return fit_temperature(np.log(np.maximum(probs, _SMALLEST)), labels[first:])


def _uncertainties(pool: Pool, uncertainty: Uncertainty, temperature: float) -> jax.Array:
    """Measure the uncertainty of each row, ``[n]`` float32, 0 or more."""
    measure = functools.partial(_tempered, jnp.float32(temperature), uncertainty=uncertainty)
    return map_rows(measure, pool.probs, dtype=jnp.float32)  # type: ignore[arg-type]


@functools.partial(jax.jit, static_argnames="uncertainty")
def _tempered(temperature: jax.Array, probs: jax.Array, *, uncertainty: Uncertainty) -> jax.Array:
    logits = jnp.log(jnp.maximum(probs, _SMALLEST))
    # Before the division, so that the largest is exact whatever the temperature.
    logits = logits - jnp.max(logits, axis=-1, keepdims=True)
    probs = jax.nn.softmax(logits / temperature)
    return jnp.maximum(_MEASURES[uncertainty](probs), 0)


def _smallest_distance(rows: np.ndarray) -> float:
    """Find the smallest distance between two of ``[l, d]`` unit rows that are no duplicates."""
    points = rows.astype(np.float64)
    norms = (points**2).sum(1)
    smallest = np.inf
    for start in range(0, len(points), _PAIR_ROWS):
        chunk = slice(start, start + _PAIR_ROWS)
        squared = norms[chunk, None] + norms - 2 * points[chunk] @ points.T
        smallest = min(smallest, squared[squared >= NOISE].min(initial=np.inf))
    return float(np.sqrt(smallest)) if np.isfinite(smallest) else _SIGMA


UHERDING = Strategy("uherding", select_uherding, needs=frozenset({"probs"}), cold_start=True)
