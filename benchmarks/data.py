"""Features and labels for the benchmarks: from files, from tensorflow-datasets, or the digits'."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from jaxal.checks import check_features, check_labels, check_positive
from jaxal.data import open_tfds

__all__ = [
    "ENCODERS",
    "Data",
    "check_data",
    "data_root",
    "digits_data",
    "draw_pool",
    "load_array",
    "tfds_labels",
]

ENCODERS = ("mobilenetv2", "protoclr")
_ROOT = "JAXAL_DATA"


class Data(NamedTuple):
    """A pool and a test set, as fixed features and labels."""

    features: np.ndarray  # [n, d] of the pool
    labels: np.ndarray  # [n] int32
    test_features: np.ndarray  # [m, d]
    test_labels: np.ndarray  # [m] int32
    num_classes: int


def data_root() -> Path:
    """Find the folder of prepared data.

    Raises:
      ValueError: the environment does not name one, or it is not there.
    """
    root = os.environ.get(_ROOT)
    if not root:
        raise ValueError(
            f"{_ROOT}: expected the environment to name the folder with features/ and tfds/, "
            "found nothing; set it, or pass every file (--data-dir for what tensorflow-datasets "
            "prepared)"
        )
    if not Path(root).is_dir():
        raise ValueError(f"{_ROOT}: expected a folder, found {root}")
    return Path(root)


def load_array(path: str | Path, *, mapped: bool = False) -> np.ndarray:
    """Read a ``.npy`` file.

    Args:
      path: the file.
      mapped: leave the values on the disk until they are read.

    Raises:
      ValueError: the file is missing, truncated or of another format; the error names it.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: expected a .npy file, found none")
    try:
        # Mapping checks the length of the file against its header, for both ways of reading.
        array = open_memmap(path, mode="r")
        return array if mapped else np.array(array)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: truncated, or not a .npy file of numbers ({error})") from error


def tfds_labels(dataset: str, split: str, data_dir: str | Path) -> np.ndarray:
    """Read the labels of a data set that tensorflow-datasets prepared, in its original order.

    Args:
      dataset: "cifar10" or "cifar100".
      split: "train" or "test".
      data_dir: where the data set was prepared.

    Returns:
      ``[n]`` int32, by row of the original order.

    Raises:
      ValueError: it is not prepared there, an image cannot be read, or nothing says which row an
        image is.
    """
    # Without any of its images the others would have other rows.
    source = open_tfds(dataset, split, data_dir, unreadable="raise")
    if source.labels is None or source.describe()["order"] != "id":
        raise ValueError(f"{data_dir}: expected {dataset} with labels and ids that number its rows")
    labels: np.ndarray = source.labels
    return labels


def check_data(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    num_classes: int | None = None,
) -> Data:
    """Check features and labels against each other.

    Args:
      features: ``[n, d]`` of the pool.
      labels: ``[n]``.
      test_features: ``[m, d]``.
      test_labels: ``[m]``.
      num_classes: by default one more than the largest label, which must then be less than n.

    Raises:
      ValueError: they do not fit, or all features of the pool are zero.
    """
    check_features(features, "features", min_rows=2)
    if not np.any(features):
        raise ValueError("features: expected numbers other than 0, found none")
    check_features(test_features, "test-features")
    if features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"test-features: expected {features.shape[1]} columns, as features has, "
            f"found {test_features.shape[1]}"
        )
    if num_classes is None:
        num_classes = _count_classes(labels, test_labels, len(features))
    labels = check_labels(labels, num_classes, length=len(features))
    test_labels = check_labels(test_labels, num_classes, "test-labels", length=len(test_features))
    return Data(features, labels, test_features, test_labels, num_classes)


def _count_classes(labels: np.ndarray, test_labels: np.ndarray, rows: int) -> int:
    largest = 0
    for name, found in (("labels", labels), ("test-labels", test_labels)):
        if not np.issubdtype(found.dtype, np.integer):
            raise ValueError(f"{name}: expected integers from 0, found dtype {found.dtype}")
        largest = max(largest, int(np.max(found, initial=0)))
        if largest >= rows:
            raise ValueError(
                f"{name}: expected labels 0, 1, … below the {rows} rows of the pool, found "
                f"{largest}; if it is meant, pass --num-classes"
            )
    return largest + 1


def draw_pool(
    data: Data, seed: int, *, pool_size: int | None, scale: bool, holdout: int | None = None
) -> Data:
    """Take the pool of one seed.

    Scaling multiplies all features by one number, so that the pool's rows have a mean norm of one.
    It changes no ranking by distance or angle, and lets heads and kernels of one setting serve
    encoders of any scale.

    Args:
      data: the whole.
      seed: decides the rows.
      pool_size: how many random rows; None for all.
      holdout: take the test set's place with this many other random rows, so that choices between
        methods are made without the test set; None keeps the test set.
      scale: whether to scale; if not, and all rows are taken, mapped features stay on the disk.

    Returns:
      The pool, with what it is tested on, float32 where it was drawn or scaled.

    Raises:
      ValueError: more rows than there are, or features of zeros to scale.
    """
    features, labels = data.features, data.labels
    test, test_labels = data.test_features, data.test_labels
    kept = len(features) - (holdout or 0)
    if holdout is not None and not 0 < check_positive(holdout, "holdout") < len(features):
        raise ValueError(f"holdout: expected less than {len(features)} rows, found {holdout}")
    if pool_size is not None and check_positive(pool_size, "pool-size") > kept:
        raise ValueError(f"pool-size: expected at most {kept}, found {pool_size}")
    if pool_size is not None or holdout is not None:
        size = pool_size or kept
        drawn = np.random.default_rng(seed).choice(
            len(features), size + (holdout or 0), replace=False
        )
        rows, others = np.sort(drawn[:size]), np.sort(drawn[size:])
        if holdout is not None:
            test, test_labels = np.asarray(features[others], np.float32), labels[others]
        features, labels = np.asarray(features[rows], np.float32), labels[rows]
    if scale:
        features, test = np.asarray(features, np.float32), np.asarray(test, np.float32)
        norm = np.linalg.norm(features, axis=1).mean(dtype=np.float64)
        if not norm > 0:
            raise ValueError("features: expected a mean norm above 0 to scale by, found 0")
        features, test = features / np.float32(norm), test / np.float32(norm)
    return Data(features, labels, test, test_labels, data.num_classes)


def digits_data(cache: Path | None = None) -> Data:
    """Pre-train the digits' encoder and compute its features, or read them from a file.

    Args:
      cache: where the features are kept, so that a resumed run sees the very same ones.

    Raises:
      ImportError: scikit-learn is not installed.
      ValueError: the file is damaged.
    """
    import jax

    from benchmarks.digits import encode, load_digits, pretrain

    digits = load_digits()
    if cache is not None and cache.exists():
        joined = load_array(cache)
    else:
        params, _ = pretrain(jax.random.key(0), digits.pool)
        joined = np.asarray(encode(params, np.concatenate([digits.pool, digits.test])))
        if cache is not None:
            temporary = cache.with_name(f".{cache.name}.{os.getpid()}.tmp")
            with temporary.open("wb") as file:
                np.save(file, joined)
            os.replace(temporary, cache)
    n = len(digits.pool)
    return check_data(joined[:n], digits.pool_labels, joined[n:], digits.test_labels, 10)
