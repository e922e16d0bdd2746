import jax
import numpy as np
import pytest

from jaxal.clustering.groups import repeat_kmeans
from jaxal.clustering.tuned_features import fine_tune_features

KEY = jax.random.key(2)


def draw(n=300, d=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(5, d))[rng.integers(0, 5, n)] * 2 + rng.normal(size=(n, d))


def aims(x, num_clusters, num_runs):
    """Unit rows and the centres that they are trained for, in float64: ``[runs, n, d]``."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    found = repeat_kmeans(
        jax.random.split(KEY)[0], unit.astype(np.float32), num_clusters, num_runs=num_runs
    )
    labels = np.asarray(found.labels)
    centers = [
        np.stack([unit[run == c].mean(0) for c in range(num_clusters)])[run] for run in labels
    ]
    return unit, np.stack(centers)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["one", "each"])
def test_long_training_ends_at_least_squares(outputs):
    x = draw()
    unit, targets = aims(x, 5, 3)
    found = fine_tune_features(
        KEY,
        x,
        5,
        num_runs=3,
        outputs=outputs,
        epochs=3000,
        learning_rate=1e-2,
        train_batch_size=300,
    )
    wanted = targets.mean(0) if outputs == "one" else np.concatenate(list(targets), axis=1)
    design = np.column_stack([unit, np.ones(len(unit))])
    fitted = design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
    assert found.features.shape == wanted.shape
    np.testing.assert_allclose(found.features, fitted, atol=5e-3)
    compared = fitted[None] if outputs == "one" else fitted.reshape(300, 3, -1).transpose(1, 0, 2)
    np.testing.assert_allclose(found.losses[-1], ((compared - targets) ** 2).mean(), rtol=1e-2)


def test_the_layer_starts_at_the_identity():
    x = draw()
    unit, targets = aims(x, 5, 2)
    found = fine_tune_features(KEY, x, 5, num_runs=2, epochs=1, train_batch_size=300)
    np.testing.assert_allclose(found.losses[0], ((unit - targets) ** 2).mean(), rtol=1e-5)


@pytest.mark.parametrize("train_batch_size", [1, 7, 256, 1000])
def test_every_sample_counts_once_an_epoch(train_batch_size):
    # At a rate that changes nothing the loss of an epoch is that of the pool.
    x = draw(41)
    unit, targets = aims(x, 3, 2)
    found = fine_tune_features(
        KEY, x, 3, num_runs=2, epochs=2, train_batch_size=train_batch_size, learning_rate=1e-12
    )
    np.testing.assert_allclose(found.losses, ((unit - targets) ** 2).mean(), rtol=1e-4)
    np.testing.assert_allclose(found.features, unit, atol=1e-5)


def test_one_key_one_result_whatever_the_chunks():
    x = draw()
    given = {"num_runs": 3, "epochs": 5}
    first, again = (fine_tune_features(KEY, x, 5, **given) for _ in range(2))
    np.testing.assert_array_equal(first.features, again.features)
    cut = fine_tune_features(KEY, x, 5, chunk_size=37, **given)
    np.testing.assert_allclose(cut.features, first.features, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_huge_and_tiny_features(scale):
    x = draw(60)
    plain, found = (
        fine_tune_features(KEY, z, 4, num_runs=2, epochs=2).features for z in (x, x * scale)
    )
    np.testing.assert_allclose(found, plain, atol=1e-6)


def test_memory_mapped_and_other_types(tmp_path):
    x = draw(60).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = [fine_tune_features(KEY, z, 4, num_runs=2, epochs=2).features for z in (x, mapped)]
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
def test_equal_samples_and_a_single_one():
    for x, k in ((np.ones((12, 3)), 4), (np.zeros((12, 3)), 2), (np.ones((1, 2)), 1)):
        found = fine_tune_features(KEY, x, k, num_runs=2, epochs=2)
        assert found.features.shape == x.shape and np.isfinite(found.features).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.full((9, 2), np.nan)}, "features: expected finite"),
        ({"features": np.ones(9)}, "features: expected a matrix"),
        ({"num_clusters": 10}, "num_clusters: expected at most 9"),
        ({"num_runs": 0}, "num_runs"),
        ({"epochs": 0}, "epochs"),
        ({"train_batch_size": 0}, "train_batch_size"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0"),
        ({"outputs": "all"}, "outputs: expected one of one, each"),
        ({"chunk_size": 0}, "chunk_size"),
    ],
)
def test_errors(change, message):
    given = {"features": np.ones((9, 2)), "num_clusters": 2, "num_runs": 2, "epochs": 1}
    with pytest.raises(ValueError, match=message):
        fine_tune_features(KEY, **(given | change))


def test_training_that_diverges_says_so():
    with pytest.raises(ValueError, match="learning_rate: training diverged"):
        fine_tune_features(KEY, draw(), 5, num_runs=2, epochs=3, learning_rate=3e38)
