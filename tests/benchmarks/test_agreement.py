import numpy as np
import pytest

from benchmarks.agreement import linear_agreement


def draw(n=400, f=12):
    return np.random.default_rng(0).normal(size=(n, f))


def test_another_basis_and_offset_agree_wholly():
    x = draw()
    basis = np.random.default_rng(1).normal(size=(12, 5))
    assert linear_agreement(x, x @ basis + 3) == pytest.approx(1, abs=1e-6)


def test_noise_is_not_explained():
    x = draw()
    noise = np.random.default_rng(2).normal(size=(400, 1))
    signal = x[:, :1]
    assert linear_agreement(x, noise) < 0.1
    assert linear_agreement(x, signal + noise) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("features", "reference", "message"),
    [
        (draw(400), draw(399), "as many images"),
        (draw(16), draw(16), "features: expected at least 19 rows, found 16"),
        (draw(400), np.ones((400, 2)), "vary"),
    ],
)
def test_bad_input_is_named(features, reference, message):
    with pytest.raises(ValueError, match=message):
        linear_agreement(features, reference)
