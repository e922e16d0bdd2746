"""Make a classifier's confidences mean what they say, by one temperature."""

import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_labels, check_positive

__all__ = ["TEMPERATURES", "calibration_error", "fit_temperature"]

# Those that the published code of Uncertainty Herding (arXiv 2412.20644) tries: 1, 1.1 … 19.9.
TEMPERATURES = np.arange(1.0, 20.0, 0.1)
_NUM_BINS = 15
_ROUNDING = 1e-5


def calibration_error(probs: ArrayLike, labels: ArrayLike, *, num_bins: int = _NUM_BINS) -> float:
    """Compute the expected calibration error of the likeliest class.

    Samples fall into bins of equal width by their largest probability; the error is the mean over
    samples of their bin's ``|accuracy - mean largest probability|`` (Guo et al., 2017, equation 3).
    A bin holds its upper end.

    Args:
      probs: ``[n, c]`` rows in 0..1.
      labels: ``[n]`` int, in 0..c-1.
      num_bins: how many bins.

    Returns:
      The error, in 0..1.

    Raises:
      ValueError: probabilities that are no matrix of numbers in 0..1 (but for 1e-5 of rounding),
        other labels, or no bins.
    """
    check_positive(num_bins, "num_bins")
    found = np.asarray(check_features(probs, "probs"), np.float64)
    outside = found[(found < -_ROUNDING) | (found > 1 + _ROUNDING)]
    if outside.size:
        raise ValueError(f"probs: expected numbers in 0..1, found {outside[0]:g}")
    labels = check_labels(labels, found.shape[1], length=len(found))
    return _error(found, labels, num_bins)


def fit_temperature(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    temperatures: ArrayLike = TEMPERATURES,
    num_bins: int = _NUM_BINS,
) -> float:
    """Choose the temperature with the smallest expected calibration error.

    Args:
      logits: ``[n, c]`` up to a constant a row, so that log probabilities will do.
      labels: ``[n]`` int, in 0..c-1.
      temperatures: ``[t]`` above 0, what logits are divided by.
      num_bins: of `calibration_error`.

    Returns:
      One of ``temperatures``, the first of the best.

    Raises:
      ValueError: logits that are no matrix of finite numbers, other labels, temperatures that are
        none or not above 0, or no bins.
    """
    check_positive(num_bins, "num_bins")
    x = np.asarray(check_features(logits, "logits"), np.float64)
    labels = check_labels(labels, x.shape[1], length=len(x))
    tried = np.asarray(temperatures, np.float64)
    if tried.ndim != 1 or len(tried) == 0 or not (np.isfinite(tried) & (tried > 0)).all():
        raise ValueError(f"temperatures: expected numbers above 0, found {temperatures!r}")
    x = x - x.max(1, keepdims=True)
    errors = []
    for temperature in tried:
        probs = np.exp(x / temperature)
        errors.append(_error(probs / probs.sum(1, keepdims=True), labels, num_bins))
    return float(tried[int(np.argmin(errors))])


def _error(probs: np.ndarray, labels: np.ndarray, num_bins: int) -> float:
    confidence = probs.max(1)
    correct = probs.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    # Gaps of sums: a bin's share of the samples times its gap of means.
    gaps = np.bincount(bins, correct - confidence, num_bins)
    return float(np.abs(gaps).sum() / len(probs))
