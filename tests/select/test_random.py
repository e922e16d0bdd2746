import jax
import numpy as np

from jaxal.select import Pool
from jaxal.select.random import select_random


def test_every_free_sample_is_drawn_equally_often():
    pool = Pool(np.zeros((10, 1)), 2, np.array([0, 7]), np.array([0, 1]))
    draws = [select_random(jax.random.key(i), pool, batch_size=2)[0] for i in range(300)]
    counts = np.bincount(np.ravel(draws), minlength=10)
    assert counts[[0, 7]].sum() == 0
    # 600 picks over 8 samples: 75 each, standard deviation 7.5.
    assert abs(np.delete(counts, [0, 7]) - 75).max() < 34
