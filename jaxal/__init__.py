"""Active learning on pre-trained and self-supervised vision models, in JAX.

The functions most used are here; each layer is a module of its own: `jaxal.active` (the loop),
`jaxal.select` (strategies), `jaxal.train` and `jaxal.models` (heads), `jaxal.pseudolabels`,
`jaxal.risk`, `jaxal.regression`, `jaxal.embedding`, `jaxal.clustering`, `jaxal.neighbors` and
`jaxal.kernels`.
"""

from jaxal.active import ask, cancel, fit_head, load, relabel, run, save, skip, start, tell
from jaxal.clustering import kmeans, seeded_kmeans, split_clusters
from jaxal.embedding import cluster_embedding
from jaxal.kernels.dense import dense_ntk
from jaxal.kernels.empirical import empirical_ntk
from jaxal.neighbors import nearest_neighbors
from jaxal.pseudolabels import cluster_pseudo_labels
from jaxal.records import fingerprint
from jaxal.regression import commit, look_ahead, posterior
from jaxal.select import STRATEGIES, Pool, Strategy, get_strategy
from jaxal.train.head import LINEAR, PROXY, HeadConfig, predict_head, train_head

__version__ = "0.1.0"

__all__ = [
    "LINEAR",
    "PROXY",
    "STRATEGIES",
    "HeadConfig",
    "Pool",
    "Strategy",
    "ask",
    "cancel",
    "cluster_embedding",
    "cluster_pseudo_labels",
    "commit",
    "dense_ntk",
    "empirical_ntk",
    "fingerprint",
    "fit_head",
    "get_strategy",
    "kmeans",
    "load",
    "look_ahead",
    "nearest_neighbors",
    "posterior",
    "predict_head",
    "relabel",
    "run",
    "save",
    "seeded_kmeans",
    "skip",
    "split_clusters",
    "start",
    "tell",
    "train_head",
]
