"""Features of a whole pool, computed once and kept on the disk."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxal.checks import NotFiniteError, check_positive
from jaxal.data.batches import load_batches
from jaxal.data.cache import RowWriter, cache_paths, map_cache, open_writer
from jaxal.data.sources import ImageSource, check_source
from jaxal.records import describe
from jaxal.sharding import batch_sharding, check_mesh

__all__ = ["extract_features"]


def extract_features(
    apply: Callable[[Any], Any],
    source: ImageSource,
    path: str | Path,
    *,
    fingerprint: Mapping[str, Any],
    chunk_size: int = 256,
    resume: bool = True,
    mesh: Mesh | None = None,
    dtype: DTypeLike = np.float32,
    progress: Callable[[int, int], None] | None = None,
) -> np.memmap:
    """Compute the features of all images of a source, or map those that were computed before.

    Three files hold them: ``PATH.json`` with the fingerprint and the number of rows done,
    ``PATH.partial.npy`` while it grows, and ``PATH.npy`` when all is done. After an interruption,
    by an error, a full disk or the power, the next call with the same arguments goes on behind the
    rows that were recorded, which happens at every error and every few seconds. The next two chunks
    are loaded while one is computed.

    Args:
      apply: ``[chunk, h, w, c]`` uint8 to ``[chunk, d]`` real numbers, a jitted function; each row
        must depend on its image only.
      source: the images; what it says of itself is part of the fingerprint.
      path: where to keep them, in a folder that exists; ``.npy`` may be left out.
      fingerprint: what else they depend on, such as the encoder, a digest of its weights and the
        preprocessing, as `jaxal.models.fingerprints.encoder_fingerprint` gives them; see
        `jaxal.records.describe`. Features with another one are refused.
      chunk_size: images computed at once, at least one a device; changes no result but by
        rounding. The last chunk is filled up, so that ``apply`` compiles for one shape.
      resume: go on with what an earlier call began; else what is not complete is begun anew.
      mesh: one axis of devices of this process, "data", over which each chunk is split; None for
        the default device. ``chunk_size`` is rounded up to a multiple.
      dtype: how they are kept, float32 or float16.
      progress: called after each chunk with the number of rows done and of all.

    Returns:
      ``[n, d]`` in ``dtype``, read-only and mapped from the disk. Holds
      ``O(chunk_size · (h · w · c + d))``.

    Raises:
      ValueError: a bad option; a file at ``path`` with another fingerprint (the error lists what
        differs) or damaged; an image that cannot be read; features of another shape, or in one row
        NaN, infinite or beyond the range of ``dtype``.
      BlockingIOError: another process is computing the same file.
      OSError: there is not enough space on the disk.
    """
    check_source(source)
    check_positive(chunk_size, "chunk_size")
    if not isinstance(fingerprint, Mapping) or not fingerprint:
        raise ValueError(
            "fingerprint: expected a mapping of what the features depend on beside the images, "
            f"such as encoder and weights, found {fingerprint!r}"
        )
    kind = _check_dtype(dtype)
    size = min(chunk_size, len(source))
    put = _placer(mesh)
    if mesh is not None:
        size = -(-size // mesh.size) * mesh.size
    paths = cache_paths(path)
    n = len(source)
    settings = describe(
        {
            "fingerprint": fingerprint,
            "source": source.describe(),
            "rows": n,
            "dtype": str(kind),
        }
    )
    complete = map_cache(paths, settings, n, kind)
    if complete is not None:
        return complete
    with open_writer(paths, settings, n, kind, resume=resume) as writer:
        if writer.done < n:
            batches = load_batches(source, np.arange(writer.done, n), size, put=put)
            with contextlib.closing(batches):
                for images in batches:
                    _append(writer, apply(images), size, n, kind)
                    if progress is not None:
                        progress(writer.done, n)
    complete = map_cache(paths, settings, n, kind)
    assert complete is not None
    return complete


def _check_dtype(dtype: DTypeLike) -> np.dtype:
    with contextlib.suppress(TypeError):
        for known in (np.float32, np.float16):
            if np.dtype(dtype) == known:
                return np.dtype(known)
    raise ValueError(f"dtype: expected float32 or float16, found {dtype!r}")


def _placer(mesh: Mesh | None) -> Callable[[dict[str, np.ndarray]], jax.Array]:
    if mesh is None:
        return lambda batch: jax.device_put(batch["images"])
    if check_mesh(mesh).is_multi_process:
        raise ValueError(
            f"mesh: expected devices of this process, found {mesh.size} devices in "
            f"{jax.process_count()} processes"
        )
    sharding = batch_sharding(mesh)
    return lambda batch: jax.device_put(batch["images"], sharding)


def _append(writer: RowWriter, features: Any, size: int, n: int, dtype: np.dtype) -> None:
    """Check what ``apply`` gave for the next rows, and write it."""
    found = np.asarray(features)
    if found.ndim != 2 or len(found) != size or found.shape[1] == 0:
        raise ValueError(f"apply: expected features [{size}, d], found shape {found.shape}")
    rows = found[: n - writer.done]
    with np.errstate(over="ignore"):
        kept = rows.astype(dtype)
    finite = np.isfinite(kept).all(axis=1)
    if not finite.all():
        row = int(finite.argmin())
        if np.isfinite(rows[row]).all():
            largest = float(np.abs(rows[row]).max())
            what = f"numbers within the range of {dtype}, found {largest:g}"
        else:
            what = "finite features, found NaN or infinity"
        raise NotFiniteError(f"apply: expected {what} in row {writer.done + row}")
    writer.append(kept)
