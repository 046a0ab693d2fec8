import dataclasses
import gc
import json
import random
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from jaxpolya.errors import InputError, MachineError
from jaxpolya.hf import checkpoint as checkpoint_module
from jaxpolya.hf import meta as meta_module
from jaxpolya.hf.chat import chat_text
from jaxpolya.hf.checkpoint import Checkpoint, export_checkpoint, fingerprint, inspect_checkpoint, load_checkpoint, save_checkpoint
from jaxpolya.hf.families import config_to_hf, known_keys
from jaxpolya.hf.gguf.tokenizer import RECIPES
from jaxpolya.models.decoder import init_params


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint, mesh1) -> Checkpoint:
    return load_checkpoint(str(tiny_checkpoint), mesh=mesh1)


@pytest.fixture
def copy(tiny_checkpoint, tmp_path):
    """A checkpoint to damage."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "copy")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(directory, change):
    """Rewrites the weights after `change(tensors)`."""
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


def assert_same_params(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


# In ----------------------------------------------------------------------------------------------------------------------


def test_meshes_hold_the_same_parameters(tiny, tiny_checkpoint, mesh8):
    eight = load_checkpoint(str(tiny_checkpoint), mesh=mesh8)
    assert_same_params(tiny.params, eight.params)
    q = eight.params["blocks"]["q"]
    assert q.sharding.shard_shape(q.shape) == (2, 2, 8, 16)  # [L, N/tensor, H, D/fsdp]
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(eight.params))


def test_small_files_are_read(tiny, tiny_checkpoint, tiny_tokenizer):
    meta = inspect_checkpoint(str(tiny_checkpoint))
    assert meta.config == tiny.config
    assert meta.stop_ids == (tiny_tokenizer.eos_token_id,)
    text = meta.tokenizer.apply_chat_template([{"role": "user", "content": "12 + 30?"}], tokenize=False, add_generation_prompt=True)
    assert text == "<|turn|>user\n12 + 30?<|end|>\n<|turn|>assistant\n"
    assert meta.tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]


def test_every_stop_id_counts(copy):
    edit(copy / "generation_config.json", eos_token_id=[7, 1])
    assert inspect_checkpoint(str(copy)).stop_ids == (7, 1, 0)  # the tokenizer's own is 0
    (copy / "generation_config.json").unlink()
    edit(copy / "config.json", eos_token_id=9)
    assert inspect_checkpoint(str(copy)).stop_ids == (9, 0)


def test_files_without_a_model_are_named(tmp_path, copy):
    with pytest.raises(InputError, match=r"no checkpoint at .*cpy \(did you mean .*copy\?\)"):
        inspect_checkpoint(str(tmp_path / "cpy"))
    with pytest.raises(InputError, match=r"nowhere/else.* is there, .*nowhere is not"):
        inspect_checkpoint(str(tmp_path / "nowhere" / "else"))
    with pytest.raises(InputError, match=r"neither|hub can't give it"):
        inspect_checkpoint("somebody/some-model")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("learn")
    with pytest.raises(InputError, match=r"not a checkpoint: it lacks config.json, tokenizer.json, model.safetensors .*it holds todo.txt"):
        inspect_checkpoint(str(tmp_path / "notes"))
    with pytest.raises(InputError, match="is a file, but not a GGUF one"):
        inspect_checkpoint(str(tmp_path / "notes" / "todo.txt"))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InputError, match="Pickled weights are not read"):
        inspect_checkpoint(str(copy))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported; supported are llama, mistral, qwen2"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_attention_heads": "4"}, "num_attention_heads is '4'; a positive integer"),
        ({"num_key_value_heads": 3}, "4 query heads can't share 3"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
            "rope type 'dynamic' is not supported; supported are default, linear, llama3, yarn",
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"hidden_act": "mish"}, "activation 'mish' is not supported"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial rotary"),
        ({"model_type": "gemma3"}, "a gemma3 model's text_config is missing"),
        ({"model_type": "gemma2", "use_bidirectional_attention": True}, "only causal models"),
        ({"model_type": "gemma2", "query_pre_attn_scalar": -1}, "query_pre_attn_scalar is -1; a positive number"),
        ({"model_type": "gemma2", "final_logit_softcapping": float("nan")}, "final_logit_softcapping is nan; a positive number"),
        ({"model_type": "gemma2", "hidden_activation": ""}, "activation None is not supported"),
        ({"rope_scaling": {"rope_type": "linear", "factor": float("inf")}}, "parameter factor is inf; a positive number"),
        ({"model_type": "qwen2", "layer_types": ["chunked_attention"] * 2}, "chunked_attention"),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"] * 2}, "sliding_window is None"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantised \(awq\)"),
        ({"architectures": ["LlamaForTokenClassification"]}, "a …ForCausalLM is needed"),
        ({"vocab_size": 100}, "the tokenizer .* goes up to 28"),
        ({"model_type": []}, r"model_type \[\] is not supported"),
        ({"architectures": [3]}, r"config.json: architectures is \[3\]; a list of class names is needed"),
        ({"architectures": {}}, r"architectures is \{\}; a list"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM'; a list"),
        ({"eos_token_id": -1}, "config.json: eos_token_id is -1; a token's id"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers is 10+; a positive integer of at most 9999 is needed"),
        ({"intermediate_size": 10**30}, "intermediate_size is 10+; a positive integer of at most 2147483647 is needed"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": "a", "mscale_all_dim": 1.0}},
            "config.json: the rope parameter mscale is 'a'; a positive number is needed",
        ),
    ],
)
def test_what_a_configuration_cannot_mean(copy, changes, message):
    edit(copy / "config.json", **changes)
    with pytest.raises(InputError, match=message):
        inspect_checkpoint(str(copy))


@pytest.mark.parametrize("eos", ["abc", [[1]], -1, [3, -1], True, 1.5, {}])
def test_stop_ids_that_are_none(copy, eos):
    edit(copy / "generation_config.json", eos_token_id=eos)
    with pytest.raises(InputError, match=r"generation_config.json: eos_token_id is .*; a token's id, or a list of them, is needed"):
        inspect_checkpoint(str(copy))


TOKENIZER_KEYS = {"bos_token", "eos_token", "chat_template", "model_max_length", "padding_side", "truncation_side", "added_tokens_decoder"}
KEYS = {
    "config.json": known_keys("llama") | {"model_type", "architectures", "rope_theta", "torch_dtype", "quantization_config", "id2label"},
    "generation_config.json": {"eos_token_id", "bos_token_id", "temperature"},
    "tokenizer_config.json": TOKENIZER_KEYS | {"extra_special_tokens", "clean_up_tokenization_spaces", "model_input_names", "auto_map"},
    "tokenizer.json": {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model"},
}
ROPE_KEYS = {"factor", "beta_fast", "mscale", "mscale_all_dim", "attention_factor", "original_max_position_embeddings", "rope_type"}
WRONG = ["abc", "", [[1]], [3], [], {}, {"a": 1}, -1, 0, True, 1.5, 10**30, None]


@pytest.mark.parametrize("file", KEYS)
def test_a_wrong_value_is_an_error_with_a_name_or_harmless(copy, file):
    before = json.loads((copy / file).read_text())
    changes = [{key: value} for key in sorted(KEYS[file]) for value in WRONG]
    if file == "config.json":
        yarn = {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 2.0}
        changes += [{"rope_scaling": yarn | {key: value}} for key in sorted(ROPE_KEYS) for value in WRONG]
    refused = 0
    for change in changes:
        (copy / file).write_text(json.dumps(before | change))
        try:
            meta = inspect_checkpoint(str(copy))
        except InputError as error:
            refused += 1
            assert str(copy) in str(error), change
        else:
            assert len(meta.tokenizer.encode("12 plus 30")) > 0, change
            assert not meta.tokenizer.chat_template or chat_text(meta.tokenizer, [{"role": "user", "content": "12?"}]), change
    assert refused > len(WRONG) // 2


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_small_files_that_are_none_are_named(copy, file):
    for text in (b"{", b"[" * 100_000, b"[]", b"\xff"):
        (copy / file).write_bytes(text)
        with pytest.raises(InputError, match=str(copy / file)):
            inspect_checkpoint(str(copy))
    (copy / file).unlink()
    (copy / file).mkdir()
    with pytest.raises(InputError, match=f"{copy / file} can't be read .*a file is needed"):
        inspect_checkpoint(str(copy))


def test_directories_beside_the_files_do_not_matter(copy):
    (copy / "LICENSES").mkdir()
    (copy / "LICENSES" / "MIT").write_text("free")
    (copy / "LICENSE").write_text("free")
    meta, before = inspect_checkpoint(str(copy)), fingerprint(str(copy))
    assert "LICENSE" in meta.files and "LICENSES" not in meta.files
    (copy / "old.json").mkdir()
    assert fingerprint(str(copy)) == before


def test_a_window_that_is_not_in_use_is_no_obstacle(copy):
    edit(copy / "config.json", use_sliding_window=False, sliding_window=64, max_window_layers=0)
    inspect_checkpoint(str(copy))


def test_added_tokens_beyond_the_embeddings_are_text(copy, tiny_tokenizer, tmp_path, mesh1):
    """As Gemma 3's text models have one for images."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(copy)
    known = [*range(len(tokenizer), 300)]
    tokenizer.add_tokens([f"<more-{i}>" for i in known] + ["<image>", "<video>"], special_tokens=True)
    tokenizer.save_pretrained(copy)
    edit(copy / "tokenizer_config.json", padding_side="left", truncation_side="left")
    meta = inspect_checkpoint(str(copy))
    assert max(meta.tokenizer.get_vocab().values()) == 299
    assert max(meta.tokenizer.encode("12 <image> 30")) < 299 and meta.tokenizer.encode("<more-299>") == [299]
    assert meta.tokenizer.decode(meta.tokenizer.encode("12 <image>")) == "12 <image>"
    assert (meta.tokenizer.chat_template, meta.tokenizer.eos_token) == (tiny_tokenizer.chat_template, tiny_tokenizer.eos_token)
    assert (meta.tokenizer.padding_side, meta.tokenizer.truncation_side) == ("left", "left")
    export_checkpoint(tmp_path / "out", load_checkpoint(str(copy), mesh=mesh1).params, meta)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (copy / "tokenizer.json").read_bytes()


