"""Flax networks, and weights for them.

* `ENCODERS`, `get_encoder`: the encoders known by name.
* `Preprocessing`, `preprocess`: what turns stored images into what an encoder reads.
* `read_weights`, `import_weights`: published weights, from a file into an encoder.
* `save_variables`, `load_variables`: one's own, in one file.
* `Classifier`: an encoder and a head in one network.
* `DenseHead`, `head_layers`, `frozen_apply`: heads, and what kernels ask of them.
"""

from jaxal.models.classifier import Classifier
from jaxal.models.encoders import ENCODERS, get_encoder
from jaxal.models.heads import DenseHead, frozen_apply, head_layers
from jaxal.models.preprocess import Preprocessing, preprocess
from jaxal.models.saved import load_variables, save_variables
from jaxal.models.weights import import_weights, read_weights

__all__ = [
    "ENCODERS",
    "Classifier",
    "DenseHead",
    "Preprocessing",
    "frozen_apply",
    "get_encoder",
    "head_layers",
    "import_weights",
    "load_variables",
    "preprocess",
    "read_weights",
    "save_variables",
]
