"""What a block computes with and what it keeps, where that is arranged for speed: every arrangement gives the plain one's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.models import decoder
from jaxpolya.models.config import TARGETS, DecoderConfig, Lora

SHAPES = {"w": (6, 3, 5), "x": (2, 4, 3, 5)}


def random(name, key=0):
    return jax.random.normal(jax.random.key(key), SHAPES[name])


def test_few_and_many_tokens_are_the_same_product(monkeypatch):
    w, x = random("w"), random("x", 1)

    def with_gradients():
        out, back = jax.vjp(decoder.linear, w, x)
        return out, *back(jnp.cos(out))

    few = with_gradients()
    monkeypatch.setattr(decoder, "FEW_TOKENS", 1)
    assert few[0].shape == (2, 4, 6)
    for one, other in zip(few, with_gradients(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(few[0], np.einsum("oij,btij->bto", w, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", decoder.ACTIVATIONS)
def test_the_gradient_of_a_gated_activation_is_autodiffs(activation):
    gate = jnp.concatenate([jnp.linspace(-30, 30, 241), jnp.array([-1e4, -200.0, -90.0, 90.0, 200.0, 1e4])])
    up, d = (jax.random.normal(jax.random.key(i), gate.shape) for i in range(2))
    out, back = jax.vjp(lambda gate, up: decoder.gated(activation, gate, up), gate, up)
    plain, plain_back = jax.vjp(lambda gate, up: decoder.ACTIVATIONS[activation](gate) * up, gate, up)
    np.testing.assert_array_equal(out, plain)
    for one, other in zip(back(d), plain_back(d), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_a_gated_activation_is_made_in_float32():
    gate, up, d = (jax.random.normal(jax.random.key(i), (500,), jnp.bfloat16) for i in range(3))
    of_bf16 = jax.vjp(lambda gate, up: decoder.gated("silu", gate, up), gate, up)[1](d)
    whole = [x.astype(jnp.float32) for x in (gate, up, d)]
    of_float32 = jax.vjp(lambda gate, up: jax.nn.silu(gate) * up, *whole[:2])[1](whole[2])
    for one, other in zip(of_bf16, of_float32, strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_allclose(one.astype(jnp.float32), other, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize(
    "more, wide",
    [
        ({}, 2),
        ({"lora": Lora(rank=2, alpha=4.0, targets=TARGETS)}, 2),
        ({"qk_norm": "head", "qkv_bias": True}, 2),
        ({"post_norms": True}, 4),
    ],
    ids=["plain", "lora", "qk_norm", "post_norms"],
)
def test_a_block_keeps_its_products_for_the_backward_pass_and_nothing_as_wide_besides(monkeypatch, more, wide):
    monkeypatch.setattr(decoder, "FEW_TOKENS", 1)
    B, T, F = 4, 12, 48
    config = DecoderConfig("llama", 11, 16, F, 3, 2, 1, 8, 32, **more)
    params = decoder.init_params(config, jax.random.key(0))
    ids = jnp.ones((B, T), jnp.int32)

    def loss(params):
        return decoder.hidden_states(params, config, ids, jnp.broadcast_to(jnp.arange(T), (B, T)), ids, dtype=jnp.bfloat16).sum()

    forward = next(eqn for eqn in jax.make_jaxpr(jax.grad(loss))(params).eqns if eqn.primitive.name == "scan")
    kept = [(var.aval.shape, var.aval.dtype) for var in forward.outvars if var.aval.shape[:1] == (config.layers,)]
    assert sum(shape == (config.layers, B, T, F) for shape, _ in kept) == 2  # gate and up
    # The inputs of the two halves, and the products that a norm follows.
    assert sum(shape == (config.layers, B, T, config.width) for shape, _ in kept) == wide
    weights = {leaf.shape for leaf in jax.tree.leaves(params["blocks"])}
    assert not any(shape in weights and dtype == jnp.bfloat16 for shape, dtype in kept), "weights are kept in the compute dtype"
