import numpy as np
import pytest

from jaxal.data import ImageSource, from_arrays, take
from jaxal.data.sources import check_annotations, check_source


def pool(n=6, labels=None, names=None):
    images = np.random.default_rng(0).integers(0, 256, (n, 4, 5, 3), np.uint8)
    return images, from_arrays(images, labels, names)


def test_subset_has_the_chosen_rows_in_their_order():
    images, source = pool(labels=[0, 1, 2, 0, 1, 2], names=["a", "b", "c"])
    rows = [4, 0, 5]
    subset = take(source, rows)
    assert isinstance(subset, ImageSource) and len(subset) == 3
    np.testing.assert_array_equal(subset.load(np.array([2, 0, 0])), images[[5, 4, 4]])
    np.testing.assert_array_equal(subset.labels, [1, 0, 2])
    assert subset.class_names == ("a", "b", "c")
    nested = take(subset, [1])
    np.testing.assert_array_equal(nested.load(np.array([0])), images[[0]])
    assert nested.labels.tolist() == [0]


def test_subset_without_labels():
    _, source = pool()
    assert take(source, [1]).labels is None and take(source, [1]).class_names is None


def test_descriptions_tell_subsets_apart():
    _, source = pool()
    found = [take(source, rows).describe() for rows in ([0, 1], [1, 0], [0, 1, 2], [0, 1])]
    assert found[0] == found[3]
    assert found[0] != found[1] and found[0] != found[2] and found[0] != source.describe()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows: expected at least one row"),
        ([0, 6], "rows: expected indices in 0..5, found 6"),
        ([-1], "rows: expected indices in 0..5, found -1"),
        ([2, 2], "rows: expected each index once"),
        ([0.5], "rows: expected integers"),
        ([[0]], "rows: expected a vector"),
    ],
)
def test_bad_rows_of_a_subset_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        take(pool()[1], rows)


def test_subset_refuses_rows_beyond_its_own():
    with pytest.raises(ValueError, match=r"rows: expected indices in 0..1, found 2"):
        take(pool()[1], [3, 4]).load(np.array([2]))


def test_what_is_no_source_is_named():
    images, _ = pool()
    for found in (images, "folder", None):
        with pytest.raises(ValueError, match=f"source: .*found {type(found).__name__}"):
            check_source(found)


def test_annotations():
    labels, names = check_annotations(np.array([2, 0], np.uint8), ["a", "b", "c"], 2)
    assert labels.dtype == np.int32 and labels.tolist() == [2, 0] and names == ("a", "b", "c")
    assert check_annotations(None, None, 2) == (None, None)
    assert check_annotations(None, ["a"], 2) == (None, ("a",))


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0], None, "labels: expected 2 labels, found 1"),
        ([[0], [1]], None, "labels: expected a vector"),
        ([0.0, 1.0], None, "labels: expected integers"),
        ([0, -1], None, "labels: expected labels in 0..0, found -1"),
        ([0, 2], ["a", "b"], "labels: expected labels in 0..1, found 2"),
        ([0, 2**32 + 1], None, "labels: expected labels in 0..2147483646, found 4294967297"),
        (["cat", "dog"], None, "labels: expected integers"),
        (None, ["a", "a"], "class_names: expected each name once, found 'a' twice"),
        (None, "ab", "class_names: expected a sequence of strings"),
        (None, [1, 2], "class_names: expected a sequence of strings"),
        (None, [], "class_names: expected at least one name"),
    ],
)
def test_bad_annotations_are_named(labels, names, message):
    with pytest.raises(ValueError, match=message):
        check_annotations(labels, names, 2)
