import jax
import jax.numpy as jnp
import pytest

from jaxal.models.encoders import ENCODERS, get_encoder

# Of the published networks without their classifiers.
PARAMETERS = {
    "conv4": 113_088,
    "resnet18_cifar": 11_168_832,
    "resnet18": 11_176_512,
    "resnet50": 23_508_032,
    "mobilenet_v2": 2_223_872,
    "vit_s16": 21_665_664,
    "vit_b16": 85_798_656,
    "clip_vit_b32": 87_849_216,
    "clip_vit_b16": 86_192_640,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_is_of_the_published_size(name):
    encoder, spec = get_encoder(name), ENCODERS[name]
    size = spec.preprocessing.size or 32
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    features, variables = jax.eval_shape(encoder.init_with_output, jax.random.key(0), x)
    assert features.shape == (2, encoder.num_features) == (2, spec.num_features)
    assert features.dtype == jnp.float32
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == PARAMETERS.get(name, count)
    assert spec.description


@pytest.mark.parametrize("name", ENCODERS)
def test_another_number_of_channels_is_named(name):
    encoder = get_encoder(name)
    size = ENCODERS[name].preprocessing.size or 32
    shape = (1, size, size, 3)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, "f4"))
    for channels in (1, 4):
        x = jax.ShapeDtypeStruct((1, size, size, channels), "f4")
        with pytest.raises(ValueError, match=rf"images: expected 3 channels.*{channels}\)"):
            jax.eval_shape(encoder.apply, variables, x)


def test_overrides_change_attributes():
    encoder = get_encoder("wrn_28_8", depth=10, dtype=jnp.bfloat16)
    assert (encoder.width, encoder.depth, encoder.dtype) == (8, 10, jnp.bfloat16)
    assert get_encoder("resnet50", width=4).num_features == 128
    assert hash(get_encoder("mobilenet_v2")) == hash(get_encoder("mobilenet_v2"))


def test_wrong_names():
    with pytest.raises(ValueError, match=r"name: expected one of conv4, .*found 'resnet34'"):
        get_encoder("resnet34")
    with pytest.raises(ValueError, match=r"widths: expected an attribute of vit_s16, .*width"):
        get_encoder("vit_s16", widths=3)
    with pytest.raises(ValueError, match=r"parent: expected an attribute"):
        get_encoder("vit_s16", parent=None)
