import errno
import os
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from jaxal.data import ImageSource, folder, open_folder

RNG = np.random.default_rng(0)


def write(path, shape=(5, 6, 3)):
    """Save a random image and give its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def pets(tmp_path):
    """Two classes of two images and their pixels by row."""
    root = tmp_path / "pets"
    names = ["cat/a.png", "cat/b.PNG", "dog/a.png", "dog/deep/c.bmp"]
    return root, np.stack([write(root / name) for name in names])


def test_classes_are_sub_folders_in_order(pets):
    root, pixels = pets
    source = open_folder(root)
    assert isinstance(source, ImageSource)
    assert source.class_names == ("cat", "dog") and source.labels.tolist() == [0, 0, 1, 1]
    assert source.labels.dtype == np.int32
    assert source.files == ("cat/a.png", "cat/b.PNG", "dog/a.png", "dog/deep/c.bmp")
    assert source.problems == ()
    np.testing.assert_array_equal(source.load(np.array([3, 0, 1, 3])), pixels[[3, 0, 1, 3]])
    assert source.load(np.zeros(0, int)).shape == (0, 5, 6, 3)
    assert open_folder(str(root)).describe() == source.describe()


def test_folder_without_sub_folders_is_unlabelled(tmp_path):
    pixels = np.stack([write(tmp_path / f"{name}.png") for name in "abc"])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.txt").write_text("no image")
    source = open_folder(tmp_path)
    assert source.labels is None and source.class_names is None
    np.testing.assert_array_equal(source.load(np.arange(3)), pixels)


def test_hidden_and_other_files_are_passed_over(pets):
    root, pixels = pets
    write(root / ".cache" / "x.png")
    write(root / "cat" / ".x.png")
    write(root / "cat" / ".thumbs" / "x.png")
    write(root / ".x.png")
    (root / "README.txt").write_text("pets")
    (root / "dog" / "labels.csv").write_text("1")
    assert len(open_folder(root)) == len(pixels)


@pytest.mark.parametrize("check", ["header", "decode"])
def test_unreadable_images_are_left_out_and_listed(pets, check):
    root, pixels = pets
    (root / "cat" / "aa.png").write_bytes(b"")
    (root / "cat" / "ab.jpg").write_text("<html>not found</html>")
    whole = (root / "dog" / "a.png").read_bytes()
    (root / "dog" / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"left out 3 of 7 images .*aa.png \(not an image"):
        source = open_folder(root, check=check)
    assert [path for path, _ in source.problems] == [
        str(root / name) for name in ("cat/aa.png", "cat/ab.jpg", "dog/b.png")
    ]
    assert all(reason for _, reason in source.problems)
    np.testing.assert_array_equal(source.load(np.arange(4)), pixels)
    assert source.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"found 3 of 7 .*aa.png"):
        open_folder(root, check=check, unreadable="raise")


def test_many_problems_are_shortened(pets):
    root, _ = pets
    for i in range(9):
        (root / "cat" / f"bad{i}.png").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"left out 9 of 13 .*bad2.png .*; …") as caught:
        source = open_folder(root)
    assert "bad3" not in str(caught[0].message) and len(source.problems) == 9


def test_decoding_finds_what_headers_hide(pets):
    root, _ = pets
    path = root / "dog" / "a.png"
    # No pixels between header and end, and checksums that are right.
    whole = path.read_bytes()
    path.write_bytes(whole[:33] + struct.pack(">I", 0) + b"IDAT\x35\xaf\x06\x1e" + whole[-12:])
    source = open_folder(root)
    with pytest.raises(ValueError, match=r"a.png: cannot be decoded \("):
        source.load(np.arange(4))
    with pytest.warns(UserWarning) as caught:
        assert len(open_folder(root, check="decode")) == 3
    assert [str(w.message).split(": ", 1)[1][:20] for w in caught] == [
        "left out 1 of 4 imag",
        "one image only in 1 ",
    ]


def test_truncated_bmps_are_left_out_by_default(pets):
    root, pixels = pets
    path = root / "dog" / "deep" / "c.bmp"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(UserWarning, match=r"left out 1 of 4|one image only"):
        source = open_folder(root)
    np.testing.assert_array_equal(source.load(np.arange(3)), pixels[:3])


def test_folders_that_cannot_be_listed_are_named(pets, monkeypatch):
    root, _ = pets
    scandir = os.scandir

    def refuse(path="."):
        if os.fspath(path) == str(root / "dog" / "deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"path: .*listed, found .*dog/deep \(Permission denied\)"):
        open_folder(root)


def test_files_that_vanish_or_change_are_named(pets):
    root, _ = pets
    source = open_folder(root)
    write(root / "cat" / "a.png", (7, 6, 3))
    with pytest.raises(ValueError, match=r"a.png: expected an image of 5×6 pixels, found 7×6"):
        source.load(np.array([0]))
    (root / "cat" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a.png: cannot be decoded \(.*No such file"):
        source.load(np.array([0]))


def test_small_classes_are_warned_of(pets):
    root, _ = pets
    write(root / "ape" / "x.png")
    (root / "bee").mkdir()
    with pytest.warns(UserWarning) as caught:
        source = open_folder(root)
    messages = sorted(str(w.message) for w in caught)
    assert [m.split(": ", 1)[1] for m in messages] == [
        "no image in 1 classes: bee",
        "one image only in 1 classes: ape",
    ]
    # The empty class keeps its number, so that another split of the same classes agrees.
    assert source.class_names == ("ape", "bee", "cat", "dog")
    assert source.labels.tolist() == [0, 2, 2, 3, 3]


def test_class_names_give_the_labels(pets):
    root, pixels = pets
    (root / "notes").mkdir()
    names = ["dog", "bee", "cat"]
    with pytest.warns(UserWarning, match="no image in 1 classes: bee"):
        source = open_folder(root, class_names=names)
    assert source.class_names == ("dog", "bee", "cat")
    assert source.labels.tolist() == [0, 0, 2, 2]
    np.testing.assert_array_equal(source.load(np.arange(4)), pixels[[2, 3, 0, 1]])
    for wrong, message in (
        (["cat"], "class_names: expected all sub-folders .*found none for dog"),
        (["cat", "cat"], "class_names: expected each name once"),
        ("cat", "class_names: expected a sequence"),
    ):
        with pytest.raises(ValueError, match=message):
            open_folder(root, class_names=wrong)
    pool = open_folder(root / "cat", class_names=names)
    assert pool.labels is None and pool.class_names == ("dog", "bee", "cat")


def test_a_sound_folder_gives_no_warning(pets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_folder(pets[0], check="decode")


def test_size_makes_different_images_equal(tmp_path):
    write(tmp_path / "a.png", (20, 30, 3))
    write(tmp_path / "b.png", (16, 12, 3))
    exact = write(tmp_path / "c.png", (8, 8, 3))
    with pytest.raises(ValueError, match=r"size: .*a.png of 20×30 and b.png of 16×12"):
        open_folder(tmp_path)
    source = open_folder(tmp_path, size=8)
    images = source.load(np.arange(3))
    assert images.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(images[2], exact)
    square = Image.open(tmp_path / "b.png").crop((0, 2, 12, 14))
    expected = np.asarray(square.resize((8, 8), Image.Resampling.BILINEAR), int)
    # At the borders, scaling sees a little beyond the square; the crop does not.
    assert np.abs(images[1].astype(int) - expected)[:, 1:-1][1:-1].max() <= 1


def test_grey(pets):
    source = open_folder(pets[0], channels=1)
    images = source.load(np.arange(4))
    assert images.shape == (4, 5, 6, 1)
    luma = pets[1] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(images[..., 0], luma, atol=1)


def test_descriptions_tell_folders_apart(pets, tmp_path):
    root, _ = pets
    first = open_folder(root).describe()
    assert open_folder(root, size=8).describe() != first
    assert open_folder(root, channels=1).describe() != first
    moved = root.rename(tmp_path / "moved")
    assert open_folder(moved).describe() == first
    (moved / "cat" / "a.png").rename(moved / "cat" / "z.png")
    assert open_folder(moved).describe() != first
    (moved / "cat" / "z.png").rename(moved / "cat" / "a.png")
    assert open_folder(moved).describe() == first
    write(moved / "cat" / "a.png", (5, 6))
    assert open_folder(moved).describe() != first


def test_files_in_blocks(pets, monkeypatch):
    whole = open_folder(pets[0])
    monkeypatch.setattr(folder, "_BLOCK", 3)
    assert open_folder(pets[0]).describe() == whole.describe()


def test_bad_folders_are_named(pets, tmp_path):
    root, _ = pets
    with pytest.raises(ValueError, match=r"path: expected a folder of images, found none at .*no"):
        open_folder(tmp_path / "no")
    with pytest.raises(ValueError, match="path: expected a folder"):
        open_folder(root / "cat" / "a.png")
    empty = tmp_path / "empty"
    (empty / "a").mkdir(parents=True)
    (empty / "a" / "x.txt").write_text("")
    with pytest.raises(ValueError, match=r"path: expected images \(.bmp.*found none.*1 sub-folder"):
        open_folder(empty)
    (empty / "a" / "x.png").write_text("")
    with pytest.raises(ValueError, match=r"found 1 of 1 in .*empty that cannot: .*x.png"):
        open_folder(empty)
    write(root / "stray.png")
    with pytest.raises(ValueError, match=r"found both in .*stray.png and cat/a.png"):
        open_folder(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size"),
        ({"size": 8.5}, "size"),
        ({"channels": 4}, "channels: expected 1 or 3, found 4"),
        ({"unreadable": "ignore"}, "unreadable: expected one of skip, raise, found 'ignore'"),
        ({"check": True}, "check: expected one of header, decode, found True"),
    ],
)
def test_bad_options_are_named(pets, options, message):
    with pytest.raises(ValueError, match=message):
        open_folder(pets[0], **options)


def test_bad_rows_are_named(pets):
    with pytest.raises(ValueError, match=r"rows: expected indices in 0..3, found 4"):
        open_folder(pets[0]).load(np.array([4]))


def test_importing_the_package_imports_no_image_library():
    code = (
        "import sys, jaxal, jaxal.data\n"
        "names = ('PIL', 'tensorflow', 'tensorflow_datasets', 'torch', 'matplotlib')\n"
        "print([name for name in names if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
