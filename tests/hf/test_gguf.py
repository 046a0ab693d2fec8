"""GGUF files: small ones written here, and the real one where it lies in weights/."""

import contextlib
import json
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
from gguf_writing import Q, converted, quantised, write_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from jaxpolya.errors import InputError
from jaxpolya.hf.checkpoint import fingerprint, inspect_checkpoint, load_checkpoint
from jaxpolya.hf.gguf.file import GGUFFile
from jaxpolya.models.config import LayerKind, Rope
from jaxpolya.models.decoder import head_table, hidden_states
from jaxpolya.models.heads import logits

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
REAL = WEIGHTS / "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA = WEIGHTS / "gemma-3-270m-Q4_K_M.gguf"  # Google's terms bind whoever has it, so it is neither fetched nor shipped


@pytest.fixture
def write_gguf(tmp_path, tiny_checkpoint, tiny_tokenizer):
    """Writes the tiny Llama as a GGUF file; `metadata` replaces values, `types` how a tensor is stored (by stem)."""

    def write(metadata=None, types=None, also=None):
        path = tmp_path / "tiny.gguf"
        model = json.loads(tiny_tokenizer.backend_tokenizer.to_str())["model"]
        tokens = sorted(model["vocab"], key=model["vocab"].get)
        values = {
            "llama.block_count": 2, "llama.context_length": 256, "llama.embedding_length": 32, "llama.feed_forward_length": 64,
            "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 8,
            "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 1e4,
            "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(tokens) - 3), "tokenizer.ggml.merges": [" ".join(m) for m in model["merges"]],
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.padding_token_id": 2,
            "tokenizer.chat_template": tiny_tokenizer.chat_template,
        } | (metadata or {})  # fmt: skip
        arrays = safetensors.numpy.load_file(tiny_checkpoint / "model.safetensors")
        tensors = {**dict(converted(arrays, "llama", 2, 4, 2)), **(also or {})}
        for name, array in tensors.items():
            if kind := (types or {}).get(name.split(".")[-2]):
                tensors[name] = quantised(array, kind)
        return write_file(path, values.pop("general.architecture", "llama"), values, tensors)

    return write


def test_a_gguf_file_is_the_same_model(write_gguf, tiny_checkpoint, mesh1, mesh8):
    path = write_gguf()
    expected = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    for mesh in (mesh1, mesh8):
        checkpoint = load_checkpoint(path, mesh=mesh)
        assert (checkpoint.config, checkpoint.stop_ids) == (expected.config, expected.stop_ids)
        jax.tree.map(np.testing.assert_array_equal, checkpoint.params, expected.params)


@pytest.mark.parametrize(
    ("kind", "tolerance"), [(Q.F16, 1e-3), (Q.BF16, 8e-3), (Q.Q8_0, 0.01), (Q.Q5_1, 0.04), (Q.Q4_1, 0.08), (Q.Q4_0, 0.16)]
)
def test_blocks_are_dequantised(write_gguf, tiny_checkpoint, mesh1, kind, tolerance):
    checkpoint = load_checkpoint(write_gguf(types={"attn_q": kind, "ffn_down": kind}), mesh=mesh1)
    expected = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    for name in ("q", "down"):
        a, b = checkpoint.params["blocks"][name], expected.params["blocks"][name]
        assert 0 < np.abs(a - b).max() < tolerance * np.abs(b).max()


def test_the_tokenizer_is_rebuilt(write_gguf, tiny_tokenizer):
    rebuilt = inspect_checkpoint(write_gguf({"tokenizer.ggml.eot_token_id": 1})).tokenizer
    for text in ("The answer is 42.\n\n  What?", "naïve ½ 日本 👍🏽", "<|turn|>user\nit's<|end|>", " 12 plus  30", ""):
        ids = tiny_tokenizer(text)["input_ids"]
        assert rebuilt(text)["input_ids"] == ids
        assert rebuilt.decode(ids) == text
    messages = [{"role": "user", "content": "hi"}]
    assert rebuilt.apply_chat_template(messages) == tiny_tokenizer.apply_chat_template(messages)
    assert rebuilt.decode([0, 40], skip_special_tokens=True) == rebuilt.decode([40])
    assert (rebuilt.bos_token_id, rebuilt.eos_token_id, rebuilt.pad_token_id, rebuilt.model_max_length) == (1, 0, 2, 256)


