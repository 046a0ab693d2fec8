"""Causal grouped-query attention over packed rows.

Query heads are grouped by the key/value head that they share: N = K × M. Scores and softmax are float32. Long rows are
processed in blocks of queries whose scores are recomputed in the backward pass, so that memory grows with block × T and not
with T². A layer's window may be data, so that a scan over layers of different windows is one compiled block.
"""

import jax
import jax.numpy as jnp

from jaxpolya.models.config import DecoderConfig

QUERY_BLOCK = 512
MASKED = -1e30  # finite, so that a fully masked (padding) row gives a uniform softmax instead of NaN


Window = int | jax.Array | None
"""Tokens that a token sees, itself included; None: all before it."""


def packed_attention(
    config: DecoderConfig,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array,
    window: Window = None,
    *,
    query_block: int = QUERY_BLOCK,
) -> jax.Array:
    """Attention [B, T, N, H] in which a token sees itself and earlier tokens of its own segment.

    Args:
      config: how scores are scaled and capped.
      q_BTNH: queries, already rotated.
      k_BTKH, v_BTKH: keys and values.
      segment_ids_BT: int32; 0 marks padding, whose outputs mean nothing.
      window: of the layer.
      query_block: queries whose scores exist at one time.
    """
    return _blockwise(config, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, segment_ids_BT, window, query_block)


def causal_attention(config: DecoderConfig, q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, window: Window) -> jax.Array:
    """Attention [B, T, N, H] of the last T of S positions: each sees itself and those before it, as far as the window goes."""
    (B, T), S = q_BTNH.shape[:2], k_BSKH.shape[1]
    return _blockwise(config, q_BTNH, k_BSKH, v_BSKH, jnp.ones((B, T), jnp.int32), jnp.ones((B, S), jnp.int32), window, QUERY_BLOCK)


def _blockwise(
    config: DecoderConfig,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_segments_BT: jax.Array,
    k_segments_BS: jax.Array,
    window: Window,
    query_block: int,
) -> jax.Array:
    """Attention of the last T of S positions within segments, `query_block` queries at a time."""
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    if query_block >= T:
        return _attend(config, q_BTNH, k_BSKH, v_BSKH, q_segments_BT, k_segments_BS, S - T + jnp.arange(T), window)
    pad = -T % query_block
    blocks = (T + pad) // query_block
    q = jnp.pad(q_BTNH, ((0, 0), (0, pad), (0, 0), (0, 0)))
    q_segments = jnp.pad(q_segments_BT, ((0, 0), (0, pad)))

    @jax.checkpoint
    def block(index: jax.Array) -> jax.Array:
        start = index * query_block
        return _attend(
            config,
            jax.lax.dynamic_slice_in_dim(q, start, query_block, 1),
            k_BSKH,
            v_BSKH,
            jax.lax.dynamic_slice_in_dim(q_segments, start, query_block, 1),
            k_segments_BS,
            S - T + start + jnp.arange(query_block),
            window,
        )

    out = jax.lax.map(block, jnp.arange(blocks))
    return jnp.moveaxis(out, 0, 1).reshape(q.shape)[:, :T]


def _attend(
    config: DecoderConfig,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_segments_BT: jax.Array,
    k_segments_BS: jax.Array,
    q_index_T: jax.Array,
    window: Window,
) -> jax.Array:
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    q = q_BTNH.reshape(B, T, K, N // K, H)
    scores = jnp.einsum("btkmh,bskh->bkmts", q, k_BSKH, precision=precision_of(q), preferred_element_type=jnp.float32)
    scores = softcap(scores * config.score_scale, config.score_cap)
    distance_TS = q_index_T[:, None] - jnp.arange(S)
    near_TS = distance_TS >= 0 if window is None else (distance_TS >= 0) & (distance_TS < window)
    visible = (q_segments_BT[:, :, None] == k_segments_BS[:, None, :]) & near_TS
    scores = jnp.where(visible[:, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKH.dtype)
    return jnp.einsum("bkmts,bskh->btkmh", weights, v_BSKH, precision=precision_of(q)).reshape(B, T, N, H)


def softcap(scores: jax.Array, cap: float | None) -> jax.Array:
    """cap · tanh(scores / cap), which keeps scores within ±cap (Gemma 2, arXiv 2408.00118, §2); scores themselves without a cap."""
    return scores if cap is None else cap * jnp.tanh(scores / cap)


def precision_of(x: jax.Array) -> jax.lax.Precision:
    """Matrix products of float32 arrays are exact to float32 (TPUs would round the factors to bfloat16 by default)."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
