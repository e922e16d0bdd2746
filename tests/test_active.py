import inspect

import numpy as np
import pytest

from jaxal import active, asktell
from jaxal.active import ask, fit_head, run, skip, start, tell
from jaxal.embedding import cluster_embedding
from jaxal.select import STRATEGIES, Strategy, get_strategy, unlabeled
from jaxal.train.head import LINEAR, HeadConfig, predict_probs, train_head

slow = pytest.mark.slow
HEAD = HeadConfig(hidden=(8,), epochs=5, train_batch_size=32)
SIZES = [6, 4, 5]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 80)
    x = np.eye(3, 5)[y] * 3 + rng.normal(size=(80, 5))
    return x.astype(np.float32), y


class KilledError(Exception):
    pass


def picks_of(state):
    return [record["picks"] for record in state.history]


def go(data, strategy="margin", sizes=SIZES, **kwargs):
    x, y = data
    arguments = {"num_classes": 3, "seed": 1, "head": HEAD, "oracle": lambda rows: y[rows]}
    return run(strategy, x, batch_sizes=sizes, **(arguments | kwargs))


def test_history(data):
    x, y = data

    def evaluate(state, outputs):
        assert outputs.num_labeled == len(state.labeled)
        guess = np.argmax(predict_probs(outputs.trained, x), axis=1)
        return {"accuracy": np.mean(guess == y)}

    state = go(data, evaluate=evaluate)
    assert state.round == 3 and len(state.pending) == 0
    assert [record["num_labeled"] for record in state.history] == [6, 10, 15]
    assert np.concatenate(picks_of(state)).tolist() == state.labeled.tolist()
    np.testing.assert_array_equal(state.labels, y[state.labeled])
    assert len(set(state.labeled.tolist())) == 15
    for record in state.history:
        assert 0 <= record["metrics"]["accuracy"] <= 1
        assert record["training_seconds"] > 0 and record["selection_seconds"] > 0
    assert len(state.history[1]["info"]["scores"]) == 4


@pytest.mark.parametrize("strategy", ["random", "margin"])
def test_probabilities_are_there_to_evaluate_in_every_round(data, strategy):
    shapes = []
    go(data, strategy, evaluate=lambda state, outputs: shapes.append(outputs.probs.shape) or {})
    assert shapes == [(80, 3)] * 3
    with pytest.raises(ValueError, match="evaluate: expected a function that returns a mapping"):
        go(data, strategy, evaluate=lambda state, outputs: 0.5)


def test_what_was_passed_in_the_wrong_place_is_named(data):
    x, y = data
    state = start(80, 3, seed=1)
    for features, message in ((np.full((80, 5), np.nan), "finite"), (x.astype(str), "real")):
        with pytest.raises(ValueError, match=f"features: expected {message}"):
            ask(state, "random", features, 3)
    with pytest.raises(ValueError, match="state: expected what start or load gives, found str"):
        ask("margin", state, x, 3)
    state, picks, _ = ask(state, "random", x, 6)
    state = tell(state, y[picks])
    outputs = fit_head(state, x, head=HEAD)
    with pytest.raises(ValueError, match="outputs: expected what fit_head gives, found"):
        ask(state, "margin", x, 3, outputs=outputs.probs)
    with pytest.raises(ValueError, match=r"outputs\.trained, found HeadOutputs"):
        predict_probs(outputs, x)
    with pytest.raises(ValueError, match="batch_sizes: expected the picks of one round or more"):
        go(data, sizes=[])


@pytest.mark.parametrize(
    "options", [{"kernel": "rbf"}, {"ridge": -1}, {"risk": "zero"}, {"num_restarts": 0}]
)
def test_options_are_checked_before_what_takes_long(data, options, monkeypatch):
    for module in (active, asktell):
        monkeypatch.setattr(module, "cluster_embedding", None)
    x, _ = data
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}: expected"):
        ask(start(80, 3, seed=1), "ntkcpl", x, 3, options=options)
    with pytest.raises(ValueError, match=f"{name}: expected"):
        go(data, "ntkcpl", options=options)


