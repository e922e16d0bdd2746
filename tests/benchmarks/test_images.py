"""Images as the command line names them."""

import argparse

import numpy as np
import pytest
from PIL import Image

from benchmarks.image_encoders import add_encoder
from benchmarks.images import add_images, draw_rows, open_images


def parsed(*given, encoder=False):
    parser = argparse.ArgumentParser()
    add_images(parser)
    if encoder:
        add_encoder(parser)
    return parser.parse_args([str(x) for x in given])


def opened(*given, encoder=False):
    return open_images(parsed(*given, encoder=encoder))


@pytest.fixture
def folder(tmp_path):
    """Hold ten classes of two images, of several sizes."""
    rng = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / "images" / f"class_{i // 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(20 + i, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def test_images_held_out_are_those_that_the_pool_lacks():
    whole, parted = (opened("--dataset", "digits", *x) for x in ((), ("--holdout", 300)))
    assert (len(parted.train), len(parted.test), parted.num_classes) == (997, 300, 10)
    both = [
        np.column_stack([source.load(np.arange(len(source))).reshape(len(source), -1), y])
        for source, y in [(s, s.labels) for s in (parted.train, parted.test, whole.train)]
    ]
    found, wanted = np.concatenate(both[:2]), both[2]
    np.testing.assert_array_equal(found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)])
    assert parted.tested != whole.tested


def test_a_limited_test_set_of_a_folder_has_many_classes(folder):
    given = "--folder", folder, "--test-folder", folder, "--image-size", 16, "--test-limit", 10
    assert len(np.unique(opened(*given).test.labels)) > 5
    rows = draw_rows(1000, 50)
    assert len(set(rows)) == 50 and (np.diff(rows) > 0).all() and rows.max() > 800
    np.testing.assert_array_equal(draw_rows(3, 50), [0, 1, 2])


def test_grey_images_become_colour(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(5, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", np.arange(5))
    found = opened("--images", tmp_path / "x.npy", "--labels", tmp_path / "y.npy").train
    np.testing.assert_array_equal(found.load(np.array([3, 1]))[..., 2], images[[3, 1]])
    np.testing.assert_array_equal(found.labels, np.arange(5))
    assert found.load(np.arange(2)).shape == (2, 8, 8, 3) and len(found) == 5


def test_images_of_several_sizes_get_the_encoders(folder):
    with pytest.raises(ValueError, match=r"^--image-size: expected one to scale to"):
        opened("--folder", folder, "--encoder", "resnet18_cifar", encoder=True)
    for given, size in (((), 84), (("--size", 24), 24), (("--image-size", 12, "--size", 24), 12)):
        found = opened("--folder", folder, "--test-folder", folder, *given, encoder=True)
        for source in (found.train, found.test):
            assert source.load(np.arange(2)).shape == (2, size, size, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--dataset", "digits", "--split", "test"), "--split: expected a data set of tensorflow"),
        (("--folder", "x", "--test-split", "a"), "--test-split: .* found --folder"),
        (("--folder", "x", "--data-dir", "a"), "--data-dir: expected a data set"),
        (("--images", "x", "--image-size", "8"), "--image-size: .* or --folder .* found --images"),
        (("--dataset", "digits", "--image-size", "8"), "--image-size: .* found the digits"),
        (("--folder", "x", "--image-size", "0"), "--image-size: expected a whole number"),
        (("--dataset", "digits", "--limit", "1298"), "--limit: expected at most the 1297 images"),
        (("--dataset", "digits", "--test-limit", "501"), "--test-limit: expected at most the 500"),
        (("--dataset", "digits", "--limit", "0"), "--limit: expected a whole number"),
        (("--images", "x", "--test-labels", "y"), "--test-images: expected beside --test-labels"),
        (("--folder", "x", "--test-folder", "y", "--holdout", 1), "--holdout: .* --test-folder"),
        (("--images", "x", "--test-images", "y", "--holdout", 1), "--holdout: .* --test-images"),
        (("--dataset", "x", "--test-split", "y", "--holdout", 1), "--holdout: .* --test-split"),
        (("--folder", "nowhere"), "^--folder: expected a folder of images, found none at nowhere"),
        (("--images", "nowhere.npy"), "^--images: expected a .npy file"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        opened(*given)


def test_a_limit_of_no_test_set_is_refused(folder):
    with pytest.raises(ValueError, match="--test-limit: expected a test set"):
        opened("--folder", folder, "--image-size", 8, "--test-limit", 2)


def test_rows_and_files_tell_which_images_were_chosen(folder):
    given = "--folder", folder, "--image-size", 8
    whole = opened(*given)
    assert whole.origin.rows is None and len(whole.origin.files) == 20
    assert whole.origin.files[3] == str(folder / "class_1" / "3.png")
    found = opened(*given, "--holdout", 6, "--limit", 9, "--test-limit", 4)
    for origin, source in ((found.origin, found.train), (found.test_origin, found.test)):
        assert len(origin.rows) == len(source)
        assert origin.files == tuple(whole.origin.files[row] for row in origin.rows)
        images = whole.train.load(origin.rows)
        np.testing.assert_array_equal(images, source.load(np.arange(len(source))))
    assert not set(found.origin.files) & set(found.test_origin.files)
    limited = opened("--dataset", "digits", "--test-limit", 4).test_origin
    assert limited.rows.shape == (4,) and limited.files is None


def test_images_left_out_are_told_in_one_line(folder, capsys, recwarn):
    (folder / "class_3" / "bad.png").write_text("no image")
    found = opened("--folder", folder, "--image-size", 8)
    assert [name for name, _ in found.origin.left_out] == [str(folder / "class_3" / "bad.png")]
    said = capsys.readouterr().out
    assert said.startswith(f"left out as unreadable: {folder / 'class_3' / 'bad.png'} (")
    assert "10 classes: class_0, class_1" in said and not recwarn


def test_a_single_class_is_warned_of(folder, capsys):
    opened("--folder", folder.parent, "--image-size", 8)
    assert "warning: one class only: images; a sub-folder" in capsys.readouterr().out


def test_a_test_folder_may_lack_a_class_and_have_no_other(folder, tmp_path):
    for name in ("class_7", "zebra"):
        (tmp_path / "test" / name).mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "test" / "class_7" / "a.png")
    given = "--folder", folder, "--test-folder", tmp_path / "test", "--image-size", 8
    with pytest.warns(UserWarning, match="no image in 9|one image only in 1"):
        found = opened(*given)
    assert found.num_classes == 10 and found.test.labels.tolist() == [7]
    Image.new("RGB", (9, 9)).save(tmp_path / "test" / "zebra" / "a.png")
    with pytest.raises(ValueError, match=r"^--test-folder: .* zebra"):
        opened(*given)


def test_ids_are_no_labels(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8, 3), np.uint8))
    given = "--images", tmp_path / "x.npy", "--labels", tmp_path / "y.npy"
    np.save(tmp_path / "y.npy", [0, 1, 1, 1_000_000])
    with pytest.raises(ValueError, match=r"--labels: .* found 1000000; of 4 images"):
        opened(*given)
    np.save(tmp_path / "y.npy", [0, 0, 3, 3])
    assert opened(*given).num_classes == 4
    assert "4 classes, 2 of them with images" in capsys.readouterr().out
