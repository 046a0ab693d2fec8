"""Every architecture: a file made from a random model of transformers, as llama.cpp's converter would make it, is that model."""

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from gguf_writing import Q, converted, quantised, random_blocks, write_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.integrations.gguf.dequant import GGML_BLOCK, dequantize
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from jaxpolya.errors import InputError
from jaxpolya.hf.families import config_from_hf
from jaxpolya.hf.gguf import file as gguf_file
from jaxpolya.hf.gguf.config import MODEL_TYPES, Metadata, read_config
from jaxpolya.hf.gguf.file import GGUFFile
from jaxpolya.hf.tensors import check_tensors, read_params
from jaxpolya.models.config import LayerKind, Rope, RopeScaling
from jaxpolya.models.decoder import head_table, hidden_states
from jaxpolya.models.heads import logits

V, LAYERS, HEADS, KV_HEADS, WINDOW = 96, 7, 4, 2, 5
SIZES = {
    "vocab_size": V, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "head_dim": 24, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
METADATA = {
    "context_length": 64, "embedding_length": 64, "feed_forward_length": 128, "block_count": LAYERS, "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS, "attention.key_length": 24, "attention.value_length": 24,
    "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
# What each says beside the sizes: in `config.json`, and in metadata.
CASES = {
    "llama": ({"attention_bias": True, "tie_word_embeddings": False, **THETA}, {"rope.dimension_count": 24, "rope.freq_base": 5000.0}),
    "qwen2": ({"tie_word_embeddings": False, **THETA}, {"rope.freq_base": 5000.0}),
    "qwen3": ({"tie_word_embeddings": True, **THETA}, {"rope.freq_base": 5000.0}),
    "gemma": ({}, {}),
    "gemma2": (
        {"sliding_window": WINDOW, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {"attention.sliding_window": WINDOW, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": (
        {
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 24,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        },
        {"attention.sliding_window": WINDOW, "rope.freq_base": 5000.0, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
}


def their_model(architecture):
    """A random model of transformers, every parameter away from the zeros and ones that hide mistakes."""
    model = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[MODEL_TYPES[architecture]](**SIZES, **CASES[architecture][0]), attn_implementation="eager"
    )
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5))
    return model.eval()


def write_model(path, architecture, model, kinds=None):
    """Writes the model; `kinds` says how a tensor is stored (by GGUF's stem), float32 without. Returns the open file."""
    tied = model.config.tie_word_embeddings
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    stored = dict(converted(tensors, architecture, LAYERS, HEADS, KV_HEADS))
    for name, array in stored.items():
        if (kind := (kinds or {}).get(name.split(".")[-2])) and array.ndim == 2:
            stored[name] = quantised(array, kind)
    values = {f"{architecture}.{key}": value for key, value in (METADATA | CASES[architecture][1]).items()}
    write_file(path, architecture, values, stored)
    return GGUFFile(path)


@pytest.mark.parametrize("architecture", MODEL_TYPES)
def test_a_file_is_the_model_that_it_was_made_from(architecture, tmp_path, mesh1):
    model = their_model(architecture)
    file = write_model(tmp_path / "tiny.gguf", architecture, model)
    assert file.config == config_from_hf(model.config.to_dict(), "theirs")
    check_tensors(file, file.config)
    tokens = np.random.default_rng(0).integers(0, V, (2, 3 * WINDOW))
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).logits.numpy()

    @jax.jit
    def forward(params):
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden = hidden_states(params, file.config, jnp.asarray(tokens), positions, jnp.ones_like(positions))
        return logits(file.config, hidden, head_table(params))

    np.testing.assert_allclose(forward(read_params(file, file.config, mesh1)), expected, atol=1e-4)


@pytest.mark.parametrize("architecture", [name for name in MODEL_TYPES if name != "gemma"])  # whose files transformers doesn't read
def test_transformers_reads_the_same_tensors(architecture, tmp_path):
    kinds = {"attn_q": Q.Q8_0, "attn_k": Q.F16, "attn_v": Q.Q4_0, "attn_output": Q.BF16, "ffn_down": Q.Q4_1, "token_embd": Q.Q5_0}
    model = their_model(architecture)
    file = write_model(tmp_path / "tiny.gguf", architecture, model, kinds)
    theirs = load_gguf_checkpoint(tmp_path / "tiny.gguf", return_tensors=True, model_to_load=model)["tensors"]
    assert theirs.keys() == file.shapes.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(file.read(name, (slice(None),) * tensor.ndim), tensor, name)


READABLE = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
READABLE += ["IQ4_NL", "IQ4_XS", "IQ3_XXS", "IQ3_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0", "MXFP4"]


@pytest.mark.parametrize("kind", [Q[name] for name in READABLE], ids=lambda kind: kind.name)
def test_every_kind_of_block_is_read_a_piece_at_a_time(kind, tmp_path):
    sizes = {"vocab_size": 8, "hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["llama"](**sizes))
    rng = np.random.default_rng(0)
    tensors = dict(converted({name: tensor.numpy() for name, tensor in model.state_dict().items()}, "llama", 1, 4, 4))
    for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.ffn_down.weight", "token_embd.weight"):
        tensors[name] = random_blocks(rng, len(tensors[name]), 512, kind)
    path = tmp_path / "tiny.gguf"
    values = {"context_length": 64, "embedding_length": 512, "feed_forward_length": 512, "block_count": 1, "attention.head_count": 4}
    values |= {
        "attention.head_count_kv": 4,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }  # without the first transformers leaves q and k as they are
    write_file(path, "llama", {f"llama.{key}": value for key, value in values.items()}, tensors)
    file = GGUFFile(path)
    theirs = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"]
    for name, tensor in theirs.items():
        whole = file.read(name, (slice(None),) * tensor.ndim)
        np.testing.assert_array_equal(whole, tensor, name)
        for cut in (slice(3, 5), slice(1, 8)):
            np.testing.assert_array_equal(file.read(name, (cut,) * tensor.ndim), whole[(cut,) * tensor.ndim])
        if tensor.ndim == 2:
            np.testing.assert_array_equal(file.read(name, (slice(2, 7), slice(200, 301))), whole[2:7, 200:301])
    if kind in GGML_BLOCK:  # those that transformers dequantises itself, beside the package
        blocks = torch.from_numpy(tensors["token_embd.weight"][0])
        np.testing.assert_array_equal(file.read("model.embed_tokens.weight", (slice(None),) * 2), dequantize(blocks, kind).reshape(8, 512))


def test_only_what_is_asked_for_is_dequantised_and_little_at_a_time(tmp_path, monkeypatch):
    file = write_model(tmp_path / "tiny.gguf", "qwen2", their_model("qwen2"), {"ffn_down": Q.Q8_0})
    passed = []
    package = gguf.quants.dequantize
    monkeypatch.setattr(gguf.quants, "dequantize", lambda blocks, kind: passed.append(blocks.size) or package(blocks, kind))
    monkeypatch.setattr(gguf_file, "CHUNK", 256)
    file.read("model.layers.0.mlp.down_proj.weight", (slice(5, 10), slice(40, 70)))  # of [64, 128]
    block_bytes = 34  # of 32 values
    assert passed == [4 * 2 * block_bytes, 1 * 2 * block_bytes]  # rows × blocks: columns 32 to 96, at most 256 values at a time


def facts(architecture, values, layers=4, divisors=None):
    """The configuration of a file without tensors but the embeddings."""
    sizes = {"context_length": 64, "embedding_length": 64, "feed_forward_length": 128, "block_count": layers, "attention.head_count": 4}
    sizes |= {"attention.key_length": 24, "attention.layer_norm_rms_epsilon": 1e-6} | values
    metadata = {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in sizes.items()}
    return read_config(Metadata(metadata, "a.gguf"), {"model.embed_tokens.weight": (8, 64)}, divisors)


def test_what_llama_cpp_knows_of_gemma_without_metadata():
    local, everything = LayerKind(4096), LayerKind()
    gemma2 = facts("gemma2", {})
    assert (gemma2.pattern, gemma2.score_cap, gemma2.logit_cap, gemma2.activation) == ((local, everything), 50.0, 30.0, "gelu_tanh")
    assert gemma2.query_scale is None  # H^-1/2
    assert facts("gemma2", {}, layers=46).query_scale == pytest.approx(16**-0.5)  # the 27B: (D/N)^-1/2
    gemma3 = facts("gemma3", {"attention.sliding_window": 512, "rope.freq_base": 1e6}, layers=62)
    assert gemma3.pattern == (LayerKind(512),) * 5 + (LayerKind(None, Rope(1e6)),)
    assert (gemma3.query_scale, gemma3.score_cap, gemma3.logit_cap) == (pytest.approx(16**-0.5), None, None)
    assert facts("gemma3", {}).kinds == (everything,)


def test_what_metadata_says_of_gemma_holds():
    metadata = {"attention.sliding_window": 16, "attention.sliding_window_pattern": 3, "rope.freq_base_swa": 5e3}
    assert facts("gemma3", metadata).pattern == (LayerKind(16, Rope(5e3)), LayerKind(16, Rope(5e3)), LayerKind())
    windows = [True, False, False, False]
    assert [kind.window for kind in facts("gemma2", {"attention.sliding_window_pattern": windows}).pattern] == [4096, None, None, None]
    assert facts("gemma2", {"attention.sliding_window_pattern": 0}).kinds == (LayerKind(4096),)
    assert facts("gemma3", {"final_logit_softcapping": 20.0}).logit_cap == 20.0


def test_rope_scaling():
    scale = {"rope.scaling.factor": 4.0}
    assert facts("llama", scale).pattern[0].rope == Rope(1e4, RopeScaling("linear", 4.0))  # linear is what a factor means by itself
    assert facts("llama", scale | {"rope.scaling.type": "none"}).pattern[0].rope == Rope(1e4)
    yarn = scale | {"rope.scaling.type": "yarn", "rope.scaling.original_context_length": 16}
    expected = config_from_hf(
        {
            **{"model_type": "qwen3", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4},
            **{"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 24, "max_position_embeddings": 64},
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        },
        "theirs",
    )
    assert facts("qwen3", yarn).pattern[0].rope.scaling == expected.pattern[0].rope.scaling
    for values, message in (
        (scale | {"rope.scaling.type": "longrope"}, "rope scaling 'longrope' is not supported"),
        (yarn | {"rope.scaling.yarn_attn_factor": 0.5}, "llama.rope.scaling.yarn_attn_factor is not 1"),
    ):
        with pytest.raises(InputError, match=message):
            facts("llama", values)


def test_llama3_frequencies_are_recognised():
    # Llama 3.2's own: θ = 500,000, factor 32, over 8,192 positions; H = 8 leaves four frequencies, of which the last two change.
    turns = 8192 / (2 * np.pi * 500_000.0 ** (np.arange(4) / 4))
    blend = np.clip((turns - 1) / 3, 0, 1)
    divisors = (1 / ((1 - blend) / 32 + blend)).astype(np.float32)
    assert divisors[0] == 1 and divisors[-1] > 1
    values = {"attention.key_length": 8, "rope.freq_base": 5e5}
    assert facts("llama", values, divisors=divisors).pattern[0].rope.scaling == RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    for wrong in (divisors[::-1], divisors[:3]):
        with pytest.raises(InputError, match=r"rope_freqs.weight are not those of Llama 3"):
            facts("llama", values, divisors=wrong)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"expert_count": 8}, "a mixture of experts"),
        ({"attention.head_count_kv": [4, 2, 2, 2]}, "llama.attention.head_count_kv differs from layer to layer"),
        ({"feed_forward_length": 0}, "llama.feed_forward_length is 0; a positive integer"),
        ({"attention.value_length": 32}, r"llama.attention.value_length is 32; only the head width \(24\)"),
        ({"attention.layer_norm_rms_epsilon": None}, "the metadata has no llama.attention.layer_norm_rms_epsilon"),
        ({"attention.head_count_kv": 3}, "4 query heads can't share 3"),
    ],
)
def test_what_metadata_cannot_mean(values, message):
    with pytest.raises(InputError, match=f"^a.gguf: .*{message}"):
        facts("llama", values)
