import functools

import numpy as np
import pytest

from jaxal.asvp.triggers import (
    Score,
    at_labels,
    enough_labels,
    every_round,
    falling,
    never,
    saturating,
    score_features,
    slowing,
)
from jaxal.transferability import logme, ped_logme, standardize


def history(ped, before=None, counts=None, version=0, classes=10):
    before = ped if before is None else before
    counts = 100 * (1 + np.arange(len(ped))) if counts is None else counts
    return [
        Score(int(n), classes, version, a, b) for n, a, b in zip(counts, before, ped, strict=True)
    ]


def test_plain_rules():
    scores = history([0.0])
    assert not never(scores) and every_round(scores)


def test_slowing_waits_until_growth_a_label_has_fallen():
    assert not slowing(history([0.0, 0.1]))
    assert not slowing(history([0.0, 0.1, 0.15]))
    assert slowing(history([0.0, 0.1, 0.12]))
    # Growth a label, not a round.
    assert slowing(history([0.0, 0.1, 0.15], counts=[100, 200, 500]))
    assert not slowing(history([0.0, 0.1, 0.12]), patience=2)
    assert slowing(history([0.0, 0.1, 0.12, 0.13]), patience=2)
    assert slowing(history([0.0, 0.1, 0.15]), share=0.6)
    # Beside its steepest growth; features that never learn are slow.
    assert not slowing(history([0.1, 0.0, 0.1])) and slowing(history([0.1, 0.0, 0.1, 0.12]))
    assert slowing(history([0.1, 0.0, 0.0]))


def test_falling_looks_for_the_best():
    assert not falling(history([0.0, 0.1]))
    assert falling(history([0.0, 0.1, 0.05]))
    assert not falling(history([0.0, 0.1, 0.05]), patience=2)
    assert falling(history([0.0, 0.1, 0.05, 0.09]), patience=2)


def test_saturating_watches_what_moving_gains():
    def fires(gains, **options):
        before = np.linspace(-0.3, -0.2, len(gains))
        return saturating(history(before + np.array(gains), before), **options)

    assert not fires([0.0, 0.1])
    assert not fires([0.0, 0.1, 0.17])
    assert fires([0.0, 0.1, 0.12])
    # Beside its steepest growth, which need not be the first.
    assert not fires([0.0, 0.01, 0.11, 0.18]) and fires([0.0, 0.01, 0.11, 0.12])
    assert fires([0.0, 0.1, 0.17], share=0.8)
    assert not fires([0.0, 0.1, 0.12], patience=2) and fires([0.0, 0.1, 0.12, 0.13], patience=2)
    assert not fires([0.0, 0.0, 0.0]) and not fires([0.2, 0.1, 0.0])
    # A label, not a round.
    counts, before = [100, 200, 500], np.zeros(3)
    assert saturating(history([0.0, 0.1, 0.15], before, counts=counts))


def test_refreshed_features_begin_a_history_of_their_own():
    old = history([0.0, 0.1, 0.12])
    new = history([0.5], counts=[300], version=1)
    for rule in (slowing, falling, saturating):
        assert not rule([*old, *new])


def test_counts_of_labels():
    scores = history([0.0] * 4)
    assert not enough_labels(scores[:3], per_class=35) and enough_labels(scores, per_class=35)
    once = [*scores, *history([0.0], counts=[400], version=1)]
    assert not enough_labels(once, per_class=35)
    later = [*once, *history([0.0], counts=[700], version=1)]
    assert enough_labels(later, per_class=35, most=None)
    assert [at_labels(scores[: i + 1], counts=250) for i in range(4)] == [False, False, True, False]
    assert not at_labels(once, counts=250) and at_labels(once, counts=(250, 350))
    # Two in one round are one refresh.
    assert at_labels(scores[:3], counts=(210, 290)) and not at_labels(scores, counts=(210, 290))


@pytest.mark.parametrize("rule", [slowing, falling, saturating])
def test_scores_that_could_not_be_computed_count_for_nothing(rule):
    nan = float("nan")
    assert not rule(history([nan, nan, nan]))
    with_gap = history([nan, 0.0, 0.1, 0.05, 0.04])
    assert rule(with_gap) == rule(history([0.0, 0.1, 0.05, 0.04], counts=[200, 300, 400, 500]))
    # One of a round's two scores.
    assert not rule([*history([0.0, 0.1], [nan, 0.0]), *history([nan], [0.1], counts=[300])])


@pytest.mark.parametrize(
    ("rule", "options", "named"),
    [
        (slowing, {"share": 0}, "share"),
        (slowing, {"patience": 0}, "patience"),
        (falling, {"patience": -1}, "patience"),
        (saturating, {"share": -1.0}, "share"),
        (enough_labels, {"per_class": 0}, "per_class"),
        (enough_labels, {"most": 0}, "most"),
        (at_labels, {"counts": 0}, "counts"),
        (at_labels, {}, "counts"),
    ],
)
def test_bad_options(rule, options, named):
    with pytest.raises(ValueError, match=named):
        functools.partial(rule, **options)(history([0.0, 0.1, 0.1]))


@pytest.mark.parametrize("rule", [slowing, falling, saturating, enough_labels, at_labels])
def test_nothing_to_judge_by(rule):
    with pytest.raises(ValueError, match="history"):
        rule([])


def test_a_score_is_of_the_labelled_rows_by_the_pools_statistics():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)).astype(np.float32)
    rows, labels = np.arange(5, 35), rng.integers(3, size=30)
    score = score_features(x, rows, labels, version=2, chunk_size=7)
    scaled = standardize(x[rows], x.mean(0), x.std(0))
    assert score[:3] == (30, 3, 2) and score.note == ""
    assert score.logme == pytest.approx(logme(scaled, labels), rel=1e-5)
    assert score.ped_logme == pytest.approx(ped_logme(scaled, labels)[0], rel=1e-5)


def test_one_class_cannot_be_scored():
    score = score_features(np.eye(4), [0, 1], [2, 2])
    assert np.isnan(score.logme) and np.isnan(score.ped_logme) and "two" in score.note
    with pytest.raises(ValueError, match="labels"):
        score_features(np.eye(4), [0, 1], [2, 2, 2])


@pytest.mark.parametrize("features", [np.ones((6, 3)), np.c_[np.ones(6), np.arange(6.0)]])
def test_constant_features_have_finite_scores(features):
    score = score_features(features, [0, 1, 2, 3], [0, 1, 0, 1])
    assert np.isfinite([score.logme, score.ped_logme]).all()


def test_bad_rows_and_features():
    with pytest.raises(ValueError, match="labeled"):
        score_features(np.eye(4), [0, 9], [0, 1])
    with pytest.raises(ValueError, match="features"):
        score_features(np.full((4, 2), np.nan), [0, 1], [0, 1])
    with pytest.raises(ValueError, match="labels"):
        score_features(np.eye(4), [0, 1], [0, 1, 2])
