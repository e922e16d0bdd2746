import importlib.util
import json
import re
import shutil

import numpy as np
import pytest

import benchmarks.runner
from benchmarks.__main__ import main

NAMES = ("margin", "coreset", "class-balanced")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Tiny features of both encoders, as below JAXAL_DATA."""
    rng = np.random.default_rng(0)
    labels = {split: np.arange(n) % 10 for split, n in (("train", 60), ("test", 30))}
    root = tmp_path_factory.mktemp("data") / "features"
    for encoder in ("mobilenetv2", "protoclr"):
        (root / f"cifar10_{encoder}").mkdir(parents=True)
        means = 2 * rng.normal(size=(10, 6))
        for split, own in labels.items():
            features = means[own] + rng.normal(size=(len(own), 6))
            np.save(root / f"cifar10_{encoder}" / f"{split}.npy", features.astype(np.float16))
    for split, own in labels.items():
        np.save(root / f"cifar10_labels_{split}.npy", own.astype(np.uint8))
    return root


@pytest.fixture
def folder(prepared, monkeypatch):
    monkeypatch.setenv("JAXAL_DATA", str(prepared.parent))
    return prepared


@pytest.fixture(scope="module")
def reported(prepared, tmp_path_factory):
    """Results on features of one's own, of which 50 rows are drawn."""
    out = tmp_path_factory.mktemp("results")
    assert run(out, *own_files(prepared), "--pool-size", "50") == 0
    return out / "custom"


def own_files(folder):
    return [
        *("--features", str(folder / "cifar10_protoclr" / "train.npy")),
        *("--labels", str(folder / "cifar10_labels_train.npy")),
        *("--test-features", str(folder / "cifar10_protoclr" / "test.npy")),
        *("--test-labels", str(folder / "cifar10_labels_test.npy")),
    ]


def run(out, *extra, names=NAMES):
    given = ["--strategies", *names, "--budgets", "6", "4", "5", "--seeds", "2"]
    return main(["strategies", *given, "--out", str(out), *extra])


def accuracies(path):
    return [line.split(",")[:5] for line in (path / "results.csv").read_text().splitlines()]