def test_seeds_and_first_picks(data):
    first = [picks_of(go(data, s, [6]))[0] for s in ("margin", "entropy", "coreset-hidden")]
    assert first[0] == first[1] == first[2] == picks_of(go(data, "random", [6]))[0]
    assert first[0] != picks_of(go(data, "margin", [6], seed=2))[0]
    assert picks_of(go(data)) == picks_of(go(data))


@pytest.mark.parametrize("strategy", ["margin", "coreset", "typiclust"])
def test_only_paid_labels_count(data, strategy):
    x, y = data
    paid = []

    def oracle(rows):
        paid.extend(rows.tolist())
        return y[rows]

    options = {"max_clusters": 6} if strategy == "typiclust" else {}
    state = go(data, strategy, oracle=oracle, options=options)
    assert paid == state.labeled.tolist()
    spoiled = np.where(np.isin(np.arange(80), paid), y, (y + 1) % 3)
    assert picks_of(go((x, spoiled), strategy, options=options)) == picks_of(state)


@pytest.mark.parametrize("strategy", ["random", "margin", "typiclust"])
def test_a_kill_at_any_save_changes_no_pick(data, tmp_path, monkeypatch, strategy):
    options = {"max_clusters": 6} if strategy == "typiclust" else {}
    expected = picks_of(go(data, strategy, options=options))
    evaluate = lambda state, outputs: {"n": outputs.num_labeled}  # noqa: E731
    real, path = active.save, tmp_path / "run.json"
    for before in (True, False):
        for step in range(9):
            path.unlink(missing_ok=True)
            saves = iter(range(100))

            def dying(*args, step=step, before=before, saves=saves):
                last = next(saves) == step
                if last and before:
                    raise KilledError
                real(*args)
                if last:
                    raise KilledError

            monkeypatch.setattr(active, "save", dying)
            with pytest.raises(KilledError):
                go(data, strategy, path=path, evaluate=evaluate, options=options)
            monkeypatch.setattr(active, "save", real)
            state = go(data, strategy, path=path, evaluate=evaluate, options=options)
            assert picks_of(state) == expected
            assert [record["metrics"]["n"] for record in state.history] == [6, 10, 15]


def test_labels_saved_are_not_asked_again(data, tmp_path):
    _, y = data
    asked = []

    def oracle(rows):
        if len(asked) == 2:
            raise KilledError
        asked.append(rows.tolist())
        return y[rows]

    with pytest.raises(KilledError):
        go(data, oracle=oracle, path=tmp_path / "run.json")
    first = list(asked)
    asked.clear()
    state = go(data, oracle=oracle, path=tmp_path / "run.json")
    assert first + asked == picks_of(state)


def test_a_finished_run_is_read_and_can_be_lengthened(data, tmp_path):
    path = tmp_path / "run.json"
    go(data, path=path)
    again = go(data, path=path, oracle=None)
    assert picks_of(again) == picks_of(go(data))
    longer = go(data, sizes=[*SIZES, 7], path=path)
    assert picks_of(longer) == picks_of(go(data, sizes=[*SIZES, 7]))
    with pytest.raises(ValueError, match=r"batch_sizes: expected to begin with \[6, 4, 5, 7\]"):
        go(data, sizes=SIZES, path=path)


def test_foreign_settings_are_refused(data, tmp_path):
    path = tmp_path / "run.json"
    go(data, path=path, sizes=[6])
    x, y = data
    with pytest.raises(ValueError, match="seed: expected 2, found 1"):
        go(data, path=path, seed=2)
    with pytest.raises(ValueError, match="strategy: expected 'entropy', found 'margin'"):
        go(data, "entropy", path=path)
    with pytest.raises(ValueError, match=r"head.epochs: expected 6, found 5"):
        go(data, path=path, head=HEAD._replace(epochs=6))
    with pytest.raises(ValueError, match=r"features.sha256"):
        go((x + 1, y), path=path)
    with pytest.raises(ValueError, match=r"options.chunk_size: expected 9, found None"):
        go(data, path=path, options={"chunk_size": 9})
    for row in range(len(x)):  # one number anywhere
        changed = x.copy()
        changed[row, 2] += 1
        with pytest.raises(ValueError, match=r"features.sha256"):
            go((changed, y), path=path)


