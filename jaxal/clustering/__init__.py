"""Clusters of a pool: k-means, k-means seeded by labels, and recursive splitting."""

from jaxal.clustering.kmeans import kmeans
from jaxal.clustering.lloyd import KMeans
from jaxal.clustering.seeded import seeded_kmeans
from jaxal.clustering.splitting import split_clusters

__all__ = ["KMeans", "kmeans", "seeded_kmeans", "split_clusters"]
