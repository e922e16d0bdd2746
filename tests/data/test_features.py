import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.data import cache, extract_features, from_arrays, take
from jaxal.records import fingerprint, read_record

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, 4, 4, 3), np.uint8)
SOURCE = from_arrays(IMAGES)
WEIGHTS = RNG.normal(size=(48, 5)).astype(np.float32)
MARK = {"encoder": "linear", "weights": fingerprint(WEIGHTS)}


@jax.jit
def encode(images):
    return images.reshape(len(images), -1).astype(jnp.float32) / 255 @ WEIGHTS


def expected():
    return IMAGES.reshape(23, -1).astype(np.float64) / 255 @ WEIGHTS.astype(np.float64)


class Counted:
    """`encode` that counts its calls and may fail at one."""

    def __init__(self, fail_at=None, error=None):
        self.calls = 0
        self.fail_at = fail_at
        self.error = RuntimeError("stopped") if error is None else error

    def __call__(self, images):
        self.calls += 1
        if self.calls - 1 == self.fail_at:
            raise self.error
        return encode(images)


def extract(path, apply=encode, source=SOURCE, chunk_size=4, **options):
    options = {"fingerprint": MARK, **options}
    return extract_features(apply, source, path, chunk_size=chunk_size, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def done(folder):
    return json.loads((folder / "x.json").read_text())["content"]["done"]


def test_features_of_all_rows(tmp_path):
    features = extract(tmp_path / "x")
    assert isinstance(features, np.memmap) and features.dtype == np.float32
    assert not features.flags.writeable
    np.testing.assert_allclose(features, expected(), rtol=1e-4, atol=1e-5)
    assert names(tmp_path) == ["x.json", "x.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), features)


@pytest.mark.parametrize("chunk_size", [1, 7, 23, 256])
def test_chunks_change_nothing(tmp_path, chunk_size):
    features = extract(tmp_path / "x", chunk_size=chunk_size)
    np.testing.assert_allclose(features, expected(), rtol=1e-4, atol=1e-5)


def test_one_shape_is_compiled(tmp_path):
    traced = []

    @jax.jit
    def apply(images):
        traced.append(images.shape)
        return encode(images)

    extract(tmp_path / "x", apply)
    assert traced == [(4, 4, 4, 3)]


def test_complete_features_are_not_computed_again(tmp_path):
    first = extract(tmp_path / "x")
    apply = Counted()
    for options in ({}, {"resume": False}, {"chunk_size": 9}):
        np.testing.assert_array_equal(extract(tmp_path / "x", apply, **options), first)
    np.testing.assert_array_equal(extract(str(tmp_path / "x.npy"), apply), first)
    assert apply.calls == 0


def test_paths_may_have_dots(tmp_path):
    extract(tmp_path / "vit.b16")
    extract(tmp_path / "vit.l16.npy")
    assert names(tmp_path) == ["vit.b16.json", "vit.b16.npy", "vit.l16.json", "vit.l16.npy"]


@pytest.mark.parametrize("fail_at", [1, 3, 5])
@pytest.mark.parametrize("error", [RuntimeError("stopped"), KeyboardInterrupt()])
def test_interrupted_work_goes_on_to_the_same_bits(tmp_path, fail_at, error):
    whole = extract(tmp_path / "whole")
    with pytest.raises(type(error)):
        extract(tmp_path / "x", Counted(fail_at, error))
    assert not (tmp_path / "x.npy").exists() and done(tmp_path) == 4 * fail_at
    apply = Counted()
    features = extract(tmp_path / "x", apply)
    assert apply.calls == 6 - fail_at
    assert features.tobytes() == whole.tobytes()
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert "x.partial.npy" not in names(tmp_path)


def test_work_may_go_on_in_other_chunks(tmp_path):
    with pytest.raises(RuntimeError):
        extract(tmp_path / "x", Counted(2))
    features = extract(tmp_path / "x", chunk_size=6)
    np.testing.assert_allclose(features, expected(), rtol=1e-4, atol=1e-5)


def test_a_failing_first_chunk_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        extract(tmp_path / "x", Counted(0))
    assert names(tmp_path) == []


def test_work_may_start_over(tmp_path):
    with pytest.raises(RuntimeError):
        extract(tmp_path / "x", Counted(3))
    apply = Counted()
    features = extract(tmp_path / "x", apply, resume=False)
    assert apply.calls == 6
    np.testing.assert_allclose(features, expected(), rtol=1e-4, atol=1e-5)


def test_a_killed_process_loses_what_was_not_recorded(tmp_path, monkeypatch):
    whole = extract(tmp_path / "whole")
    with pytest.raises(RuntimeError):
        extract(tmp_path / "x", Counted(2))
    record = (tmp_path / "x.json").read_bytes()
    with pytest.raises(RuntimeError):
        extract(tmp_path / "x", Counted(2))
    # Rows that were written, but not recorded, before the power failed; and half of one.
    (tmp_path / "x.json").write_bytes(record)
    with (tmp_path / "x.partial.npy").open("ab") as file:
        file.write(b"\xff" * 10)
    apply = Counted()
    assert extract(tmp_path / "x", apply).tobytes() == whole.tobytes()
    assert apply.calls == 4
    # Stopped between the last record and the renaming.
    (tmp_path / "x.npy").rename(tmp_path / "x.partial.npy")
    apply = Counted()
    assert extract(tmp_path / "x", apply).tobytes() == whole.tobytes()
    assert apply.calls == 0


def test_progress_is_recorded_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_SAVE_SECONDS", -1.0)
    seen = []

    def progress(rows, total):
        assert total == 23 and done(tmp_path) == rows
        seen.append(rows)

    extract(tmp_path / "x", progress=progress)
    assert seen == [4, 8, 12, 16, 20, 23]


def test_other_fingerprints_are_refused_by_name(tmp_path):
    path = tmp_path / "x"
    other = MARK | {"encoder": "cubic", "crop": 224}
    message = r"x.json: .*fingerprint.crop: expected 224, found None; fingerprint.encoder: expected"
    for fail_at in (2, None):
        if fail_at is None:
            extract(path)
        else:
            with pytest.raises(RuntimeError):
                extract(path, Counted(fail_at))
        before = [(tmp_path / name).read_bytes() for name in names(tmp_path)]
        for resume in (True, False):
            with pytest.raises(ValueError, match=message):
                extract(path, fingerprint=other, resume=resume)
        with pytest.raises(ValueError, match=r"dtype: expected 'float16', found 'float32'"):
            extract(path, dtype=np.float16)
        with pytest.raises(ValueError, match=r"rows: expected 2, found 23; source.*delete"):
            extract(path, source=take(SOURCE, [0, 1]))
        changed = IMAGES.copy()
        changed[22, 3, 3, 2] ^= 1
        with pytest.raises(ValueError, match=r"source.images.sha256: expected"):
            extract(path, source=from_arrays(changed))
        assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == before


def test_labels_do_not_matter(tmp_path):
    extract(tmp_path / "x")
    apply = Counted()
    extract(tmp_path / "x", apply, source=from_arrays(IMAGES, np.zeros(23, int)))
    assert apply.calls == 0


def test_float16(tmp_path):
    features = extract(tmp_path / "x", dtype="float16")
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features, np.asarray(encode(IMAGES)).astype(np.float16))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(tmp_path, value):
    def apply(images):
        marked = (images[:, 0, 0, 0] == IMAGES[10, 0, 0, 0]) & (
            images[:, 1, 1, 1] == IMAGES[10, 1, 1, 1]
        )
        return encode(images).at[:, 3].add(jnp.where(marked, value, 0))

    with pytest.raises(
        ValueError, match=r"apply: expected finite features, found NaN .* in row 10"
    ):
        extract(tmp_path / "x", apply)
    assert done(tmp_path) == 8


def test_features_beyond_float16_are_named(tmp_path):
    def apply(images):
        return encode(images).at[2, 1].set(70000.0)

    with pytest.raises(ValueError, match=r"within the range of float16, found 70000 in row 2"):
        extract(tmp_path / "x", apply, dtype="float16")
    assert np.asarray(extract(tmp_path / "y", apply))[2, 1] == 70000


def test_padding_may_be_anything(tmp_path):
    def apply(images):
        features = encode(images)
        # Of the last chunk, only three rows are real.
        repeated = (images[3] == images[0]).all()
        return features.at[3].set(jnp.where(repeated, jnp.nan, features[3]))

    np.testing.assert_allclose(extract(tmp_path / "x", apply), expected(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda images: encode(images)[:, 0], r"apply: expected features \[4, d\], found shape"),
        (lambda images: encode(images)[:3], r"expected features \[4, d\], found shape \(3, 5\)"),
        (lambda images: encode(images)[:, :0], "found shape"),
        (lambda images: images, r"found shape \(4, 4, 4, 3\)"),
    ],
)
def test_features_of_other_shapes_are_named(tmp_path, apply, message):
    with pytest.raises(ValueError, match=message):
        extract(tmp_path / "x", apply)
    assert names(tmp_path) == []


