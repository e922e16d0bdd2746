"""What a data set's name and --preset choose, and what goes before them."""

import argparse
import re

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.arguments import make_plan
from benchmarks.plan import check_plan
from benchmarks.presets import BUDGETS, PRESETS, apply_preset, describe_presets
from benchmarks.runner import HEADS
from jaxal.models.encoders import ENCODERS

GIVEN = {
    "preset": "paper",
    "dataset": "cifar10",
    "encoder": None,
    "size": None,
    "head": None,
    "scale": None,
    "features": None,
    "test_features": None,
    "budgets": None,
    "strategies": ["ntkcpl", "random"],
    "option": [],
    "variant": [],
    "seeds": 3,
    "pool_size": None,
    "holdout": None,
}


def chosen(**given):
    args = apply_preset(argparse.Namespace(**{**GIVEN, **given}))
    return args, make_plan(args, args.dataset)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_the_published_head_on_raw_features(name):
    args, plan = chosen(dataset=name)
    check_plan(plan)
    assert plan.budgets == BUDGETS[name] and not plan.scale
    assert (args.encoder, args.size) == PRESETS[name][:2] and args.encoder in ENCODERS
    options = plan.entries["ntkcpl"].options
    assert options["risk"] == "zero_one" and options["max_clusters"] == 100
    head = HEADS[plan.head]
    assert head.use_batch_norm and not plan.entries["random"].options
    if name == "imagenet100":
        assert head.hidden == (4096,) and options["kernel_width"] == 4096
    else:
        assert head.hidden == "same" and options["kernel_width"] is None


def test_the_command_line_goes_before_a_preset():
    args, plan = chosen(
        encoder="resnet50",
        head="linear",
        scale=True,
        budgets=[5],
        option=["max_clusters=300", "risk=squared"],
        variant=[["ours", "ridge=0.2"]],
    )
    assert (args.encoder, args.size) == ("resnet50", None)
    assert (plan.head, plan.scale, plan.budgets) == ("linear", True, (5,))
    options = plan.entries["ntkcpl"].options
    assert (options["max_clusters"], options["risk"]) == (300, "squared")
    assert options["weighting"] == "uniform"
    assert plan.entries["ours"].options == {"ridge": 0.2}
    args, _ = chosen(features="x.npy")
    assert args.encoder is None and args.size is None


def test_without_a_preset_the_defaults_stay():
    _, plan = chosen(preset=None, dataset="svhn")
    assert (plan.head, plan.scale, plan.budgets) == ("linear", True, BUDGETS["svhn"])
    assert not plan.entries["ntkcpl"].options


def test_a_preset_wants_a_data_set_of_its_own(capsys):
    for extra, found in (((), "None"), (("--dataset", "digits"), "digits")):
        assert main(["ntkcpl", "--preset", "paper", *extra]) == 2
        said = capsys.readouterr().err
        assert re.search(rf"--preset: expected --dataset of cifar10, .*, found {found}\n", said)


def test_a_preset_names_its_encoder_where_weights_are_missing(capsys, tmp_path):
    folder = tmp_path / "a" / "x"
    folder.mkdir(parents=True)
    given = ["ntkcpl", "--preset", "paper", "--dataset", "imagenet100", "--folder", str(tmp_path)]
    assert main([*given, "--out", str(tmp_path / "out")]) == 2
    assert "expected images" in capsys.readouterr().err
    assert main([*given, "--labels", "y.npy"]) == 2
    assert "--labels: expected none beside --encoder resnet50" in capsys.readouterr().err


def test_the_help_tabulates_presets(capsys):
    lines = describe_presets().splitlines()
    assert len(lines) == 1 + len(PRESETS)
    assert "2048-4096-100" in lines[1 + list(PRESETS).index("imagenet100")]
    with pytest.raises(SystemExit):
        main(["ntkcpl", "--help"])
    said = capsys.readouterr().out
    assert describe_presets() in said and "--preset {paper}" in said and "Ours are" in said


@pytest.mark.slow
def test_a_preset_runs_and_says_what_is_ours(tmp_path, capsys):
    rng = np.random.default_rng(0)
    given = ["ntkcpl", "--preset", "paper", "--dataset", "svhn", "--seeds", "1"]
    for prefix, n in (("", 80), ("test-", 20)):
        labels = np.arange(n) % 10
        features = 2 * np.eye(10, 12)[labels] + 0.3 * rng.normal(size=(n, 12))
        for name, array in (("features", features), ("labels", labels)):
            np.save(tmp_path / f"{prefix}{name}.npy", array)
            given += [f"--{prefix}{name}", str(tmp_path / f"{prefix}{name}.npy")]
    given += ["--strategies", "ntkcpl", "random", "--budgets", "10", "5", "5", "5"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Preset paper" in text and "are ours" in text and "head mlp" in text
    assert "features as they are" in text and "refinement=split" in text
    assert "if all rounds are like this one of ntkcpl" in capsys.readouterr().out
