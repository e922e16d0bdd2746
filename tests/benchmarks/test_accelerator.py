"""The script for accelerators, with a python3 that only says what it was asked for."""

import os
import subprocess
from pathlib import Path

import benchmarks

SCRIPT = Path(benchmarks.__file__).with_name("accelerator.sh")


def run(folder, *given):
    python = folder / "bin" / "python3"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", SCRIPT, *given], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_relative_paths_are_those_of_the_caller(tmp_path):
    done = run(tmp_path, "data", "../out", "7")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and [line.split()[2] for line in lines] == [
        "pretrain",
        "features",
        "finetune",
        "pretrain",
        "as3l",
    ]
    assert all(f"--images {tmp_path}/data/train.npy" in line for line in lines)
    assert f"--out {tmp_path.parent}/out/simsiam" in lines[0] and "--epochs 7" in lines[0]


def test_missing_arguments_are_named(tmp_path):
    done = run(tmp_path, "data")
    assert done.returncode == 2 and "usage: " in done.stderr and not done.stdout
