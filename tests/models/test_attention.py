"""Attention in blocks of queries is attention, whatever the window, and whether it is a number or data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.models.attention import packed_attention
from jaxpolya.models.config import DecoderConfig

CONFIG = DecoderConfig("gemma2", 32, 16, 16, 1, 4, 2, 8, 64, score_cap=3.0)


@pytest.mark.parametrize("window", [None, 1, 5, 100])
def test_blocks_windows_and_segments(window):
    B, T = 2, 37
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (B, T, heads, 8)) * 3 for key, heads in zip(keys, (4, 2, 2), strict=True))
    segments = jnp.array(np.repeat([[1, 2, 0], [1, 1, 2]], [20, 10, 7], axis=1))
    whole = packed_attention(CONFIG, q, k, v, segments, window)
    blocks = packed_attention(CONFIG, q, k, v, segments, window, query_block=8)
    data = jax.jit(lambda length: packed_attention(CONFIG, q, k, v, segments, length, query_block=8))(window or 2**30)
    real = np.asarray(segments) > 0
    np.testing.assert_allclose(blocks[real], whole[real], atol=1e-5)
    np.testing.assert_allclose(data[real], whole[real], atol=1e-5)

    # By the definition, one query at a time.
    for b, t in ((0, 19), (0, 29), (1, 36), (1, 3)):
        start = max(0 if window is None else t - window + 1, int(np.argmax(np.asarray(segments[b]) == int(segments[b, t]))))
        for head in range(4):
            scores = k[b, start : t + 1, head // 2] @ q[b, t, head] / 8**0.5
            weights = jax.nn.softmax(3.0 * jnp.tanh(scores / 3.0))
            np.testing.assert_allclose(whole[b, t, head], weights @ v[b, start : t + 1, head // 2], atol=1e-5)
