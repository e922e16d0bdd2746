"""Active learning on pre-trained and self-supervised vision models, in JAX.

The functions most used are here; each layer is a module of its own:

* `jaxal.active`, `jaxal.asktell`, `jaxal.state`: the loop, one round of it, and where it stands.
* `jaxal.select`: the strategies.
* `jaxal.as3l`: few labels by stable groups, and prior pseudo-labels of the rest by them.
* `jaxal.kernels`, `jaxal.regression`: neural tangent kernels; predicting and looking ahead by them.
* `jaxal.clustering`, `jaxal.neighbors`, `jaxal.embedding`: the structure of a pool.
* `jaxal.pseudolabels`, `jaxal.risk`, `jaxal.coverage`: what strategies choose by.
* `jaxal.transferability`, `jaxal.costs`: how well features serve for labels; what both cost.
* `jaxal.calibration`: temperatures of a classifier, and how wrong its confidences are.
* `jaxal.data`, `jaxal.augment`: images, batches, features on the disk; augmentation on the device.
* `jaxal.models`: encoders, heads and published weights.
* `jaxal.train`: heads, fine-tuning, pre-training without labels, evaluation, checkpoints.
* `jaxal.sharding`: batches over several devices.
* `jaxal.asvp`: selection by a proxy beside fine-tuning in every round, with what both cost.
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
