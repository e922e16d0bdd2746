import itertools

import numpy as np
import pytest
from scipy.special import softmax

from jaxal.calibration import TEMPERATURES, calibration_error, fit_temperature


def reference(probs, labels, num_bins=15):
    confidence, correct = probs.max(1), probs.argmax(1) == labels
    edges, error = np.linspace(0, 1, num_bins + 1), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            error += inside.mean() * gap
    return error


def draw(seed, n=200, classes=4, scale=3.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits, 1)])
    return scale * logits, labels


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_error_equals_the_bins_one_by_one(num_bins):
    for seed in range(3):
        logits, labels = draw(seed)
        probs = softmax(logits, 1)
        found = calibration_error(probs, labels, num_bins=num_bins)
        assert found == pytest.approx(reference(probs, labels, num_bins), abs=1e-12)


def test_error_of_certain_rows():
    assert calibration_error(np.eye(3), [0, 1, 2]) == 0
    assert calibration_error(np.eye(3), [0, 1, 1]) == pytest.approx(1 / 3)
    assert calibration_error(np.ones((4, 1)), [0, 0, 0, 0]) == 0


def test_temperature_is_the_best_of_the_grid():
    for seed in range(3):
        logits, labels = draw(seed)
        errors = [reference(softmax(logits / t, 1), labels) for t in TEMPERATURES]
        assert fit_temperature(logits, labels) == TEMPERATURES[np.argmin(errors)]
        # Log probabilities are logits up to a constant a row.
        shifted = np.log(softmax(logits, 1))
        assert fit_temperature(shifted, labels) == TEMPERATURES[np.argmin(errors)]


def test_overconfident_logits_are_cooled():
    logits, labels = draw(0, n=5000, scale=5.0)
    assert 4 < fit_temperature(logits, labels) < 6


def test_equal_errors_give_the_first_temperature():
    assert fit_temperature(np.zeros((5, 2)), [0, 0, 1, 0, 1]) == 1
    assert fit_temperature(np.zeros((1, 1)), [0], temperatures=[3.0, 2.0]) == 3
    assert fit_temperature([[1e30, 0.0]], [0]) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"logits": [1.0, 2.0]}, "logits: expected a matrix"),
        ({"logits": [[np.nan, 1.0]]}, "logits.*NaN"),
        ({"labels": [2]}, "labels: expected labels in 0..1"),
        ({"labels": [0, 1]}, "labels: expected 1 labels"),
        ({"temperatures": [1.0, 0.0]}, "temperatures: expected numbers above 0"),
        ({"temperatures": []}, "temperatures"),
        ({"num_bins": 0}, "num_bins"),
    ],
)
def test_bad_input_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(**({"logits": [[0.0, 1.0]], "labels": [1]} | given))


def test_bad_probabilities_are_named():
    with pytest.raises(ValueError, match="probs: expected a matrix"):
        calibration_error([0.5, 0.5], [0])
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"probs: expected numbers in 0..1, found {bad}"):
            calibration_error([[bad, 0.5]], [0])
