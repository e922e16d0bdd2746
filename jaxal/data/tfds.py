"""Images that tensorflow-datasets prepared, read without TensorFlow."""

import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxal.checks import check_indices, check_positive
from jaxal.data.decoding import check_channels, decode_all, require_pillow
from jaxal.data.sources import ImageSource, check_annotations

__all__ = ["open_tfds"]

# Records read at once when labels are collected: their images come along.
_BLOCK = 256


@dataclasses.dataclass(frozen=True, eq=False)
class _Tfds:
    """Records of one split, whose images are decoded as they are loaded."""

    records: Any  # a sequence of {"image": bytes, …}
    order: np.ndarray  # [n] int64, the record of each row
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    image_size: tuple[int, int]
    size: int | None
    channels: int
    identity: dict[str, Any]

    def __len__(self) -> int:
        return len(self.order)

    def load(self, rows: np.ndarray) -> np.ndarray:
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
        return self.identity


def open_tfds(
    name: str,
    split: str,
    data_dir: str | Path,
    *,
    version: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    label: str | None = None,
) -> ImageSource:
    """Open a data set that tensorflow-datasets prepared as array_record files.

    Its field ``image`` and one of classes are used; labels that are all -1, as hidden ones are,
    count as none. Preparation shuffles: where the field ``id`` numbers the images, as
    ``train_16399`` does, rows are in the order of these numbers, so that row i of a whole split
    numbered from 0 is image i; else they are in the order stored.

    What the source says of itself for fingerprints is the data set's name and version and how many
    bytes and records its files have, not a digest of them.

    Neither the code that prepared the data set nor TensorFlow is needed. To collect labels and
    numbers, all records are read once, here; images are decoded as they are loaded.

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

    Returns:
      The source.

    Raises:
      ValueError: it is not prepared there or not as array_record (the error says how to do it), has
        no such split or field of classes, no images of 8 bits, images of several sizes but no
        ``size``, or is damaged; or a bad option.
      ImportError: Pillow or tensorflow-datasets is not installed.
    """
    if size is not None:
        check_positive(size, "size")
    if channels is not None:
        check_channels(channels)
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
        records = builder.as_data_source(split=split, decoders=decoders)
        if len(records) == 0:
            raise ValueError(f"split: expected images in {split}, found none")
        names = None if field is None else features[field].names
        labels, order = _read_index(records, field, "id" in features)
    except NotImplementedError as error:
        raise ValueError(
            f"data_dir: expected {folder} to hold array_record files, found "
            f"{builder.info.file_format.value}; prepare it as such, into another folder: {command}"
        ) from error
    except (OSError, KeyError, AssertionError, RuntimeError) as error:
        raise ValueError(
            f"data_dir: expected {folder} as tensorflow-datasets prepares it, found {error!r}; "
            f"to prepare it anew: {command}"
        ) from error
    labels, names = check_annotations(labels, names, len(records))
    channels = found_channels if channels is None else channels
    identity = {
        "kind": "tfds",
        "name": builder.info.full_name,
        "split": split,
        "rows": len(records),
        "order": "stored" if order is None else "id",
        "size": size,
        "channels": channels,
        # Of all splits, since `split` may be a part of one or a sum of several.
        "splits": {
            key: {"bytes": info.num_bytes, "shards": [int(n) for n in info.shard_lengths]}
            for key, info in builder.info.splits.items()
        },
    }
    order = np.arange(len(records)) if order is None else order
    labels = None if labels is None else labels[order]
    return _Tfds(records, order, labels, names, shape, size, channels, identity)


def _find_version(name: str, data_dir: Path, version: str | None, command: str) -> Path:
    """Find the folder of a data set's version, by default the newest."""
    found = {
        path.name: path
        for path in (data_dir / name).glob("*/")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.name) and (path / "dataset_info.json").is_file()
    }
    if not found:
        raise ValueError(
            f"data_dir: expected {name} as tensorflow-datasets prepares it, found no version of it "
            f"in {data_dir / name}; to prepare it: {command}"
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


def _read_index(
    records: Any, label: str | None, has_id: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Read every record's label, None if all are hidden; and the order of their ids, if any."""
    labels: list[int] = []
    ids: list[Any] = []
    if label is not None or has_id:
        for start in range(0, len(records), _BLOCK):
            block = range(start, min(start + _BLOCK, len(records)))
            for record, entry in zip(block, records.__getitems__(list(block)), strict=True):
                # What array_record gives where its file is cut short.
                if (label and entry[label] is None) or (has_id and entry["id"] is None):
                    raise OSError(f"record {record} is empty")
                labels += [int(entry[label])] if label else []
                ids += [entry["id"]] if has_id else []
    found = np.array(labels, np.int64) if label else None
    return None if found is None or (found == -1).all() else found, _order(ids)


def _order(ids: Sequence[Any]) -> np.ndarray | None:
    """Sort records by the numbers that end their ids; None where these do not tell them apart."""
    texts = [x.decode("utf-8", "replace") if isinstance(x, bytes) else str(x) for x in ids]
    parts = [re.fullmatch(r"(.*?)(\d{1,18})", text, re.DOTALL) for text in texts]
    numbers = [int(part[2]) for part in parts if part]
    prefixes = {part[1] for part in parts if part}
    if not ids or len(set(numbers)) < len(ids) or len(prefixes) > 1:
        return None
    return np.argsort(np.array(numbers, np.int64), kind="stable")
