import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxal.data import ImageSource, open_tfds, tfds

pytest.importorskip("tensorflow_datasets")
array_record = pytest.importorskip("array_record.python.array_record_module")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = [2, 0, 1, 1, 0, 2]
STORED = [3, 0, 5, 1, 4, 2]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


CONNECTORS = "tensorflow_datasets.core.features"


def image_field(shape):
    dimensions = [str(-1 if side is None else side) for side in shape]
    return {
        "pythonClassName": f"{CONNECTORS}.image_feature.Image",
        "image": {"dtype": "uint8", "shape": {"dimensions": dimensions}},
    }


def write_array_record(path, records):
    writer = array_record.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def write_tfrecord(path, records):
    """Write records in frames whose checksums, which are not compared, are 0."""
    frames = (struct.pack("<QI", len(record), 0) + record + bytes(4) for record in records)
    path.write_bytes(b"".join(frames))


WRITERS = {"array_record": write_array_record, "tfrecord": write_tfrecord}


def prepare(
    folder,
    images,
    *,
    ids=None,
    labels=None,
    shape=(4, 5, 3),
    version="1.0.0",
    shards=1,
    label="label",
    supervised=None,
    masks=None,
    file_format="array_record",
):
    """Write a split "train" as tensorflow-datasets does, without TensorFlow."""
    from tensorflow_datasets.proto import tf_example_pb2

    fields = {"image": image_field(shape)}
    if masks is not None:
        fields["mask"] = image_field((4, 5, 1))
    folder = folder / "tiny" / version
    folder.mkdir(parents=True)
    if ids is not None:
        fields["id"] = {"pythonClassName": f"{CONNECTORS}.text_feature.Text", "text": {}}
    if labels is not None:
        fields[label] = {
            "pythonClassName": f"{CONNECTORS}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": "3"},
        }
        (folder / f"{label}.labels.txt").write_text("ant\nbee\ncow\n")
    lengths = [len(part) for part in np.array_split(np.arange(len(images)), shards)]
    rows = iter(range(len(images)))
    for shard, length in enumerate(lengths):
        records = []
        for row in [next(rows) for _ in range(length)]:
            example = tf_example_pb2.Example()
            feature = example.features.feature
            feature["image"].bytes_list.value.append(images[row])
            if ids is not None:
                feature["id"].bytes_list.value.append(ids[row].encode())
            if labels is not None:
                feature[label].int64_list.value.append(labels[row])
            if masks is not None:
                feature["mask"].bytes_list.value.append(masks[row])
            records.append(example.SerializeToString())
        path = folder / f"tiny-train.{file_format}-{shard:05d}-of-{shards:05d}"
        WRITERS[file_format](path, records)
    info = {
        "fileFormat": file_format,
        "name": "tiny",
        "version": version,
        "splits": [
            {
                "name": "train",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(length) for length in lengths],
                "numBytes": str(sum(map(len, images))),
            }
        ],
    }
    if supervised is not None:
        items = [{"featureKey": key} for key in supervised]
        info["supervisedKeys"] = {"tuple": {"items": items}}
    features = {
        "pythonClassName": f"{CONNECTORS}.features_dict.FeaturesDict",
        "featuresDict": {"features": fields},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(features))
    return folder


def prepare_shuffled(folder, **options):
    return prepare(
        folder,
        [png(PIXELS[row]) for row in STORED],
        ids=[f"train_{row:05d}" for row in STORED],
        labels=[LABELS[row] for row in STORED],
        **options,
    )


