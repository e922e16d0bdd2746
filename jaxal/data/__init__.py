"""Images: where they come from, batches of them, and their features on the disk.

`jaxal.data.sources` says what a source of images is; `jaxal.data.arrays`, `jaxal.data.folder` and
`jaxal.data.tfds` make sources; `jaxal.data.decoding` and `jaxal.data.tfrecord` read their files.
`jaxal.data.batches` loads batches of a source ahead of their use; `jaxal.data.features` computes
features of all of it and keeps them in the files of `jaxal.data.cache`.
"""

from jaxal.data.arrays import from_arrays, open_npy
from jaxal.data.batches import epoch_batches, epoch_order, load_batches
from jaxal.data.decoding import decode_image
from jaxal.data.features import extract_features
from jaxal.data.folder import EXTENSIONS, FolderSource, open_folder
from jaxal.data.sources import ImageSource, take
from jaxal.data.tfds import TfdsSource, open_tfds

__all__ = [
    "EXTENSIONS",
    "FolderSource",
    "ImageSource",
    "TfdsSource",
    "decode_image",
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
