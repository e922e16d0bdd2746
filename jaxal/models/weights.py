"""Take published weights into an encoder."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxal.checks import check_choice, check_finite
from jaxal.models.naming import NAMINGS, Naming
from jaxal.models.weight_files import read_weights

__all__ = ["ImportInfo", "import_weights", "read_weights"]

_NAMED_IN_ERRORS = 5
_COUNTERS = re.compile(r"(.*\.)?num_batches_tracked$")  # batch normalisation's, in PyTorch


class ImportInfo(NamedTuple):
    """What an import took and what it left."""

    naming: str  # key of NAMINGS; "" for one that was passed in
    prefix: str  # what the names began with
    imported: tuple[str, ...]  # names taken
    ignored: tuple[str, ...]  # names under the prefix that no encoder needs: classifiers, counters
    outside: tuple[str, ...]  # names without the prefix, such as projection heads and copies
    missing: tuple[str, ...]  # names not found, whose values are the template's; not if strict
    unexpected: tuple[str, ...]  # names not known; none if strict


class _Match(NamedTuple):
    """One way of reading a file."""

    key: str
    naming: Naming
    prefix: str
    names: dict[tuple[str, ...], str]  # of each leaf of the template


def import_weights(
    encoder: nn.Module,
    template: Mapping[str, Any],
    flat: Mapping[str, np.ndarray],
    *,
    naming: str | Naming | None = None,
    prefix: str | None = None,
    strict: bool = True,
) -> tuple[dict[str, Any], ImportInfo]:
    """Fill an encoder's variables from a file's names and layouts.

    Kernels are transposed from PyTorch's ``[out, in, rows, columns]`` and ``[out, in]``, and batch
    normalisation's ``weight``, ``bias``, ``running_mean`` and ``running_var`` become ``scale``,
    ``bias``, ``mean`` and ``var``. What is not of the encoder, such as a classifier, is left out
    and listed.

    ::

        encoder = get_encoder("resnet50")
        template = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
        variables, info = import_weights(encoder, template, read_weights("simsiam.pth.tar"))

    Args:
      encoder: the module.
      template: its ``params`` and ``batch_stats`` as ``init`` makes them; their shapes suffice, as
        from `jax.eval_shape`, unless some are missing from the file and not ``strict``.
      flat: arrays by name, as from `read_weights`.
      naming: key of `NAMINGS`, or one of your own; None for whichever of the encoder's fits best.
      prefix: what the encoder's names in the file begin with, such as ``"module.encoder_q."``; None
        for whichever of the naming's prefixes fits best, the first of those that fit equally.
      strict: whether names that are missing or not known are an error; else the former keep the
        template's values. Wrong shapes always are one.

    Returns:
      The variables, in the template's dtypes, and what was taken.

    Raises:
      ValueError: missing, unexpected or wrongly shaped names, all of them in one error; nothing
        that fits; an encoder whose attributes the naming does not stand for; or NaN.
    """
    leaves: dict[tuple[str, ...], Any] = flatten_dict(dict(template))
    match = _recognise(encoder, leaves, flat, naming, prefix)
    names, wanted = match.names, set(match.names.values())
    extra = [name for name in flat if name.startswith(match.prefix) and name not in wanted]
    ignored = [name for name in extra if _is_ignored(name, match)]
    unexpected = [name for name in extra if not _is_ignored(name, match)]
    missing = [name for name in names.values() if name not in flat]
    misshapen = [
        f"{names[path]} (expected {expected}, found {flat[names[path]].shape})"
        for path, leaf in leaves.items()
        if names[path] in flat
        and (expected := _shape_in_file(path[-1], leaf.shape, match.naming))
        != _without_ones(flat[names[path]].shape, len(expected))
    ]
    if misshapen or (strict and (missing or unexpected)):
        raise ValueError(
            f"flat: expected the weights of {_describe(encoder)} under the names of "
            f"{match.key or 'the naming'} with prefix {match.prefix!r}, found "
            + "; ".join(
                f"{len(found)} {problem}: {_some(found)}"
                for problem, found in [
                    ("missing", missing),
                    ("unexpected", unexpected),
                    ("wrongly shaped", misshapen),
                ]
                if found
            )
        )
    taken = {
        path: _take(path[-1], leaf, names[path], flat, match.naming)
        for path, leaf in leaves.items()
    }
    info = ImportInfo(
        match.key,
        match.prefix,
        tuple(name for name in names.values() if name in flat),
        tuple(ignored),
        tuple(name for name in flat if not name.startswith(match.prefix)),
        tuple(missing),
        tuple(unexpected),
    )
    return unflatten_dict(taken), info


def _recognise(
    encoder: nn.Module,
    leaves: Mapping[tuple[str, ...], Any],
    flat: Mapping[str, np.ndarray],
    naming: str | Naming | None,
    prefix: str | None,
) -> _Match:
    """Choose the naming and the prefix under which most names are found, the first of equals."""
    if set(path[0] for path in leaves) - {"params", "batch_stats"} or not leaves:
        found = sorted({path[0] for path in leaves})
        raise ValueError(f"template: expected params and batch_stats, found {found}")
    if isinstance(naming, str):
        check_choice(naming, "naming", NAMINGS)
    if isinstance(naming, Naming):
        namings = {"": naming}
    else:
        namings = {
            key: known
            for key, known in NAMINGS.items()
            if isinstance(encoder, known.encoder) and naming in (None, key)
        }
    if not namings:
        wanted = f"an encoder of {naming}" if naming else "an encoder that NAMINGS knows"
        raise ValueError(f"encoder: expected {wanted}, found {_describe(encoder)}")
    matches = [
        _Match(
            key, known, tried, {path: tried + known.source(encoder, path[1:]) for path in leaves}
        )
        for key, known in namings.items()
        for tried in (known.prefixes if prefix is None else (prefix,))
    ]
    best = max(matches, key=lambda match: sum(name in flat for name in match.names.values()))
    if not any(name in flat for name in best.names.values()):
        tries = {match.key: next(iter(match.names.values())) for match in reversed(matches)}
        raise ValueError(
            f"flat: expected names of {_describe(encoder)}, such as "
            + " or ".join(f"{name!r} ({key})" if key else repr(name) for key, name in tries.items())
            + f", found none among its {len(flat)}: {_some(flat)}"
        )
    for attribute, value in best.naming.requires.items():
        if getattr(encoder, attribute) != value:
            raise ValueError(
                f"encoder: expected {attribute}={value!r} for weights of "
                f"{best.key or 'this naming'}, found {getattr(encoder, attribute)!r}"
            )
    return best


def _is_ignored(name: str, match: _Match) -> bool:
    rest = name[len(match.prefix) :]
    return bool(re.match(match.naming.ignored, rest) or _COUNTERS.match(rest))


def _shape_in_file(leaf: str, shape: tuple[int, ...], naming: Naming) -> tuple[int, ...]:
    if leaf != "kernel" or not naming.torch_layout:
        return shape
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _without_ones(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Drop leading axes of length one, down to ``ndim`` axes."""
    while len(shape) > ndim and shape[0] == 1:
        shape = shape[1:]
    return shape


def _take(
    leaf: str, value: Any, name: str, flat: Mapping[str, np.ndarray], naming: Naming
) -> jax.Array:
    if name not in flat:
        if isinstance(value, jax.ShapeDtypeStruct):
            raise ValueError(f"template: expected values for what the file lacks, such as {name}")
        return value
    array = np.asarray(flat[name])
    check_finite(array, f"flat[{name!r}]", value.dtype)
    array = array.reshape(_without_ones(array.shape, len(value.shape)))
    if leaf == "kernel" and naming.torch_layout:
        array = array.transpose((2, 3, 1, 0) if array.ndim == 4 else (1, 0))
    return jnp.asarray(array, value.dtype)


def _describe(encoder: nn.Module) -> str:
    return type(encoder).__name__


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _NAMED_IN_ERRORS
    return ", ".join(names[:_NAMED_IN_ERRORS]) + (f" and {rest} more" if rest > 0 else "")