@pytest.mark.parametrize("file_format", list(WRITERS))
@pytest.mark.parametrize("shards", [1, 3])
def test_rows_are_in_the_order_of_the_ids(tmp_path, shards, file_format):
    prepare_shuffled(tmp_path, shards=shards, file_format=file_format)
    source = open_tfds("tiny", "train", tmp_path)
    assert isinstance(source, ImageSource) and len(source) == 6
    assert source.labels.tolist() == LABELS and source.labels.dtype == np.int32
    assert source.class_names == ("ant", "bee", "cow")
    np.testing.assert_array_equal(source.load(np.arange(6)), PIXELS)
    np.testing.assert_array_equal(source.load(np.array([5, 0, 5])), PIXELS[[5, 0, 5]])
    assert source.load(np.zeros(0, int)).shape == (0, 4, 5, 3)
    lengths = {1: [6], 3: [2, 2, 2]}[shards]
    assert source.describe() == {
        "kind": "tfds",
        "name": "tiny/1.0.0",
        "split": "train",
        "rows": 6,
        "order": "id",
        "size": None,
        "channels": 3,
        "splits": {"train": {"bytes": sum(len(png(x)) for x in PIXELS), "shards": lengths}},
    }


def test_other_images_under_the_same_name_are_told_apart(tmp_path):
    found = []
    for i, change in enumerate((0, 0, 1)):
        images = [png(x * (1 - change)) for x in PIXELS]
        prepare(tmp_path / str(i), images)
        found.append(open_tfds("tiny", "train", tmp_path / str(i)).describe())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("file_format", list(WRITERS))
def test_part_of_a_split_keeps_the_order(tmp_path, file_format):
    prepare_shuffled(tmp_path, shards=2, file_format=file_format)
    source = open_tfds("tiny", "train[1:4]", tmp_path)
    np.testing.assert_array_equal(source.load(np.arange(3)), PIXELS[sorted(STORED[1:4])])
    ends = open_tfds("tiny", "train[5:]+train[:1]", tmp_path)
    np.testing.assert_array_equal(ends.load(np.arange(2)), PIXELS[sorted(STORED[::5])])


@pytest.mark.parametrize("ids", [None, list("fedcba"), [f"a_{i % 3}" for i in range(6)]])
def test_other_ids_leave_the_stored_order(tmp_path, ids):
    prepare(tmp_path, [png(x) for x in PIXELS], ids=ids)
    source = open_tfds("tiny", "train", tmp_path)
    np.testing.assert_array_equal(source.load(np.arange(6)), PIXELS)
    assert source.labels is None and source.class_names is None
    assert source.describe()["order"] == "stored"


def test_numbers_order_ids_of_one_prefix_only():
    assert tfds._order([b"train_10", b"train_9", b"train_2"]).tolist() == [2, 1, 0]
    assert tfds._order(["7", "003", "5"]).tolist() == [1, 2, 0]
    for ids in ([], ["a_1", "b_0"], ["1", "01"], ["1", "x"], [""]):
        assert tfds._order(ids) is None


def test_index_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "_BLOCK", 4)
    prepare_shuffled(tmp_path)
    assert open_tfds("tiny", "train", tmp_path).labels.tolist() == LABELS


def test_hidden_labels_are_none(tmp_path):
    prepare(tmp_path, [png(x) for x in PIXELS], labels=[-1] * 6)
    source = open_tfds("tiny", "train", tmp_path)
    assert source.labels is None and source.class_names == ("ant", "bee", "cow")


def test_the_field_of_classes_may_have_another_name(tmp_path):
    images = [png(x) for x in PIXELS]
    prepare(tmp_path / "silent", images, labels=LABELS, label="species")
    folder = tmp_path / "declared"
    prepare(folder, images, labels=LABELS, label="species", supervised=("image", "species"))
    assert open_tfds("tiny", "train", tmp_path / "silent").labels is None
    for source in (
        open_tfds("tiny", "train", folder),
        open_tfds("tiny", "train", tmp_path / "silent", label="species"),
    ):
        assert source.labels.tolist() == LABELS and source.class_names == ("ant", "bee", "cow")
    for label in ("label", "image"):
        with pytest.raises(ValueError, match=rf"label: .*tiny/1.0.0, species, found '{label}'"):
            open_tfds("tiny", "train", folder, label=label)
    prepare(tmp_path / "none", images, supervised=("image", "image"))
    assert open_tfds("tiny", "train", tmp_path / "none").labels is None
    with pytest.raises(ValueError, match=r"label: .*which has none, found 'label'"):
        open_tfds("tiny", "train", tmp_path / "none", label="label")


