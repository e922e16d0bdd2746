"""What importing the package costs and gives."""

import subprocess
import sys

import jaxal


def test_import_loads_no_heavy_package():
    heavy = ("tensorflow", "matplotlib", "sklearn", "neural_tangents", "tensorflow_datasets")
    code = f"import jaxal, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_announced_is_there():
    assert all(hasattr(jaxal, name) for name in jaxal.__all__)
