"""Images that tensorflow-datasets prepared, read without TensorFlow."""

import dataclasses
import functools
import io
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxal.checks import check_choice, check_indices, check_positive
from jaxal.data.decoding import (
    Check,
    Unreadable,
    check_channels,
    decode_all,
    probe_image,
    report_unreadable,
    require_pillow,
)
from jaxal.data.sources import check_annotations
from jaxal.data.tfrecord import Part, RecordFiles, index_records
from jaxal.records import fingerprint

__all__ = ["TfdsSource", "open_tfds"]

# Records read at once when all are looked at: their images come along.
_BLOCK = 256


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
    """Records of one split, whose images are decoded as they are loaded; made by `open_tfds`."""

    records: Any  # a sequence of {"image": bytes, …}
    order: np.ndarray  # [n] int64, the record of each row
    labels: np.ndarray | None  # [n] int32
    class_names: tuple[str, ...] | None
    problems: tuple[tuple[str, str], ...]  # records that were left out, and why
    image_size: tuple[int, int]
    size: int | None
    channels: int
    identity: dict[str, Any]

    def __len__(self) -> int:
        return len(self.order)

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Decode images in several threads; see `ImageSource.load`."""
        rows = check_indices(rows, len(self), "rows", unique=False)
        if rows.size == 0:
            return np.empty((0, *self.image_size, self.channels), np.uint8)
        entries = self.records.__getitems__(self.order[rows].tolist())
        return decode_all(
            [io.BytesIO(entry["image"]) for entry in entries],
            (*self.image_size, self.channels),
            size=self.size,
            name=lambda i: f"row {rows[i]} of {self.identity['name']}, {self.identity['split']}",
        )

    def describe(self) -> dict[str, Any]:
        """Describe the images by the data set's name, version and size, and what was left out."""
        return self.identity


@dataclasses.dataclass(frozen=True, eq=False)
class _Examples:
    """Examples in TFRecord files, as tensorflow-datasets itself gives those in other files."""

    files: RecordFiles
    features: Any
    decoders: Any

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, rows: Sequence[int]) -> list[Any]:
        from google.protobuf.message import DecodeError

        entries = []
        for row, record in zip(rows, self.files.read(rows), strict=True):
            try:
                entry = self.features.deserialize_example_np(record, decoders=self.decoders)
            except (DecodeError, AttributeError, RuntimeError, ValueError) as error:
                raise OSError(f"record {row} is damaged") from error
            entries.append(entry)
        return entries


class _Index(NamedTuple):
    """What a look at all records found."""

    labels: np.ndarray | None  # [n] int64, None where all are hidden
    ids: list[Any]  # n of them, or none
    problems: dict[int, str]  # of the images that cannot be read, why


