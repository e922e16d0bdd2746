import jax
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxal.models import layers
from jaxal.models.mobilenet import MobileNetV2
from jaxal.models.weights import import_weights

KEY = jax.random.key(0)
STAGES = ((1, 6, 1, 1), (3, 8, 2, 2), (2, 8, 1, 1), (2, 10, 2, 2))
BLOCKS = ((1, 6, 1), (3, 8, 2), (3, 8, 1), (2, 8, 1), (2, 10, 2), (2, 10, 1))


def images(n=2, size=32, seed=0):
    """Draw noise of a colour that differs from image to image, so that features do, too."""
    rng = np.random.default_rng(seed)
    x = 2 * rng.normal(size=(n, 1, 1, 3)) + rng.normal(size=(n, size, size, 3))
    return x.astype(np.float32)


def tiny(**options):
    return MobileNetV2(STAGES, stem_features=4, num_features=20, **options)


def torch_layers():
    """List torchvision's layers in order: name, normalisation, shape, stride, groups, ReLU6."""
    layers, channels = [("features.0.0", "features.0.1", (4, 3, 3), 2, 1, True)], 4
    for i, (expansion, out, stride) in enumerate(BLOCKS):
        name, hidden, place = f"features.{i + 1}.conv", channels * expansion, 0
        if expansion != 1:
            layers.append(
                (f"{name}.0.0", f"{name}.0.1", (hidden, channels, 1), 1, 1, True),
            )
            place = 1
        layers.append(
            (f"{name}.{place}.0", f"{name}.{place}.1", (hidden, 1, 3), stride, hidden, True)
        )
        layers.append((f"{name}.{place + 1}", f"{name}.{place + 2}", (out, hidden, 1), 1, 1, False))
        channels = out
    name = f"features.{len(BLOCKS) + 1}"
    return [*layers, (f"{name}.0", f"{name}.1", (20, channels, 1), 1, 1, True)]


def reference(ops, state, x, convolve):
    """Run the layers in order, adding where a block keeps its shape."""
    x = x.transpose(0, 3, 1, 2).astype(float)
    before, block = None, None
    for name, norm, shape, stride, groups, activate in torch_layers():
        if (found := name.split(".")[1]) != block:
            before, block = x, found
        x = convolve(x, name, shape[2], stride, groups)
        if f"{norm}.running_mean" in state:
            x = ops.batch_norm(x, state, norm)
        x = np.clip(x, 0, 6) if activate else x
        if not activate and before.shape == x.shape:
            x = x + before
    return x.mean((2, 3))


def test_import_agrees_with_torchvision(torch_ops, compiled):
    state = torch_ops.State()
    for name, norm, shape, *_ in torch_layers():
        state.conv(name, *shape)
        state.norm(norm, shape[0])
    state.linear("classifier.1", 10, 20)

    def convolve(x, name, size, stride, groups):
        return torch_ops.conv2d(x, state, name, stride=stride, padding=size // 2, groups=groups)

    encoder, x = tiny(), images()
    assert encoder.blocks == BLOCKS
    variables, info = import_weights(encoder, jax.eval_shape(encoder.init, KEY, x), state)
    features = compiled.apply(encoder, variables, x)
    expected = reference(torch_ops, state, x, convolve)
    assert features.shape == (2, 20) and expected.std(axis=0).mean() > 0.05
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=2e-5)
    assert info.naming == "torchvision_mobilenet_v2"
    assert {"classifier.1.weight", "classifier.1.bias"} <= set(info.ignored)


@pytest.mark.parametrize("size", [32, 35])
def test_folded_import_agrees_with_tensorflow_padding(torch_ops, size, compiled):
    state, flat = torch_ops.State(), {"spec": np.array("[]")}
    for i, (name, _, shape, *_) in enumerate(torch_layers()):
        state.conv(name, *shape, bias=True)
        flat[f"conv{i:02d}/kernel"] = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        flat[f"conv{i:02d}/bias"] = state[f"{name}.bias"]

    def convolve(x, name, size, stride, groups):
        pads = []
        for side in x.shape[2:]:
            total = max((-(-side // stride) - 1) * stride + size - side, 0)
            pads.append((total // 2, total - total // 2))
        return torch_ops.conv2d(x, state, name, stride=stride, padding=tuple(pads), groups=groups)

    encoder, x = tiny(use_batch_norm=False, same_padding=True), images(size=size)
    variables, info = import_weights(encoder, jax.eval_shape(encoder.init, KEY, x), flat)
    assert set(variables) == {"params"}
    expected = reference(torch_ops, state, x, convolve)
    features = compiled.apply(encoder, variables, x)
    assert expected.std(axis=0).mean() > 0.05
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=2e-5)
    assert (info.naming, info.ignored) == ("folded_mobilenet_v2", ("spec",))


def test_folded_weights_need_the_folded_network():
    folded = tiny(use_batch_norm=False, same_padding=True)
    params = jax.eval_shape(folded.init, KEY, images())["params"]
    flat = {"conv00/kernel": np.zeros(params["stem_conv"]["kernel"].shape, np.float32)}
    template = jax.eval_shape(tiny().init, KEY, images())
    with pytest.raises(ValueError, match=r"expected use_batch_norm=False for .*folded_mobilenet"):
        import_weights(tiny(), template, flat)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("same_padding", [False, True])
@pytest.mark.parametrize("size", [9, 12])
def test_depthwise_formulations_agree(stride, same_padding, size, compiled):
    x = np.random.default_rng(0).normal(size=(2, size, size + 1, 5)).astype(np.float32)
    conv = layers.Conv(5, stride=stride, depthwise=True, same_padding=same_padding)
    variables = compiled.init(conv, x)
    kernel = variables["params"]["kernel"]
    pads = "SAME" if same_padding else [(1, 1), (1, 1)]
    expected = layers._convolve(x, kernel, stride, pads, groups=5)
    np.testing.assert_allclose(conv.apply(variables, x), expected, rtol=1e-5, atol=1e-5)


def test_depthwise_convolutions_differentiate_both_ways(compiled):
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)
    conv = layers.Conv(3, stride=2, depthwise=True)
    variables = compiled.init(conv, x)
    check_grads(conv.apply, (variables, x), order=1, modes=["fwd", "rev"], atol=1e-2, rtol=1e-2)


@pytest.mark.slow
def test_gradients_of_the_network_are_finite_and_reach_every_parameter(compiled):
    encoder, x = MobileNetV2(((1, 4, 1, 1), (2, 4, 2, 1)), 4, 6), images(size=16)
    variables = compiled.init(encoder, x)

    def loss(params):
        features, _ = encoder.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return (features**3).sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, path
