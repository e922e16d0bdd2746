import numpy as np
import pytest

from jaxal.data import arrays, from_arrays, open_npy

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (7, 4, 5, 3), np.uint8)


def test_images_come_back_as_they_are():
    source = from_arrays(COLOUR, [0, 1, 0, 1, 2, 0, 0])
    rows = np.array([6, 0, 0, 3])
    np.testing.assert_array_equal(source.load(rows), COLOUR[rows])
    assert source.load(rows).dtype == np.uint8
    assert len(source) == 7 and source.labels.dtype == np.int32 and source.class_names is None
    assert source.load(np.zeros(0, int)).shape == (0, 4, 5, 3)


def test_grey_images_get_a_channel():
    grey = COLOUR[..., 0]
    source = from_arrays(grey)
    np.testing.assert_array_equal(source.load(np.arange(7)), grey[..., None])
    assert source.labels is None
    assert source.describe() == from_arrays(grey[..., None]).describe()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded(dtype):
    floats = RNG.random((5, 3, 3, 1)).astype(dtype)
    expected = np.floor(floats.astype(np.float64) * 255 + 0.5)
    np.testing.assert_array_equal(from_arrays(floats).load(np.arange(5)), expected)
    exact = (COLOUR / 255).astype(np.float32)
    np.testing.assert_array_equal(from_arrays(exact).load(np.arange(7)), COLOUR)


def test_every_float_is_looked_at(monkeypatch):
    monkeypatch.setattr(arrays, "_CHUNK_BYTES", 100)
    for value in (np.nan, np.inf, 1.01, -0.01, 255):
        floats = RNG.random((9, 2, 2, 3))
        floats[5, 1, 0, 2] = value
        with pytest.raises(ValueError, match=f"images: .* in 0..1, found {value:g} in image 5"):
            from_arrays(floats)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"images: expected shape .*found shape \(4, 4\)"),
        (np.zeros((2, 4, 4, 3, 1), np.uint8), "images: expected shape"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"one or three channels, on the last axis.*3, 4, 4"),
        (np.zeros((0, 4, 4, 3), np.uint8), "at least one image"),
        (np.zeros((2, 0, 4, 3), np.uint8), "at least one image and pixel"),
        (np.zeros((2, 4, 4), np.int32), "images: expected uint8.*found dtype int32"),
        (np.zeros((2, 4, 4), bool), "found dtype bool"),
        ([["a"]], "images"),
    ],
)
def test_bad_images_are_named(images, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(images)


def test_bad_rows_are_named():
    with pytest.raises(ValueError, match=r"rows: expected indices in 0..6, found 7"):
        from_arrays(COLOUR).load(np.array([7]))


def test_labels_must_fit():
    with pytest.raises(ValueError, match="labels: expected 7 labels, found 6"):
        from_arrays(COLOUR, np.zeros(6, int))


def test_npy_files_equal_their_arrays(tmp_path):
    np.save(tmp_path / "x.npy", COLOUR)
    np.save(tmp_path / "y.npy", np.arange(7, dtype=np.uint8))
    source = open_npy(tmp_path / "x.npy", tmp_path / "y.npy", list("abcdefg"))
    rows = np.array([3, 1])
    loaded = source.load(rows)
    np.testing.assert_array_equal(loaded, COLOUR[rows])
    assert type(loaded) is np.ndarray and loaded.flags.writeable
    assert isinstance(source.images, np.memmap)
    assert source.labels.tolist() == list(range(7)) and source.class_names == tuple("abcdefg")
    assert source.describe() == from_arrays(COLOUR).describe()
    assert open_npy(str(tmp_path / "x.npy")).labels is None


def test_descriptions_tell_images_apart_but_not_labels():
    other = COLOUR.copy()
    other[6, 3, 4, 2] ^= 1
    described = from_arrays(COLOUR).describe()
    assert described != from_arrays(other).describe()
    assert described == from_arrays(COLOUR.copy(), np.zeros(7, int)).describe()


def test_damaged_npy_files_are_named(tmp_path):
    path = tmp_path / "x.npy"
    with pytest.raises(ValueError, match=r"path: expected a .npy file, found none at .*x.npy"):
        open_npy(path)
    np.save(path, COLOUR)
    with pytest.raises(ValueError, match=r"labels_path: .*found none at .*y.npy"):
        open_npy(path, tmp_path / "y.npy")
    whole = path.read_bytes()
    for size in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"path: expected a whole .npy file.*x.npy"):
            open_npy(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"x.npy"):
        open_npy(path)
