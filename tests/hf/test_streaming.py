"""Memory of an import, and who reads and writes what where there are several processes."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from etils import epath

from jaxpolya.hf.families import config_to_hf, iter_tensors
from jaxpolya.hf.safetensors_file import file_order, open_to_write
from jaxpolya.models.config import DecoderConfig

HOST = """
import json, sys
import jax
process, port, source, out = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
from jaxpolya.config import MeshConfig
from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint
from jaxpolya.hf.safetensors_file import Safetensors
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.hf import safetensors_file
reads, read, fetched, fetch = [], Safetensors.read, [], safetensors_file._Mapped.read
def recording(self, name, index):
    array = read(self, name, index)
    reads.append((name, [cut.indices(size)[:2] for cut, size in zip(index, self.shapes[name])]))
    return array
def fetching(self, start, stop):
    fetched.append(stop - start)
    return fetch(self, start, stop)
Safetensors.read, safetensors_file._Mapped.read = recording, fetching
checkpoint = load_checkpoint(source, mesh=make_mesh(MeshConfig(fsdp=4)))
export_checkpoint(out, checkpoint.params, checkpoint.meta, max_shard_size="60KB")
print("READS " + json.dumps([reads, sum(fetched)]))
"""


def test_two_processes_share_the_reading_and_write_one_directory(tiny_checkpoint, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(process), str(port), str(tiny_checkpoint), str(tmp_path / "out")],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    reads = []
    try:
        for host in started:
            out, err = host.communicate(timeout=120)
            assert host.returncode == 0, err
            reads.append(json.loads(next(line for line in out.splitlines() if line.startswith("READS "))[6:]))
    finally:
        for host in started:
            host.kill()
    tensors = safetensors.numpy.load_file(tiny_checkpoint / "model.safetensors")
    counts = {name: np.zeros((2, *array.shape), int) for name, array in tensors.items()}
    for process, (found, _) in enumerate(reads):
        for name, index in found:
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
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=240).stdout
        used, params, largest = map(int, out.split("PEAK ")[1].split())
        print(f"{mesh}: {(used - params) / 1e6:.0f} MB beside {params / 1e6:.0f} MB of parameters; a slice is {largest / 1e6:.0f} MB")
        assert used - params <= 1.2 * largest, mesh
