"""Short trainings for the tests to run on one device, on several, and in several processes.

As a program it prints what `train` gives as JSON: ``train_on_devices.py folder [process address]``,
with a folder for the checkpoint and, as one of two processes, its number and the coordinator's
address.
"""

import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.sharding import data_mesh, local_rows, pad_batch
from jaxal.train.finetune import finetune
from jaxal.train.optimizers import OptimizerConfig
from jaxal.train.pretrain import SIMCLR_SMALL, SIMSIAM_SMALL, pretrain
from jaxal.train.recipes import FinetuneConfig
from jaxal.train.semi_recipes import SemiConfig
from jaxal.train.semisupervised import train_semi
from jaxal.train.step import Aux, init_state, make_train_step, state_variables

STEPS = 20
ROWS = 13  # no multiple of any number of devices


class Encoder(nn.Module):
    """A convolution with batch normalisation and dropout."""

    rate: float = 0.2

    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        x = nn.Conv(4, (3, 3))(images)
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
        x = nn.relu(norm(x, mask=None if mask is None else mask[:, None, None, None]))
        x = x.reshape(len(x), -1)
        return nn.Dropout(self.rate, deterministic=not train)(x)


def noisy(key, image):
    return image + 0.1 * jax.random.normal(key, image.shape)


# One step an epoch, so that every loss is on record.
PRETRAINING = {
    "simsiam": SIMSIAM_SMALL._replace(projector=(16, 16), predictor=(8, 16)),
    "simclr": SIMCLR_SMALL._replace(projector=(16, 8), optimizer=OptimizerConfig("adamw", 1e-2)),
}
MODULE = Classifier(Encoder(), DenseHead(features=(), num_outputs=3))


def loss_fn(params, batch_stats, batch, key):
    (logits, _), updated = MODULE.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["images"],
        train=True,
        mask=batch["mask"],
        rngs={"dropout": key},
        mutable=["batch_stats"],
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
    count = jnp.maximum(batch["mask"].sum(), 1)
    loss = jnp.where(batch["mask"], losses, 0).sum() / count
    return loss, Aux(updated["batch_stats"], {"rows": batch["mask"].sum()})


def train(mesh=None, checkpoint=None):
    """Run all trainings; lists of numbers by name."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 6, 6, 1), np.uint8)
    labels = rng.integers(0, 3, 40)
    variables = jax.jit(MODULE.init)(jax.random.key(0), jnp.zeros((1, 6, 6, 1)))
    found = {}
    for name, options in {"whole": {"ema_decay": 0.9}, "parts": {"accumulate": 2}}.items():
        optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)
        state = init_state(variables, optimizer, ema="ema_decay" in options, mesh=mesh)
        step = make_train_step(loss_fn, optimizer, mesh=mesh, **options)
        losses = []
        for i in range(STEPS):
            rows = np.arange(i, i + ROWS) % 40
            batch = {"images": np.float32(images[rows]) / 255, "labels": labels[rows]}
            if mesh is not None:
                batch = pad_batch(batch, mesh.size)
                own = local_rows(mesh, len(batch["mask"]))
                batch = {key: x[own] for key, x in batch.items()}
            state, metrics = step(state, batch, jax.random.key(1))
            losses.append(float(metrics["loss"]))
        found[name] = losses
        if "ema_decay" in options:
            averages = jax.tree.leaves(state_variables(state))
            found["averages"] = np.concatenate([np.ravel(x) for x in averages]).tolist()
    config = FinetuneConfig(epochs=3, train_batch_size=12, validation_fraction=0.2)
    tuned = finetune(
        jax.random.key(2),
        MODULE,
        variables,
        images,
        labels,
        config=config,
        mesh=mesh,
        checkpoint=checkpoint,
    )
    for name in ("loss", "validation_loss"):
        found[f"finetune_{name}"] = [record[name] for record in tuned.history]
    for method, config in PRETRAINING.items():
        config = config._replace(epochs=4)
        given = jax.random.key(3), Encoder(rate=0), images[:ROWS]
        pretrained = pretrain(*given, config=config, view=noisy, mesh=mesh)
        for name in ("loss", "spread"):
            found[f"{method}_{name}"] = [record[name] for record in pretrained.history]
    config = SemiConfig(
        steps=5, labeled_batch_size=3, weak=None, strong=noisy, cutoff=0.4, record_every=1
    )
    given = jax.random.key(4), Classifier(Encoder(rate=0), MODULE.head), variables, images
    prior = np.eye(3)[labels]
    trained = train_semi(*given, [3, 1, 7, 9], [0, 1, 2, 0], config=config, prior=prior, mesh=mesh)
    for name in ("supervised_loss", "unsupervised_loss", "mask_rate", "thresholds"):
        found[f"semi_{name}"] = [record[name] for record in trained.history]
    found["pseudo_labels"] = trained.pseudo_labels.tolist()
    return found


if __name__ == "__main__":
    folder, *process = sys.argv[1:]
    if process:
        jax.distributed.initialize(process[1], num_processes=2, process_id=int(process[0]))
    print(json.dumps({"devices": jax.device_count(), **train(data_mesh(), folder)}))