def test_metrics_are_made_up_for_on_resume(data, tmp_path):
    path = tmp_path / "run.json"
    evaluate = lambda state, outputs: {  # noqa: E731
        "n": outputs.num_labeled,
        "loss": float(outputs.trained.losses[-1]),
        "undefined": np.nan,
    }
    expected = go(data, evaluate=evaluate)
    go(data, path=path)
    state = go(data, path=path, evaluate=evaluate, oracle=None)
    for record, wanted in zip(state.history, expected.history, strict=True):
        np.testing.assert_equal(record["metrics"], wanted["metrics"])
    assert picks_of(state) == picks_of(expected)
    np.testing.assert_equal(go(data, path=path, oracle=None).history, state.history)


def test_bad_paths_and_options_cost_no_label(data, tmp_path):
    calls = []

    def oracle(rows):
        calls.append(rows)
        return data[1][rows]

    for path in (tmp_path, tmp_path / "no" / "run.json"):
        with pytest.raises(ValueError, match="path: expected a file"):
            go(data, path=path, oracle=oracle)
    with pytest.raises(ValueError, match="options: margin takes chunk_size, found ridge"):
        go(data, oracle=oracle, options={"ridge": 1})
    with pytest.raises(ValueError, match="options: random takes none, found batch_size, x"):
        go(data, "random", oracle=oracle, options={"x": 1, "batch_size": 1})
    with pytest.raises(ValueError, match=r"settings.options.chunk_size: .* found object"):
        go(data, path=tmp_path / "run.json", oracle=oracle, options={"chunk_size": object()})
    assert not calls and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"options: ntkcpl takes .*ridge.*, found ridgee"):
        ask(start(80, 3, seed=0), "ntkcpl", data[0], 4, options={"ridgee": 1})


def linear_kernel(x1, x2):
    return x1 @ x2.T


def test_kernels_of_ones_own_are_saved_by_name(data, tmp_path):
    path = tmp_path / "run.json"
    options = {"kernel": linear_kernel, "max_clusters": 6}
    state = go(data, "ntkcpl", path=path, options=options)
    again = go(data, "ntkcpl", path=path, options=options, oracle=None)
    assert picks_of(again) == picks_of(state) == picks_of(go(data, "ntkcpl", options=options))
    with pytest.raises(ValueError, match=r"options.kernel: expected '.*lambda>', found '.*kernel"):
        go(data, "ntkcpl", path=path, options={**options, "kernel": lambda a, b: a @ b.T})


def test_ask_makes_the_embedding_that_run_makes(data):
    x, _ = data
    given = ask(start(80, 3, seed=1), "ntkcpl", x, 6, embedding=cluster_embedding(x))[1]
    found = ask(start(80, 3, seed=1), "ntkcpl", x, 6)[1]
    assert found.tolist() == given.tolist() == picks_of(go(data, "ntkcpl", [6]))[0]


