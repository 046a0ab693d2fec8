"""How far our logits are from transformers', on random configurations of every family, float32 on CPU.

    python benchmarks/parity.py [FAMILY …] [--configurations N] [--seed N]

Each configuration draws sizes, head counts, windows, rotary scalings, caps, biases and ties at random, as far as the family knows
them; weights are random, and half of the files use the older spelling of the rotary keys. Each is saved by transformers, imported,
and asked for the logits of two rows, one of them padded on the left. The table says the largest difference of a family beside
the size of its logits. Needs the `test` extra (torch).
"""

import argparse
import json
import logging
import random
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast

from jaxpolya.config import MeshConfig
from jaxpolya.hf.checkpoint import load_checkpoint
from jaxpolya.hf.families import FAMILIES, known_keys
from jaxpolya.models.decoder import head_table, hidden_states
from jaxpolya.models.heads import logits
from jaxpolya.parallel.mesh import make_mesh

T, PADDING = 40, 6
ROPES: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
]

BY_KIND = ("gemma3_text", "olmo3")
"""Families with rotary parameters for each kind of layers."""


def draw(family: str, rng: random.Random) -> dict[str, Any]:
    """A configuration that transformers accepts."""
    K, L = rng.choice([1, 2, 3, 5]), rng.choice([1, 2, 3, 4, 7])
    N = K * rng.choice([1, 2, 3, 4])
    sizes = {
        "vocab_size": rng.choice([64, 97, 131]), "hidden_size": N * rng.choice([2, 4, 6]), "intermediate_size": rng.choice([7, 24, 40]),
        "num_hidden_layers": L, "num_attention_heads": N, "num_key_value_heads": K, "head_dim": rng.choice([2, 4, 6, 10, 16]),
        "max_position_embeddings": rng.choice([32, 64, 128]), "tie_word_embeddings": rng.random() < 0.5,
        "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    special = {
        "attention_bias": rng.random() < 0.5, "mlp_bias": rng.random() < 0.5, "query_pre_attn_scalar": rng.choice([4, 7, 16]),
        "attn_logit_softcapping": rng.choice([None, 3.0, 50.0]), "final_logit_softcapping": rng.choice([None, 5.0, 30.0]),
        "sliding_window": rng.choice([1, 2, 5, 9, 31, 64]), "use_sliding_window": rng.random() < 0.7,
        "max_window_layers": rng.choice([0, 1, L]), "no_rope_layer_interval": rng.choice([1, 2, 3, 4]),
    }  # fmt: skip
    if family == "mistral" and rng.random() < 0.4:
        special["sliding_window"] = None
    if rng.random() < 0.4:
        special["layer_types"] = [rng.choice(["sliding_attention", "full_attention"]) for _ in range(L)]
        special["use_sliding_window"] = True
    known = known_keys(family)
    if rng.random() < 0.4:
        special |= dict.fromkeys(("hidden_act", "hidden_activation"), rng.choice(["silu", "gelu_pytorch_tanh", "relu"]))
    rope = rng.choice(ROPES) | {"rope_theta": rng.choice([1e2, 1e4, 5e5])}
    if family in BY_KIND:
        rope = {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": rng.choice([1e2, 1e4])}}
    return sizes | {key: value for key, value in special.items() if key in known} | {"rope_parameters": rope}


def old_spelling(path: Path) -> None:
    """Rewrites a `config.json` as transformers 4 wrote it."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    path.write_text(json.dumps(config))


def compare(family: str, seed: int, mesh: jax.sharding.Mesh) -> tuple[float, float]:
    """(largest difference of a logit, largest logit) of one random configuration."""
    rng = random.Random(f"{family} {seed}")
    model = transformers.AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**draw(family, rng)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[])), eos_token="b")
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        if rng.random() < 0.5 and family not in BY_KIND:
            old_spelling(Path(directory) / "config.json")
        again = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
        checkpoint = load_checkpoint(directory, mesh=mesh)
    tokens = np.random.default_rng(seed).integers(0, checkpoint.config.vocab_size, (2, T))
    mask = np.ones((2, T), np.int32)
    mask[1, :PADDING] = 0
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    with torch.no_grad():
        theirs = again(torch.tensor(tokens), attention_mask=torch.tensor(mask), position_ids=torch.tensor(positions)).logits.numpy()
    hidden = hidden_states(checkpoint.params, checkpoint.config, tokens, positions, mask)
    ours = np.asarray(logits(checkpoint.config, hidden, head_table(checkpoint.params)))
    return float(np.abs(ours - theirs)[mask > 0].max()), float(np.abs(theirs).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=list(FAMILIES), help="of those that are registered; unset is all")
    parser.add_argument("--configurations", type=int, default=20, help="of each family")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    print("family        configurations   largest |difference|   of logits up to")
    for family in arguments.families:
        results = [compare(family, arguments.seed + i, mesh) for i in range(arguments.configurations)]
        differences, sizes = zip(*results, strict=True)
        print(f"{family:<13} {len(results):>14} {max(differences):>22.1e} {max(sizes):>17.1f}", flush=True)


if __name__ == "__main__":
    main()
