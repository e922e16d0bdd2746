"""Training, each part of which can be used alone.

* `train_head`, `predict_head`, `predict_probs`, `TrainedHead`: heads on fixed features; `LINEAR`
  and `PROXY` are a `HeadConfig`, and so is `PROXY_IMAGENET`.
* `finetune`, `Finetuned`: a probe or fine-tuning on labelled images; `FT_IMAGENET`, `FT_CIFAR10`
  and `FT_SMALL` are a `FinetuneConfig`.
* `lp_ft`: a probe, and fine-tuning from there; `LPFT_IMAGENET`, `LPFT_CIFAR10` and `LPFT_SMALL` are
  an `LpftConfig`.
* `pretrain`, `Pretrained`: an encoder without labels; `SIMSIAM_CIFAR10`, `SIMSIAM_IMAGENET`,
  `SIMSIAM_SMALL`, `SIMCLR_CIFAR10` and `SIMCLR_SMALL` are a `PretrainConfig`.
* `train_semi`, `SemiTrained`: a few labels and a pool without; `FIXMATCH_CIFAR10`,
  `FLEXMATCH_CIFAR10` and `FREEMATCH_CIFAR10` are a `SemiConfig`.
* `simsiam_loss`, `nt_xent`: the losses of SimSiam and SimCLR.
* `make_optimizer`, `OptimizerConfig`, `ScheduleConfig`: optimisers of a network's parts.
* `make_train_step`, `init_state`, `TrainState`: one step of any training, over all devices.
* `DivergedError`: what is raised where a training's loss or weights are no longer finite.
* `evaluate`, `make_apply`, `Evaluation`: how good a classifier is on images.
* `knn_accuracy`, `linear_accuracy`: how good features are.
* `save_checkpoint`, `restore_checkpoint`: a training on the disk.
"""

from jaxal.train.checkpoints import restore_checkpoint, save_checkpoint
from jaxal.train.contrastive import nt_xent
from jaxal.train.epochs import DivergedError
from jaxal.train.evaluate import Evaluation, evaluate, make_apply
from jaxal.train.finetune import Finetuned, finetune, lp_ft
from jaxal.train.head import (
    LINEAR,
    PROXY,
    PROXY_IMAGENET,
    HeadConfig,
    TrainedHead,
    predict_head,
    predict_probs,
    train_head,
)
from jaxal.train.optimizers import OptimizerConfig, make_optimizer
from jaxal.train.pretrain import (
    SIMCLR_CIFAR10,
    SIMCLR_SMALL,
    SIMSIAM_CIFAR10,
    SIMSIAM_IMAGENET,
    SIMSIAM_SMALL,
    PretrainConfig,
    Pretrained,
    pretrain,
)
from jaxal.train.probes import knn_accuracy, linear_accuracy
from jaxal.train.recipes import (
    FT_CIFAR10,
    FT_IMAGENET,
    FT_SMALL,
    LPFT_CIFAR10,
    LPFT_IMAGENET,
    LPFT_SMALL,
    FinetuneConfig,
    LpftConfig,
)
from jaxal.train.schedules import ScheduleConfig
from jaxal.train.semi_recipes import (
    FIXMATCH_CIFAR10,
    FLEXMATCH_CIFAR10,
    FREEMATCH_CIFAR10,
    SemiConfig,
)
from jaxal.train.semisupervised import SemiTrained, train_semi
from jaxal.train.siamese import simsiam_loss
from jaxal.train.step import TrainState, init_state, make_train_step

__all__ = [
    "FIXMATCH_CIFAR10",
    "FLEXMATCH_CIFAR10",
    "FREEMATCH_CIFAR10",
    "FT_CIFAR10",
    "FT_IMAGENET",
    "FT_SMALL",
    "LINEAR",
    "LPFT_CIFAR10",
    "LPFT_IMAGENET",
    "LPFT_SMALL",
    "PROXY",
    "PROXY_IMAGENET",
    "SIMCLR_CIFAR10",
    "SIMCLR_SMALL",
    "SIMSIAM_CIFAR10",
    "SIMSIAM_IMAGENET",
    "SIMSIAM_SMALL",
    "DivergedError",
    "Evaluation",
    "FinetuneConfig",
    "Finetuned",
    "HeadConfig",
    "LpftConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "Pretrained",
    "ScheduleConfig",
    "SemiConfig",
    "SemiTrained",
    "TrainState",
    "TrainedHead",
    "evaluate",
    "finetune",
    "init_state",
    "knn_accuracy",
    "linear_accuracy",
    "lp_ft",
    "make_apply",
    "make_optimizer",
    "make_train_step",
    "nt_xent",
    "predict_head",
    "predict_probs",
    "pretrain",
    "restore_checkpoint",
    "save_checkpoint",
    "simsiam_loss",
    "train_head",
    "train_semi",
]