@pytest.mark.parametrize(
    "strategy",
    [
        name if name in ("margin", "coreset-hidden") else pytest.param(name, marks=slow)
        for name, strategy in sorted(STRATEGIES.items())
        if not strategy.oracle
    ],
)
def test_skipped_samples_are_as_good_as_absent(data, strategy):
    x, y = data
    odd = np.random.default_rng(3).permutation(80)[:25]
    rest = np.setdiff1d(np.arange(80), odd)
    labeled = rest[::9]
    where = {"labeled": labeled, "labels": y[labeled]}
    state = skip(start(80, 3, seed=1, **where), odd)
    embedding = cluster_embedding(x)
    state, first, _ = ask(state, strategy, x, 6, head=HEAD, embedding=embedding)
    assert not np.isin(first, [*odd, *labeled]).any()
    where["labeled"] = np.searchsorted(rest, labeled)
    small = start(len(rest), 3, seed=1, **where)
    _, alone, _ = ask(small, strategy, x[rest], 6, head=HEAD, embedding=embedding[rest])
    assert first.tolist() == rest[alone].tolist()
    state = tell(state, y[first])
    with pytest.raises(ValueError, match=f"batch_size: expected at most {55 - len(labeled) - 6}"):
        ask(state, strategy, x, 80, head=HEAD)
    _, others, _ = ask(state, strategy, x, 49 - len(labeled), head=HEAD)
    assert sorted([*others, *first, *labeled]) == rest.tolist()


def test_skipping_pending_samples(data):
    x, y = data
    asked, picks, _ = ask(start(80, 3, seed=1), "random", x, 6)
    state = skip(asked, picks[[1, 4]])
    assert state.pending.tolist() == picks[[0, 2, 3, 5]].tolist()
    again, same, _ = ask(state, "random", x, 6)
    assert again is state and same is state.pending
    told = tell(state, y[state.pending])
    assert told.history[0]["picks"] == picks.tolist() and told.history[0]["num_labeled"] == 4
    none = skip(asked, picks)
    assert len(none.pending) == len(none.history) == 0
    _, others, _ = ask(none, "random", x, 6)
    assert not np.isin(others, picks).any()


def test_an_embedding_of_no_use_is_refused(data):
    state = skip(start(80, 3, seed=0), [3])
    for embedding in (np.ones((79, 2)), np.ones(80), np.full((80, 2), np.nan)):
        with pytest.raises(ValueError, match="embedding: "):
            ask(state, "ntkcpl", data[0], 4, embedding=embedding)


def test_starting_from_labels(data):
    x, y = data
    rows = np.arange(0, 80, 8)
    state = start(80, 3, seed=1, labeled=rows, labels=y[rows])
    state, picks, _ = ask(state, "margin", x, 4, head=HEAD)
    probs = np.sort(fit_head(state, x, head=HEAD).probs, axis=1)
    margins = np.where(np.isin(np.arange(80), rows), 2, probs[:, -1] - probs[:, -2])
    assert sorted(picks.tolist()) == sorted(np.argsort(margins)[:4].tolist())
    assert tell(state, y[picks]).history[0]["num_labeled"] == 14


@pytest.mark.parametrize("space", ["self", "al"])
def test_options_decide_what_is_needed(data, space, monkeypatch):
    monkeypatch.setattr("jaxal.active.cluster_embedding", None)  # is not called
    state = go(data, "ntkcpl", [6, 5], options={"cluster_features": space})
    assert len(state.labeled) == 11


def test_the_embedding_is_made_once_for_who_needs_it(data):
    seen = []

    def select(key, pool, *, batch_size):
        seen.append(pool.embedding)
        return unlabeled(pool)[:batch_size], ()

    go(data, Strategy("probe", select, needs=frozenset({"embedding"}), cold_start=True))
    assert seen[0].shape == (80, 80) and all(found is seen[0] for found in seen)


def test_ask_and_tell(data):
    x, y = data
    state = start(80, 3, seed=1)
    state, picks, _ = ask(state, "margin", x, 6, head=HEAD)
    again, same, info = ask(state, "margin", x, 6, head=HEAD)
    np.testing.assert_array_equal(picks, same)
    assert info is None and again is state
    with pytest.raises(ValueError, match="batch_size: expected 6"):
        ask(state, "margin", x, 5, head=HEAD)
    state = tell(state, y[picks])
    outputs = fit_head(state, x, head=HEAD)
    assert outputs.probs.shape == (80, 3) and outputs.hidden.shape == (80, 8)
    given, with_outputs, _ = ask(state, "margin", x, 4, outputs=outputs)
    _, without, info = ask(state, "margin", x, 4, head=HEAD)
    np.testing.assert_array_equal(with_outputs, without)
    assert info.scores.shape == (4,)
    assert picks_of(given) == picks_of(go(data))[:2]
    stale = tell(given, y[with_outputs])
    with pytest.raises(ValueError, match="outputs: expected a head trained on 10 labels"):
        ask(stale, "margin", x, 4, outputs=outputs)


