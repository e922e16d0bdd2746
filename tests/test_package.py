"""What importing the package costs and gives."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import jaxal
import jaxal.models
import jaxal.train


def test_import_loads_no_heavy_package():
    heavy = ("tensorflow", "matplotlib", "sklearn", "neural_tangents", "tensorflow_datasets")
    heavy += ("orbax", "torch", "PIL")
    code = f"import jaxal, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", [jaxal, jaxal.models, jaxal.train], ids=lambda m: m.__name__)
def test_everything_announced_is_there(module):
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("module", [jaxal.models, jaxal.train], ids=lambda m: m.__name__)
def test_functions_named_like_their_modules_stay_functions(module):
    for found in pkgutil.iter_modules(module.__path__, f"{module.__name__}."):
        importlib.import_module(found.name)
    for name in module.__all__:
        assert f"`{name}`" in module.__doc__
        assert getattr(module, name).__class__.__name__ != "module"
