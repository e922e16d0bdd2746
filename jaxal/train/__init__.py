"""Training steps and loops."""

from jaxal.train.head import (
    LINEAR,
    PROXY,
    HeadConfig,
    TrainedHead,
    predict_head,
    predict_probs,
    train_head,
)

__all__ = [
    "LINEAR",
    "PROXY",
    "HeadConfig",
    "TrainedHead",
    "predict_head",
    "predict_probs",
    "train_head",
]