def test_metadata_says_what_surrounds_a_text_and_what_ends_it(write_gguf):
    meta = inspect_checkpoint(
        write_gguf({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.eot_token_id": 1})
    )
    assert meta.stop_ids == (0, 1)
    ids = meta.tokenizer("12")["input_ids"]
    assert (ids[0], ids[-1]) == (1, 0)
    assert meta.generation_config == {"bos_token_id": 1, "eos_token_id": [0, 1], "pad_token_id": 2}


def test_the_end_of_a_turn_is_found_in_the_chat_template(write_gguf):
    """Gemma's files name <eos> alone, which its chat models write only after the end of their turn."""
    assert inspect_checkpoint(write_gguf({"tokenizer.ggml.eos_token_id": 2})).stop_ids == (2, 0)
    assert inspect_checkpoint(write_gguf({"tokenizer.ggml.eos_token_id": 2, "tokenizer.chat_template": "{{ nonsense("})).stop_ids == (2,)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "phi3"}, "architecture 'phi3' is not supported; supported are llama, qwen2, qwen3, gemma"),
        ({"llama.block_count": None}, "metadata has no llama.block_count"),
        ({"llama.block_count": 3}, "tensor model.layers.2.* is missing"),
        ({"llama.embedding_length": 64}, "dimension_count is 8; only the head width"),
        ({"llama.feed_forward_length": 48}, r"mlp.gate_proj.weight has shape \[64, 32\].*asks for \[48, 32\]"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count is 4"),
        ({"tokenizer.ggml.pre": "falcon"}, "pre-tokenizer is 'falcon'; supported are gpt-2, smollm"),
        ({"tokenizer.ggml.pre": None}, "pre-tokenizer is 'unnamed'"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer is of kind 't5'; byte-level BPE"),
        ({"tokenizer.ggml.model": "llama"}, "metadata has no tokenizer.ggml.scores"),
        ({"tokenizer.ggml.eos_token_id": 300}, "goes up to 300"),
        ({"split.count": 3}, "one of 3 pieces"),
    ],
)
def test_what_a_gguf_file_cannot_mean(write_gguf, metadata, message):
    with pytest.raises(InputError, match=message):
        inspect_checkpoint(write_gguf(metadata))


def test_a_truncated_gguf_file_is_named(write_gguf):
    path = Path(write_gguf())
    whole = path.read_bytes()
    before = fingerprint(str(path))
    for size in (len(whole) - 100, 2000, 6):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"tiny.gguf: not a whole GGUF file"):
            inspect_checkpoint(str(path))
    assert fingerprint(str(path)) != before


@pytest.mark.parametrize(
    ("at", "bytes_there", "message"),
    [
        (0, b"GGML", "not a whole GGUF file .it does not begin with GGUF"),
        (4, b"\0\0\0\3", "a big-endian GGUF file is not supported"),
        (4, b"\1\0\0\0", r"its version would be 1; 2 and 3 are supported"),
        (-12, (26).to_bytes(4, "little"), "tensor output_norm.weight is stored as I32, which can't be read"),
        (-12, (199).to_bytes(4, "little"), "tensor output_norm.weight is stored as type 199, which the installed gguf"),
    ],
)
def test_files_of_another_kind(write_gguf, at, bytes_there, message):
    path = Path(write_gguf())
    whole = bytearray(path.read_bytes())
    if at < 0:  # counted from the end of the place of a tensor: name, dimensions (1), size, type, offset
        at += whole.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8 + 4 + 8
    whole[at : at + len(bytes_there)] = bytes_there
    path.write_bytes(whole)
    with pytest.raises(InputError, match=f"tiny.gguf: .*{message}"):
        GGUFFile(path)


