"""Memory of an import, and who reads and writes what where there are several processes."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from etils import epath
from hosts import on_hosts

from jaxpolya.hf.families import config_to_hf, iter_tensors
from jaxpolya.hf.safetensors_file import file_order, open_to_write
from jaxpolya.models.config import DecoderConfig

START = """
import json, sys
import jax
process, port, source, out = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
from jaxpolya.config import MeshConfig
from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint, save_checkpoint
from jaxpolya.parallel.mesh import make_mesh
mesh = make_mesh(MeshConfig(fsdp=4))
"""

STREAMED = """
from jaxpolya.hf import safetensors_file
from jaxpolya.hf.safetensors_file import Safetensors
reads, read, fetched, fetch = [], Safetensors.read, [], safetensors_file._MappedFile.read
def recording(self, name, index):
    array = read(self, name, index)
    reads.append((name, [cut.indices(size)[:2] for cut, size in zip(index, self.shapes[name])]))
    return array
def fetching(self, start, stop):
    fetched.append(stop - start)
    return fetch(self, start, stop)
Safetensors.read, safetensors_file._MappedFile.read = recording, fetching
checkpoint = load_checkpoint(source, mesh=mesh)
export_checkpoint(out, checkpoint.params, checkpoint.meta, max_shard_size="60KB")
print("FOUND " + json.dumps([reads, sum(fetched)]))
"""

REFUSED = """
import contextlib, errno, os
from unittest import mock
from jaxpolya.errors import CheckError
from jaxpolya.hf import checkpoint as ours, export
checkpoint = load_checkpoint(source, mesh=mesh)
told = {}
@contextlib.contextmanager
def full_on_host_0(module, name):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mock.patch.object(module, name, full) if process == 0 else contextlib.nullcontext():
        yield
@contextlib.contextmanager
def full_at_the_third_tensor(path, dtypes, shapes):
    written = []
    def write(array):
        written.append(array)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    yield write
def note(case, do, directory, **options):
    try:
        do(directory, checkpoint.params, checkpoint.meta, **options)
    except Exception as error:
        told[case] = [type(error).__name__, str(error)]
def check(_):
    if process == 1:
        raise CheckError("host 1 doesn't like it")
def bug(_):
    if process == 1:
        raise KeyError("layer")
for do in (save_checkpoint, export_checkpoint):
    # Disks of their own: on that of host 0 the place is taken.
    note("taken " + do.__name__, do, source if process == 0 else out)
with full_on_host_0(export, "open_to_write"):
    note("opening", export_checkpoint, out)
with mock.patch.object(export, "open_to_write", full_at_the_third_tensor):
    note("writing", export_checkpoint, out, max_shard_size="60KB")
for do, module in ((save_checkpoint, ours), (export_checkpoint, export)):
    with full_on_host_0(module, "write_small_files"):
        note("small " + do.__name__, do, out)
