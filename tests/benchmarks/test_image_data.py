"""What ntkcpl checks before it makes features from images."""

import argparse

import numpy as np
import pytest

import benchmarks.image_data
from benchmarks.__main__ import main
from benchmarks.image_data import name_images
from jaxal.models.encoders import get_encoder
from jaxal.models.saved import save_variables

NETWORK = ["ntkcpl", "--dataset", "digits", "--encoder", "conv4", "--size", "16", "--width", "2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import jax

    encoder = get_encoder("conv4", num_filters=2, image_size=16)
    path = tmp_path_factory.mktemp("weights") / "encoder.npz"
    variables = jax.jit(encoder.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    save_variables(path, dict(variables), {})
    return str(path)


@pytest.fixture
def extracted(monkeypatch):
    """Count extractions, which never come to an end."""
    calls = []

    def extract(*args, **kwargs):
        calls.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmarks.image_data, "extract", extract)
    return calls


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--strategies", "oracle"), "found 'oracle'"),
        (("--seeds", "0"), "--seeds: expected at least 1"),
        (("--budgets", "1298"), "budgets: expected at most 1297"),
        (("--option", "ridge=-1"), "--option ntkcpl: ridge"),
        (("--features", "x.npy"), "--features: expected none beside --encoder conv4"),
        (("--test-labels", "x.npy"), "--test-labels: expected none beside"),
        (("--num-classes", "10"), "--num-classes: expected none beside"),
        (("--folder", "x"), "--dataset: expected none beside --folder, or imagenet100"),
        (("--dataset", "beans"), "--budgets: expected some for beans"),
        (("--batch-size", "0"), "--batch-size: expected a whole number"),
        (("--split", "train"), "--split: expected a data set of tensorflow-datasets"),
    ],
)
def test_bad_options_are_refused_before_extraction(
    weights, extracted, tmp_path, capsys, extra, message
):
    given = [*NETWORK, "--weights", weights, "--cache", str(tmp_path / "cache")]
    assert main([*given, "--out", str(tmp_path / "out"), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not extracted and not (tmp_path / "out").exists()


def test_results_are_refused_before_extraction(weights, extracted, tmp_path, capsys):
    given = [*NETWORK, "--weights", weights, "--cache", str(tmp_path / "cache")]
    given += ["--out", str(tmp_path / "out")]
    # An interruption leaves nothing in the way of the same command.
    for _ in range(2):
        assert main(given) == 130
        said = f"the same command goes on from {tmp_path / 'cache'}"
        assert said in capsys.readouterr().err
    (tmp_path / "out" / "runs").mkdir(exist_ok=True)
    (tmp_path / "out" / "runs" / "random-0.json").write_text("{}")
    assert main(given) == 2
    assert "pass --resume" in capsys.readouterr().err and len(extracted) == 2


def test_flags_for_images_want_a_network(capsys):
    for flag in ("--split", "--batch-size", "--folder"):
        assert main(["ntkcpl", "--encoder", "protoclr", flag, "1"]) == 2
        assert f"{flag}: expected a network as --encoder" in capsys.readouterr().err


def test_names_of_data_sets():
    def named(dataset, folder=None, budgets=None):
        args = argparse.Namespace(
            dataset=dataset,
            folder=folder,
            budgets=budgets,
            batch_size=None,
            cache=None,
            out=None,
            encoder="vit_s16",
        )
        found = name_images(args)
        assert found.out.parts == ("results", found.cache.name)
        return found.dataset, found.images_of, list(found.budgets), found.cache.name

    folder = benchmarks.image_data.Path("photos")
    assert named("imagenet100", folder) == (
        "imagenet100",
        "imagenet100",
        [100] * 10,
        "imagenet100-vit_s16",
    )
    assert named(None, folder, [5]) == ("custom", "photos", [5], "photos-vit_s16")
    assert named("custom", folder, [5])[:2] == ("custom", "photos")
    assert named("digits")[:2] == ("custom", "digits")
    assert named("pets") == ("pets", "pets", [37] * 10, "pets-vit_s16")
    assert named("beans", None, [5])[:2] == ("beans", "beans")
