"""Images a second: encoders forward and in training, features to disk, and augmentations."""

import functools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.measuring import (
    best,
    describe_device,
    matmul_rate,
    peak_gib,
    run_alone,
    write_report,
)
from benchmarks.tables import markdown, table_line
from jaxal.augment import images_per_second, simclr_view, simsiam_view, strong, weak
from jaxal.checks import check_choice
from jaxal.data import extract_features, from_arrays
from jaxal.models.classifier import Classifier
from jaxal.models.encoders import ENCODERS, get_encoder
from jaxal.models.heads import DenseHead
from jaxal.models.preprocess import preprocess
from jaxal.train.step import Aux, init_state, make_train_step

__all__ = ["count_flops", "image_names", "measure_images"]

# The encoder's name, the side of its images and, on CPUs and accelerators, how many at once.
_ENCODERS = {
    "conv4": (84, 64, 1024),
    "resnet18_cifar": (32, 32, 1024),
    "wrn_28_2": (32, 32, 1024),
    "mobilenet_v2": (160, 16, 256),
    "resnet50": (224, 4, 256),
    "vit_s16": (224, 8, 256),
}
_VIEWS: dict[str, tuple[Callable[[], Any], int]] = {
    "weak": (weak, 32),
    "strong": (strong, 32),
    "simclr view": (functools.partial(simclr_view, 32, strength=0.5), 32),
    "simsiam view": (functools.partial(simsiam_view, 32), 32),
}
_HEADER = [
    "what",
    "pixels",
    "batch",
    "forward / s",
    "of product rate",
    "training / s",
    "of product rate",
    "features / s",
    "peak GiB",
]
_NOTE = (
    "Images a second of the best of three after the first call, which compiles. Training: one step "
    "of SGD with batch statistics and no augmentation. Features: from uint8 images in memory to a "
    "file, resizing and loading ahead included. Of product rate: operations that XLA counts, a "
    "second, to those of a large matrix product of the same type in the same process."
)


def image_names(wanted: Sequence[str] = (), *, quick: bool = False) -> list[tuple[str, str]]:
    """List what there is to measure, or the part wanted: names and types of number.

    Raises:
      ValueError: a name that is not known.
    """
    known = [*_ENCODERS, *_VIEWS]
    for name in wanted:
        check_choice(name, "--images", known)
    dtypes = ["float32"] if jax.default_backend() == "cpu" else ["bfloat16", "float32"]
    names = wanted or (["conv4", *_VIEWS] if quick else known)
    return [(name, dtype) for name in names for dtype in (dtypes if name in _ENCODERS else [""])]


def measure_images(
    out: Path, names: Sequence[tuple[str, str]], *, quick: bool = False
) -> list[dict[str, Any]]:
    """Measure encoders and augmentations, each in a process of its own; write a table.

    Args:
      out: folder of ``speed_images.csv`` and ``speed_images.md``.
      names: of `image_names`.
      quick: small sizes.

    Returns:
      The rows of the table, without those whose process failed.
    """
    rows, lines = [], []
    for name, dtype in names:
        given = json.dumps({"name": name, "dtype": dtype, "quick": quick})
        try:
            row = run_alone("benchmarks.image_speed", [given], f"{name} {dtype}".strip())
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            continue
        rows.append(row)
        lines.append(_cells(row))
        print(table_line(lines[-1]), flush=True)
        paragraphs = [f"Device {describe_device()}.", markdown([_HEADER, *lines]), _NOTE]
        write_report(out / "speed_images", rows, paragraphs)
    return rows


def _cells(row: dict[str, Any]) -> list[str]:
    def number(name: str) -> str:
        return "" if row[name] is None else f"{row[name]:.3g}"

    return [
        row["what"],
        str(row["pixels"]),
        str(row["batch"]),
        number("forward"),
        number("forward_share"),
        number("training"),
        number("training_share"),
        number("features"),
        f"{row['peak_gib']:.2f}",
    ]


