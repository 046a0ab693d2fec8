"""A burst: N steps of every row, without the host.

Rows that end early go on and are ignored: looking at every step would cost a synchronisation each. Layers are unrolled, because a scan
would copy each layer's cache in and out of the loop.

Attention (`decode.attention`) is over the lane's prefixes, the row's suffix up to where the burst began, and the **recent** tokens of the
burst itself. All rows write the same slot of the recent part in the same step, so nothing is scattered within the loop, and the
suffix is only read there, in the layout that the products want: a scatter wants another, and XLA would copy the whole cache between the
two in every step. The recent tokens are flushed into the suffix once a burst. A row begins with a burst, so its length is a multiple of
N then.
"""

import functools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from jaxpolya.decode.attention import KeysValues, Read, Seen, attend, reads, turned, visible
from jaxpolya.decode.lanes import Cache, Lanes, Plan, Rows, decode_shardings, lane_shardings, turns_keys
from jaxpolya.decode.sampling import sample, token_keys
from jaxpolya.models.config import LayerKind
from jaxpolya.models.decoder import Params, block_def, embed, head_table, rms_norm
from jaxpolya.models.heads import logits
from jaxpolya.models.rope import rope_tables
from jaxpolya.parallel.sharding import replicated


@functools.cache
def make_burst(plan: Plan, mesh: Mesh, live: int) -> Any:
    """A program (params, lanes, rows, key, temperature, top_p) → (lanes, tokens [P, G, N], log-probs [P, G, N]).

    `live` suffix slots are read, unless a kernel sees for itself how far rows go: no row may hold more after the burst. Lanes are donated;
    tokens and log-probs come out whole on every host. One compilation per `live`.
    """
    shardings, whole = lane_shardings(plan, mesh), replicated(mesh)
    cache_sharding: Any = shardings.suffix[0][0]
    platform = mesh.devices.flat[0].platform
    # Left to the partitioner, a scatter would gather every row's keys and values on every device.
    flush = jax.shard_map(
        partial(_flush, platform=platform),
        mesh=mesh,
        in_specs=(cache_sharding.spec, cache_sharding.spec, PartitionSpec(cache_sharding.spec[0])),
        out_specs=cache_sharding.spec,
    )

    def burst(
        params: Params, lanes: Lanes, rows: Rows, key: jax.Array, temperature: jax.Array, top_p: jax.Array
    ) -> tuple[Lanes, jax.Array, jax.Array]:
        once = reads(plan, lanes, live, platform) if platform == "cpu" else None

        def step(n: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            recent, last_PG, tokens_PGN, logps_PGN = carry
            read = once or reads(plan, lanes, live, platform)
            hidden_BD, recent = _advance(plan, mesh, live, params, read, recent, last_PG, rows, n)
            with jax.named_scope("sample"):
                keys_B = token_keys(key, rows.sequence_PG.reshape(-1), (rows.length_PG + n).reshape(-1))
                logits_BV = logits(plan.config, hidden_BD, head_table(params))
                tokens_B, logps_B = sample(logits_BV, keys_B, temperature, top_p, plan.draw)
            last_PG, logps_PG = tokens_B.reshape(last_PG.shape), logps_B.reshape(last_PG.shape)
            return recent, last_PG, tokens_PGN.at[:, :, n].set(last_PG), logps_PGN.at[:, :, n].set(logps_PG)

        nothing = jax.lax.with_sharding_constraint(jnp.zeros(plan.cache_shape(plan.burst), plan.dtype), cache_sharding)
        out = (jnp.zeros((*last.shape, plan.burst), dtype) for last, dtype in ((lanes.last_PG, jnp.int32), (lanes.last_PG, jnp.float32)))
        last_PG = jnp.where(rows.length_PG == 0, rows.first_PG, lanes.last_PG)
        carry = ([(turned(plan, nothing),) * 2] * plan.config.layers, last_PG, *out)
        recent, last_PG, tokens_PGN, logps_PGN = jax.lax.fori_loop(0, plan.burst, step, carry)
        suffix = flush(lanes.suffix, [(turned(plan, keys), turned(plan, values)) for keys, values in recent], rows.length_PG)
        return Lanes(prefix=lanes.prefix, suffix=suffix, last_PG=last_PG), tokens_PGN, logps_PGN

    return jax.jit(
        burst,
        donate_argnums=1,
        in_shardings=(decode_shardings(plan.config, mesh), shardings, whole, whole, whole, whole),
        out_shardings=(shardings, whole, whole),
    )


def _advance(
    plan: Plan,
    mesh: Mesh,
    live: int,
    params: Params,
    read: list[Read],
    recent: list[KeysValues],
    last_PG: jax.Array,
    rows: Rows,
    n: jax.Array,
) -> tuple[jax.Array, list[KeysValues]]:
    """Step n: one forward pass of each row's last token, to (final hidden states [B, D], the recent keys and values with its own)."""
    config = plan.config
    positions_B1 = (rows.prompt_PG + rows.length_PG + n).reshape(-1, 1)
    tables = rope_tables(config, positions_B1)
    seen = [visible(plan, kind, live, rows, n) for kind in config.kinds]
    x_B1D = embed(params, config, last_PG.reshape(-1, 1), plan.dtype)
    written: list[Any] = []
    layers = zip(params["blocks"], config.kind_of_layer, read, recent, strict=True)
    for layer_params, kind, read_by_layer, recent_of_layer in layers:
        step = _Step(n, rows, read_by_layer, recent_of_layer, seen[kind])
        x_B1D, new = _layer(plan, mesh, config.kinds[kind], layer_params, x_B1D, tables[kind], step)
        written.append(new)
    return rms_norm(x_B1D[:, 0], params["final_norm"], config), written


class _Step(NamedTuple):
    """What a layer's attention has to go by in a step."""

    n: jax.Array
    rows: Rows
    read: Read
    recent: KeysValues
    """As `turned` has them."""
    seen: Seen


@partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _layer(
    plan: Plan, mesh: Mesh, kind: LayerKind, params: Params, x_B1D: jax.Array, rope: tuple[jax.Array, jax.Array], step: _Step
) -> tuple[jax.Array, Any]:
    """A layer of a step. Within the burst's program jit only has layers that are alike traced once. It is inlined, since a v5e's compiler
    gives calls a slower schedule (by 2 %, modelled)."""
    P, G, K, H = plan.lanes, plan.rows, plan.config.kv_heads, plan.config.head_width

    def write(recent: jax.Array, new_B1KH: jax.Array) -> jax.Array:
        new = turned(plan, new_B1KH.reshape(P, G, K, 1, H).swapaxes(1, 2)).astype(recent.dtype)
        return jax.lax.dynamic_update_slice_in_dim(recent, new, step.n, axis=3)

    def attention(q_B1NH: jax.Array, k_B1KH: jax.Array, v_B1KH: jax.Array) -> tuple[jax.Array, KeysValues]:
        """(output [B, 1, N, H], the recent keys and values with each row's own)."""
        recent = write(step.recent[0], k_B1KH), write(step.recent[1], v_B1KH)
        q_PKGMH = jnp.moveaxis(q_B1NH.reshape(P, G, K, -1, H), 2, 1)
        out_PGKMH = attend(plan, mesh, kind, q_PKGMH, step.read, recent, step.rows, step.n, step.seen)
        return out_PGKMH.reshape(q_B1NH.shape), recent

    return nnx.merge(block_def(plan.config), params)(x_B1D, rope, attention)


def _flush(suffix: Cache, recent: Cache, length_PG: jax.Array, platform: str) -> Cache:
    """The suffix caches with a burst's tokens at each row's own place, which is a whole block of N slots.

    On a TPU a scatter takes thousands of cycles a row, and a select passes over the whole cache; so a loop over rows writes one block of
    every layer (modelled for v5e, 32 rows of 512 slots on a chip: 3.5 instead of 8.2 M cycles a burst). Other platforms scatter.
    """
    (P, G), N = length_PG.shape, recent[0][0].shape[3]

    def places(blocks: int) -> jax.Array:
        """Each row's block, [P, G]."""
        return length_PG // N % blocks  # a ring begins anew

    def in_blocks(cache: jax.Array) -> jax.Array:
        """[P, K, G, S / N, N, H]."""
        return cache.reshape(*cache.shape[:3], -1, N, cache.shape[-1])

    def write_row(i: jax.Array, caches: Cache) -> Cache:
        p, g = i // G, i % G

        def write(blocks: jax.Array, new_PKGNH: jax.Array) -> jax.Array:
            _, K, _, _, H = new_PKGNH.shape
            new = jax.lax.dynamic_slice(new_PKGNH, (p, 0, g, 0, 0), (1, K, 1, N, H))
            return jax.lax.dynamic_update_slice(blocks, new[:, :, :, None], (p, 0, g, places(blocks.shape[3])[p, g], 0, 0))

        return jax.tree.map(write, caches, recent)

    def scatter(cache: jax.Array, new_PKGNH: jax.Array, turned: bool = False) -> jax.Array:
        new_PGKNH = jnp.moveaxis(new_PKGNH, 1, 2)
        rows = jnp.arange(P)[:, None], slice(None), jnp.arange(G)
        if turned:
            blocks = cache.reshape(*cache.shape[:4], -1, N)  # [P, K, G, H, S / N, N]
            blocks = blocks.at[*rows, :, places(blocks.shape[4])].set(new_PGKNH.swapaxes(-1, -2))
        else:
            blocks = in_blocks(cache)
            blocks = blocks.at[*rows, places(blocks.shape[3])].set(new_PGKNH)
        return blocks.reshape(cache.shape)

    if platform == "tpu":
        caches = jax.lax.fori_loop(0, P * G, write_row, jax.tree.map(in_blocks, suffix))
        return jax.tree.map(lambda blocks, cache: blocks.reshape(cache.shape), caches, suffix)
    return [
        (scatter(keys, new_keys, turns_keys(platform)), scatter(values, new_values))
        for (keys, values), (new_keys, new_values) in zip(suffix, recent, strict=True)
    ]