def test_wrong_tensors_are_named(copy):
    q, extra = "model.layers.1.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.bias"
    rewrite(copy, lambda tensors: tensors.update({q: np.zeros((4, 4), np.float32), extra: np.zeros(32, np.float32)}))
    with pytest.raises(InputError, match=rf"model.safetensors: tensor {q} has shape \[4, 4\].*asks for \[32, 32\].*{extra} is unknown"):
        inspect_checkpoint(str(copy))
    rewrite(copy, lambda tensors: [tensors.pop(name) for name in (q, extra)])
    with pytest.raises(InputError, match=f"model.safetensors: tensor {q} is missing"):
        inspect_checkpoint(str(copy))


def test_only_tensors_that_are_read_need_a_dtype_that_is_read(copy, tiny, mesh1):
    """Old Llama files hold rotary frequencies, which nobody reads."""
    rewrite(copy, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.arange(4)}))
    assert_same_params(load_checkpoint(str(copy), mesh=mesh1).params, tiny.params)
    rewrite(copy, lambda tensors: tensors.update({"model.norm.weight": np.ones(32, np.int8)}))
    with pytest.raises(InputError, match=r"model.safetensors: tensor model.norm.weight is stored as I8; give a checkpoint in bfloat16"):
        inspect_checkpoint(str(copy))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_truncated_files_are_named(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=str(path)):
        inspect_checkpoint(str(copy))


