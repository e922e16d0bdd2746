"""Import neural-tangents on versions of JAX that it was not written for.

neural-tangents 0.6.5 is its last release. It imports names that JAX has since moved or dropped, and
TensorFlow, which only its `experimental` sub-package uses. While it is being imported, and only
then, this module puts in place

* in ``jax.core``: the names that moved to ``jax.extend.core`` or JAX's internals;
* ``jax.util.safe_map`` and ``safe_zip``;
* ``jax.interpreters.ad.zeros_like_p``, as a key that no primitive equals;
* ``neural_tangents.experimental``, as an empty module.

What JAX still has is left alone, and afterwards all of these are taken away again. What stays:
``neural_tangents`` itself in ``sys.modules``, holding the objects that it imported. Of it only
`empirical_ntk_fn` is used here, with implementations that look up none of those names when run.
A neural-tangents that the caller has imported already is used as it is.
"""

import functools
import importlib
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

__all__ = ["load_neural_tangents", "neural_tangents_ntk_fn"]

_TESTED = "neural-tangents 0.6.5 with jax 0.6 to 0.12"
_NEWEST_TESTED = (0, 12)
_PACKAGE = "neural_tangents"
_CORE_NAMES = (
    "AbstractValue",
    "Jaxpr",
    "JaxprEqn",
    "Literal",
    "Primitive",
    "ShapedArray",
    "Value",
    "Var",
)
_UTIL_NAMES = ("safe_map", "safe_zip")
_lock = threading.Lock()


def neural_tangents_ntk_fn(
    apply: Callable[[Any, jax.Array], jax.Array], *, trace_outputs: bool
) -> Callable[[jax.Array, jax.Array, Any], jax.Array]:
    """Make neural-tangents' empirical NTK of a network whose examples do not influence each other.

    Args:
      apply: ``(params, x [n, ...]) -> [n, o]``.
      trace_outputs: average over equal outputs, else every pair of them.

    Returns:
      ``(x1, x2, params) -> [n1, n2]`` or ``[n1, n2, o, o]``.

    Raises:
      ImportError: neural-tangents is missing or cannot be imported with this JAX.
    """
    nt = load_neural_tangents()
    return nt.empirical_ntk_fn(
        apply,
        trace_axes=(-1,) if trace_outputs else (),
        vmap_axes=0,
        # By name: the automatic choice compiles all of them, and the structured one is broken.
        implementation=nt.NtkImplementation.JACOBIAN_CONTRACTION,
    )


def load_neural_tangents() -> types.ModuleType:
    """Import neural-tangents, or give back the one that is imported.

    Raises:
      ImportError: neural-tangents is missing or cannot be imported with this JAX.
    """
    with _lock:
        found = sys.modules.get(_PACKAGE)  # None there forbids the import, which says so below
        if found is not None:
            return found
        _warn_untested()
        before = set(sys.modules)
        try:
            with _names_in_place():
                module = importlib.import_module(_PACKAGE)
            # An attribute left behind would hide the real sub-package from whoever wants it.
            vars(module).pop("experimental", None)
            return module
        except Exception as error:
            for name in set(sys.modules) - before:
                if name == _PACKAGE or name.startswith(_PACKAGE + "."):
                    del sys.modules[name]
            raise ImportError(
                f"neural-tangents cannot be imported with jax {jax.__version__} ({error}). "
                f'Tested: {_TESTED}. engine="jax" computes the same kernel without it.'
            ) from error


@functools.cache
def _warn_untested() -> None:
    if jax.__version_info__[:2] > _NEWEST_TESTED:
        warnings.warn(
            f"jax {jax.__version__} is newer than what neural-tangents was tested with here "
            f'({_TESTED}); engine="jax" computes the same kernel without it.',
            stacklevel=2,
        )


@contextmanager
def _names_in_place() -> Iterator[None]:
    """Lend JAX the names that neural-tangents imports, and take them back."""
    import jax.core
    import jax.interpreters.ad

    lent: list[tuple[Any, str]] = []
    lent_modules: list[str] = []

    def lend(owner: Any, name: str, value: Any) -> None:
        if not _has(owner, name):
            setattr(owner, name, value)
            lent.append((owner, name))

    try:
        for name in _CORE_NAMES:
            if not _has(jax.core, name):
                lend(jax.core, name, _find(name, "jax.extend.core", "jax._src.core"))
        try:
            util = importlib.import_module("jax.util")
        except ImportError:
            util = sys.modules["jax.util"] = types.ModuleType("jax.util")
            lent_modules.append("jax.util")
        for name in _UTIL_NAMES:
            if not _has(util, name):
                lend(util, name, _find(name, "jax._src.util"))
        lend(jax.interpreters.ad, "zeros_like_p", object())
        experimental = f"{_PACKAGE}.experimental"
        sys.modules[experimental] = types.ModuleType(experimental)
        lent_modules.append(experimental)
        yield
    finally:
        for owner, name in lent:
            delattr(owner, name)
        for name in lent_modules:
            sys.modules.pop(name, None)


def _has(owner: Any, name: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return hasattr(owner, name)


def _find(name: str, *modules: str) -> Any:
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"no {name} in {' or '.join(modules)}")
