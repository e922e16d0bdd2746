import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxal.asvp import (
    PIPELINES,
    PipelineConfig,
    at_labels,
    every_round,
    never,
    refreshed_at,
    run_pipeline,
    selection_seconds,
)
from jaxal.models.saved import load_variables
from jaxal.select import STRATEGIES
from jaxal.train import DivergedError
from jaxal.train.head import LINEAR

N, DIM, CLASSES = 60, 5, 3
SIZES = [6, 6, 8]
rng = np.random.default_rng(0)
LABELS = np.arange(N) % CLASSES
FEATURES = (np.eye(DIM)[LABELS] * 3 + rng.normal(size=(N, DIM))).astype(np.float32)
# A head of few epochs: what it learns is not what is tested.
FAST = PipelineConfig(head=LINEAR._replace(epochs=5), trigger=never, final="lpft")


class StoppedError(Exception):
    pass


@dataclasses.dataclass
class Network:
    """Class means as a linear head; each training also bends the features."""

    calls: list = dataclasses.field(default_factory=list)
    stop_at: int | None = None  # call before which it is killed
    num_classes: int = CLASSES
    pool_size: int = N
    diverges_at: int | None = None  # labels
    one_class: bool = False  # is all that its head predicts

    def describe(self):
        return {"of": "tests"}

    def train(self, key, rows, labels, method, *, folder=None):
        self._called(("train", method, len(rows)))
        if len(rows) == self.diverges_at:
            raise DivergedError("training diverged")
        shift = jax.random.normal(key, (DIM,))
        kernel = np.zeros((DIM, self.num_classes), np.float32)
        for c in np.unique(labels):
            kernel[:, c] = FEATURES[rows[labels == c]].mean(0)
        bias = np.zeros(self.num_classes, np.float32)
        if self.one_class:
            kernel, bias = np.zeros_like(kernel), np.eye(self.num_classes, dtype=np.float32)[0]
        head = {"output": {"kernel": kernel, "bias": bias}}
        return {"params": {"encoder": {"shift": np.asarray(shift)}, "head": head}}

    def embed(self, variables, path):
        self._called(("embed", variables is not None))
        if variables is None:
            return FEATURES
        return np.abs(FEATURES * variables["params"]["encoder"]["shift"])

    def _called(self, what):
        if len(self.calls) == self.stop_at:
            raise StoppedError
        self.calls.append(what)


def run(pipeline, folder, network=None, **changes):
    given = {"batch_sizes": SIZES, "seed": 3, "config": FAST, "strategy": "margin"}
    given |= {"oracle": LABELS.take, "network": Network() if network is None else network}
    given |= {"evaluate": lambda variables: {"norm": _norm(variables)}}
    return run_pipeline(pipeline, folder=folder, **(given | changes))


def _norm(variables):
    return float(np.abs(variables["params"]["encoder"]["shift"]).sum())


def told(state):
    """All of a state that does not depend on the clock."""
    history = [(r["round"], r["picks"], r["num_labeled"]) for r in state.active.history]
    trainings = [t._replace(seconds=0.0, embed_seconds=0.0) for t in state.trainings]
    scores = [s._replace(seconds=0.0) for s in state.scores]
    return history, state.active.labels.tolist(), trainings, str(scores)


def test_standard_trains_before_every_choice_but_the_first(tmp_path):
    network = Network()
    state = run("standard", tmp_path, network)
    assert [c for c in network.calls if c[0] == "train"] == [
        ("train", "ft", 6),
        ("train", "ft", 12),
        ("train", "lpft", 20),
    ]
    # The first picks are random: the pre-trained network's features are not computed for them.
    assert ("embed", False) not in network.calls and state.embed_seconds == 0
    assert [(t.purpose, t.num_labeled, t.method) for t in state.trainings] == [
        ("selection", 6, "ft"),
        ("selection", 12, "ft"),
        ("final", 20, "lpft"),
    ]
    assert not state.scores and len(set(state.active.labeled.tolist())) == 20
    np.testing.assert_array_equal(state.active.labels, LABELS[state.active.labeled])


def test_svpp_reads_features_once(tmp_path):
    network = Network()
    state = run("svpp", tmp_path, network)
    assert network.calls == [("embed", False), ("train", "lpft", 20)]
    assert len(state.seconds) == 3 and state.embed_seconds > 0


def test_asvp_refreshes_when_told(tmp_path):
    network = Network()
    config = FAST._replace(trigger=functools.partial(at_labels, counts=12))
    state = run("asvp", tmp_path, network, config=config)
    assert network.calls == [
        ("embed", False),
        ("train", "ft", 12),
        ("embed", True),
        ("train", "lpft", 20),
    ]
    assert refreshed_at(state) == [12]
    assert [(s.num_labeled, s.version) for s in state.scores] == [(6, 0), (12, 0), (12, 1)]


