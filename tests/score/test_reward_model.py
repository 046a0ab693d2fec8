import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from families import EVERYTHING, their_model

from jaxpolya.errors import InputError
from jaxpolya.hf.checkpoint import inspect_checkpoint
from jaxpolya.hf.families import FAMILIES
from jaxpolya.score.reward_model import load_reward_model

PAD = 2


@pytest.fixture(scope="module")
def reward_directory(tmp_path_factory, tiny_tokenizer):
    directory = tmp_path_factory.mktemp("reward")
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, num_labels=1, pad_token_id=PAD,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForSequenceClassification(config).save_pretrained(directory)
    tiny_tokenizer.save_pretrained(directory)
    return directory


def test_scores_equal_transformers(reward_directory, mesh1, mesh8):
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 300, length).tolist() for length in (5, 70, 1, 64, 33, 128, 17)]
    padded = np.full((len(rows), 128), PAD)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    model = transformers.AutoModelForSequenceClassification.from_pretrained(reward_directory).eval()
    with torch.no_grad():
        expected = model(torch.tensor(padded), attention_mask=torch.tensor(padded != PAD)).logits[:, 0].numpy()
    for mesh in (mesh1, mesh8):
        np.testing.assert_allclose(load_reward_model(str(reward_directory), mesh).score(rows), expected, atol=1e-5)
    half = load_reward_model(str(reward_directory), mesh1, jnp.bfloat16).score(rows)
    assert half.dtype == np.float32 and 0 < np.abs(half - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_a_reward_model(family, tmp_path, tiny_tokenizer, mesh1):
    auto = transformers.AutoModelForSequenceClassification
    model = their_model(f"{family}: {EVERYTHING}", auto, num_labels=1, pad_token_id=PAD)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(3, 300, (2, 40))
    with torch.no_grad():
        expected = model(torch.tensor(tokens), attention_mask=torch.ones(tokens.shape, dtype=int)).logits[:, 0].numpy()
    np.testing.assert_allclose(load_reward_model(str(tmp_path), mesh1).score(tokens.tolist()), expected, atol=1e-4)


def test_misuse_is_named(reward_directory, tiny_checkpoint, tmp_path, mesh1):
    with pytest.raises(InputError, match="LlamaForSequenceClassification; a …ForCausalLM is needed"):
        inspect_checkpoint(str(reward_directory))
    with pytest.raises(InputError, match="LlamaForCausalLM; a …ForSequenceClassification is needed"):
        load_reward_model(str(tiny_checkpoint), mesh1)
    with pytest.raises(InputError, match="row 1 has 129 tokens"):
        load_reward_model(str(reward_directory), mesh1).score([[1], [1] * 129])
    for path in reward_directory.iterdir():
        (tmp_path / path.name).symlink_to(path)
    config = json.loads((reward_directory / "config.json").read_text()) | {"id2label": {"0": "bad", "1": "good"}}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="scores 2 labels"):
        load_reward_model(str(tmp_path), mesh1)
