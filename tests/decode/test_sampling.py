"""Draws follow the distribution that they claim, and their log-probs are those of the full vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.decode.sampling import Draw, sample, sums_by_product, token_keys

DRAWS = 20_000


def draw_many(logits_V, temperature=1.0, top_p=1.0, draw=Draw()):  # noqa: B008
    keys = token_keys(jax.random.key(0), jnp.arange(DRAWS, dtype=jnp.uint32), jnp.zeros(DRAWS, jnp.int32))
    rows = jnp.broadcast_to(logits_V, (DRAWS, logits_V.size))
    tokens, logps = jax.jit(sample, static_argnums=4)(rows, keys, jnp.float32(temperature), jnp.float32(top_p), draw)
    return np.asarray(tokens), np.asarray(logps)


# 700 entries cross the sampler's block of 256; a few carry most of the mass, far apart.
LOGITS = jnp.zeros(700).at[jnp.array([3, 300, 699])].set(jnp.array([7.0, 6.0, 6.5]))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_and_log_probs(temperature):
    tokens, logps = draw_many(LOGITS, temperature)
    expected = np.asarray(jax.nn.softmax(LOGITS / temperature))
    counts = np.bincount(tokens, minlength=700) / DRAWS
    for token in (3, 300, 699):
        assert abs(counts[token] - expected[token]) < 4 * np.sqrt(expected[token] / DRAWS)
    rest = np.setdiff1d(np.arange(700), [3, 300, 699])
    assert abs(counts[rest].sum() - expected[rest].sum()) < 4 * np.sqrt(expected[rest].sum() / DRAWS)
    np.testing.assert_allclose(logps, np.log(expected)[tokens], atol=1e-5)


def test_top_k_and_top_p_restrict_the_draw_but_not_the_log_prob():
    full = np.log(np.asarray(jax.nn.softmax(LOGITS)))
    for draw, top_p, allowed in ((Draw(top_k=2), 1.0, {3, 699}), (Draw(top_p=True), 0.5, {3, 699}), (Draw(top_p=True), 0.3, {3})):
        tokens, logps = draw_many(LOGITS, top_p=top_p, draw=draw)
        assert set(tokens.tolist()) == allowed
        np.testing.assert_allclose(logps, full[tokens], atol=1e-5)


def test_impossible_tokens_are_never_drawn():
    tokens, _ = draw_many(jnp.full(700, -jnp.inf).at[jnp.array([255, 256])].set(0.0))
    assert set(tokens.tolist()) == {255, 256}


def test_greedy_takes_the_first_of_the_likeliest():
    tokens, logps = draw_many(LOGITS, draw=Draw(greedy=True))
    assert set(tokens.tolist()) == {3}
    np.testing.assert_allclose(logps, jax.nn.log_softmax(LOGITS)[3], atol=1e-5)


def test_a_key_depends_on_sequence_and_position_only():
    seed = jax.random.key(9)
    both = token_keys(seed, jnp.array([1, 2], jnp.uint32), jnp.array([4, 4]))
    swapped = token_keys(seed, jnp.array([2, 1, 4], jnp.uint32), jnp.array([4, 4, 1]))
    data, other = jax.random.key_data(both), jax.random.key_data(swapped)
    assert (data[0] == other[1]).all() and (data[1] == other[0]).all()
    assert not (data[0] == other[2]).all()


def test_a_tpus_sums_of_blocks_are_sums():
    weights = jnp.exp(8 * jax.random.normal(jax.random.key(3), (4, 9, 128))).at[:, 5].set(0)
    sums = sums_by_product(weights)
    np.testing.assert_allclose(sums, np.sum(np.asarray(weights, np.float64), axis=-1), rtol=1e-6)
    assert (sums[:, 5] == 0).all(), "a block of impossible tokens can't be drawn"
    assert "HIGHEST" in jax.jit(sums_by_product).lower(weights).as_text(), "a TPU would round the weights to bfloat16"