def open_tfds(
    name: str,
    split: str,
    data_dir: str | Path,
    *,
    version: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    label: str | None = None,
    unreadable: Unreadable = "skip",
    check: Check = "header",
) -> TfdsSource:
    """Open a data set that tensorflow-datasets prepared as array_record or TFRecord files.

    Its field ``image`` and one of classes are used; labels that are all -1, as hidden ones are,
    count as none. Preparation shuffles: where the field ``id`` numbers the images, as
    ``train_16399`` does, rows are in the order of these numbers, so that row i of a whole split
    numbered from 0 is image i, if none is left out; else they are in the order stored.

    What the source says of itself for fingerprints is the data set's name and version and how many
    bytes and records its files have, not a digest of them.

    Neither the code that prepared the data set nor TensorFlow is needed. All records are read once,
    here, for labels and numbers and to look at the images, which are decoded as they are loaded and
    not kept. Of TFRecord files, which have no index, one is made; it takes 24 bytes a record.

    Args:
      name: such as "cifar10", or "name/config".
      split: such as "train", or a part as tensorflow-datasets writes it, "train[:10%]".
      data_dir: the folder that was prepared into, which holds a folder ``name``.
      version: such as "3.0.2"; None for the newest there is.
      size: height and width to scale to, see `jaxal.data.decoding.decode_image`; None for images
        that are all of one size.
      channels: 1 or 3, whatever the data set has; None for one where it has one, else three.
      label: the field of classes; None for ``label`` or, where there is none of this name, the one
        that the data set declares for supervised learning, if any.
      unreadable: "skip" leaves out images that cannot be read, or are not of the shape that the
        data set declares where ``size`` is None, with a warning, and lists them in ``problems``;
        "raise" refuses the data set.
      check: how images are looked at, as in `open_folder`.

    Returns:
      The source.

    Raises:
      ValueError: it is not prepared there or in other files (the error says how to do it), has no
        such split or field of classes, no images of 8 bits, images of several sizes but no
        ``size``, no readable image or an unreadable one where that is refused, or damaged files; or
        a bad option.
      ImportError: Pillow or tensorflow-datasets is not installed.
    """
    if size is not None:
        check_positive(size, "size")
    if channels is not None:
        check_channels(channels)
    check_choice(unreadable, "unreadable", Unreadable)
    check_choice(check, "check", Check)
    command = f"tfds build {name} --data_dir={data_dir} --file_format=array_record"
    folder = _find_version(name, Path(data_dir), version, command)
    require_pillow()
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "reading tensorflow-datasets needs: pip install tensorflow-datasets importlib_resources"
        ) from error
    try:
        builder = tfds.builder_from_directory(folder)
        features = dict(builder.info.features.items())
        shape, found_channels = _image_shape(tfds, features, folder, size)
        field = _label_field(tfds, builder.info, label)
        # Images are decoded as they are loaded, and others, such as masks, never.
        decoders: Any = {
            key: tfds.decode.SkipDecoding()
            for key, feature in features.items()
            if isinstance(feature, tfds.features.Image)
        }
        records = _open_records(builder, split, decoders)
        if len(records) == 0:
            raise ValueError(f"split: expected images in {split}, found none")
        names = None if field is None else features[field].names
        look = functools.partial(
            _look_at, shape=shape if size is None else None, full=check == "decode"
        )
        index = _read_index(records, field, "id" in features, look)
    except NotImplementedError as error:
        raise ValueError(
            f"data_dir: expected {folder} to hold array_record or tfrecord files, found "
            f"{builder.info.file_format.value}; prepare it as such, into another folder: {command}"
        ) from error
    except (OSError, KeyError, AssertionError, RuntimeError) as error:
        raise ValueError(
            f"data_dir: expected {folder} as tensorflow-datasets prepares it, found {error!r}; "
            f"to prepare it anew: {command}"
        ) from error
    labels, names = check_annotations(index.labels, names, len(records))
    where = f"{builder.info.full_name}, {split}"
    problems = tuple((_name_record(i, index.ids), why) for i, why in index.problems.items())
    refuse = unreadable == "raise" or len(problems) == len(records)
    report_unreadable(where, "name", len(records), problems, refuse=refuse)
    numbered = _order(index.ids)
    order = np.arange(len(records)) if numbered is None else numbered
    order = order[~np.isin(order, list(index.problems))]
    channels = found_channels if channels is None else channels
    identity = {
        "kind": "tfds",
        "name": builder.info.full_name,
        "split": split,
        "rows": len(order),
        "order": "stored" if numbered is None else "id",
        "size": size,
        "channels": channels,
        # Of all splits, since `split` may be a part of one or a sum of several.
        "splits": {
            key: {"bytes": info.num_bytes, "shards": [int(n) for n in info.shard_lengths]}
            for key, info in builder.info.splits.items()
        },
    }
    if problems:
        identity["left_out"] = fingerprint(np.array(list(index.problems), np.int64))
    labels = None if labels is None else labels[order]
    return TfdsSource(records, order, labels, names, problems, shape, size, channels, identity)


def _find_version(name: str, data_dir: Path, version: str | None, command: str) -> Path:
    """Find the folder of a data set's version, by default the newest."""
    found = {
        path.name: path
        for path in (data_dir / name).glob("*/")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.name) and (path / "dataset_info.json").is_file()
    }
    if not found:
        others = sorted({path.parts[-3] for path in data_dir.glob("*/*/dataset_info.json")})
        beside = f", but {', '.join(others)} beside it" if others else ""
        raise ValueError(
            f"data_dir: expected {name} as tensorflow-datasets prepares it, found no version of it "
            f"in {data_dir / name}{beside}; to prepare it: {command}"
        )
    if version is None:
        version = max(found, key=lambda text: [int(part) for part in text.split(".")])
    if version not in found:
        raise ValueError(
            f"version: expected one of {', '.join(sorted(found))}, which {data_dir / name} holds, "
            f"found {version!r}"
        )
    return found[version]


