import jax
import numpy as np
import pytest

from jaxal.data.arrays import from_arrays
from jaxal.sharding import data_mesh
from jaxal.train.batches import (
    check_images,
    even_batches,
    fetcher,
    make_loader,
    next_capacity,
    padded_size,
    plain_batches,
    resident_loader,
    split_validation,
    streaming_loader,
)

KEY = jax.random.key(0)


@pytest.mark.parametrize(("count", "capacity"), [(1, 16), (16, 16), (17, 32), (64, 64), (65, 128)])
def test_capacities_are_powers_of_two(count, capacity):
    assert next_capacity(count) == capacity


def test_batches_are_padded_to_devices_and_parts():
    mesh = data_mesh(jax.devices()[:1])
    assert [padded_size(count, None) for count in (1, 13)] == [1, 13]
    assert [padded_size(count, mesh, accumulate=4) for count in (1, 4, 13)] == [4, 4, 16]
    with pytest.raises(ValueError, match="mesh: expected"):
        padded_size(3, "data")


@pytest.mark.parametrize("count", [1, 7, 31, 32, 33, 65])
def test_even_batches_hold_every_row_once(count):
    rows = 100 + np.arange(count)
    batches = even_batches(KEY, rows, train_batch_size=32, step_rows=40)
    assert len(batches) == -(-count // 32)
    assert all(batch.rows.shape == batch.mask.shape == (40,) for batch in batches)
    seen = np.concatenate([batch.rows[batch.mask] for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), rows)
    sizes = [batch.mask.sum() for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert all(np.isin(batch.rows, rows).all() for batch in batches)


def test_order_depends_on_the_key_only():
    rows = np.arange(50)
    first, again, other = (
        even_batches(key, rows, train_batch_size=50, step_rows=64)[0].rows
        for key in (KEY, KEY, jax.random.key(1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[:50], rows)


def test_plain_batches_keep_the_order():
    batches = plain_batches(np.array([4, 2, 9, 0, 7]), 3)
    np.testing.assert_array_equal([b.rows for b in batches], [[4, 2, 9], [0, 7, 7]])
    np.testing.assert_array_equal(batches[1].mask, [True, True, False])


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_validation_is_stratified(fraction):
    counts = np.array([40, 20, 7, 1])
    labels = np.random.default_rng(0).permutation(np.repeat([0, 3, 5, 6], counts))
    train, held = split_validation(KEY, labels, fraction)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(68))
    assert len(held) == min(round(fraction * 68), 68 - 4)
    taken = np.array([np.sum(labels[held] == c) for c in (0, 3, 5, 6)])
    assert (taken < counts).all()
    if fraction < 0.9:
        assert np.abs(taken - fraction * counts).max() <= 1


@pytest.mark.parametrize(
    ("labels", "fraction"),
    [([0, 1, 2, 2, 1], 0.4), ([0] * 9, 0.05), ([3], 0.5), ([0, 0, 1, 1], 0.0)],
)
def test_too_few_labels_leave_none_for_validation(labels, fraction):
    train, held = split_validation(KEY, np.array(labels), fraction)
    np.testing.assert_array_equal(train, np.arange(len(labels)))
    assert held.shape == (0,)


def test_held_out_samples_depend_on_the_key():
    labels = np.repeat([0, 1], 20)
    first = split_validation(KEY, labels, 0.25)[1]
    np.testing.assert_array_equal(split_validation(KEY, labels, 0.25)[1], first)
    assert not np.array_equal(split_validation(jax.random.key(1), labels, 0.25)[1], first)


def test_loaders_bring_the_same_batches():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (21, 3, 4, 1), np.uint8)
    labels = rng.integers(0, 5, 21).astype(np.int32)
    batches = even_batches(KEY, np.arange(21), train_batch_size=8, step_rows=8)
    source = from_arrays(images)
    loaders = (
        resident_loader(images, labels, None),
        streaming_loader(fetcher(images), labels, None),
        streaming_loader(fetcher(source), labels, None),
        make_loader(images, labels, None),
        make_loader(source, labels, None),
    )
    for load in loaders:
        loaded = list(load(batches))
        assert len(loaded) == 3
        for batch, found in zip(batches, loaded, strict=True):
            assert found["images"].dtype == np.uint8
            np.testing.assert_array_equal(found["images"], images[batch.rows])
            np.testing.assert_array_equal(found["labels"], labels[batch.rows])
            np.testing.assert_array_equal(found["mask"], batch.mask)


def test_streaming_loads_one_batch_ahead_and_passes_errors_on():
    asked = []

    def fetch(rows):
        asked.append(rows[0])
        if rows[0] == 4:
            raise ValueError("image 4 cannot be read")
        return np.zeros((len(rows), 2, 2, 1), np.uint8)

    load = streaming_loader(fetch, np.zeros(6, np.int32), None)
    loaded = load(plain_batches(np.arange(6), 2))
    next(loaded)
    next(loaded)
    with pytest.raises(ValueError, match="image 4"):
        next(loaded)
    assert asked == [0, 2, 4]


def test_bad_images_are_named():
    assert check_images(np.zeros((3, 2, 2, 1), np.uint8)) == 3
    assert check_images(from_arrays(np.zeros((3, 2, 2, 1), np.uint8))) == 3
    for images, message in (
        (
            np.zeros((3, 2, 2), np.uint8),
            r"images: expected uint8 \[n, h.*uint8 \(3, 2, 2\)",
        ),
        (np.zeros((3, 2, 2, 1)), "images: expected uint8 .* found float64"),
        (np.zeros((0, 2, 2, 1), np.uint8), "images: expected one image or more"),
        ([1, 2], "images: expected uint8 .* found list"),
        ([[[[1]]], [[[2]]]], "images: expected uint8 .* found list"),
        ([[1], [2, 3]], "images: expected uint8 .* found list"),
    ):
        with pytest.raises(ValueError, match=message):
            check_images(images)
