"""Images in folders, one sub-folder a class."""

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

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

__all__ = ["EXTENSIONS", "FolderSource", "open_folder"]

EXTENSIONS = (
    ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip

# Files that are looked at before the next ones are handed to the threads.
_BLOCK = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files, decoded as they are loaded; made by `open_folder`."""

    root: Path
    files: tuple[str, ...]  # n paths below the root
    labels: np.ndarray | None  # [n] int32, None without sub-folders
    class_names: tuple[str, ...] | None
    problems: tuple[tuple[str, str], ...]  # files that were left out, and why
    image_size: tuple[int, int]  # height and width of what is loaded
    size: int | None
    channels: int
    digest: str  # of the files' names and lengths

    def __len__(self) -> int:
        return len(self.files)

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Decode images in several threads; see `ImageSource.load`."""
        rows = check_indices(rows, len(self), "rows", unique=False)
        paths = [self.root / self.files[row] for row in rows]
        shape = (*self.image_size, self.channels)
        return decode_all(paths, shape, size=self.size, name=lambda i: str(paths[i]))

    def describe(self) -> dict[str, Any]:
        """Describe the images by the names and lengths of their files, and how they are decoded.

        A file replaced by another of the very same name and length is not noticed.
        """
        return {
            "kind": "folder",
            "files": {"number": len(self), "sha256": self.digest},
            "size": self.size,
            "channels": self.channels,
        }


def open_folder(
    path: str | Path,
    *,
    size: int | None = None,
    channels: int = 3,
    class_names: Sequence[str] | None = None,
    unreadable: Unreadable = "skip",
    check: Check = "header",
) -> FolderSource:
    """Open a folder of image files, one sub-folder a class, or of one unlabelled pool.

    Classes are the sub-folders, by default in the order of their names; what lies in folders within
    them belongs to them. A folder that has images but no sub-folders with any is a pool without
    labels. Files are ordered by class and path. Hidden files and folders, and files of other
    extensions than `EXTENSIONS` (upper or lower case), are passed over.

    Every file is looked at, in several threads. See `jaxal.data.decoding.decode_image` for how
    images of all kinds become equal ones.

    Args:
      path: the folder.
      size: height and width that images are scaled to, their central square being kept; None for
        images that are all of one size, which are left as they are.
      channels: 3, or 1 for grey.
      class_names: all classes in the order of their labels, sub-folder or not, such as those of the
        training images for a folder of test images that may lack one; None for the sub-folders.
      unreadable: "skip" leaves out files that cannot be read, with a warning, and lists them in
        ``problems``; "raise" refuses the folder.
      check: "header" finds files that are no images, damaged PNGs and JPEGs that are cut short
        without decoding them, and decodes other formats; "decode" decodes every image and finds
        all, for the time that loading all of them takes.

    Returns:
      The source. With warnings, where a class has no image or one only.

    Raises:
      ValueError: no folder, one within it that cannot be listed, no readable images, images both in
        sub-folders and beside them, in a sub-folder that ``class_names`` lacks, or of several sizes
        but no ``size``, an unreadable one where that is refused, or a bad option.
      ImportError: Pillow is not installed.
    """
    check_channels(channels)
    if size is not None:
        check_positive(size, "size")
    check_choice(unreadable, "unreadable", Unreadable)
    check_choice(check, "check", Check)
    _, names = check_annotations(None, class_names, 0)
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"path: expected a folder of images, found none at {root}")
    require_pillow()
    names, files, labels = _list_images(root, names)
    found = _look_at(root, files, full=check == "decode")
    good = [i for i, outcome in enumerate(found) if not isinstance(outcome, str)]
    problems = tuple(
        (str(root / files[i]), outcome)
        for i, outcome in enumerate(found)
        if isinstance(outcome, str)
    )
    refuse = unreadable == "raise" or not good
    report_unreadable(str(root), "path", len(files), problems, refuse=refuse)
    files, looks = [files[i] for i in good], [found[i] for i in good]
    if names is not None and labels is not None:
        labels = [labels[i] for i in good]
        _warn_of_small_classes(root, names, labels)
    return FolderSource(
        root,
        tuple(files),
        None if labels is None else np.array(labels, np.int32),
        names,
        problems,
        (size, size) if size is not None else _common_size(files, looks),
        size,
        channels,
        _digest(files, looks),
    )


