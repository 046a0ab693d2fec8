"""A burst: N steps of every row, without the host.

Rows that end early go on and are ignored: looking at every step would cost a synchronisation each. Layers are unrolled, because a scan
would copy each layer's cache in and out of the loop.

Attention is one softmax over the lane's prefix and the row's suffix. The suffix is summed in blocks of fixed size, oldest first, so that
blocks beyond a row's end add exact zeros, whoever its neighbours are. Writes are local to a device (`shard_map`): left to the
partitioner, each layer would gather every row's keys and values on every device at every step.
"""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from jaxpolya.decode.lanes import Lanes, Plan, Rows, decode_shardings, lane_shardings
from jaxpolya.decode.sampling import sample, token_keys
from jaxpolya.models.attention import MASKED, capped, precision_of
from jaxpolya.models.config import LayerKind
from jaxpolya.models.decoder import Params, block_def, embed, head_table, rms_norm
from jaxpolya.models.heads import logits
from jaxpolya.models.rope import rope_tables
from jaxpolya.parallel.sharding import replicated

SUFFIX_BLOCK = 256

KeysValues = tuple[jax.Array, jax.Array]
"""Of one layer."""
Write = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(suffix cache, new [P, G, K, H], slot [P, G]) → the cache with each row's slot written."""


@functools.cache
def make_burst(plan: Plan, mesh: Mesh, live: int) -> Any:
    """A program (params, lanes, rows, seed, temperature, top_p) → (lanes, tokens [P, G, N], log-probs [P, G, N]).

    `live` suffix slots are read: no row may hold more after the burst. Lanes are donated; tokens and log-probs come out
    whole on every host. One compilation per `live`.
    """
    shardings, whole = lane_shardings(plan, mesh), replicated(mesh)
    write = _row_writer(plan, mesh, shardings.suffix[0][0].spec)  # type: ignore[attr-defined]

    def burst(
        params: Params, lanes: Lanes, rows: Rows, seed: jax.Array, temperature: jax.Array, top_p: jax.Array
    ) -> tuple[Lanes, jax.Array, jax.Array]:
        def step(n: jax.Array, carry: tuple[Lanes, jax.Array, jax.Array]) -> tuple[Lanes, jax.Array, jax.Array]:
            lanes, tokens_PGN, logps_PGN = carry
            slot_PG = rows.length_PG + n
            hidden_BD, suffix = _advance(plan, live, write, params, lanes, rows.prompt_P, slot_PG)
            with jax.named_scope("sample"):
                keys_B = token_keys(seed, rows.sequence_PG.reshape(-1), slot_PG.reshape(-1))
                logits_BV = logits(plan.config, hidden_BD, head_table(params))
                tokens_B, logps_B = sample(logits_BV, keys_B, temperature, top_p, plan.draw)
            last_PG, logps_PG = tokens_B.reshape(slot_PG.shape), logps_B.reshape(slot_PG.shape)
            lanes = Lanes(prefix=lanes.prefix, suffix=suffix, last_PG=last_PG)
            return lanes, tokens_PGN.at[:, :, n].set(last_PG), logps_PGN.at[:, :, n].set(logps_PG)

        shape = (plan.lanes, plan.samples, plan.burst)
        return jax.lax.fori_loop(0, plan.burst, step, (lanes, jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)))

    return jax.jit(
        burst,
        donate_argnums=1,
        in_shardings=(decode_shardings(plan.config, mesh), shardings, whole, whole, whole, whole),
        out_shardings=(shardings, whole, whole),
    )


def _advance(
    plan: Plan, live: int, write: Write, params: Params, lanes: Lanes, prompt_P: jax.Array, slot_PG: jax.Array
) -> tuple[jax.Array, list[KeysValues]]:
    """One forward pass of each row's last token, which takes `slot_PG`: (final hidden states [B, D], the suffix caches with it)."""
    config, graphdef = plan.config, block_def(plan.config)
    positions_B1 = (prompt_P[:, None] + slot_PG).reshape(-1, 1)
    tables = rope_tables(config, positions_B1)
    seen = [_visible(plan, kind, live, prompt_P, slot_PG) for kind in config.kinds]
    x_B1D = embed(params, config, lanes.last_PG.reshape(-1, 1), plan.dtype)
    suffix: list[Any] = []
    for layer_params, kind, prefix_kv, suffix_kv in zip(params["blocks"], config.kind_of_layer, lanes.prefix, lanes.suffix, strict=True):
        ring = config.kinds[kind].window is not None
        to_PG = slot_PG % plan.suffix_slots(config.kinds[kind]) if ring else slot_PG
        attend = _Attend(plan, write, prefix_kv, suffix_kv, *seen[kind], to_PG)
        x_B1D, written = nnx.merge(graphdef, layer_params)(x_B1D, tables[kind], attend)
        suffix.append(written)
    return rms_norm(x_B1D[:, 0], params["final_norm"], config), suffix


