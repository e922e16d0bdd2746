"""PyTorch's layers in float64 NumPy, written apart from the library's, to compare networks with."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import erf


def conv2d(x, state, name, *, stride=1, padding=0, groups=1):
    """Convolve ``x [n, c, h, w]`` with ``name.weight [o, c / groups, k, k]`` and any bias."""
    weight = state[f"{name}.weight"].astype(float)
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    size = weight.shape[2]
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), *padding)), (size, size), (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    n, c, h, w = windows.shape[:4]
    windows = windows.reshape(n, groups, c // groups, h, w, size, size)
    weight = weight.reshape(groups, -1, *weight.shape[1:])
    y = np.einsum("ngchwij,gocij->ngohw", windows, weight, optimize=True).reshape(n, -1, h, w)
    bias = state.get(f"{name}.bias")
    return y if bias is None else y + bias.astype(float)[:, None, None]


def batch_norm(x, state, name, epsilon=1e-5):
    mean, var, scale, bias = (
        state[f"{name}.{leaf}"].astype(float)[:, None, None]
        for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + epsilon) * scale + bias


def max_pool(x, size, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=-np.inf)
    return sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride].max((4, 5))


def layer_norm(x, state, name, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return x * state[f"{name}.weight"].astype(float) + state[f"{name}.bias"].astype(float)


def linear(x, state, weight, bias):
    return x @ state[weight].astype(float).T + state[bias].astype(float)


def attention(qkv, heads):
    """Attend with ``qkv [n, t, 3 · d]``: all queries first, then keys and values."""
    n, t, _ = qkv.shape
    query, key, value = (
        part.reshape(n, t, heads, -1).transpose(0, 2, 1, 3) for part in np.split(qkv, 3, axis=2)
    )
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights @ value).transpose(0, 2, 1, 3).reshape(n, t, -1)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


class State(dict):
    """A random state dict, to be filled layer by layer."""

    def __init__(self, seed=0):
        super().__init__()
        self._rng = np.random.default_rng(seed)

    def normal(self, name, *shape, std=1.0):
        self[name] = (std * self._rng.normal(size=shape)).astype(np.float32)

    def conv(self, name, out, channels, size, *, bias=False):
        self.normal(f"{name}.weight", out, channels, size, size, std=(3 / channels) ** 0.5 / size)
        if bias:
            self.normal(f"{name}.bias", out, std=0.3)

    def norm(self, name, width, *, running=True):
        self[f"{name}.weight"] = self._rng.uniform(0.5, 1.5, width).astype(np.float32)
        self.normal(f"{name}.bias", width, std=0.3)
        if running:
            self.normal(f"{name}.running_mean", width, std=0.3)
            self[f"{name}.running_var"] = self._rng.uniform(0.5, 2, width).astype(np.float32)
            self[f"{name}.num_batches_tracked"] = np.array(7)

    def linear(self, name, out, width):
        self.normal(f"{name}.weight", out, width, std=width**-0.5)
        self.normal(f"{name}.bias", out, std=0.3)


@pytest.fixture(scope="session")
def torch_ops():
    """Give the layers and the random state dict."""
    return SimpleNamespace(
        State=State,
        attention=attention,
        batch_norm=batch_norm,
        conv2d=conv2d,
        gelu=gelu,
        layer_norm=layer_norm,
        linear=linear,
        max_pool=max_pool,
    )


def init(module, x):
    """Fill the module's shapes with random kernels; compiling jax.random takes seconds a module."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key in ("var", "scale"):
            return jnp.ones(leaf.shape)
        if path[-1].key in ("mean", "bias"):
            return jnp.zeros(leaf.shape)
        fan_in = np.prod(leaf.shape[:-1])
        return jnp.asarray(rng.normal(size=leaf.shape) * (2 / fan_in) ** 0.5, leaf.dtype)

    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def apply(module, variables, x, mask=None, **options):
    return jax.jit(functools.partial(module.apply, **options))(variables, x, mask=mask)


@pytest.fixture(scope="session")
def compiled():
    """Give a module's ``init`` and ``apply``, compiled: step by step they take seconds."""
    return SimpleNamespace(init=init, apply=apply)
