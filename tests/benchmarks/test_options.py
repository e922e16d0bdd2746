import inspect

import pytest

from benchmarks.options import check_options, list_options, read_options, try_options
from jaxal.select import STRATEGIES, Strategy
from jaxal.select.ntkcpl import select_ntkcpl


def test_reads_plain_values():
    pairs = ["ridge=1e-2", "risk=zero_one", "merge=false", "num_candidates=None", "x=a=b"]
    assert read_options(pairs, "--option") == {
        "ridge": 0.01,
        "risk": "zero_one",
        "merge": False,
        "num_candidates": None,
        "x": "a=b",
    }


@pytest.mark.parametrize("pair", ["ridge", "=1", "", "ridge=" + 100_000 * "("])
def test_refuses_what_is_no_pair(pair):
    with pytest.raises(ValueError, match="--option"):
        check_options("ntkcpl", read_options([pair], "--option"), "--option")


def test_lists_every_option_with_its_default():
    text = list_options("ntkcpl")
    for part in ("ridge=0.1 ", "risk=squared ", "one of squared, zero_one", "kernel_width=512 "):
        assert part in text
    keywords = [
        p for p in inspect.signature(select_ntkcpl).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    assert len(text.splitlines()) == len(keywords) - 2  # batch_size and kernel


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ridge": "abc"}, "--option: ridge: expected a number, found 'abc'"),
        ({"ridge": True}, "ridge: expected a number, found True"),
        ({"kernel": 5}, "expected one of .*kernel_width.*, found 'kernel'"),
        ({"batch_size": 5}, "found 'batch_size'"),
        ({"risk": "cubic"}, "risk: expected one of squared, zero_one, found 'cubic'"),
        ({"kernel_width": 3.0}, "kernel_width: expected a whole number or none, found 3.0"),
        ({"num_candidates": "all"}, "num_candidates: expected a whole number or none"),
        ({"merge": 1}, "merge: expected true or false, found 1"),
    ],
)
def test_refuses_names_and_types(options, match):
    with pytest.raises(ValueError, match=match):
        check_options("ntkcpl", options, "--option")


def test_takes_what_fits():
    check_options(
        "ntkcpl", {"ridge": 1, "num_candidates": None, "merge": True, "risk": "squared"}, ""
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ridge": -1}, "--variant a: ridge: expected a number above 0, found -1"),
        ({"num_candidates": 0}, "--variant a: num_candidates"),
        ({"kernel_seed": 2**80}, "--variant a: "),
    ],
)
def test_refuses_values(options, match):
    with pytest.raises(ValueError, match=match):
        try_options("ntkcpl", options, "--variant a")


def test_tries_what_is_allowed():
    try_options(
        "ntkcpl", {"kernel_width": 8, "cluster_features": "al", "max_clusters": 10**6}, "--option"
    )


def test_other_strategies_have_options_too():
    text = list_options("typiclust")
    assert "max_clusters=500 " in text and "batch_size" not in text
    assert "space=features " in list_options("coreset")
    # What makes it that strategy is none of its options.
    assert "space" not in list_options("coreset-hidden")
    assert list_options("random") == ""
    check_options("typiclust", {"num_neighbors": 5}, "")
    with pytest.raises(ValueError, match=r"a: expected one of max_clusters, .*, found 'ridge'"):
        check_options("typiclust", {"ridge": 1}, "a")
    with pytest.raises(ValueError, match="a: expected none, as it takes no options, found 'ridge'"):
        check_options("random", {"ridge": 1}, "a")
    try_options("typiclust", {"num_neighbors": 5}, "a")
    with pytest.raises(ValueError, match="a: num_neighbors"):
        try_options("typiclust", {"num_neighbors": 0}, "a")


def test_a_trained_head_and_true_labels_are_there_to_try_with(monkeypatch):
    seen = []

    def select_ntkcpl(key, pool, *, batch_size, true_labels, size: int = 1):
        seen.append((type(pool.trained).__name__, len(true_labels)))

    strategy = Strategy("peeking", select_ntkcpl, needs=frozenset({"trained"}), oracle=True)
    monkeypatch.setitem(STRATEGIES, "peeking", strategy)
    try_options("peeking", {"size": 2}, "a")
    assert seen == [("TrainedHead", 12)] and "true_labels" not in list_options("peeking")
