"""How well features serve for labels, without training: LogME and PED.

LogME (arXiv 2102.11005) is the evidence of a Bayesian linear model of each class's indicator, with
its two precisions at their best. PED (arXiv 2308.15074) first moves the classes apart, as
fine-tuning would. Of the features both need no more than sums over the labelled samples
(`Moments`), taken a chunk at a time, so that a million samples fit; where there are fewer samples
than features their singular values are used. All is in float64 on the host: evidence is a small
difference of large sums.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_labels, check_number, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE

__all__ = [
    "Evidence",
    "Moments",
    "PedInfo",
    "class_moments",
    "feature_statistics",
    "log_evidence",
    "logme",
    "ped_logme",
    "push_apart",
    "shift_classes",
    "standardize",
]

# Squared singular values below this part of the largest are rounding.
_RANK = 1e-13
# log(alpha / beta) is sought in these limits around the log of the mean squared singular value.
_REACH, _GRID, _HALVINGS = 30.0, 121, 40


class Moments(NamedTuple):
    """Sums over labelled samples, float64, by class that has any."""

    classes: np.ndarray  # [c] int64, ascending
    counts: np.ndarray  # [c] samples
    sums: np.ndarray  # [c, d] of features
    squares: np.ndarray  # [c] of the features' squared norms
    products: np.ndarray  # [d, d] of features with one another, over all samples


class Evidence(NamedTuple):
    """The log evidence of each class's indicator, and where it is largest."""

    evidence: np.ndarray  # [c] float64, nats a sample
    alpha: np.ndarray  # [c] float64, precision of the weights
    beta: np.ndarray  # [c] float64, precision of the noise


class PedInfo(NamedTuple):
    """How the classes were moved."""

    shifts: np.ndarray  # [c, d] float64
    num_steps: int  # 0 where no two classes overlap


class _Spectrum(NamedTuple):
    """What the evidence depends on."""

    num_samples: int
    values: np.ndarray  # [k] squared singular values of the features, above 0
    energies: np.ndarray  # [c, k] of the indicators along the left singular vectors, squared
    rest: np.ndarray  # [c] squared norm of what the features cannot reach


def logme(features: ArrayLike, labels: ArrayLike, *, chunk_size: int = DEFAULT_CHUNK_SIZE) -> float:
    """Score how well features serve for labels: LogME (arXiv 2102.11005).

    Where features of lower rank than there are samples tell classes apart without error, the
    evidence grows without bound with the precision of the noise, which is then kept finite: such
    scores are high, and beyond that arbitrary.

    Where samples are fewer than features the widely copied implementation counts D/2 ln(alpha) for
    the weights that no sample touches, whose evidence is 0; here it is min(N, D)/2.

    Args:
      features: ``[n, d]`` of labelled samples.
      labels: ``[n]`` integers from 0.
      chunk_size: samples summed at once; changes the result by rounding only.

    Returns:
      The evidence a sample in nats, the mean over the classes that have labels; higher is better.

    Raises:
      ValueError: no samples, features that are not finite, or labels that do not fit.
    """
    x, y = _check(features, labels)
    check_positive(chunk_size, "chunk_size")
    if len(x) < x.shape[1]:
        found = _evidence(_from_features(x.astype(np.float64), y))
    else:
        found = log_evidence(class_moments(x, y, chunk_size=chunk_size))
    return float(found.evidence.mean())


