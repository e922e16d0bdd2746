import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import check_data, data_root, draw_pool, load_array, tfds_labels


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4)).astype(np.float16)
    return check_data(x, rng.integers(3, size=30), 2 * x[:7], rng.integers(3, size=7), 3)


@pytest.mark.parametrize("mapped", [False, True])
def test_reads_an_array(tmp_path, mapped):
    x = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "x.npy", x)
    found = load_array(tmp_path / "x.npy", mapped=mapped)
    np.testing.assert_array_equal(found, x)
    assert isinstance(found, np.memmap) == mapped


@pytest.mark.parametrize("keep", [0, 5, 40, 130, 1_000])
@pytest.mark.parametrize("mapped", [False, True])
def test_names_a_truncated_file(tmp_path, keep, mapped):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((50, 8)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"x\.npy: truncated, or not a \.npy file"):
        load_array(path, mapped=mapped)


def test_names_a_missing_or_foreign_file(tmp_path):
    with pytest.raises(ValueError, match=r"none\.npy: expected a \.npy file, found none"):
        load_array(tmp_path / "none.npy")
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"x\.npy"):
        load_array(tmp_path / "x.npy")


def test_scaling_gives_a_mean_norm_of_one_and_one_factor(data):
    pool = draw_pool(data, 0, pool_size=None, scale=True)
    assert np.linalg.norm(pool.features, axis=1).mean() == pytest.approx(1, rel=1e-5)
    assert pool.features.dtype == np.float32
    np.testing.assert_allclose(pool.test_features, 2 * pool.features[:7], rtol=1e-5)


def test_no_scaling_leaves_the_arrays_alone(data):
    pool = draw_pool(data, 0, pool_size=None, scale=False)
    assert pool.features is data.features and pool.test_features is data.test_features


def test_draws_a_pool_by_seed(data):
    first, again, other = (draw_pool(data, s, pool_size=12, scale=False) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.features, again.features)
    assert not np.array_equal(first.features, other.features)
    assert len(np.unique(first.features, axis=0)) == 12
    for row, label in zip(first.features, first.labels, strict=True):
        at = np.flatnonzero((data.features == row).all(axis=1))
        assert label == data.labels[at[0]]


@pytest.mark.parametrize("pool_size", [0, 31, -1])
def test_refuses_a_pool_size(data, pool_size):
    with pytest.raises(ValueError, match="pool-size"):
        draw_pool(data, 0, pool_size=pool_size, scale=True)


def test_refuses_to_scale_zeros(data):
    with pytest.raises(ValueError, match="mean norm above 0"):
        draw_pool(data._replace(features=np.zeros((30, 4))), 0, pool_size=None, scale=True)


def test_check_data_refuses(data):
    x, y, test_x, test_y, _ = data
    with pytest.raises(ValueError, match="labels: expected 30 labels, found 29"):
        check_data(x, y[:-1], test_x, test_y)
    with pytest.raises(ValueError, match="test-labels: expected 7"):
        check_data(x, y, test_x, test_y[:-1])
    with pytest.raises(ValueError, match="test-features: expected 4 columns"):
        check_data(x, y, test_x[:, :3], test_y)
    with pytest.raises(ValueError, match="NaN or infinity in row 3"):
        bad = x.copy()
        bad[3, 1] = np.inf
        check_data(bad, y, test_x, test_y)
    with pytest.raises(ValueError, match=r"labels: expected labels in 0\.\.1"):
        check_data(x, y, test_x, test_y, 2)


def test_counts_the_classes(data):
    assert check_data(*data[:4]).num_classes == 3
    assert check_data(*data[:4], num_classes=50).num_classes == 50


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.array(["cat"] * 30), "labels: expected integers from 0, found dtype <U3"),
        (np.full(30, np.nan), "labels: expected integers from 0, found dtype float64"),
        (np.arange(30) * 10**6, "labels: expected .* below the 30 rows .* pass --num-classes"),
        (np.arange(30) + 1, "found 30; if it is meant, pass --num-classes"),
        (np.arange(30) - 1, r"labels: expected labels in 0\.\.28, found -1"),
    ],
)
def test_refuses_labels(data, labels, match):
    with pytest.raises(ValueError, match=match):
        check_data(data.features, labels, data.test_features, data.test_labels)
    tests = np.resize(labels, 7)
    if labels.dtype.kind != "i":
        with pytest.raises(ValueError, match=f"test-{match}"):
            check_data(data.features, data.labels, data.test_features, tests)


def test_refuses_features_of_zeros(data):
    with pytest.raises(ValueError, match="features: expected numbers other than 0"):
        check_data(0 * data.features, *data[1:])


def test_holds_rows_out(data):
    first, again, other = (
        draw_pool(data, s, pool_size=None, holdout=9, scale=False) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.test_features, again.test_features)
    assert not np.array_equal(first.test_features, other.test_features)
    both = np.concatenate([first.features, first.test_features])
    assert len(first.features) == 21 and len(np.unique(both, axis=0)) == 30
    for row, label in zip(first.test_features, first.test_labels, strict=True):
        assert label == data.labels[np.flatnonzero((data.features == row).all(axis=1))[0]]
    few = draw_pool(data, 0, pool_size=5, holdout=9, scale=False)
    assert len(few.features) == 5 and len(few.test_features) == 9


@pytest.mark.parametrize("holdout", [0, 30, -1])
def test_refuses_a_holdout(data, holdout):
    with pytest.raises(ValueError, match="holdout"):
        draw_pool(data, 0, pool_size=None, holdout=holdout, scale=True)


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.delenv("JAXAL_DATA", raising=False)
    with pytest.raises(ValueError, match="JAXAL_DATA: expected the environment to name"):
        data_root()
    monkeypatch.setenv("JAXAL_DATA", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="JAXAL_DATA: expected a folder"):
        data_root()
    monkeypatch.setenv("JAXAL_DATA", str(tmp_path))
    assert data_root() == tmp_path


def test_tfds_not_prepared(tmp_path):
    with pytest.raises(ValueError, match="cifar10"):
        tfds_labels("cifar10", "test", tmp_path)


@pytest.mark.slow
def test_tfds_labels_are_in_row_order():
    root = Path(os.environ.get("JAXAL_DATA", "/nonexistent"))
    known = root / "features" / "cifar10_labels_test.npy"
    if not known.exists() or not (root / "tfds" / "cifar10").is_dir():
        pytest.skip("JAXAL_DATA does not hold CIFAR-10")
    found = tfds_labels("cifar10", "test", root / "tfds")
    np.testing.assert_array_equal(found, np.load(known))
    assert "tensorflow" not in sys.modules