def read(text, first):
    """Read the table whose first cell is given into {row: {column: cell}}."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} "))
    cells = []
    while start < len(lines) and lines[start].startswith("|"):
        cells.append([cell.strip() for cell in lines[start].strip("|").split("|")])
        start += 1
    return {line[0]: dict(zip(cells[0][1:], line[1:], strict=True)) for line in cells[2:]}


def test_everything_is_written(reported):
    assert sorted(path.name for path in reported.parent.iterdir()) == ["custom"]
    for name in ("results.csv", "curves.png", "wins.png"):
        assert (reported / name).exists()
    text = (reported / "table.md").read_text()
    rows = ["random", "margin", "coreset", "class-balanced (oracle)"]
    accuracy = read(text, "strategy")
    assert list(accuracy) == rows and list(accuracy["random"]) == ["6", "10", "15", "AUC"]
    assert list(read(text, "seconds a round")) == rows
    for part in ("pool 50 of 60 rows", "seeds 0 1", "Holm", "uncorrected", "since BADGE"):
        assert part in text


def test_oracles_are_in_no_rank_best_or_pair(reported):
    text = (reported / "table.md").read_text()
    standings = read(text[text.index("## Standings") :], "strategy")
    oracle = standings.pop("class-balanced (oracle)")
    assert oracle["AUC"] and not any(oracle[name] for name in ("mean rank", "rounds won"))
    ranks = [float(line["mean rank"].strip("*")) for line in standings.values()]
    assert np.mean(ranks) == pytest.approx(2, abs=0.06)
    first = {name: line["first picks"] for name, line in standings.items()}
    assert first == {"random": "random", "margin": "random", "coreset": "own"}
    pairs = read(text, "row against column")
    assert list(pairs) == list(standings) == list(next(iter(pairs.values())))
    assert not any("**" in line for line in text.splitlines() if "(oracle)" in line)


def test_all_see_the_same(reported):
    saved = {
        name: json.loads((reported / "runs" / f"{name}-1.json").read_text())
        for name in ("random", *NAMES)
    }
    settings = [run["settings"] for run in saved.values()]
    for key in ("features", "seed", "head", "num_classes"):
        assert all(one[key] == settings[0][key] for one in settings)
    first = {name: run["content"]["history"][0]["picks"] for name, run in saved.items()}
    assert first["random"] == first["margin"]
    assert "true_labels" in saved["class-balanced"]["settings"]["options"]
    assert not saved["coreset"]["settings"]["options"]


def test_several_data_sets_are_summarised(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(out, "--datasets", "protoclr", "mobilenetv2") == 0
    text = (out / "summary.md").read_text()
    printed = capsys.readouterr().out
    assert "random is run too, as what the others are held against" in printed
    assert text in printed and (out / "wins.png").exists()
    table = read(text, "strategy")
    assert set(table) == {"random", "margin", "coreset", "class-balanced (oracle)"}
    own = (out / "protoclr" / "table.md").read_text()
    for name, line in read(own[own.index("## Standings") :], "strategy").items():
        assert table[name]["protoclr, AUC"] == line["AUC"]
        assert table[name]["protoclr, rank"] == line["mean rank"]
    assert "[mobilenetv2](mobilenetv2/table.md): cifar10, MobileNetV2" in text


def test_resuming_gives_what_an_unbroken_run_gives(folder, tmp_path, monkeypatch, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    sets = ("--datasets", "protoclr", "mobilenetv2")
    few = {"names": ("coreset",)}
    assert run(whole, *sets, **few) == 0
    evaluate, calls = benchmarks.runner._evaluate, []

    def stop(*args):
        calls.append(args)
        if len(calls) == 14:  # in the second data set
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(benchmarks.runner, "_evaluate", stop)
    assert run(broken, *sets, **few) == 130
    assert f"goes on from {broken}" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("JAXAL_DATA", str(folder.parent))
    assert run(broken, *sets, **few) == 2
    assert "pass --resume" in capsys.readouterr().err
    assert run(broken, *sets, "--resume", **few) == 0
    for name in ("protoclr", "mobilenetv2"):
        assert accuracies(broken / name) == accuracies(whole / name)
    assert (broken / "summary.md").read_text() == (whole / "summary.md").read_text()


def test_what_is_not_there_is_left_out_and_said(folder, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name)
    )
    shutil.copytree(folder, tmp_path / "data" / "features")
    monkeypatch.setenv("JAXAL_DATA", str(tmp_path / "data"))
    missing = tmp_path / "data" / "features" / "cifar10_mobilenetv2" / "test.npy"
    missing.unlink()
    out, few = tmp_path / "out", {"names": ("random",)}
    assert run(out, **few) == 0
    printed = capsys.readouterr().out
    assert "digits is left out: scikit-learn is not installed" in printed
    assert f"mobilenetv2 is left out: {missing} is missing" in printed
    assert [path.name for path in out.iterdir()] == ["protoclr"]
    assert run(tmp_path / "named", "--datasets", "mobilenetv2", **few) == 2
    assert "mobilenetv2: " in capsys.readouterr().err
    monkeypatch.delenv("JAXAL_DATA")
    assert run(tmp_path / "none", **few) == 2
    captured = capsys.readouterr()
    assert "protoclr is left out: JAXAL_DATA" in captured.out
    assert "expected one that is there, found none" in captured.err


@pytest.mark.parametrize(
    ("given", "rows"), [((), 60), (("--pool-size", "99"), 60), (("--pool-size", "40"), 40)]
)
def test_smaller_data_sets_are_taken_whole(folder, tmp_path, capsys, given, rows):
    out = tmp_path / "out"
    assert run(out, "--datasets", "protoclr", *given, names=("random",)) == 0
    assert "is run too" not in capsys.readouterr().out
    assert f"pool {rows} of 60 rows" in (out / "protoclr" / "table.md").read_text()


def test_variants_and_a_holdout(folder, tmp_path):
    out = tmp_path / "out"
    extra = ("--variant", "near", "coreset", "chunk_size=7", "--holdout", "20")
    extra = (*extra, "--option", "margin.chunk_size=9", "--seeds", "1")
    assert run(out, *own_files(folder), *extra, names=("margin",)) == 0
    text = (out / "custom" / "table.md").read_text()
    assert list(read(text, "strategy")) == ["random", "margin", "near"]
    assert "near: coreset with chunk_size=7" in text and "margin with chunk_size=9" in text
    assert "on 20 rows held out of the pool" in text and "With one seed nothing is tested" in text


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        (("--datasets", "protoclr", "protoclr"), "--datasets: expected each once"),
        (("--datasets", "custom"), "custom: expected --features, --labels"),
        (("--datasets", "protoclr", "--features", "x.npy"), "expected custom beside --features"),
        (("--datasets", "protoclr", "--num-classes", "9"), "--num-classes: expected --features"),
        (("--datasets", "protoclr", "--pool-size", "0"), "protoclr: pool-size"),
        (("--datasets", "protoclr", "--holdout", "60"), "protoclr: pool-size: expected at most 0"),
        (("--datasets", "protoclr", "--budgets", "61"), "protoclr: budgets: expected at most 60"),
        (("--datasets", "digits", "--pool-size", "1000", "--budgets", "1001"), "digits: budgets"),
        (("--strategies", "nothing"), "^error: strategy: expected one of .* found 'nothing'"),
        (("--option", "coreset.space=x"), "^error: --option coreset: space: expected one of"),
        (("--option", "coreset.chunk_size=0"), "^error: --option coreset: chunk_size"),
        (("--seeds", "0"), "^error: --seeds: expected at least 1"),
    ],
)
def test_refuses_before_anything_is_written(folder, tmp_path, capsys, extra, match):
    out = tmp_path / "out"
    assert run(out, *extra) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(match, error)
    assert not out.exists()


def test_no_data_set_is_begun_where_one_is_refused(folder, tmp_path, capsys):
    out, few = tmp_path / "out", {"names": ("random",)}
    assert run(out, "--datasets", "mobilenetv2", **few) == 0
    before = (out / "mobilenetv2" / "results.csv").read_bytes()
    assert run(out, "--datasets", "protoclr", "mobilenetv2", **few) == 2
    assert "pass --resume" in capsys.readouterr().err
    assert not (out / "protoclr" / "results.csv").exists()
    assert (out / "mobilenetv2" / "results.csv").read_bytes() == before


def test_a_summary_is_not_replaced_unasked(folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.md").write_text("of other data sets")
    assert run(out, "--datasets", "protoclr", "mobilenetv2", names=("random",)) == 2
    assert "summary.md: is there already; pass --resume or" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["summary.md"]
    assert (out / "summary.md").read_text() == "of other data sets"


def test_help_lists_the_options_of_all(capsys):
    with pytest.raises(SystemExit):
        main(["strategies", "--help"])
    text = capsys.readouterr().out
    for part in ("typiclust\n", "num_neighbors=20", "ridge=0.1 ", "default all", "no rank"):
        assert part in text
