"""The two device programs of the decode engine: prefill and the window.

A **lane** is one prompt with its G samples. The prompt's keys and values are computed once (prefill) and shared by the
samples; each sample (a row) has a cache of its own for what it writes. Attention is one softmax over both parts.

    prefix [P, K, S_p, H]                    one a lane, right-padded, read by all its rows
    suffix [P, K, G, S, H], [P, G, S, K, H]  one a row, written at the row's own position

A layer with a window keeps no more of the suffix than that: its S slots are a ring, which holds position s at slot s mod S.

The suffix's layout is the platform's (`SUFFIX_LAYOUT`). Writes are local to a device (`shard_map`): left to the partitioner, each
layer would gather every row's keys and values on every device at every step.

Prompts that begin with the same tokens (a heuristic's exemplars) share the prefill of that beginning: it is computed once and
copied into the lanes. Prefill covers all tokens of a prompt but the last, and computes no logits: the last prompt token is the
first input of the row's first step, so that every token is sampled in one place.

The window advances every row N steps without the host. Rows that end early go on and are ignored: looking at every step
would cost a synchronisation each. Layers are unrolled, because a scan would copy each layer's cache in and out of the loop.

Bits don't depend on placement. A row's arithmetic has the same shapes wherever it sits, and the suffix is summed in blocks
of fixed size, oldest first, so that blocks beyond a row's end add exact zeros. A killed and resumed stage, whose rows meet
other neighbours, therefore draws the same tokens.
"""

import dataclasses
import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxpolya.decode.sampling import Draw, sample, token_keys
from jaxpolya.models.attention import MASKED, capped, causal_attention, precision_of
from jaxpolya.models.config import DecoderConfig, LayerKind
from jaxpolya.models.decoder import Params, abstract_params, block_def, embed, head_table, rms_norm
from jaxpolya.models.heads import logits
from jaxpolya.models.rope import rope_tables
from jaxpolya.parallel.sharding import param_shardings, replicated, spec

SUFFIX_BLOCK = 256

SUFFIX_LAYOUT = {"cpu": "pkgsh"}
"""Platform → axes of a suffix cache; elsewhere `pgskh`, where a row's position is one contiguous [K, H].

Writing rows at their own positions into `pkgsh` makes XLA copy the whole cache on a TPU (modelled for v5e, 4 layers, 64 × 4 rows of
512 slots: 10.5 M cycles a window and 538 MB, against 1.6 M and nothing); reading `pgskh` costs a CPU about a third more."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is static about decoding; hashable, so that it keys the compiled programs."""

    config: DecoderConfig
    lanes: int
    """P."""
    samples: int
    """G."""
    prefix: int
    """S_p: slots for a prompt."""
    suffix: int
    """S: slots for a response."""
    window: int
    """Steps of one window."""
    draw: Draw
    dtype: Any = jnp.bfloat16
    """Compute and cache dtype."""
    layout: str = "pgskh"
    """Axes of a suffix cache."""

    def suffix_slots(self, kind: LayerKind) -> int:
        """Slots of a layer's suffix cache: S, or a ring as long as the layer's window."""
        return self.suffix if kind.window is None else min(self.suffix, kind.window)

    def suffix_shape(self, kind: LayerKind) -> tuple[int, ...]:
        """Shape of a layer's suffix cache, its axes in the order of `layout`."""
        sizes = {"p": self.lanes, "k": self.config.kv_heads, "g": self.samples, "h": self.config.head_width}
        return tuple(self.suffix_slots(kind) if axis == "s" else sizes[axis] for axis in self.layout)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["prefix", "suffix", "last_PG"], meta_fields=[])
