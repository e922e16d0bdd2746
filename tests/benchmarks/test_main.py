import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest

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
        (("--strategies", "random", "random"), "strategies: expected at least one, each once"),
        (("--strategies", "oracle"), "expected one of .*random.*found 'oracle'"),
        (("--option", "risk=squared"), "expected ntkcpl among the strategies"),
        (("--encoder", "protoclr"), "--encoder: expected --dataset cifar10"),
        (("--labels", "none.npy"), "none.npy: expected a .npy file, found none"),
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
        (["--dataset", "custom"], "--budgets: expected picks of each round"),
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
    assert "rich: not installed; pip install jaxal[bench]" in capsys.readouterr().err


def test_help_says_whose_the_budgets_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["ntkcpl", "--help"])
    assert stopped.value.code == 0
    assert "default budgets are this benchmark's own" in capsys.readouterr().out


def test_importing_is_light():
    code = (
        "import sys, benchmarks.__main__, benchmarks.runner, benchmarks.report\n"
        "heavy = {'tensorflow', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ntkcpl_reports_its_risk(files, tmp_path):
    out = tmp_path / "out"
    extra = ("--option", "kernel_width=32", "--option", "risk=zero_one", "--seeds", "1")
    extra = (*extra, "--budgets", "4", "3")
    assert run_main(files, out, *extra, strategies=("ntkcpl", "random")) == 0
    risks = [line.split(",")[-1] for line in (out / "results.csv").read_text().splitlines()[1:]]
    assert all(0 <= float(risk) <= 1 for risk in risks[:2]) and set(risks[2:]) == {""}
    assert (out / "risk.png").exists()
    assert "risk=zero_one" in (out / "table.md").read_text()
    assert run_main(files, out, "--option", "witdh=3", "--overwrite", strategies=("ntkcpl",)) == 2
