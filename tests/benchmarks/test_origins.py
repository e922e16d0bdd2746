"""Which image a row of features is of."""

import numpy as np
import pytest

from benchmarks.extraction import extract
from benchmarks.image_encoders import LoadedEncoder
from benchmarks.images import Images
from benchmarks.origins import Origin, write_origin
from jaxal.data import from_arrays


def test_rows_are_written_and_those_of_an_earlier_run_removed(tmp_path):
    rows = np.array([2, 5])
    files = ("a b.png", "two\nlines.png")
    write_origin(tmp_path, "train", Origin(rows, files, (("c.png", "empty"),)))
    assert (tmp_path / "train_files.txt").read_text().splitlines() == ["a b.png", "two\\nlines.png"]
    assert (tmp_path / "train_left_out.txt").read_text() == "c.png: empty\n"
    np.testing.assert_array_equal(np.load(tmp_path / "train_rows.npy"), rows)
    write_origin(tmp_path, "train", Origin(None, None, ()))
    assert not list(tmp_path.iterdir())


def test_what_an_earlier_extraction_left_is_not_mixed_in(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.extraction.encode", lambda _: None)
    monkeypatch.setattr("benchmarks.extraction.encoder_settings", lambda _: {})
    made = np.zeros((3, 2), np.float32)
    monkeypatch.setattr("benchmarks.extraction.extract_features", lambda *x, **y: made)
    encoder = LoadedEncoder("conv4", None, {}, None, {})
    pixels = np.zeros((3, 4, 4, 3), np.uint8)
    labelled = from_arrays(pixels, [0, 1, 0], ["cat", "dog"])
    extract(Images("x", labelled, None, 2), encoder, tmp_path)
    assert (tmp_path / "classes.txt").read_text() == "cat\ndog\n"
    np.testing.assert_array_equal(np.load(tmp_path / "train_labels.npy"), [0, 1, 0])
    extract(Images("x", from_arrays(pixels), None, None), encoder, tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "test.npy").touch()
    with pytest.raises(ValueError, match="features of a test set, and there is none now"):
        extract(Images("x", labelled, None, 2), encoder, tmp_path)
