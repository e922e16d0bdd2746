"""Images: where they come from, batches of them, and their features on the disk."""

from jaxal.data.arrays import from_arrays, open_npy
from jaxal.data.batches import epoch_batches, epoch_order, load_batches
from jaxal.data.features import extract_features
from jaxal.data.folder import open_folder
from jaxal.data.sources import ImageSource, take
from jaxal.data.tfds import open_tfds

__all__ = [
    "ImageSource",
    "epoch_batches",
    "epoch_order",
    "extract_features",
    "from_arrays",
    "load_batches",
    "open_folder",
    "open_npy",
    "open_tfds",
    "take",
]