note("check", export_checkpoint, out, check=check)
note("bug", export_checkpoint, out, check=bug)
assert process == 1 or os.listdir(os.path.dirname(out)) == ["theirs"]
export_checkpoint(out, checkpoint.params, checkpoint.meta)
print("FOUND " + json.dumps(told))
"""


def on_two_processes(program: str, *arguments) -> list:
    """What each of two processes finds."""
    return [
        json.loads(next(line for line in out.splitlines() if line.startswith("FOUND "))[6:])
        for out in on_hosts(START + program, *arguments)
    ]


def test_two_processes_share_the_reading_and_write_one_directory(tiny_checkpoint, tmp_path):
    reads = on_two_processes(STREAMED, tiny_checkpoint, tmp_path / "out")
    tensors = safetensors.numpy.load_file(tiny_checkpoint / "model.safetensors")
    counts = {name: np.zeros((2, *array.shape), int) for name, array in tensors.items()}
    for process, (slices, _) in enumerate(reads):
        for name, index in slices:
            counts[name][(process, *(slice(*cut) for cut in index))] += 1
    for name, (one, two) in counts.items():
        assert (one + two == 1).all(), f"{name}: an element is read once, by the one process whose devices hold it"
        assert one.sum() == two.sum(), name
    # Bytes of the file: half of the tensors each. Two key/value heads in two layers can't be cut into four; each fetches these whole.
    size = sum(array.nbytes for array in tensors.values())
    uncut = sum(array.nbytes for name, array in tensors.items() if "k_proj" in name or "v_proj" in name)
    header = (tiny_checkpoint / "model.safetensors").stat().st_size - size
    assert [fetched for _, fetched in reads] == [header + (size - uncut) // 2 + uncut] * 2
    written = {}
    for path in (tmp_path / "out").glob("*.safetensors"):
        written |= safetensors.numpy.load_file(path)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert {name: array.tobytes() for name, array in written.items()} == {name: array.tobytes() for name, array in tensors.items()}


def test_what_one_process_meets_ends_both(tiny_checkpoint, tmp_path):
    source = shutil.copytree(tiny_checkpoint, tmp_path / "theirs")
    (source / "jaxpolya.json").unlink()
    one, other = on_two_processes(REFUSED, source, tmp_path / "out")
    full = ["MachineError", f"{tmp_path / 'out'} can't be written: No space left on device; nothing was changed there"]
    taken = ["InputError", f"{source} is there already, and jaxpolya didn't write it; name a directory that is new or empty"]
    assert one == {
        "taken save_checkpoint": taken,
        "taken export_checkpoint": taken,
        "opening": full,
        "writing": full,
        "small save_checkpoint": full,
        "small export_checkpoint": full,
        "check": ["CheckError", "host 1 doesn't like it"],
        "bug": ["MachineError", "host 1 met KeyError: 'layer'"],
    }
    assert other == one | {"bug": ["KeyError", "'layer'"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "theirs"]


# Memory ------------------------------------------------------------------------------------------------------------------

PEAK = """
import sys
import jax
from jaxpolya.config import MeshConfig
from jaxpolya.hf.checkpoint import load_checkpoint
from jaxpolya.parallel.mesh import make_mesh
source, replica, fsdp, tensor = sys.argv[1], *map(int, sys.argv[2:])
def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
mesh = make_mesh(MeshConfig(replica=replica, fsdp=fsdp, tensor=tensor))
bare = peak()
params = load_checkpoint(source, mesh=mesh).params
shards = [shard.data.nbytes for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards]
slices = [shard.data.nbytes for leaf in jax.tree.leaves(params["blocks"]) for shard in leaf.addressable_shards]
print("PEAK", peak() - bare, sum(shards), max(slices))
"""

WIDE = DecoderConfig(
    family="llama", vocab_size=32_000, width=2048, ff_width=5632, layers=19, heads=32, kv_heads=8, head_width=64, max_positions=2048
)
TALL = DecoderConfig(
    family="llama", vocab_size=262_144, width=1152, ff_width=4608, layers=12, heads=8, kv_heads=4, head_width=144, max_positions=2048,
    tied_embeddings=True,
)  # fmt: skip


def generate(directory, config: DecoderConfig, dtype: str) -> None:
    """A checkpoint of random bits (finite ones) without a model in memory."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config_to_hf(config) | {"torch_dtype": dtype}))
    tensors = {tensor.name: tensor.shape for tensor, _, _ in iter_tensors(config)}
    dtypes = dict.fromkeys(tensors, dtype)
    block = np.random.default_rng(0).integers(0x3000, 0x4000, 1 << 20, np.uint16)
    with open_to_write(epath.Path(directory / "model.safetensors"), dtypes, tensors) as write:
        for name in file_order(dtypes):
            write(np.resize(block, (int(np.prod(tensors[name])) * (1 if dtype == "bfloat16" else 2),)))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("config", "dtype", "meshes"),
    [(WIDE, "bfloat16", [(1, 8, 1), (1, 4, 2), (2, 2, 2)]), (TALL, "float32", [(1, 8, 1), (1, 4, 2)])],
    ids=["wide", "tall"],
)
def test_an_import_takes_the_parameters_and_a_slice(tmp_path, tiny_tokenizer, config, dtype, meshes):
    generate(tmp_path / "big", config, dtype)
    tiny_tokenizer.save_pretrained(tmp_path / "big")
    assert (tmp_path / "big" / "model.safetensors").stat().st_size > 1.9e9
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    for mesh in meshes:
        command = [sys.executable, "-c", PEAK, str(tmp_path / "big"), *map(str, mesh)]
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=600).stdout
        used, params, largest = map(int, out.split("PEAK ")[1].split())
        print(f"{mesh}: {(used - params) / 1e6:.0f} MB beside {params / 1e6:.0f} MB of parameters; a slice is {largest / 1e6:.0f} MB")
        assert used - params <= 1.2 * largest, mesh
