import jax
import numpy as np
import pytest

from jaxal.select.base import Pool
from jaxal.select.class_balanced import CLASS_BALANCED, select_class_balanced

SIZES = [40, 13, 5, 2, 0]
CLASSES = np.random.default_rng(0).permutation(np.repeat(np.arange(5), SIZES))


def make_pool(labeled):
    return Pool(np.zeros((60, 1)), 5, labeled, CLASSES[labeled])


def check_picks(picks, labeled):
    """Follow the rule pick by pick."""
    counts = np.bincount(CLASSES[labeled], minlength=5)
    left = np.array(SIZES) - counts
    taken = list(labeled)
    for pick in np.asarray(picks).tolist():
        assert pick not in taken
        assert counts[CLASSES[pick]] == counts[left > 0].min()
        counts[CLASSES[pick]] += 1
        left[CLASSES[pick]] -= 1
        taken.append(pick)


@pytest.mark.parametrize(
    ("num_labeled", "batch_size"), [(0, 1), (0, 60), (7, 1), (7, 53), (30, 12)]
)
def test_each_pick_goes_to_the_class_with_the_fewest(num_labeled, batch_size):
    labeled = np.random.default_rng(num_labeled).permutation(60)[:num_labeled]
    select = select_class_balanced
    for seed in range(5):
        key = jax.random.key(seed)
        picks, info = select(key, make_pool(labeled), batch_size=batch_size, true_labels=CLASSES)
        assert len(picks) == batch_size
        check_picks(picks, labeled)
        np.testing.assert_array_equal(info.classes, CLASSES[np.asarray(picks)])


def test_classes_that_tie_and_samples_of_a_class_are_drawn_uniformly():
    pool = make_pool(np.zeros(0, int))
    keys = [jax.random.key(seed) for seed in range(200)]
    picks = np.array(
        [select_class_balanced(key, pool, batch_size=4, true_labels=CLASSES)[0] for key in keys]
    )
    for place in range(4):
        # Four classes: 50 each, standard deviation 6.1, however many samples they have.
        assert abs(np.bincount(CLASSES[picks[:, place]])[:4] - 50).max() < 28
    # Thirteen samples of class 1, drawn 200 times: 15 each, standard deviation 3.8.
    drawn = np.bincount(picks[CLASSES[picks] == 1], minlength=60)[CLASSES == 1]
    assert abs(drawn - 200 / 13).max() < 17


def test_only_labels_of_the_pool_count_as_labelled():
    pool = make_pool(np.flatnonzero(CLASSES == 1)[:3])._replace(labels=np.array([0, 0, 0]))
    _, info = select_class_balanced(jax.random.key(0), pool, batch_size=8, true_labels=CLASSES)
    assert set(np.asarray(info.classes)[:3].tolist()) == {1, 2, 3}
    assert np.bincount(info.classes)[0] == 0


def test_single_sample():
    pool = Pool(np.ones((1, 2)), 1, [], [])
    picks, _ = select_class_balanced(jax.random.key(0), pool, batch_size=1, true_labels=[0])
    np.testing.assert_array_equal(picks, [0])


@pytest.mark.parametrize(
    ("true_labels", "message"),
    [
        (None, "true_labels: class-balanced is for oracle studies.*found none"),
        (CLASSES[:59], "true_labels: expected 60 labels, found 59"),
        (CLASSES + 2, "true_labels: expected labels in 0..4, found [56]"),
        (CLASSES - 1, "true_labels: expected labels in 0..4, found -1"),
        (CLASSES * 1.0, "true_labels: expected integers"),
        (CLASSES[:, None], "true_labels: expected a vector"),
    ],
)
def test_bad_true_labels_are_named(true_labels, message):
    pool = make_pool(np.zeros(0, int))
    with pytest.raises(ValueError, match=message):
        select_class_balanced(jax.random.key(0), pool, batch_size=1, true_labels=true_labels)


def test_it_says_that_it_is_an_oracle():
    assert CLASS_BALANCED.oracle and CLASS_BALANCED.cold_start
    assert "NOBODY PAID FOR" in select_class_balanced.__doc__
