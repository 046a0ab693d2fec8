"""A burst: N steps of every row, without the host.

Rows that end early go on and are ignored: looking at every step would cost a synchronisation each. Layers are unrolled, because a scan
would copy each layer's cache in and out of the loop.

Attention is one softmax over three parts: the lane's prefixes, the row's suffix up to where the burst began, and the **recent** tokens of
the burst itself. All rows write the same slot of the recent part in the same step, so nothing is scattered within the loop, and the
suffix is only read there, in the layout that the products want: a scatter wants another, and XLA would copy the whole cache between the
two in every step. The recent tokens are flushed into the suffix once a burst. A row begins with a burst, so its length is a multiple of
N then.

The suffix is summed in blocks of fixed size, oldest first, so that blocks beyond a row's end add exact zeros, whoever its neighbours are.
"""

import dataclasses
import functools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from jaxpolya.decode.lanes import Cache, Lanes, Plan, Rows, decode_shardings, lane_shardings, turns_keys
from jaxpolya.decode.sampling import sample, token_keys
from jaxpolya.models.attention import MASKED, precision_of, softcap
from jaxpolya.models.config import LayerKind
from jaxpolya.models.decoder import Params, block_def, embed, head_table, rms_norm
from jaxpolya.models.heads import logits
from jaxpolya.models.rope import rope_tables
from jaxpolya.parallel.sharding import replicated

SUFFIX_BLOCK = 256

KeysValues = tuple[jax.Array, jax.Array]
"""Of one layer."""
_Part = tuple[jax.Array, jax.Array, jax.Array]
"""Keys [..., H, S], values [..., S, H], and which of them are visible."""


class _Read(NamedTuple):
    """What a layer's products read in all steps of a burst: keys [..., H, S], values [..., S, H]."""

    prefix: KeysValues
    suffix: list[KeysValues]
    """Its live slots, in blocks."""


@functools.cache
def make_burst(plan: Plan, mesh: Mesh, live: int) -> Any:
    """A program (params, lanes, rows, key, temperature, top_p) → (lanes, tokens [P, G, N], log-probs [P, G, N]).

    `live` suffix slots are read: no row may hold more after the burst. Lanes are donated; tokens and log-probs come out whole on
    every host. One compilation per `live`.
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
        once = _read(lanes, live, platform) if platform == "cpu" else None

        def step(n: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            recent, last_PG, tokens_PGN, logps_PGN = carry
            hidden_BD, recent = _advance(plan, live, params, once or _read(lanes, live, platform), recent, last_PG, rows, n)
            with jax.named_scope("sample"):
                keys_B = token_keys(key, rows.sequence_PG.reshape(-1), (rows.length_PG + n).reshape(-1))
                logits_BV = logits(plan.config, hidden_BD, head_table(params))
                tokens_B, logps_B = sample(logits_BV, keys_B, temperature, top_p, plan.draw)
            last_PG, logps_PG = tokens_B.reshape(last_PG.shape), logps_B.reshape(last_PG.shape)
            return recent, last_PG, tokens_PGN.at[:, :, n].set(last_PG), logps_PGN.at[:, :, n].set(logps_PG)

        nothing = jax.lax.with_sharding_constraint(jnp.zeros(plan.cache_shape(plan.burst), plan.dtype), cache_sharding)
        out = (jnp.zeros((*last.shape, plan.burst), dtype) for last, dtype in ((lanes.last_PG, jnp.int32), (lanes.last_PG, jnp.float32)))
        last_PG = jnp.where(rows.length_PG == 0, rows.first_PG, lanes.last_PG)
        carry = ([(nothing, nothing)] * plan.config.layers, last_PG, *out)
        recent, last_PG, tokens_PGN, logps_PGN = jax.lax.fori_loop(0, plan.burst, step, carry)
        suffix = flush(lanes.suffix, recent, rows.length_PG)
        return Lanes(prefix=lanes.prefix, suffix=suffix, last_PG=last_PG), tokens_PGN, logps_PGN

    return jax.jit(
        burst,
        donate_argnums=1,
        in_shardings=(decode_shardings(plan.config, mesh), shardings, whole, whole, whole, whole),
        out_shardings=(shardings, whole, whole),
    )


def _read(lanes: Lanes, live: int, platform: str) -> list[_Read]:
    """What each layer's products read.

    Where a suffix has more than one block, a CPU copies the live ones, so it reads once a burst. On accelerators slices and transposes are
    parts of the products, so they read within the step.
    """

    def part(cache: KeysValues, start: int = 0, end: int | None = None) -> KeysValues:
        keys, values = cache
        keys = keys[..., start:end] if turns_keys(platform) else keys[..., start:end, :].swapaxes(-1, -2)
        return keys, values[..., start:end, :]

    def blocks(cache: KeysValues) -> list[KeysValues]:
        slots = min(live, cache[1].shape[-2])
        return [part(cache, start, min(start + SUFFIX_BLOCK, slots)) for start in range(0, slots, SUFFIX_BLOCK)]

    return [_Read(part(prefix), blocks(suffix)) for prefix, suffix in zip(lanes.prefix, lanes.suffix, strict=True)]


def _advance(
    plan: Plan,
    live: int,
    params: Params,
    read: list[_Read],
    recent: list[KeysValues],
    last_PG: jax.Array,
    rows: Rows,
    n: jax.Array,
) -> tuple[jax.Array, list[KeysValues]]:
    """Step n: one forward pass of each row's last token, to (final hidden states [B, D], the recent keys and values with its own)."""
    config = plan.config
    positions_B1 = (rows.prompt_PG + rows.length_PG + n).reshape(-1, 1)
    tables = rope_tables(config, positions_B1)
    seen = [_visible(plan, kind, live, rows, n) for kind in config.kinds]
    x_B1D = embed(params, config, last_PG.reshape(-1, 1), plan.dtype)
    written: list[Any] = []
    layers = zip(params["blocks"], config.kind_of_layer, read, recent, strict=True)
    for layer_params, kind, read_by_layer, recent_of_layer in layers:
        x_B1D, new = _layer(plan, layer_params, x_B1D, tables[kind], n, read_by_layer, recent_of_layer, seen[kind])
        written.append(new)
    return rms_norm(x_B1D[:, 0], params["final_norm"], config), written


