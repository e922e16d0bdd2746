import jax
import numpy as np
import pytest

from jaxal.train.probes import knn_accuracy, knn_votes, linear_accuracy


def blobs(n, seed, spread=0.4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n)
    return np.eye(3, 6)[labels] + spread * rng.normal(size=(n, 6)), labels


def reference(x, y, queries, k, temperature):
    """Vote in float64 with a plain sort."""
    x, queries = (np.float64(a) / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, queries))
    similarity = queries @ x.T
    votes = np.zeros((len(queries), 3))
    for i, row in enumerate(similarity):
        for j in np.argsort(-row, kind="stable")[:k]:
            votes[i, y[j]] += np.exp(row[j] / temperature)
    return votes / votes.sum(1, keepdims=True)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (60, 0.5)])
def test_votes_equal_a_plain_sort(k, temperature):
    (x, y), (queries, _) = blobs(60, 0), blobs(20, 1)
    votes = knn_votes(x, y, queries, 3, num_neighbors=k, temperature=temperature)
    np.testing.assert_allclose(votes, reference(x, y, queries, k, temperature), atol=2e-5)


def test_fewer_rows_than_the_papers_neighbours_all_vote():
    (x, y), (queries, _) = blobs(60, 0), blobs(20, 1)
    np.testing.assert_allclose(
        knn_votes(x, y, queries, 3), reference(x, y, queries, 60, 0.1), atol=2e-5
    )


def test_good_features_are_told_from_noise():
    (x, y), (queries, wanted) = blobs(300, 0), blobs(200, 1)
    noise = np.random.default_rng(2).normal(size=(500, 6))
    for good, bad in (
        (
            knn_accuracy(x, y, queries, wanted, 3),
            knn_accuracy(noise[:300], y, noise[300:], wanted, 3),
        ),
        (
            linear_accuracy(jax.random.key(0), x, y, queries, wanted, 3),
            linear_accuracy(jax.random.key(0), noise[:300], y, noise[300:], wanted, 3),
        ),
    ):
        assert good > 0.85 and bad < 0.5


def test_bad_input_is_named():
    x, y = blobs(10, 0)
    with pytest.raises(ValueError, match="temperature"):
        knn_votes(x, y, x, 3, temperature=0)
    with pytest.raises(ValueError, match="query_labels"):
        knn_accuracy(x, y, x, y[:3], 3)
    with pytest.raises(ValueError, match="num_neighbors"):
        knn_votes(x, y, x, 3, num_neighbors=11)
    with pytest.raises(ValueError, match="query_labels"):
        linear_accuracy(jax.random.key(0), x, y, x, y[:3], 3)
