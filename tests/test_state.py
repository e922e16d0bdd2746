import json

import jax
import numpy as np
import pytest

from jaxal.asktell import ask
from jaxal.records import fingerprint
from jaxal.state import cancel, load, relabel, save, skip, start, tell

X = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
Y = np.random.default_rng(1).integers(3, size=80)


def asked(state, batch_size=6):
    return ask(state, "random", X, batch_size)[0]


def told(state, batch_size=6):
    state = asked(state, batch_size)
    return tell(state, Y[state.pending])


def given():
    return start(80, 3, seed=4, labeled=[7, 3], labels=[1, 2])


def states():
    begun = start(80, 3, seed=4)
    yield from (begun, asked(begun), told(begun), told(told(begun)), asked(told(begun)))
    yield from (given(), skip(given(), [5]), told(skip(given(), [5, 9])))
    waiting = asked(told(given()), 4)
    yield from (waiting, skip(waiting, waiting.pending[1:3]), skip(waiting, waiting.pending))
    short = skip(waiting, [*waiting.pending[:2], skip_of(waiting)])
    yield from (cancel(waiting), cancel(short), told(tell(short, Y[short.pending])))
    yield relabel(waiting, 3, 0)


def skip_of(state):
    return next(i for i in range(80) if i not in [*state.labeled, *state.pending])


def test_save_and_load_keep_everything(tmp_path):
    path = tmp_path / "state.json"
    settings = {"features": fingerprint(X)}
    for state in states():
        save(state, path, settings)
        found = load(path, settings)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(state, found, strict=True):
            assert type(a) is type(b) and getattr(a, "dtype", 0) == getattr(b, "dtype", 0)


def test_nan_of_a_strategy_is_saved_as_null(tmp_path):
    path = tmp_path / "state.json"
    state, *_ = ask(start(80, 3, seed=0), "ntkcpl", X, 4)
    assert np.isnan(state.history[0]["info"]["purity"])
    save(state, path, {})

    def refuse(name):
        raise AssertionError(name)

    content = json.loads(path.read_text(), parse_constant=refuse)["content"]
    assert content["history"][0]["info"]["purity"] is None
    np.testing.assert_equal(load(path, {}).history, state.history)


DAMAGE = {
    "num_classes": {"num_classes": 1},
    "no history": {"round": 7, "history": []},
    "string history": {"history": "abc"},
    "list in history": {"history": [[1], [2]]},
    "round": {"round": 7},
    "negative round": {"round": -1},
    "no whole round": {"round": 2.0},
    "labeled": {"labeled": [70, 71, 72, 73], "labels": [0, 0, 0, 0]},
    "one more label": {"labels": [0] * 15},
    "pending": {"pending": [1]},
    "no pending": {"pending": []},
    "string pending": {"pending": "12"},
    "half rows": {"excluded": [0.5]},
    "excluded and labelled": {"excluded": [7]},
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_files_that_contradict_themselves_are_refused(tmp_path, change):
    path = tmp_path / "state.json"
    save(asked(told(told(given()))), path, {})
    record = json.loads(path.read_text())
    record["content"] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"state.json: not a saved run"):
        load(path, {})


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("field", ["picks", "num_labeled", "round", "info", "selection_seconds"])
def test_history_is_checked(tmp_path, index, field):
    path = tmp_path / "state.json"
    save(asked(told(told(given()))), path, {})
    if (index, field) == (2, "num_labeled"):
        return
    for change in ({}, {field: 5}, {field: [2, 2]}, {field: list(range(6))}):
        if change and field in ("info", "selection_seconds"):
            continue
        record = json.loads(path.read_text())
        del record["content"]["history"][index][field]
        record["content"]["history"][index] |= change
        (tmp_path / "bad.json").write_text(json.dumps(record))
        with pytest.raises(ValueError, match=r"bad.json: not a saved run"):
            load(tmp_path / "bad.json", {})


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "state.json"
    save(given(), path, {})
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"state.json: truncated"):
        load(path, {})
    path.write_text(json.dumps({"settings": {}, "content": {}}))
    with pytest.raises(ValueError, match=r"state.json: not a saved run.*pool_size"):
        load(path, {})


def test_cancel_gives_the_state_before_the_question():
    before = told(given())
    after = cancel(asked(before))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(asked(after).pending, asked(before).pending)
    with pytest.raises(ValueError, match="samples that wait"):
        cancel(before)


def test_skip():
    state = skip(asked(given()), [40, 41])
    assert state.excluded.tolist() == [40, 41]
    for rows in ([7], [41], [1, 1], [80], [-1]):
        with pytest.raises(ValueError, match="rows: expected"):
            skip(state, rows)


def test_relabel():
    state = asked(given())
    assert relabel(state, 3, 0).labels.tolist() == [1, 0]
    assert relabel(state, 3, 0).labels.dtype == state.labels.dtype
    with pytest.raises(ValueError, match="row: expected a labelled row, found 4"):
        relabel(state, 4, 0)
    with pytest.raises(ValueError, match=r"label: expected labels in 0..2, found 3"):
        relabel(state, 3, 3)


def test_bad_starts_are_named():
    with pytest.raises(ValueError, match=r"pool_size: expected a count, found an array \(80, 5\)$"):
        start(X, 3, seed=0)
    with pytest.raises(ValueError, match="labeled: expected each index once"):
        start(80, 3, seed=0, labeled=[1, 1], labels=[0, 0])
    with pytest.raises(ValueError, match="labels: expected 2 labels, found 0"):
        start(80, 3, seed=0, labeled=[1, 2])
    with pytest.raises(ValueError, match=r"labels: expected labels in 0..2"):
        start(80, 3, seed=0, labeled=[1], labels=[3])
