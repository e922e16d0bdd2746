import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxal.train.batches import plain_batches
from jaxal.train.epochs import check_converging, mean_metrics
from jaxal.train.step import init_state


def test_steps_count_by_their_images():
    batches = plain_batches(np.arange(5), 3)
    found = mean_metrics([{"loss": jnp.float32(1)}, {"loss": jnp.float32(6)}], batches)
    assert found == {"loss": pytest.approx((3 * 1 + 2 * 6) / 5)}


@pytest.mark.parametrize(
    "change",
    [
        {"loss": float("nan")},
        {"loss": float("inf")},
        {"params": {"w": jnp.array([0, jnp.nan])}},
        {"batch_stats": {"mean": jnp.array(jnp.inf)}},
        {"ema_params": {"w": jnp.array([0, jnp.nan])}},
    ],
)
def test_divergence_is_named(change):
    state = init_state({"params": {"w": jnp.zeros(2)}}, optax.sgd(0.1, momentum=0.9))
    check_converging("epoch 3", 0.5, state, "the head at 7")
    given = {"loss": 0.5} | change
    loss = given.pop("loss")
    with pytest.raises(ValueError, match=r"diverged in epoch 3 \(loss .*\), with the head at 7;"):
        check_converging("epoch 3", loss, state._replace(**given), "the head at 7")
