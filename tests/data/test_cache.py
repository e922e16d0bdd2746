import errno
import json
import os
import shutil
import sys
import types

import numpy as np
import pytest

from jaxal.data import cache
from jaxal.data.cache import cache_paths, map_cache, open_writer

ROWS = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)
SETTINGS = {"encoder": "linear"}


class StoppedError(Exception):
    """What interrupts `write`."""


def write(folder, stop=23, *, resume=True, meanwhile=lambda: None):
    """Write what is missing of ROWS, four at a time, or stop when so many are done."""
    of_rows = (cache_paths(folder / "x"), SETTINGS, len(ROWS), ROWS.dtype)
    matrix = map_cache(*of_rows)
    if matrix is not None:
        return matrix
    with open_writer(*of_rows, resume=resume) as writer:
        while writer.done < len(ROWS):
            if writer.done >= stop:
                raise StoppedError
            meanwhile()
            writer.append(ROWS[writer.done : writer.done + 4])
    return map_cache(*of_rows)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def done(folder):
    return json.loads((folder / "x.json").read_text())["content"]["done"]


def test_damaged_records_are_named(tmp_path):
    with pytest.raises(StoppedError):
        write(tmp_path, 8)
    record = tmp_path / "x.json"
    whole = record.read_text()
    content = json.loads(whole)
    damaged = [whole[:50], "", "[]"]
    for wrong in (
        None,
        [1, 2],
        {"done": 8},
        {"done": 99, "columns": 5},
        {"done": "8", "columns": 5},
    ):
        damaged.append(json.dumps(content | {"content": wrong}))
    for text in damaged:
        record.write_text(text)
        with pytest.raises(ValueError, match=r"x.json: .*delete its files"):
            write(tmp_path)
    record.write_text(whole)
    write(tmp_path)


def test_every_truncation_of_rows_is_noticed(tmp_path):
    with pytest.raises(StoppedError):
        write(tmp_path, 8)
    partial = tmp_path / "x.partial.npy"
    rows = partial.read_bytes()
    assert len(rows) == 128 + 8 * 5 * 4
    for size in range(1, len(rows)):
        partial.write_bytes(rows[:size])
        with pytest.raises(ValueError, match=r"x.partial.npy: expected 8 rows of 5 .*resume=False"):
            write(tmp_path)
    partial.write_bytes(rows.replace(b"'<f4'", b"'<f2'"))
    with pytest.raises(ValueError, match="truncated or damaged"):
        write(tmp_path)
    np.testing.assert_array_equal(write(tmp_path, resume=False), ROWS)


def test_removed_rows_are_computed_again(tmp_path):
    with pytest.raises(StoppedError):
        write(tmp_path, 8)
    (tmp_path / "x.partial.npy").unlink()
    with pytest.raises(StoppedError):
        write(tmp_path, 0)
    assert names(tmp_path) == []


def test_a_damaged_matrix_is_named(tmp_path):
    matrix = np.array(write(tmp_path))
    final = tmp_path / "x.npy"
    whole = final.read_bytes()
    for size in (0, 60, 128, len(whole) - 1):
        final.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"x.npy: truncated or damaged.*delete its files"):
            write(tmp_path)
    for wrong in (matrix[:22], matrix[:, :4], matrix.astype(np.float16)):
        np.save(final, wrong)
        with pytest.raises(ValueError, match=r"x.npy: expected shape \(23, 5\), float32"):
            write(tmp_path)
    final.write_bytes(whole)
    (tmp_path / "x.json").unlink()
    with pytest.raises(ValueError, match=r"path: expected x.json beside .*x.npy"):
        write(tmp_path)


def test_half_the_rows_are_never_taken_for_all(tmp_path):
    with pytest.raises(StoppedError):
        write(tmp_path, 8)
    shutil.copy(tmp_path / "x.partial.npy", tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"x.npy: truncated"):
        write(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((23, 5), np.float32))
    with pytest.raises(ValueError, match=r"all rows done, found .*8 done"):
        write(tmp_path)


def test_too_little_space_is_told_before_writing(tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=23 * 5 * 4)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"expected 4.6e-07 GB free for 23 rows of 5") as caught:
        write(tmp_path)
    assert caught.value.errno == errno.ENOSPC and names(tmp_path) == []
    usage.free += 128
    write(tmp_path)


