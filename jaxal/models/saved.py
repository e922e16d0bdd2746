"""Keep variables in one small file: an ``.npz`` that also says what they are of."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxal.models.weight_files import read_weights
from jaxal.records import check_path, describe, replacing

__all__ = ["is_saved", "load_variables", "read_about", "save_variables"]

_ABOUT = "about"
_COLLECTIONS = ("params", "batch_stats")


def save_variables(path: str | Path, variables: Mapping[str, Any], about: Any = None) -> None:
    """Write variables, whole or not at all.

    Args:
      path: the file, ending in ``.npz``; replaced if it is there.
      variables: ``params`` and, where there are any, ``batch_stats``, in dtypes of NumPy's own,
        such as float32; bfloat16 is none.
      about: what JSON can hold, such as the encoder's name and how it was trained.

    Raises:
      ValueError: another ending, a folder that is not there, other collections, or a dtype that
        the format lacks.
    """
    path = check_path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path: expected a file ending in .npz, found {path}")
    unknown = sorted(set(variables) - set(_COLLECTIONS))
    if unknown or "params" not in variables:
        raise ValueError(f"variables: expected params and batch_stats, found {sorted(variables)}")
    leaves = flatten_dict(unfreeze(dict(variables)))
    flat = {"/".join(key): np.asarray(x) for key, x in leaves.items()}
    for name, array in flat.items():
        if array.dtype.kind not in "biufc":
            raise ValueError(
                f"variables: expected numbers of NumPy's own dtypes, such as float32, found "
                f"{array.dtype} in {name}"
            )
    text = json.dumps(describe(about, "about"))
    with replacing(path) as file:
        np.savez(file, **{_ABOUT: np.array(text), **flat})  # type: ignore[arg-type]


def is_saved(path: str | Path) -> bool:
    """Tell whether a file is one of `save_variables`, rather than published weights.

    Of the file its list of arrays is read only.
    """
    if Path(path).suffix != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return f"{_ABOUT}.npy" in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read_about(path: str | Path) -> Any:
    """Read what a file of `save_variables` says of itself, and none of its variables.

    Raises:
      ValueError: no such file, a damaged one, or one of another kind.
    """
    if not is_saved(path):
        raise ValueError(f"{path}: expected variables that save_variables wrote, found others")
    try:
        with np.load(path, allow_pickle=False) as file:
            return json.loads(str(file[_ABOUT]))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged ({error})") from error


def load_variables(path: str | Path) -> tuple[dict[str, Any], Any]:
    """Read what `save_variables` wrote.

    Returns:
      The variables, on the default device, and ``about``.

    Raises:
      ValueError: no such file, a damaged one, or one of another kind.
    """
    flat = read_weights(path)
    if _ABOUT not in flat:
        raise ValueError(f"{path}: expected variables that save_variables wrote, found others")
    about = json.loads(str(flat.pop(_ABOUT)))
    tree = unflatten_dict({tuple(name.split("/")): jnp.asarray(x) for name, x in flat.items()})
    return tree, about
