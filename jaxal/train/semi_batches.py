"""The batches of semi-supervised training: labelled samples, unlabelled ones, and their prior."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxal.train.batches import (
    Loader,
    RowBatch,
    even_batches,
    fetcher,
    make_loader,
    padded_size,
    resident_loader,
    streaming_loader,
)

__all__ = ["SemiBatches", "make_batches", "pass_steps", "plan_chain", "plan_passes", "plan_turns"]

_DRAWN = 256  # orders of labelled samples that are drawn at once


class SemiBatches(NamedTuple):
    """What the batches of a training are made of."""

    keys: tuple[jax.Array, jax.Array]  # of the order of labelled samples, and of the pool
    load_labeled: Loader  # of the labelled samples alone
    load: Loader  # of the pool, with the number of each sample as its label
    load_prior: Loader | None  # the prior in place of images
    load_zeros: Loader  # zeros in place of the prior
    num_labeled: int
    num_images: int
    labeled_size: int  # labelled samples of a step
    unlabeled_size: int  # the most unlabelled samples of a step
    mesh: Mesh | None

    def steps(self, start: int, end: int, last: int) -> Iterator[dict[str, dict[str, Any]]]:
        """Bring the batches of steps ``start..end - 1``, with the prior in those before ``last``.

        What a step sees depends on its number alone, not on where the steps begin.
        """
        with_prior = 0 if self.load_prior is None else min(max(last - start, 0), end - start)
        middle = start + with_prior
        priors: Iterator[dict[str, Any]] = iter(())
        if self.load_prior is not None:
            priors = self.load_prior(self._pool_plan(start, middle))
        if middle < end:
            # One array of zeros serves all steps.
            first = itertools.islice(self._pool_plan(middle, end), 1)
            priors = itertools.chain(priors, itertools.repeat(next(self.load_zeros(first))))
        known = self.load_labeled(self._labeled_plan(start, end))
        pool = self.load(self._pool_plan(start, end))
        for labeled, unlabeled, prior in zip(known, pool, priors, strict=False):
            rows = unlabeled.pop("labels")
            yield {
                "labeled": labeled,
                "unlabeled": {**unlabeled, "rows": rows, "prior": prior["images"]},
            }

    def _labeled_plan(self, start: int, end: int) -> Iterator[RowBatch]:
        plan = plan_turns if self.num_labeled <= self.labeled_size else plan_chain
        size, key = self.labeled_size, self.keys[0]
        return plan(key, self.num_labeled, size, start, end, mesh=self.mesh)

    def _pool_plan(self, start: int, end: int) -> Iterator[RowBatch]:
        size, key = self.unlabeled_size, self.keys[1]
        return plan_passes(key, self.num_images, size, start, end, mesh=self.mesh)


def make_batches(
    key: jax.Array,
    images: Any,
    rows: np.ndarray,
    labels: np.ndarray,
    prior: np.ndarray | None,
    num_classes: int,
    *,
    labeled_size: int,
    unlabeled_size: int,
    mesh: Mesh | None,
) -> SemiBatches:
    """Bring pool, labelled samples and prior to the devices, as far as they are kept there.

    Args:
      key: the order of samples.
      images: as of `jaxal.train.train_semi`.
      rows: ``[l]`` labelled samples.
      labels: ``[l]`` int32, their classes.
      prior: ``[n, c]`` float32, kept on the device, or on each; None for none.
      num_classes: c.
      labeled_size: labelled samples of a step.
      unlabeled_size: the most unlabelled samples of a step.
      mesh: devices to lay batches over.
    """
    n = len(images)
    numbers = np.arange(n, dtype=np.int32)
    label_key, pool_key = jax.random.split(key)

    def zeros(rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), num_classes), np.float32)

    return SemiBatches(
        (label_key, pool_key),
        make_loader(fetcher(images)(rows), labels, mesh),
        make_loader(images, numbers, mesh),
        None if prior is None else resident_loader(prior, numbers, mesh),
        streaming_loader(zeros, numbers, mesh),
        len(rows),
        n,
        labeled_size,
        unlabeled_size,
        mesh,
    )


def pass_steps(count: int, batch_size: int) -> int:
    """Tell how many steps it takes to see all of ``count`` samples once."""
    return -(-count // batch_size)


def plan_passes(
    key: jax.Array, count: int, batch_size: int, start: int, end: int, *, mesh: Mesh | None = None
) -> Iterator[RowBatch]:
    """Say which samples each step sees: all in turn, in a new order each time.

    A pass is cut evenly, so that no batch has fewer than about half of ``batch_size`` samples; if
    there are fewer in all, each batch has all of them.

    Args:
      key: the orders.
      count: of samples.
      batch_size: the most samples of a step.
      start: the first step.
      end: behind the last one.
      mesh: devices that batches shall divide by.
    """
    in_pass = pass_steps(count, batch_size)
    most = -(-count // in_pass)
    batches: list[RowBatch] = []
    for step in range(start, end):
        if not batches or step % in_pass == 0:
            batches = even_batches(
                jax.random.fold_in(key, step // in_pass),
                np.arange(count),
                train_batch_size=batch_size,
                step_rows=padded_size(most, mesh),
            )
        yield batches[step % in_pass]


def plan_chain(
    key: jax.Array, count: int, batch_size: int, start: int, end: int, *, mesh: Mesh | None = None
) -> Iterator[RowBatch]:
    """Say which samples each step sees where they are more than a batch: all in turn.

    Passes in new orders follow one another, and every ``batch_size`` of them make a batch.

    Args:
      key: the orders.
      count: of samples.
      batch_size: samples of a step.
      start: the first step.
      end: behind the last one.
      mesh: devices that batches shall divide by.
    """
    step_rows = padded_size(batch_size, mesh)
    orders: dict[int, np.ndarray] = {}
    for step in range(start, end):
        places = np.arange(step * batch_size, (step + 1) * batch_size)
        for turn in range(places[0] // count, places[-1] // count + 1):
            if turn not in orders:
                drawn = jax.random.permutation(jax.random.fold_in(key, turn), count)
                orders = {turn - 1: orders.get(turn - 1, np.zeros(0)), turn: np.asarray(drawn)}
        rows = np.array([orders[int(place // count)][place % count] for place in places])
        padded = np.concatenate([rows, np.repeat(rows[-1:], step_rows - batch_size)])
        yield RowBatch(padded, np.arange(step_rows) < batch_size)


def plan_turns(
    key: jax.Array, count: int, batch_size: int, start: int, end: int, *, mesh: Mesh | None = None
) -> Iterator[RowBatch]:
    """Say which samples each step sees where they are at most a batch: equally often, up to one.

    Args:
      key: who is among those that come once more.
      count: of samples.
      batch_size: samples of a step.
      start: the first step.
      end: behind the last one.
      mesh: devices that batches shall divide by.
    """
    turns = np.arange(padded_size(batch_size, mesh))
    orders = np.zeros((0, count), np.int64)
    for step in range(start, end):
        if not len(orders) or step % _DRAWN == 0:
            draws = jax.random.uniform(jax.random.fold_in(key, step // _DRAWN), (_DRAWN, count))
            orders = np.asarray(draws).argsort(1, kind="stable")
        yield RowBatch(orders[step % _DRAWN][turns % count], turns < batch_size)
