"""Decode image files to uint8 arrays of one size, and find those that cannot be decoded."""

import contextlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

__all__ = [
    "Check",
    "Unreadable",
    "check_channels",
    "decode_all",
    "decode_image",
    "probe_image",
    "report_unreadable",
    "require_pillow",
]

Unreadable = Literal["skip", "raise"]
Check = Literal["header", "decode"]

# How far from its end a JPEG file is searched for the marker that ends the image.
_TAIL_BYTES = 1 << 16
_JPEG_SCAN = b"\xff\xda"
_JPEG_END = b"\xff\xd9"
# Phones write MPO: a JPEG that others may follow.
_JPEG_FORMATS = ("JPEG", "MPO")


def require_pillow() -> Any:
    """Import `PIL.Image`.

    Raises:
      ImportError: Pillow is not installed; the error says how to install it.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading image files needs Pillow: pip install pillow") from error
    return Image


def check_channels(channels: int) -> int:
    """Check a number of channels.

    Raises:
      ValueError: neither 1 nor 3.
    """
    if channels not in (1, 3) or isinstance(channels, bool):
        raise ValueError(f"channels: expected 1 or 3, found {channels!r}")
    return int(channels)


def decode_image(
    file: str | Path | BinaryIO, *, size: int | None = None, channels: int = 3
) -> np.ndarray:
    """Decode one image with Pillow.

    Colours become grey, or grey three channels, as asked for. Transparency is dropped, 16-bit grey
    is cut to its upper 8 bits, of an animation the first frame is taken, and the orientation that a
    camera notes beside the pixels is not applied.

    With ``size``, the square in the middle of the image is scaled to it (bilinear, antialiased):
    what scaling the shorter side and cropping the centre gives, but for rounding to whole pixels.

    Args:
      file: a path or an open binary file.
      size: height and width to scale to; None leaves the image as it is.
      channels: 1 or 3.

    Returns:
      ``[h, w, channels]`` uint8.

    Raises:
      ValueError: it cannot be decoded; the error says why and names no file.
      ImportError: Pillow is not installed.
    """
    pillow = require_pillow()
    try:
        with pillow.open(file) as image:
            _check_mode(image)
            if image.mode.startswith("I;16"):
                image = pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            mode = "RGB" if channels == 3 else "L"
            if image.mode != mode:
                image = image.convert(mode)
            if size is not None:
                image = _central_square(image, size)
            pixels = np.asarray(image)
    # What decoders raise for damaged files is not one family: OSError, SyntaxError, struct.error …
    except Exception as error:
        raise ValueError(_reason(error)) from error
    return pixels if channels == 3 else pixels[..., None]


def decode_all(
    files: Sequence[str | Path | BinaryIO],
    shape: tuple[int, int, int],
    *,
    size: int | None,
    name: Callable[[int], str],
) -> np.ndarray:
    """Decode images of one size in several threads.

    Args:
      files: ``k`` of them, none or more; see `decode_image`.
      shape: height, width and channels that all have to have.
      size: height and width to scale to, or None.
      name: gives the name of file i for errors.

    Returns:
      ``[k, *shape]`` uint8.

    Raises:
      ValueError: an image cannot be decoded or has another shape; the error names it.
    """
    images = np.empty((len(files), *shape), np.uint8)
    # A small image takes less time than handing it to a thread on its own.
    block = max(1, len(files) // (4 * (os.cpu_count() or 1)))

    def decode(start: int) -> None:
        for i in range(start, min(start + block, len(files))):
            try:
                image = decode_image(files[i], size=size, channels=shape[2])
            except ValueError as error:
                raise ValueError(f"{name(i)}: cannot be decoded ({error})") from error
            if image.shape != shape:
                raise ValueError(
                    f"{name(i)}: expected an image of {shape[0]}×{shape[1]} pixels, "
                    f"found {image.shape[0]}×{image.shape[1]}"
                )
            images[i] = image

    with ThreadPoolExecutor() as threads:
        # Nothing but an error comes of these results.
        list(threads.map(decode, range(0, len(files), block)))
    return images


def probe_image(file: str | Path | BinaryIO, *, full: bool) -> tuple[int, int]:
    """Find out whether an image file can be read.

    Without ``full`` the checksums of PNG files are compared and the last scan of JPEG files must be
    followed by the marker that ends it; only where it is not is the file decoded to be sure. That
    finds what is cut short in these two formats. Others have no such marks and are decoded.

    Args:
      file: a path or an open binary file.
      full: decode all of it.

    Returns:
      Height and width.

    Raises:
      ValueError: it cannot be read; the error says why and names no file.
      ImportError: Pillow is not installed.
    """
    pillow = require_pillow()
    try:
        with pillow.open(file) as image:
            _check_mode(image)
            width, height = image.size
            if image.format in _JPEG_FORMATS:
                full = full or not _is_ended(file)
            elif image.format != "PNG":
                full = True
            if not full:
                image.verify()
    except Exception as error:
        raise ValueError(_reason(error)) from error
    if full:
        decode_image(file)
    return height, width


def report_unreadable(
    where: str, argument: str, number: int, problems: Sequence[tuple[str, str]], *, refuse: bool
) -> None:
    """Warn of images that cannot be read, if there are any, or refuse them.

    Args:
      where: names what the images are of.
      argument: names the argument that said so.
      number: how many were looked at.
      problems: names of images, and why they cannot be read.
      refuse: raise in place of a warning.

    Raises:
      ValueError: there are some, and they are refused.
    """
    if not problems:
        return
    shown = "; ".join(f"{name} ({reason})" for name, reason in problems[:3])
    shown += "; …" if len(problems) > 3 else ""
    if refuse:
        raise ValueError(
            f"{argument}: expected images that can be read, found {len(problems)} of {number} in "
            f"{where} that cannot: {shown}"
        )
    warnings.warn(
        f"{where}: left out {len(problems)} of {number} images that cannot be read, listed in "
        f"problems: {shown}",
        stacklevel=3,
    )


def _check_mode(image: Any) -> None:
    if image.mode in ("I", "F"):
        raise ValueError(f"expected 8 or 16 bits a channel, found 32 (mode {image.mode})")


def _central_square(image: Any, size: int) -> Any:
    from PIL.Image import Resampling

    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Resampling.BILINEAR, box=box)


def _is_ended(file: str | Path | BinaryIO) -> bool:
    # Neither marker can occur within compressed pixels, but other data may follow them, and a
    # thumbnail before the image has both.
    opened = Path(file).open("rb") if isinstance(file, str | Path) else contextlib.nullcontext(file)
    with opened as stream:
        length = stream.seek(0, 2)
        stream.seek(max(0, length - _TAIL_BYTES))
        tail = stream.read()
    return tail.rfind(_JPEG_END) > tail.rfind(_JPEG_SCAN)


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        # Pillow's text is the file's name once more.
        return "not an image that Pillow can read"
    return str(error) or type(error).__name__
