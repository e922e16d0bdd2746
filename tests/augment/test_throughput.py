import jax
import numpy as np
import pytest

from jaxal.augment import images_per_second, weak

KEY = jax.random.key(0)


def test_more_work_is_slower():
    images = np.zeros((16, 8, 8, 3), np.float32)

    def slow(key, image):
        return jax.lax.fori_loop(0, 2000, lambda i, x: jax.numpy.sin(x), image)

    def fast(key, image):
        return image + 1

    assert 0 < images_per_second(slow, KEY, images) < images_per_second(fast, KEY, images)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"repeats: .*found 0"):
        images_per_second(weak(), KEY, np.zeros((2, 8, 8, 3)), repeats=0)
    with pytest.raises(ValueError, match="images: expected a batch"):
        images_per_second(weak(), KEY, np.zeros((8, 8, 3)))
