"""Save a training and go on with it, by Orbax.

A checkpoint is a folder of steps, each of them written whole or not at all, and a file that ties
them to their settings. Orbax is imported when it is needed, since it takes a second.
"""

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxal.checks import check_positive
from jaxal.records import plain, read_record, write_record

__all__ = [
    "Restored",
    "check_folder",
    "latest_step",
    "open_checkpoint",
    "restore_checkpoint",
    "save_checkpoint",
]

_SETTINGS = "settings.json"


class Restored(NamedTuple):
    """What a checkpoint held."""

    state: Any  # a pytree like the template
    step: int
    record: Any  # what was saved as such


def open_checkpoint(path: str | Path, settings: Mapping[str, Any]) -> int | None:
    """Check that a training can be saved at a place, before it starts; nothing is written.

    Args:
      path: the checkpoint's folder, there or not.
      settings: what the training depends on, see `save_checkpoint`.

    Returns:
      The last step that is saved there; None where there is none.

    Raises:
      ValueError: a path that cannot be a checkpoint's, or one saved with other settings; the error
        says which.
    """
    path = check_folder(path)
    if (path / _SETTINGS).exists():
        read_record(path / _SETTINGS, settings)
    return latest_step(path)


def save_checkpoint(
    path: str | Path,
    state: Any,
    settings: Mapping[str, Any],
    *,
    step: int | None = None,
    record: Any = None,
    keep: int = 2,
) -> None:
    """Save a pytree of arrays as one step of a checkpoint; a crash leaves the steps before.

    Every process of a training calls it. It returns once the step is on the disk.

    Args:
      path: the checkpoint's folder, made where it is missing.
      state: arrays, NumPy or JAX, such as a `TrainState`.
      settings: what the training depends on, see `jaxal.records.write_record`;
        `restore_checkpoint` asks for the same ones.
      step: the step's number, higher than those before; None for ``state.step``.
      record: beside the arrays, what JSON can hold.
      keep: how many steps are kept, the last ones.

    Raises:
      ValueError: a path that cannot be, a step that is there already, an array of no elements, or a
        folder that was saved with other settings; the error says which.
      OSError: the disk has no room for it, or cannot be written to.
    """
    check_positive(keep, "keep")
    path = Path(path).absolute()
    latest = open_checkpoint(path, settings)
    step = int(state.step) if step is None else step
    leaves = _named_leaves(state)
    empty = [name for name, x in leaves.items() if np.size(x) == 0]
    if empty:
        raise ValueError(f"state: expected no empty arrays, found {empty[0]}")
    if latest is not None and step <= latest:
        raise ValueError(f"step: expected more than {latest}, the last one saved, found {step}")
    _check_space(path, leaves)
    if not (path / _SETTINGS).exists() and jax.process_index() == 0:
        path.mkdir(parents=True, exist_ok=True)
        write_record(path / _SETTINGS, None, settings)
    content = {"record": plain(record, "record"), "leaves": _layout(leaves)}
    ocp = _orbax()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    try:
        with ocp.CheckpointManager(path, options=options) as manager:
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(leaves), content=ocp.args.JsonSave(content)
                ),
                force=True,
            )
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and not _is_full(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(f"{path}: step {step} could not be written ({reason})") from error


def restore_checkpoint(
    path: str | Path, template: Any, settings: Mapping[str, Any], *, step: int | None = None
) -> Restored:
    """Read a checkpoint.

    Args:
      path: its folder.
      template: a pytree like the saved one, as it is before the first step: its shapes and dtypes
        are asked for, and arrays come back to the devices that its arrays are on.
      settings: those that it was saved with.
      step: which one; None for the last.

    Returns:
      The saved pytree, bit for bit.

    Raises:
      FileNotFoundError: no such folder or step.
      ValueError: a checkpoint saved with other settings or of other arrays; the error says which.
    """
    path = Path(path).absolute()
    latest = open_checkpoint(path, settings)
    found = latest if step is None else step
    if found is None or not (path / str(found)).is_dir():
        wanted = "a saved step" if step is None else f"step {step}"
        raise FileNotFoundError(f"{path}: expected {wanted}, found none")
    ocp = _orbax()
    leaves = _named_leaves(template)
    with ocp.CheckpointManager(path) as manager:
        content = manager.restore(
            found, args=ocp.args.Composite(content=ocp.args.JsonRestore())
        ).content
        _check_layout(path, _layout(leaves), content["leaves"])
        targets = {name: _target(x) for name, x in leaves.items()}
        restored = manager.restore(
            found, args=ocp.args.Composite(state=ocp.args.StandardRestore(targets))
        ).state
    structure = jax.tree.structure(template)
    return Restored(
        jax.tree.unflatten(structure, [restored[name] for name in leaves]), found, content["record"]
    )


def latest_step(path: str | Path) -> int | None:
    """Find the last step of a checkpoint that is saved whole.

    Args:
      path: the checkpoint's folder, there or not.

    Returns:
      Its number; None where no step is saved.
    """
    steps = [int(x.name) for x in _entries(Path(path)) if x.name.isdigit() and x.is_dir()]
    return max(steps, default=None)


def check_folder(path: str | Path) -> Path:
    """Check that a checkpoint can be where ``path`` says, there or not.

    Returns:
      The path, absolute.

    Raises:
      ValueError: a file, a place within a file, or a folder that holds something else.
    """
    path = Path(path).absolute()
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if not nearest.is_dir():
        raise ValueError(f"path: expected a folder, found the file {nearest}")
    if _entries(path) and not (path / _SETTINGS).exists():
        raise ValueError(f"path: expected a checkpoint or a free place, found the folder {path}")
    return path


def _is_full(error: ValueError) -> bool:
    """Tell whether Orbax means the disk, whose errors it passes on as their text."""
    return any(said in str(error) for said in ("No space left", "RESOURCE_EXHAUSTED"))


def _check_space(path: Path, leaves: Mapping[str, Any]) -> None:
    """Refuse what the disk has no room for, of which Orbax tells in pages."""
    needed = sum(np.size(x) * np.dtype(x.dtype).itemsize for x in leaves.values())
    nearest = next(place for place in (path, *path.parents) if place.exists())
    free = shutil.disk_usage(nearest).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"expected {needed / 1e6:.3g} MB free to save in, found {free / 1e6:.3g} MB; free some "
            "space and go on",
            str(path),
        )


def _orbax() -> Any:
    import orbax.checkpoint

    return orbax.checkpoint


def _entries(path: Path) -> list[Path]:
    """List a folder without what is hidden, such as the rest of a write that was cut off."""
    return [x for x in path.iterdir() if not x.name.startswith(".")] if path.is_dir() else []


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Name the leaves, in order. Orbax then sees one flat dict, whatever the tree is made of."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _layout(leaves: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{np.dtype(x.dtype)} {list(np.shape(x))}" for name, x in leaves.items()}


def _check_layout(path: Path, wanted: dict[str, str], saved: dict[str, str]) -> None:
    for name in [*wanted, *saved]:
        if wanted.get(name) != saved.get(name):
            raise ValueError(
                f"{path}: saved with another state: {name}: expected {wanted.get(name)}, "
                f"found {saved.get(name)}"
            )


def _target(x: Any) -> Any:
    if isinstance(x, jax.Array):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    return np.empty(np.shape(x), x.dtype)