@dataclasses.dataclass(frozen=True, eq=False)
class _Attend:
    """A layer's attention in a step: writes each row's key and value, and gives (output [B, 1, N, H], the suffix with them)."""

    plan: Plan
    write: Write
    prefix_kv: KeysValues
    suffix_kv: KeysValues
    in_prefix: jax.Array
    in_suffix: jax.Array
    to_PG: jax.Array

    def __call__(self, q_B1NH: jax.Array, k_B1KH: jax.Array, v_B1KH: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        P, G = self.to_PG.shape
        _, _, N, H = q_B1NH.shape
        K = k_B1KH.shape[2]
        new = (k_B1KH.reshape(P, G, K, H), v_B1KH.reshape(P, G, K, H))
        written = tuple(self.write(cache, of_row, self.to_PG) for cache, of_row in zip(self.suffix_kv, new, strict=True))
        q_PKGMH = jnp.moveaxis(q_B1NH.reshape(P, G, K, N // K, H), 1, 2)
        out_PKGMH = _two_part_attention(self.plan, q_PKGMH, self.prefix_kv, written, self.in_prefix, self.in_suffix)
        return jnp.moveaxis(out_PKGMH, 2, 1).reshape(P * G, 1, N, H), written


def _visible(plan: Plan, kind: LayerKind, live: int, prompt_P: jax.Array, slot_PG: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What a row that writes slot `slot_PG` sees of the prefix [P, 1, 1 or G, 1, S_p] and of the suffix [P, 1, G, 1, live]."""
    place_S = jnp.arange(plan.prefix)
    in_prefix_PGS = (place_S < prompt_P[:, None])[:, None]
    live = min(live, plan.suffix_slots(kind))
    age_PGS = slot_PG[:, :, None] - jnp.arange(live)
    if kind.window is not None:
        in_prefix_PGS &= (prompt_P[:, None] + slot_PG)[:, :, None] - place_S < kind.window
        age_PGS %= plan.suffix_slots(kind)
    in_suffix_PGS = (age_PGS >= 0) & (age_PGS <= slot_PG[:, :, None])
    return in_prefix_PGS[:, None, :, None], in_suffix_PGS[:, None, :, None]


def _row_writer(plan: Plan, mesh: Mesh, suffix_spec: PartitionSpec) -> Write:
    """Writes rows on their own devices."""
    data, heads = suffix_spec[plan.layout.index("p")], suffix_spec[plan.layout.index("k")]

    @partial(jax.shard_map, mesh=mesh, in_specs=(suffix_spec, PartitionSpec(data, None, heads), PartitionSpec(data)), out_specs=suffix_spec)
    def write(cache: jax.Array, new_PGKH: jax.Array, slot_PG: jax.Array) -> jax.Array:
        lane, row = jnp.arange(slot_PG.shape[0])[:, None], jnp.arange(slot_PG.shape[1])
        at = (lane, slice(None), row, slot_PG) if plan.layout == "pkgsh" else (lane, row, slot_PG)
        return cache.at[at].set(new_PGKH.astype(cache.dtype), mode="drop")

    return write


def _two_part_attention(
    plan: Plan,
    q_PKGMH: jax.Array,
    prefix_kv: tuple[jax.Array, jax.Array],
    suffix_kv: tuple[jax.Array, ...],
    in_prefix: jax.Array,
    in_suffix: jax.Array,
) -> jax.Array:
    """One softmax over the lane's prefix and the row's suffix: [P, K, G, M, H]. Scores and sums are float32.

    `in_prefix` and `in_suffix` are of `_visible`; the suffix is summed block by block (see the module).
    """
    precision, layout, config = precision_of(q_PKGMH), plan.layout, plan.config
    (prefix_k, prefix_v), (suffix_k, suffix_v) = prefix_kv, suffix_kv
    live = in_suffix.shape[-1]
    cuts = [(start, min(start + SUFFIX_BLOCK, live)) for start in range(0, live, SUFFIX_BLOCK)]

    def scores(equation: str, keys: jax.Array, mask: jax.Array) -> jax.Array:
        out = jnp.einsum(equation, q_PKGMH, keys, precision=precision, preferred_element_type=jnp.float32)
        return jnp.where(mask, capped(out * config.score_scale, config.score_cap), MASKED)

    parts = [(scores("pkgmh,pksh->pkgms", prefix_k, in_prefix), "pkgms,pksh->pkgmh", prefix_v)]
    for start, end in cuts:
        keys, values = (jax.lax.slice_in_dim(cache, start, end, axis=layout.index("s")) for cache in (suffix_k, suffix_v))
        parts.append((scores(f"pkgmh,{layout}->pkgms", keys, in_suffix[..., start:end]), f"pkgms,{layout}->pkgmh", values))
    peak = functools.reduce(jnp.maximum, [jnp.max(part, axis=-1, keepdims=True) for part, _, _ in parts])
    total, out = jnp.zeros_like(peak), jnp.zeros(q_PKGMH.shape, jnp.float32)
    for part, equation, values in parts:
        weights = jnp.exp(part - peak)
        total += jnp.sum(weights, axis=-1, keepdims=True)
        out += jnp.einsum(equation, weights.astype(values.dtype), values, precision=precision, preferred_element_type=jnp.float32)
    return (out / total).astype(q_PKGMH.dtype)
