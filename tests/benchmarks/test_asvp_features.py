import argparse
import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.asvp_features import Adapter, as_images, open_features, read_features

rng = np.random.default_rng(0)


def write(folder):
    """Two clusters, and the flags that name them."""
    given = []
    for name, n in (("", 60), ("test-", 20)):
        labels = np.arange(n) % 2
        np.save(folder / f"{name}y.npy", labels)
        x = rng.normal(size=(n, 6)) + 4 * labels[:, None]
        np.save(folder / f"{name}x.npy", x.astype(np.float32))
        given += [f"--{name}features", f"{folder}/{name}x.npy"]
        given += [f"--{name}labels", f"{folder}/{name}y.npy"]
    return given


def test_features_come_back_bit_for_bit():
    x = np.float32(rng.normal(size=(7, 5)) * 10.0 ** rng.integers(-20, 20, size=(7, 5)))
    images = as_images(x, np.zeros(7, int)).load(np.arange(7))
    assert images.dtype == np.uint8
    found = read_features(images.astype(np.float32) / 255, scale=1.0)
    np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(
        jax.jit(read_features)(images / np.float32(255), scale=2.0), 2 * x
    )


def test_the_network_begins_as_the_identity():
    x = jnp.asarray(rng.normal(size=(4, 6)))
    module = Adapter()
    np.testing.assert_array_equal(module.apply(module.init(jax.random.key(0), x), x), x)


@pytest.mark.slow
def test_pipelines_run_on_given_features(tmp_path):
    given = ["asvp", "--scale", "cpu", *write(tmp_path), "--budgets", "6", "6", "--seeds", "1"]
    given += ["--strategies", "margin", "--pipelines", "standard", "svpp", "--epochs", "2"]
    assert main([*given, "--final-at", "12", "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        assert {row["num_labeled"] for row in csv.DictReader(file)} == {"12"}
    assert "on x, adapter" in (tmp_path / "out" / "table.md").read_text()
    assert str(tmp_path) not in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labels": None}, "--labels"),
        ({"test_features": None}, "--test-features"),
        ({"dataset": "digits"}, "--dataset"),
        ({"weights": "x.npz"}, "--weights"),
        ({"encoder": "conv4"}, "--encoder"),
        ({"features": "nowhere.npy"}, "nowhere"),
    ],
)
def test_bad_files_are_named(changes, named, tmp_path):
    flags = write(tmp_path)
    names = [flag.removeprefix("--").replace("-", "_") for flag in flags[::2]]
    known = dict(zip(names, flags[1::2], strict=True))
    others = ("dataset", "folder", "test_folder", "images", "test_images", "weights", "size")
    others += ("limit", "test_limit", "holdout", "data_dir", "split", "test_split", "image_size")
    others += ("encoder", "width")
    args = argparse.Namespace(**{**dict.fromkeys(others), **known, **changes})
    with pytest.raises((ValueError, OSError), match=named):
        open_features(args)


def test_other_widths_are_refused(tmp_path, capsys):
    given = write(tmp_path)
    np.save(tmp_path / "test-x.npy", np.zeros((20, 5), np.float32))
    assert main(["asvp", "--scale", "cpu", *given, "--budgets", "6"]) == 2
    assert "6 columns" in capsys.readouterr().err
