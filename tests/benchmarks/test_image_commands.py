"""The commands that work from images, on the digits and on files."""

import argparse
import csv
import json
import sys

import numpy as np
import pytest

from benchmarks import finetuning
from benchmarks.__main__ import main
from benchmarks.images import add_images, open_images
from jaxal.models.saved import load_variables

SMALL = ["--dataset", "digits", "--size", "16", "--width", "4", "--test-limit", "60"]


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrain")
    given = ["pretrain", *SMALL, "--limit", "96", "--batch-size", "48", "--epochs", "2"]
    assert main([*given, "--out", str(out)]) == 0
    return out


def test_pretraining_writes_weights_and_a_report(pretrained):
    history = lines_of(pretrained / "history.csv")
    assert [line["epoch"] for line in history] == ["1", "2"]
    assert all(0 <= float(line["knn_accuracy"]) <= 1 for line in history)
    variables, about = load_variables(pretrained / "encoder.npz")
    assert set(variables) == {"params", "batch_stats"}
    assert about["encoder"] == "conv4" and about["config"]["epochs"] == about["epochs"] == 2
    assert "simsiam of conv4 on digits" in (pretrained / "report.md").read_text()
    for name in ("curves.png", "features.png"):
        assert (pretrained / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_pretraining_goes_on_where_it_stood(pretrained, capsys):
    given = ["pretrain", *SMALL, "--limit", "96", "--batch-size", "48", "--epochs", "2"]
    before = lines_of(pretrained / "history.csv")
    assert main([*given, "--out", str(pretrained)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*given, "--out", str(pretrained), "--resume"]) == 0
    assert lines_of(pretrained / "history.csv") == before
    assert main([*given, "--method", "simclr", "--out", str(pretrained), "--resume"]) == 2
    assert "method" in capsys.readouterr().err


def test_features_are_made_once(pretrained, tmp_path, capsys):
    given = ["features", *SMALL, "--limit", "80", "--batch-size", "32"]
    given += ["--out", str(tmp_path), "--weights", str(pretrained / "encoder.npz")]
    assert main(given) == 0
    first = np.load(tmp_path / "train.npy")
    assert first.shape == (80, 4) and np.load(tmp_path / "test.npy").shape == (60, 4)
    assert np.load(tmp_path / "train_labels.npy").shape == (80,)
    assert "nearest neighbours" in (tmp_path / "report.md").read_text()
    assert main(given) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "train.npy"), first)
    capsys.readouterr()
    assert main(given[:-2]) == 2
    assert "weights" in capsys.readouterr().err


