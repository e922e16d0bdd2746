"""A pre-trained network and the images of a pool, as selection pipelines train and read it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxal.checks import NotFiniteError, check_choice, check_indices, check_positive
from jaxal.data.features import extract_features
from jaxal.data.sources import ImageSource, check_source, take
from jaxal.models.classifier import Classifier
from jaxal.models.fingerprints import tree_digest
from jaxal.models.heads import DenseHead
from jaxal.records import describe
from jaxal.train.epochs import DivergedError
from jaxal.train.evaluate import Evaluation, evaluate, make_apply
from jaxal.train.finetune import finetune, lp_ft
from jaxal.train.head import TrainedHead
from jaxal.train.recipes import (
    FT_SMALL,
    LPFT_SMALL,
    FinetuneConfig,
    LpftConfig,
    check_finetune,
)
from jaxal.train.supervised import Prepare

__all__ = ["METHODS", "ImageNetwork", "Method", "Network", "compiled_encoder", "head_of"]

# A probe of the frozen encoder, fine-tuning of everything, and the two in turn.
Method = Literal["lp", "ft", "lpft"]
METHODS: tuple[Method, ...] = ("lp", "ft", "lpft")

# Images of less are kept on the device while they are trained on.
_RESIDENT = 2 * 10**9  # bytes


class Network(Protocol):
    """What selection pipelines ask of a network: `ImageNetwork` does it for images."""

    @property
    def num_classes(self) -> int:
        """How many classes its head tells apart."""

    @property
    def pool_size(self) -> int:
        """How many samples the pool has."""

    def describe(self) -> Mapping[str, Any]:
        """Say what trainings and features depend on, as JSON can hold it."""

    def train(
        self,
        key: jax.Array,
        rows: ArrayLike,
        labels: ArrayLike,
        method: Method,
        *,
        folder: Path | None = None,
    ) -> dict[str, Any]:
        """Train from the pre-trained weights to the end, saving to ``folder``.

        Returns:
          The variables; ``["params"]["head"]["output"]`` is a linear head on what `embed` gives.

        Raises:
          DivergedError: of `jaxal.train`, where the training diverges; selection then goes on.
        """

    def embed(self, variables: Mapping[str, Any] | None, path: Path) -> ArrayLike:
        """Compute the pool's features ``[n, d]``, by the pre-trained weights where None.

        Raises:
          DivergedError: where those of a trained network are not finite.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class ImageNetwork:
    """A pre-trained encoder that a linear head is trained on, always from the same weights.

    Attributes:
      encoder: from `jaxal.models.get_encoder`, or any module of the same signature.
      variables: its ``params`` and ``batch_stats``, pre-trained.
      images: the pool.
      num_classes: outputs of the head.
      prepare: as in `finetune`; the same function each time.
      ft: how it is fine-tuned.
      lpft: how it is probed, and probed and then fine-tuned.
      mesh: devices to lay batches over.
      chunk_size: images whose features are computed at once.
      checkpoints: whether trainings save every epoch, to go on from there, rather than begin anew,
        after a kill.
    """

    encoder: nn.Module
    variables: Mapping[str, Any]
    images: ImageSource
    num_classes: int
    prepare: Prepare | None = None
    ft: FinetuneConfig = FT_SMALL
    lpft: LpftConfig = LPFT_SMALL
    mesh: Mesh | None = None
    chunk_size: int = 256
    checkpoints: bool = True

    def __post_init__(self) -> None:
        """Check what trainings would find late.

        Raises:
          ValueError: a configuration or a count out of its range.
        """
        check_source(self.images)
        check_positive(self.num_classes, "num_classes")
        check_positive(self.chunk_size, "chunk_size")
        check_finetune(self.ft, "ft")
        for stage, config in self.lpft._asdict().items():
            check_finetune(config, f"lpft.{stage}")

    @property
    def pool_size(self) -> int:
        """How many images the pool has."""
        return len(self.images)

    def describe(self) -> dict[str, Any]:
        """Say what trainings and features depend on, as JSON can hold it."""
        about = {
            "encoder": self.encoder,
            "variables": tree_digest(self.variables),
            "images": self.images.describe(),
            "num_classes": self.num_classes,
            "prepare": self.prepare,
            "ft": self.ft,
            "lpft": self.lpft,
        }
        return describe(about, "network")

    def train(
        self,
        key: jax.Array,
        rows: ArrayLike,
        labels: ArrayLike,
        method: Method,
        *,
        folder: Path | None = None,
    ) -> dict[str, Any]:
        """Train a classifier from the pre-trained weights and a head drawn anew.

        Args:
          key: the head's first weights, the order of images and their augmentation.
          rows: ``[l]`` distinct rows of the pool.
          labels: ``[l]`` their classes.
          method: "lp", "ft" or "lpft".
          folder: where checkpoints go, if any.

        Returns:
          The variables of the classifier, ``{"params": {"encoder", "head"}, "batch_stats"}``.

        Raises:
          ValueError: rows or labels that do not fit, or another method.
          DivergedError: the training diverges.
        """
        check_choice(method, "method", Method)
        chosen = check_indices(rows, len(self.images), "rows")
        head_key, train_key = jax.random.split(key)
        start = self._with_head(head_key)
        shape = self.images.load(chosen[:1]).shape
        source = take(self.images, chosen)
        small = len(chosen) * int(np.prod(shape[1:])) <= _RESIDENT
        images: Any = source.load(np.arange(len(chosen))) if small else source
        options: dict[str, Any] = {
            "prepare": self.prepare,
            "mesh": self.mesh,
            "checkpoint": folder if self.checkpoints else None,
        }
        given = (train_key, self._classifier, start, images, labels)
        if method == "lpft":
            return lp_ft(*given, config=self.lpft, **options)[1].variables
        config = self.ft if method == "ft" else self.lpft.probe
        return finetune(*given, config=config, **options).variables

    def embed(
        self,
        variables: Mapping[str, Any] | None,
        path: Path,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.memmap:
        """Compute the pool's features, or map those computed before.

        Args:
          variables: of a classifier from `train`; None for the pre-trained encoder.
          path: where to keep them.
          progress: called after each chunk with the number of rows done and of all.

        Returns:
          ``[n, d]`` float32, see `jaxal.data.extract_features`.

        Raises:
          ValueError: what is at ``path`` is of another network.
          DivergedError: features of ``variables`` that are not finite.
        """
        own = self.variables if variables is None else _encoder_part(variables)
        about = {
            "encoder": describe(self.encoder, "encoder"),
            "variables": tree_digest(own),
            "prepare": describe(self.prepare, "prepare"),
        }
        apply = functools.partial(compiled_encoder(self.encoder, self.prepare), own)
        try:
            return extract_features(
                apply,
                self.images,
                path,
                fingerprint=about,
                chunk_size=self.chunk_size,
                mesh=self.mesh,
                progress=progress,
            )
        except NotFiniteError as error:
            if variables is None:  # then it is the encoder that is bad
                raise
            raise DivergedError(str(error)) from error

    def evaluate(self, variables: Mapping[str, Any], images: Any, labels: ArrayLike) -> Evaluation:
        """Evaluate a classifier from `train` on images, see `jaxal.train.evaluate`.

        Raises:
          ValueError: labels that do not fit.
          DivergedError: predictions that are not finite.
        """
        apply = make_apply(self._classifier, variables, prepare=self.prepare)
        try:
            return evaluate(apply, images, labels, self.num_classes, mesh=self.mesh)
        except NotFiniteError as error:
            raise DivergedError(str(error)) from error

    @property
    def _classifier(self) -> Classifier:
        return Classifier(self.encoder, DenseHead((), self.num_classes))

    def _with_head(self, key: jax.Array) -> dict[str, Any]:
        image = self.images.load(np.zeros(1, np.int64))
        encode = compiled_encoder(self.encoder, self.prepare)
        width = jax.eval_shape(encode, self.variables, image).shape[1]
        head = DenseHead((), self.num_classes).init(key, jnp.zeros((1, width)))
        variables = {name: {"encoder": tree} for name, tree in self.variables.items()}
        variables["params"] = {**variables["params"], "head": head["params"]}
        return variables


def head_of(variables: Mapping[str, Any], num_classes: int) -> TrainedHead:
    """Take the linear head out of a classifier's variables: it reads the classifier's features."""
    params = variables["params"]["head"]
    return TrainedHead(DenseHead((), num_classes), {"params": params}, jnp.zeros(0))


def _encoder_part(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tree["encoder"] for name, tree in variables.items() if "encoder" in tree}


@functools.lru_cache(maxsize=8)
def compiled_encoder(encoder: nn.Module, prepare: Prepare | None) -> Callable[..., jax.Array]:
    """Compile an encoder once for all weights.

    Returns:
      ``(variables, images uint8 [n, h, w, c]) -> features [n, d]``.
    """

    @jax.jit
    def encode(variables: Any, images: jax.Array) -> jax.Array:
        x = images.astype(jnp.float32) / 255
        return jnp.asarray(encoder.apply(variables, x if prepare is None else prepare(x)))

    return encode
