import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.vit import ViT, quick_gelu
from jaxal.models.weights import import_weights

KEY = jax.random.key(0)
WIDTH, DEPTH, HEADS, PATCH, SIZE = 24, 2, 3, 4, 16
TINY = {
    "image_size": SIZE,
    "patch_size": PATCH,
    "width": WIDTH,
    "depth": DEPTH,
    "num_heads": HEADS,
}


def images(n=3, height=SIZE, width=SIZE, seed=0):
    return np.random.default_rng(seed).normal(size=(n, height, width, 3)).astype(np.float32)


def timm_state(ops):
    state = ops.State()
    state.conv("patch_embed.proj", WIDTH, 3, PATCH, bias=True)
    state.normal("cls_token", 1, 1, WIDTH)
    state.normal("pos_embed", 1, 1 + (SIZE // PATCH) ** 2, WIDTH)
    for i in range(DEPTH):
        state.norm(f"blocks.{i}.norm1", WIDTH, running=False)
        state.linear(f"blocks.{i}.attn.qkv", 3 * WIDTH, WIDTH)
        state.linear(f"blocks.{i}.attn.proj", WIDTH, WIDTH)
        state.norm(f"blocks.{i}.norm2", WIDTH, running=False)
        state.linear(f"blocks.{i}.mlp.fc1", 4 * WIDTH, WIDTH)
        state.linear(f"blocks.{i}.mlp.fc2", WIDTH, 4 * WIDTH)
    state.norm("norm", WIDTH, running=False)
    state.linear("head", 10, WIDTH)
    return state


def timm_reference(ops, state, x, positions=None):
    """timm's forward pass, up to the head, with its own position embeddings or others."""
    x = ops.conv2d(x.transpose(0, 3, 1, 2).astype(float), state, "patch_embed.proj", stride=PATCH)
    x = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)
    token = np.broadcast_to(state["cls_token"].astype(float), (len(x), 1, WIDTH))
    x = np.concatenate([token, x], axis=1)
    x = x + (state["pos_embed"].astype(float) if positions is None else positions)
    for i in range(DEPTH):
        block = f"blocks.{i}"
        y = ops.layer_norm(x, state, f"{block}.norm1", 1e-6)
        y = ops.linear(y, state, f"{block}.attn.qkv.weight", f"{block}.attn.qkv.bias")
        y = ops.attention(y, HEADS)
        x = x + ops.linear(y, state, f"{block}.attn.proj.weight", f"{block}.attn.proj.bias")
        y = ops.layer_norm(x, state, f"{block}.norm2", 1e-6)
        y = ops.gelu(ops.linear(y, state, f"{block}.mlp.fc1.weight", f"{block}.mlp.fc1.bias"))
        x = x + ops.linear(y, state, f"{block}.mlp.fc2.weight", f"{block}.mlp.fc2.bias")
    return ops.layer_norm(x, state, "norm", 1e-6)[:, 0]


def clip_state(ops):
    state = ops.State()
    state.conv("visual.conv1", WIDTH, 3, PATCH)
    state.normal("visual.class_embedding", WIDTH)
    state.normal("visual.positional_embedding", 1 + (SIZE // PATCH) ** 2, WIDTH)
    state.norm("visual.ln_pre", WIDTH, running=False)
    for i in range(DEPTH):
        block = f"visual.transformer.resblocks.{i}"
        state.norm(f"{block}.ln_1", WIDTH, running=False)
        state.normal(f"{block}.attn.in_proj_weight", 3 * WIDTH, WIDTH, std=WIDTH**-0.5)
        state.normal(f"{block}.attn.in_proj_bias", 3 * WIDTH, std=0.3)
        state.linear(f"{block}.attn.out_proj", WIDTH, WIDTH)
        state.norm(f"{block}.ln_2", WIDTH, running=False)
        state.linear(f"{block}.mlp.c_fc", 4 * WIDTH, WIDTH)
        state.linear(f"{block}.mlp.c_proj", WIDTH, 4 * WIDTH)
    state.norm("visual.ln_post", WIDTH, running=False)
    state.normal("visual.proj", WIDTH, 8, std=WIDTH**-0.5)
    # the text tower, with names like the image tower's
    state.normal("positional_embedding", 77, WIDTH)
    state.normal("transformer.resblocks.0.attn.in_proj_weight", 3 * WIDTH, WIDTH)
    return state


def clip_reference(ops, state, x):
    """The image tower's forward pass in CLIP's model.py."""
    x = ops.conv2d(x.transpose(0, 3, 1, 2).astype(float), state, "visual.conv1", stride=PATCH)
    x = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)
    token = np.broadcast_to(state["visual.class_embedding"].astype(float), (len(x), 1, WIDTH))
    x = np.concatenate([token, x], axis=1) + state["visual.positional_embedding"].astype(float)
    x = ops.layer_norm(x, state, "visual.ln_pre", 1e-5)
    for i in range(DEPTH):
        block = f"visual.transformer.resblocks.{i}"
        y = ops.layer_norm(x, state, f"{block}.ln_1", 1e-5)
        y = ops.linear(y, state, f"{block}.attn.in_proj_weight", f"{block}.attn.in_proj_bias")
        y = ops.attention(y, HEADS)
        x = x + ops.linear(y, state, f"{block}.attn.out_proj.weight", f"{block}.attn.out_proj.bias")
        y = ops.layer_norm(x, state, f"{block}.ln_2", 1e-5)
        y = ops.linear(y, state, f"{block}.mlp.c_fc.weight", f"{block}.mlp.c_fc.bias")
        y = y / (1 + np.exp(-1.702 * y))
        x = x + ops.linear(y, state, f"{block}.mlp.c_proj.weight", f"{block}.mlp.c_proj.bias")
    x = ops.layer_norm(x[:, 0], state, "visual.ln_post", 1e-5)
    return x @ state["visual.proj"].astype(float)


def test_import_agrees_with_timm(torch_ops, compiled):
    encoder, state, x = ViT(**TINY), timm_state(torch_ops), images()
    variables, info = import_weights(encoder, jax.eval_shape(encoder.init, KEY, x), state)
    features = compiled.apply(encoder, variables, x)
    assert features.shape == (3, encoder.num_features) == (3, WIDTH)
    np.testing.assert_allclose(features, timm_reference(torch_ops, state, x), atol=2e-4)
    assert (info.naming, info.ignored) == ("timm_vit", ("head.weight", "head.bias"))


def test_import_agrees_with_clip(torch_ops, compiled):
    encoder = ViT(
        **TINY, pre_norm=True, patch_bias=False, projection=8, activation=quick_gelu, epsilon=1e-5
    )
    state, x = clip_state(torch_ops), images()
    variables, info = import_weights(encoder, jax.eval_shape(encoder.init, KEY, x), state)
    features = compiled.apply(encoder, variables, x)
    assert features.shape == (3, encoder.num_features) == (3, 8)
    np.testing.assert_allclose(features, clip_reference(torch_ops, state, x), atol=2e-4)
    assert (info.naming, info.prefix) == ("clip_vit", "visual.")
    assert "positional_embedding" in info.outside


def cubic(x):
    """Keys' cubic kernel with a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def resizing(new, old):
    """Weights ``[new, old]`` of bicubic resizing, as PIL and PyTorch's antialiasing have them."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    weights = cubic((np.arange(old) - centres[:, None]) / max(scale, 1))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (8, 20)])
def test_other_sizes_resize_the_position_embeddings(torch_ops, height, width, compiled):
    encoder, state, x = ViT(**TINY), timm_state(torch_ops), images(height=height, width=width)
    template = jax.eval_shape(encoder.init, KEY, images())
    variables, _ = import_weights(encoder, template, state)
    side, learned = SIZE // PATCH, state["pos_embed"][0].astype(float)
    rows, columns = resizing(height // PATCH, side), resizing(width // PATCH, side)
    patches = np.einsum("ri,cj,ijd->rcd", rows, columns, learned[1:].reshape(side, side, WIDTH))
    positions = np.concatenate([learned[:1], patches.reshape(-1, WIDTH)])
    expected = timm_reference(torch_ops, state, x, positions)
    np.testing.assert_allclose(compiled.apply(encoder, variables, x), expected, atol=2e-4)


def test_bfloat16_stays_near(torch_ops, compiled):
    x, state = images(), timm_state(torch_ops)
    encoder = ViT(**TINY, dtype=jnp.bfloat16)
    variables, _ = import_weights(encoder, jax.eval_shape(encoder.init, KEY, x), state)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    features, expected = compiled.apply(encoder, variables, x), timm_reference(torch_ops, state, x)
    assert features.dtype == jnp.float32
    assert 1e-4 < np.abs(features - expected).max() < 0.2


@pytest.mark.parametrize(
    ("change", "x", "message"),
    [
        ({"image_size": 18}, images(), "image_size: expected a multiple of .* 4, found 18"),
        ({}, images(height=18), r"images: expected sides .* 4, found shape \(3, 18, 16, 3\)"),
        ({"num_heads": 5}, images(), "num_heads: expected a divisor of the width 24, found 5"),
    ],
)
def test_sizes_that_do_not_divide(change, x, message):
    with pytest.raises(ValueError, match=message):
        ViT(**(TINY | change)).init(KEY, x)
