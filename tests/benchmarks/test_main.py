import functools
import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import benchmarks.digits
import benchmarks.runner
from benchmarks.__main__ import main

STRATEGIES = ("random", "margin", "coreset")


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    means = 3 * rng.normal(size=(3, 6))
    arguments = []
    for prefix, n in (("", 60), ("test-", 30)):
        labels = rng.integers(3, size=n)
        features = means[labels] + rng.normal(size=(n, 6))
        for name, array in (("features", features.astype(np.float16)), ("labels", labels)):
            np.save(tmp_path / f"{prefix}{name}.npy", array)
            arguments += [f"--{prefix}{name}", str(tmp_path / f"{prefix}{name}.npy")]
    return arguments


def command(files, out, *extra, strategies=STRATEGIES):
    given = ["ntkcpl", "--dataset", "custom", *files, "--strategies", *strategies]
    return [*given, "--budgets", "4", "3", "5", "--seeds", "2", "--out", str(out), *extra]


def run_main(files, out, *extra, **kwargs):
    return main(command(files, out, *extra, **kwargs))


def accuracies(out):
    lines = (out / "results.csv").read_text().splitlines()
    return [line.split(",")[:5] for line in lines]


def test_writes_everything(files, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_main(files, out) == 0
    lines = accuracies(out)
    assert len(lines) == 1 + 3 * 2 * 3
    assert [line[:3] for line in lines[1:4]] == [["random", "0", n] for n in ("4", "7", "12")]
    text = (out / "table.md").read_text()
    for part in ("coreset", "±", "picks a round 4 3 5", "seeds 0 1", "jax 0.", "device cpu"):
        assert part in text
    assert (out / "curves.png").exists() and not (out / "risk.png").exists()
    assert text.splitlines()[0] in capsys.readouterr().out
    # The picks of one seed start alike where a strategy cannot start cold.
    runs = [json.loads((out / "runs" / f"{n}-1.json").read_text()) for n in ("random", "margin")]
    first = [run["content"]["history"][0]["picks"] for run in runs]
    assert first[0] == first[1]


def test_resuming_gives_what_an_unbroken_run_gives(files, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_main(files, whole) == 0
    calls = 0
    evaluate = benchmarks.runner._evaluate

    def stop(*args):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(benchmarks.runner, "_evaluate", stop)
    assert run_main(files, broken) == 130
    assert not (broken / "results.csv").exists()
    monkeypatch.undo()
    assert run_main(files, broken, "--resume") == 0
    assert accuracies(broken) == accuracies(whole)
    finished = (broken / "results.csv").read_bytes()
    assert run_main(files, broken, "--resume") == 0
    assert (broken / "results.csv").read_bytes() == finished


def test_results_are_not_touched_unasked(files, tmp_path, capsys):
    out = tmp_path / "out"
    few = {"strategies": ("random",)}
    assert run_main(files, out, **few) == 0
    before = (out / "results.csv").read_bytes()
    assert run_main(files, out, **few) == 2
    assert "pass --resume to go on" in capsys.readouterr().err
    for extra in ((), ("--resume",)):
        assert run_main(files, out, "--head", "mlp", *extra, **few) == 2
        assert "head: now 'mlp', there 'linear'" in capsys.readouterr().err
    np.save(files[1], np.load(files[1]) + np.float16(1))
    assert run_main(files, out, "--resume", **few) == 2
    assert "other settings (data" in capsys.readouterr().err
    assert (out / "results.csv").read_bytes() == before
    (out / "mine.txt").write_text("keep")
    assert run_main(files, out, "--head", "linear", "--overwrite", **few) == 0
    assert (out / "results.csv").read_bytes() != before
    assert (out / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("extra", [(), ("--resume",), ("--overwrite",)])
def test_a_folder_of_other_files_is_refused(files, tmp_path, capsys, extra):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("")
    assert run_main(files, out, *extra) == 2
    assert "expected an empty folder or a benchmark's" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_damaged_run_is_named(files, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_main(files, out, strategies=("random",)) == 0
    path = out / "runs" / "random-0.json"
    path.write_text(path.read_text()[:100])
    assert run_main(files, out, "--resume", strategies=("random",)) == 2
    assert "random-0.json: truncated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        (("--budgets", "50", "20"), "budgets: expected at most 60"),
        (("--budgets", "0"), "budgets"),
        (("--pool-size", "10"), "budgets: expected at most 10"),
        (("--pool-size", "99"), "pool-size: expected at most 60, found 99"),
        (("--seeds", "0"), "--seeds: expected at least 1"),
        (("--strategies", "random", "random"), "strategies: expected each once, found"),
        (("--strategies", "oracle"), "expected one of .*random.*found 'oracle'"),
        (("--option", "risk=squared"), "expected ntkcpl among the strategies"),
        (("--encoder", "protoclr"), "--encoder: expected --dataset cifar10"),
        (("--labels", "none.npy"), "none.npy: expected a .npy file, found none"),
        (("--num-classes", "0"), "num_classes: expected a whole number of at least 1, found 0"),
        (("--num-classes", "2"), r"labels: expected labels in 0\.\.1, found 2"),
        (("--option", "coreset.space"), "--option coreset: expected KEY=VALUE, found 'space'"),
        (
            ("--strategies", "ntkcpl", "--option", "ridge=-1"),
            "--option ntkcpl: ridge: expected a number",
        ),
        (("--option", "typiclust.num_neighbors=1"), "expected typiclust among the strategies"),
        (("--option", "coreset.space=x"), "coreset: space: expected one of features, hidden"),
        (("--variant", "a", "foo"), "--variant a: expected KEY=VALUE, found 'foo'"),
        (("--variant", "a", "typiclust", "num_neighbors=0"), "--variant a: num_neighbors"),
        (("--variant", "a", "witdh=3"), "--variant a: expected one of .*ridge.*found 'witdh'"),
        (("--variant", "a", "num_restarts=0"), "--variant a: num_restarts: expected a whole"),
        (("--variant", "a", "--variant", "a"), "--variant: expected each name once"),
        (("--variant", "random", "ridge=1"), "that is no strategy's, found 'random'"),
        (("--holdout", "50"), "budgets: expected at most 10"),
        (("--holdout", "60"), "expected at most 0 beside 60 held out, found all"),
    ],
)
def test_refuses_before_anything_is_written(files, tmp_path, capsys, extra, match):
    out = tmp_path / "out"
    assert run_main(files, out, *extra) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(match, error)
    assert not out.exists()


def test_missing_arguments_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JAXAL_DATA", raising=False)
    out = ["--out", str(tmp_path / "out")]
    for given, match in (
        (["--dataset", "custom", "--budgets", "1"], "--labels, --test-features, --test-labels"),
        (["--dataset", "custom"], "custom: expected --features, --labels, "),
        (["--dataset", "custom"], "--test-labels, --budgets"),
        (["--labels", "y.npy"], "custom: expected --features, --test-features"),
        (["--dataset", "cifar10"], "cifar10: expected --encoder, or --features"),
        (["--encoder", "protoclr"], "JAXAL_DATA: expected the environment to name"),
    ):
        assert main(["ntkcpl", "--strategies", "random", *given, *out]) == 2
        assert match in capsys.readouterr().err


def test_encoder_reads_prepared_files(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "features"
    (folder / "cifar10_protoclr").mkdir(parents=True)
    for split, n in (("train", 40), ("test", 20)):
        np.save(folder / "cifar10_protoclr" / f"{split}.npy", rng.normal(size=(n, 5)))
        np.save(folder / f"cifar10_labels_{split}.npy", rng.integers(10, size=n).astype(np.uint8))
    monkeypatch.setenv("JAXAL_DATA", str(tmp_path / "data"))
    given = ["ntkcpl", "--encoder", "protoclr", "--strategies", "random", "--seeds", "2"]
    given += ["--budgets", "5", "5", "--pool-size", "30", "--no-scale", "--head", "linear"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert "self-supervised on mini-ImageNet" in text and "pool 30 of 40 rows" in text


def test_missing_extra_says_how_to_install(files, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "rich" else find(name)
    )
    assert run_main(files, tmp_path / "out") == 2
    assert 'rich: not installed; pip install -e ".[bench]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ((), ("--strategies NAME", "--seeds", "--resume", "digits, a comparison")),
        (("digits",), ("coreset-hidden", "ridge=0.1 ", "may name more strategies")),
        (
            ("ntkcpl",),
            (
                "--preset paper, beside --dataset",
                "Ours are the picks a round",
                "typiclust",
                "max_evaluations=None",
                "features [n, d], float",
            ),
        ),
    ],
)
def test_help(capsys, given, parts):
    with pytest.raises(SystemExit) as stopped:
        main([*given, "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in parts:
        assert part.strip() in text


def test_importing_is_light():
    code = (
        "import sys, benchmarks.__main__, benchmarks.runner, benchmarks.plots\n"
        "heavy = {'tensorflow', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_own_files_are_custom_data(files, tmp_path):
    out = tmp_path / "out"
    given = ["--strategies", "random", "--budgets", "4", "--seeds", "1", "--out", str(out)]
    assert main(["ntkcpl", *files, *given]) == 0
    text = (out / "table.md").read_text()
    assert text.startswith("# custom, features features.npy") and "3 classes" in text
    assert "(the embedding that is clustered)" in text


def test_features_of_zeros_are_refused_before_anything_is_written(files, tmp_path, capsys):
    np.save(files[1], np.zeros((60, 6)))
    assert run_main(files, tmp_path / "out") == 2
    assert "features: expected numbers other than 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_overwriting_waits_for_the_options_to_be_tried(files, tmp_path):
    out = tmp_path / "out"
    assert run_main(files, out, strategies=("random",)) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for extra in (("--option", "ridge=-1"), ("--variant", "a", "kernel_width=0")):
        assert run_main(files, out, *extra, "--overwrite", strategies=("ntkcpl",)) == 2
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_failed_command_can_be_corrected(files, tmp_path, monkeypatch):
    def fail(*args):
        raise ValueError("failed")

    out = tmp_path / "out"
    monkeypatch.setattr(benchmarks.runner, "run_plan", fail)
    assert run_main(files, out, strategies=("random",)) == 2
    monkeypatch.undo()
    assert run_main(files, out, "--no-scale", strategies=("random",)) == 0


def test_resuming_adds_seeds_strategies_and_rounds(files, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert run_main(files, out, "--seeds", "1", "--budgets", "4", strategies=("random",)) == 0
    more = ("random", "coreset")
    assert run_main(files, out, "--resume", strategies=more) == 0
    assert run_main(files, whole, strategies=more) == 0
    assert accuracies(out) == accuracies(whole)
    assert run_main(files, out, "--resume", "--seeds", "1", strategies=("coreset",)) == 0
    assert [line[0] for line in accuracies(out)] == ["strategy"] + ["coreset"] * 3


def test_a_folder_that_cannot_be_made_is_named(files, tmp_path, capsys):
    assert run_main(files, tmp_path / "features.npy" / "out", strategies=("random",)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "features.npy" in error


def test_a_reader_that_went_away_ends_it_quietly(files, tmp_path):
    read, write = os.pipe()
    os.close(read)
    given = command(files, tmp_path / "out", strategies=("random",))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *given], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert done.returncode == 1 and done.stderr == b""


def test_digits_refuse_budgets_over_their_pool(tmp_path, capsys):
    assert main(["--budgets", "1298", "--out", str(tmp_path / "out")]) == 2
    assert "budgets: expected at most 1297" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_digits_keep_their_features(tmp_path, monkeypatch, capsys):
    calls = []

    def pretrain(*args):
        calls.append(args)
        return functools.partial(original, steps=3)(*args)

    original = benchmarks.digits.pretrain
    monkeypatch.setattr(benchmarks.digits, "pretrain", pretrain)
    given = ["--strategies", "random", "ntkcpl", "--budgets", "10", "10", "--pool-size", "150"]
    given += ["--out", str(tmp_path)]
    assert main([*given, "--seeds", "1"]) == 0
    first = accuracies(tmp_path)
    assert [line[0] for line in first[1:]] == ["random"] * 2 + ["ntkcpl"] * 2
    assert np.load(tmp_path / "features.npy").shape == (1797, 128)
    assert main([*given, "--seeds", "1"]) == 2
    assert "pass --resume" in capsys.readouterr().err
    assert main([*given, "--seeds", "2", "--resume", "--strategies", "random"]) == 0
    assert accuracies(tmp_path)[:3] == first[:3] and len(accuracies(tmp_path)) == 5
    assert len(calls) == 1


@pytest.mark.slow
def test_ntkcpl_reports_its_risk(files, tmp_path):
    out = tmp_path / "out"
    extra = ("--option", "kernel_width=32", "--option", "risk=zero_one", "--seeds", "1")
    extra = (*extra, "--budgets", "4", "3")
    assert run_main(files, out, *extra, strategies=("ntkcpl", "random")) == 0
    risks = [line.split(",")[-2] for line in (out / "results.csv").read_text().splitlines()[1:]]
    assert all(0 <= float(risk) <= 1 for risk in risks[:2]) and set(risks[2:]) == {""}
    assert (out / "risk.png").exists()
    assert "risk=zero_one" in (out / "table.md").read_text()


@pytest.mark.slow
def test_variants_and_the_holdout_are_reported(files, tmp_path):
    out = tmp_path / "out"
    extra = ("--variant", "even", "weighting=uniform", "kernel_width=32", "--holdout", "20")
    extra = (*extra, "--variant", "near", "typiclust", "num_neighbors=5")
    extra = (*extra, "--head", "mlp", "--seeds", "1", "--budgets", "4", "3")
    assert run_main(files, out, *extra, strategies=("random",)) == 0
    assert [line[0] for line in accuracies(out)[1:]] == [
        name for name in ("random", "even", "near") for _ in range(2)
    ]
    text = (out / "table.md").read_text()
    assert "on 20 rows held out of the pool" in text and "head mlp" in text
    assert "even: ntkcpl with weighting=uniform, kernel_width=32" in text
    assert "near: typiclust with num_neighbors=5" in text and "random: " not in text
    assert "pool 40 of 60 rows" in text