# Out ---------------------------------------------------------------------------------------------------------------------


def test_shards_come_back_bit_for_bit(tiny, tmp_path, mesh8):
    export_checkpoint(tmp_path / "out", tiny.params, tiny.meta, dtype="float32", max_shard_size="30KB")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    assert_same_params(load_checkpoint(str(tmp_path / "out"), mesh=mesh8).params, tiny.params)
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"

    index = tmp_path / "out" / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").num_parameters() > 0
    files = sorted(set(weight_map.values()))
    name = next(name for name, file in weight_map.items() if file == files[0])
    edit(index, weight_map=weight_map | {name: files[1]})
    with pytest.raises(InputError, match=f"says that {name} is in {files[1]}; it is not"):
        inspect_checkpoint(str(tmp_path / "out"))
    edit(index, weight_map=weight_map)
    (tmp_path / "out" / files[1]).unlink()
    with pytest.raises(InputError, match=rf"says that model\.\S+ is in {files[1]}, which is not there"):
        inspect_checkpoint(str(tmp_path / "out"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_exports_are_stable_after_the_first(tiny, tmp_path, mesh1, dtype):
    export_checkpoint(tmp_path / "first", tiny.params, tiny.meta, dtype=dtype)
    first = load_checkpoint(str(tmp_path / "first"), mesh=mesh1)
    export_checkpoint(tmp_path / "second", first.params, first.meta, dtype=dtype)
    assert_same_params(load_checkpoint(str(tmp_path / "second"), mesh=mesh1).params, first.params)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "second").dtype == getattr(torch, dtype)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8, atol=1e-6), first.params, tiny.params)


