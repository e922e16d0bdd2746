"""How long the command asvp will take, and what that costs, before it starts."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.asvp_runs import Job, Run, count_passes, training_passes
from benchmarks.image_speed import count_flops
from benchmarks.measuring import best
from benchmarks.outcomes import describe_time
from benchmarks.tables import markdown
from jaxal.costs import Prices, predict_seconds
from jaxal.train.network import METHODS, compiled_encoder

__all__ = ["Projection", "describe_plan", "project"]

_SHARE = 0.4  # of a device's rate that encoders reach, for a device that is not here
_PIXELS = 128 * 64**2  # in a batch that is timed


class Projection(NamedTuple):
    """What runs will take, seconds."""

    runs: dict[str, int]  # by pipeline
    selection: dict[str, float]  # of all their runs
    final: dict[str, float]
    longest_training: float
    labels: int  # that a run buys
    flops: float  # of one image forward; 0 where the rate was measured


def project(job: Job, runs: Sequence[Run], device_rate: float | None = None) -> Projection:
    """Estimate seconds: images through the encoder, by the rate of a batch of them.

    Args:
      job: what is run.
      runs: all runs.
      device_rate: operations a second of another device; None to time this one.
    """
    seconds, flops = _seconds_per_image(job, device_rate)
    counts: dict[str, int] = {}
    selection: dict[str, float] = {}
    final: dict[str, float] = {}
    for run in runs:
        passes = count_passes(job, run)
        counts[run.shown] = counts.get(run.shown, 0) + 1
        selection[run.shown] = selection.get(run.shown, 0.0) + passes["selection"] * seconds
        final[run.shown] = final.get(run.shown, 0.0) + passes["final"] * seconds
    longest = max(training_passes(job.network, m, job.ends[-1]) for m in METHODS) * seconds
    return Projection(counts, selection, final, longest, sum(job.budgets), flops)


def describe_plan(found: Projection, prices: Prices, device_rate: float | None) -> str:
    """Write the projection as a table."""
    lines = [["pipeline", "runs", "selection hours a run", "all hours", "device $"]]
    for name, count in found.runs.items():
        hours = (found.selection[name] + found.final[name]) / 3600
        lines.append(
            [
                name,
                str(count),
                f"{found.selection[name] / count / 3600:.3g}",
                f"{hours:.3g}",
                f"{hours * prices.device_hour:.2f}",
            ]
        )
    total = sum(found.selection.values()) + sum(found.final.values())
    how = (
        "on this device, by the time of one batch"
        if device_rate is None
        else f"for {device_rate:.3g} operations a second, of which encoders reach {_SHARE:.0%}, "
        f"at {found.flops:.3g} an image"
    )
    return (
        f"{markdown(lines)}\n\n{describe_time(total)}, at ${prices.device_hour:g} an hour "
        f"${total / 3600 * prices.device_hour:.2f}, {how}; the {found.labels:,} labels of a run "
        f"cost ${found.labels * prices.label:,.2f}; proxies, strategies and compilation "
        "apart; ASVP with one refresh at half of the labels where its rule looks at scores"
    )


def _seconds_per_image(job: Job, device_rate: float | None) -> tuple[float, float]:
    network = job.network
    encode = compiled_encoder(network.encoder, network.prepare)
    one = network.images.load(np.zeros(1, np.int64))
    if device_rate is not None:
        flops = count_flops(encode, network.variables, one)
        return predict_seconds(flops, device_rate, share=_SHARE), flops
    prepare = network.prepare or (lambda images: images)
    shape = jax.eval_shape(prepare, one).shape
    pixels = shape[1] * shape[2] if len(shape) == 4 else 1
    count = max(1, min(_PIXELS // pixels, len(network.images)))
    images = network.images.load(np.arange(count))
    return best(lambda: encode(network.variables, images), repeats=2)[1] / count, 0.0
