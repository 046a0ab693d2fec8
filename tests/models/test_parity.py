"""The decoder gives the logits and the greedy tokens of transformers, for every family that is registered.

The cases come from the registry (`tests/families.py`), so a new family is tested by being there.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from families import CASES, EVERYTHING, V, their_model

from jaxpolya.config import DecodeConfig, Sampling
from jaxpolya.decode.engine import Engine, Request
from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint
from jaxpolya.hf.families import FAMILIES, config_from_hf, config_to_hf
from jaxpolya.models.decoder import head_table, hidden_states
from jaxpolya.models.heads import logits

T, NEW = 48, 64


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


def both(case, tmp_path, tokenizer, mesh):
    """A case's model as transformers has it, and as we read it."""
    model = their_model(case)
    model.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    return model, load_checkpoint(str(tmp_path / "theirs"), mesh=mesh)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers(case, tmp_path, tiny_tokenizer, mesh1):
    model, checkpoint = both(case, tmp_path, tiny_tokenizer, mesh1)
    # One full row, one padded on the left, one on the right.
    tokens = np.random.default_rng(0).integers(1, V, (3, T))
    mask = np.ones((3, T), np.int32)
    mask[1, :9] = mask[2, -11:] = 0
    expected = their_logits(model, tokens, mask)
    logits = our_logits(checkpoint, tokens, np.maximum(np.cumsum(mask, axis=1) - 1, 0), mask)
    np.testing.assert_allclose(logits[mask > 0], expected[mask > 0], atol=1e-4)


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith(" rope")])  # rotations are tables that both paths read
def test_greedy_tokens_equal_those_of_transformers(case, tmp_path, tiny_tokenizer, mesh1):
    """Prompts of two lengths, as transformers generates from a batch padded on the left."""
    model, checkpoint = both(case, tmp_path, tiny_tokenizer, mesh1)
    prompts = np.random.default_rng(0).integers(1, V, (2, 23))
    mask = np.ones_like(prompts)
    mask[1, :9] = prompts[1, :9] = 0
    settings = transformers.GenerationConfig(do_sample=False, max_new_tokens=NEW, eos_token_id=None, bos_token_id=None, pad_token_id=0)
    expected = model.generate(torch.tensor(prompts), attention_mask=torch.tensor(mask), generation_config=settings)[:, 23:].tolist()
    assert greedy(checkpoint, [prompts[0].tolist(), prompts[1, 9:].tolist()], mesh1) == expected


def greedy(checkpoint, prompts, mesh):
    """Our engine's greedy continuations."""
    engine = Engine(
        checkpoint.config, mesh, sampling=Sampling(max_new_tokens=NEW, temperature=0.0), prompts=len(prompts), samples=1,
        longest_prompt=max(map(len, prompts)), stop_ids=(), decode=str, engine=DecodeConfig(rows=2, burst=32), dtype=jnp.float32,
    )  # fmt: skip
    requests = [Request(str(i), prompt, i, range(1)) for i, prompt in enumerate(prompts)]
    done = [completion for window in engine.run(checkpoint.params, requests, 0) for completion in window]
    return [list(completion.tokens) for completion in sorted(done, key=lambda completion: completion.request.id)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_configuration_written_by_us_means_the_same_to_transformers(family, tmp_path, tiny_tokenizer, mesh1):
    model = their_model(f"{family}: {EVERYTHING}")
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


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_devices_give_the_tokens_of_one(family, tmp_path, tiny_tokenizer, mesh1, mesh8):
    their_model(f"{family}: untied").save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    prompts = np.random.default_rng(0).integers(1, V, (2, 15)).tolist()
    one, eight = (greedy(load_checkpoint(str(tmp_path), mesh=mesh), prompts, mesh) for mesh in (mesh1, mesh8))
    assert one == eight


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