def test_other_images_of_a_record_are_not_decoded(tmp_path):
    images = [png(x) for x in PIXELS]
    prepare(tmp_path, images, labels=LABELS, masks=[b"no image"] * 6)
    source = open_tfds("tiny", "train", tmp_path)
    assert source.labels.tolist() == LABELS
    np.testing.assert_array_equal(source.load(np.arange(6)), PIXELS)


def test_channels_may_be_chosen(tmp_path):
    prepare(tmp_path, [png(x[..., 0]) for x in PIXELS], shape=(4, 5, 1))
    source = open_tfds("tiny", "train", tmp_path, channels=3)
    np.testing.assert_array_equal(source.load(np.arange(6)), np.repeat(PIXELS[..., :1], 3, axis=3))
    assert source.describe()["channels"] == 3
    with pytest.raises(ValueError, match="channels: expected 1 or 3, found 2"):
        open_tfds("tiny", "train", tmp_path, channels=2)


def test_labels_beyond_the_classes_are_named(tmp_path):
    prepare(tmp_path, [png(x) for x in PIXELS], labels=[0, 1, 2, 3, 0, 0])
    with pytest.raises(ValueError, match=r"labels: expected labels in 0..2, found 3"):
        open_tfds("tiny", "train", tmp_path)


def test_grey_images_keep_one_channel(tmp_path):
    prepare(tmp_path, [png(x[..., 0]) for x in PIXELS], shape=(4, 5, 1))
    source = open_tfds("tiny", "train", tmp_path)
    np.testing.assert_array_equal(source.load(np.arange(6)), PIXELS[..., :1])


def test_images_of_several_sizes_need_size(tmp_path):
    images = [RNG.integers(0, 256, (8 + i, 9, 3), np.uint8) for i in range(3)]
    prepare(tmp_path, [png(x) for x in images], shape=(None, None, 3))
    with pytest.raises(ValueError, match=r"size: expected one .*\(None, None, 3\)"):
        open_tfds("tiny", "train", tmp_path)
    source = open_tfds("tiny", "train", tmp_path, size=9)
    loaded = source.load(np.arange(3))
    assert loaded.shape == (3, 9, 9, 3)
    np.testing.assert_array_equal(loaded[1], images[1])


@pytest.mark.parametrize("file_format", list(WRITERS))
def test_images_that_cannot_be_read_are_left_out_and_listed(tmp_path, file_format):
    images = [png(PIXELS[row]) for row in STORED]
    images[0] = images[0][:40]  # of row 3
    images[2] = png(PIXELS[5, :3])  # of row 5
    ids = [f"train_{row:05d}" for row in STORED]
    labels = [LABELS[row] for row in STORED]
    prepare(tmp_path, images, ids=ids, labels=labels, file_format=file_format)
    said = r"tiny/1.0.0, train: left out 2 of 6 images .*: record 0 \(train_00003\) \("
    with pytest.warns(UserWarning, match=said):
        source = open_tfds("tiny", "train", tmp_path)
    assert [name for name, _ in source.problems] == [
        "record 0 (train_00003)",
        "record 2 (train_00005)",
    ]
    assert source.problems[1][1] == "expected (4, 5) pixels, found (3, 5)"
    kept = [0, 1, 2, 4]
    assert len(source) == 4 and source.labels.tolist() == [LABELS[row] for row in kept]
    np.testing.assert_array_equal(source.load(np.arange(4)), PIXELS[kept])
    assert source.describe()["rows"] == 4 and source.describe()["order"] == "id"
    with pytest.raises(ValueError, match=r"rows: expected indices in 0..3, found 4"):
        source.load(np.array([4]))
    with pytest.raises(ValueError, match=r"name: .*found 2 of 6 in tiny/1.0.0, train that cannot"):
        open_tfds("tiny", "train", tmp_path, unreadable="raise")
    for option in ("unreadable", "check"):
        with pytest.raises(ValueError, match=f"{option}: expected one of .*found 'ignore'"):
            open_tfds("tiny", "train", tmp_path, **{option: "ignore"})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_was_left_out_tells_sources_apart(tmp_path):
    found = []
    for bad in (1, 4):
        images = [png(x) for x in PIXELS]
        images[bad] = bytes(len(images[bad]))
        prepare(tmp_path / str(bad), images + [png(PIXELS[0])] * (bad == 4))
        found.append(open_tfds("tiny", "train", tmp_path / str(bad)).describe()["left_out"])
    assert found[0] != found[1]


