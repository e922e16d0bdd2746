"""Encoders and their weights as the command line names them."""

import argparse
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.flags import as_flags
from jaxal.checks import check_positive
from jaxal.chunking import map_rows
from jaxal.models.encoders import ENCODERS, get_encoder
from jaxal.models.fingerprints import tree_digest
from jaxal.models.preprocess import Preprocessing, preprocess
from jaxal.models.saved import is_saved, load_variables, read_about
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
    "name_encoder",
]

_CHUNK = 256
_DEFAULT = "conv4"


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
        choices=list(ENCODERS),
        metavar="NAME",
        help=f"of {', '.join(ENCODERS)} (default what pretrain wrote --weights of, else "
        f"{_DEFAULT})",
    )
    parser.add_argument(
        "--width",
        type=int,
        metavar="N",
        help="of the encoder, in place of its own or the weights' (num_filters of conv4)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side that images are scaled to for the encoder, in place of its own or the weights'",
    )
    if weights:
        parser.add_argument(
            "--weights",
            type=Path,
            metavar="FILE",
            help="what pretrain wrote, or published weights: .npz, .safetensors or a PyTorch "
            "checkpoint; new random ones without it",
        )


def name_encoder(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in encoder, width and size from the weights, where `pretrain` wrote them.

    What the command line says goes before.

    Raises:
      ValueError: a width or size below 1, or a damaged file.
    """
    for name in ("width", "size"):
        if getattr(args, name) is not None:
            check_positive(getattr(args, name), f"--{name}")
    found = _found_in(getattr(args, "weights", None))
    named = {"encoder": args.encoder or found.get("encoder", _DEFAULT)}
    if found.get("encoder") == named["encoder"]:
        usual = ENCODERS[named["encoder"]].preprocessing.size
        width = found.get(_width_of(named["encoder"]))
        named["width"] = width if args.width is None else args.width
        # One that is the encoder's own need not be named.
        own = None if found.get("size") == usual else found.get("size")
        named["size"] = own if args.size is None else args.size
    return argparse.Namespace(**{**vars(args), **named})


def load_encoder(args: argparse.Namespace, *, seed: int = 0) -> LoadedEncoder:
    """Make the encoder that the command line names, and read its weights.

    What it does not name is as in the weights, see `name_encoder`; a line is printed where it names
    another size.

    Raises:
      ValueError: an option it does not have, or weights that do not fit.
    """
    args = name_encoder(args)
    preprocessing = ENCODERS[args.encoder].preprocessing
    if args.size is not None:
        preprocessing = preprocessing._replace(size=args.size)
    attributes: dict[str, Any] = {}
    if args.width is not None:
        attributes[_width_of(args.encoder)] = args.width
    if args.size is not None and args.encoder == "conv4":
        attributes["image_size"] = args.size
    try:
        module = get_encoder(args.encoder, **attributes)
    except ValueError as error:
        raise ValueError(f"--width: expected none with {args.encoder}, which has none") from error
    side = preprocessing.size or 32
    image = jnp.zeros((1, side, side, len(preprocessing.mean)))
    about: dict[str, Any] = {"encoder": args.encoder, **attributes, "size": preprocessing.size}
    path = getattr(args, "weights", None)
    if path is None:
        with as_flags(image_size="--size"):
            variables = jax.jit(module.init)(jax.random.key(seed), image)
        return LoadedEncoder(
            args.encoder, module, dict(variables), preprocessing, {**about, "weights": None}
        )
    with as_flags(image_size="--size"):
        template = jax.eval_shape(module.init, jax.random.key(0), image)
    if is_saved(path):
        variables, found = load_variables(path)
        wanted = _describe(about)
        if _shapes(template) != _shapes(variables):
            said = f"holds {_describe(found)}, not {wanted}"
            if not _about(found) or _describe(found) == wanted:
                apart = set(_shapes(template).items()) ^ set(_shapes(variables).items())
                said += f"; they differ in {sorted(apart)[:2]}"
            raise ValueError(f"--weights {path}: {said}")
        if "size" in _about(found) and found["size"] != preprocessing.size:
            print(f"--weights {path}: holds {_describe(found)}, taken as {wanted}", flush=True)
        planned = _about(found).get("config", {}).get("epochs")
        if planned is not None and found.get("epochs", planned) < planned:
            about["epochs"] = found["epochs"]
            print(f"--weights {path}: of epoch {found['epochs']} of {planned}", flush=True)
    else:
        try:
            variables, _ = import_weights(module, template, read_weights(path))
        except ValueError as error:
            raise ValueError(f"--weights {path}, --encoder {args.encoder}: {error}") from error
    about |= {"weights": path.name, "sha256": tree_digest(variables)}
    return LoadedEncoder(args.encoder, module, variables, preprocessing, about)


def _found_in(path: Path | None) -> dict[str, Any]:
    return _about(read_about(path)) if path is not None and is_saved(path) else {}


def _about(found: Any) -> dict[str, Any]:
    """Give what `pretrain` wrote with weights, and nothing of other files."""
    known = isinstance(found, dict) and found.get("encoder") in ENCODERS
    return found if known else {}


def _width_of(encoder: str) -> str:
    return "num_filters" if encoder == "conv4" else "width"


def _describe(found: Any) -> str:
    """Say in a few words which encoder it is."""
    about = _about(found)
    if not about:
        return "an encoder that it does not name"
    name, width, size = about["encoder"], about.get(_width_of(about["encoder"])), about.get("size")
    return (
        name
        + (" of its own width" if width is None else f" of width {width}")
        + ("" if size is None else f" for images of {size} pixels")
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(p): np.shape(x) for p, x in jax.tree.leaves_with_path(tree)}


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
