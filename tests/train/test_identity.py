import json
from functools import partial

import flax.linen as nn

from jaxal.augment import compose, random_flip, simsiam_view, sometimes, strong, weak
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


def test_functions_within_bound_arguments_tell_them_apart():
    views = [
        weak(),
        weak(padding=2),
        strong(),
        compose(weak(), weak()),
        compose(weak(), weak(padding=2)),
        sometimes(weak(), probability=0.5),
        sometimes(random_flip, probability=0.5),
        simsiam_view(32),
        partial(scale, {"by": [partial(scale, factor=2)]}),
        partial(scale, {"by": [partial(scale, factor=3)]}),
        partial(scale, Net(nn.relu)),
        partial(scale, Net(nn.gelu)),
    ]
    found = [describe(describe_function(view), "fn") for view in views]
    assert all(found.count(description) == 1 for description in found)
    assert describe(describe_function(strong()), "fn") == found[2]
    assert json.loads(json.dumps(found)) == found
