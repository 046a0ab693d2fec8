"""Causal grouped-query attention over packed rows.

Query heads are grouped by the key/value head that they share: N = K × M. Scores and softmax are float32. A layer's window may be
data, so that a scan over layers of different windows is one compiled block.

`DecoderConfig.attention` says what computes it: a kernel of the device's (`models.kernels`), or what stands here, which runs everywhere and
defines what kernels are tested against. It computes float32 always: there products are exact, which kernels' are not.

Three things make it fast where XLA has nothing but matrix products (measured on CPUs, and no slower by the TPU compiler's model):

- A row is cut into bands of queries, and a band's products end where its last query looks: with 4 bands, 5/8 of the square.
- Every product is a batch of plain ones, [B, K] × ([t·M, H] with [S, H]), whose big factor, the weights, lies as it is. XLA's CPU products
  run at half the speed where a big factor or the result has to be turned around; hence keys' and values' gradients are made as [H, S].
- The gradient is written out (as Dao et al. have it, arXiv 2205.14135, §3.1 and B.4, without their tiling of keys): what is kept between
  the passes is the output and a normaliser a query, and weights are made again from them.

Scores exist for `query_block` queries at one time, in either pass, so memory grows with query_block × S and not with T × S.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.kernels import kernel_attention
from jaxpolya.models.visibility import Ids, SharedPrompts, Window, visible

QUERY_BLOCK = 512
BANDS = 4  # at most: each is compiled by itself, and more save little
TAKES_A_MASK = ("cudnn",)  # of the kernels, and so shared prompts
MASKED = -1e30  # finite, so that a fully masked (padding) row gives a uniform softmax instead of NaN


def packed_attention(
    config: DecoderConfig,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array,
    window: Window = None,
    *,
    shared: SharedPrompts | None = None,
    query_block: int = QUERY_BLOCK,
) -> jax.Array:
    """Attention [B, T, N, H] in which a token sees itself and earlier tokens of its own segment.

    Args:
      config: how scores are scaled and capped.
      q_BTNH: queries, already rotated.
      k_BTKH, v_BTKH: keys and values.
      segment_ids_BT: int32; 0 marks padding, whose outputs mean nothing.
      window: of the layer.
      shared: where prompts are shared; segment 0 is a prompt's then, within its group. Splash can't compute that; the reference does.
      query_block: queries whose scores exist at one time.
    """
    ids = (segment_ids_BT, shared)
    if _by_kernel(config, q_BTNH) and (shared is None or config.attention in TAKES_A_MASK):
        return kernel_attention(config, q_BTNH, k_BTKH, v_BTKH, (ids, ids), window)
    return _attention(config, q_BTNH, k_BTKH, v_BTKH, (ids, ids), window, query_block)


def causal_attention(
    config: DecoderConfig, q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, window: Window, mesh: Mesh | None = None
) -> jax.Array:
    """Attention [B, T, N, H] of the last T of S positions: each sees itself and those before it, as far as the window goes.

    `mesh` is what the arrays lie on, where no mesh is in context.
    """
    if _by_kernel(config, q_BTNH):
        return kernel_attention(config, q_BTNH, k_BSKH, v_BSKH, None, window, mesh)
    (B, T), S = q_BTNH.shape[:2], k_BSKH.shape[1]
    ids = ((jnp.ones((B, T), jnp.int32), None), (jnp.ones((B, S), jnp.int32), None))
    return _attention(config, q_BTNH, k_BSKH, v_BSKH, ids, window, QUERY_BLOCK)


def _by_kernel(config: DecoderConfig, q_BTNH: jax.Array) -> bool:
    return config.attention != "xla" and q_BTNH.dtype != jnp.float32


def _attention(
    config: DecoderConfig,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    segments: tuple[Ids, Ids],
    window: Window,
    query_block: int,
) -> jax.Array:
    """Attention of the last T of S positions; segments are of queries and of keys."""
    (B, T, N, H), (S, K) = q_BTNH.shape, k_BSKH.shape[1:3]
    # Where a window is fixed, bands end at it; but a shared prompt lies anywhere in the row.
    fixed = window if isinstance(window, int) and segments[0][1] is None else None
    plan = _Plan(T, S, query_block, config.score_scale, config.score_cap, fixed)
    pad = plan.padded - T
    q_BKTX = jnp.pad(q_BTNH.reshape(B, T, K, N // K * H), ((0, 0), (0, pad), (0, 0), (0, 0))).swapaxes(1, 2)
    segments = (jax.tree.map(lambda ids_BT: jnp.pad(ids_BT, ((0, 0), (0, pad))), segments[0]), segments[1])
    out_BKTX = _banded(plan, q_BKTX, k_BSKH.swapaxes(1, 2), v_BSKH.swapaxes(1, 2), segments, None if fixed else window)
    return out_BKTX.swapaxes(1, 2).reshape(B, -1, N, H)[:, :T]


@dataclasses.dataclass(frozen=True)
class _Band:
    """Queries [start, stop), `block` at a time, and the keys [low, high) that any of them may see."""

    start: int
    stop: int
    block: int
    low: int
    high: int


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is static about an attention of the last T of S positions."""

    T: int
    S: int
    query_block: int
    scale: float
    cap: float | None
    window: int | None
    """Where it isn't data."""

    @property
    def padded(self) -> int:
        """Queries in whole blocks."""
        return self.bands[-1].stop

    @property
    def bands(self) -> list[_Band]:
        """In order; all are of one length."""
        count = min(BANDS, -(-self.T // max(1, self.query_block // BANDS)))
        blocks = -(-self.T // (count * self.query_block))
        block = -(-self.T // (count * blocks))
        bands, before = [], self.S - self.T
        for start in range(0, self.T, block * blocks):
            stop = start + block * blocks
            low = 0 if self.window is None else max(0, before + start - self.window + 1)
            bands.append(_Band(start, stop, block, low, min(self.S, before + stop)))
        return bands


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _banded(
    plan: _Plan,
    q_BKTX: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    segments: tuple[Ids, Ids],
    window: jax.Array | None,
) -> jax.Array:
    """Attention [B, K, T, X] of queries [B, K, T, X], X = M·H; segments are of queries [B, T] and of keys [B, S]."""
    return _forward(plan, q_BKTX, k_BKSH, v_BKSH, segments, window)[0]


def _forward(plan: _Plan, q_BKTX: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, segments: Any, window: Any) -> tuple[jax.Array, Any]:
    """(the attention, what the gradient needs)."""
    parts = []
    for band in plan.bands:
        keys, values = k_BKSH[:, :, band.low : band.high], v_BKSH[:, :, band.low : band.high]

        def block(carry: None, start: jax.Array, q: jax.Array, band: _Band = band, keys: Any = keys, values: Any = values) -> Any:
            scores, _, visible = _scores(plan, band, start, q, keys, segments, window)
            scores = jnp.where(visible, scores, MASKED)
            peak = jnp.max(scores, axis=-1, keepdims=True)
            weights = jnp.exp(scores - peak)
            total = jnp.sum(weights, axis=-1, keepdims=True)
            out = _product("bkrs,bksh->bkrh", _rows(weights).astype(values.dtype), values) / _rows(total)
            return carry, (out.astype(q.dtype).reshape(q.shape), (peak + jnp.log(total))[..., 0])

        parts.append(_over_blocks(band, block, None, q_BKTX)[1])
    out_BKTX, norm_BKTM = (jnp.concatenate(part, axis=2) for part in zip(*parts, strict=True))
    return out_BKTX, (q_BKTX, k_BKSH, v_BKSH, segments, window, out_BKTX, norm_BKTM)


def _backward(plan: _Plan, kept: Any, d_out_BKTX: jax.Array) -> tuple[Any, ...]:
    """Gradients of queries, keys and values; what is data about the mask has none."""
    q_BKTX, k_BKSH, v_BKSH, segments, window, out_BKTX, norm_BKTM = kept
    H = k_BKSH.shape[-1]
    by_head = (*norm_BKTM.shape, H)
    products_BKTM = jnp.sum((out_BKTX.astype(jnp.float32) * d_out_BKTX.astype(jnp.float32)).reshape(by_head), axis=-1)
    dk_BKHS, dv_BKHS = (jnp.zeros((*k_BKSH.shape[:2], H, plan.S), jnp.float32) for _ in range(2))
    dq = []
    for band in plan.bands:
        keys, values = k_BKSH[:, :, band.low : band.high], v_BKSH[:, :, band.low : band.high]

        def block(
            carry: Any, start: jax.Array, q: jax.Array, d_out: jax.Array, norm: jax.Array, product: jax.Array,
            band: _Band = band, keys: Any = keys, values: Any = values,
        ) -> Any:  # fmt: skip
            scores, slope, visible = _scores(plan, band, start, q, keys, segments, window)
            # No weight is above 1. Scores may be rounded otherwise than the first time; the exponential of huge ones would overflow.
            weights = jnp.where(visible, jnp.exp(jnp.minimum(scores - norm[..., None], 0.0)), 0.0)
            d_out = d_out.reshape(*d_out.shape[:2], -1, H)
            d_weights = _product("bkrh,bksh->bkrs", d_out, values).reshape(weights.shape)
            d_scores = weights * (d_weights - product[..., None]) * (slope * plan.scale)
            d_scores, weights = _rows(d_scores).astype(q.dtype), _rows(weights).astype(q.dtype)
            dq = _product("bkrs,bksh->bkrh", d_scores, keys).reshape(q.shape)
            dk = carry[0] + _product("bkrs,bkrh->bkhs", d_scores, q.reshape(d_out.shape))
            return (dk, carry[1] + _product("bkrs,bkrh->bkhs", weights, d_out)), dq.astype(q.dtype)

        here = (slice(None),) * 3 + (slice(band.low, band.high),)
        (dk, dv), dq_band = _over_blocks(band, block, (dk_BKHS[here], dv_BKHS[here]), q_BKTX, d_out_BKTX, norm_BKTM, products_BKTM)
        dk_BKHS, dv_BKHS = dk_BKHS.at[here].set(dk), dv_BKHS.at[here].set(dv)
        dq.append(dq_band)
    dk_BKSH, dv_BKSH = (d.swapaxes(2, 3).astype(like.dtype) for d, like in ((dk_BKHS, k_BKSH), (dv_BKHS, v_BKSH)))
    return jnp.concatenate(dq, axis=2), dk_BKSH, dv_BKSH, None, None


_banded.defvjp(_forward, _backward)


def _over_blocks(band: _Band, block: Callable[..., Any], carry: Any, *arrays_BKT: jax.Array) -> Any:
    """(what is carried, results [B, K, t, …]) of a function (carried, first query, arrays of a block) over the blocks of a band."""
    arrays = [array[:, :, band.start : band.stop] for array in arrays_BKT]
    if band.stop - band.start == band.block:
        return block(carry, band.start, *arrays)
    starts = jnp.arange(band.start, band.stop, band.block)
    cut = [jnp.moveaxis(array.reshape(*array.shape[:2], len(starts), band.block, -1), 2, 0) for array in arrays]
    carry, results = jax.lax.scan(lambda carry, inputs: block(carry, inputs[0], *inputs[1:]), carry, (starts, *cut))
    return carry, jax.tree.map(lambda of: jnp.moveaxis(of, 0, 2).reshape(*of.shape[1:3], -1, *of.shape[4:]), results)


def _scores(plan: _Plan, band: _Band, start: Any, q_BKtX: jax.Array, k_BKSH: jax.Array, segments: Any, window: Any) -> Any:
    """Of a block's queries, from `start` on: (scores [B, K, t, M, S], their slope by the product's, what is visible [B, 1, t, 1, S])."""
    (B, K, t, _), H = q_BKtX.shape, k_BKSH.shape[-1]
    products = _product("bkrh,bksh->bkrs", q_BKtX.reshape(B, K, -1, H), k_BKSH)
    scores = softcap(products.reshape(B, K, t, -1, k_BKSH.shape[2]) * plan.scale, plan.cap)
    slope = 1.0 if plan.cap is None else 1 - jnp.square(scores / plan.cap)
    distance_tS = plan.S - plan.T + start + jnp.arange(t)[:, None] - jnp.arange(band.low, band.high)
    queries = jax.tree.map(lambda ids_BT: jax.lax.dynamic_slice_in_dim(ids_BT, start, t, axis=1), segments[0])
    keys = jax.tree.map(lambda ids_BS: ids_BS[:, band.low : band.high], segments[1])
    seen_BtS = visible(queries, keys, distance_tS, plan.window if window is None else window)
    return scores, slope, seen_BtS[:, None, :, None]


def _rows(x_BKtMS: jax.Array) -> jax.Array:
    """[B, K, t·M, S]."""
    return x_BKtMS.reshape(*x_BKtMS.shape[:2], -1, x_BKtMS.shape[-1])


def _product(axes: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Summed in float32."""
    return jnp.einsum(axes, x, y, precision=precision_of(x), preferred_element_type=jnp.float32)


def softcap(scores: jax.Array, cap: float | None) -> jax.Array:
    """cap · tanh(scores / cap), which keeps scores within ±cap (Gemma 2, arXiv 2408.00118, §2); scores themselves without a cap."""
    return scores if cap is None else cap * jnp.tanh(scores / cap)


def precision_of(x: jax.Array) -> jax.lax.Precision:
    """Matrix products of float32 arrays are exact to float32 (TPUs would round the factors to bfloat16 by default)."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
