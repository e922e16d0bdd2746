import jax
import numpy as np
import pytest

from jaxal.models.naming import NAMINGS
from jaxal.models.weights import import_weights
from jaxal.models.wide_resnet import WideResNet

KEY = jax.random.key(0)


def images(n=3, size=16, seed=0):
    """Draw noise of a colour that differs from image to image, so that features do, too."""
    rng = np.random.default_rng(seed)
    x = 2 * rng.normal(size=(n, 1, 1, 3)) + rng.normal(size=(n, size, size, 3))
    return x.astype(np.float32)


def state_dict(ops, depth, width, base):
    """Names and shapes of TorchSSL's WideResNet."""
    state, channels = ops.State(), base
    state.conv("conv1", base, 3, 3, bias=True)
    for group in range(3):
        out = base * width * 2**group
        for i in range((depth - 4) // 6):
            name = f"block{group + 1}.layer.{i}"
            state.norm(f"{name}.bn1", channels)
            state.conv(f"{name}.conv1", out, channels, 3, bias=True)
            state.norm(f"{name}.bn2", out)
            state.conv(f"{name}.conv2", out, out, 3, bias=True)
            if channels != out:
                state.conv(f"{name}.convShortcut", out, channels, 1, bias=True)
            channels = out
    state.norm("bn1", channels)
    state.linear("fc", 10, channels)
    return state


def reference(ops, state, x, depth, activate_transitions):
    """TorchSSL's forward pass, up to the classifier; FixMatch's where transitions are activated."""

    def activated(x, name):
        y = ops.batch_norm(x, state, name, 1e-3)
        return np.where(y > 0, y, 0.1 * y)

    x = ops.conv2d(x.transpose(0, 3, 1, 2).astype(float), state, "conv1", padding=1)
    for group in range(3):
        for i in range((depth - 4) // 6):
            name = f"block{group + 1}.layer.{i}"
            y = activated(x, f"{name}.bn1")
            if i == 0 and group == 0:
                x = y
            elif i == 0 and not activate_transitions:
                y = x
            stride = 2 if i == 0 and group > 0 else 1
            y = ops.conv2d(y, state, f"{name}.conv1", stride=stride, padding=1)
            y = ops.conv2d(activated(y, f"{name}.bn2"), state, f"{name}.conv2", padding=1)
            if f"{name}.convShortcut.weight" in state:
                x = ops.conv2d(x, state, f"{name}.convShortcut", stride=stride)
            x = x + y
    return activated(x, "bn1").mean((2, 3))


@pytest.mark.parametrize(("depth", "width"), [(10, 2), (16, 3)])
def test_import_agrees_with_the_source_network(torch_ops, depth, width, compiled):
    encoder = WideResNet(depth, width, base_features=4, activate_transitions=False)
    state, x = state_dict(torch_ops, depth, width, 4), images()
    variables, info = import_weights(encoder, jax.eval_shape(encoder.init, KEY, x), state)
    expected = reference(torch_ops, state, x, depth, False)
    features = compiled.apply(encoder, variables, x)
    assert features.shape == (3, encoder.num_features) and expected.std(axis=0).mean() > 0.05
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=2e-5)
    assert info.naming == "torchssl_wide_resnet"
    assert "block2.layer.0.bn1.weight" in info.ignored  # computed there, and dropped


def test_activated_transitions_agree_with_fixmatch(torch_ops, compiled):
    encoder = WideResNet(10, 2, base_features=4)
    state, x = state_dict(torch_ops, 10, 2, 4), images()
    template = jax.eval_shape(encoder.init, KEY, x)
    with pytest.raises(ValueError, match=r"expected activate_transitions=False .*, found True"):
        import_weights(encoder, template, state)
    naming = NAMINGS["torchssl_wide_resnet"]._replace(ignored=r"fc\.", requires={})
    variables, _ = import_weights(encoder, template, state, naming=naming)
    expected = reference(torch_ops, state, x, 10, True)
    np.testing.assert_allclose(
        compiled.apply(encoder, variables, x), expected, rtol=1e-4, atol=2e-5
    )
    assert np.abs(expected - reference(torch_ops, state, x, 10, False)).max() > 0.1


def test_statistics_move_by_a_thousandth(compiled):
    encoder, x = WideResNet(10, 1, base_features=4), images(6)
    variables = compiled.init(encoder, x)
    _, updated = compiled.apply(encoder, variables, x, train=True, mutable=["batch_stats"])
    moved = updated["batch_stats"]["block1_0"]["bn1"]["var"] - 1
    assert (np.abs(moved) < 0.1).all() and (np.abs(moved) > 1e-6).all()


@pytest.mark.parametrize("depth", [4, 27, 29])
def test_depths_that_do_not_exist(depth):
    with pytest.raises(ValueError, match=f"depth: expected 4 more .*found {depth}"):
        WideResNet(depth).init(KEY, images())