def test_asvp_without_refreshes_chooses_as_svpp(tmp_path):
    asvp = run("asvp", tmp_path / "a", config=FAST._replace(trigger=never))
    svpp = run("svpp", tmp_path / "b")
    np.testing.assert_array_equal(asvp.active.labeled, svpp.active.labeled)
    assert asvp.trainings[-1].metrics == svpp.trainings[-1].metrics


def test_refreshed_features_are_what_is_chosen_by(tmp_path):
    always = run("asvp", tmp_path / "a", config=FAST._replace(trigger=every_round))
    assert refreshed_at(always) == [6, 12]
    svpp = run("svpp", tmp_path / "b")
    first, later = always.active.labeled, svpp.active.labeled
    np.testing.assert_array_equal(first[:6], later[:6])
    assert set(first.tolist()) != set(later.tolist())


@pytest.mark.parametrize(("strategy", "features"), [("margin", None), ("coreset", FEATURES)])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_run_killed_anywhere_ends_the_same(pipeline, features, strategy, tmp_path):
    config = FAST._replace(trigger=functools.partial(at_labels, counts=(6, 12)), compare=("lp",))
    options = {"config": config, "final_at": [12, 20]}
    options |= {"features": features, "strategy": strategy}
    whole = run(pipeline, tmp_path / "whole", **options)
    stops = 0
    for at in range(12):
        folder = tmp_path / str(at)
        try:
            run(pipeline, folder, Network(stop_at=at), **options)
        except StoppedError:
            stops += 1
        assert told(run(pipeline, folder, **options)) == told(whole)
    assert stops >= 4

    # Killed between a question and its answer.
    def unreachable(rows):
        raise StoppedError

    with pytest.raises(StoppedError):
        run(pipeline, tmp_path / "asked", oracle=unreachable, **options)
    assert told(run(pipeline, tmp_path / "asked", **options)) == told(whole)


def test_each_label_is_asked_for_once(tmp_path):
    asked = []

    def oracle(rows):
        asked.extend(rows.tolist())
        return LABELS[rows]

    for _ in range(2):
        state = run("asvp", tmp_path, oracle=oracle)
    assert asked == state.active.labeled.tolist()


def test_a_run_can_be_lengthened_and_its_ends_added(tmp_path):
    short = run("svpp", tmp_path, batch_sizes=SIZES[:2])
    longer = run("svpp", tmp_path, final_at=[6, 20])
    np.testing.assert_array_equal(longer.active.labeled[:12], short.active.labeled)
    assert [t.num_labeled for t in longer.trainings] == [12, 6, 20]


def test_what_selection_trained_is_not_trained_again(tmp_path):
    config = FAST._replace(
        final="ft", compare=("lp",), trigger=functools.partial(at_labels, counts=12)
    )
    for pipeline, save_final in (("standard", False), ("standard", True), ("asvp", True)):
        network, folder = Network(), tmp_path / f"{pipeline}-{save_final}"
        given = config._replace(save_final=save_final)
        state = run(pipeline, folder, network, config=given, final_at=[6, 12, 20])
        trained = [c[1:] for c in network.calls if c[0] == "train"]
        wanted = [(m, n) for m in ("ft", "lp") for n in (6, 12, 20)]
        assert sorted(trained) == wanted
        seconds = {}
        for t in state.trainings:
            seconds.setdefault((t.num_labeled, t.method), set()).add(t.seconds)
        assert all(len(found) == 1 for found in seconds.values())
        assert all(t.embed_seconds == 0 for t in state.trainings if t.purpose == "final")


def test_the_rule_of_the_paper_changes_after_a_refresh(tmp_path):
    config = PipelineConfig(
        head=FAST.head, trigger=functools.partial(at_labels, counts=12), compare=("lp",)
    )
    state = run("asvp", tmp_path, config=config, final_at=[6, 12, 20])
    finals = [(t.num_labeled, t.method) for t in state.trainings if t.purpose == "final"]
    # The refresh at 12 labels served what was chosen after.
    assert finals == [(6, "lpft"), (6, "lp"), (12, "lpft"), (12, "lp"), (20, "ft"), (20, "lp")]
    short = run("asvp", tmp_path / "b", config=config, batch_sizes=SIZES[:2], final_at=[12])
    assert [t.method for t in short.trainings] == ["lpft", "lp"]


