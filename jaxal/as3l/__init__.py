"""AS3L (arXiv 2203.04560): which few samples to label, and what their labels say of the others.

`select_as3l` picks the medoids of stable groups, with no label; `prior_labels` makes their labels
prior pseudo-labels of the whole pool, which `jaxal.train.train_semi` starts from. The features to
group are what `fine_tune_features` gives, or `jaxal.cluster_embedding`.
"""

from jaxal.as3l.priors import Prior, prior_labels
from jaxal.clustering.groups import Groups, find_groups, order_groups, repeat_kmeans
from jaxal.clustering.medoids import mean_distances
from jaxal.clustering.tuned_features import FineTuned, fine_tune_features
from jaxal.select.as3l import AS3L, As3lInfo, select_as3l

__all__ = [
    "AS3L",
    "As3lInfo",
    "FineTuned",
    "Groups",
    "Prior",
    "find_groups",
    "fine_tune_features",
    "mean_distances",
    "order_groups",
    "prior_labels",
    "repeat_kmeans",
    "select_as3l",
]
