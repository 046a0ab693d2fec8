"""What lies in a checkpoint beside the text model: left out with a note where it changes nothing, refused otherwise."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from kinds import tokenizer_of

from jaxpolya.errors import InputError
from jaxpolya.hf.checkpoint import export_checkpoint, inspect_checkpoint, load_checkpoint, save_checkpoint
from jaxpolya.hf.families import config_from_hf
from jaxpolya.models.decoder import head_table, hidden_states
from jaxpolya.models.heads import logits

SPARSE_4B = {
    "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "vocab_size": 320, "sliding_window": 8, "max_position_embeddings": 256, "query_pre_attn_scalar": 11,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
}  # fmt: skip


def read(path):
    return json.loads(path.read_text())


def edit(path, **changes):
    path.write_text(json.dumps(read(path) | changes))


def rename(directory, change):
    """Renames the tensors of a directory: `change(name)`."""
    path = directory / "model.safetensors"
    safetensors.numpy.save_file({change(name): array for name, array in safetensors.numpy.load_file(path).items()}, path)


def our_logits(checkpoint, ids):
    row = jnp.array([ids])
    hidden = hidden_states(checkpoint.params, checkpoint.config, row, jnp.arange(len(ids))[None], jnp.ones_like(row))
    return np.asarray(logits(checkpoint.config, hidden, head_table(checkpoint.params))[0])


@pytest.fixture(scope="module")
def sees(tmp_path_factory):
    """(a Gemma 3 that sees images, as transformers saves it, its logits over `IDS`)."""
    directory = tmp_path_factory.mktemp("sees") / "gemma3"
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4, eos_token_id=[1, 5])
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(directory)
    tokenizer_of("byte-level", 300).save_pretrained(directory)
    with torch.no_grad():
        return directory, model(input_ids=torch.tensor([IDS])).logits[0].numpy()


IDS = list(range(7, 60))


@pytest.mark.parametrize("names", ["as saved", "v4", "v5", "bare"])
def test_the_text_part_of_a_model_that_sees_comes_in(sees, names, tmp_path, mesh1):
    source, expected = sees
    directory = shutil.copytree(source, tmp_path / "gemma3")
    inside = {"v4": "language_model.model.", "v5": "model.language_model.", "bare": "language_model."}.get(names)
    if inside:
        wrappers = ("model.language_model.", "language_model.model.")
        rename(directory, lambda name: next((inside + name.removeprefix(w) for w in wrappers if name.startswith(w)), name))
    checkpoint = load_checkpoint(str(directory), mesh=mesh1)
    np.testing.assert_allclose(our_logits(checkpoint, IDS), expected, atol=1e-4)
    assert {1, 5} <= set(checkpoint.stop_ids)
    assert all("vision" in name or "projector" in name for name in checkpoint.meta.left_out)
    assert f"{len(checkpoint.meta.left_out)} tensors are no part of the text model" in checkpoint.meta.note
    export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta)
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model).__name__ == "Gemma3ForCausalLM" and not any(loading[key] for key in ("missing_keys", "unexpected_keys"))
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.tensor([IDS])).logits[0].numpy(), expected, atol=1e-4)
    save_checkpoint(tmp_path / "own", checkpoint.params, checkpoint.meta)
    own = inspect_checkpoint(str(tmp_path / "own"))
    assert (own.config, own.stop_ids, own.note) == (checkpoint.config, checkpoint.stop_ids, None)


def test_what_a_configuration_leaves_out_is_what_transformers_takes():
    """Gemma 3 4B says six things of its text model."""
    config = config_from_hf(SPARSE_4B, "config.json")
    theirs = transformers.Gemma3TextConfig(**SPARSE_4B)
    assert (config.vocab_size, config.heads, config.kv_heads) == (theirs.vocab_size, theirs.num_attention_heads, theirs.num_key_value_heads)
    assert (config.head_width, config.max_positions, len(config.pattern)) == (theirs.head_dim, theirs.max_position_embeddings, 6)


BESIDE = {
    "v_head.summary.weight": (1, 32),
    "v_head.summary.bias": (1,),
    "score.weight": (1, 32),
    "model.rotary_emb.inv_freq": (4,),
    "model.layers.0.self_attn.rotary_emb.cos_cached": (1, 1, 8, 8),
    "model.layers.1.self_attn.masked_bias": (),
    "model.layers.1.attn.bias": (1, 1, 8, 8),
    "model.embed_tokens.embed_scale": (1,),
    "mtp.layers.0.self_attn.q_proj.weight": (32, 32),
    "model.mtp_layers.0.hidden_layernorm.weight": (32,),
    "model.layers.2.eh_proj.weight": (32, 64),
    "model.layers.2.self_attn.q_proj.weight": (32, 32),
    "medusa_head.0.weight": (300, 32),
}


def with_tensors(directory, shapes):
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path) | {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, path)


def test_heads_buffers_and_layers_that_predict_more_are_left_out(tiny_checkpoint, tmp_path, mesh1):
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "more")
    with_tensors(directory, BESIDE)
    checkpoint, plain = (load_checkpoint(str(each), mesh=mesh1) for each in (directory, tiny_checkpoint))
    assert set(checkpoint.meta.left_out) == BESIDE.keys() and plain.meta.note is None
    assert "13 tensors are no part of the text model and are left out" in checkpoint.meta.note
    np.testing.assert_array_equal(our_logits(checkpoint, IDS), our_logits(plain, IDS))
    export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta)
    assert (
        safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors").keys()
        == safetensors.numpy.load_file(tiny_checkpoint / "model.safetensors").keys()
    )


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.self_attn.sinks",
        "model.layers.2.self_attn.q_proj.weight",
        "model.embed_layernorm.weight",
        "model.layers.0.mlp.gate_proj.weight_scale",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "lm_head.bias",
    ],
)
def test_what_a_decoder_might_need_is_refused(tiny_checkpoint, tmp_path, name):
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "more")
    with_tensors(directory, {name: (4,)})
    with pytest.raises(InputError, match=f"tensor {name} is unknown to a llama model"):
        inspect_checkpoint(str(directory))