def test_the_final_network_is_kept(tmp_path):
    state = run("svpp", tmp_path)
    variables, about = load_variables(tmp_path / "lpft-20.npz")
    assert _norm(variables) == pytest.approx(state.trainings[-1].metrics["norm"])
    assert about["seconds"] == state.trainings[-1].seconds
    folder = tmp_path / "b"
    run("standard", folder, config=FAST._replace(save_final=False), final_at=[12, 20])
    assert not list(folder.glob("*.npz"))
    # Asked for later, they are trained for it, and kept when others are asked for.
    run("standard", folder, config=FAST._replace(final="ft"), final_at=[12, 20])
    run("standard", folder, final_at=[20])
    names = sorted(x.name for x in folder.glob("*.npz"))
    assert names == ["ft-12.npz", "ft-20.npz", "lpft-20.npz"]


def test_with_a_refresh_every_round_it_chooses_as_standard(tmp_path):
    every = FAST._replace(trigger=every_round)
    standard = run("standard", tmp_path / "a").active.labeled
    found = run("asvp", tmp_path / "b", config=every).active.labeled
    np.testing.assert_array_equal(found, standard)
    by_proxy = run("asvp", tmp_path / "c", config=every._replace(tuned_head=False))
    assert set(by_proxy.active.labeled.tolist()) != set(standard.tolist())


def test_a_refresh_that_diverges_leaves_the_features(tmp_path):
    config = FAST._replace(trigger=functools.partial(at_labels, counts=12))
    state = run("asvp", tmp_path / "a", Network(diverges_at=12), config=config)
    failed = state.trainings[0]
    assert (failed.purpose, failed.num_labeled) == ("failed", 12)
    assert "diverged" in failed.metrics["error"] and refreshed_at(state) == []
    svpp = run("svpp", tmp_path / "b")
    np.testing.assert_array_equal(state.active.labeled, svpp.active.labeled)


def test_standard_goes_on_where_a_training_diverges(tmp_path):
    network = Network(diverges_at=12)
    state = run("standard", tmp_path / "a", network)
    assert [(t.purpose, t.num_labeled) for t in state.trainings] == [
        ("selection", 6),
        ("failed", 12),
        ("final", 20),
    ]
    assert network.calls.count(("train", "ft", 12)) == 1 and len(state.active.labeled) == 20
    # By the features of six labels; and by the pre-trained network's where there are no others.
    first = Network(diverges_at=6)
    run("standard", tmp_path / "b", first)
    assert first.calls[:2] == [("train", "ft", 6), ("embed", False)]
    for at in range(8):  # wherever it is killed
        folder = tmp_path / str(at)
        with contextlib.suppress(StoppedError):
            run("standard", folder, Network(diverges_at=12, stop_at=at))
        assert told(run("standard", folder, Network(diverges_at=12))) == told(state)


def test_what_diverged_for_selection_is_not_trained_again(tmp_path):
    network = Network(diverges_at=12)
    config = FAST._replace(final="ft")
    state = run("standard", tmp_path, network, config=config, final_at=[12, 20])
    assert network.calls.count(("train", "ft", 12)) == 1
    assert "diverged" in state.trainings[2].metrics["error"]


def test_features_that_are_not_finite_are_as_bad(tmp_path):
    class Overflowing(Network):
        def embed(self, variables, path):
            if variables is not None:
                raise DivergedError("not finite")
            return super().embed(variables, path)

    every = FAST._replace(trigger=every_round)
    found = run("asvp", tmp_path / "a", Overflowing(), config=every)
    assert [t.purpose for t in found.trainings] == ["failed", "failed", "final"]
    svpp = run("svpp", tmp_path / "b")
    np.testing.assert_array_equal(found.active.labeled, svpp.active.labeled)


def test_a_final_training_that_diverges_is_told(tmp_path):
    network = Network(diverges_at=20)
    state = run("svpp", tmp_path, network, final_at=[12, 20])
    assert "diverged" in state.trainings[-1].metrics["error"]
    assert state.trainings[0].metrics["norm"] > 0
    calls = len(network.calls)
    assert told(run("svpp", tmp_path, network, final_at=[12, 20])) == told(state)
    assert len(network.calls) == calls


def test_metrics_may_be_nan(tmp_path):
    for _ in range(2):
        state = run("svpp", tmp_path, evaluate=lambda variables: {"recall": float("nan")})
        assert np.isnan(state.trainings[-1].metrics["recall"])


def test_what_selection_took(tmp_path):
    config = FAST._replace(trigger=functools.partial(at_labels, counts=12))
    state = run("asvp", tmp_path, config=config)
    state = state._replace(seconds=(1.0, 2.0, 4.0), embed_seconds=8.0)
    trainings = [t._replace(seconds=16.0, embed_seconds=32.0) for t in state.trainings]
    scores = [s._replace(seconds=64.0 if s.num_labeled == 12 else 0.0) for s in state.scores]
    state = state._replace(trainings=tuple(trainings), scores=tuple(scores))
    # The refresh at 12 labels served what was chosen after, and so did both scores there.
    assert selection_seconds(state) == 8 + 7 + 16 + 32 + 128
    assert selection_seconds(state, 12) == 8 + 3
    assert selection_seconds(state, 6) == 8 + 1