def test_other_columns_than_before_are_named(tmp_path):
    with pytest.raises(RuntimeError):
        extract(tmp_path / "x", Counted(2))
    with pytest.raises(ValueError, match=r"apply: expected 5 features, as .*before, found 4"):
        extract(tmp_path / "x", lambda images: encode(images)[:, :4])
    np.testing.assert_allclose(extract(tmp_path / "x"), expected(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": IMAGES}, "source: expected a source of images"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"fingerprint": {}}, "fingerprint: expected a mapping .*found {}"),
        ({"fingerprint": "resnet"}, "fingerprint: expected a mapping .*found 'resnet'"),
        ({"fingerprint": {"f": object()}}, "fingerprint.f: expected"),
        ({"dtype": "float64"}, "dtype: expected float32 or float16, found 'float64'"),
        ({"dtype": "half-ish"}, "dtype: expected float32 or float16"),
        ({"dtype": None}, "dtype: expected float32 or float16, found None"),
    ],
)
def test_bad_options_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        extract(tmp_path / "x", **change)
    assert names(tmp_path) == []


def test_bad_paths_are_named(tmp_path):
    with pytest.raises(ValueError, match="path: expected a file in a folder that exists"):
        extract(tmp_path / "no" / "x")
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(ValueError, match="path: expected a file, found the folder"):
        extract(tmp_path / "x")