def test_no_readable_image_is_refused(tmp_path):
    prepare(tmp_path, [b"no image"] * 2)
    with pytest.raises(ValueError, match=r"name: .*found 2 of 2 in .*record 0 \(not an image"):
        open_tfds("tiny", "train", tmp_path)


def test_decoding_finds_damage_that_headers_do_not_show(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "PNG")
    whole = buffer.getvalue()
    # A chunk of pixels whose checksum is right, but that is no compressed stream.
    start = whole.index(b"IDAT")
    broken = b"IDAT" + bytes(40)
    broken = struct.pack(">I", 40) + broken + struct.pack(">I", zlib.crc32(broken))
    prepare(tmp_path, [whole, whole[: start - 4] + broken + whole[-12:]], shape=(64, 64, 3))
    source = open_tfds("tiny", "train", tmp_path)
    assert source.problems == ()
    with pytest.raises(ValueError, match=r"row 1 of tiny/1.0.0, train: cannot be decoded \("):
        source.load(np.array([0, 1]))
    with pytest.warns(UserWarning, match="left out 1 of 2"):
        assert len(open_tfds("tiny", "train", tmp_path, check="decode")) == 1


def test_newest_version_unless_one_is_named(tmp_path):
    for version, count in (("1.9.0", 2), ("1.10.0", 3)):
        prepare(tmp_path, [png(x) for x in PIXELS[:count]], version=version)
    (tmp_path / "tiny" / "2.0.0.incomplete").mkdir()
    (tmp_path / "tiny" / "3.0.0").mkdir()
    assert len(open_tfds("tiny", "train", tmp_path)) == 3
    assert len(open_tfds("tiny", "train", tmp_path, version="1.9.0")) == 2
    with pytest.raises(ValueError, match=r"version: expected one of 1.10.0, 1.9.0, .*'3.0.0'"):
        open_tfds("tiny", "train", tmp_path, version="3.0.0")


def test_what_is_not_prepared_is_named(tmp_path):
    command = f"tfds build tiny --data_dir={tmp_path} --file_format=array_record"
    with pytest.raises(ValueError, match=f"data_dir: expected tiny .*found no version.*{command}"):
        open_tfds("tiny", "train", tmp_path)
    prepare_shuffled(tmp_path)
    with pytest.raises(ValueError, match=r"found no version of it in \S+, but tiny beside it; to"):
        open_tfds("nosuch", "train", tmp_path)
    with pytest.raises(ValueError, match=r"split.*nowhere"):
        open_tfds("tiny", "nowhere", tmp_path)
    with pytest.raises(ValueError, match="size"):
        open_tfds("tiny", "train", tmp_path, size=0)


@pytest.mark.parametrize("file_format", list(WRITERS))
def test_damaged_files_are_named(tmp_path, file_format):
    folder = prepare_shuffled(tmp_path, file_format=file_format)
    command = f"tfds build tiny --data_dir={tmp_path} --file_format=array_record"
    record = next(folder.glob(f"*.{file_format}-*"))
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"data_dir: expected .*{command}"):
        open_tfds("tiny", "train", tmp_path)
    record.unlink()
    with pytest.raises(ValueError, match=f"data_dir: expected .*{command}"):
        open_tfds("tiny", "train", tmp_path)


