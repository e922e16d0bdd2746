"""The adapter, each test in a fresh interpreter: what is imported first is what is tested."""

import subprocess
import sys
import textwrap

COMPUTE = """
import sys, warnings
import numpy as np
from jaxal.kernels import empirical_ntk
def compute(engine="neural-tangents"):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    return np.asarray(empirical_ntk(lambda p, x: x @ p, np.ones((2, 2), np.float32), x,
                                    engine=engine))
x = np.arange(6, dtype=np.float32).reshape(3, 2)
"""


def run(code):
    code = COMPUTE + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tensorflow_is_never_loaded():
    run("""
        assert "neural_tangents" not in sys.modules
        np.testing.assert_allclose(compute(), x @ x.T, rtol=1e-6)
        assert "neural_tangents" in sys.modules
        for name in ("tensorflow", "tf2jax", "matplotlib", "sklearn"):
            assert name not in sys.modules, name
    """)


def test_jax_is_left_as_it_was():
    run("""
        import importlib, jax, jax.core, jax.interpreters.ad
        owners = (jax, jax.core, jax.interpreters.ad)
        before = [set(vars(owner)) for owner in owners]
        compute()
        for owner, names in zip(owners, before):
            for name in set(vars(owner)) - names:  # only sub-modules that it imported
                importlib.import_module(f"{owner.__name__}.{name}")
        if "jax.util" in sys.modules:
            assert sys.modules["jax.util"].__file__
        assert "neural_tangents.experimental" not in sys.modules
        assert not hasattr(sys.modules["neural_tangents"], "experimental")
    """)


def test_a_broken_import_says_what_works_and_can_be_tried_again():
    run("""
        from jaxal.kernels import _neural_tangents as adapter
        names = adapter._CORE_NAMES
        adapter._CORE_NAMES = (*names, "NoSuchName")
        for _ in range(2):
            try:
                compute()
            except ImportError as error:
                message = str(error)
            else:
                raise AssertionError("no error")
            assert "NoSuchName" in message and 'engine="jax"' in message, message
            assert "neural-tangents 0.6.5 with jax 0.6 to 0.12" in message, message
        assert not any(name.startswith("neural_tangents") for name in sys.modules)
        np.testing.assert_allclose(compute("jax"), x @ x.T, rtol=1e-6)
        adapter._CORE_NAMES = names
        np.testing.assert_allclose(compute(), x @ x.T, rtol=1e-6)
    """)


def test_a_failure_half_way_leaves_nothing_behind():
    run("""
        sys.modules["neural_tangents._src.predict"] = None
        sys.modules["scipy.special"] = None
        import jax.core
        before = set(vars(jax.core))
        sys.modules["neural_tangents.stax"] = None
        try:
            compute()
        except ImportError as error:
            assert 'engine="jax"' in str(error)
        else:
            raise AssertionError("no error")
        assert set(vars(jax.core)) == before
        assert "neural_tangents" not in sys.modules
    """)


def test_a_missing_package_gives_the_same_error():
    run("""
        sys.modules["neural_tangents"] = None
        try:
            compute()
        except ImportError as error:
            assert 'engine="jax"' in str(error)
        else:
            raise AssertionError("no error")
    """)


def test_a_newer_jax_gives_one_warning():
    run("""
        import jax
        jax.__version_info__ = (0, 99, 0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compute(), compute()
        found = [w for w in caught if "newer" in str(w.message)]
        assert len(found) == 1, caught
    """)


def test_what_the_caller_imported_is_used():
    run("""
        from jaxal.kernels import _neural_tangents as adapter
        import types
        mine = types.ModuleType("neural_tangents")
        sys.modules["neural_tangents"] = mine
        assert adapter.load_neural_tangents() is mine
    """)
