import json
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal import records
from jaxal.augment import compose, random_flip, simsiam_view, sometimes, strong, weak
from jaxal.records import (
    check_path,
    describe,
    fingerprint,
    plain,
    read_record,
    replacing,
    write_record,
)


class Pair(NamedTuple):
    left: object
    right: object


def test_round_trip_is_exact(tmp_path):
    path = tmp_path / "run.json"
    content = {"x": np.float64(0.1) / 3, "pair": Pair((1, None), jnp.arange(3))}
    write_record(path, content, {"head": Pair("a", 2)})
    found = read_record(path, {"head": Pair("a", 2)})
    assert found == {
        "x": 0.1 / 3,
        "pair": {"left": [1, None], "right": [0, 1, 2]},
    }
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_other_settings_are_refused_by_name(tmp_path):
    path = tmp_path / "run.json"
    write_record(path, 1, {"head": Pair("a", 2), "seed": 0})
    with pytest.raises(
        ValueError, match=r"run.json.*head.right: expected 3, found 2; seed: .*1.*0"
    ):
        read_record(path, {"head": Pair("a", 3), "seed": 1})
    with pytest.raises(ValueError, match=r"extra: expected 1, found None"):
        read_record(path, {"head": Pair("a", 2), "seed": 0, "extra": 1})


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "run.json"
    write_record(path, [1, 2], {"seed": 0})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"run.json: truncated or not a saved run"):
            read_record(path, {"seed": 0})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failing_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "run.json"
    write_record(path, "old", {})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_record(path, "new", {})
    monkeypatch.undo()
    assert read_record(path, {}) == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_json_cannot_hold_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"settings.options.f\[1\]: expected .* found object"):
        write_record(tmp_path / "x", 0, {"options": {"f": [0, object()]}})
    with pytest.raises(ValueError, match=r"content.f: expected .* found function"):
        write_record(tmp_path / "x", {"f": lambda: 0}, {})
    assert not list(tmp_path.iterdir())
    assert plain({"a": (True, "b", np.int8(3))}) == {"a": [True, "b", 3]}


def test_files_are_strict_json(tmp_path):
    path = tmp_path / "run.json"
    settings = {"a": np.nan, "b": [-np.inf]}
    write_record(path, {"purity": np.nan, "m": jnp.asarray([1, np.inf])}, settings)

    def refuse(name):
        raise AssertionError(name)

    json.loads(path.read_text(), parse_constant=refuse)
    assert read_record(path, settings) == {"purity": None, "m": [1, None]}
    with pytest.raises(ValueError, match=r"a: expected None, found 'nan'"):
        read_record(path, {**settings, "a": None})


def test_settings_may_be_paths_and_functions(tmp_path):
    settings = {"p": Path("a/b.npy"), "f": fingerprint, "g": partial(plain, name="x")}
    assert describe(settings) == {
        "p": str(Path("a/b.npy")),
        "f": "jaxal.records.fingerprint",
        "g": {"function": "jaxal.records.plain", "args": [], "keywords": {"name": "x"}},
    }
    write_record(tmp_path / "run.json", 0, settings)
    with pytest.raises(ValueError, match=r"f: expected 'jaxal.records.plain', found 'jaxal.rec"):
        read_record(tmp_path / "run.json", {**settings, "f": plain})


def test_large_arrays_among_settings_are_their_fingerprints(tmp_path):
    small, large = np.arange(1000), np.random.default_rng(0).normal(size=(1001, 4))
    settings = {"small": small, "nested": [Pair(jnp.asarray(large), large)]}
    mark = fingerprint(large)
    assert describe(settings) == {
        "small": small.tolist(),
        "nested": [{"left": fingerprint(jnp.asarray(large)), "right": mark}],
    }
    write_record(tmp_path / "run.json", {"x": large}, settings)
    found = read_record(tmp_path / "run.json", settings)
    np.testing.assert_array_equal(found["x"], large)
    other = {**settings, "nested": [Pair(jnp.asarray(large), large + 1)]}
    with pytest.raises(ValueError, match=r"nested: .*sha256"):
        read_record(tmp_path / "run.json", other)
    with pytest.raises(ValueError, match=r"settings.o\[0\]: expected .* found object"):
        describe({"o": np.array([object()] * 1001)})


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_paths_that_cannot_be_are_named(tmp_path):
    with pytest.raises(ValueError, match=rf"path: expected a file, found the folder {tmp_path}"):
        write_record(tmp_path, 0, {})
    with pytest.raises(ValueError, match=r"in a folder that exists, found .*/no/run.json"):
        write_record(tmp_path / "no" / "run.json", 0, {})
    with pytest.raises(ValueError, match=rf"{tmp_path}: truncated or not a saved run.*directory"):
        read_record(tmp_path, {})
    assert check_path("run.json") == Path("run.json")


def test_fingerprint_tells_arrays_apart(tmp_path):
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert fingerprint(x) == fingerprint(mapped) == fingerprint(jnp.asarray(x))
    assert fingerprint(x) != fingerprint(x[:, ::-1])
    assert fingerprint(x) != fingerprint(x[:499])
    assert fingerprint(np.zeros((0, 2)))["shape"] == [0, 2]
    assert fingerprint(np.arange(9)) != fingerprint(np.arange(9.0))
    assert fingerprint(3)["shape"] == []
    with pytest.raises(ValueError, match="objects"):
        fingerprint([object()])


@pytest.mark.parametrize("shape", [(1001,), (1001, 3), (7, 11, 13)])
def test_fingerprint_sees_every_element(monkeypatch, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    whole = fingerprint(x)
    for index in np.random.default_rng(1).integers(x.size, size=20):
        changed = x.copy()
        changed.flat[index] += 1
        assert fingerprint(changed) != whole
    monkeypatch.setattr(records, "_CHUNK_BYTES", 100)
    assert fingerprint(x) == whole == fingerprint(np.asfortranarray(x))


class Net(nn.Module):
    activation: object = nn.relu

    def __call__(self, x):
        return self.activation(x)


def scale(x, factor):
    return factor * x


def test_modules_tell_their_fields_and_no_addresses():
    assert describe(Net()) == describe(Net(nn.relu))
    assert describe(Net()) != describe(Net(nn.gelu))
    assert "0x" not in describe(Net())


def test_bound_arguments_tell_functions_apart():
    found = [describe(partial(scale, factor=factor), "fn") for factor in (2, 2, 3)]
    assert found[0] == found[1] != found[2]


def test_functions_within_bound_arguments_tell_them_apart():
    views = [
        weak(),
        weak(padding=2),
        strong(),
        compose(weak(), weak()),
        compose(weak(), weak(padding=2)),
        sometimes(weak(), probability=0.5),
        sometimes(random_flip, probability=0.5),
        simsiam_view(32),
        partial(scale, {"by": [partial(scale, factor=2)]}),
        partial(scale, {"by": [partial(scale, factor=3)]}),
        partial(scale, Net(nn.relu)),
        partial(scale, Net(nn.gelu)),
    ]
    found = [describe(view, "fn") for view in views]
    assert all(found.count(description) == 1 for description in found)
    assert describe(strong(), "fn") == found[2]
    assert json.loads(json.dumps(found)) == found
