"""Training adapters: they begin at nothing, alone move, and give the same numbers on any mesh and beside a base of any dtype."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_steps import CONFIG, random_examples

from jaxpolya.config import LoraConfig, Optimizer
from jaxpolya.data.packing import pack
from jaxpolya.decode.lanes import decode_copy
from jaxpolya.models.decoder import init_params
from jaxpolya.models.forward import Forward
from jaxpolya.models.lora import divided, joined
from jaxpolya.train.adapters import adapted, begin
from jaxpolya.train.objectives import sft_objective
from jaxpolya.train.state import Step, init_state, make_optimizer

LORA = adapted(CONFIG, LoraConfig(rank=3, alpha=6, targets=["q_proj", "o_proj", "down_proj"]))
F32, BF16 = jnp.dtype("float32"), jnp.dtype("bfloat16")


def params():
    return init_params(CONFIG, jax.random.key(0))


def batch():
    return pack([dataclasses.replace(example, extras={}) for example in random_examples(24)], row_tokens=32, rows_multiple=8)


def trained(mesh, dtype, steps, *, held=None, decoder=LORA):
    """(the step, the state after some steps, their metrics)."""
    optimizer = make_optimizer(Optimizer(learning_rate=1e-2, warmup=0), decoder, 4)
    fresh, frozen = begin(params(), decoder, mesh, held or dtype, 0, "sft")
    update = Step(sft_objective(Forward(decoder, dtype)), decoder, mesh, optimizer, frozen)
    state, log = init_state(fresh, decoder, mesh, optimizer), []
    for _ in range(steps):
        state, facts = update(state, batch(), 8)
        log.append(facts)
    return update, state, log


def test_adapters_begin_at_nothing_and_alone_are_trained(mesh1):
    _, _, (plain,) = trained(mesh1, F32, 1, decoder=CONFIG)
    update, state, log = trained(mesh1, F32, 3)
    assert log[0]["loss"] == pytest.approx(plain["loss"], rel=1e-6) and log[-1]["loss"] < log[0]["loss"]
    names = {f"{name}_lora_{factor}" for name in ("q", "o", "down") for factor in "ab"}
    held = {path[-1].key for path, leaf in jax.tree_util.tree_leaves_with_path(state) if hasattr(path[-1], "key")}
    assert held == names, "parameters and moments are those of the adapters"
    whole = update.weights(state)
    jax.tree.map(np.testing.assert_array_equal, divided(whole, LORA)[1], params())
    # What decodes is what was trained, and holds nothing twice that is as it must be already.
    merged = decode_copy(whole, LORA, mesh1, F32)
    assert all(merged[name] is whole[name] for name in whole if name != "blocks") and "embed" in whole
    assert decode_copy(whole, LORA, mesh1, BF16)["embed"].dtype == BF16
    stacked = {**merged, "blocks": jax.tree.map(lambda *layers: jnp.stack(layers), *merged["blocks"])}
    rows = {name: jnp.asarray(values) for name, values in batch().items()}
    one, other = (Forward(config, F32).logprobs(tree, rows)[0] for config, tree in ((LORA, whole), (CONFIG, stacked)))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_base_in_the_compute_dtype_changes_no_product(mesh1):
    """All that a forward pass takes of a float32 weight is its rounding."""
    (_, one, _), (_, other, _) = (trained(mesh1, BF16, 2, held=held) for held in (F32, BF16))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.soak
def test_eight_devices_train_what_one_does(mesh1, mesh8):
    one, eight = (trained(mesh, F32, 1)[2][0] for mesh in (mesh1, mesh8))
    assert one == pytest.approx(eight, rel=1e-5, abs=1e-6) and one["grad_norm"] > 0


def test_two_trainings_begin_at_different_adapters(mesh1):
    one, other = (begin(params(), LORA, mesh1, F32, 0, stage)[0]["blocks"]["q_lora_a"] for stage in ("sft", "rl"))
    assert not np.intersect1d(one, other).size


def test_a_divided_tree_is_joined_again(mesh1):
    whole = init_params(LORA, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, joined(*divided(whole, LORA)), whole)
    assert divided(params(), CONFIG)[1] == {}