@pytest.mark.slow
def test_features_are_compared_with_others(pretrained, tmp_path):
    given = ["features", "--dataset", "digits", "--size", "16", "--width", "4", "--holdout", "100"]
    given += ["--weights", str(pretrained / "encoder.npz"), "--limit", "90"]
    assert main([*given, "--out", str(tmp_path / "a")]) == 0
    parser = argparse.ArgumentParser()
    add_images(parser)
    images = open_images(parser.parse_args([*given[1:3], "--holdout", "100", "--limit", "90"]))
    whole = np.zeros((1297, 4), np.float32)
    whole[images.rows] = np.load(tmp_path / "a" / "train.npy")
    whole[images.held_rows] = np.load(tmp_path / "a" / "test.npy")
    np.save(tmp_path / "other.npy", 2 * whole[:, :2] + 1)
    given += ["--against", str(tmp_path / "other.npy"), "--out", str(tmp_path / "b")]
    assert main(given) == 0
    report = (tmp_path / "b" / "report.md").read_text()
    assert "explains 100.00 % of the variance of those in other.npy" in report
    assert report.count("a linear head") == 2
    np.save(tmp_path / "other.npy", whole[:50])
    assert main([*given, "--out", str(tmp_path / "c")]) == 2
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_fine_tuning_tabulates_and_resumes(pretrained, tmp_path, capsys):
    given = ["finetune", *SMALL, "--weights", str(pretrained / "encoder.npz"), "--epochs", "2"]
    given += ["--num-labels", "20", "--out", str(tmp_path)]
    assert main([*given, "--methods", "lp", "--seeds", "1"]) == 0
    assert main([*given, "--methods", "lp", "ft", "lpft", "--seeds", "1", "--resume"]) == 0
    rows = lines_of(tmp_path / "results.csv")
    assert [row["method"] for row in rows] == ["lp", "ft", "lpft"]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    assert "| lpft" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main([*given, "--resume", "--scale", "cifar10"]) == 2
    assert "other settings (recipes)" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_fine_tuning_goes_on_within_its_run(tmp_path, monkeypatch):
    given = ["finetune", *SMALL, "--epochs", "3", "--num-labels", "20", "--seeds", "1"]
    given += ["--methods", "lpft", "--out"]
    module = sys.modules["jaxal.train.finetune"]  # jaxal.train has a function of that name
    save, saved = module.save_checkpoint, []

    def counted(path, *args, **options):
        save(path, *args, **options)
        saved.append(path.name)
        if len(saved) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_checkpoint", counted)
    assert main([*given, str(tmp_path / "whole")]) == 0 and not saved
    monkeypatch.setattr(finetuning, "_LONG", 0.0)
    assert main([*given, str(tmp_path / "broken")]) == 130
    assert [path.name for path in (tmp_path / "broken" / "checkpoints").iterdir()] == ["lpft-20-0"]
    assert main([*given, str(tmp_path / "broken"), "--resume"]) == 0
    assert saved == ["probe"] * 3 + ["finetune"] * 3
    rows = [lines_of(tmp_path / name / "results.csv")[0] for name in ("whole", "broken")]
    for row in rows:
        row.pop("seconds")
    assert rows[0] == rows[1] and not (tmp_path / "broken" / "checkpoints").exists()


def test_files_and_folders_of_images(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(12, 20, 20, 3), dtype=np.uint8), np.arange(12) % 3
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", labels)
    for i, image in enumerate(images):
        folder = tmp_path / "images" / f"class_{labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    small = ["--size", "16", "--width", "2", "--batch-size", "4"]
    ways = {
        "files": ["--images", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy")],
        "folder": ["--folder", str(tmp_path / "images")],
    }
    for name, way in ways.items():
        assert main(["features", *way, *small, "--out", str(tmp_path / name)]) == 0
        assert np.load(tmp_path / name / "train.npy").shape == (12, 2)
    found = np.load(tmp_path / "folder" / "train.npy")
    names = sorted(range(12), key=lambda i: (labels[i], f"{i}.png"))
    np.testing.assert_allclose(found, np.load(tmp_path / "files" / "train.npy")[names], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["features"], "images: expected one of --dataset, --folder and --images"),
        (["features", "--dataset", "digits", "--folder", "x"], "found 2 of them"),
        (["features", "--folder", "nowhere"], "nowhere"),
        (["features", *SMALL, "--weights", "none.npz"], "none.npz"),
        (
            ["pretrain", *SMALL, "--limit", "20", "--batch-size", "21"],
            "--batch-size: expected at most the 20 images",
        ),
        (["features", "--dataset", "digits", "--width", "0"], "--width: expected a whole number"),
        (["features", "--dataset", "digits", "--size", "8"], "--size: expected at least 16"),
        (["finetune", *SMALL, "--encoder", "mobilenet_v2"], "--width: expected none with mobile"),
        (["pretrain", *SMALL, "--method", "simclr", "--scale", "imagenet"], "--scale"),
        (["finetune", *SMALL, "--num-labels", "2000"], "--num-labels: expected at most"),
        (["finetune", *SMALL, "--seeds", "0"], "--seeds"),
        (["features", *SMALL, "--holdout", "1297"], "--holdout: expected less than the 1297"),
        (["features", "--test-folder", "x"], "--folder: expected beside --test-folder"),
        (["pretrain", *SMALL, "--monitor-every", "0"], "--monitor-every"),
        (["pretrain", *SMALL, "--learning-rate", "-1"], "error: --learning-rate: expected"),
        (["finetune", *SMALL, "--learning-rate", "-1"], "error: --learning-rate: expected"),
        (["finetune", *SMALL, "--num-labels", "10", "10"], "--num-labels: expected each once"),
        (["finetune", *SMALL, "--methods", "lp", "lp"], "--methods: expected each once"),
    ],
)
def test_bad_options_are_named_before_anything_is_made(given, message, tmp_path, capsys):
    assert main([*given, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["pretrain", "features", "finetune"])
@pytest.mark.parametrize("extra", [(), ("--overwrite",)])
def test_files_of_others_are_left_alone_before_images_are_opened(command, extra, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("kept")
    extra = () if command == "features" else extra
    given = [command, "--folder", "nowhere", "--out", str(tmp_path), *extra]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert said == (
        f"error: {tmp_path}: expected an empty folder or a benchmark's, found other files "
        "(thesis.txt)\n"
    )
    (tmp_path / "report.md").write_text("of an earlier run")
    (tmp_path / "table.md").write_text("of an earlier run")
    assert main(given) == 2
    assert "nowhere" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.glob("*.txt")] == ["kept"]
    assert main([*given[: -2 - len(extra)], "--out", str(tmp_path / "thesis.txt")]) == 2
    assert "--out: expected a folder, found the file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["pretrain", "features", "finetune"])
def test_a_data_set_that_is_not_there_is_named(command, tmp_path, capsys, monkeypatch):
    given = [command, "--dataset", "nosuch", "--out", str(tmp_path / "out")]
    assert main([*given, "--data-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --data-dir: expected nosuch as tensorflow-datasets prepares it")
    assert f"to prepare it: tfds build nosuch --data_dir={tmp_path}" in said
    monkeypatch.delenv("JAXAL_DATA", raising=False)
    assert main(given) == 2
    assert "JAXAL_DATA: expected" in capsys.readouterr().err
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("pretrain", ("--learning-rate", "-1")),
        ("pretrain", ("--monitor-every", "0")),
        ("finetune", ("--learning-rate", "-1")),
        ("finetune", ("--head-learning-rate", "-1", "--methods", "lp")),
    ],
)
def test_overwriting_waits_for_the_options_to_be_checked(command, extra, tmp_path):
    for name in ("encoder.npz", "runs.json", "settings.json"):
        (tmp_path / name).write_text("kept")
    assert main([command, *SMALL, *extra, "--out", str(tmp_path), "--overwrite"]) == 2
    assert {path.read_text() for path in tmp_path.iterdir()} == {"kept"}
    assert len(list(tmp_path.iterdir())) == 3


