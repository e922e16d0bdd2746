import argparse
import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import image_encoders
from benchmarks.image_encoders import (
    add_encoder,
    encode,
    encode_array,
    load_encoder,
    name_encoder,
)
from jaxal.models.saved import save_variables


def parsed(*given):
    parser = argparse.ArgumentParser()
    add_encoder(parser)
    return parser.parse_args([str(x) for x in given])


@functools.cache
def loaded():
    return load_encoder(parsed("--size", "16", "--width", "3"))


def test_new_weights_compile_nothing():
    encoder, images = loaded(), np.full((2, 16, 16, 3), 9, np.uint8)
    first = encode(encoder)(images)
    compiled = image_encoders._encode._cache_size()
    halved = encoder._replace(variables=jax.tree.map(lambda x: x / 2, encoder.variables))
    assert not np.allclose(encode(halved)(images), first)
    assert image_encoders._encode._cache_size() == compiled
    np.testing.assert_array_equal(encode_array(encoder, images), first)


@pytest.mark.slow
def test_several_devices_give_what_one_does(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(259, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, jax, numpy as np\n"
        "sys.argv = ['', '--size', '16', '--width', '3']\n"
        "from benchmarks.image_encoders import *\n"
        "import argparse; parser = argparse.ArgumentParser(); add_encoder(parser)\n"
        "assert jax.device_count() == 2 and find_mesh().size == 2\n"
        "encoder = load_encoder(parser.parse_args())\n"
        f"images = np.load(r'{tmp_path}/images.npy')\n"
        f"np.save(r'{tmp_path}/found.npy', encode_array(encoder, images))"
    )
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["JAX_PLATFORMS"] = "cpu"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, encode_array(loaded(), images), rtol=1e-5, atol=1e-6)


def test_weights_say_which_encoder_they_are_of(tmp_path, capsys):
    encoder, path = loaded(), tmp_path / "encoder.npz"
    save_variables(path, encoder.variables, encoder.about)
    found = load_encoder(parsed("--weights", path))
    assert found.about.items() >= {"encoder": "conv4", "num_filters": 3, "size": 16}.items()
    assert found.preprocessing == encoder.preprocessing and not capsys.readouterr().out
    load_encoder(parsed("--weights", path, "--size", 32))
    assert capsys.readouterr().out == (
        f"--weights {path}: holds conv4 of width 3 for images of 16 pixels, taken as conv4 of "
        "width 3 for images of 32 pixels\n"
    )
    with pytest.raises(ValueError) as error:
        load_encoder(parsed("--weights", path, "--width", 4))
    assert str(error.value) == (
        f"--weights {path}: holds conv4 of width 3 for images of 16 pixels, not conv4 of width 4 "
        "for images of 16 pixels"
    )
    other = name_encoder(parsed("--weights", path, "--encoder", "wrn_28_2"))
    assert (other.encoder, other.width, other.size) == ("wrn_28_2", None, None)
    save_variables(path, encoder.variables, {})
    assert name_encoder(parsed("--weights", path)).encoder == "conv4"
