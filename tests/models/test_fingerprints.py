import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze

from jaxal.models.fingerprints import encoder_fingerprint, tree_digest
from jaxal.models.preprocess import CIFAR10, IMAGENET
from jaxal.models.resnet import ResNet
from jaxal.models.vit import ViT, quick_gelu
from jaxal.records import describe

VARIABLES = {
    "params": {"conv1": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4)}},
    "batch_stats": {"bn1": {"mean": np.zeros(4, np.float32)}},
}


def mark(name="resnet", module=None, variables=VARIABLES, preprocessing=CIFAR10):
    return encoder_fingerprint(name, module or ResNet((1,)), variables, preprocessing)


def test_equal_encoders_are_equal():
    assert mark() == mark()
    assert json.loads(json.dumps(mark())) == mark()
    assert mark(variables=jax.tree.map(jnp.asarray, VARIABLES)) == mark()
    assert mark(variables=freeze(VARIABLES)) == mark()


def test_every_weight_counts():
    for path, leaf in jax.tree.leaves_with_path(VARIABLES):
        for i in range(leaf.size):
            changed = leaf.copy()
            changed.flat[i] += 1e-3
            other = jax.tree.map_with_path(
                lambda p, x, path=path, changed=changed: changed if p == path else x, VARIABLES
            )
            assert mark(variables=other) != mark()


def test_names_shapes_and_dtypes_count():
    x = np.arange(6, dtype=np.float32)
    trees = [
        {"a": x, "b": x + 1},
        {"a": x, "c": x + 1},
        {"a": x + 1, "b": x},
        {"a": x},
        {"a": x.reshape(2, 3), "b": x + 1},
        {"a": x.astype(np.float16), "b": x + 1},
        {"a": {"b": x}},
        {},
    ]
    assert len({tree_digest(tree) for tree in trees}) == len(trees)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"module": ResNet((1,), width=32)},
        {"module": ResNet((1,), dtype=jnp.bfloat16)},
        {"module": ViT()},
        {"preprocessing": IMAGENET},
        {"preprocessing": CIFAR10._replace(size=32)},
    ],
)
def test_changes_are_noticed(change):
    assert mark(**change) != mark()


def test_functions_among_the_attributes_count():
    modules = [ViT(), ViT(activation=quick_gelu), ViT(activation=nn.relu)]
    assert len({mark(module=module)["module"] for module in modules}) == 3


def test_addresses_do_not_count():
    module = ViT(activation=functools.partial(nn.leaky_relu, negative_slope=0.2))
    found = describe(module)
    assert "negative_slope=0.2" in found and "0x" not in found