def test_an_interrupted_extraction_says_how_to_go_on(pretrained, tmp_path, capsys, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.extraction.extract_features", stopped)
    given = ["features", *SMALL, "--weights", str(pretrained / "encoder.npz")]
    assert main([*given, "--out", str(tmp_path)]) == 130
    said = capsys.readouterr().err
    assert "the same command goes on" in said and "--resume" not in said


def test_one_fine_tuning_and_its_settings(pretrained, tmp_path):
    given = ["finetune", *SMALL, "--methods", "lp", "--seeds", "1", "--epochs", "1"]
    assert main([*given, "--num-labels", "10", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "settings.json").read_text())["recipes"]["ft"]["epochs"] == 1


def test_ntkcpl_chooses_among_images(pretrained, tmp_path, capsys):
    given = ["ntkcpl", "--dataset", "digits", "--encoder", "conv4", "--size", "16", "--width", "4"]
    given += ["--weights", str(pretrained / "encoder.npz"), "--cache", str(tmp_path / "features")]
    given += ["--strategies", "random", "ntkcpl", "--seeds", "1", "--budgets", "10", "10"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    rows = lines_of(tmp_path / "out" / "results.csv")
    assert [(row["strategy"], row["num_labeled"]) for row in rows] == [
        (name, count) for name in ("random", "ntkcpl") for count in ("10", "20")
    ]
    assert np.load(tmp_path / "features" / "train.npy").shape == (1297, 4)
    assert "conv4 (encoder.npz)" in (tmp_path / "out" / "table.md").read_text()
    capsys.readouterr()
    assert main([*given[:7], "--out", str(tmp_path / "other")]) == 2
    assert "--weights" in capsys.readouterr().err