def test_a_damaged_head_is_an_error_and_no_crash(write_gguf):
    path = Path(write_gguf())
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        at = rng.randrange(9000)  # the metadata and the tensors' places
        damaged[at] = rng.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            inspect_checkpoint(str(path))


@pytest.mark.skipif(not REAL.exists(), reason="weights/ is empty; make weights fills it")
def test_the_real_model_speaks(mesh1):
    checkpoint = load_checkpoint(str(REAL), mesh=mesh1)
    assert checkpoint.stop_ids == (2,)
    assert checkpoint.tokenizer.eos_token == "<|im_end|>"
    prompt = checkpoint.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert checkpoint.tokenizer.tokenize("12 apples") == ["1", "2", "Ġapples"]
    answer = "The capital of France is Paris.<|im_end|>"
    ids = checkpoint.tokenizer(prompt + answer)["input_ids"]
    start = len(checkpoint.tokenizer(prompt)["input_ids"])

    @jax.jit
    def greedy(params, tokens):
        hidden = hidden_states(params, checkpoint.config, tokens, jnp.arange(tokens.shape[1])[None], jnp.ones_like(tokens))
        return jnp.argmax(logits(checkpoint.config, hidden, head_table(params)), axis=-1)

    # Greedy decoding gives the answer exactly if each of its tokens is the likeliest after those before it.
    likeliest = np.asarray(greedy(checkpoint.params, jnp.asarray([ids])))[0]
    assert checkpoint.tokenizer.decode(likeliest[start - 1 : -1]) == answer


@pytest.mark.soak
@pytest.mark.skipif(not GEMMA.exists(), reason=f"{GEMMA.name} is not in weights/")
def test_a_real_gemma_gives_the_logits_of_transformers(mesh1):
    checkpoint = load_checkpoint(str(GEMMA), mesh=mesh1)
    assert checkpoint.config.kinds == (LayerKind(512, Rope(1e4)), LayerKind(None, Rope(1e6)))
    assert checkpoint.stop_ids == (1,)
    # What llama.cpp makes of these texts, spaces and line ends found before merging.
    for text, ids in {
        "Hello world  two": [2, 9259, 1902, 138, 13498],
        "naïve ½ 日本 👍🏽\n\n x": [2, 1789, 238527, 560, 47041, 33375, 103712, 242713, 108, 1123],
        "<start_of_turn>user\nhi<end_of_turn>": [2, 105, 2364, 107, 2202, 106],
    }.items():
        assert checkpoint.tokenizer(text)["input_ids"] == ids

    config = load_gguf_checkpoint(GEMMA)["config"]
    theirs = AutoModelForCausalLM.from_config(CONFIG_MAPPING["gemma3_text"](**config), dtype=torch.float32).eval()
    theirs.load_state_dict(load_gguf_checkpoint(GEMMA, return_tensors=True, model_to_load=theirs)["tensors"], strict=False)

    @jax.jit
    def forward(params, tokens):
        hidden = hidden_states(params, checkpoint.config, tokens, jnp.arange(tokens.shape[1])[None], jnp.ones_like(tokens))
        return logits(checkpoint.config, hidden, head_table(params))

    for prompt in ("The capital of France is", "def fibonacci(n):\n    if n <", "日本の首都は"):
        ids = checkpoint.tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            written = theirs.generate(ids, max_new_tokens=16, do_sample=False)
            expected = theirs(written).logits.numpy()
        ours = np.asarray(forward(checkpoint.params, written.numpy()))
        np.testing.assert_allclose(ours, expected, atol=1e-3)
        assert (ours[0, ids.shape[1] - 1 : -1].argmax(-1) == written[0, ids.shape[1] :].numpy()).all()
        if prompt.startswith("The capital"):
            assert checkpoint.tokenizer.decode(written[0], skip_special_tokens=True).startswith(
                f"{prompt} the capital of the country of France."
            )
