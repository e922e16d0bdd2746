import io
import sys

import numpy as np
import pytest
from PIL import Image

from jaxal.data.decoding import check_channels, check_image, decode_image, require_pillow

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data, **options):
    return decode_image(io.BytesIO(data), **options)


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
    for kind in ("png", "jpg", "bmp", "gif"):
        path = tmp_path / f"x.{kind}"
        Image.fromarray(COLOUR).save(path)
        assert check_image(path, full=full) == (6, 9)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_every_truncation_is_found_by_the_cheap_check(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    Image.fromarray(RNG.integers(0, 256, (24, 24, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole) - 16, 37):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"\w"):
            check_image(path, full=False)


def test_jpegs_that_something_follows_are_whole(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(COLOUR).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(200_000))
    assert check_image(path, full=False) == (6, 9)
    path.write_bytes(whole[:-40] + bytes(200_000))
    # Zeros decode to something; what matters is that the decoder is asked.
    assert check_image(path, full=False) == (6, 9)


def test_damage_within_a_file_is_found_by_decoding(tmp_path):
    path = tmp_path / "x.bmp"
    Image.fromarray(COLOUR).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert check_image(path, full=False) == (6, 9)
    with pytest.raises(ValueError, match="truncated"):
        check_image(path, full=True)
    with pytest.raises(ValueError, match="32"):
        Image.fromarray(np.zeros((4, 4), np.int32)).save(tmp_path / "x.tif")
        check_image(tmp_path / "x.tif", full=False)


@pytest.mark.parametrize("channels", [0, 2, 4, True, "3", None])
def test_bad_channels_are_named(channels):
    with pytest.raises(ValueError, match="channels: expected 1 or 3, found"):
        check_channels(channels)


def test_missing_pillow_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        require_pillow()
