"""What the commands asvp and as3l run where the command line names neither data nor encoder."""

import argparse
from typing import Any, NamedTuple

from jaxal.models.saved import is_saved

__all__ = ["Origin", "fill_origin"]


class Origin(NamedTuple):
    """The data set and the encoder of a scale."""

    dataset: str
    encoder: str
    size: int
    width: int | None = None


def fill_origin(args: argparse.Namespace, origin: Origin) -> dict[str, Any]:
    """Fill in data set and encoder where the command line leaves them open.

    Returns:
      All arguments, by name.
    """
    given = dict(vars(args))
    features = args.features or args.test_features
    if not (args.dataset or args.folder or args.images or features):
        given["dataset"] = origin.dataset
    # What pretrain wrote says of what encoder it is.
    told = features or (args.weights is not None and is_saved(args.weights))
    if args.encoder is None and not told:
        given["encoder"] = origin.encoder
        for name in ("size", "width"):
            if given[name] is None:
                given[name] = getattr(origin, name)
    return given