@partial(jax.jit, static_argnums=0, inline=True)
def _layer(
    plan: Plan,
    params: Params,
    x_B1D: jax.Array,
    rope: tuple[jax.Array, jax.Array],
    n: jax.Array,
    read: _Read,
    recent: KeysValues,
    seen: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, Any]:
    """A layer of step n. Within the burst's program jit only has layers that are alike traced once. It is inlined, since a v5e's compiler
    gives calls a slower schedule (by 2 %, modelled)."""
    return nnx.merge(block_def(plan.config), params)(x_B1D, rope, _Attend(plan, n, read, recent, seen))


@dataclasses.dataclass(frozen=True, eq=False)
class _Attend:
    """A layer's attention in step n: (output [B, 1, N, H], the recent keys and values with each row's own)."""

    plan: Plan
    n: jax.Array
    read: _Read
    recent: KeysValues
    """Both [P, K, G, N, H]."""
    seen: tuple[jax.Array, jax.Array, jax.Array]
    """Of prefixes, suffix and recent tokens, by `_visible`."""

    def __call__(self, q_B1NH: jax.Array, k_B1KH: jax.Array, v_B1KH: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        P, K, G, _, H = self.recent[0].shape
        heads = q_B1NH.shape[2]

        def write(cache_PKGNH: jax.Array, new_B1KH: jax.Array) -> jax.Array:
            new_PKGH = jnp.moveaxis(new_B1KH.reshape(P, G, K, H), 2, 1).astype(cache_PKGNH.dtype)
            return jax.lax.dynamic_update_index_in_dim(cache_PKGNH, new_PKGH, self.n, axis=3)

        recent = write(self.recent[0], k_B1KH), write(self.recent[1], v_B1KH)
        q_PKGMH = jnp.moveaxis(q_B1NH.reshape(P, G, K, heads // K, H), 2, 1)
        in_prefix, in_suffix, in_recent = self.seen
        own = [(*block, in_suffix[..., i * SUFFIX_BLOCK :][..., :SUFFIX_BLOCK]) for i, block in enumerate(self.read.suffix)]
        own.append((recent[0].swapaxes(-1, -2), recent[1], in_recent))
        out_PKGMH = _attention(self.plan, q_PKGMH, (*self.read.prefix, in_prefix), own)
        return jnp.moveaxis(out_PKGMH, 1, 2).reshape(P * G, 1, heads, H), recent


def _visible(plan: Plan, kind: LayerKind, live: int, rows: Rows, n: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a row sees in step n: of prefixes [P, 1, W, G, 1, S_p], of the suffix [P, 1, G, 1, live], of the recent tokens [N]."""
    slots, length_PG1, prompt_PG1 = plan.suffix_slots(kind), rows.length_PG[:, :, None], rows.prompt_PG[:, :, None]
    in_prefix_PGS = jnp.arange(plan.prefix) < prompt_PG1
    back_PGS = length_PG1 - jnp.arange(min(live, slots))  # how many tokens before the burst a slot was written
    recent_N = jnp.arange(plan.burst)
    in_recent_N = recent_N <= n
    if kind.window is None:
        in_suffix_PGS = back_PGS > 0
    else:
        back_PGS = (back_PGS - 1) % slots + 1
        in_suffix_PGS = (back_PGS <= length_PG1) & (back_PGS + n < kind.window)
        in_prefix_PGS &= prompt_PG1 + length_PG1 + n - jnp.arange(plan.prefix) < kind.window
        in_recent_N &= n - recent_N < kind.window
    own_PWG = jnp.arange(plan.prompts)[:, None] == rows.place_PG[:, None, :]
    in_prefix_PWGS = own_PWG[..., None] & in_prefix_PGS[:, None]
    return in_prefix_PWGS[:, None, :, :, None], in_suffix_PGS[:, None, :, None], in_recent_N


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


def _attention(plan: Plan, q_PKGMH: jax.Array, prefix: _Part, own: list[_Part]) -> jax.Array:
    """One softmax over the lane's prefixes and what is a row's own: [P, K, G, M, H]. Scores and sums are float32.

    What is a row's own is summed part by part (see the module), and so are the prefixes: those of a lane's other prompts add exact zeros,
    whichever of them is the row's.
    """
    precision, config = precision_of(q_PKGMH), plan.config

    def scores(q: jax.Array, keys: jax.Array, axes: str, mask: jax.Array) -> jax.Array:
        out = jnp.einsum(axes, q, keys, precision=precision, preferred_element_type=jnp.float32)
        return jnp.where(mask, softcap(out * config.score_scale, config.score_cap), MASKED)

    def weighted(axes: str, weights: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.einsum(axes, weights.astype(values.dtype), values, precision=precision, preferred_element_type=jnp.float32)

    # A GPU's compiler would make one product of all that share their queries, and copy all keys side by side for it in every step (a third
    # of a step's bytes); hence the barrier, which gives each part queries of its own.
    # The prefixes are a batch of products: one of [G, W·S_p] might sum a prompt in another order, depending on its place.
    q_PKWGMH = jnp.broadcast_to(q_PKGMH[:, :, None], (*q_PKGMH.shape[:2], plan.prompts, *q_PKGMH.shape[2:]))
    keys, prefix_values, visible = prefix
    prefix_PKWGMS = scores(q_PKWGMH, keys, "pkwgmh,pkwhs->pkwgms", visible)
    queries = jax.lax.platform_dependent((q_PKGMH,) * len(own), cuda=jax.lax.optimization_barrier, default=lambda queries: queries)
    parts = [
        (scores(q_PKGMH, keys, "pkgmh,pkghs->pkgms", visible), values)
        for q_PKGMH, (keys, values, visible) in zip(queries, own, strict=True)
    ]

    peaks = [jnp.max(prefix_PKWGMS, axis=(2, -1))[..., None], *(jnp.max(part, axis=-1, keepdims=True) for part, _ in parts)]
    peak_PKGM1 = functools.reduce(jnp.maximum, peaks)
    weights = jnp.exp(prefix_PKWGMS - peak_PKGM1[:, :, None])
    total = jnp.sum(jnp.sum(weights, axis=-1, keepdims=True), axis=2)
    out = jnp.sum(weighted("pkwgms,pkwsh->pkwgmh", weights, prefix_values), axis=2)
    for part, values in parts:
        weights = jnp.exp(part - peak_PKGM1)
        total += jnp.sum(weights, axis=-1, keepdims=True)
        out += weighted("pkgms,pkgsh->pkgmh", weights, values)
    return (out / total).astype(q_PKGMH.dtype)
