"""Adapters in PEFT's files: ours are read by peft, and peft's by us, to the same logits; what can't be read is refused by name."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxpolya.errors import InputError
from jaxpolya.hf.adapter import Adapter, merge, read_adapter, save_adapter
from jaxpolya.hf.checkpoint import Checkpoint, export_checkpoint, inspect_checkpoint, load_checkpoint
from jaxpolya.models.config import Lora
from jaxpolya.models.decoder import abstract_params, head_table, hidden_states
from jaxpolya.models.heads import logits

TOKENS = np.random.default_rng(0).integers(1, 290, (2, 24))
NATIVE = Lora(3, 6.0)
STABLE = Lora(2, 5.0, ("q", "o", "down"), rank_stabilised=True)


def random_adapter(config, lora: Lora, base: str, seed: int = 0) -> Adapter:
    rng = np.random.default_rng(seed)
    specs = abstract_params(dataclasses.replace(config, lora=lora))["blocks"]
    factors = {name: rng.normal(0, 0.2, spec.shape).astype(np.float32) for name, spec in specs.items() if "_lora_" in name}
    return Adapter(factors, lora, base)


@pytest.fixture(scope="module")
def base(tiny_checkpoint, mesh1):
    return load_checkpoint(str(tiny_checkpoint), mesh=mesh1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_checkpoint, base):
    """Directories of adapters of the tiny checkpoint: of one rank and scale, rank-stabilised, and the sum of both."""
    one, two = (random_adapter(base.config, lora, str(tiny_checkpoint), seed) for seed, lora in enumerate((NATIVE, STABLE)))
    made = {"native": one, "stable": two, "sum": one + two}
    directory = tmp_path_factory.mktemp("adapters")
    for name, adapter in made.items():
        save_adapter(directory / name, adapter, base.meta)
    return made, directory


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params):
    ones = jnp.ones(TOKENS.shape, jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(TOKENS.shape[1]), TOKENS.shape)
    return logits(config, hidden_states(params, config, TOKENS, positions, ones), head_table(params))


def our_logits(config, params) -> np.ndarray:
    return np.asarray(forward(config, params))


def beside(base: Checkpoint, *adapters: Adapter) -> np.ndarray:
    """Logits with the adapters beside the weights, as training has them; only the last one may be unmerged."""
    params = base.params
    for adapter in adapters[:-1]:
        params = merge(jax.tree.map(jnp.copy, params), adapter, base.config)
    last = adapters[-1]
    return our_logits(dataclasses.replace(base.config, lora=last.lora), {**params, "blocks": {**params["blocks"], **last.factors}})


def test_merged_and_beside_are_the_same_model(base, saved, mesh1):
    made, directory = saved
    plain = our_logits(base.config, base.params)
    for name, adapters in (("native", [made["native"]]), ("stable", [made["stable"]]), ("sum", [made["native"], made["stable"]])):
        loaded = load_checkpoint(str(directory / name), mesh=mesh1)
        logits = our_logits(loaded.config, loaded.params)
        assert np.abs(logits - plain).max() > 0.1
        np.testing.assert_allclose(logits, beside(base, *adapters), atol=2e-5)
        assert loaded.meta.tokenizer("The answer")["input_ids"] == base.tokenizer("The answer")["input_ids"]


def test_what_was_written_is_read_again(base, saved):
    made, directory = saved
    for name, adapter in made.items():
        back = read_adapter(directory / name, base.config)
        assert (back.lora, back.revision) == (adapter.lora, None)
        for factor, array in adapter.factors.items():
            np.testing.assert_array_equal(back.factors[factor], array)
    assert inspect_checkpoint(str(directory / "sum")).config == base.config


def test_adapters_and_their_base_may_be_moved_together(tmp_path, tiny_checkpoint, base, saved):
    made, _ = saved
    shutil.copytree(tiny_checkpoint, tmp_path / "here" / "base")
    save_adapter(tmp_path / "here" / "adapter", dataclasses.replace(made["stable"], base=str(tmp_path / "here" / "base")), base.meta)
    (tmp_path / "here").rename(tmp_path / "there")
    assert inspect_checkpoint(str(tmp_path / "there" / "adapter")).config == base.config


def test_eight_devices_merge_what_one_does(base, saved, mesh8):
    made, directory = saved
    eight = load_checkpoint(str(directory / "sum"), mesh=mesh8).params
    one = merge(jax.tree.map(jnp.copy, base.params), made["sum"], base.config)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-6), eight, one)


# PEFT ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft", reason="the test extra brings it")


def their_logits(model) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS)).logits.numpy()


def their_base(directory):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")


@pytest.mark.parametrize("name", ["native", "stable", "sum"])
def test_peft_reads_ours_and_transformers_the_merged_export(peft, tmp_path, tiny_checkpoint, base, saved, mesh1, name):
    _, directory = saved
    theirs = their_logits(peft.PeftModel.from_pretrained(their_base(tiny_checkpoint), directory / name))
    checkpoint = load_checkpoint(str(directory / name), mesh=mesh1)
    np.testing.assert_allclose(our_logits(checkpoint.config, checkpoint.params), theirs, atol=1e-4)
    export_checkpoint(tmp_path / "merged", checkpoint.params, checkpoint.meta)
    np.testing.assert_allclose(their_logits(their_base(tmp_path / "merged")), theirs, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4, "target_modules": "all-linear"},
        {"r": 4, "lora_alpha": 3, "use_rslora": True, "target_modules": ["v_proj"], "layers_to_transform": [1]},
        {"r": 2, "lora_alpha": 7, "target_modules": ["q_proj", "up_proj"], "rank_pattern": {"q_proj": 5, r"layers\.0\.mlp\.up_proj": 1},
         "alpha_pattern": {"up_proj": 11}},
    ],
    ids=["all-linear", "one layer", "patterns"],
)  # fmt: skip
def test_we_read_pefts(peft, tmp_path, tiny_checkpoint, mesh1, settings):
    import torch

    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights="gaussian", **settings)
    model = peft.get_peft_model(their_base(tiny_checkpoint), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0, 0.2)
    model.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path), mesh=mesh1)
    np.testing.assert_allclose(our_logits(checkpoint.config, checkpoint.params), their_logits(model), atol=1e-4)


# Refused ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA"),
        ({"use_dora": True}, "use_dora is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base"),
        ({"lora_alpha": "x"}, "the alpha of model.layers.0.self_attn.q_proj is 'x'"),
        ({"base_model_name_or_path": None}, "name the model that the adapters were made for"),
        ({"base_model_name_or_path": "no/such"}, "no/such"),
    ],
)
def test_settings_that_are_not_read_are_named(saved, tmp_path, change, message):
    _, directory = saved
    copy = shutil.copytree(directory / "native", tmp_path / "copy")
    (copy / "jaxpolya.json").unlink()
    settings = json.loads((copy / "adapter_config.json").read_text()) | change
    (copy / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=message):
        inspect_checkpoint(str(copy))


def without(arrays, part):
    return {name: array for name, array in arrays.items() if part not in name}


OTHER = np.zeros((3, 31), np.float32)
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: without(arrays, f"{Q}B"), "q_proj.lora_B.weight is missing"),
        (
            lambda arrays: arrays | {f"{Q}A.weight": np.zeros((3, 31), np.float32)},
            r"q_proj has the shapes \[3, 31\] and \[32, 3\].*\[32, 32\]",
        ),
        (lambda arrays: arrays | {"base_model.model.lm_head.lora_A.weight": np.zeros((3, 32), np.float32)}, "lm_head.*no adapter that is"),
        (lambda arrays: {}, "holds no adapter"),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, tmp_path, change, message):
    _, directory = saved
    copy = shutil.copytree(directory / "native", tmp_path / "copy")
    (copy / "jaxpolya.json").unlink()
    save_file(change(load_file(copy / "adapter_model.safetensors")), copy / "adapter_model.safetensors")
    with pytest.raises(InputError, match=message):
        inspect_checkpoint(str(copy))


def test_damage_is_found(saved, tmp_path):
    _, directory = saved
    copy = shutil.copytree(directory / "native", tmp_path / "copy")
    path = copy / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="has other bytes"):
        inspect_checkpoint(str(copy))
    path.unlink()
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing"):
        inspect_checkpoint(str(copy))