def test_too_little_space_is_told_on_resuming(tmp_path, monkeypatch):
    with pytest.raises(StoppedError):
        write(tmp_path, 8)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=9))
    with pytest.raises(OSError, match="for 15 rows of 5"):
        write(tmp_path, meanwhile=lambda: pytest.fail("went on"))
    monkeypatch.undo()
    np.testing.assert_array_equal(write(tmp_path), ROWS)


@pytest.mark.parametrize(("failing_records", "kept"), [(0, 16), (1, 12), (9, 4)])
def test_full_disk_leaves_what_was_done(tmp_path, monkeypatch, failing_records, kept):
    with pytest.raises(StoppedError):
        write(tmp_path, 4)
    calls = {"write": 0, "record": 0}
    full = OSError(errno.ENOSPC, "No space left on device")
    plain_write, plain_record = cache._write, cache.write_record

    def failing(file, data):
        calls["write"] += 1
        if calls["write"] == 4:
            file.write(data[:7])
            raise full
        plain_write(file, data)

    def record(*arguments):
        calls["record"] += 1
        if calls["record"] <= failing_records:
            raise full
        plain_record(*arguments)

    monkeypatch.setattr(cache, "_write", failing)
    monkeypatch.setattr(cache, "write_record", record)
    # Four rows of five float32 numbers.
    monkeypatch.setattr(cache, "_ROOM_BYTES", 80)
    message = rf"disk full with {kept} of 23 rows done.*x.partial.npy"
    with pytest.raises(OSError, match=message) as caught:
        write(tmp_path)
    assert caught.value.errno == errno.ENOSPC and done(tmp_path) == kept
    assert (tmp_path / "x.partial.npy").stat().st_size == 128 + 20 * kept
    monkeypatch.undo()
    np.testing.assert_array_equal(write(tmp_path), ROWS)


def test_other_write_errors_stay_as_they_are(tmp_path, monkeypatch):
    def failing(file, data):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(cache, "_write", failing)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path)
    assert names(tmp_path) == []


def test_short_writes_are_completed(tmp_path):
    class Slow:
        def __init__(self):
            self.taken = b""

        def write(self, data):
            self.taken += bytes(data[:3])
            return min(3, len(data))

    slow = Slow()
    cache._write(slow, memoryview(bytes(range(10))))
    assert slow.taken == bytes(range(10))


def test_another_process_is_kept_away(tmp_path):
    pytest.importorskip("fcntl")

    def meanwhile():
        with pytest.raises(BlockingIOError, match=r"another process is writing it.*x.partial.npy"):
            write(tmp_path)

    np.testing.assert_array_equal(write(tmp_path, meanwhile=meanwhile), ROWS)


def test_the_final_name_is_given_while_others_are_kept_away(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    replace, tried = os.replace, []

    def meanwhile(source, target):
        if target == tmp_path / "x.npy":
            tried.append(target)
            with pytest.raises(BlockingIOError, match="another process is writing it"):
                write(tmp_path, resume=False)
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    np.testing.assert_array_equal(write(tmp_path), ROWS)
    assert len(tried) == 1 and names(tmp_path) == ["x.json", "x.npy"]


def test_systems_without_locks(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(StoppedError):
        write(tmp_path, 8)
    np.testing.assert_array_equal(write(tmp_path), ROWS)
    assert names(tmp_path) == ["x.json", "x.npy"]


@pytest.mark.parametrize("event", ["finished", "failed"])
def test_another_process_may_end_between_opening_and_locking(tmp_path, monkeypatch, event):
    fcntl = pytest.importorskip("fcntl")
    write(tmp_path)
    (tmp_path / "x.npy").rename(tmp_path / "x.partial.npy")
    plain = fcntl.flock

    def flock(file, how):
        if event == "finished":
            os.replace(tmp_path / "x.partial.npy", tmp_path / "x.npy")
        else:
            (tmp_path / "x.partial.npy").unlink()
        plain(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(BlockingIOError, match="call again"):
        write(tmp_path)
    monkeypatch.undo()
    np.testing.assert_array_equal(write(tmp_path), ROWS)
