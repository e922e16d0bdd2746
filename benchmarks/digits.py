"""Handwritten digits and an encoder pre-trained on them without labels.

The images are scikit-learn's, 1,797 of 8×8 pixels, which its wheel holds: nothing is downloaded.
One fixed split parts them into a pool of 1,297 and 500 test images. The encoder is pre-trained
once, by SimCLR (arXiv 2002.05709), on the pool's images alone; it sees neither a label nor a test
image. The network, the augmentations and the optimiser were set up front; the steps are what some
ten seconds on two cores allow.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from benchmarks import INSTALL
from jaxal.checks import check_positive
from jaxal.chunking import map_rows
from jaxal.train.contrastive import nt_xent

__all__ = [
    "POOL_SIZE",
    "SIDE",
    "SPLIT_SEED",
    "Digits",
    "Encoder",
    "augment",
    "encode",
    "load_digits",
    "pretrain",
]

SIDE = 8  # pixels
POOL_SIZE = 1_297
SPLIT_SEED = 0


class Digits(NamedTuple):
    """The images and their fixed split."""

    pool: np.ndarray  # [1297, 8, 8] float32 in 0..1
    pool_labels: np.ndarray  # [1297] int32
    test: np.ndarray  # [500, 8, 8] float32 in 0..1
    test_labels: np.ndarray  # [500] int32


def load_digits() -> Digits:
    """Load the digits, split by ``SPLIT_SEED``.

    Raises:
      ImportError: scikit-learn is not installed; the error says how to.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError(f"the digits come with scikit-learn: {INSTALL}") from error
    pixels, labels = load(return_X_y=True)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(pixels))
    images = (pixels[order] / 16).astype(np.float32).reshape(-1, SIDE, SIDE)
    labels = labels[order].astype(np.int32)
    return Digits(images[:POOL_SIZE], labels[:POOL_SIZE], images[POOL_SIZE:], labels[POOL_SIZE:])


class Encoder(nn.Module):
    """Two 3×3 convolutions, each halving the image, and a dense layer.

    XLA's convolutions are slow on a CPU, so each is nine shifted copies and one matrix product.

    Attributes:
      widths: channels of the convolutions.
      num_features: width of the dense layer, whose activations are the features.
      num_projected: outputs of the projection head, of which the loss is taken and which is thrown
        away after.
    """

    widths: tuple[int, int] = (32, 64)
    num_features: int = 128
    num_projected: int = 64

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Compute features ``[n, num_features]`` and projections ``[n, num_projected]``.

        Args:
          images: ``[n, 8, 8]`` in 0..1.
        """
        x = images[..., None] - 0.3  # about the mean pixel
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(_patches(x)))
            x = _halved(x)
        features = nn.relu(nn.Dense(self.num_features)(x.reshape(len(x), -1)))
        hidden = nn.relu(nn.Dense(self.num_features)(features))
        return features, nn.Dense(self.num_projected)(hidden)


def augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Distort each image at random, as handwriting and scanning vary.

    Up to one pixel of shift, 15 degrees of rotation, 15 % of scale and 0.2 of shear, by bilinear
    resampling with blank beyond the border; then contrast by a factor in 0.7..1.3, and Gaussian
    noise of standard deviation 0.08.

    Args:
      key: random key.
      images: ``[n, h, w]`` in 0..1.

    Returns:
      ``[n, h, w]``, the noise reaching a little outside 0..1.
    """
    n = images.shape[0]
    affine_key, contrast_key, noise_key = jax.random.split(key, 3)
    draws = jax.random.uniform(affine_key, (5, n), minval=-1)
    warped = jax.vmap(_warp)(images, _affine(draws[:3]), draws[3:].T)
    contrast = jax.random.uniform(contrast_key, (n, 1, 1), minval=0.7, maxval=1.3)
    return warped * contrast + 0.08 * jax.random.normal(noise_key, images.shape)


