import itertools

import jax
import numpy as np
import safetensors.numpy

from jaxpolya.hf import tensors
from jaxpolya.hf.families import iter_tensors
from jaxpolya.hf.safetensors_file import Safetensors
from jaxpolya.hf.tensors import read_params
from jaxpolya.models.decoder import init_params


def test_any_slice_is_the_slice_of_the_whole(tiny_config):
    params = jax.device_get(init_params(tiny_config, jax.random.key(0)))
    cuts = (slice(None), slice(2, 5), slice(1, None))
    for tensor, path, layer in iter_tensors(tiny_config):
        if layer == 1:
            continue
        whole = params[path[0]] if layer is None else params["blocks"][path[1]][layer]
        stored = tensor.to_file(whole)
        assert stored.shape == tensor.shape
        for index in itertools.product(cuts, repeat=whole.ndim):
            found = tensor.read(lambda _, there, stored=stored: stored[there], index)
            np.testing.assert_array_equal(found, whole[index], err_msg=f"{tensor.name} {index}")


def test_a_device_reads_its_shard_and_no_more(tiny_checkpoint, tiny_config, mesh8):
    class Recording(Safetensors):
        reads: dict[str, list[int]]

        def read(self, name, index):
            array = super().read(name, index)
            self.reads.setdefault(name, []).append(array.size)
            return array

    files = Recording(tiny_checkpoint)
    files.reads = {}
    read_params(files, tiny_config, mesh8)
    # 8 devices: q is cut by tensor = 2 (rows) and fsdp = 2 (columns), the norm by fsdp alone. Columns of the same rows are read in
    # one go, and what several devices hold is read once.
    assert files.reads["model.layers.1.self_attn.q_proj.weight"] == [32 * 32 // 2] * 2
    assert files.reads["model.norm.weight"] == [32 // 2] * 2


def test_small_pieces_make_the_same_parameters(tiny_checkpoint, tiny_config, mesh1, mesh8, monkeypatch):
    files = Safetensors(tiny_checkpoint)
    whole = read_params(files, tiny_config, mesh1)
    for piece in (1, 100, 3000):
        monkeypatch.setattr(tensors, "PIECE_BYTES", piece)
        for mesh in (mesh1, mesh8):
            jax.tree.map(np.testing.assert_array_equal, read_params(files, tiny_config, mesh), whole)


def test_parameters_may_be_given_away(tiny_checkpoint, tiny_config, mesh8):
    """A program that is given parameters for good must not work in memory that is another's."""
    files = Safetensors(tiny_checkpoint)
    params = read_params(files, tiny_config, mesh8)
    kept = jax.device_get(params)
    doubled = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf * 2, params), donate_argnums=0)(params)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    del params
    again = read_params(files, tiny_config, mesh8)
    jax.tree.map(lambda twice, once: np.testing.assert_array_equal(twice, 2 * once), doubled, kept)
    jax.tree.map(np.testing.assert_array_equal, again, kept)


def test_float64_files_are_read(tiny_checkpoint, tiny_config, tmp_path, mesh1):
    path = tmp_path / "model.safetensors"
    stored = safetensors.numpy.load_file(tiny_checkpoint / path.name)
    safetensors.numpy.save_file({name: array.astype(np.float64) for name, array in stored.items()}, path)
    found = read_params(Safetensors(tmp_path), tiny_config, mesh1)
    jax.tree.map(np.testing.assert_array_equal, found, read_params(Safetensors(tiny_checkpoint), tiny_config, mesh1))