def test_given_features_are_not_computed(tmp_path):
    network = Network()
    run("svpp", tmp_path, network, features=FEATURES)
    assert network.calls == [("train", "lpft", 20)]
    with pytest.raises(ValueError, match="features"):
        run("svpp", tmp_path, features=FEATURES + 1)
    with pytest.raises(ValueError, match="60 rows"):
        run("svpp", tmp_path / "b", features=FEATURES[1:])


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(
    "strategy",
    [
        "badge",
        "coreset-hidden",
        "random",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name, strategy in STRATEGIES.items()
            if name not in ("badge", "coreset-hidden", "random") and not strategy.oracle
        ),
    ],
)
def test_every_strategy_serves(strategy, pipeline, tmp_path):
    config = FAST._replace(trigger=every_round)
    state = run(pipeline, tmp_path, strategy=strategy, config=config)
    assert len(set(state.active.labeled.tolist())) == 20


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_labels_of_one_class_only(pipeline, tmp_path):
    state = run(pipeline, tmp_path, oracle=np.zeros(N, int).take)
    assert len(state.active.labeled) == 20
    assert len(state.scores) == (2 if pipeline == "asvp" else 0)
    assert all(np.isnan(s.logme) and s.note for s in state.scores)


@pytest.mark.parametrize("strategy", ["margin", "badge"])
def test_a_head_that_predicts_one_class(strategy, tmp_path):
    state = run("standard", tmp_path, Network(one_class=True), strategy=strategy)
    assert len(set(state.active.labeled.tolist())) == 20


def test_fewer_labels_than_classes_and_classes_that_come_late(tmp_path):
    labels = np.where(np.arange(N) < N // 2, 0, LABELS)
    network = Network(num_classes=9)
    options = {"oracle": labels.take, "batch_sizes": [2, 6, 12], "strategy": "coreset"}
    state = run("asvp", tmp_path, network, config=FAST._replace(trigger=every_round), **options)
    for score in state.scores:
        found = len(np.unique(labels[state.active.labeled[: score.num_labeled]]))
        assert score.num_classes == found and bool(score.note) == (found < 2)
        assert np.isfinite(score.ped_logme) == (found > 1)
    assert state.scores[-1].num_classes > 1


def test_constant_features(tmp_path):
    state = run("asvp", tmp_path, features=np.ones((N, DIM), np.float32))
    assert len(state.scores) == 2 and all(s.note == "" for s in state.scores)
    assert np.isfinite([s.ped_logme for s in state.scores]).all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pipeline": "other"}, "pipeline"),
        ({"batch_sizes": [40, 40]}, "batch_sizes"),
        ({"batch_sizes": [0]}, "batch_sizes"),
        ({"final_at": [7]}, "final_at"),
        ({"final_at": []}, "final_at"),
        ({"seed": -1}, "seed"),
        ({"config": FAST._replace(tuning="none")}, "tuning"),
        ({"config": FAST._replace(final="none")}, "final"),
        ({"config": FAST._replace(compare=("none",))}, "compare"),
        ({"config": FAST._replace(trigger="slowing")}, "trigger"),
        ({"config": FAST._replace(trigger=functools.partial(at_labels, counts=0))}, "counts"),
        ({"config": FAST._replace(trigger=at_labels)}, "counts"),
        ({"config": None}, "config"),
        ({"strategy": "none"}, "strategy"),
        ({"options": {"none": 1}}, "none"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_done(changes, named, tmp_path):
    network = Network()
    pipeline = changes.pop("pipeline", "svpp")
    with pytest.raises(ValueError, match=named):
        run(pipeline, tmp_path / "run", network, **changes)
    assert network.calls == [] and not (tmp_path / "run").exists()


def test_folders_of_others_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="notes"):
        run("svpp", tmp_path)
    run("svpp", tmp_path / "a")
    for changes, named in (
        ({"seed": 4}, "seed"),
        ({"strategy": "entropy"}, "strategy"),
        ({"batch_sizes": [5, 5]}, "batch_sizes"),
    ):
        with pytest.raises(ValueError, match=named):
            run("svpp", tmp_path / "a", **changes)
    run("standard", tmp_path / "b")
    with pytest.raises(ValueError, match="head"):
        run("standard", tmp_path / "b", config=FAST._replace(head=LINEAR))
    with pytest.raises(ValueError, match="pipeline"):
        run("standard", tmp_path / "a")
    (tmp_path / "a" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="truncated"):
        run("svpp", tmp_path / "a")
