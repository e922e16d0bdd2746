"""What the speed benchmarks share: clocks, ceilings, synthetic features, processes, tables."""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.tables import write_csv

__all__ = [
    "best",
    "describe_device",
    "draw_mixture",
    "matmul_rate",
    "peak_gib",
    "processor",
    "read_rate",
    "refuse_to_replace",
    "run_alone",
    "write_report",
]

_ERROR_CHARACTERS = 2000
_GIB = 1024**3


def best(fn: Callable[[], Any], repeats: int = 3) -> tuple[float, float]:
    """Return seconds of the first call, which compiles, and of the best of ``repeats`` later."""
    import jax

    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(fn())
        times.append(time.perf_counter() - start)
    return times[0], min(times[1:])


def matmul_rate(
    size: int, dtype: str = "float32", *, precision: Literal["highest"] | None = "highest"
) -> float:
    """Measure floating-point operations a second of a product of ``size x size``.

    A ``precision`` of None is the device's default, which is what networks are computed in.
    """
    import jax
    import jax.numpy as jnp

    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: jnp.matmul(x, x, precision=precision))
    return 2 * size**3 / best(lambda: product(a))[1]


def read_rate(size: int) -> float:
    """Measure bytes a second of summing a float32 array of ``4 size x 4 size``, read once."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((4 * size, 4 * size), jnp.float32)
    total = jax.jit(lambda x: x.sum(1))
    return a.nbytes / best(lambda: total(a))[1]


def draw_mixture(
    n: int, d: int, *, components: int = 20, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a mixture of Gaussians, as encoders' features are: clustered.

    Returns:
      ``[n, d]`` float32 and the component of each row, ``[n]`` int64. Holds nothing larger.
    """
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((components, d), np.float32)
    labels = rng.integers(components, size=n)
    x = rng.standard_normal((n, d), np.float32)
    for component in range(components):
        x[labels == component] += centers[component]
    return x, labels


def peak_gib() -> float:
    """Read the most memory this process held so far, in GiB.

    On an accelerator with memory of its own, the most that arrays took there.
    """
    import jax

    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return float(stats["peak_bytes_in_use"]) / _GIB
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / _GIB if sys.platform == "darwin" else peak * 1024 / _GIB
    # getrusage would count what the process that started this one held.
    (kib,) = re.findall(r"VmHWM:\s*(\d+) kB", status)
    return int(kib) * 1024 / _GIB


def run_alone(
    module: str, arguments: Sequence[str], name: str, timeout: float | None = None
) -> dict[str, Any]:
    """Run a module in a process of its own and read the JSON on its last line.

    Args:
      module: to be run by ``python -m``.
      arguments: of its command line.
      name: what it measures, for errors.
      timeout: seconds after which it is stopped; None for never.

    Raises:
      RuntimeError: it failed; with what it printed.
      TimeoutError: it was stopped.
    """
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{name}: stopped after {timeout:g} s") from None
    if done.returncode:
        said = done.stderr or f"exit status {done.returncode}"
        if len(said) > 2 * _ERROR_CHARACTERS:
            # The error is at the end, or, where the process was aborted, before a long trace.
            said = f"{said[:_ERROR_CHARACTERS]}\n...\n{said[-_ERROR_CHARACTERS:]}"
        raise RuntimeError(f"{name} failed:\n{said}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def processor() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe_device() -> str:
    """Name the device, the processor and its cores, and the version of jax."""
    import jax

    device = jax.devices()[0]
    return (
        f"{device.platform} ({device.device_kind}), {processor()}, {os.cpu_count()} cores, "
        f"jax {jax.__version__}"
    )


def refuse_to_replace(stem: Path, *, overwrite: bool) -> None:
    """Look for an earlier report before any work starts.

    Raises:
      ValueError: there is one, which may not be replaced.
    """
    path = stem.with_suffix(".csv")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: holds results; pass --overwrite, or choose another --out")


def write_report(stem: Path, rows: Sequence[Mapping[str, Any]], paragraphs: Sequence[str]) -> None:
    """Write ``STEM.csv``, one line a row, and ``STEM.md``."""
    write_csv(rows, stem.with_suffix(".csv"))
    stem.with_suffix(".md").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
