"""Causal grouped-query attention over packed rows.

Query heads are grouped by the key/value head that they share: N = K × M. Scores and softmax are float32. Long rows are
processed in blocks of queries whose scores are recomputed in the backward pass, so that memory grows with block × T and not
with T².
"""

import jax
import jax.numpy as jnp

QUERY_BLOCK = 512
MASKED = -1e30  # finite, so that a fully masked (padding) row gives a uniform softmax instead of NaN


def packed_attention(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_ids_BT: jax.Array, *, query_block: int = QUERY_BLOCK
) -> jax.Array:
    """Attention [B, T, N, H] in which a token sees itself and earlier tokens of its own segment.

    Args:
      q_BTNH: queries, already rotated.
      k_BTKH, v_BTKH: keys and values.
      segment_ids_BT: int32; 0 marks padding, whose outputs mean nothing.
      query_block: queries whose scores exist at one time.
    """
    return _blockwise(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, segment_ids_BT, query_block)


def causal_attention(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array) -> jax.Array:
    """Attention [B, T, N, H] of the last T of S positions: each sees itself and all before it."""
    (B, T), S = q_BTNH.shape[:2], k_BSKH.shape[1]
    return _blockwise(q_BTNH, k_BSKH, v_BSKH, jnp.ones((B, T), jnp.int32), jnp.ones((B, S), jnp.int32), QUERY_BLOCK)


def _blockwise(
    q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, q_segments_BT: jax.Array, k_segments_BS: jax.Array, query_block: int
) -> jax.Array:
    """Attention of the last T of S positions within segments, `query_block` queries at a time."""
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    if query_block >= T:
        return _attend(q_BTNH, k_BSKH, v_BSKH, q_segments_BT, k_segments_BS, S - T + jnp.arange(T))
    pad = -T % query_block
    blocks = (T + pad) // query_block
    q = jnp.pad(q_BTNH, ((0, 0), (0, pad), (0, 0), (0, 0)))
    q_segments = jnp.pad(q_segments_BT, ((0, 0), (0, pad)))

    @jax.checkpoint
    def block(index: jax.Array) -> jax.Array:
        start = index * query_block
        return _attend(
            jax.lax.dynamic_slice_in_dim(q, start, query_block, 1),
            k_BSKH,
            v_BSKH,
            jax.lax.dynamic_slice_in_dim(q_segments, start, query_block, 1),
            k_segments_BS,
            S - T + start + jnp.arange(query_block),
        )

    out = jax.lax.map(block, jnp.arange(blocks))
    return jnp.moveaxis(out, 0, 1).reshape(q.shape)[:, :T]


def _attend(
    q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, q_segments_BT: jax.Array, k_segments_BS: jax.Array, q_index_T: jax.Array
) -> jax.Array:
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    q = q_BTNH.reshape(B, T, K, N // K, H)
    scores = jnp.einsum("btkmh,bskh->bkmts", q, k_BSKH, precision=precision_of(q), preferred_element_type=jnp.float32) * H**-0.5
    visible = (q_segments_BT[:, :, None] == k_segments_BS[:, None, :]) & (q_index_T[:, None] >= jnp.arange(S))
    scores = jnp.where(visible[:, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKH.dtype)
    return jnp.einsum("bkmts,bskh->btkmh", weights, v_BSKH, precision=precision_of(q)).reshape(B, T, N, H)


def precision_of(x: jax.Array) -> jax.lax.Precision:
    """Matrix products of float32 arrays are exact to float32 (TPUs would round the factors to bfloat16 by default)."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
