"""Attention of a decode step as a kernel for NVIDIA GPUs, by Pallas and Triton.

XLA's products take a dozen kernels a layer, write scores in between, and read as many slots of every row as the longest row has. Here it is
two kernels with an online softmax (Milakov and Gimelshein, arXiv 1805.02867; over blocks of keys as in Dao et al., arXiv 2205.14135), which
read keys and values as far as a row goes:

- **prefixes**: a program takes some of a lane's queries through the prompts that their rows are samples of.
- **own**: a program takes one row's M queries on from there, through its suffix and the burst's recent tokens, and divides.

Bits don't depend on placement: a row meets its blocks in one order. Blocks of which it sees nothing leave its sums as they are, or, where
it has seen nothing yet, leave what the first block that it does see wipes out: exp(`MASKED` − x) is an exact 0.

From jax 0.12 on Pallas' Triton backend is deprecated, and is to be removed. Where it is gone, the trial (`kernel_choice`) fails and XLA's
products go on. So whoever raises the bound on jax has to look at this.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jax.sharding import Mesh, PartitionSpec

from jaxpolya.decode.attention import sees_recent, sees_suffix
from jaxpolya.decode.lanes import Plan, Rows, lane_shardings
from jaxpolya.models.attention import MASKED, softcap
from jaxpolya.models.config import DecoderConfig, LayerKind

INTERPRET = False
"""Run on whatever device is there, for tests."""

BLOCK = 64  # keys at a time; with two stages four programs of 128 threads share an H100's multiprocessor (40 KB and 128 registers each)
QUERIES = 32  # of a program over prefixes, at most: a lane has more, and more programs keep more multiprocessors busy
FEWEST = 16  # queries of a tensor core's product; fewer are padded
PARAMETERS = plgpu.CompilerParams(num_warps=4, num_stages=2)

_Sums = tuple[jax.Array, jax.Array, jax.Array]
"""Of some queries so far: the largest score [Q], the weights' sum [Q], the weighted values' [Q, H]; float32, relative to the largest."""


def attention(
    plan: Plan,
    mesh: Mesh,
    kind: LayerKind,
    q_PKGMH: jax.Array,
    prefix: tuple[jax.Array, jax.Array],
    suffix: tuple[jax.Array, jax.Array],
    recent: tuple[jax.Array, jax.Array],
    rows: Rows,
    n: jax.Array,
) -> jax.Array:
    """Attention [P, G, K, M, H] of step n, in the queries' dtype: as the next product takes it.

    Args:
      plan: what is static.
      mesh: each device computes its own lanes and heads.
      kind: of the layer.
      q_PKGMH: queries, rotated, of half precision.
      prefix: keys and values [P, K, W, S_p, H].
      suffix: keys and values [P, K, G, S, H].
      recent: keys and values [P, G, K, N, H], of which the first n + 1 are written.
      rows: where each row stands.
      n: the step, int32.
    """
    lanes, heads = lane_shardings(plan, mesh).suffix[0][0].spec[:2]  # type: ignore[attr-defined]
    by_lane, by_head, by_row = PartitionSpec(lanes), PartitionSpec(lanes, heads), PartitionSpec(lanes, None, heads)
    compute = partial(_attention, plan.config, kind)
    if mesh.size > 1:
        specs = (by_head, by_head, by_head, by_row, by_lane, by_lane, by_lane, PartitionSpec())
        compute = jax.shard_map(compute, mesh=mesh, in_specs=specs, out_specs=by_row, check_vma=False)
    return compute(q_PKGMH, prefix, suffix, recent, rows.place_PG, rows.prompt_PG, rows.length_PG, n)


def _attention(
    config: DecoderConfig,
    kind: LayerKind,
    q_PKGMH: jax.Array,
    prefix: Any,
    suffix: Any,
    recent: Any,
    place_PG: jax.Array,
    prompt_PG: jax.Array,
    length_PG: jax.Array,
    n: jax.Array,
) -> jax.Array:
    P, K, G, M, H = q_PKGMH.shape
    Q = G * M  # a lane's queries, which are in one axis here
    # A window of w tokens reaches back to position − w + 1, where the row's own position is prompt + length + n.
    begin_PG = jnp.zeros_like(prompt_PG) if kind.window is None else jnp.maximum(prompt_PG + length_PG + n - kind.window + 1, 0)
    of_queries = [jnp.repeat(rows_PG, M, axis=1) for rows_PG in (place_PG, begin_PG, prompt_PG)]
    q_PKQH = q_PKGMH.reshape(P, K, Q, H)
    scores = partial(_scores, config.score_scale, config.score_cap)

    queries = min(QUERIES, max(FEWEST, pl.next_power_of_2(Q)))
    sums = pl.pallas_call(
        partial(_over_prefixes, scores, queries),
        grid=(P, K, pl.cdiv(Q, queries)),
        out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((P, K, Q), (P, K, Q), (P, K, Q, H))],
        compiler_params=PARAMETERS,
        interpret=INTERPRET,
        name="prefix_attention",
    )(q_PKQH, *prefix, *of_queries)
    out_PGNH = pl.pallas_call(
        partial(_over_own, scores, M, kind.window),
        grid=(P, K, G),
        out_shape=jax.ShapeDtypeStruct((P, G, K * M, H), q_PKGMH.dtype),
        compiler_params=PARAMETERS,
        interpret=INTERPRET,
        name="own_attention",
    )(q_PKQH, *suffix, *recent, length_PG, n.reshape(1), *sums)
    return out_PGNH.reshape(P, G, K, M, H)


def _over_prefixes(
    scores: Any, queries: int,
    q_ref: Any, k_ref: Any, v_ref: Any, place_ref: Any, begin_ref: Any, end_ref: Any,
    peak_ref: Any, total_ref: Any, sum_ref: Any,
) -> None:  # fmt: skip
    """Of so many of a lane's queries, over [begin, end) of the prefix at their row's place."""
    p, k, i = (pl.program_id(axis) for axis in range(3))
    (Q, H), (W, S) = q_ref.shape[2:], k_ref.shape[2:4]
    here, real = pl.ds(i * queries, queries), i * queries + jnp.arange(queries) < Q
    q = _load(q_ref.at[p, k, here, :], real[:, None])
    place, begin, end = (_load(ref.at[p, here], real) for ref in (place_ref, begin_ref, end_ref))
    so_far: _Sums = jnp.full(queries, MASKED), jnp.zeros(queries), jnp.zeros((queries, H))
    block = _width(S)
    for w in range(W):
        mine = (place == w) & real

        def add(j: jax.Array, so_far: _Sums, w: int = w, mine: jax.Array = mine) -> _Sums:
            keys, values = (_block(ref, (p, k, jnp.int32(w)), j, block) for ref in (k_ref, v_ref))
            at = j * block + jnp.arange(block)
            seen = mine[:, None] & (at >= begin[:, None]) & (at < end[:, None])
            return _add(so_far, scores(q, keys, seen), values)

        first, last = jnp.min(jnp.where(mine, begin, S)) // block, pl.cdiv(jnp.max(jnp.where(mine, end, 0)), block)
        so_far = jax.lax.fori_loop(first, last, add, so_far)
    peak, total, weighted = so_far
    plgpu.store(peak_ref.at[p, k, here], peak, mask=real)
    plgpu.store(total_ref.at[p, k, here], total, mask=real)
    plgpu.store(sum_ref.at[p, k, here, :], weighted, mask=real[:, None])


def _over_own(
    scores: Any, M: int, window: int | None,
    q_ref: Any, k_ref: Any, v_ref: Any, recent_k_ref: Any, recent_v_ref: Any, length_ref: Any, n_ref: Any,
    peak_ref: Any, total_ref: Any, sum_ref: Any, out_ref: Any,
) -> None:  # fmt: skip
    """Of one row, from the sums over its prefix on: its suffix, which is a ring where there is a window, and the recent tokens."""
    p, k, g = (pl.program_id(axis) for axis in range(3))
    S, N = k_ref.shape[3], recent_k_ref.shape[3]
    queries = max(FEWEST, pl.next_power_of_2(M))
    here, real = pl.ds(g * M, queries), jnp.arange(queries) < M
    q = _load(q_ref.at[p, k, here, :], real[:, None])
    length, n = length_ref[p, g], n_ref[0]
    block, block_of_recent = _width(S), _width(N)

    def add_suffix(j: jax.Array, so_far: _Sums) -> _Sums:
        keys, values = (_block(ref, (p, k, g), j, block) for ref in (k_ref, v_ref))
        at = j * block + jnp.arange(block)
        seen = (at < S) & sees_suffix(at, S, window, length, n)
        return _add(so_far, scores(q, keys, seen[None]), values)

    def add_recent(j: jax.Array, so_far: _Sums) -> _Sums:
        keys, values = (_block(ref, (p, g, k), j, block_of_recent) for ref in (recent_k_ref, recent_v_ref))
        at = j * block_of_recent + jnp.arange(block_of_recent)
        return _add(so_far, scores(q, keys, sees_recent(at, window, n)[None]), values)

    so_far: _Sums = (
        _load(peak_ref.at[p, k, here], real),
        _load(total_ref.at[p, k, here], real),
        _load(sum_ref.at[p, k, here, :], real[:, None]),
    )
    so_far = jax.lax.fori_loop(0, pl.cdiv(jnp.minimum(length, S), block), add_suffix, so_far)
    _, total, weighted = jax.lax.fori_loop(0, pl.cdiv(n + 1, block_of_recent), add_recent, so_far)
    out = (weighted / total[:, None]).astype(out_ref.dtype)
    plgpu.store(out_ref.at[p, g, pl.ds(k * M, queries), :], out, mask=real[:, None])


def _width(slots: int) -> int:
    """Of a block of a cache: a power of two."""
    return min(BLOCK, max(FEWEST, pl.next_power_of_2(slots)))


def _block(ref: Any, cache: tuple[Any, ...], j: Any, block: int) -> jax.Array:
    """Block j of one of the caches [S, H] that a reference is to; zeros beyond its end."""
    slots, at = ref.shape[-2], (*cache, pl.ds(j * block, block), slice(None))
    return ref[at] if slots % block == 0 else _load(ref.at[at], (j * block + jnp.arange(block) < slots)[:, None])


def _load(ref: Any, real: jax.Array) -> jax.Array:
    """Zeros where there is nothing real."""
    return plgpu.load(ref, mask=real, other=0)


def _scores(scale: float, cap: float | None, q_QH: jax.Array, keys_SH: jax.Array, seen_QS: jax.Array) -> jax.Array:
    return jnp.where(seen_QS, softcap(_product("qh,sh->qs", q_QH, keys_SH) * scale, cap), MASKED)


def _add(so_far: _Sums, scores_QS: jax.Array, values_SH: jax.Array) -> _Sums:
    """The sums with some more keys in them."""
    before, total, weighted = so_far
    peak = jnp.maximum(before, jnp.max(scores_QS, axis=-1))
    weights, kept = jnp.exp(scores_QS - peak[:, None]), jnp.exp(before - peak)
    weighted = weighted * kept[:, None] + _product("qs,sh->qh", weights.astype(values_SH.dtype), values_SH)
    return peak, total * kept + jnp.sum(weights, axis=-1), weighted


def _product(axes: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Summed in float32."""
    return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32)