@dataclasses.dataclass
class Lanes:
    """What moves on the device."""

    prefix: list[tuple[jax.Array, jax.Array]]
    """Keys and values of each layer, [P, K, S_p, H]."""
    suffix: list[tuple[jax.Array, jax.Array]]
    """Keys and values of each layer; axes in the order of `Plan.layout`."""
    last_PG: jax.Array
    """The next input of each row, int32."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["prompt_P", "length_PG", "sequence_PG"], meta_fields=[])
@dataclasses.dataclass
class Rows:
    """Where each row stands; small, and owned by the host."""

    prompt_P: jax.Array
    """Prompt tokens in the prefix (the prompt's length less one), int32."""
    length_PG: jax.Array
    """Tokens sampled so far, int32."""
    sequence_PG: jax.Array
    """Sequence ids for the keys, uint32."""


def decode_copy(params: Params, config: DecoderConfig, mesh: Mesh, dtype: Any) -> Params:
    """The parameters for decoding: compute dtype, decode shardings, a list of layers instead of a stack. One jitted reshard."""
    return _decode_copy(config, mesh, jnp.dtype(dtype))(params)


@functools.cache
def _decode_copy(config: DecoderConfig, mesh: Mesh, dtype: Any) -> Any:
    shardings = _decode_shardings(config, mesh)

    def copy(params: Params) -> Params:
        # Norm scales stay float32, as the trainer has them.
        cast = jax.tree.map_with_path(lambda path, x: x if path[-1].key.endswith("norm") else x.astype(dtype), params)
        return {**cast, "blocks": [jax.tree.map(lambda x, i=i: x[i], cast["blocks"]) for i in range(config.layers)]}

    return jax.jit(copy, out_shardings=shardings)


def _decode_shardings(config: DecoderConfig, mesh: Mesh) -> Params:
    abstract = abstract_params(config)
    layer = {name: dataclasses.replace(s, shape=s.shape[1:], axes=s.axes[1:]) for name, s in abstract["blocks"].items()}
    ends = {name: s for name, s in abstract.items() if name != "blocks"}
    return param_shardings(mesh, {**ends, "blocks": [layer] * config.layers}, "decode")


def lane_shardings(plan: Plan, mesh: Mesh) -> Lanes:
    """Lanes over the data shards, key/value heads over `tensor`."""

    def sharding(axes: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
        return NamedSharding(mesh, spec(mesh, axes, shape, "decode"))

    P, G, K, H = plan.lanes, plan.samples, plan.config.kv_heads, plan.config.head_width
    prefix = sharding(("batch", "kv_heads", None, None), (P, K, plan.prefix, H))
    logical = {"p": "batch", "k": "kv_heads"}
    suffix = sharding(tuple(logical.get(axis) for axis in plan.layout), plan.suffix_shape(LayerKind()))
    L = plan.config.layers
    return Lanes(prefix=[(prefix,) * 2] * L, suffix=[(suffix,) * 2] * L, last_PG=sharding(("batch", None), (P, G)))  # type: ignore[arg-type, list-item]


@functools.cache
def make_empty(plan: Plan, mesh: Mesh) -> Any:
    """A program that allocates empty lanes."""
    P, K, H, L = plan.lanes, plan.config.kv_heads, plan.config.head_width, plan.config.layers

    def empty() -> Lanes:
        def cache(*shape: int) -> tuple[jax.Array, jax.Array]:
            return jnp.zeros(shape, plan.dtype), jnp.zeros(shape, plan.dtype)

        return Lanes(
            prefix=[cache(P, K, plan.prefix, H) for _ in range(L)],
            suffix=[cache(*plan.suffix_shape(plan.config.kinds[kind])) for kind in plan.config.kind_of_layer],
            last_PG=jnp.zeros((P, plan.samples), jnp.int32),
        )

    return jax.jit(empty, out_shardings=lane_shardings(plan, mesh))


Cache = list[tuple[jax.Array, jax.Array]]
"""Keys and values of each layer."""


@functools.cache
def make_share(plan: Plan, mesh: Mesh) -> Any:
    """A program (params, tokens [S_s]) → the cache of tokens that several prompts begin with, [1, S_s, K, H] on every data shard."""
    forward = _prompt_forward(plan)

    def share(params: Params, tokens_S: jax.Array) -> Cache:
        return forward(params, tokens_S[None], [])

    S_H = NamedSharding(mesh, spec(mesh, (None, None, "kv_heads", None), (1, 1, plan.config.kv_heads, 1), "decode"))
    return jax.jit(share, in_shardings=(_decode_shardings(plan.config, mesh), replicated(mesh)), out_shardings=S_H)


@functools.cache
def make_prefill(plan: Plan, mesh: Mesh) -> Any:
    """A program (params, lanes, shared cache, tokens [R, T], last [R], lane [R]) → lanes with R prompts prefilled.

    There is one row a data shard; `lane` counts within the shard, and −1 drops the row. `tokens` are what follows the shared
    beginning (an empty list: nothing is shared), right-padded, without the prompt's last token, which is in `last`. Lanes are
    donated. One compilation per T and S_s.
    """
    forward = _prompt_forward(plan)
    shardings = lane_shardings(plan, mesh)
    prefix_spec = shardings.prefix[0][0].spec  # type: ignore[attr-defined]
    data, heads = prefix_spec[0], prefix_spec[1]

    def prefill(params: Params, lanes: Lanes, shared: Cache, tokens_RT: jax.Array, last_R: jax.Array, lane_R: jax.Array) -> Lanes:
        computed = forward(params, tokens_RT, shared)

        @partial(
            jax.shard_map, mesh=mesh, in_specs=(prefix_spec, PartitionSpec(data, None, heads), PartitionSpec(data)), out_specs=prefix_spec
        )
        def write(cache_PKSH: jax.Array, new_RSKH: jax.Array, lane_R: jax.Array) -> jax.Array:
            new_RKSH, at = new_RSKH.swapaxes(1, 2).astype(cache_PKSH.dtype), (jnp.maximum(lane_R[0], 0), 0, 0, 0)
            there = jax.lax.dynamic_slice(cache_PKSH, at, new_RKSH.shape)
            return jax.lax.dynamic_update_slice(cache_PKSH, jnp.where(lane_R[0] >= 0, new_RKSH, there), at)

        @partial(jax.shard_map, mesh=mesh, in_specs=PartitionSpec(data), out_specs=PartitionSpec(data))
        def begin(last_PG: jax.Array, last_R: jax.Array, lane_R: jax.Array) -> jax.Array:
            return jnp.where((jnp.arange(last_PG.shape[0]) == lane_R[0])[:, None], last_R[0], last_PG)

        return Lanes(
            prefix=jax.tree.map(lambda cache, new: write(cache, new, lane_R), lanes.prefix, computed),
            suffix=lanes.suffix,
            last_PG=begin(lanes.last_PG, last_R, lane_R),
        )

    batch = NamedSharding(mesh, PartitionSpec(data))
    return jax.jit(
        prefill,
        donate_argnums=1,
        in_shardings=(_decode_shardings(plan.config, mesh), shardings, None, batch, batch, batch),
        out_shardings=shardings,
    )


def _prompt_forward(plan: Plan) -> Any:
    """A function (params, tokens [R, T], shared cache) → the cache [R, S_s + T, K, H] of shared beginning and tokens."""
    config, graphdef = plan.config, block_def(plan.config)

    def forward(params: Params, tokens_RT: jax.Array, shared: Cache) -> Cache:
        R, T = tokens_RT.shape
        start = shared[0][0].shape[1] if shared else 0
        x = embed(params, config, tokens_RT, plan.dtype)
        tables = rope_tables(config, jnp.broadcast_to(start + jnp.arange(T), (R, T)))
        cache = []
        for layer, (layer_params, kind) in enumerate(zip(params["blocks"], config.kind_of_layer, strict=True)):
            window = config.kinds[kind].window

            def attend(
                q: jax.Array, k: jax.Array, v: jax.Array, layer: int = layer, window: int | None = window
            ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
                if shared:
                    k, v = (
                        jnp.concatenate([jnp.broadcast_to(old, (R, *old.shape[1:])), new], axis=1)
                        for old, new in zip(shared[layer], (k, v), strict=True)
                    )
                # Right padding needs no mask: causal attention keeps it from the tokens that count.
                return causal_attention(config, q, k, v, window), (k, v)

            x, computed = nnx.merge(graphdef, layer_params)(x, tables[kind], attend)
            cache.append(computed)
        return cache

    return forward


@functools.cache
def make_window(plan: Plan, mesh: Mesh, live: int) -> Any:
    """A program (params, lanes, rows, seed, temperature, top_p) → (lanes, tokens [P, G, N], log-probs [P, G, N]).

    `live` suffix slots are read: no row may hold more after the window. Lanes are donated; tokens and log-probs come out
    whole on every host. One compilation per `live`.
    """
    config, P, G = plan.config, plan.lanes, plan.samples
    K, M, H = config.kv_heads, config.heads // config.kv_heads, config.head_width
    graphdef = block_def(config)
    shardings, whole = lane_shardings(plan, mesh), replicated(mesh)
    write = _row_writer(plan, mesh, shardings.suffix[0][0].spec)  # type: ignore[attr-defined]

    def window(
        params: Params, lanes: Lanes, rows: Rows, seed: jax.Array, temperature: jax.Array, top_p: jax.Array
    ) -> tuple[Lanes, jax.Array, jax.Array]:
        def step(n: jax.Array, carry: tuple[Lanes, jax.Array, jax.Array]) -> tuple[Lanes, jax.Array, jax.Array]:
            lanes, tokens_PGN, logps_PGN = carry
            slot_PG = rows.length_PG + n
            positions_B1 = (rows.prompt_P[:, None] + slot_PG).reshape(P * G, 1)
            tables = rope_tables(config, positions_B1)
            seen = [_visible(plan, kind, live, rows.prompt_P, slot_PG) for kind in config.kinds]
            x = embed(params, config, lanes.last_PG.reshape(P * G, 1), plan.dtype)
            suffix = []
            for layer_params, kind, prefix_kv, suffix_kv in zip(
                params["blocks"], config.kind_of_layer, lanes.prefix, lanes.suffix, strict=True
            ):
                write_PG = slot_PG if config.kinds[kind].window is None else slot_PG % plan.suffix_slots(config.kinds[kind])

                def attend(
                    q: jax.Array,
                    k: jax.Array,
                    v: jax.Array,
                    prefix_kv: tuple[jax.Array, jax.Array] = prefix_kv,
                    suffix_kv: tuple[jax.Array, jax.Array] = suffix_kv,
                    seen: tuple[jax.Array, jax.Array] = seen[kind],
                    write_PG: jax.Array = write_PG,
                ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
                    written = tuple(write(cache, new.reshape(P, G, K, H), write_PG) for cache, new in zip(suffix_kv, (k, v), strict=True))
                    q_PKGMH = jnp.moveaxis(q.reshape(P, G, K, M, H), 1, 2)
                    out = _two_part_attention(plan, q_PKGMH, prefix_kv, written, *seen)
                    return jnp.moveaxis(out, 2, 1).reshape(P * G, 1, K * M, H), written

                x, written = nnx.merge(graphdef, layer_params)(x, tables[kind], attend)
                suffix.append(written)
            hidden_BD = rms_norm(x[:, 0], params["final_norm"], config)
            with jax.named_scope("sample"):
                keys = token_keys(seed, rows.sequence_PG.reshape(-1), slot_PG.reshape(-1))
                tokens_B, logps_B = sample(logits(config, hidden_BD, head_table(params)), keys, temperature, top_p, plan.draw)
            last_PG = tokens_B.reshape(P, G)
            return (
                Lanes(prefix=lanes.prefix, suffix=suffix, last_PG=last_PG),
                tokens_PGN.at[:, :, n].set(last_PG),
                logps_PGN.at[:, :, n].set(logps_B.reshape(P, G)),
            )

        out = jnp.zeros((P, G, plan.window), jnp.int32), jnp.zeros((P, G, plan.window), jnp.float32)
        return jax.lax.fori_loop(0, plan.window, step, (lanes, *out))

    return jax.jit(
        window,
        donate_argnums=1,
        in_shardings=(_decode_shardings(config, mesh), shardings, whole, whole, whole, whole),
        out_shardings=(shardings, whole, whole),
    )


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


def _row_writer(plan: Plan, mesh: Mesh, suffix_spec: PartitionSpec) -> Any:
    """A function (suffix cache, new [P, G, K, H], slot [P, G]) → the cache with each row's slot written, on its own device."""
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
