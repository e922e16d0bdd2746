import io
import json
import os
import subprocess
import sys
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
        name = f"tiny-train.array_record-{shard:05d}-of-{shards:05d}"
        writer = array_record.ArrayRecordWriter(str(folder / name), "group_size:1")
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
            writer.write(example.SerializeToString())
        writer.close()
    info = {
        "fileFormat": "array_record",
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


@pytest.mark.parametrize("shards", [1, 3])
def test_rows_are_in_the_order_of_the_ids(tmp_path, shards):
    prepare_shuffled(tmp_path, shards=shards)
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


def test_part_of_a_split_keeps_the_order(tmp_path):
    prepare_shuffled(tmp_path)
    source = open_tfds("tiny", "train[1:4]", tmp_path)
    np.testing.assert_array_equal(source.load(np.arange(3)), PIXELS[sorted(STORED[1:4])])


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


def test_damaged_images_are_named(tmp_path):
    images = [png(x) for x in PIXELS]
    images[3] = images[3][:40]
    images[4] = png(PIXELS[4, :3])
    prepare(tmp_path, images)
    source = open_tfds("tiny", "train", tmp_path)
    with pytest.raises(ValueError, match=r"row 3 of tiny/1.0.0, train: cannot be decoded \("):
        source.load(np.array([0, 3]))
    with pytest.raises(ValueError, match=r"row 4 of .*image of 4×5 pixels, found 3×5"):
        source.load(np.array([4]))
    with pytest.raises(ValueError, match=r"rows: expected indices in 0..5, found 6"):
        source.load(np.array([6]))


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
    folder = prepare_shuffled(tmp_path)
    with pytest.raises(ValueError, match=r"split.*nowhere"):
        open_tfds("tiny", "nowhere", tmp_path)
    with pytest.raises(ValueError, match="size"):
        open_tfds("tiny", "train", tmp_path, size=0)
    record = next(folder.glob("*.array_record-*"))
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"data_dir: expected .*{command}"):
        open_tfds("tiny", "train", tmp_path)
    record.unlink()
    with pytest.raises(ValueError, match=f"data_dir: expected .*{command}"):
        open_tfds("tiny", "train", tmp_path)


def test_other_file_formats_are_named(tmp_path):
    folder = prepare_shuffled(tmp_path)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"array_record files, found .*tfrecord.*tfds build tiny"):
        open_tfds("tiny", "train", tmp_path)


def test_data_without_images_is_named(tmp_path):
    folder = prepare_shuffled(tmp_path)
    features = json.loads((folder / "features.json").read_text())
    fields = features["featuresDict"]["features"]
    fields["photo"] = fields.pop("image")
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(ValueError, match=r"name: .*field 'image' of 8-bit images, found .*photo"):
        open_tfds("tiny", "train", tmp_path)


def test_tensorflow_is_not_imported(tmp_path):
    prepare_shuffled(tmp_path)
    code = (
        "import sys, numpy as np\n"
        "from jaxal.data import open_tfds\n"
        f"images = open_tfds('tiny', 'train', {str(tmp_path)!r}).load(np.arange(6))\n"
        "print(images.shape, 'tensorflow' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "(6, 4, 5, 3) False"


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
