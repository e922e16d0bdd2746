"""What the runs of the command as3l share, as the command line says: settings, data, network."""

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.as3l_runs import Job
from benchmarks.as3l_scales import SCALES
from benchmarks.data import load_array
from benchmarks.finetune_runs import prepare_images
from benchmarks.image_encoders import LoadedEncoder, find_mesh
from benchmarks.images import Images
from jaxal.augment import Pipeline, compose, cutout, feature_view, pad_and_crop, rand_augment, weak
from jaxal.embedding import cluster_embedding
from jaxal.models.adapter import Adapter
from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.select import Pool
from jaxal.train.network import ImageNetwork
from jaxal.train.semi_recipes import SemiConfig

__all__ = ["CHANGES", "FEATURES", "changed_config", "make_config", "make_job"]

FEATURES = "features"
# What the command line changes of a configuration.
CHANGES = {
    "steps": "steps",
    "batch": "labeled_batch_size",
    "ratio": "unlabeled_ratio",
    "cutoff": "cutoff",
    "switch": "switch",
    "targets": "targets",
    "judge": "judge",
    "record_every": "record_every",
    "dtype": "dtype",
}
_NORM = 4.0  # mean, of features that are trained on
_FEW = 4  # batches
_RESIDENT = 2 * 10**9  # bytes
# Data sets of signs, which mirrored are others.
_UNFLIPPED = ("digits", "mnist", "svhn", "svhn_cropped")
# Of a row of features: length of noise, share of dropped coordinates.
_WEAK_FEATURES = {"noise": 0.1}
_STRONG_FEATURES = {"noise": 0.3, "dropped": 0.3}


def changed_config(args: argparse.Namespace) -> SemiConfig:
    """Change the scale's configuration as the command line says."""
    config = SCALES[args.scale].config
    given = {field: getattr(args, name) for name, field in CHANGES.items()}
    config = config._replace(**{k: v for k, v in given.items() if v is not None})
    if args.learning_rate is not None:
        config = config._replace(encoder=config.encoder._replace(learning_rate=args.learning_rate))
    if args.head_learning_rate is not None:
        config = config._replace(head=config.head._replace(learning_rate=args.head_learning_rate))
    return config


def make_config(args: argparse.Namespace, images: Images) -> SemiConfig:
    """Change it, and choose the views that fit the samples."""
    config = changed_config(args)
    if args.features is not None:
        return config._replace(
            weak=feature_view(**_WEAK_FEATURES), strong=feature_view(**_STRONG_FEATURES)
        )
    side = images.train.load(np.zeros(1, np.int64)).shape[1]
    light, heavy = _views(images.name not in _UNFLIPPED, side)
    return config._replace(weak=light, strong=heavy)


@functools.lru_cache(maxsize=8)
def _views(flipped: bool, side: int) -> tuple[Pipeline, Pipeline]:
    """Make FixMatch's views for images of a side of 32 pixels, in proportion for others."""
    padding = max(1, side // 8)
    shift = functools.partial(pad_and_crop, padding=padding, mode="zero")
    light = weak(padding=padding) if flipped else shift
    heavy = compose(light, rand_augment, functools.partial(cutout, size=max(1, side // 2)))
    return light, heavy


def make_job(
    args: argparse.Namespace, images: Images, encoder: LoadedEncoder, config: SemiConfig
) -> Job:
    """Bring samples, network and what labels are chosen by together; to plan, a few samples."""
    assert images.test is not None and images.num_classes is not None
    labels, test_labels = np.asarray(images.train.labels), np.asarray(images.test.labels)
    mesh = find_mesh()
    if args.features is not None:
        files = load_array(args.features), load_array(args.test_features)
        train, test = _scaled(_NORM, *files)
        data: tuple[Any, Any, Any] = train, test, None
        features = train / np.float32(_NORM)
        module: Any = Adapter()
        variables = dict(module.init(jax.random.key(0), jnp.zeros((1, features.shape[1]))))
    else:
        prepare = prepare_images(encoder.preprocessing)
        few = _FEW * config.labeled_batch_size * config.unlabeled_ratio if args.plan else None
        data = _resident(images.train, few), _resident(images.test, few), prepare
        module, variables = encoder.module, encoder.variables
        features = np.zeros((len(labels), 1), np.float32)
        if not args.plan:
            network = ImageNetwork(
                module, variables, images.train, images.num_classes, prepare, mesh=mesh
            )
            features = _scaled(1, np.asarray(network.embed(None, args.out / f"{FEATURES}.npy")))[0]
    none = np.zeros(0, np.int64)
    pool = Pool(features, images.num_classes, none, none)
    return Job(
        data[0],
        labels,
        data[1],
        test_labels,
        pool if args.plan else pool._replace(embedding=cluster_embedding(pool.features)),
        Classifier(module, DenseHead((), images.num_classes)),
        variables,
        data[2],
        config,
        args.prior,
        mesh,
        hard=args.hard_prior,
    )


def _resident(source: Any, few: int | None) -> Any:
    """Load images that fit, which saves decoding them again and again; to time steps, a few."""
    size = int(np.prod(source.load(np.zeros(1, np.int64)).shape)) * len(source)
    if few is not None:
        return source.load(np.arange(min(len(source), few)))
    return source.load(np.arange(len(source))) if size <= _RESIDENT else source


def _scaled(norm: float, *features: np.ndarray) -> list[np.ndarray]:
    """Scale features so that the first ones have this mean norm."""
    arrays = [np.asarray(x, np.float32) for x in features]
    found = np.linalg.norm(arrays[0], axis=1).mean()
    return [x * np.float32(norm / found if found > 0 else 1) for x in arrays]
