"""The decoder gives the logits of transformers, for every family, in both directions of travel."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint
from jaxpolya.hf.families import config_to_hf
from jaxpolya.models.decoder import head_table, hidden_states
from jaxpolya.models.heads import logits

T = 48
SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "max_position_embeddings": 128}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip

CASES = {
    "llama-gqa": transformers.LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5),
    "llama-odd-heads-tied-biased": transformers.LlamaConfig(
        **SIZES | {"hidden_size": 36}, num_attention_heads=9, num_key_value_heads=3, head_dim=6,
        attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
    ),
    "llama-linear-rope": transformers.LlamaConfig(
        **SIZES, num_attention_heads=2, num_key_value_heads=2, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    ),
    "llama3-rope-beyond-its-context": transformers.LlamaConfig(
        **SIZES, num_attention_heads=4, num_key_value_heads=1, rope_parameters=LLAMA3
    ),
    "qwen2-tied": transformers.Qwen2Config(**SIZES, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=16),
    "qwen3-biased": transformers.Qwen3Config(**SIZES, num_attention_heads=6, num_key_value_heads=3, head_dim=8, attention_bias=True),
}  # fmt: skip


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter away from the zeros and ones that hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def our_logits(checkpoint, tokens_BT, positions_BT=None, segment_ids_BT=None):
    shape = tokens_BT.shape
    positions_BT = np.broadcast_to(np.arange(shape[1]), shape) if positions_BT is None else positions_BT
    segment_ids_BT = np.ones(shape, np.int32) if segment_ids_BT is None else segment_ids_BT

    @jax.jit
    def forward(params, tokens, positions, segments):
        return logits(hidden_states(params, checkpoint.config, tokens, positions, segments), head_table(params))

    return np.asarray(forward(checkpoint.params, jnp.asarray(tokens_BT), jnp.asarray(positions_BT), jnp.asarray(segment_ids_BT)))


def their_logits(model, tokens_BT):
    with torch.no_grad():
        return model(torch.tensor(tokens_BT)).logits.numpy()


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers_coming_and_going(case, tmp_path, tiny_tokenizer, mesh1):
    config = CASES[case]
    model = randomise(transformers.AutoModelForCausalLM.from_config(config))
    model.save_pretrained(tmp_path / "theirs")
    tiny_tokenizer.save_pretrained(tmp_path / "theirs")
    tokens = np.random.default_rng(0).integers(0, 300, (2, T))
    expected = their_logits(model, tokens)

    checkpoint = load_checkpoint(str(tmp_path / "theirs"), mesh=mesh1)
    np.testing.assert_allclose(our_logits(checkpoint, tokens), expected, atol=1e-4)

    # Out again under the configuration as we would write it ourselves.
    meta = dataclasses.replace(checkpoint.meta, hf_config=config_to_hf(checkpoint.config))
    export_checkpoint(tmp_path / "ours", checkpoint.params, meta, dtype="float32")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    np.testing.assert_array_equal(their_logits(back, tokens), expected)


def test_packed_segments_equal_separate_rows(tiny_checkpoint, mesh1):
    checkpoint = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    tokens = np.random.default_rng(1).integers(0, 300, (1, T))
    first, second, padding = 20, 25, 3
    segments = np.repeat([1, 2, 0], [first, second, padding])[None]
    positions = np.concatenate([np.arange(first), np.arange(second), np.zeros(padding, int)])[None]
    packed = our_logits(checkpoint, tokens, positions, segments)
    np.testing.assert_allclose(packed[:, :first], our_logits(checkpoint, tokens[:, :first]), atol=1e-5)
    np.testing.assert_allclose(packed[:, first : first + second], our_logits(checkpoint, tokens[:, first : first + second]), atol=1e-5)