def test_the_exported_tokenizer_is_the_same(tiny, tmp_path):
    export_checkpoint(tmp_path / "out", tiny.params, tiny.meta)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "What is 12 plus 30? \n naïve  ½"}]
    for ours in (tiny.tokenizer, inspect_checkpoint(str(tmp_path / "out")).tokenizer):
        assert ours.apply_chat_template(messages)["input_ids"] == theirs.apply_chat_template(messages)["input_ids"]


@pytest.fixture
def with_templates(copy):
    """A checkpoint whose tokenizer has a chat template for tools beside the default one, which tells the date."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(copy)
    (copy / "chat_template.jinja").unlink()
    tokenizer.chat_template = {"default": "{{ strftime_now('%Y') }} {{ messages[0]['content'] }}", "tool_use": "tools"}
    tokenizer.save_pretrained(copy)
    return copy


TOOLS = "additional_chat_templates/tool_use.jinja"


def test_named_chat_templates_go_along(with_templates, tmp_path, mesh1, monkeypatch):
    def templates(directory):
        return {name: (directory / name).read_bytes() for name in ("chat_template.jinja", TOOLS)}

    before = fingerprint(str(with_templates))
    loaded = load_checkpoint(str(with_templates), mesh=mesh1)
    assert loaded.meta.files.items() >= templates(with_templates).items()
    assert chat_text(loaded.tokenizer, [{"role": "user", "content": "12?"}]) == "2024 12?"
    export_checkpoint(tmp_path / "out", loaded.params, loaded.meta)
    save_checkpoint(tmp_path / "saved", loaded.params, loaded.meta)
    assert templates(with_templates) == templates(tmp_path / "out") == templates(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.chat_template == loaded.tokenizer.chat_template == inspect_checkpoint(str(tmp_path / "saved")).tokenizer.chat_template
    monkeypatch.setattr(meta_module, "is_remote", lambda path: True)  # the files are copied then
    assert inspect_checkpoint(str(with_templates)).tokenizer.chat_template == theirs.chat_template
    (with_templates / TOOLS).write_text("other tools")
    assert fingerprint(str(with_templates)) != before


def test_a_tokenizer_that_came_from_no_file_writes_its_templates(with_templates, tiny, tmp_path):
    meta = dataclasses.replace(inspect_checkpoint(str(with_templates)), files={})
    export_checkpoint(tmp_path / "out", tiny.params, meta)
    assert (tmp_path / "out" / TOOLS).read_text() == "tools"


def test_chat_templates_without_a_default_are_refused(with_templates):
    (with_templates / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="chat_template must be a text, or several of which one is named default"):
        inspect_checkpoint(str(with_templates))


def test_values_beyond_float16_are_refused(tiny, tmp_path):
    params = tiny.params | {"final_norm": tiny.params["final_norm"] * 1e6}
    with pytest.raises(InputError, match=r"model.norm.weight has values beyond float16"):
        export_checkpoint(tmp_path / "out", params, tiny.meta, dtype="float16")
    assert not list(tmp_path.iterdir())


def test_our_layout_loads_from_a_relative_path(tiny, tmp_path, mesh1, monkeypatch):
    save_checkpoint(tmp_path / "model", tiny.params, tiny.meta)
    monkeypatch.chdir(tmp_path)
    assert_same_params(load_checkpoint("model", mesh=mesh1).params, tiny.params)


def test_our_layout_goes_between_meshes(tiny, tmp_path, mesh1, mesh8):
    save_checkpoint(tmp_path / "one", tiny.params, tiny.meta)
    eight = load_checkpoint(str(tmp_path / "one"), mesh=mesh8)
    save_checkpoint(tmp_path / "eight", eight.params, eight.meta)
    back = load_checkpoint(str(tmp_path / "eight"), mesh=mesh1)
    assert_same_params(back.params, tiny.params)
    assert (back.config, back.stop_ids, back.meta.hf_config) == (tiny.config, tiny.stop_ids, tiny.meta.hf_config)
    assert eight.params["blocks"]["gate"].sharding.mesh == mesh8


def test_only_our_own_directories_are_replaced(tiny, tmp_path, mesh1):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("years of work")
    for write in (save_checkpoint, export_checkpoint):
        with pytest.raises(InputError, match="jaxpolya didn't write it"):
            write(tmp_path / "theirs", tiny.params, tiny.meta)
    assert (tmp_path / "theirs" / "thesis.tex").exists()
    save_checkpoint(tmp_path / "ours", tiny.params, tiny.meta)
    other = init_params(tiny.config, jax.random.key(1))
    save_checkpoint(tmp_path / "ours", other, tiny.meta)
    assert_same_params(load_checkpoint(str(tmp_path / "ours"), mesh=mesh1).params, other)


def test_a_failed_write_leaves_what_was_there(tiny, tmp_path, mesh1, monkeypatch):
    save_checkpoint(tmp_path / "model", tiny.params, tiny.meta)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_small_files", full)
    with pytest.raises(MachineError, match="model can't be written: No space left on device; nothing was changed there"):
        save_checkpoint(tmp_path / "model", init_params(tiny.config, jax.random.key(1)), tiny.meta)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert_same_params(load_checkpoint(str(tmp_path / "model"), mesh=mesh1).params, tiny.params)


def test_an_interrupted_write_is_told(tiny, tmp_path):
    save_checkpoint(tmp_path / "model", tiny.params, tiny.meta)
    edit(tmp_path / "model" / "jaxpolya.json", whole=False)
    with pytest.raises(InputError, match="was interrupted"):
        inspect_checkpoint(str(tmp_path / "model"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's unfinished reads
def test_parameters_that_do_not_fit_are_told(tiny, tmp_path, mesh1):
    save_checkpoint(tmp_path / "model", tiny.params, tiny.meta)
    edit(tmp_path / "model" / "config.json", intermediate_size=48)
    with pytest.raises(InputError, match=r"are not those that config.json describes"):
        load_checkpoint(str(tmp_path / "model"), mesh=mesh1)

    save_checkpoint(tmp_path / "model", tiny.params, tiny.meta)
    data = max((tmp_path / "model" / "params").rglob("*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:-2000])
    with pytest.raises(InputError, match="model/params: the saved parameters can't be read") as caught:
        load_checkpoint(str(tmp_path / "model"), mesh=mesh1)
    assert len(str(caught.value)) < 400
    del caught
    gc.collect()
    shutil.rmtree(tmp_path / "model" / "params")
    with pytest.raises(InputError, match="model/params: the saved parameters are missing"):
        load_checkpoint(str(tmp_path / "model"), mesh=mesh1)


def test_a_flipped_byte_of_our_own_files_is_told(tiny, tmp_path, mesh1):
    model, rng = tmp_path / "[v2] model", random.Random(0)
    save_checkpoint(model, tiny.params, tiny.meta)
    assert_same_params(load_checkpoint(str(model), mesh=mesh1).params, tiny.params)
    for path in (max((model / "params").rglob("*"), key=lambda path: path.stat().st_size), model / "tokenizer.json"):
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=r"model.*(has other bytes|can't be read)"):
            load_checkpoint(str(model), mesh=mesh1)
        path.write_bytes(whole)
    assert_same_params(load_checkpoint(str(model), mesh=mesh1).params, tiny.params)


def test_a_directory_with_brackets_is_read_like_any_other(tiny, tiny_checkpoint, copy, mesh1):
    odd = copy.rename(copy.with_name("[v2]"))
    assert fingerprint(str(odd)) == fingerprint(str(tiny_checkpoint))
    assert inspect_checkpoint(str(odd)).files.keys() == tiny.meta.files.keys() != set()
    rewrite(odd, lambda tensors: tensors["model.norm.weight"].__setitem__(3, 2.0))
    assert fingerprint(str(odd)) != fingerprint(str(tiny_checkpoint))


def test_fingerprints_follow_content(tiny, tiny_checkpoint, copy):
    before = fingerprint(str(copy))
    assert before == fingerprint(str(tiny_checkpoint))
    (copy / "README.md").write_text("a page about it")
    assert fingerprint(str(copy)) == before
    rewrite(copy, lambda tensors: tensors["model.norm.weight"].__setitem__(3, 2.0))
    assert fingerprint(str(copy)) != before


def test_other_configurations_survive_the_round_trip(tiny, tmp_path, mesh1):
    config = dataclasses.replace(tiny.config, family="qwen3", qk_norm="head", tied_embeddings=True)
    with pytest.raises(InputError, match="can't have this combination"):
        config_to_hf(dataclasses.replace(config, qk_norm="none"))
    meta = dataclasses.replace(tiny.meta, config=config, hf_config=config_to_hf(config))
    params = init_params(config, jax.random.key(2))
    save_checkpoint(tmp_path / "model", params, meta)
    back = load_checkpoint(str(tmp_path / "model"), mesh=mesh1)
    assert back.config == config
    assert_same_params(back.params, params)


def test_llama_cpp_s_older_names_of_a_pre_tokenizer():
    assert RECIPES["llama3"] == RECIPES["llama-v3"] == RECIPES["llama-bpe"]


# Elsewhere ---------------------------------------------------------------------------------------------------------------


def test_hub_names_fetch_small_files_first_and_only_the_model_s(tiny, tmp_path, mesh1, monkeypatch):
    there, commit = tmp_path / "there", tmp_path / "0123abc"
    export_checkpoint(there, tiny.params, tiny.meta, max_shard_size="60KB")
    (there / "consolidated.safetensors").write_text("the same weights once more")
    (there / "LICENSE").write_text("free")
    for name in (TOOLS, "onnx/config.json"):
        (there / name).parent.mkdir()
        (there / name).write_text("{}")
    commit.mkdir()
    fetched = []

    def snapshot_download(name, *, revision, allow_patterns, ignore_patterns):
        assert (name, revision) == ("somebody/tiny", "0123abc" if fetched else "v1")
        names = [path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (commit / name).parent.mkdir(exist_ok=True)
            shutil.copy(there / name, commit / name)
            fetched.append(name)
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    for look in (lambda: inspect_checkpoint("somebody/tiny", revision="v1").config == tiny.config,
                 lambda: inspect_checkpoint("somebody/tiny", revision="v1").stored.dtype == "float32",
                 lambda: fingerprint("somebody/tiny", revision="v1") == "hub:somebody/tiny@0123abc"):  # fmt: skip
        fetched.clear()
        assert look()
        assert "LICENSE" in fetched and not any(name.endswith(".safetensors") for name in fetched)
        assert [name for name in fetched if "/" in name] == [TOOLS]
    fetched.clear()
    assert_same_params(load_checkpoint("somebody/tiny", revision="v1", mesh=mesh1).params, tiny.params)
    shards = {path.name for path in there.glob("model-*.safetensors")}
    assert len(shards) > 1 and {name for name in fetched if name.endswith(".safetensors")} == shards


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError, "is gated: accept its licence .* HF_TOKEN"),
        (errors.RevisionNotFoundError, "has no revision v1 on the hub"),
        (errors.RepositoryNotFoundError, "neither a local path nor a model on the hub"),
        (errors.LocalEntryNotFoundError, r"the hub can't give it \(LocalEntryNotFoundError: why\): check the network"),
    ],
)
def test_what_the_hub_refuses(error, message, monkeypatch):
    def snapshot_download(*_, **__):
        raise error.__new__(error, "why")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(error, "__str__", lambda _: "why\nand more")
    with pytest.raises(InputError, match=message):
        inspect_checkpoint("somebody/tiny", revision="v1")
