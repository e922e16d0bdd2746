import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxal.data import decoding
from jaxal.data.decoding import check_channels, decode_image, probe_image, require_pillow

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data, **options):
    return decode_image(io.BytesIO(data), **options)


def broken_png(pixels):
    """Encode a PNG whose compressed pixels stop halfway, with checksums that are right."""
    height, width, _ = pixels.shape

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    stream = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    chunks = ((b"IHDR", header), (b"IDAT", stream[: len(stream) // 2]), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*entry) for entry in chunks)


def test_lossless_images_are_exact(tmp_path):
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        np.testing.assert_array_equal(decoded(encoded(Image.fromarray(COLOUR), kind)), COLOUR)
    path = tmp_path / "x.png"
    Image.fromarray(COLOUR).save(path)
    np.testing.assert_array_equal(decode_image(path), COLOUR)


def test_modes_become_the_channels_asked_for():
    grey = COLOUR[..., 0]
    data = encoded(Image.fromarray(grey))
    np.testing.assert_array_equal(decoded(data, channels=1), grey[..., None])
    np.testing.assert_array_equal(decoded(data), np.repeat(grey[..., None], 3, axis=2))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    found = decoded(encoded(Image.fromarray(COLOUR)), channels=1)[..., 0]
    np.testing.assert_allclose(found, luma, atol=1)
    alpha = np.dstack([COLOUR, RNG.integers(0, 256, (6, 9), np.uint8)])
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(alpha))), COLOUR)
    bits = grey > 127
    found = decoded(encoded(Image.fromarray(bits)), channels=1)[..., 0]
    np.testing.assert_array_equal(found, 255 * bits)
    palette = Image.fromarray(grey).convert("P")
    np.testing.assert_array_equal(decoded(encoded(palette))[..., 1], grey)


def test_sixteen_bits_keep_the_upper_eight():
    wide = RNG.integers(0, 2**16, (6, 9)).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = decoded(encoded(Image.fromarray(wide), kind), channels=1)
        np.testing.assert_array_equal(found[..., 0], wide // 256)


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decoded(data, channels=1), np.full((4, 4, 1), 10))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((40, 64), 20),
        ((40, 64), 10),
        ((64, 40), 10),
        ((64, 40), 80),
        ((40, 40), 7),
        ((16, 48), 8),
        ((16, 24), 64),
    ],
)
def test_scaling_the_square_is_scaling_the_shorter_side_and_cropping(shape, size):
    # Of these sizes, all that is scaled or cropped is a whole number of pixels.
    image = Image.fromarray(RNG.integers(0, 256, (*shape, 3), np.uint8))
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - size) // 2, (height - size) // 2
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    expected = whole[top : top + size, left : left + size]
    found = decoded(encoded(image), size=size)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(int), expected, atol=1)


def test_images_of_the_size_asked_for_stay_exact():
    square = COLOUR[:, :6]
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(square)), size=6), square)


def test_thin_images_need_no_memory():
    found = decoded(encoded(Image.new("L", (20000, 1), 7)), size=64, channels=1)
    np.testing.assert_array_equal(found, np.full((64, 64, 1), 7))


def test_what_cannot_be_decoded_says_why():
    with pytest.raises(ValueError, match="not an image that Pillow can read"):
        decoded(b"no image")
    with pytest.raises(ValueError, match="not an image"):
        decoded(b"")
    jpeg = encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    with pytest.raises(ValueError, match="truncated"):
        decoded(jpeg[: len(jpeg) // 2])
    floats = Image.fromarray(np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"expected 8 or 16 bits a channel, found 32 \(mode F\)"):
        decoded(encoded(floats, "TIFF"))
    with pytest.raises(ValueError, match="No such file"):
        decode_image("nowhere/x.png")


@pytest.mark.parametrize("full", [False, True])
def test_check_gives_height_and_width(tmp_path, full):
    for kind in ("png", "jpg", "bmp", "gif", "tif", "webp"):
        path = tmp_path / f"x.{kind}"
        Image.fromarray(COLOUR).save(path)
        assert probe_image(path, full=full) == (6, 9)
        assert probe_image(io.BytesIO(path.read_bytes()), full=full) == (6, 9)


def with_thumbnail(pixels):
    """Give options that put a JPEG of the image before a JPEG's pixels, as cameras do."""
    empty_directory = b"Exif\0\0II*\0\x08\0\0\0" + bytes(6)
    return {"exif": empty_directory + encoded(Image.fromarray(pixels), "JPEG")}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what is missing
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("png", lambda pixels: {}),
        ("jpg", lambda pixels: {}),
        ("jpg", with_thumbnail),
        ("jpg", lambda pixels: {"progressive": True, **with_thumbnail(pixels)}),
        ("bmp", lambda pixels: {}),
        ("gif", lambda pixels: {}),
        ("ppm", lambda pixels: {}),
        ("tif", lambda pixels: {}),
        ("webp", lambda pixels: {"lossless": True}),
    ],
    ids=["png", "jpg", "thumbnail", "progressive", "bmp", "gif", "ppm", "tif", "webp"],
)
def test_every_truncation_is_found_by_the_cheap_check(tmp_path, kind, options):
    path = tmp_path / f"x.{kind}"
    pixels = RNG.integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options(pixels))
    whole = path.read_bytes()
    assert probe_image(path, full=False) == (24, 24)
    for size in range(0, len(whole) - 16, 37):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"\w"):
            probe_image(path, full=False)


def test_whole_jpegs_are_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "x.jpg"
    Image.fromarray(COLOUR).save(path, **with_thumbnail(COLOUR))
    monkeypatch.setattr(decoding, "decode_image", lambda path: pytest.fail("decoded"))
    assert probe_image(path, full=False) == (6, 9)


def test_jpegs_that_something_follows_are_whole(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(COLOUR).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(200_000))
    assert probe_image(path, full=False) == (6, 9)
    path.write_bytes(whole[:-40] + bytes(200_000))
    # Zeros decode to something; what matters is that the decoder is asked.
    assert probe_image(path, full=False) == (6, 9)


def test_damage_within_a_file_is_found_by_decoding(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(broken_png(COLOUR))
    assert probe_image(path, full=False) == (6, 9)
    with pytest.raises(ValueError, match="truncated"):
        probe_image(path, full=True)


def test_images_of_32_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="32"):
        probe_image(tmp_path / "x.tif", full=False)


@pytest.mark.parametrize("channels", [0, 2, 4, True, "3", None])
def test_bad_channels_are_named(channels):
    with pytest.raises(ValueError, match="channels: expected 1 or 3, found"):
        check_channels(channels)


def test_missing_pillow_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        require_pillow()