def _affine(draws: jax.Array) -> jax.Array:
    """Turn ``[3, n]`` draws from -1..1 into ``[n, 2, 2]`` maps from output to input offsets."""
    angle, scale, shear = draws[0] * jnp.pi / 12, 1 + 0.15 * draws[1], 0.2 * draws[2]
    cos, sin = jnp.cos(angle) * scale, jnp.sin(angle) * scale
    row, column = [cos, -sin], [sin + shear * cos, cos - shear * sin]
    return jnp.stack([jnp.stack(row, -1), jnp.stack(column, -1)], -2)


def _warp(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """Resample ``image [h, w]`` bilinearly; each output pixel is a product of two hat functions."""
    h, w = image.shape
    centre = jnp.array([(h - 1) / 2, (w - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), -1).reshape(-1, 2)
    source = (grid - centre) @ matrix.T + centre + shift
    rows = nn.relu(1 - jnp.abs(source[:, :1] - jnp.arange(h)))
    columns = nn.relu(1 - jnp.abs(source[:, 1:] - jnp.arange(w)))
    return jnp.sum((rows @ image) * columns, axis=1).reshape(h, w)


def _patches(x: jax.Array) -> jax.Array:
    """Gather 3×3 neighbourhoods, ``[n, h, w, c] -> [n, h, w, 9c]``, with zeros at the border."""
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


def _halved(x: jax.Array) -> jax.Array:
    """Average 2×2 blocks."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def pretrain(
    key: jax.Array,
    images: ArrayLike,
    *,
    encoder: Encoder | None = None,
    steps: int = 400,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    temperature: float = 0.5,
) -> tuple[Any, jax.Array]:
    """Pre-train an encoder without labels.

    Args:
      key: initial weights, batches and augmentations.
      images: ``[n, 8, 8]`` in 0..1.
      encoder: the network; by default `Encoder`.
      steps: batches, each drawn without repeats.
      batch_size: images in one, at most n.
      learning_rate: its peak; one tenth of the steps warms up, then it falls by a cosine (Adam).
      temperature: see `nt_xent`.

    Returns:
      Parameters and the losses ``[steps]``.

    Raises:
      ValueError: images of another shape or fewer than a batch.
    """
    images = jnp.asarray(images, jnp.float32)
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"images: expected [n, {SIDE}, {SIDE}], found shape {images.shape}")
    check_positive(steps, "steps")
    if check_positive(batch_size, "batch_size") > len(images):
        raise ValueError(f"batch_size: expected at most {len(images)} images, found {batch_size}")
    return _pretrain(
        key,
        images,
        encoder=encoder or Encoder(),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        temperature=temperature,
    )


@functools.partial(
    jax.jit,
    static_argnames=("encoder", "steps", "batch_size", "learning_rate", "temperature"),
)
def _pretrain(
    key: jax.Array,
    images: jax.Array,
    *,
    encoder: Encoder,
    steps: int,
    batch_size: int,
    learning_rate: float,
    temperature: float,
) -> tuple[Any, jax.Array]:
    init_key, steps_key = jax.random.split(key)
    params = encoder.init(init_key, images[:1])
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, max(1, steps // 10), steps)
    optimizer = optax.adam(rate)

    def loss_fn(params: Any, first: jax.Array, second: jax.Array) -> jax.Array:
        z: Any = encoder.apply(params, jnp.concatenate([first, second]))[1]
        return nt_xent(z[:batch_size], z[batch_size:], temperature=temperature)

    def step(carry: Any, index: jax.Array) -> Any:
        params, opt_state = carry
        keys = jax.random.split(jax.random.fold_in(steps_key, index), 3)
        batch = images[jax.random.permutation(keys[0], len(images))[:batch_size]]
        views = augment(keys[1], batch), augment(keys[2], batch)
        loss, grads = jax.value_and_grad(loss_fn)(params, *views)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return params, losses


def encode(params: Any, images: ArrayLike, *, encoder: Encoder | None = None) -> jax.Array:
    """Compute the features ``[n, num_features]`` of images ``[n, 8, 8]``."""
    return map_rows(functools.partial(_encode, params, encoder=encoder or Encoder()), images)


@functools.partial(jax.jit, static_argnames="encoder")
def _encode(params: Any, images: jax.Array, *, encoder: Encoder) -> jax.Array:
    return encoder.apply(params, images)[0]
