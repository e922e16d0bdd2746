import numpy as np
import pytest

from jaxal.costs import Prices, cost_of, labels_to_reach, predict_seconds, sample_saving_ratio


def test_labels_and_hours_add_up():
    found = cost_of(1000, 1800, 5400, prices=Prices(0.5, 3.0), num_devices=2)
    assert found == (500.0, 3.0, 9.0, 512.0, 0.5)


def test_seconds_from_operations():
    assert predict_seconds(4e12, 1e12, share=0.5) == 8


def test_labels_are_read_off_the_first_crossing():
    counts, heights = [10, 20, 40, 80], [0.5, 0.7, 0.6, 0.9]
    found = labels_to_reach(counts, heights, [0.4, 0.5, 0.6, 0.7, 0.8, 0.95])
    # To 0.8 it is two thirds of the way from the dip at 40 labels to 80.
    np.testing.assert_allclose(found, [10, 10, 15, 20, 200 / 3, np.nan])
    flat = labels_to_reach(counts, [0.5, 0.7, 0.7, 0.9], [0.7, 0.8])
    np.testing.assert_allclose(flat, [20, 60])
    assert labels_to_reach([5], [0.5], 0.4) == 5


def test_half_the_labels_save_a_half():
    random_labels = np.array([20, 40, 80, 160])
    heights = [0.4, 0.5, 0.6, 0.7]
    found = sample_saving_ratio(random_labels / 2, heights, random_labels, heights)
    assert found == pytest.approx(0.5)
    assert sample_saving_ratio(random_labels, heights, random_labels, heights) == 0
    assert sample_saving_ratio(2 * random_labels, heights, random_labels, heights) == -1


def test_curves_that_never_meet_tell_nothing():
    assert np.isnan(sample_saving_ratio([10, 20], [0.8, 0.9], [10, 20], [0.1, 0.2]))


@pytest.mark.parametrize(
    ("counts", "heights"),
    [
        ([1, 2], [0.5]),
        ([2, 1], [0.5, 0.6]),
        ([0, 1], [0.5, 0.6]),
        ([1, 2], [0.5, np.nan]),
        ([], []),
    ],
)
def test_bad_curves_are_named(counts, heights):
    with pytest.raises(ValueError, match="num_labels"):
        labels_to_reach(counts, heights, 0.5)


def test_bad_costs_are_named():
    with pytest.raises(ValueError, match="selection_seconds"):
        cost_of(10, -1, 0)
    with pytest.raises(ValueError, match="rate"):
        predict_seconds(1, 0)