def test_all_that_is_left(data):
    x, y = data
    state = go((x[:12], y[:12]), "coreset", [5, 7])
    assert sorted(state.labeled.tolist()) == list(range(12))


def test_bad_input_is_named(data):
    x, y = data
    with pytest.raises(ValueError, match="batch_sizes: expected at most 80"):
        go(data, sizes=[40, 41])
    with pytest.raises(ValueError, match="batch_sizes"):
        go(data, sizes=[4, 0])
    with pytest.raises(ValueError, match="NaN"):
        go((x * np.nan, y))
    with pytest.raises(ValueError, match="epochs"):
        go(data, head=HEAD._replace(epochs=0))
    for strategy in ("margin", "random"):
        with pytest.raises(ValueError, match=r"head: .* jaxal.LINEAR or jaxal.PROXY.*'linear'"):
            go(data, strategy, head="linear")
        with pytest.raises(ValueError, match=r"head: .*'linear'"):
            ask(start(80, 3, seed=0), strategy, x, 4, head="linear")
    with pytest.raises(ValueError, match=r"oracle: expected a function .* found ndarray"):
        go(data, oracle=y)
    with pytest.raises(ValueError, match=r"batch_sizes: expected a list .* found int"):
        go(data, sizes=10)
    with pytest.raises(ValueError, match=r"strategy: expected one of .* found ndarray"):
        go(data, y)
    with pytest.raises(ValueError, match="seed"):
        go(data, seed=-1)
    with pytest.raises(ValueError, match="strategy: expected one of"):
        go(data, "nonsense")
    with pytest.raises(ValueError, match=r"labels: expected labels in 0..2"):
        go(data, oracle=lambda rows: y[rows] + 3)
    with pytest.raises(ValueError, match="labels: expected 6 labels, found 5"):
        go(data, oracle=lambda rows: y[rows][1:])
    with pytest.raises(ValueError, match="no samples wait"):
        tell(start(80, 3, seed=0), [])
    with pytest.raises(ValueError, match=r"features: expected a matrix \[80, d\]"):
        ask(start(80, 3, seed=0), "random", x[:70], 4)
    with pytest.raises(ValueError, match="batch_size: expected at most 80"):
        ask(start(80, 3, seed=0), "random", x, 81)
    with pytest.raises(ValueError, match="at least one labelled row"):
        fit_head(start(80, 3, seed=0), x)
    for fields in (("prob",), "probs"):
        with pytest.raises(ValueError, match="fields: expected some of hidden, probs, trained"):
            fit_head(start(80, 3, seed=0), x, fields=fields)


@pytest.mark.parametrize("found", [[0, 0], [0], [0, 80]])
def test_picks_of_a_broken_strategy_are_refused(data, found):
    broken = get_strategy("random")._replace(select=lambda key, pool, batch_size: (found, ()))
    with pytest.raises(ValueError, match="picks of random"):
        go(data, broken, [2])


def test_the_linear_head_is_the_default():
    for function, name in (
        (run, "head"),
        (ask, "head"),
        (fit_head, "head"),
        (train_head, "config"),
    ):
        assert inspect.signature(function).parameters[name].default is LINEAR


def test_an_oracle_sees_the_labels_of_what_is_not_skipped():
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    labels = np.arange(12) % 3
    state = skip(start(12, 3, seed=0), [0, 1, 3, 4])
    _, rows, info = ask(state, "class-balanced", x, 6, options={"true_labels": labels})
    np.testing.assert_array_equal(labels[rows], info.classes)
    assert np.bincount(labels[rows]).tolist() == [2, 2, 2]