def _measure(name: str, dtype: str, quick: bool) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("forward", "forward_share", "training", "training_share", "features")
    )
    if name in _VIEWS:
        make, side = _VIEWS[name]
        batch = 32 if quick else 256
        images = np.random.default_rng(0).random((batch, side, side, 3), np.float32)
        row["forward"] = images_per_second(make(), jax.random.key(0), images, repeats=3)
        return {"what": name, "pixels": side, "batch": batch, **row, "peak_gib": peak_gib()}
    side, few, many = _ENCODERS[name]
    batch = few if jax.default_backend() == "cpu" else many
    if quick:
        side, batch = 32, 8
    case = _make_case(name, dtype, side, batch)
    row |= {**_forward_rates(case), **_training_rates(case), "features": _feature_rate(case)}
    peak = peak_gib()
    size = 256 if quick else 4096 if jax.default_backend() == "cpu" else 16384
    rate = matmul_rate(size, dtype, precision=None)
    for part in ("forward", "training"):
        row[f"{part}_share"] = row[part] * row.pop(f"{part}_flops") / rate
    label = name if dtype == "float32" else f"{name}, {dtype}"
    return {"what": label, "pixels": side, "batch": batch, **row, "peak_gib": peak}


class _Case(NamedTuple):
    """An encoder with a linear head of ten classes, and a batch."""

    name: str
    classifier: Classifier
    variables: dict[str, Any]
    prepare: Callable[[Any], jax.Array]  # uint8 images to what the encoder reads
    pixels: np.ndarray  # uint8 [batch, side, side, 3]


def _make_case(name: str, dtype: str, side: int, batch: int) -> _Case:
    attributes: dict[str, Any] = {"dtype": jnp.dtype(dtype)}
    if name == "conv4":
        attributes["image_size"] = side
    classifier = Classifier(get_encoder(name, **attributes), DenseHead((), 10))
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(batch, side, side, 3), dtype=np.uint8)
    preprocessing = ENCODERS[name].preprocessing._replace(size=side)
    prepare = functools.partial(preprocess, preprocessing=preprocessing)
    variables = dict(jax.jit(classifier.init)(jax.random.key(0), prepare(pixels[:1])))
    return _Case(name, classifier, variables, prepare, pixels)


def _forward_rates(case: _Case) -> dict[str, float]:
    images, batch = case.prepare(case.pixels), len(case.pixels)
    forward = jax.jit(lambda variables, images: case.classifier.apply(variables, images)[0])
    return {
        "forward": batch / best(lambda: forward(case.variables, images))[1],
        "forward_flops": count_flops(forward, case.variables, images) / batch,
    }


def _training_rates(case: _Case) -> dict[str, float]:
    def loss_fn(params: Any, stats: Any, batch: dict[str, Any], key: jax.Array) -> Any:
        (logits, _), updated = case.classifier.apply(
            {"params": params, "batch_stats": stats},
            batch["images"],
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return losses.mean(), Aux(updated.get("batch_stats", {}), {})

    optimizer = optax.sgd(1e-3, momentum=0.9, nesterov=True)
    step = make_train_step(loss_fn, optimizer)
    batch = len(case.pixels)
    given = {"images": case.prepare(case.pixels), "labels": jnp.zeros(batch, jnp.int32)}
    state = init_state(case.variables, optimizer)

    def train() -> jax.Array:
        nonlocal state
        state, metrics = step(state, given, jax.random.key(0))
        return metrics["loss"]

    seconds = best(train)[1]
    gradient = jax.jit(jax.grad(loss_fn, has_aux=True))
    stats = case.variables.get("batch_stats", {})
    arguments = case.variables["params"], stats, given, jax.random.key(0)
    return {
        "training": batch / seconds,
        "training_flops": count_flops(gradient, *arguments) / batch,
    }


def _feature_rate(case: _Case) -> float:
    own = {name: tree["encoder"] for name, tree in case.variables.items() if "encoder" in tree}
    apply = jax.jit(lambda images: case.classifier.encoder.apply(own, case.prepare(images)))
    many = from_arrays(np.tile(case.pixels, (4, 1, 1, 1)))

    def extract() -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "features"
            return np.array(
                extract_features(
                    apply, many, path, fingerprint={"of": case.name}, chunk_size=len(case.pixels)
                )
            )

    return len(many) / best(extract)[1]


def count_flops(fn: Any, *arguments: Any) -> float:
    """Count a program's operations, as XLA does for CPUs; on others it leaves out libraries'."""
    cpu = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cpu), arguments)
    return float(fn.lower(*shapes).cost_analysis()["flops"])


if __name__ == "__main__":
    print(json.dumps(_measure(**json.loads(sys.argv[1]))))
