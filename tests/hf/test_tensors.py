import itertools
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxpolya.config import MeshConfig
from jaxpolya.hf import tensors
from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint
from jaxpolya.hf.families import iter_tensors
from jaxpolya.hf.safetensors_file import Safetensors
from jaxpolya.hf.tensors import read_params
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import abstract_params, init_params
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.parallel.sharding import param_shardings


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
            part = tensor.read(lambda _, there, stored=stored: stored[there], index)
            np.testing.assert_array_equal(part, whole[index], err_msg=f"{tensor.name} {index}")


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


def test_names_as_other_tools_leave_them(tiny_checkpoint, tiny_config, tmp_path, mesh1):
    """Without the base model's prefix, and with a tied table under the head's name: transformers reads both."""
    expected = load_checkpoint(str(tiny_checkpoint), mesh=mesh1).params
    tied = {**expected, "embed": expected["embed"]}
    tied.pop("head")
    for path in tiny_checkpoint.iterdir():
        shutil.copy(path, tmp_path / path.name)
    stored = safetensors.numpy.load_file(tiny_checkpoint / "model.safetensors")
    bare = {name.removeprefix("model."): array for name, array in stored.items()}
    safetensors.numpy.save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    jax.tree.map(np.testing.assert_array_equal, load_checkpoint(str(tmp_path), mesh=mesh1).params, expected)

    config = json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    stored["lm_head.weight"] = stored.pop("model.embed_tokens.weight")
    safetensors.numpy.save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = load_checkpoint(str(tmp_path), mesh=mesh1)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.params, tied)
    export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta)
    assert "model.embed_tokens.weight" in Safetensors(tmp_path / "out").shapes


def test_rotary_tables_of_old_files_are_left_alone(tiny_checkpoint, tiny_config, tmp_path, mesh1):
    stored = safetensors.numpy.load_file(tiny_checkpoint / "model.safetensors")
    tables = [f"model.layers.0.self_attn.rotary_emb.{name}" for name in ("inv_freq", "cos_cached", "sin_cached")]
    safetensors.numpy.save_file(stored | dict.fromkeys(tables, np.ones(4, np.float32)), tmp_path / "model.safetensors")
    assert sorted(tensors.check_tensors(Safetensors(tmp_path), tiny_config)) == sorted(tables)


@pytest.mark.parametrize("shape", [{"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"replica": 2, "fsdp": 2, "tensor": 2}])
def test_what_is_read_by_rows_is_exchanged_without_being_gathered(shape):
    mesh = make_mesh(MeshConfig(**shape))
    config = DecoderConfig("llama", 512, 64, 96, 8, 16, 8, 16, 64)
    shardings = param_shardings(mesh, abstract_params(config), "train")
    for name, spec in abstract_params(config)["blocks"].items():
        final = shardings["blocks"][name]
        reading = tensors.by_rows(final, spec.shape, stacked=True)
        assert all(axes is None for axes in reading.spec[2:]), name
        assert reading.shard_shape(spec.shape)[2:] == spec.shape[2:] and reading.num_devices == 8
        program = jax.jit(tensors._exchange(final), in_shardings=reading).lower(jax.ShapeDtypeStruct(spec.shape, spec.dtype)).compile()
        assert "all-gather" not in program.as_text(), name


@pytest.mark.parametrize("shape", [{"fsdp": 8}, {"fsdp": 2, "tensor": 4}, {"replica": 2, "fsdp": 2, "tensor": 2}])
def test_what_is_exchanged_is_what_was_read(shape, tiny_checkpoint, tiny_config, mesh1, monkeypatch):
    """As on several hosts; two layers, cut by layer too where their rows can't be divided."""
    files = Safetensors(tiny_checkpoint)
    expected = read_params(files, tiny_config, mesh1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    mesh = make_mesh(MeshConfig(**shape))
    params = read_params(files, tiny_config, mesh)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, params), expected)
    wanted = param_shardings(mesh, abstract_params(tiny_config), "train")
    assert jax.tree.all(jax.tree.map(lambda leaf, sharding: leaf.sharding.is_equivalent_to(sharding, leaf.ndim), params, wanted))


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
    params = read_params(Safetensors(tmp_path), tiny_config, mesh1)
    jax.tree.map(np.testing.assert_array_equal, params, read_params(Safetensors(tiny_checkpoint), tiny_config, mesh1))
