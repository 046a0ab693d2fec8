"""What goes out is what transformers would have written, and what came in."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from jaxpolya.errors import InputError
from jaxpolya.hf.checkpoint import export_checkpoint, inspect_checkpoint, load_checkpoint, save_checkpoint
from jaxpolya.hf.export import MODULES

SHAPES = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 11, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 2, "eos_token_id": 0, "bos_token_id": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, tiny_tokenizer):
    """A function (model_type, shard size, fields) → a directory that transformers wrote."""

    def write(kind: str, max_shard_size: str, **fields) -> Path:
        directory = tmp_path_factory.mktemp("theirs") / kind
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **SHAPES, **fields))
        model.to(torch.bfloat16).save_pretrained(directory, max_shard_size=max_shard_size)
        tiny_tokenizer.save_pretrained(directory)
        return directory

    return write


def read(directory: Path) -> dict[str, np.ndarray]:
    tensors = {}
    for path in directory.glob("*.safetensors"):
        tensors |= safetensors.numpy.load_file(path)
    return tensors


def rewrite(directory: Path, change) -> None:
    """Rewrites the weights after `change(tensors)`."""
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})


def assert_same_bits(ours: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> None:
    assert {name: array.dtype for name, array in ours.items()} == {name: array.dtype for name, array in others.items()}
    for name, array in ours.items():
        assert array.tobytes() == others[name].tobytes(), name


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("llama", {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"tie_word_embeddings": False}),
        ("gemma2", {"layer_types": ["full_attention"] * 11}),
        ("gemma3_text", {}),
        ("smollm3", {}),
        ("olmo2", {}),
        ("olmo3", {}),
    ],
)
@pytest.mark.parametrize("max_shard_size", ["50GB", "40KB"])
def test_a_directory_equals_that_of_transformers(theirs, tmp_path, mesh1, mesh8, kind, fields, max_shard_size):
    directory = theirs(kind, max_shard_size, **fields)
    names = {path.name for path in directory.iterdir()}
    assert (max_shard_size == "40KB") == ("model.safetensors.index.json" in names)
    for mesh, out in ((mesh1, tmp_path / "one"), (mesh8, tmp_path / "eight")):
        checkpoint = load_checkpoint(str(directory), mesh=mesh)
        export_checkpoint(out, checkpoint.params, checkpoint.meta, max_shard_size=max_shard_size)
        assert {path.name for path in out.iterdir()} == names | {"jaxpolya.json"}
        for name in sorted(names - {"config.json", "tokenizer_config.json"}):
            assert (out / name).read_bytes() == (directory / name).read_bytes(), name
        written, saved = (json.loads((each / "tokenizer_config.json").read_text()) for each in (out, directory))
        assert written == saved | {"tokenizer_class": "PreTrainedTokenizerFast"}  # theirs is a class of transformers 5 alone
        before, after = (json.loads((each / "config.json").read_text()) for each in (directory, out))
        # The rotary embedding is said twice, in the words of transformers 5 and 4.
        assert {**after, **before} == after and after.keys() - before.keys() <= {"rope_theta", "rope_scaling", "rope_local_base_freq"}


def test_modules_are_named_as_they_lie():
    """Which file a tensor lands in follows from the order of the modules."""
    config = transformers.AutoConfig.for_model("qwen3", **SHAPES | {"num_hidden_layers": 1})
    names = [
        name.split(".", 3)[3].rpartition(".")[0]
        for name in transformers.AutoModelForCausalLM.from_config(config).state_dict()
        if "layers" in name
    ]
    assert names == [module for module in MODULES if module in names]


def test_every_tensor_keeps_its_dtype_and_its_bits(tiny_checkpoint, tmp_path, mesh1, mesh8):
    """Also through our own layout, and a file that mixes dtypes; every bfloat16 and float16 there is but the NaNs."""
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "mixed")
    every = np.arange(1 << 16, dtype=np.uint16)

    def mix(tensors: dict[str, np.ndarray]) -> None:
        rng = np.random.default_rng(0)
        for name, array in tensors.items():
            half = np.float16 if "mlp" in name else ml_dtypes.bfloat16
            bits = rng.permutation(every).view(half)
            tensors[name] = np.resize(bits[np.isfinite(bits.astype(np.float32))], array.shape) if "norm" not in name else array

    rewrite(directory, mix)
    fields = json.loads((directory / "config.json").read_text()) | {"auto_map": {"AutoModel": "code.py"}, "their_own": {"x": [1e-5]}}
    (directory / "config.json").write_text(json.dumps(fields))
    tensors = read(directory)
    assert len({array.dtype for array in tensors.values()}) == 3
    del fields["auto_map"]
    checkpoint = load_checkpoint(str(directory), mesh=mesh8)
    export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta)
    save_checkpoint(tmp_path / "own", checkpoint.params, checkpoint.meta)
    again = load_checkpoint(str(tmp_path / "own"), mesh=mesh1)
    export_checkpoint(tmp_path / "again", again.params, again.meta)
    for out in (tmp_path / "out", tmp_path / "again"):
        assert_same_bits(read(out), tensors)
        assert json.loads((out / "config.json").read_text()) == fields


def test_a_tied_head_that_was_stored_is_stored(theirs, tmp_path, mesh1):
    directory = theirs("llama", "50GB", tie_word_embeddings=True)
    rewrite(directory, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}))
    checkpoint = load_checkpoint(str(directory), mesh=mesh1)
    export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta)
    assert_same_bits(read(tmp_path / "out"), read(directory))
    rewrite(directory, lambda tensors: tensors["lm_head.weight"].__setitem__((299, 5), 1))
    with pytest.raises(
        InputError, match=r"model.safetensors: lm_head.weight differs from model.embed_tokens.weight .*tie_word_embeddings to false"
    ):
        load_checkpoint(str(directory), mesh=mesh1)
    rewrite(directory, lambda tensors: tensors.update({"lm_head.weight": np.zeros((4, 4), np.float32)}))
    with pytest.raises(InputError, match=r"lm_head.weight has shape \[4, 4\]; the configuration asks for \[300, 32\]"):
        load_checkpoint(str(directory), mesh=mesh1)


@pytest.mark.parametrize(
    ("before", "after"), [({"dtype": "float32"}, {"dtype"}), ({}, {"torch_dtype"}), ({"torch_dtype": "float32"}, {"torch_dtype"})]
)
def test_the_dtype_that_was_asked_for_is_told(tiny_checkpoint, tmp_path, mesh1, before, after):
    checkpoint = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    fields = {key: value for key, value in checkpoint.meta.hf_config.items() if key != "torch_dtype"} | before
    checkpoint.meta.hf_config.clear()
    checkpoint.meta.hf_config.update(fields)
    export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta, dtype="bfloat16")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == fields | dict.fromkeys(after, "bfloat16")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert {array.dtype for array in read(tmp_path / "out").values()} == {np.dtype(ml_dtypes.bfloat16)}


def test_the_small_files_come_back_and_no_others(tiny_checkpoint, tmp_path, mesh1):
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "in")
    carried = {"LICENSE.txt": b"as it is", "NOTICE": b"\xff\x00", "merges.txt": b"#version: 0.2\r\n", "tokenizer.model": bytes(range(256))}
    for name, data in carried.items():
        (directory / name).write_bytes(data)
    (directory / "generation_config.json").write_bytes(b'{"eos_token_id":  [0],\r\n "temperature": 0.60}')
    for name in ("README.md", "pytorch_model.bin", "optimizer.pt", "modeling_code.py"):
        (directory / name).write_text("stays")
    checkpoint = load_checkpoint(str(directory), mesh=mesh1)
    save_checkpoint(tmp_path / "own", checkpoint.params, checkpoint.meta)
    export_checkpoint(tmp_path / "out", checkpoint.params, load_checkpoint(str(tmp_path / "own"), mesh=mesh1).meta)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in directory.iterdir()} - {"README.md", "pytorch_model.bin", "optimizer.pt", "modeling_code.py"}
    for name in names - {"config.json", "model.safetensors", "jaxpolya.json"}:
        assert (tmp_path / "out" / name).read_bytes() == (directory / name).read_bytes(), name


def test_the_card_and_the_check(tiny_checkpoint, tmp_path, mesh1):
    checkpoint = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    seen = []

    def check(directory) -> None:
        seen.append(sorted(path.name for path in directory.iterdir()))
        assert not (tmp_path / "out").exists()
        with pytest.raises(InputError, match="was interrupted"):  # until the check is over, it doesn't count as whole
            inspect_checkpoint(str(directory))
        raise InputError("it is not what it should be")

    with pytest.raises(InputError, match="it is not what it should be"):
        export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta, card="---\n---\n# É", check=check)
    assert not list(tmp_path.iterdir())
    export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta, card="---\n---\n# É", check=lambda _: None)
    assert seen == [sorted(path.name for path in (tmp_path / "out").iterdir())]
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "---\n---\n# É"


def test_a_shard_size_is_a_number_and_a_unit(tiny_checkpoint, tmp_path, mesh1):
    checkpoint = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    for size in ("5", "GB", "0MB", "-1GB", "1.5GB", "5 GB", "5GiB"):
        with pytest.raises(InputError, match="whole number of KB, MB or GB"):
            export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta, max_shard_size=size)
    assert not list(tmp_path.iterdir())


def test_an_export_is_the_same_whatever_holds_the_parameters(tiny_checkpoint, tmp_path, mesh8):
    """On numpy's float16 rounding, a table cut over devices, and bare arrays that no mesh knows."""
    eight = load_checkpoint(str(tiny_checkpoint), mesh=mesh8)
    bare = jax.tree.map(jax.numpy.asarray, jax.device_get(eight.params))
    for params, out in ((eight.params, "mesh"), (bare, "bare")):
        export_checkpoint(tmp_path / out, params, eight.meta, dtype="float16")
    expected = {name: array.astype(np.float16) for name, array in read(tiny_checkpoint).items()}
    for out in ("mesh", "bare"):
        assert_same_bits(read(tmp_path / out), expected)