def ped_logme(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    num_sigmas: float = 0.6,
    time_step: float = 0.1,
    max_steps: int = 6,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[float, PedInfo]:
    """Score features as they would be once fine-tuning has moved the classes apart.

    Args:
      features: ``[n, d]`` of labelled samples, best after `standardize`.
      labels: ``[n]`` integers from 0.
      num_sigmas: how many radii of each class must not overlap; the paper's 0.3 or 0.6.
      time_step: of a step's motion; the paper's 0.1.
      max_steps: the most steps; the paper's 6.
      chunk_size: samples summed at once.

    Returns:
      `logme` of the moved features, and how they were moved. Without overlapping classes nothing
      moves.

    Raises:
      ValueError: as `logme` and `push_apart`.
    """
    x, y = _check(features, labels)
    moments = class_moments(x, y, chunk_size=chunk_size)
    info = push_apart(moments, num_sigmas=num_sigmas, time_step=time_step, max_steps=max_steps)
    if len(x) < x.shape[1]:
        moved = x + info.shifts[np.searchsorted(moments.classes, y)]
        found = _evidence(_from_features(moved, y))
    else:
        found = log_evidence(shift_classes(moments, info.shifts))
    return float(found.evidence.mean()), info


def class_moments(
    features: ArrayLike, labels: ArrayLike, *, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> Moments:
    """Sum over labelled samples, a chunk at a time.

    Args:
      features: ``[n, d]``, memory-mapped or not.
      labels: ``[n]`` integers from 0.
      chunk_size: samples read at once.

    Returns:
      The sums, float64. Holds ``O(d² + classes · d + chunk_size · d)``.

    Raises:
      ValueError: as `logme`.
    """
    x, y = _check(features, labels)
    check_positive(chunk_size, "chunk_size")
    classes, own, counts = np.unique(y, return_inverse=True, return_counts=True)
    dim = x.shape[1]
    sums, squares = np.zeros((len(classes), dim)), np.zeros(len(classes))
    products = np.zeros((dim, dim))
    for start in range(0, len(x), chunk_size):
        chunk = np.asarray(x[start : start + chunk_size], np.float64)
        rows = own[start : start + chunk_size]
        np.add.at(sums, rows, chunk)
        np.add.at(squares, rows, np.einsum("nd,nd->n", chunk, chunk))
        products += chunk.T @ chunk
    return Moments(classes, counts, sums, squares, products)


def log_evidence(moments: Moments) -> Evidence:
    """Find the evidence of each class's indicator from sums: O(d³).

    Raises:
      ValueError: sums that are not finite.
    """
    if not np.isfinite(moments.products).all():
        raise ValueError("moments: expected finite sums, found others")
    values, axes = np.linalg.eigh(moments.products)
    kept = values > _RANK * max(values[-1], 0)
    values, along = values[kept], moments.sums @ axes[:, kept]
    energies = along**2 / values
    rest = np.maximum(moments.counts - energies.sum(axis=1), 0)
    return _evidence(_Spectrum(int(moments.counts.sum()), values, energies, rest))


def shift_classes(moments: Moments, shifts: ArrayLike) -> Moments:
    """Return the sums of features of which each class was moved by its own vector.

    Args:
      moments: of the features as they are.
      shifts: ``[c, d]``, in the order of ``moments.classes``.

    Returns:
      The moved features' sums.

    Raises:
      ValueError: shifts of another shape, or not finite.
    """
    v = np.asarray(shifts, np.float64)
    if v.shape != moments.sums.shape or not np.isfinite(v).all():
        raise ValueError(f"shifts: expected {moments.sums.shape} finite numbers, found {v.shape}")
    counts = moments.counts[:, None]
    cross = moments.sums.T @ v
    return moments._replace(
        sums=moments.sums + counts * v,
        squares=moments.squares + 2 * np.sum(moments.sums * v, axis=1) + np.sum(counts * v**2, 1),
        products=moments.products + cross + cross.T + v.T @ (counts * v),
    )


def push_apart(
    moments: Moments, *, num_sigmas: float = 0.6, time_step: float = 0.1, max_steps: int = 6
) -> PedInfo:
    """Move overlapping classes apart (PED, arXiv 2308.15074).

    A class is a ball around its mean, of radius R, the root of its summed variances. Where two
    come closer than ``num_sigmas (R_i + R_j)`` by F, each moves away by ``min(time_step² F / 2,
    F)``, step after step, until a step's shifts sum to half of the first's.

    Args:
      moments: of the features.
      num_sigmas: above 0.
      time_step: above 0.
      max_steps: at least 1.

    Returns:
      The shifts, and after how many steps. Holds ``O(c · d + c²)``.

    Raises:
      ValueError: an option out of its range.
    """
    check_number(num_sigmas, "num_sigmas", least=0, above=True)
    check_number(time_step, "time_step", least=0, above=True)
    check_positive(max_steps, "max_steps")
    start = moments.sums / moments.counts[:, None]
    variances = moments.squares / moments.counts - np.sum(start**2, axis=1)
    radii = np.sqrt(np.maximum(variances, 0))
    reach = num_sigmas * (radii[:, None] + radii)
    np.fill_diagonal(reach, 0)
    means, first, steps = start.copy(), 0.0, 0
    for _ in range(max_steps):
        # A class at a time: all pairs at once would hold classes x classes x d.
        moved = np.zeros_like(means)
        for i, mean in enumerate(means):
            apart = mean - means
            distances = np.linalg.norm(apart, axis=1)
            force = np.maximum(reach[i] - distances, 0)
            length = np.minimum(0.5 * time_step**2 * force, force)
            # Classes of equal means have no direction to part in.
            pull = np.where(distances > 0, length / np.where(distances > 0, distances, 1), 0)
            moved[i] = pull @ apart
        total = float(np.linalg.norm(moved, axis=1).sum())
        if total == 0:
            break
        means, steps = means + moved, steps + 1
        first = first or total
        if steps > 1 and total <= first / 2:
            break
    return PedInfo(means - start, steps)


def feature_statistics(
    features: ArrayLike, *, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Find the mean and the standard deviation of each feature over a pool, in chunks.

    Args:
      features: ``[n, d]``, memory-mapped or not.
      chunk_size: rows read at once; changes the result by rounding only.

    Returns:
      Mean and standard deviation ``[d]``, float64.

    Raises:
      ValueError: features that are no matrix of finite numbers.
    """
    x = np.asanyarray(check_features(features))
    check_positive(chunk_size, "chunk_size")
    n, dim = x.shape
    # About the first row, so that features far from zero keep their digits.
    origin = np.asarray(x[0], np.float64)
    sums, squares = np.zeros(dim), np.zeros(dim)
    for start in range(0, n, chunk_size):
        chunk = np.asarray(x[start : start + chunk_size], np.float64) - origin
        sums += chunk.sum(axis=0)
        squares += np.einsum("nd,nd->d", chunk, chunk)
    mean = sums / n
    return origin + mean, np.sqrt(np.maximum(squares / n - mean**2, 0))


def standardize(features: ArrayLike, mean: ArrayLike, std: ArrayLike) -> np.ndarray:
    """Scale features by statistics of a general sample, such as the whole unlabelled pool (PED).

    Args:
      features: ``[n, d]``.
      mean: ``[d]`` of that sample.
      std: ``[d]`` of it; below 1e-3 it counts as that.

    Returns:
      ``[n, d]`` float32.
    """
    scale = np.maximum(np.asarray(std, np.float32), np.float32(1e-3))
    found: np.ndarray = (np.asarray(features, np.float32) - np.asarray(mean, np.float32)) / scale
    return found


def _check(features: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(check_features(features))
    y = np.asarray(labels)
    highest = int(y.max()) + 1 if y.ndim == 1 and y.size and y.dtype.kind in "iu" else 1
    return x, check_labels(y, max(highest, 1), length=len(x))


def _from_features(x: np.ndarray, labels: np.ndarray) -> _Spectrum:
    left, singular, _ = np.linalg.svd(x, full_matrices=False)
    values = singular**2
    kept = values > _RANK * values[0]
    indicators = (labels == np.unique(labels)[:, None]).astype(np.float64)
    energies = (indicators @ left[:, kept]) ** 2
    rest = np.maximum(indicators.sum(axis=1) - energies.sum(axis=1), 0)
    return _Spectrum(len(x), values[kept], energies, rest)


def _evidence(spectrum: _Spectrum) -> Evidence:
    """Maximise the evidence over both precisions.

    With t = α/β, and β at its best for it, the evidence of N samples is
    ``½ Σ ln(t / (t + σ)) - N/2 ln(v(t) / N) - N/2 (1 + ln 2π)``, where v is the squared norm that
    is left, ``v(t) = rest + Σ energy · t / (t + σ)``, and β = N / v. A grid over ln t finds the
    highest peak, and golden sections of its bracket the top of it.
    """
    count, values, energies, rest = spectrum
    if values.size == 0:
        noise = np.maximum(rest, np.finfo(float).tiny)
        flat = -0.5 * (np.log(noise / count) + 1 + np.log(2 * np.pi))
        return Evidence(flat, np.full(len(rest), np.inf), count / noise)

    def at(log_t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The evidence [c, m] at ``log_t [c, m]``, and what is left, ``v``."""
        left = 1 / (1 + values / np.exp(log_t)[..., None])
        remains = rest[:, None] + np.einsum("ck,cmk->cm", energies, left)
        remains = np.maximum(remains, np.finfo(float).tiny)
        gain = 0.5 * np.log(left).sum(axis=-1)
        return (gain / count - 0.5 * (np.log(remains / count) + 1 + np.log(2 * np.pi))), remains

    middle = np.log(values.mean())
    grid = np.linspace(middle - _REACH, middle + _REACH, _GRID)
    left = 1 / (1 + values / np.exp(grid)[:, None])  # [g, k], the same for all classes
    remains = np.maximum(rest[:, None] + energies @ left.T, np.finfo(float).tiny)
    best = (np.log(left).sum(axis=1) - count * np.log(remains)).argmax(axis=1)
    step = grid[1] - grid[0]
    low, high = grid[best] - step, grid[best] + step
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(_HALVINGS):
        inner = np.stack([high - golden * (high - low), low + golden * (high - low)], axis=1)
        values_at = at(inner)[0]
        left_wins = values_at[:, 0] >= values_at[:, 1]
        low, high = np.where(left_wins, low, inner[:, 0]), np.where(left_wins, inner[:, 1], high)
    log_t = (low + high) / 2
    evidence, remains = at(log_t[:, None])
    beta = count / remains[:, 0]
    return Evidence(evidence[:, 0], np.exp(log_t) * beta, beta)
