"""What a killed training goes on from: the newest checkpoint, unless a byte of it isn't what was written."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.errors import InputError
from jaxpolya.train.checkpoints import Checkpoints

ABSTRACT = {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32), "n": jax.ShapeDtypeStruct((), jnp.int32)}


def state(seed: int):
    return {"w": jax.random.normal(jax.random.key(seed), (64, 64)), "n": jnp.int32(seed)}


def abstract(mesh):
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), ABSTRACT)


@pytest.fixture(params=["checkpoints", "[v2] a*b?"])
def directory(request, tmp_path):
    """Of three checkpoints, of which two are kept."""
    directory = tmp_path / request.param / "checkpoints"
    checkpoints = Checkpoints(directory)
    for step in (1, 2, 10):
        checkpoints.save(step, state(step))
    checkpoints.close()
    return directory


def restored(directory, mesh):
    checkpoints = Checkpoints(directory)
    try:
        return checkpoints.restore(checkpoints.latest(), abstract(mesh))
    finally:
        checkpoints.close()


def test_the_newest_is_restored(directory, mesh1):
    newest = restored(directory, mesh1)
    assert int(newest["n"]) == 10 and np.array_equal(newest["w"], state(10)["w"])
    assert sorted(path.name for path in directory.iterdir() if path.is_dir()) == ["10", "2"]


def test_whatever_happened_to_its_files_is_said_with_the_remedy(directory, mesh1):
    newest, rng = directory / "10", random.Random(0)
    files = sorted(path for path in newest.glob("default/**/*") if path.is_file())  # what lies beside is not read
    assert sum(path.stat().st_size for path in files) > 64 * 64  # the arrays are among them
    for path in files:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        for damaged in (bytes(flipped), whole[: len(whole) // 2], b"", None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"checkpoints/10: this checkpoint can't be read .*delete that directory"):
                restored(directory, mesh1)
            path.write_bytes(whole)
    (directory / "checksums-10.json").write_text("{torn")
    with pytest.raises(InputError, match=r"checkpoints/10: this checkpoint can't be read \(checksums-10\.json"):
        restored(directory, mesh1)
