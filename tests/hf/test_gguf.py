"""GGUF files: small ones written here, and the real one where it lies in weights/."""

import functools
import json
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxpolya.errors import InputError
from jaxpolya.hf.checkpoint import fingerprint, inspect_checkpoint, load_checkpoint
from jaxpolya.hf.gguf_tokenizer import RECIPES
from jaxpolya.models.config import RopeScaling
from jaxpolya.models.decoder import head_table, hidden_states
from jaxpolya.models.heads import logits

REAL = Path(__file__).resolve().parents[2] / "weights" / "SmolLM2-135M-Instruct.Q4_1.gguf"
Q = gguf.GGMLQuantizationType


def to_llama_cpp(rows, heads):
    """llama.cpp's converter on a q or k weight: the halves of each head interleaved."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def tensors_of(directory):
    """The tensors of a tiny Llama under GGUF's names, in llama.cpp's order of rows."""
    stems = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "model.layers": "blk",
    }  # fmt: skip
    for name, array in safetensors.numpy.load_file(directory / "model.safetensors").items():
        found = functools.reduce(lambda found, stem: found.replace(*stem), stems.items(), name)
        heads = {"attn_q": 4, "attn_k": 2}.get(found.split(".")[-2])
        yield found, to_llama_cpp(array, heads) if heads else array


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
        writer = gguf.GGUFWriter(path, values.pop("general.architecture", "llama"))
        for key, value in values.items():
            match value:
                case None:
                    pass
                case bool():
                    writer.add_bool(key, value)
                case int():
                    writer.add_uint32(key, value)
                case float():
                    writer.add_float32(key, value)
                case str():
                    writer.add_string(key, value)
                case list():
                    writer.add_array(key, value)
        for name, array in [*tensors_of(tiny_checkpoint), *(also or {}).items()]:
            kind = (types or {}).get(name.split(".")[-2], Q.F32)
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return str(path)

    return write


def test_a_gguf_file_is_the_same_model(write_gguf, tiny_checkpoint, mesh1, mesh8):
    path = write_gguf()
    expected = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    for mesh in (mesh1, mesh8):
        found = load_checkpoint(path, mesh=mesh)
        assert (found.config, found.stop_ids) == (expected.config, expected.stop_ids)
        jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


@pytest.mark.parametrize(
    ("kind", "tolerance"), [(Q.F16, 1e-3), (Q.BF16, 8e-3), (Q.Q8_0, 0.01), (Q.Q5_1, 0.04), (Q.Q4_1, 0.08), (Q.Q4_0, 0.16)]
)
def test_blocks_are_dequantised(write_gguf, tiny_checkpoint, mesh1, kind, tolerance):
    found = load_checkpoint(write_gguf(types={"attn_q": kind, "ffn_down": kind}), mesh=mesh1)
    expected = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    for name in ("q", "down"):
        a, b = found.params["blocks"][name], expected.params["blocks"][name]
        assert 0 < np.abs(a - b).max() < tolerance * np.abs(b).max()


def test_the_tokenizer_is_rebuilt(write_gguf, tiny_tokenizer):
    found = inspect_checkpoint(write_gguf({"tokenizer.ggml.eot_token_id": 1})).tokenizer
    for text in ("The answer is 42.\n\n  What?", "naïve ½ 日本 👍🏽", "<|turn|>user\nit's<|end|>", " 12 plus  30", ""):
        ids = tiny_tokenizer(text)["input_ids"]
        assert found(text)["input_ids"] == ids
        assert found.decode(ids) == text
    messages = [{"role": "user", "content": "hi"}]
    assert found.apply_chat_template(messages) == tiny_tokenizer.apply_chat_template(messages)
    assert found.decode([0, 40], skip_special_tokens=True) == found.decode([40])
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id, found.model_max_length) == (1, 0, 2, 256)


def test_metadata_says_what_surrounds_a_text_and_what_ends_it(write_gguf):
    meta = inspect_checkpoint(
        write_gguf({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.eot_token_id": 1})
    )
    assert meta.stop_ids == (0, 1)
    ids = meta.tokenizer("12")["input_ids"]
    assert (ids[0], ids[-1]) == (1, 0)
    assert meta.generation_config == {"bos_token_id": 1, "eos_token_id": [0, 1], "pad_token_id": 2}


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["It", "'s", "Ġ2026", "ĊĊ", "Ġok", "!!"]),
        ("smollm", ["It", "'s", "Ġ", "2", "0", "2", "6", "ĊĊ", "Ġok", "!!"]),
        ("llama-bpe", ["It", "'s", "Ġ", "202", "6", "ĊĊ", "Ġok", "!!"]),
        ("qwen2", ["It", "'s", "Ġ", "2", "0", "2", "6", "ĊĊ", "Ġok", "!!"]),
    ],
)
def test_text_is_cut_as_the_models_were_trained(pre, pieces):
    assert [piece for piece, _ in RECIPES[pre].cut.pre_tokenize_str("It's 2026\n\n ok!!")] == pieces


def test_llama3_frequencies_are_recognised(write_gguf, mesh1):
    # Llama 3.2's own: θ = 500,000, factor 32, over 8,192 positions; H = 8 leaves four frequencies, of which the last two change.
    turns = 8192 / (2 * np.pi * 500_000.0 ** (np.arange(4) / 4))
    blend = np.clip((turns - 1) / 3, 0, 1)
    divisors = (1 / ((1 - blend) / 32 + blend)).astype(np.float32)
    assert divisors[0] == 1 and divisors[-1] > 1
    path = write_gguf({"llama.rope.freq_base": 5e5}, also={"rope_freqs.weight": divisors})
    assert inspect_checkpoint(path).config.pattern[0].rope.scaling == RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    with pytest.raises(InputError, match=r"rope_freqs.weight are not those of Llama 3"):
        inspect_checkpoint(write_gguf({"llama.rope.freq_base": 5e5}, also={"rope_freqs.weight": divisors[::-1].copy()}))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "gemma"}, "architecture 'gemma' is not supported; supported are llama, qwen2, qwen3"),
        ({"llama.block_count": None}, "metadata has no llama.block_count"),
        ({"llama.block_count": 3}, "tensor model.layers.2.* is missing"),
        ({"llama.embedding_length": 64}, "dimension_count is 8; only the head width"),
        ({"llama.feed_forward_length": 48}, r"mlp.gate_proj.weight has shape \[64, 32\].*asks for \[48, 32\]"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count is 4"),
        ({"llama.rope.scaling.type": "yarn"}, "rope scaling 'yarn'"),
        ({"tokenizer.ggml.pre": "tekken"}, "pre-tokenizer is 'tekken'"),
        ({"tokenizer.ggml.model": "llama"}, "only byte-level BPE"),
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
