"""Attention in bands and blocks of queries, with its gradient written out, is attention as defined, differentiated by jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.models.attention import causal_attention, packed_attention
from jaxpolya.models.config import DecoderConfig

CONFIG = DecoderConfig("gemma2", 32, 16, 16, 1, 4, 2, 8, 64, score_cap=3.0)
B, T = 2, 37
SEGMENTS = jnp.array(np.repeat([[1, 2, 0], [1, 1, 2]], [20, 10, 7], axis=1))


def inputs(T=T, S=T):
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (B, n, heads, 8)) * 3 for key, n, heads in zip(keys, (T, S, S, T), (4, 2, 2, 4), strict=True)]


def by_definition(q, k, v, segments, window):
    """The whole square of scores, by the definition."""
    T, S = q.shape[1], k.shape[1]
    k, v = (jnp.repeat(x, 2, axis=2) for x in (k, v))
    scores = 3.0 * jnp.tanh(jnp.einsum("btnh,bsnh->bnts", q, k, precision="highest") / 8**0.5 / 3.0)
    back = S - T + jnp.arange(T)[:, None] - jnp.arange(S)
    visible = (segments[:, -T:, None] == segments[:, None]) & (back >= 0) & (back < (window or 1000))
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(jnp.where(visible[:, None], scores, -jnp.inf)), v, precision="highest")


@pytest.mark.parametrize(
    ("window", "query_block", "as_data"), [(None, 512, False), (5, 8, False), (5, 12, True)], ids=["one block", "blocks", "window as data"]
)
def test_values_and_gradients_are_the_definitions(window, query_block, as_data):
    q, k, v, wanted = inputs()
    real = (SEGMENTS > 0)[..., None, None]  # what padding says means nothing, and nothing is asked of it

    def loss(attention):
        def of(q, k, v):
            out = jnp.where(real, attention(q, k, v), 0)
            return (out * wanted).sum(), out

        return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2), has_aux=True))(q, k, v)

    (_, expected), expected_gradients = loss(lambda q, k, v: by_definition(q, k, v, SEGMENTS, window))
    given = jnp.int32(window) if as_data else window
    (_, found), gradients = loss(lambda q, k, v: packed_attention(CONFIG, q, k, v, SEGMENTS, given, query_block=query_block))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for gradient, of_definition in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, of_definition, atol=5e-5)


def test_the_last_positions_see_those_before_them():
    window = 6
    q, k, v, _ = inputs(T=140, S=160)
    found = jax.jit(lambda q, k, v: causal_attention(CONFIG, q, k, v, window))(q, k, v)  # two bands, and keys before the first query
    np.testing.assert_allclose(found, by_definition(q, k, v, jnp.ones((B, 160)), window), atol=1e-5)


def test_half_precision_is_summed_in_float32():
    q, k, v, wanted = (x.astype(jnp.bfloat16) for x in inputs())

    def gradients(*inputs):
        return jax.grad(lambda *x: (packed_attention(CONFIG, *x, SEGMENTS).astype(jnp.float32) * wanted).sum(), argnums=(0, 1, 2))(*inputs)

    half, whole = jax.jit(gradients)(q, k, v), jax.jit(gradients)(*(x.astype(jnp.float32) for x in (q, k, v)))
    for ours, exact in zip(half, whole, strict=True):
        assert ours.dtype == jnp.bfloat16
        assert np.abs(ours - exact).max() < 0.02 * np.abs(exact).max()
