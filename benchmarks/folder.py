"""The folder of a benchmark's results: made ready, gone on with, or refused."""

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Data
from benchmarks.plan import Entry, Plan
from jaxal.records import describe, fingerprint

__all__ = [
    "FEATURES",
    "RUNS",
    "check_folder",
    "feature_files",
    "make_folder",
    "open_described",
    "open_folder",
]

FEATURES, RUNS = "features.npy", "runs"
_SETTINGS = "settings.json"
_RESULTS = ("results.csv", "table.md", "curves.png", "risk.png", "wins.png")
# What all runs of a folder share; seeds, strategies, variants and rounds may be added.
_SHARED = ("dataset", "head", "pool_size", "scale", "holdout")


def check_folder(out: Path, own: Collection[str]) -> None:
    """Check that results may go to a folder: one that is missing, has no files, or has results.

    Args:
      out: the folder.
      own: names of the results, files or folders; any of them tells that others may stand beside.

    Raises:
      ValueError: it is a file, has files of others only, or cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: expected a folder, found the file {out}")
    nearest = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"--out: expected a folder that can be written to, found {out}")
    if not out.exists() or any((out / name).exists() for name in own):
        return
    others = sorted(x.name for x in out.iterdir() if x.is_file() and not x.name.startswith("."))
    if others:
        raise ValueError(
            f"{out}: expected an empty folder or a benchmark's, found other files ({others[0]}"
            + (", …)" if len(others) > 1 else ")")
        )


def make_folder(out: Path) -> None:
    """Make the folder of results where it is missing.

    Raises:
      ValueError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--out: expected a folder that can be made, found {out} ({error.strerror})"
        ) from error


def open_described(
    out: Path, about: Mapping[str, Any], own: Collection[str], *, resume: bool, overwrite: bool
) -> None:
    """Make ready a folder of runs, each of which checks by itself what it depends on, or refuse it.

    Args:
      out: the folder, made where missing, with a folder ``runs`` to come.
      about: what all runs share; written to ``settings.json``.
      own: names of the results, removed with the runs to overwrite them.
      resume: go on with the runs that are there.
      overwrite: remove earlier ones first.

    Raises:
      ValueError: the folder holds something else, results of other ``about``, or results that may
        not be touched.
    """
    check_folder(out, (_SETTINGS,))
    if overwrite and (out / _SETTINGS).exists():
        for name in (*own, _SETTINGS):
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / RUNS, ignore_errors=True)
    ran = (out / RUNS).is_dir() and any((out / RUNS).iterdir())
    if ran and not (out / _SETTINGS).exists():
        raise ValueError(
            f"{out}: expected an empty folder or a benchmark's, found others' {RUNS} in it"
        )
    make_folder(out)
    settings, path = json.loads(json.dumps(describe(dict(about)))), out / _SETTINGS
    if not path.exists():
        path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    differing = [name for name in settings if found.get(name) != settings[name]]
    if differing:
        raise ValueError(
            f"{out}: holds results of other {' and '.join(differing)}; choose another --out, or "
            "pass --overwrite"
        )
    if ran and not resume:
        raise ValueError(f"{out}: holds results; pass --resume to go on with them, or --overwrite")


def feature_files(stem: str) -> list[str]:
    """Name the files that features under this stem are kept in."""
    return [f"{stem}{end}" for end in (".npy", ".npy.json", ".json", ".partial.npy", "-seconds")]


def open_folder(out: Path, plan: Plan, data: Data | None, *, resume: bool, overwrite: bool) -> None:
    """Make the results' folder ready, or refuse it.

    A folder without results, such as a failed command leaves, is begun anew.

    Args:
      out: the folder, made where missing.
      plan: what is to run; written to ``settings.json``.
      data: what it runs on, whose fingerprint goes there too; None for data the plan determines.
      resume: go on with what is there, if it may stand beside what is to run: of the same data and
        settings, and of the first rounds of the same budgets.
      overwrite: remove an earlier benchmark's files first, and no others.

    Raises:
      ValueError: the folder holds something else, or results that may not be touched.
    """
    prints = None if data is None else {k: _fingerprint(v) for k, v in data._asdict().items()}
    entries = {name: entry._asdict() for name, entry in plan.entries.items()}
    settings = json.loads(json.dumps({**plan._asdict(), "entries": entries, "data": prints}))
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: expected a folder, found the file {out}")
    if out.is_dir() and any(out.iterdir()):
        found = _read_settings(out)
        if overwrite or not _holds_results(out):
            _clear(out)
        else:
            settings = _joined(out, settings, found)
            if not resume:
                raise ValueError(
                    f"{out}: holds results that these may stand beside; pass --resume to go on "
                    "with them, or --overwrite"
                )
    make_folder(out / RUNS)
    temporary = out / f".{_SETTINGS}.tmp"
    temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    temporary.replace(out / _SETTINGS)


def _fingerprint(value: Any) -> Any:
    return fingerprint(value) if isinstance(value, np.ndarray) else value


def _read_settings(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / _SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{out}: expected an empty folder or a benchmark's, found other files"
        ) from None
    except ValueError as error:
        raise ValueError(f"{out / _SETTINGS}: damaged ({error})") from error
    if not isinstance(found, dict) or found.keys() != {*Plan._fields, "data"}:
        raise ValueError(f"{out / _SETTINGS}: damaged, or of another version")
    return found


def _runs(out: Path) -> list[Path]:
    return sorted((out / RUNS).glob("*-*.json"))


def _holds_results(out: Path) -> bool:
    return bool(_runs(out)) or any((out / name).exists() for name in _RESULTS)


def _clear(out: Path) -> None:
    for path in [*(out / name for name in (_SETTINGS, FEATURES, *_RESULTS)), *_runs(out)]:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _joined(out: Path, wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Add the entries of runs that are there to the settings wanted, which must agree with them."""
    ran = {path.name.rpartition("-")[0] for path in _runs(out)}
    theirs = {name: entry for name, entry in found["entries"].items() if name in ran}
    ours = wanted["entries"]
    pairs = {name: (wanted[name], found[name]) for name in _SHARED}
    for name in sorted(ours.keys() & theirs.keys()):
        pairs |= {f"{k} of {name}": (ours[name][k], theirs[name][k]) for k in Entry._fields}
    if wanted["budgets"][: len(found["budgets"])] != found["budgets"]:
        pairs["budgets"] = wanted["budgets"], found["budgets"]
    for name in wanted["data"] or {}:
        pairs[f"data {name}"] = wanted["data"][name], (found["data"] or {}).get(name)
    differing = [f"{name}: now {a!r}, there {b!r}" for name, (a, b) in pairs.items() if a != b]
    if differing:
        raise ValueError(
            f"{out}: holds results of other settings ({'; '.join(differing)}); "
            "choose another --out, or pass --overwrite"
        )
    return {**wanted, "entries": theirs | ours}
