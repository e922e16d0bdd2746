import jax
import numpy as np

from jaxal.models.conv4 import Conv4
from jaxal.train.identity import describe_training
from jaxal.train.recipes import FT_SMALL

IMAGES = np.zeros((4, 8, 8, 3), np.uint8)


def described(seed=0, module=None, weight=1.0, images=IMAGES, config=FT_SMALL, **others):
    module = module or Conv4(num_filters=4)
    return describe_training(
        [jax.random.key(seed)],
        module,
        {"params": {"w": np.full(3, weight)}},
        images,
        config,
        **others,
    )


def test_all_that_a_training_depends_on_is_told_apart():
    found = [
        described(),
        described(seed=1),
        described(module=Conv4(num_filters=5)),
        described(weight=2.0),
        described(images=IMAGES + 1),
        described(config=FT_SMALL._replace(epochs=31)),
        described(config=FT_SMALL._replace(augment="weak")),
        described(augment=np.flip),
    ]
    assert all(found.count(description) == 1 for description in found)
    assert described() == found[0]