def _list_images(
    root: Path, names: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, list[str], list[int] | None]:
    """List class names, files below the root and each one's class, None without sub-folders."""
    folders = sorted(x.name for x in root.iterdir() if x.is_dir() and not _is_hidden(x.name))
    beside = sorted(x.name for x in root.iterdir() if _is_image(x.name) and x.is_file())
    members = {folder: sorted(_walk(root, folder)) for folder in folders}
    classes = tuple(folders) if names is None else names
    unknown = [folder for folder in folders if members[folder] and folder not in classes]
    if unknown:
        raise ValueError(
            f"class_names: expected all sub-folders of {root} that have images, found none for "
            + ", ".join(unknown)
        )
    files = [file for name in classes for file in members.get(name, ())]
    labels = [label for label, name in enumerate(classes) for _ in members.get(name, ())]
    if beside and files:
        raise ValueError(
            f"path: expected images in sub-folders, one a class, or else in the folder itself, "
            f"found both in {root}, {beside[0]} and {files[0]}"
        )
    if beside:
        return names, beside, None
    if not files:
        raise ValueError(
            f"path: expected images ({', '.join(EXTENSIONS)}), found none in {root} "
            f"and its {len(folders)} sub-folders"
        )
    return classes, files, labels


def _walk(root: Path, folder: str) -> list[str]:
    def refuse(error: OSError) -> NoReturn:
        raise ValueError(
            f"path: expected folders that can be listed, found {error.filename} ({error.strerror})"
        ) from error

    members = []
    for parent, children, names in os.walk(root / folder, onerror=refuse):
        children[:] = [name for name in children if not _is_hidden(name)]
        below = Path(parent).relative_to(root)
        members += [(below / name).as_posix() for name in names if _is_image(name)]
    return members


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not _is_hidden(name)


def _look_at(root: Path, files: Sequence[str], *, full: bool) -> list[Any]:
    """Give each file's height, width and length in bytes, or the reason why it cannot be read."""

    def look(file: str) -> tuple[int, int, int] | str:
        path = root / file
        try:
            return (*probe_image(path, full=full), path.stat().st_size)
        except (ValueError, OSError) as error:
            return str(error)

    found: list[Any] = []
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(files), _BLOCK):
            found += threads.map(look, files[start : start + _BLOCK])
    return found


def _warn_of_small_classes(root: Path, class_names: Sequence[str], labels: list[int]) -> None:
    counts = np.bincount(np.array(labels, np.int64), minlength=len(class_names))
    for count, words in ((0, "no image"), (1, "one image only")):
        small = [name for name, found in zip(class_names, counts, strict=True) if found == count]
        if small:
            shown = ", ".join(small[:10]) + (", …" if len(small) > 10 else "")
            warnings.warn(f"{root}: {words} in {len(small)} classes: {shown}", stacklevel=3)


def _common_size(files: Sequence[str], looks: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    size = looks[0][:2]
    for file, (height, width, _) in zip(files, looks, strict=True):
        if (height, width) != size:
            raise ValueError(
                "size: expected one to scale to, since the images differ, found None with "
                f"{files[0]} of {_times(size)} and {file} of {_times((height, width))} pixels"
            )
    return size


def _digest(files: Sequence[str], looks: Sequence[tuple[int, int, int]]) -> str:
    digest = hashlib.sha256()
    for file, (_, _, length) in zip(files, looks, strict=True):
        digest.update(f"{file}\0{length}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _times(size: Sequence[int]) -> str:
    return "×".join(str(number) for number in size)
