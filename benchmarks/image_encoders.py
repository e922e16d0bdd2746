"""Encoders and their weights as the command line names them."""

import argparse
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxal.checks import check_positive
from jaxal.chunking import map_rows
from jaxal.models.encoders import ENCODERS, get_encoder
from jaxal.models.fingerprints import tree_digest
from jaxal.models.preprocess import Preprocessing, preprocess
from jaxal.models.saved import is_saved, load_variables
from jaxal.models.weights import import_weights, read_weights
from jaxal.sharding import data_mesh, shard_batch

__all__ = [
    "LoadedEncoder",
    "add_encoder",
    "encode",
    "encode_array",
    "encoder_settings",
    "find_mesh",
    "load_encoder",
]

_CHUNK = 256


class LoadedEncoder(NamedTuple):
    """An encoder with its weights."""

    name: str
    module: Any
    variables: dict[str, Any]
    preprocessing: Preprocessing
    about: dict[str, Any]  # where the weights are from, for reports and fingerprints


def add_encoder(parser: argparse.ArgumentParser, *, weights: bool = True) -> None:
    """Declare the flags that say which encoder is meant."""
    parser.add_argument(
        "--encoder",
        default="conv4",
        choices=list(ENCODERS),
        metavar="NAME",
        help=f"of {', '.join(ENCODERS)} (default conv4)",
    )
    parser.add_argument(
        "--width",
        type=int,
        metavar="N",
        help="of the encoder, in place of its own (num_filters of conv4)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side that images are scaled to for the encoder, in place of its own",
    )
    if weights:
        parser.add_argument(
            "--weights",
            type=Path,
            metavar="FILE",
            help="what pretrain wrote, or published weights: .npz, .safetensors or a PyTorch "
            "checkpoint; new random ones without it",
        )


def load_encoder(args: argparse.Namespace, *, seed: int = 0) -> LoadedEncoder:
    """Make the encoder that the command line names, and read its weights.

    Raises:
      ValueError: an option it does not have, or weights that do not fit.
    """
    preprocessing = ENCODERS[args.encoder].preprocessing
    if args.size is not None:
        preprocessing = preprocessing._replace(size=check_positive(args.size, "--size"))
    attributes: dict[str, Any] = {}
    if args.width is not None:
        attributes["num_filters" if args.encoder == "conv4" else "width"] = args.width
    if args.size is not None and args.encoder == "conv4":
        attributes["image_size"] = args.size
    module = get_encoder(args.encoder, **attributes)
    side = preprocessing.size or 32
    image = jnp.zeros((1, side, side, len(preprocessing.mean)))
    about: dict[str, Any] = {"encoder": args.encoder, **attributes, "size": preprocessing.size}
    path = getattr(args, "weights", None)
    if path is None:
        variables = jax.jit(module.init)(jax.random.key(seed), image)
        return LoadedEncoder(
            args.encoder, module, dict(variables), preprocessing, {**about, "weights": None}
        )
    template = jax.eval_shape(module.init, jax.random.key(0), image)
    if is_saved(path):
        variables, found = load_variables(path)
        _check_alike(path, template, variables, found)
    else:
        try:
            variables, _ = import_weights(module, template, read_weights(path))
        except ValueError as error:
            raise ValueError(f"--weights {path}, --encoder {args.encoder}: {error}") from error
    about |= {"weights": path.name, "sha256": tree_digest(variables)}
    return LoadedEncoder(args.encoder, module, variables, preprocessing, about)


def _check_alike(path: Path, template: Any, variables: Any, found: Any) -> None:
    wanted, given = (
        {jax.tree_util.keystr(p): np.shape(x) for p, x in jax.tree.leaves_with_path(tree)}
        for tree in (template, variables)
    )
    if wanted != given:
        differing = sorted(set(wanted.items()) ^ set(given.items()))[:3]
        raise ValueError(
            f"{path}: expected weights of the encoder named, found those of {found}; they differ "
            f"in {differing}"
        )


def find_mesh() -> Mesh | None:
    """Lay out all devices, where there are several."""
    return data_mesh() if jax.device_count() > 1 else None


def encode(encoder: LoadedEncoder) -> Any:
    """Give ``images uint8 [n, h, w, c] -> features [n, f]``, compiled once for all weights."""
    return functools.partial(
        _encode, encoder.variables, module=encoder.module, preprocessing=encoder.preprocessing
    )


@functools.partial(jax.jit, static_argnames=("module", "preprocessing"))
def _encode(
    variables: Any, images: jax.Array, *, module: Any, preprocessing: Preprocessing
) -> jax.Array:
    return jnp.asarray(module.apply(variables, preprocess(images, preprocessing)))


def encode_array(encoder: LoadedEncoder, images: np.ndarray) -> np.ndarray:
    """Compute the features ``[n, f]`` of images in memory, on all devices there are."""
    apply, mesh = encode(encoder), find_mesh()

    def on_devices(chunk: jax.Array) -> jax.Array:
        if mesh is None:
            return apply(chunk)
        return apply(shard_batch(mesh, {"images": chunk})["images"])[: len(chunk)]

    return np.asarray(map_rows(on_devices, images, chunk_size=_CHUNK))


def encoder_settings(encoder: LoadedEncoder) -> dict[str, Any]:
    """Describe all of an encoder that features depend on."""
    return {**encoder.about, "preprocessing": encoder.preprocessing._asdict()}
