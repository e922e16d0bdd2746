"""MaxHerding selection (arXiv 2407.12212): the samples that add most to a generalized coverage."""

from typing import NamedTuple

import jax
import numpy as np

from jaxal.checks import check_number, check_positive
from jaxal.coverage import CHUNK_SIZE, cover_unlabeled
from jaxal.scaling import unit_rows
from jaxal.select.base import Pool, Strategy, check_pool

__all__ = ["MAXHERDING", "MaxherdingInfo", "select_maxherding"]


class MaxherdingInfo(NamedTuple):
    """What the chosen samples added."""

    gains: jax.Array  # [batch_size] float32, what each pick added to the pool's summed coverage
    evaluations: jax.Array  # int32, gains computed after the first pass


def select_maxherding(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    sigma: float = 1.0,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[jax.Array, MaxherdingInfo]:
    """Choose, one at a time, the sample that adds most to the coverage of the pool.

    The coverage is ``sum_x max_l k(x, l)``, over all samples x and the labelled or chosen samples
    l, with the Gaussian kernel ``k(x, l) = exp(-|x - l|^2 / sigma^2)`` of the L2-normalised
    features and ``sigma = 1`` (the paper's Algorithm 1, and its choices). All unlabelled samples
    are candidates and all samples are covered; the published code draws up to 35,000 of them. How
    the choice is made without the pool x pool kernel is ours; see `jaxal.coverage`.

    Args:
      key: unused; the choice is deterministic.
      pool: features, labelled rows; there need be none.
      batch_size: how many.
      sigma: width of the kernel, above 0; unit features are at most 2 apart.
      chunk_size: side of the square of the kernel held at once; changes no result but by rounding.

    Returns:
      Rows ``[batch_size]`` int32 in the order they were picked, ties to the lower index, and their
      gains, which fall. Holds ``O(chunk_size² + n · d)``.

    Raises:
      ValueError: a malformed pool or option, or more samples than are left.
    """
    del key
    check_number(sigma, "sigma", least=0, above=True)
    check_positive(chunk_size, "chunk_size")
    pool = check_pool(pool, batch_size, ("features",), "maxherding")
    found = cover_unlabeled(
        unit_rows(pool.features),
        np.asarray(pool.labeled),
        batch_size=batch_size,
        kernel="gaussian",
        radius_squared=float(sigma) * float(sigma),
        chunk_size=chunk_size,
    )
    return found.picks, MaxherdingInfo(found.gains, found.evaluations)


MAXHERDING = Strategy("maxherding", select_maxherding, cold_start=True)
