"""Attention in bands and blocks of queries, with its gradient written out, is attention as defined, differentiated by jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.models.attention import causal_attention, packed_attention
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.visibility import SharedPrompts

CONFIG = DecoderConfig("gemma2", 32, 16, 16, 1, 4, 2, 8, 64, score_cap=3.0)
B, T = 2, 37
SEGMENTS = jnp.array(np.repeat([[1, 2, 0], [1, 1, 2]], [20, 10, 7], axis=1))


def inputs(T=T, S=T):
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (B, n, heads, 8)) * 3 for key, n, heads in zip(keys, (T, S, S, T), (4, 2, 2, 4), strict=True)]


def by_definition(q, k, v, segments, window):
    """The whole square of scores, by the definition."""
    T, S = q.shape[1], k.shape[1]
    back = S - T + jnp.arange(T)[:, None] - jnp.arange(S)
    return attended(q, k, v, (segments[:, -T:, None] == segments[:, None]) & (back >= 0) & (back < (window or 1000)))


def attended(q, k, v, visible):
    k, v = (jnp.repeat(x, 2, axis=2) for x in (k, v))
    scores = 3.0 * jnp.tanh(jnp.einsum("btnh,bsnh->bnts", q, k, precision="highest") / 8**0.5 / 3.0)
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


def shared_row():
    """(segment and group ids, positions, which keys each token sees by the sequence that it stands in) of two groups that share prompts."""
    segments, groups, positions, sequences = [], [], [], []
    for group, (prompt, responses) in enumerate([(6, (5, 9, 3)), (4, (6,))], 1):
        before = list(range(len(segments), len(segments) + prompt))
        segments, groups, positions = segments + [0] * prompt, groups + [group] * prompt, positions + list(range(prompt))
        sequences.append(before)
        for length in responses:
            own = list(range(len(segments), len(segments) + length))
            segments, groups = segments + [max(segments) + 1] * length, groups + [group] * length
            positions += range(prompt, prompt + length)
            sequences.append([*before, *own])
    ids = [np.pad(np.array(x, np.int32), (0, T - len(x)))[None] for x in (segments, groups, positions)]

    def visible(window):
        seen = np.zeros((T, T), bool)
        for sequence in sequences:
            for place, token in enumerate(sequence):
                seen[token, sequence[max(0, place + 1 - window) : place + 1]] = True
        return seen[None]

    return *map(jnp.asarray, ids), visible


def test_responses_see_the_prompt_that_they_share_as_if_it_stood_before_them():
    q, k, v, wanted = (x[:1] for x in inputs())
    segments, groups, positions, visible = shared_row()
    real = (groups > 0)[..., None, None]

    def loss(attention):
        def of(q, k, v, mask):
            out = jnp.where(real, attention(q, k, v, mask), 0)
            return (out * wanted).sum(), out

        return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2), has_aux=True))

    shared = SharedPrompts(groups, positions)
    ours = loss(lambda q, k, v, window: packed_attention(CONFIG, q, k, v, segments, window, shared=shared, query_block=8))
    defined = loss(attended)
    for window in (T, 7):  # counted in positions: the prompt of a row's third response is farther back than that
        (_, found), gradients = ours(q, k, v, jnp.int32(window))
        (_, expected), expected_gradients = defined(q, k, v, jnp.asarray(visible(window) | ~np.asarray(real[..., 0])))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        for gradient, of_definition in zip(gradients, expected_gradients, strict=True):
            np.testing.assert_allclose(gradient, of_definition, atol=5e-5)
    fixed = jax.jit(lambda q, k, v: packed_attention(CONFIG, q, k, v, segments, window, shared=shared, query_block=8))(q, k, v)
    np.testing.assert_allclose(jnp.where(real, fixed, 0), found, atol=1e-5)  # no band is cut off where a window would end in a plain row
