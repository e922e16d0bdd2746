"""Say what an encoder is, so that features computed by another are told apart."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.core import unfreeze

from jaxal.records import describe, fingerprint

__all__ = ["encoder_fingerprint", "tree_digest"]


def encoder_fingerprint(
    name: str, module: nn.Module, variables: Mapping[str, Any], preprocessing: Any
) -> dict[str, Any]:
    """Describe an encoder for `jaxal.data.extract_features`.

    Args:
      name: what to call it, such as a key of `jaxal.models.encoders.ENCODERS`.
      module: the encoder.
      variables: its collections.
      preprocessing: a `jaxal.models.preprocess.Preprocessing`, or whatever else
        `jaxal.records.describe` takes.

    Returns:
      What JSON can hold; another one for other attributes, one changed weight or another
      preprocessing.

    Raises:
      ValueError: a preprocessing that cannot be described.
    """
    return {
        "name": name,
        "module": describe(module, "module"),
        "variables": tree_digest(variables),
        "preprocessing": describe(preprocessing, "preprocessing"),
    }


def tree_digest(tree: Any) -> str:
    """Digest a pytree of arrays leaf by leaf, so that one leaf at most is copied to the host.

    Args:
      tree: arrays of any shapes and dtypes; frozen mappings count as what they hold.

    Returns:
      SHA-256 of names, shapes, dtypes and contents, in hexadecimal.

    Raises:
      ValueError: a leaf of objects.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(unfreeze(tree)):
        digest.update(json.dumps([jax.tree_util.keystr(path), fingerprint(leaf)]).encode())
    return digest.hexdigest()