def _image_shape(
    tfds: Any, features: Any, folder: Path, size: int | None
) -> tuple[tuple[int, int], int]:
    """Find height, width and channels of what will be loaded."""
    feature = features.get("image")
    if not isinstance(feature, tfds.features.Image) or feature.np_dtype != np.uint8:
        raise ValueError(
            f"name: expected a data set with a field 'image' of 8-bit images, found "
            f"{', '.join(features)} in {folder}"
        )
    height, width, channels = feature.shape
    if size is None and None in (height, width):
        raise ValueError(
            "size: expected one to scale to, since the images may differ, found None with images "
            f"of shape {feature.shape} in {folder}"
        )
    return (height, width) if size is None else (size, size), 1 if channels == 1 else 3


def _label_field(tfds: Any, info: Any, label: str | None) -> str | None:
    """Find the field of classes: the one asked for, ``label``, or what supervised learning uses."""
    fields = [
        key
        for key, feature in info.features.items()
        if isinstance(feature, tfds.features.ClassLabel)
    ]
    if label is None:
        declared = info.supervised_keys
        candidates = ["label", *(declared[1:2] if isinstance(declared, tuple) else ())]
        return next((key for key in candidates if key in fields), None)
    if label not in fields:
        raise ValueError(
            f"label: expected a field of classes of {info.full_name}, "
            f"{' or '.join(fields) or 'which has none'}, found {label!r}"
        )
    return label


def _open_records(builder: Any, split: str, decoders: Any) -> Any:
    """Open the records of a split, which ``__getitems__`` gives."""
    try:
        return builder.as_data_source(split=split, decoders=decoders)
    except NotImplementedError:
        if builder.info.file_format.value != "tfrecord":
            raise
    parts = [
        Part(str(x.filename), x.skip, x.take, x.examples_in_shard)
        for x in builder.info.splits[split].file_instructions
    ]
    return _Examples(index_records(parts), builder.info.features, decoders)


def _read_index(
    records: Any, label: str | None, has_id: bool, look: Callable[[bytes], str | None]
) -> _Index:
    """Read every record's label and id, and look at its image."""
    fields = ["image", *([label] if label else []), *(["id"] if has_id else [])]
    labels: list[int] = []
    ids: list[Any] = []
    looks: list[str | None] = []
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(records), _BLOCK):
            block = range(start, min(start + _BLOCK, len(records)))
            entries = records.__getitems__(list(block))
            for record, entry in zip(block, entries, strict=True):
                # What array_record gives where its file is cut short.
                if any(entry[field] is None for field in fields):
                    raise OSError(f"record {record} is empty")
                labels += [int(entry[label])] if label else []
                ids += [entry["id"]] if has_id else []
            looks += threads.map(look, [entry["image"] for entry in entries])
    found = np.array(labels, np.int64) if label else None
    hidden = found is None or (found == -1).all()
    problems = {record: why for record, why in enumerate(looks) if why is not None}
    return _Index(None if hidden else found, ids, problems)


def _look_at(image: bytes, *, shape: tuple[int, int] | None, full: bool) -> str | None:
    """Say why an image cannot be read, or is not of the shape expected, if so."""
    try:
        found = probe_image(io.BytesIO(image), full=full)
    except ValueError as error:
        return str(error)
    if shape not in (None, found):
        return f"expected {shape} pixels, found {found}"
    return None


def _name_record(record: int, ids: Sequence[Any]) -> str:
    return f"record {record}" + (f" ({_text(ids[record])})" if ids else "")


def _order(ids: Sequence[Any]) -> np.ndarray | None:
    """Sort records by the numbers that end their ids; None where these do not tell them apart."""
    parts = [re.fullmatch(r"(.*?)(\d{1,18})", _text(x), re.DOTALL) for x in ids]
    numbers = [int(part[2]) for part in parts if part]
    prefixes = {part[1] for part in parts if part}
    if not ids or len(set(numbers)) < len(ids) or len(prefixes) > 1:
        return None
    return np.argsort(np.array(numbers, np.int64), kind="stable")


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
