import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.layers import Conv
from jaxal.models.resnet import ResNet
from jaxal.models.weights import import_weights

KEY = jax.random.key(0)


def images(n=3, size=32, seed=0):
    """Draw noise of a colour that differs from image to image, so that features do, too."""
    rng = np.random.default_rng(seed)
    x = 2 * rng.normal(size=(n, 1, 1, 3)) + rng.normal(size=(n, size, size, 3))
    return x.astype(np.float32)


def state_dict(ops, sizes, bottleneck, width, stem):
    """Names and shapes of torchvision's ResNet."""
    state, channels = ops.State(), width
    state.conv("conv1", width, 3, 7 if stem == "imagenet" else 3)
    state.norm("bn1", width)
    for stage, blocks in enumerate(sizes):
        planes = width * 2**stage
        for i in range(blocks):
            name, out = f"layer{stage + 1}.{i}", planes * (4 if bottleneck else 1)
            if bottleneck:
                shapes = [(planes, channels, 1), (planes, planes, 3), (out, planes, 1)]
            else:
                shapes = [(planes, channels, 3), (planes, planes, 3)]
            for k, shape in enumerate(shapes):
                state.conv(f"{name}.conv{k + 1}", *shape)
                state.norm(f"{name}.bn{k + 1}", shape[0])
            if i == 0 and (stage > 0 or channels != out):
                state.conv(f"{name}.downsample.0", out, channels, 1)
                state.norm(f"{name}.downsample.1", out)
            channels = out
    state.linear("fc", 10, channels)
    return state


def reference(ops, state, x, sizes, bottleneck, stem):
    """torchvision's forward pass, up to the classifier."""
    x = x.transpose(0, 3, 1, 2).astype(float)
    if stem == "imagenet":
        x = ops.conv2d(x, state, "conv1", stride=2, padding=3)
        x = ops.max_pool(np.maximum(ops.batch_norm(x, state, "bn1"), 0), 3, 2, 1)
    else:
        x = np.maximum(ops.batch_norm(ops.conv2d(x, state, "conv1", padding=1), state, "bn1"), 0)
    for stage, blocks in enumerate(sizes):
        for i in range(blocks):
            name, stride = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            strides = (1, stride, 1) if bottleneck else (stride, 1)
            paddings = (0, 1, 0) if bottleneck else (1, 1)
            y = x
            for k, (s, p) in enumerate(zip(strides, paddings, strict=True)):
                y = ops.conv2d(y, state, f"{name}.conv{k + 1}", stride=s, padding=p)
                y = ops.batch_norm(y, state, f"{name}.bn{k + 1}")
                y = np.maximum(y, 0) if k + 1 < len(strides) else y
            if f"{name}.downsample.0.weight" in state:
                x = ops.conv2d(x, state, f"{name}.downsample.0", stride=stride)
                x = ops.batch_norm(x, state, f"{name}.downsample.1")
            x = np.maximum(x + y, 0)
    return x.mean((2, 3))


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize(("sizes", "bottleneck"), [((2, 1, 2), False), ((2, 2), True)])
def test_import_agrees_with_the_source_network(torch_ops, sizes, bottleneck, stem, compiled):
    encoder = ResNet(sizes, bottleneck, width=8, stem=stem)
    state = state_dict(torch_ops, sizes, bottleneck, 8, stem)
    x = images()
    template = jax.eval_shape(encoder.init, KEY, x)
    variables, info = import_weights(encoder, template, state)
    features = compiled.apply(encoder, variables, x)
    expected = reference(torch_ops, state, x, sizes, bottleneck, stem)
    assert features.shape == (3, encoder.num_features) and expected.std(axis=0).mean() > 0.05
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=2e-5)
    assert (info.naming, info.prefix) == ("torchvision_resnet", "")
    assert {"fc.weight", "fc.bias", "bn1.num_batches_tracked"} <= set(info.ignored)
    assert set(info.imported) | set(info.ignored) == set(state)


def test_training_normalises_by_the_batch_and_moves_the_statistics(compiled):
    encoder, x = ResNet((1,), width=4, stem="cifar", momentum=0.75), images(8)
    variables = compiled.init(encoder, x)
    features, updated = compiled.apply(encoder, variables, x, train=True, mutable=["batch_stats"])
    kernel = variables["params"]["conv1"]["kernel"]
    y = np.asarray(
        jax.lax.conv(x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), "SAME")
    )
    found = updated["batch_stats"]["bn1"]
    np.testing.assert_allclose(found["mean"], 0.25 * y.mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["var"], 0.75 + 0.25 * y.var((0, 2, 3)), rtol=1e-3)
    assert np.abs(features - compiled.apply(encoder, variables, x)).max() > 0.01


def test_kernels_start_with_two_over_the_fan_out():
    kernel = Conv(32).init(KEY, np.zeros((1, 4, 4, 16), np.float32))["params"]["kernel"]
    np.testing.assert_allclose(kernel.var(), 2 / (32 * 9), rtol=0.1)


def test_padding_rows_do_not_count(compiled):
    encoder, x = ResNet((1,), True, width=4), images(5)
    variables = compiled.init(encoder, x)
    padded = np.concatenate([x, np.full((3, 32, 32, 3), 50, np.float32)])
    whole, stats = compiled.apply(encoder, variables, x, train=True, mutable=["batch_stats"])
    mask = jnp.arange(8) < 5
    found, found_stats = compiled.apply(
        encoder, variables, padded, train=True, mask=mask, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(found[:5], whole, rtol=1e-3, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found_stats, stats
    )


def test_bfloat16_computes_near_float32_and_keeps_its_variables(compiled):
    x = images(4, size=8)
    encoder = ResNet((1,), width=8, stem="cifar")
    half = ResNet((1,), width=8, stem="cifar", dtype=jnp.bfloat16)
    variables = compiled.init(half, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    features, updated = compiled.apply(half, variables, x, train=True, mutable=["batch_stats"])
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype(jnp.float32)}
    expected = compiled.apply(encoder, variables, x, train=True, mutable=["batch_stats"])[0]
    assert features.dtype == jnp.float32
    assert 0 < np.abs(features - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((3, 8, 8), np.float32), {}, r"images: expected \[n, h, w, c\], found .*3, 8, 8"),
        (np.zeros((3, 8, 8, 3), np.uint8), {}, "images: expected normalised .* found dtype uint8"),
        (np.zeros((3, 8, 8, 3), np.float32), {"mask": jnp.ones(2, bool)}, "mask: .*3.*found"),
    ],
)
def test_wrong_arguments(x, options, message):
    with pytest.raises(ValueError, match=message):
        ResNet((1,), width=4).init(KEY, jnp.asarray(x), **options)


def test_an_unknown_stem_is_refused():
    with pytest.raises(ValueError, match=r"stem: expected .* found 'tiny'"):
        ResNet((1,), stem="tiny").init(KEY, images())
