import struct

import numpy as np
import pytest

from jaxal.data.tfrecord import Part, index_records

RECORDS = [b"a", b"", b"ccc" * 5000, b"dd"]


def write(path, records):
    frames = (struct.pack("<QI", len(record), 0) + record + bytes(4) for record in records)
    path.write_bytes(b"".join(frames))
    return str(path)


@pytest.fixture
def paths(tmp_path):
    return [write(tmp_path / "x", RECORDS), write(tmp_path / "y", [b"last"])]


def test_records_are_read_in_the_order_asked_for(paths):
    found = index_records([Part(paths[0], 0, 4, 4), Part(paths[1], 0, 1, 1)])
    everything = [*RECORDS, b"last"]
    assert len(found) == 5 and found.read(range(5)) == everything
    rows = [4, 0, 2, 2, 1, 4]
    assert found.read(rows) == [everything[row] for row in rows] and found.read([]) == []
    assert found.read(np.array([3])) == [b"dd"]


def test_parts_of_files_follow_each_other(paths):
    found = index_records([Part(paths[1], 0, 1, 1), Part(paths[0], 1, 2, 4)])
    assert found.read(range(3)) == [b"last", *RECORDS[1:3]]
    assert len(index_records([])) == 0
    assert len(index_records([Part(paths[0], 4, 0, 4)])) == 0


def test_every_truncation_is_found(tmp_path):
    path = tmp_path / "x"
    write(path, [b"one", b"two"])
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(
            OSError, match=r"cut short or damaged after record|has . records, not 2"
        ):
            index_records([Part(str(path), 0, 2, 2)])


def test_what_changed_or_is_gone_is_named(paths, tmp_path):
    found = index_records([Part(paths[0], 0, 4, 4)])
    (tmp_path / "x").write_bytes(bytes(20))
    with pytest.raises(OSError, match="x is cut short"):
        found.read([3])
    with pytest.raises(OSError, match="nowhere"):
        index_records([Part(str(tmp_path / "nowhere"), 0, 1, 1)])
    with pytest.raises(OSError, match="y has 1 records, not 2"):
        index_records([Part(paths[1], 0, 1, 2)])
