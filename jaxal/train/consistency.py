"""The loss of semi-supervised training: labels, and what weak views say of strong ones.

One batch has labelled samples and a weak and a strong view of unlabelled ones, which pass through
the network together, so that batch statistics are those of all. The pseudo-label of a sample is
what its weak view is predicted as, mixed with its prior where it has one (AS3L, arXiv 2203.04560):
normalise(prior + p). Its strong view is trained to it if it is sure enough for the method's
threshold (`jaxal.train.thresholds`).
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxal.augment.base import Pipeline, augment_batch, augment_features
from jaxal.train.step import Aux, LossFn
from jaxal.train.supervised import Prepare, as_floats
from jaxal.train.thresholds import RULES, Method, fairness, place

__all__ = ["Judge", "Targets", "consistency_losses", "make_semi_loss", "make_view", "posterior"]

# What a target in the prior's time is: the mixed probabilities, or the likeliest class of them.
Targets = Literal["soft", "hard"]
# Whose largest probability is held against the threshold: the prediction's, or the mixed one's.
Judge = Literal["prediction", "posterior"]


def posterior(prior: jax.Array, probs: jax.Array) -> jax.Array:
    """Mix prior and prediction (AS3L, arXiv 2203.04560): normalise(prior + p).

    Args:
      prior: ``[m, c]``, rows that sum to 1, or of zeros for samples that have none.
      probs: ``[m, c]``, rows that sum to 1.

    Returns:
      ``[m, c]``, rows that sum to 1.
    """
    mixed = prior + probs
    return mixed / mixed.sum(1, keepdims=True)


def consistency_losses(logits: jax.Array, targets: jax.Array, used: jax.Array) -> jax.Array:
    """Compute the cross-entropy of strong views, 0 where the pseudo-label is not sure enough.

    Args:
      logits: ``[m, c]`` of strong views.
      targets: ``[m, c]``, rows that sum to 1.
      used: ``[m]`` bool.

    Returns:
      ``[m]`` float32, in nats.
    """
    return jnp.where(used, optax.softmax_cross_entropy(logits, targets), 0)


def make_semi_loss(
    classifier: nn.Module,
    method: Method,
    *,
    weak: Pipeline | None,
    strong: Pipeline,
    prepare: Prepare | None = None,
    cutoff: float,
    decay: float,
    unlabeled_weight: float,
    fairness_weight: float,
    targets: Targets,
    judge: Judge,
) -> LossFn:
    """Make the loss of a method.

    The loss is the mean cross-entropy of the labelled samples, plus ``unlabeled_weight`` times the
    mean of `consistency_losses` over all unlabelled ones of the batch, used or not, plus, for
    FreeMatch, ``fairness_weight`` times `fairness`.

    Args:
      classifier: a module of the signature of `jaxal.models.classifier.Classifier`.
      method: whose thresholds are used.
      weak: augmentation of one sample; None for none.
      strong: augmentation of one sample.
      prepare: maps a batch of views to what the network reads.
      cutoff: τ, of FixMatch and FlexMatch.
      decay: of FreeMatch's moving means.
      unlabeled_weight: λ.
      fairness_weight: of FreeMatch.
      targets: of samples with a prior; those of others are the likeliest class.
      judge: of samples with a prior.

    Returns:
      A `LossFn` for batches of ``"labeled"`` (``images``, ``labels``, ``mask``), ``"unlabeled"``
      (``images``, ``rows``, ``prior [m, c]``, ``mask``) and ``"memory"``, with the metrics
      ``supervised_loss``, ``unsupervised_loss``, ``accuracy`` of labelled samples, ``mask_rate``
      (share of unlabelled ones that are used) and ``confidence`` (mean largest probability of weak
      views).
    """
    rule = RULES[method]
    view = functools.partial(_prepared, prepare=prepare)

    def loss_fn(
        params: Any, batch_stats: Any, batch: dict[str, Any], key: jax.Array
    ) -> tuple[jax.Array, Aux]:
        labeled, unlabeled, memory = batch["labeled"], batch["unlabeled"], batch["memory"]
        label_key, weak_key, strong_key, net_key = jax.random.split(key, 4)
        inputs = [
            view(weak, label_key, labeled["images"]),
            view(weak, weak_key, unlabeled["images"]),
            view(strong, strong_key, unlabeled["images"]),
        ]
        (logits, _), updated = classifier.apply(
            {"params": params, "batch_stats": batch_stats},
            jnp.concatenate(inputs),
            train=True,
            mask=jnp.concatenate([labeled["mask"], unlabeled["mask"], unlabeled["mask"]]),
            rngs={"dropout": net_key},
            mutable=["batch_stats"],
        )
        logits = logits.astype(jnp.float32)
        count = len(labeled["mask"])
        known, (weakly, strongly) = logits[:count], jnp.split(logits[count:], 2)
        given = optax.softmax_cross_entropy_with_integer_labels(known, labeled["labels"])
        supervised = _mean(given, labeled["mask"])

        mask = unlabeled["mask"]
        probs = jax.nn.softmax(jax.lax.stop_gradient(weakly))
        mixed = posterior(unlabeled["prior"], probs)
        judged = mixed if judge == "posterior" else probs
        thresholds, memory = rule(
            memory, judged, unlabeled["rows"], mask, cutoff=cutoff, decay=decay
        )
        used = mask & (judged.max(1) >= thresholds[judged.argmax(1)])
        aims = _targets(mixed, unlabeled["prior"], targets)
        losses = consistency_losses(strongly, aims, used)
        unsupervised = _mean(losses, mask)
        loss = supervised + unlabeled_weight * unsupervised
        if method == "freematch":
            loss += fairness_weight * fairness(memory, jax.nn.softmax(strongly), used)
        memory = memory._replace(used=place(memory.used, unlabeled["rows"], mixed.argmax(1), used))
        metrics = {
            "supervised_loss": supervised,
            "unsupervised_loss": unsupervised,
            "accuracy": _mean(known.argmax(1) == labeled["labels"], labeled["mask"]),
            "mask_rate": _mean(used, mask),
            "confidence": _mean(probs.max(1), mask),
        }
        return loss, Aux(updated.get("batch_stats", {}), metrics, memory)

    return loss_fn


def make_view(augment: Pipeline | None, key: jax.Array, x: jax.Array) -> jax.Array:
    """Augment a batch of images ``[n, h, w, c]`` or of features ``[n, d]``; None keeps it."""
    if augment is None:
        return x
    return augment_batch(augment, key, x) if x.ndim == 4 else augment_features(augment, key, x)


def _prepared(
    augment: Pipeline | None, key: jax.Array, stored: jax.Array, *, prepare: Prepare | None
) -> jax.Array:
    x = make_view(augment, key, as_floats(stored))
    return x if prepare is None else prepare(x)


def _targets(mixed: jax.Array, prior: jax.Array, targets: Targets) -> jax.Array:
    hard = jax.nn.one_hot(mixed.argmax(1), mixed.shape[1])
    if targets == "hard":
        return hard
    return jnp.where(prior.any(1, keepdims=True), mixed, hard)


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0)) / jnp.maximum(jnp.sum(mask), 1)
