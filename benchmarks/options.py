"""Options of strategies as a command line gives them: list, read and check them up front."""

import ast
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from jaxal.select import Pool, get_strategy
from jaxal.train.head import train_head

__all__ = ["check_options", "list_options", "read_options", "try_options"]

_WORDS = {"true": True, "false": False, "none": None}
_PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    type(None): "none",
}


def read_options(pairs: Sequence[str], flag: str) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs; a value is a Python literal, true, false, none, or a word.

    Raises:
      ValueError: something else; the error names the flag.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{flag}: expected KEY=VALUE, found {pair!r}")
        try:
            found[name] = _WORDS[value.lower()] if value.lower() in _WORDS else _literal(value)
        except RecursionError:
            raise ValueError(f"{flag}: expected a plain value, found {pair!r}") from None
    return found


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def list_options(strategy: str) -> str:
    """List a strategy's options, one a line, with their defaults and what they take."""
    parameters = inspect.signature(get_strategy(strategy).select).parameters
    known = _known(strategy)
    lines = ((f"{n}={parameters[n].default}", _wanted(hint)) for n, hint in known.items())
    return "\n".join(f"  {given:26} {wanted}" for given, wanted in lines)


def check_options(strategy: str, options: Mapping[str, Any], flag: str) -> None:
    """Check names and types.

    Args:
      strategy: whose options they are.
      options: by name.
      flag: what to call them in an error.

    Raises:
      ValueError: a name that is none of a plain value's, or a value of another type.
    """
    known = _known(strategy)
    for name, value in options.items():
        if name not in known:
            expected = f"one of {', '.join(known)}" if known else "none, as it takes no options"
            raise ValueError(f"{flag}: expected {expected}, found {name!r}")
        if not _fits(value, known[name]):
            raise ValueError(f"{flag}: {name}: expected {_wanted(known[name])}, found {value!r}")


def try_options(strategy: str, options: Mapping[str, Any], flag: str) -> None:
    """Check values, by a selection from a pool of twelve samples.

    Raises:
      ValueError: what the strategy refuses.
    """
    found = get_strategy(strategy)
    n, classes = 12, 3
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    labeled, key = np.arange(classes), jax.random.key(0)
    pool = Pool(
        features,
        classes,
        labeled=labeled,
        labels=labeled,
        probs=rng.dirichlet(np.ones(classes), size=n).astype(np.float32),
        hidden=features,
        embedding=features,
    )
    true_labels = {"true_labels": np.arange(n) % classes} if found.oracle else {}
    try:
        if "trained" in found.needs_with(options):
            pool = pool._replace(trained=train_head(key, features, labeled, labeled, classes))
        found.select(key, pool, batch_size=2, **options, **true_labels)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{flag}: {error}") from error


def _known(strategy: str) -> dict[str, Any]:
    """Map each option that a plain value can be given for to its type."""
    select: Callable[..., Any] = get_strategy(strategy).select
    fixed = {"batch_size"}
    while isinstance(select, functools.partial):
        # What a strategy sets for good is what makes it that strategy.
        fixed |= select.keywords.keys()
        select = select.func
    hints = typing.get_type_hints(select)
    options = [
        parameter.name
        for parameter in inspect.signature(select).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in fixed
    ]
    return {name: hints[name] for name in options if _is_plain(hints.get(name, Any))}


def _is_plain(hint: Any) -> bool:
    if typing.get_origin(hint) is Literal:
        return True
    parts = typing.get_args(hint)  # of a union
    return all(map(_is_plain, parts)) if parts else hint in list(_PLAIN)


def _fits(value: Any, hint: Any) -> bool:
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return value in parts
    if parts:
        return any(_fits(value, part) for part in parts)
    return type(value) is hint or (hint is float and type(value) is int)


def _wanted(hint: Any) -> str:
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(parts)
    return " or ".join(map(_wanted, parts)) if parts else _PLAIN[hint]
