import gc
import threading
import time

import jax
import numpy as np
import pytest
from PIL import Image

from jaxal.data import epoch_batches, epoch_order, from_arrays, load_batches, open_folder, take

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 3, 3), np.uint8)
SOURCE = from_arrays(IMAGES, np.arange(10) % 4)


class Watched:
    """A source that notes what is loaded, and by which thread, and may fail."""

    labels = None
    class_names = None

    def __init__(self, fail_at=None, wait=0.0):
        self.loaded = []
        self.threads = set()
        self.fail_at = fail_at
        self.wait = wait

    def __len__(self):
        return len(IMAGES)

    def load(self, rows):
        time.sleep(self.wait)
        if self.fail_at in rows:
            raise ValueError(f"cat/{self.fail_at}.png: cannot be decoded")
        self.loaded += rows.tolist()
        self.threads.add(threading.current_thread().name)
        return IMAGES[rows]

    def describe(self):
        return {}


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("jaxal-batches")]


def test_every_row_comes_once():
    batches = list(epoch_batches(KEY, SOURCE, 4, epoch=0))
    assert [b["mask"].tolist() for b in batches] == [
        [True] * 4,
        [True] * 4,
        [True, True, False, False],
    ]
    rows = np.concatenate([b["rows"][b["mask"]] for b in batches])
    assert sorted(rows) == list(range(10)) and rows.tolist() != list(range(10))
    for batch in batches:
        assert {name: x.dtype for name, x in batch.items()} == {
            "images": np.uint8,
            "rows": np.int32,
            "labels": np.int32,
            "mask": bool,
        }
        np.testing.assert_array_equal(batch["images"], IMAGES[batch["rows"]])
        np.testing.assert_array_equal(batch["labels"], SOURCE.labels[batch["rows"]])
    last = batches[-1]
    assert last["rows"].tolist() == last["rows"][[0, 1, 0, 0]].tolist()


def test_order_depends_on_key_and_epoch_only():
    def order(key, epoch, **options):
        batches = epoch_batches(key, SOURCE, 3, epoch=epoch, **options)
        return np.concatenate([b["rows"][b["mask"]] for b in batches]).tolist()

    first = order(KEY, 0)
    assert first == order(KEY, 0, prefetch=0) == epoch_order(KEY, 10, 0).tolist()
    assert first == order(jax.random.PRNGKey(0), np.int64(0))
    assert first != order(KEY, 1) and first != order(jax.random.key(1), 0)
    assert order(KEY, 1) == order(KEY, 1, prefetch=9)


def test_orders_are_uniform():
    orders = np.stack([epoch_order(KEY, 4, epoch) for epoch in range(2400)])
    assert orders.dtype == np.int64
    counts = np.stack([np.bincount(orders[:, i], minlength=4) for i in range(4)])
    # Five standard deviations of a binomial.
    assert np.abs(counts - 600).max() < 5 * np.sqrt(2400 * 3 / 16)
    assert len(np.unique(orders, axis=0)) == 24


def test_remainder_may_be_dropped():
    batches = list(epoch_batches(KEY, SOURCE, 4, epoch=0, drop_remainder=True))
    assert len(batches) == 2 and all(b["mask"].all() for b in batches)
    assert len(list(epoch_batches(KEY, SOURCE, 5, epoch=0, drop_remainder=True))) == 2


def test_source_smaller_than_a_batch_fills_one():
    (batch,) = epoch_batches(KEY, take(SOURCE, [7, 2]), 8, epoch=3)
    assert batch["images"].shape == (8, 3, 3, 3) and batch["mask"].sum() == 2
    assert len(set(batch["rows"][1:].tolist()) | {0, 1}) == 2
    with pytest.raises(ValueError, match=r"batch_size: expected at most 2, .*found 8"):
        epoch_batches(KEY, take(SOURCE, [7, 2]), 8, epoch=3, drop_remainder=True)