def test_records_of_another_kind_are_named(tmp_path):
    folder = prepare_shuffled(tmp_path, file_format="tfrecord")
    record = next(folder.glob("*.tfrecord-*"))
    for records, reason in (([b"\xff" * 9] * 6, "record 0 is damaged"), ([b""] * 5, "5 records")):
        write_tfrecord(record, records)
        with pytest.raises(ValueError, match=f"data_dir: expected .*{reason}"):
            open_tfds("tiny", "train", tmp_path)


def test_tfrecord_is_what_is_meant_where_nothing_is_said(tmp_path):
    folder = prepare_shuffled(tmp_path, file_format="tfrecord")
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["fileFormat"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert open_tfds("tiny", "train", tmp_path).labels.tolist() == LABELS


def test_other_file_formats_are_named(tmp_path):
    folder = prepare_shuffled(tmp_path)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "riegeli"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"tfrecord files, found .*riegeli.*tfds build tiny"):
        open_tfds("tiny", "train", tmp_path)


def test_data_without_images_is_named(tmp_path):
    folder = prepare_shuffled(tmp_path)
    features = json.loads((folder / "features.json").read_text())
    fields = features["featuresDict"]["features"]
    fields["photo"] = fields.pop("image")
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(ValueError, match=r"name: .*field 'image' of 8-bit images, found .*photo"):
        open_tfds("tiny", "train", tmp_path)


@pytest.mark.parametrize("file_format", list(WRITERS))
def test_tensorflow_is_not_imported(tmp_path, file_format):
    prepare_shuffled(tmp_path, file_format=file_format)
    code = (
        "import sys, numpy as np\n"
        "from jaxal.data import open_tfds\n"
        f"images = open_tfds('tiny', 'train', {str(tmp_path)!r}).load(np.arange(6))\n"
        "print(images.shape, 'tensorflow' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "(6, 4, 5, 3) False"


@pytest.mark.slow
def test_tfrecord_files_as_tensorflow_writes_and_reads_them(tmp_path, monkeypatch):
    tf = pytest.importorskip("tensorflow")
    import tensorflow_datasets

    def write(path, records):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)

    monkeypatch.setitem(WRITERS, "tfrecord", write)
    folder = prepare_shuffled(tmp_path, shards=2, file_format="tfrecord")
    source = open_tfds("tiny", "train", tmp_path)
    read = tensorflow_datasets.builder_from_directory(folder).as_dataset(split="train")
    entries = sorted(read.as_numpy_iterator(), key=lambda entry: entry["id"])
    np.testing.assert_array_equal(
        source.load(np.arange(6)), np.stack([entry["image"] for entry in entries])
    )
    assert source.labels.tolist() == [entry["label"] for entry in entries]


def test_missing_package_is_named(tmp_path, monkeypatch):
    prepare_shuffled(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="pip install tensorflow-datasets"):
        open_tfds("tiny", "train", tmp_path)


@pytest.fixture(scope="module")
def data():
    root = os.environ.get("JAXAL_DATA")
    if not root or not (Path(root) / "tfds" / "cifar10").is_dir():
        pytest.skip("JAXAL_DATA names no folder with tfds/cifar10")
    return Path(root)


def test_cifar10(data):
    import tensorflow_datasets

    source = open_tfds("cifar10", "test", data / "tfds")
    labels = np.load(data / "features" / "cifar10_labels_test.npy")
    np.testing.assert_array_equal(source.labels, labels)
    assert source.class_names[0] == "airplane" and len(source.class_names) == 10
    direct = tensorflow_datasets.data_source(
        "cifar10", split="test", data_dir=data / "tfds", download=False
    )
    for entry in (direct[i] for i in (0, 1, 2, 9999)):
        row = int(entry["id"].decode().split("_")[1])
        np.testing.assert_array_equal(source.load(np.array([row]))[0], entry["image"])
