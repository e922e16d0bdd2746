import json
import os

import numpy as np
import pytest

from benchmarks.data import Data
from benchmarks.folder import check_folder, make_folder, open_folder
from benchmarks.plan import Entry, Plan

DATA = Data(np.ones((9, 2)), np.arange(9), np.ones((4, 2)), np.arange(4), 9)
RAN = {
    "random": Entry("random"),
    "ntkcpl": Entry("ntkcpl", {"ridge": 1}),
    "a": Entry("coreset", {"x": 1}),
}
PLAN = Plan("custom", RAN, (2, 3), (0, 1))


def opened(out, plan=PLAN, data=DATA, *, resume=False, overwrite=False):
    open_folder(out, plan, data, resume=resume, overwrite=overwrite)
    return json.loads((out / "settings.json").read_text())


@pytest.fixture
def out(tmp_path):
    opened(tmp_path)
    for name in ("random", "ntkcpl", "a"):
        (tmp_path / "runs" / f"{name}-0.json").write_text("{}")
    (tmp_path / "results.csv").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seeds": (0, 1, 2)},
        {"seeds": (0,)},
        {"entries": RAN | {"margin": Entry("margin")}},
        {"entries": {"random": Entry("random")}},
        {"entries": RAN | {"b": Entry("ntkcpl", {"x": 2})}},
        {"budgets": (2, 3, 4)},
    ],
)
def test_what_stays_valid_is_gone_on_with(out, changes):
    plan = PLAN._replace(**changes)
    with pytest.raises(ValueError, match="pass --resume"):
        opened(out, plan)
    found = opened(out, plan, resume=True)
    assert found["seeds"] == list(plan.seeds) and found["budgets"] == list(plan.budgets)
    # What was run stays known, so that other options cannot take its place later.
    assert found["entries"].keys() == RAN.keys() | plan.entries.keys()
    assert found["entries"]["a"] == {"strategy": "coreset", "options": {"x": 1}}
    assert (out / "results.csv").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"head": "mlp"}, "head: now 'mlp', there 'linear'"),
        ({"budgets": (2,)}, r"budgets: now \[2\], there \[2, 3\]"),
        ({"budgets": (3, 3, 3)}, "budgets: now"),
        (
            {"entries": RAN | {"ntkcpl": Entry("ntkcpl", {"ridge": 2})}},
            "options of ntkcpl: now {'ridge': 2}, there {'ridge': 1}",
        ),
        ({"entries": {"a": Entry("coreset", {"x": 2})}}, "options of a: now"),
        ({"entries": {"a": Entry("ntkcpl", {"x": 1})}}, "strategy of a: now 'ntkcpl'"),
        ({"holdout": 2}, "holdout: now 2, there None"),
        ({"pool_size": 8}, "pool_size: now 8, there None"),
        ({"scale": False}, "scale: now False, there True"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_other_settings_are_refused_by_name(out, changes, match, resume):
    before = (out / "settings.json").read_bytes()
    with pytest.raises(ValueError, match=f"other settings .*{match}"):
        opened(out, PLAN._replace(**changes), resume=resume)
    assert (out / "settings.json").read_bytes() == before


def test_other_data_are_refused_by_name(out):
    other = DATA._replace(test_labels=DATA.test_labels[::-1])
    with pytest.raises(ValueError, match=r"settings \(data test_labels: now"):
        opened(out, data=other, resume=True)


def test_options_that_nothing_ran_with_may_change(out):
    (out / "runs" / "a-0.json").unlink()
    plan = PLAN._replace(entries={"a": Entry("coreset", {"x": 2})})
    assert opened(out, plan, resume=True)["entries"]["a"]["options"] == {"x": 2}


def test_a_folder_without_results_is_begun_anew(tmp_path):
    opened(tmp_path)
    (tmp_path / "features.npy").write_text("")
    assert opened(tmp_path, PLAN._replace(head="mlp"))["head"] == "mlp"
    assert not (tmp_path / "features.npy").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"dataset": "custom"}'])
def test_damaged_settings_are_named(out, text):
    (out / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json: damaged"):
        opened(out, resume=True)


def test_places_that_cannot_be_folders_are_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--out: expected a folder that can be written to"):
        check_folder(tmp_path / "file" / "out", ())
    with pytest.raises(ValueError, match=r"--out: expected a folder that can be made, found .*out"):
        make_folder(tmp_path / "file" / "out")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="--out: expected a folder that can be written to"):
        check_folder(tmp_path / "out", ())
