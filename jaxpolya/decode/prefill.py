"""Prefill: the keys and values of prompts, computed once and written into lanes.

Prompts that begin with the same tokens (a heuristic's exemplars) share the prefill of that beginning: it is computed once and
copied into the lanes. Prefill covers all tokens of a prompt but the last, and computes no logits: the last prompt token is the
first input of the row's first step, so that every token is sampled in one place.
"""

import dataclasses
import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxpolya.decode.lanes import Cache, Lanes, Plan, decode_shardings, lane_shardings, turns_keys
from jaxpolya.models.attention import causal_attention
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, block_def, embed
from jaxpolya.models.rope import rope_tables
from jaxpolya.parallel.sharding import replicated, spec

TOKENS_TOGETHER = {"tpu": 256, "gpu": 1024}
"""About as many as keep an accelerator's matrix units busy while it reads the weights. More would cost where few prompts wait: modelled for
a v5e, a layer takes 127 thousand cycles for 64 tokens and 565 thousand for 512; for an H100, 28 layers take 3.5 ms for one prompt of 512
tokens, 2.7 ms a prompt for two, 2.4 for eight."""
MOST_TOGETHER = 8


def prompts_together(tokens: int, platform: str) -> int:
    """How many prompts of so many tokens a data shard prefills at a time, in rows of which the last ones may stay empty.

    An accelerator reads all weights for few tokens as it does for many; a CPU pays for each. The number follows from the length alone, so
    that a prompt's arithmetic doesn't depend on how many others wait.
    """
    return max(1, min(MOST_TOGETHER, TOKENS_TOGETHER.get(platform, 0) // max(tokens, 1)))


def scatters_prompts(platform: str) -> bool:
    """Whether a batch of prompts is written by a scatter.

    Beside cuDNN's attention, XLA's compiler for GPUs copies a whole cache before it writes the second of several slices; its compiler for
    TPUs scatters slowly.
    """
    return platform == "gpu"


@functools.cache
def make_share(plan: Plan, mesh: Mesh) -> Any:
    """A program (params, tokens [S_s]) → the cache of tokens that several prompts begin with, [1, S_s, K, H] on every data shard."""
    forward = _prompt_forward(plan, mesh)

    def share(params: Params, tokens_S: jax.Array) -> Cache:
        return forward(params, tokens_S[None], [])

    S_H = NamedSharding(mesh, spec(mesh, (None, None, "kv_heads", None), (1, 1, plan.config.kv_heads, 1), "decode"))
    return jax.jit(share, in_shardings=(decode_shardings(plan.config, mesh), replicated(mesh)), out_shardings=S_H)


@functools.cache
def make_prefill(plan: Plan, mesh: Mesh) -> Any:
    """A program (params, lanes, shared cache, tokens [R, T], lane and place [R, 2]) → lanes with R prompts prefilled.

    A data shard has as many rows as another; the lane counts within the shard, and −1 drops the row; the place is one of the lane's W
    prefixes.
    `tokens` are what follows the shared beginning (an empty list: nothing is shared), right-padded, without the prompt's last token.
    Lanes are donated. One compilation per T and S_s.
    """
    forward = _prompt_forward(plan, mesh)
    shardings, platform = lane_shardings(plan, mesh), mesh.devices.flat[0].platform
    turned, scatters = turns_keys(platform), scatters_prompts(platform)
    prefix_spec = shardings.prefix[0][0].spec  # type: ignore[attr-defined]
    data, heads = prefix_spec[0], prefix_spec[1]

    def prefill(params: Params, lanes: Lanes, shared: Cache, tokens_RT: jax.Array, at_R2: jax.Array) -> Lanes:
        def as_it_lies(keys_RSKH: jax.Array, values_RSKH: jax.Array) -> tuple[jax.Array, jax.Array]:
            keys_RKSH, values_RKSH = keys_RSKH.swapaxes(1, 2), values_RSKH.swapaxes(1, 2)
            return keys_RKSH.swapaxes(-1, -2) if turned else keys_RKSH, values_RKSH

        computed = [as_it_lies(*of_layer) for of_layer in forward(params, tokens_RT, shared)]

        @partial(jax.jit, inline=True)  # traced once for all layers, or once for their keys and once for their values
        @partial(jax.shard_map, mesh=mesh, in_specs=(prefix_spec, PartitionSpec(data, heads), PartitionSpec(data)), out_specs=prefix_spec)
        def write(cache: jax.Array, computed: jax.Array, at_R2: jax.Array) -> jax.Array:
            if scatters:
                lane_R, place_R = jnp.where(at_R2[:, :1] < 0, len(cache), at_R2).T  # beyond the end, which drops the row
                return cache.at[lane_R, :, place_R, : computed.shape[2]].set(computed.astype(cache.dtype), mode="drop", unique_indices=True)
            for (lane, place), new in zip(at_R2, computed.astype(cache.dtype)[:, None, :, None], strict=True):
                at = jnp.maximum(lane, 0), 0, jnp.maximum(place, 0), 0, 0
                there = jax.lax.dynamic_slice(cache, at, new.shape)  # a row that is dropped writes back what is there
                cache = jax.lax.dynamic_update_slice(cache, jnp.where(lane >= 0, new, there), at)
            return cache

        prefix = jax.tree.map(lambda cache, new: write(cache, new, at_R2), lanes.prefix, computed)
        return dataclasses.replace(lanes, prefix=prefix)

    batch = NamedSharding(mesh, PartitionSpec(data))
    return jax.jit(
        prefill,
        donate_argnums=1,
        in_shardings=(decode_shardings(plan.config, mesh), shardings, None, batch, batch),
        out_shardings=shardings,
    )


def _prompt_forward(plan: Plan, mesh: Mesh) -> Any:
    """A function (params, tokens [R, T], shared cache) → the cache [R, S_s + T, K, H] of shared beginning and tokens."""
    config = plan.config

    def forward(params: Params, tokens_RT: jax.Array, shared: Cache) -> Cache:
        R, T = tokens_RT.shape
        start = shared[0][0].shape[1] if shared else 0
        x = embed(params, config, tokens_RT, plan.dtype)
        tables = rope_tables(config, jnp.broadcast_to(start + jnp.arange(T), (R, T)))
        cache = []
        for layer, (layer_params, kind) in enumerate(zip(params["blocks"], config.kind_of_layer, strict=True)):
            before = shared[layer] if shared else None
            x, computed = _layer(config, config.kinds[kind].window, mesh, layer_params, x, tables[kind], before)
            cache.append(computed)
        return cache

    return forward


@partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _layer(
    config: DecoderConfig,
    window: int | None,
    mesh: Mesh,
    params: Params,
    x_RTD: jax.Array,
    rope: tuple[jax.Array, jax.Array],
    shared: tuple[jax.Array, jax.Array] | None,
) -> tuple[jax.Array, Any]:
    """A layer of a prompt; jit only has layers that are alike traced once, as in a burst."""

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        if shared is not None:
            k, v = (
                jnp.concatenate([jnp.broadcast_to(old, (len(new), *old.shape[1:])), new], axis=1)
                for old, new in zip(shared, (k, v), strict=True)
            )
        # Right padding needs no mask: causal attention keeps it from the tokens that count.
        return causal_attention(config, q, k, v, window, mesh), (k, v)

    return nnx.merge(block_def(config), params)(x_RTD, rope, attend)
