import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.heads import DenseHead
from jaxal.models.naming import NAMINGS
from jaxal.models.resnet import ResNet
from jaxal.models.weights import import_weights

KEY = jax.random.key(0)
ENCODER = ResNet((1,), width=4, stem="cifar")
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
TEMPLATE = jax.eval_shape(ENCODER.init, KEY, IMAGES)


@pytest.fixture
def state(torch_ops):
    state = torch_ops.State()
    for name, channels in [("", 3), ("layer1.0.", 4), ("layer1.0.", 4)]:
        number = 2 if f"{name}conv1.weight" in state else 1
        state.conv(f"{name}conv{number}", 4, channels, 3)
        state.norm(f"{name}bn{number}", 4)
    return dict(state)


@jax.jit
def run(variables):
    return ENCODER.apply(variables, IMAGES)


# What the authors' code saves around the encoder, and what belongs to something else.
SOURCES = {
    "module.encoder.": ["module.encoder.fc.0.weight", "module.predictor.0.weight"],
    "module.encoder_q.": ["module.encoder_q.fc.2.bias", "module.queue", "module.queue_ptr"],
    "module.online_net.backbone.": [
        "module.online_net.neck.mlp.0.weight",
        "module.predictor.mlp.0.weight",
    ],
    "module.main.backbone.": ["module.main.fc.weight"],
    "module.base_encoder.": ["module.base_encoder.fc.0.weight", "module.predictor.0.weight"],
    "backbone.": ["head.mlp.0.weight", "head.last_layer.weight_g"],
    "module.": ["module.fc.bias"],
    "": ["fc.weight"],
}
COPIES = {
    "module.encoder_q.": "module.encoder_k.",
    "module.online_net.backbone.": "module.target_net.backbone.",
    "module.main.backbone.": "module.ema.backbone.",
    "module.base_encoder.": "module.momentum_encoder.",
}


@pytest.mark.parametrize("prefix", SOURCES)
def test_prefixes_of_published_checkpoints(state, prefix):
    others = {name: np.zeros(3) for name in SOURCES[prefix]}
    copy = COPIES.get(prefix)
    if copy:
        # First in the file, as in none of them, and other weights, so that a mix-up is seen.
        others |= {copy + name: np.ones_like(array) for name, array in state.items()}
    flat = others | {prefix + name: array for name, array in state.items()}
    variables, info = import_weights(ENCODER, TEMPLATE, flat)
    expected = run(import_weights(ENCODER, TEMPLATE, state)[0])
    np.testing.assert_array_equal(run(variables), expected)
    assert info.prefix == prefix
    assert set(info.imported) | set(info.ignored) | set(info.outside) == set(flat)
    assert not info.missing and not info.unexpected
    if copy:
        other, info = import_weights(ENCODER, TEMPLATE, flat, prefix=copy)
        assert info.prefix == copy
        assert np.abs(run(other) - expected).max() > 0.1


def test_half_precision_is_widened(state):
    low = {name: array.astype(np.dtype(jnp.bfloat16)) for name, array in state.items()}
    variables, _ = import_weights(ENCODER, TEMPLATE, low)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    exact = {name: array.astype(np.float32) for name, array in low.items()}
    expected, _ = import_weights(ENCODER, TEMPLATE, exact)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_one_error_lists_all_that_does_not_fit(state):
    del state["bn1.running_mean"]
    for i in range(7):
        state[f"layer9.{i}.weight"] = np.zeros(2)
    state["conv1.weight"] = np.zeros((4, 3, 7, 7), np.float32)
    with pytest.raises(ValueError) as caught:
        import_weights(ENCODER, TEMPLATE, state)
    message = str(caught.value)
    assert "weights of ResNet under the names of torchvision_resnet with prefix ''" in message
    assert "1 missing: bn1.running_mean;" in message
    assert "7 unexpected: layer9.0.weight, " in message and "layer9.4.weight and 2 more" in message
    assert "1 wrongly shaped: conv1.weight (expected (4, 3, 3, 3), found (4, 3, 7, 7))" in message


def test_lenient_import_keeps_the_templates_values(state, compiled):
    del state["bn1.weight"]
    state["more"] = np.zeros(2)
    with pytest.raises(ValueError, match=r"1 missing: bn1.weight; 1 unexpected: more"):
        import_weights(ENCODER, TEMPLATE, state)
    start = compiled.init(ENCODER, IMAGES)
    variables, info = import_weights(ENCODER, start, state, strict=False)
    assert (info.missing, info.unexpected) == (("bn1.weight",), ("more",))
    np.testing.assert_array_equal(variables["params"]["bn1"]["scale"], 1)
    np.testing.assert_array_equal(variables["params"]["bn1"]["bias"], state["bn1.bias"])
    with pytest.raises(ValueError, match=r"template: expected values for .*bn1.weight"):
        import_weights(ENCODER, TEMPLATE, state, strict=False)
    state["bn1.bias"] = np.zeros(5, np.float32)
    with pytest.raises(ValueError, match=r"1 wrongly shaped: bn1.bias"):
        import_weights(ENCODER, start, state, strict=False)


def test_transposed_kernels_are_not_mistaken(state):
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"].transpose(2, 3, 1, 0)
    with pytest.raises(ValueError, match=r"expected \(4, 4, 3, 3\), found \(3, 3, 4, 4\)"):
        import_weights(ENCODER, TEMPLATE, state)


def test_files_of_something_else(state):
    with pytest.raises(ValueError, match=r"such as '.*' \(torchvision_resnet\), found none.* 2: a"):
        import_weights(ENCODER, TEMPLATE, {"a": np.zeros(1), "b": np.zeros(1)})
    with pytest.raises(ValueError, match=r"found none among its 18: conv1.weight"):
        import_weights(ENCODER, TEMPLATE, state, prefix="model.")
    state["bn1.bias"] = np.array([0, np.nan, 0, 0], np.float32)
    with pytest.raises(ValueError, match=r"flat\['bn1.bias'\]: expected finite"):
        import_weights(ENCODER, TEMPLATE, state)


def test_wrong_arguments(state):
    with pytest.raises(ValueError, match=r"naming: expected one of torchvision_resnet, .*'keras'"):
        import_weights(ENCODER, TEMPLATE, state, naming="keras")
    with pytest.raises(ValueError, match=r"encoder: expected an encoder of timm_vit, found ResNet"):
        import_weights(ENCODER, TEMPLATE, state, naming="timm_vit")
    with pytest.raises(ValueError, match=r"encoder: expected an encoder that NAMINGS knows"):
        import_weights(DenseHead((), 2), TEMPLATE, state)
    with pytest.raises(ValueError, match=r"template: expected params and batch_stats, found"):
        import_weights(ENCODER, TEMPLATE["params"], state)


def test_a_naming_of_ones_own(state):
    naming = NAMINGS["torchvision_resnet"]._replace(prefixes=("net/",))
    flat = {f"net/{name}": array for name, array in state.items()}
    variables, info = import_weights(ENCODER, TEMPLATE, flat, naming=naming)
    expected, _ = import_weights(ENCODER, TEMPLATE, state, naming="torchvision_resnet")
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    assert (info.naming, info.prefix) == ("", "net/")
