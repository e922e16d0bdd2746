import jax
import numpy as np

from jaxal.models.adapter import Adapter

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def test_it_begins_as_the_identity_and_can_be_trained():
    variables = Adapter(7).init(jax.random.key(0), X)
    np.testing.assert_array_equal(Adapter(7).apply(variables, X, train=True), X)
    hidden, output = (variables["params"][name]["kernel"] for name in ("hidden", "output"))
    assert (hidden.shape, output.shape) == ((3, 7), (7, 3))
    gradient = jax.grad(lambda v: (Adapter(7).apply(v, X) ** 2).sum())(variables)
    assert np.abs(gradient["params"]["output"]["kernel"]).max() > 0
    # By default it is as wide as the features.
    assert Adapter().init(jax.random.key(0), X)["params"]["hidden"]["kernel"].shape == (3, 3)