def test_what_is_no_mesh_of_one_axis_is_named(tmp_path):
    for mesh, found in ((jax.make_mesh((1,), ("model",)), "'model'"), ("data", "str")):
        with pytest.raises(ValueError, match=rf'mesh: expected the single axis "data".*{found}'):
            extract(tmp_path / "x", mesh=mesh)


def test_record_tells_what_the_features_are(tmp_path):
    extract(tmp_path / "x")
    settings = json.loads((tmp_path / "x.json").read_text())["settings"]
    assert settings["fingerprint"] == MARK and settings["source"] == SOURCE.describe()
    assert settings["rows"] == 23 and settings["dtype"] == "float32"
    assert read_record(tmp_path / "x.json", settings) == {"columns": 5, "done": 23}


EIGHT_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh
from jaxal.data import extract_features, from_arrays

images = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 3), np.uint8)
weights = np.random.default_rng(1).normal(size=(48, 5)).astype(np.float32)
seen = []

def fail_at(chunk):
    @jax.jit
    def encode(x):
        return x.reshape(len(x), -1).astype(jnp.float32) / 255 @ weights

    def apply(x):
        if len(seen) == chunk:
            raise RuntimeError
        seen.append((x.shape, len(x.sharding.device_set)))
        return encode(x)

    return apply

mesh = Mesh(np.array(jax.devices()), ("data",))
options = dict(fingerprint={"encoder": 1}, chunk_size=5)
source, folder = from_arrays(images), sys.argv[1]
whole = extract_features(fail_at(-1), source, folder + "/whole", mesh=mesh, **options)
assert seen == [((8, 4, 4, 3), 8)] * 3, seen
try:
    extract_features(fail_at(5), source, folder + "/x", mesh=mesh, **options)
except RuntimeError:
    resumed = extract_features(fail_at(-1), source, folder + "/x", mesh=mesh, **options)
    assert resumed.tobytes() == whole.tobytes()
    assert len(seen) == 6
alone = extract_features(fail_at(-1), source, folder + "/alone", **options)
assert seen[-1] == ((5, 4, 4, 3), 1)
print(jax.device_count(), float(np.abs(alone - whole).max()))
"""


def test_eight_devices_share_the_chunks(tmp_path):
    flags = "--xla_force_host_platform_device_count=8"
    found = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES, str(tmp_path)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    devices, difference = found.stdout.split()
    assert devices == "8" and float(difference) < 1e-4
    assert {"whole.npy", "x.npy", "alone.npy"} <= set(names(tmp_path))
