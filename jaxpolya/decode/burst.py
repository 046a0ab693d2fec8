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
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from jaxpolya.decode.lanes import Cache, Lanes, Plan, Rows, decode_shardings, lane_shardings
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
        read = _read(lanes, live)

        def step(n: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            recent, last_PG, tokens_PGN, logps_PGN = carry
            caches = read if platform == "cpu" else _read(lanes, live)
            hidden_BD, recent = _advance(plan, live, params, caches, recent, last_PG, rows, n)
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


def _read(lanes: Lanes, live: int) -> tuple[Cache, Cache]:
    """(prefixes, the suffixes' live slots) as a step's products read them: keys [..., H, S], values [..., S, H].

    XLA's CPU products want keys turned around, which takes longer than the products; so that is done once a burst there. Accelerators'
    products take keys as they lie: within a step it is no work.
    """

    def turned(cache: Cache, slots: int | None = None) -> Cache:
        return [(keys[..., :slots, :].swapaxes(-1, -2), values[..., :slots, :]) for keys, values in cache]

    return turned(lanes.prefix), turned(lanes.suffix, live)


def _advance(
    plan: Plan,
    live: int,
    params: Params,
    lanes: tuple[Cache, Cache],
    recent: list[KeysValues],
    last_PG: jax.Array,
    rows: Rows,
    n: jax.Array,
) -> tuple[jax.Array, list[KeysValues]]:
    """Step n: one forward pass of each row's last token, to (final hidden states [B, D], the recent keys and values with its own)."""
    config, graphdef = plan.config, block_def(plan.config)
    positions_B1 = (rows.prompt_PG + rows.length_PG + n).reshape(-1, 1)
    tables = rope_tables(config, positions_B1)
    seen = [_visible(plan, kind, live, rows, n) for kind in config.kinds]
    x_B1D = embed(params, config, last_PG.reshape(-1, 1), plan.dtype)
    written: list[Any] = []
    caches = zip(*lanes, recent, strict=True)
    for layer_params, kind, of_layer in zip(params["blocks"], config.kind_of_layer, caches, strict=True):
        x_B1D, new = nnx.merge(graphdef, layer_params)(x_B1D, tables[kind], _Attend(plan, n, of_layer, seen[kind]))
        written.append(new)
    return rms_norm(x_B1D[:, 0], params["final_norm"], config), written


@dataclasses.dataclass(frozen=True, eq=False)
class _Attend:
    """A layer's attention in step n: (output [B, 1, N, H], the recent keys and values with each row's own)."""

    plan: Plan
    n: jax.Array
    caches: tuple[KeysValues, KeysValues, KeysValues]
    """Prefix, suffix, recent."""
    seen: tuple[jax.Array, jax.Array, jax.Array]
    """Of each of them, by `_visible`."""

    def __call__(self, q_B1NH: jax.Array, k_B1KH: jax.Array, v_B1KH: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        prefix, suffix, recent = self.caches
        P, K, G, _, H = recent[0].shape
        heads = q_B1NH.shape[2]

        def write(cache_PKGNH: jax.Array, new_B1KH: jax.Array) -> jax.Array:
            new_PKGH = jnp.moveaxis(new_B1KH.reshape(P, G, K, H), 2, 1).astype(cache_PKGNH.dtype)
            return jax.lax.dynamic_update_index_in_dim(cache_PKGNH, new_PKGH, self.n, axis=3)

        recent = write(recent[0], k_B1KH), write(recent[1], v_B1KH)
        q_PKGMH = jnp.moveaxis(q_B1NH.reshape(P, G, K, heads // K, H), 2, 1)
        out_PKGMH = _attention(self.plan, q_PKGMH, (prefix, suffix, recent), self.seen)
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

    def places(blocks: jax.Array) -> jax.Array:
        """Each row's block, [P, G], of a cache in blocks [P, K, G, S / N, N, H]."""
        return length_PG // N % blocks.shape[3]  # a ring begins anew

    def write_row(i: jax.Array, caches: Cache) -> Cache:
        p, g = i // G, i % G

        def write(blocks: jax.Array, new_PKGNH: jax.Array) -> jax.Array:
            _, K, _, _, H = new_PKGNH.shape
            new = jax.lax.dynamic_slice(new_PKGNH, (p, 0, g, 0, 0), (1, K, 1, N, H))
            return jax.lax.dynamic_update_slice(blocks, new[:, :, :, None], (p, 0, g, places(blocks)[p, g], 0, 0))

        return jax.tree.map(write, caches, recent)

    def scatter(blocks: jax.Array, new_PKGNH: jax.Array) -> jax.Array:
        at = jnp.arange(P)[:, None], slice(None), jnp.arange(G), places(blocks)
        return blocks.at[at].set(jnp.moveaxis(new_PKGNH, 1, 2))

    caches = jax.tree.map(lambda cache: cache.reshape(*cache.shape[:3], -1, N, cache.shape[-1]), suffix)
    if platform == "tpu":
        caches = jax.lax.fori_loop(0, P * G, write_row, caches)
    else:
        caches = jax.tree.map(scatter, caches, recent)
    return jax.tree.map(lambda blocks, cache: blocks.reshape(cache.shape), caches, suffix)


def _attention(plan: Plan, q_PKGMH: jax.Array, caches: tuple[KeysValues, ...], seen: tuple[jax.Array, ...]) -> jax.Array:
    """One softmax over the lane's prefixes, the row's suffix and the burst's recent tokens: [P, K, G, M, H]. Scores and sums are float32.

    `seen` is of `_visible`. The suffix is summed block by block (see the module), and so are the prefixes: those of a lane's other prompts
    add exact zeros, whichever of them is the row's.
    """
    precision, config = precision_of(q_PKGMH), plan.config
    prefix, suffix, recent = caches
    in_prefix, in_suffix, in_recent = seen

    def scores(q: jax.Array, keys: jax.Array, axes: str, mask: jax.Array) -> jax.Array:
        out = jnp.einsum(axes, q, keys, precision=precision, preferred_element_type=jnp.float32)
        return jnp.where(mask, softcap(out * config.score_scale, config.score_cap), MASKED)

    def weighted(axes: str, weights: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.einsum(axes, weights.astype(values.dtype), values, precision=precision, preferred_element_type=jnp.float32)

    # The prefixes are a batch of products: one of [G, W·S_p] might sum a prompt in another order, depending on its place.
    q_PKWGMH = jnp.broadcast_to(q_PKGMH[:, :, None], (*q_PKGMH.shape[:2], plan.prompts, *q_PKGMH.shape[2:]))
    prefix_PKWGMS = scores(q_PKWGMH, prefix[0], "pkwgmh,pkwhs->pkwgms", in_prefix)
    parts = []
    for start in range(0, in_suffix.shape[-1], SUFFIX_BLOCK):
        end = min(start + SUFFIX_BLOCK, in_suffix.shape[-1])
        parts.append((suffix[0][..., start:end], suffix[1][..., start:end, :], in_suffix[..., start:end]))
    parts.append((recent[0].swapaxes(-1, -2), recent[1], in_recent))
    own = [(scores(q_PKGMH, keys, "pkgmh,pkghs->pkgms", mask), values) for keys, values, mask in parts]

    peaks = [jnp.max(prefix_PKWGMS, axis=(2, -1))[..., None], *(jnp.max(part, axis=-1, keepdims=True) for part, _ in own)]
    peak_PKGM1 = functools.reduce(jnp.maximum, peaks)
    weights = jnp.exp(prefix_PKWGMS - peak_PKGM1[:, :, None])
    total = jnp.sum(jnp.sum(weights, axis=-1, keepdims=True), axis=2)
    out = jnp.sum(weighted("pkwgms,pkwsh->pkwgmh", weights, prefix[1]), axis=2)
    for part, values in own:
        weights = jnp.exp(part - peak_PKGM1)
        total += jnp.sum(weights, axis=-1, keepdims=True)
        out += weighted("pkgms,pkgsh->pkgmh", weights, values)
    return (out / total).astype(q_PKGMH.dtype)
