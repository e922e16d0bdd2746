"""Images that every augmentation is compared with PIL on."""

import numpy as np
import pytest


def _natural(rng, height, width):
    """Draw soft gradients, a hard edge and a little noise."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(7 * x + 3 * c) * np.cos(5 * y - c) for c in range(3)]
    image = 128 + 90 * np.stack(waves, axis=2)
    image[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 90)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def _pictures():
    rng = np.random.default_rng(0)
    # Few shapes, since each compiles every operation anew.
    return {
        "random": rng.integers(0, 256, (24, 24, 3), np.uint8),
        "dark": rng.integers(0, 6, (24, 24, 3), np.uint8),
        "black and white": 255 * rng.integers(0, 2, (24, 24, 3), np.uint8),
        "constant": np.full((24, 24, 3), (17, 200, 99), np.uint8),
        "one odd pixel": np.where(np.arange(576).reshape(24, 24, 1) == 30, 90, 91).astype(np.uint8)
        * np.ones(3, np.uint8),
        "natural": _natural(rng, 17, 40),
        "tiny": rng.integers(0, 256, (2, 3, 3), np.uint8),
        "pixel": rng.integers(0, 256, (1, 1, 3), np.uint8),
    }


PICTURES = _pictures()


@pytest.fixture(params=PICTURES, ids=lambda name: name.replace(" ", "_"))
def picture(request):
    """One of several uint8 images ``[h, w, 3]``."""
    return PICTURES[request.param]


@pytest.fixture
def photo():
    """A uint8 image ``[17, 40, 3]`` like a photograph."""
    return PICTURES["natural"]