def test_rows_are_loaded_in_the_order_given():
    batches = list(load_batches(SOURCE, [5, 5, 0], 2))
    assert [b["rows"].tolist() for b in batches] == [[5, 5], [0, 0]]
    assert "labels" not in next(load_batches(from_arrays(IMAGES), [1], 1))


def test_padding_is_not_loaded():
    source = Watched()
    list(load_batches(source, np.arange(5), 4))
    assert source.loaded == list(range(5))


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_loading_runs_ahead_by_so_many(prefetch):
    source = Watched()
    batches = load_batches(source, np.arange(10), 1, prefetch=prefetch)
    assert source.loaded == []
    next(batches)
    deadline = time.monotonic() + 5
    while len(source.loaded) < 1 + prefetch and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert len(source.loaded) == 1 + prefetch
    batches.close()
    assert threading.current_thread().name not in source.threads


def test_put_replaces_the_batch_in_the_thread():
    seen = set()

    def put(batch):
        seen.add(threading.current_thread().name)
        return jax.device_put(batch)

    for batch in load_batches(SOURCE, np.arange(10), 4, put=put):
        assert all(isinstance(x, jax.Array) for x in batch.values())
        np.testing.assert_array_equal(batch["images"], IMAGES[np.asarray(batch["rows"])])
    assert threading.current_thread().name not in seen


def test_stopping_early_ends_the_thread():
    source = Watched(wait=0.01)
    batches = load_batches(source, np.arange(10), 1)
    next(batches)
    batches.close()
    assert not threads() and len(source.loaded) < 10
    for _ in load_batches(source, np.arange(10), 1):
        break
    gc.collect()
    assert not threads()
    with pytest.raises(KeyError):
        for _ in load_batches(source, np.arange(10), 1):
            raise KeyError
    gc.collect()
    assert not threads()


def test_errors_of_the_thread_reach_the_consumer():
    source = Watched(fail_at=6)
    seen = []
    with pytest.raises(ValueError, match=r"cat/6.png: cannot be decoded"):
        for batch in load_batches(source, np.arange(10), 2):
            seen += batch["rows"].tolist()
    assert seen == list(range(6)) and not threads()

    def put(batch):
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"):
        next(load_batches(SOURCE, [0], 1, put=put))


def test_files_that_cannot_be_decoded_are_named(tmp_path):
    for i in range(4):
        Image.fromarray(IMAGES[i]).save(tmp_path / f"{i}.png")
    source = open_folder(tmp_path)
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2.png: cannot be decoded"):
        list(epoch_batches(KEY, source, 2, epoch=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": IMAGES}, "source: expected a source of images.*found ndarray"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, found 0"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"epoch": -1}, "epoch: expected a whole number of at least 0, found -1"),
        ({"epoch": 0.5}, "epoch"),
        ({"epoch": True}, "epoch"),
        ({"prefetch": -1}, "prefetch: expected a whole number of at least 0, found -1"),
        ({"prefetch": None}, "prefetch"),
    ],
)
def test_bad_options_are_named_before_any_work(change, message):
    arguments = {"key": KEY, "source": SOURCE, "batch_size": 2, "epoch": 0} | change
    with pytest.raises(ValueError, match=message):
        epoch_batches(**arguments)


def test_bad_rows_are_named():
    with pytest.raises(ValueError, match="rows: expected at least one row"):
        load_batches(SOURCE, [], 2)
    with pytest.raises(ValueError, match=r"rows: expected indices in 0..9, found 10"):
        load_batches(SOURCE, [10], 2)
    with pytest.raises(ValueError, match="n: expected a whole number"):
        epoch_order(KEY, 0, 0)


def test_a_source_that_loads_something_else_is_named(monkeypatch):
    source = Watched()
    for wrong in (IMAGES[:1], IMAGES[:2, ..., 0], IMAGES[:2] / 255):
        monkeypatch.setattr(source, "load", lambda rows, wrong=wrong: wrong)
        with pytest.raises(ValueError, match=r"source: expected it to load \[2, h, w, c\] uint8"):
            next(load_batches(source, [0, 1], 2))
