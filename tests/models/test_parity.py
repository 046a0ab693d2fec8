"""The decoder gives the logits and the greedy tokens of transformers, for every family that is registered.

The cases come from the registry: whatever a family's configuration knows (biases, windows, layers without positions, caps) is
switched on in turn, so a new family is tested by being there.
"""

import dataclasses
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING

from jaxpolya.config import DecodeConfig, Sampling
from jaxpolya.decode.engine import Engine, Request
from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint
from jaxpolya.hf.families import FAMILIES, config_from_hf, config_to_hf, known_keys
from jaxpolya.models.decoder import head_table, hidden_states
from jaxpolya.models.heads import logits

V, T, NEW = 300, 48, 64
SIZES = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES |= {
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
ODD = {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 4}
WINDOW = 7

ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
}  # fmt: skip


def with_rope(family, kind):
    """A family's configuration with stretched rotary frequencies; Gemma 3 stretches only those of its global layers."""
    rope = {"rope_theta": 1e4, **ROPES[kind]}
    return {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e3}, "full_attention": rope}
            if family == "gemma3_text" else rope}  # fmt: skip


def cases(family):
    """(name, what is set beside `SIZES`): each family plainly, and with all that its configuration knows, tied and not."""
    known = known_keys(family)
    special = {"attention_bias": True, "mlp_bias": True, "query_pre_attn_scalar": 11, "final_logit_softcapping": 3.0}
    special |= {"attn_logit_softcapping": None if family == "gemma3_text" else 2.0, "no_rope_layers": [1, 0, 1]}
    special |= {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1}
    special |= {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "rms_norm_eps": 1e-4}
    everything = ODD | {key: value for key, value in special.items() if key in known}
    yield "untied", {"tie_word_embeddings": False}
    yield "tied, odd heads, all it knows", {"tie_word_embeddings": True, **everything}
    yield from ((f"{kind} rope", {**with_rope(family, kind), "tie_word_embeddings": False}) for kind in ROPES if kind != "linear")


CASES = {f"{family}: {name}": (family, said) for family in FAMILIES for name, said in cases(family)}
CASES["llama: linear rope"] = ("llama", with_rope("llama", "linear"))
CASES["llama: one key/value head, wide heads, gelu"] = ("llama", {"num_key_value_heads": 1, "head_dim": 24, "hidden_act": "gelu"})
CASES["qwen2: the last layer windowed"] = (
    "qwen2", {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 2}
)  # fmt: skip
CASES["smollm3: no windows, its own layers without positions"] = ("smollm3", {"no_rope_layer_interval": 2})
CASES["gemma3_text: its own pattern of layers"] = ("gemma3_text", {"num_hidden_layers": 7, "sliding_window": WINDOW})


def their_model(family, said):
    """A random model of transformers, every parameter away from the zeros and ones that hide mistakes."""
    config = CONFIG_MAPPING[family](**{**SIZES, **said})
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(zlib.crc32(repr(said).encode()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def their_logits(model, tokens_BT, mask_BT):
    positions = np.maximum(np.cumsum(mask_BT, axis=1) - 1, 0)
    with torch.no_grad():
        return model(torch.tensor(tokens_BT), attention_mask=torch.tensor(mask_BT), position_ids=torch.tensor(positions)).logits.numpy()


def our_logits(checkpoint, tokens_BT, positions_BT, segment_ids_BT):
    @jax.jit
    def forward(params, tokens, positions, segments):
        hidden = hidden_states(params, checkpoint.config, tokens, positions, segments)
        return logits(checkpoint.config, hidden, head_table(params))

    return np.asarray(forward(checkpoint.params, jnp.asarray(tokens_BT), jnp.asarray(positions_BT), jnp.asarray(segment_ids_BT)))


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_tokens_equal_transformers(case, tmp_path, tiny_tokenizer, mesh1):
    model = their_model(*CASES[case])
    model.save_pretrained(tmp_path / "theirs")
    tiny_tokenizer.save_pretrained(tmp_path / "theirs")
    checkpoint = load_checkpoint(str(tmp_path / "theirs"), mesh=mesh1)
    rng = np.random.default_rng(0)

    # One full row, one padded on the left, one on the right.
    tokens = rng.integers(1, V, (3, T))
    mask = np.ones((3, T), np.int32)
    mask[1, :9] = mask[2, -11:] = 0
    expected = their_logits(model, tokens, mask)
    found = our_logits(checkpoint, tokens, np.maximum(np.cumsum(mask, axis=1) - 1, 0), mask)
    np.testing.assert_allclose(found[mask > 0], expected[mask > 0], atol=1e-4)

    # Prompts of two lengths, as transformers generates from a batch padded on the left.
    prompts = tokens[:2, :23].copy()
    mask = np.ones_like(prompts)
    mask[1, :9] = prompts[1, :9] = 0
    settings = transformers.GenerationConfig(do_sample=False, max_new_tokens=NEW, eos_token_id=None, bos_token_id=None, pad_token_id=0)
    expected = model.generate(torch.tensor(prompts), attention_mask=torch.tensor(mask), generation_config=settings)[:, 23:].tolist()
    assert greedy(checkpoint, [prompts[0].tolist(), prompts[1, 9:].tolist()], mesh1) == expected


def greedy(checkpoint, prompts, mesh):
    """Our engine's greedy continuations."""
    engine = Engine(
        checkpoint.config, mesh, sampling=Sampling(max_new_tokens=NEW, temperature=0.0), prompts=len(prompts), samples=1,
        longest_prompt=max(map(len, prompts)), stop_ids=(), decode=str, engine=DecodeConfig(rows=2), dtype=jnp.float32,
    )  # fmt: skip
    requests = [Request(str(i), prompt, i, range(1)) for i, prompt in enumerate(prompts)]
    done = [completion for window in engine.run(checkpoint.params, requests, 0) for completion in window]
    return [list(completion.tokens) for completion in sorted(done, key=lambda completion: completion.request.id)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_configuration_written_by_us_means_the_same_to_transformers(family, tmp_path, tiny_tokenizer, mesh1):
    model = their_model(*CASES[f"{family}: tied, odd heads, all it knows"])
    model.save_pretrained(tmp_path / "theirs")
    tiny_tokenizer.save_pretrained(tmp_path / "theirs")
    checkpoint = load_checkpoint(str(tmp_path / "theirs"), mesh=mesh1)
    written = config_to_hf(checkpoint.config)
    assert config_from_hf(written, "written") == checkpoint.config

    meta = dataclasses.replace(checkpoint.meta, hf_config=written)
    export_checkpoint(tmp_path / "ours", checkpoint.params, meta, dtype="float32")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32, attn_implementation="eager")
    tokens = np.random.default_rng(0).integers(1, V, (2, T))
    mask = np.ones_like(tokens)
    np.testing.assert_array_equal(their_logits(back, tokens, mask), their_logits(model, tokens, mask))


def test_packed_segments_equal_separate_rows(tiny_checkpoint, mesh1):
    checkpoint = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    tokens = np.random.default_rng(1).integers(0, 300, (1, T))
    first, second, padding = 20, 25, 3
    segments = np.repeat([1, 2, 0], [first, second, padding])[None]
    positions = np.concatenate([np.arange(first), np.arange(second), np.zeros(padding, int)])[None]
    packed = our_logits(checkpoint, tokens, positions, segments)
    for start, end in ((0, first), (first, first + second)):
        alone = our_logits(checkpoint, tokens[:, start:end], np.arange(end - start)[None], np.ones((1, end - start), np.int32))
        np.testing.assert_allclose(packed[:, start:end], alone, atol=1e-5)
