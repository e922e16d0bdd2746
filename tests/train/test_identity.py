from functools import partial

import flax.linen as nn

from jaxal.records import describe
from jaxal.train.identity import describe_function, describe_module


class Net(nn.Module):
    activation: object = nn.relu


def scale(x, factor):
    return factor * x


def test_modules_tell_their_fields_and_no_addresses():
    assert describe_module(Net()) == describe_module(Net(nn.relu))
    assert describe_module(Net()) != describe_module(Net(nn.gelu))
    assert "0x" not in describe_module(Net())


def test_bound_arguments_tell_functions_apart():
    found = [
        describe(describe_function(partial(scale, factor=factor)), "fn") for factor in (2, 2, 3)
    ]
    assert found[0] == found[1] != found[2]
    assert describe_function(scale) is scale
