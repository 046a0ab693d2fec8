"""Where decoding keeps what it knows: the plan of a compiled shape, the lanes on the device, and the parameters' decode copy.

A **lane** is G rows and the W prompts that they draw samples of. A prompt's keys and values are computed once a lane (`prefill`) and read
by all of its rows; a row has a cache of its own for what it writes (`burst`). Samples stream through the rows: one that ends leaves
its row to the prompt's next sample, or to the lane's next prompt while the last samples of the one before still run.

    prefix [P, K, W, S_p, H]  one a prompt, right-padded
    suffix [P, K, G, S, H]    one a row, written at the row's own position

On CPUs the last two axes of keys are swapped (`turns_keys`).

A layer with a sliding window keeps no more of the suffix than that, in whole bursts: its S slots are a ring, which holds position s at slot
s mod S.

Bits don't depend on placement: a row's arithmetic has the same shapes wherever it sits. A killed and resumed stage, whose rows meet
other neighbours, therefore draws the same tokens.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from jaxpolya.decode.sampling import Draw
from jaxpolya.models.config import DecoderConfig, LayerKind
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.models.lora import merged_layer
from jaxpolya.parallel.sharding import param_shardings, spec

DecodeKernel = Literal["xla", "pallas"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is static about decoding; hashable, so that it keys the compiled programs."""

    config: DecoderConfig
    lanes: int
    """P."""
    rows: int
    """G: of a lane."""
    prefix: int
    """S_p: slots for a prompt."""
    suffix: int
    """S: slots for a response."""
    burst: int
    """N: steps between two looks of the host."""
    draw: Draw
    dtype: Any = jnp.bfloat16
    """Compute and cache dtype."""
    prompts: int = 1
    """W: of a lane."""
    attention: DecodeKernel = "xla"
    """What computes a step's attention (`decode.attention`)."""

    def suffix_slots(self, kind: LayerKind) -> int:
        """Slots of a layer's suffix cache: S, or a ring as long as the layer's window, in whole bursts."""
        return self.suffix if kind.window is None else min(self.suffix, -(-kind.window // self.burst) * self.burst)

    def cache_shape(self, slots: int) -> tuple[int, ...]:
        """Shape of keys or values that rows have to themselves, [P, K, G, slots, H]."""
        return (self.lanes, self.config.kv_heads, self.rows, slots, self.config.head_width)


Cache = list[tuple[jax.Array, jax.Array]]
"""Keys and values of each layer."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["prefix", "suffix", "last_PG"], meta_fields=[])
@dataclasses.dataclass
class Lanes:
    """What moves on the device."""

    prefix: list[tuple[jax.Array, jax.Array]]
    """Keys and values of each layer, [P, K, W, S_p, H]; keys [P, K, W, H, S_p] on CPUs."""
    suffix: list[tuple[jax.Array, jax.Array]]
    """Keys and values of each layer, [P, K, G, S, H]; keys [P, K, G, H, S] on CPUs."""
    last_PG: jax.Array
    """The token that each row drew last, int32."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["place_PG", "prompt_PG", "first_PG", "length_PG", "sequence_PG"], meta_fields=[]
)
@dataclasses.dataclass
class Rows:
    """Where each row stands; small, and owned by the host. A row without a sample has length 0, and what it draws is ignored."""

    place_PG: jax.Array
    """Which of the lane's W prefixes is the row's, int32."""
    prompt_PG: jax.Array
    """Prompt tokens in that prefix (the prompt's length less one), int32."""
    first_PG: jax.Array
    """The prompt's last token, which is the input of the row's first step, int32."""
    length_PG: jax.Array
    """Tokens sampled so far, int32."""
    sequence_PG: jax.Array
    """Sequence ids for the keys, uint32."""


def decode_copy(params: Params, config: DecoderConfig, mesh: Mesh, dtype: Any) -> Params:
    """The parameters for decoding: compute dtype, decode shardings, a list of layers instead of a stack, adapters merged. What is as
    decoding wants it already (`shared_with_decoding`) is the same array and no copy.

    Layers are copied one by one, all by the same program. A program that copies all of them at once takes XLA's TPU compiler ten seconds
    instead of half a second, and holds most layers twice while it runs (modelled for v5e:2x4 and 1.5 B parameters: 2.6 GB beside the
    copy's 3.1).
    """
    dtype = jnp.dtype(dtype)
    shared, copy_layer = shared_with_decoding(params, config, mesh, dtype), make_layer_copy(config, mesh, dtype)
    rest = {
        name: leaf if name in shared else _make_end_copy(name, config, mesh, dtype)(leaf)
        for name, leaf in params.items()
        if name != "blocks"
    }
    return {**rest, "blocks": [copy_layer(params["blocks"], i) for i in range(config.layers)]}


def shared_with_decoding(params: Params, config: DecoderConfig, mesh: Mesh, dtype: Any) -> frozenset[str]:
    """The parameters outside of the layers that decoding takes as they lie, arrays or what is known of them.

    On one device that is a frozen embedding, which adapters hold in the compute dtype: a fifth of a small model. Layers are never among
    them: they lie in a stack, and decoding wants each by itself.
    """
    specs, at = abstract_params(config.base), decode_shardings(config.base, mesh)
    return frozenset(
        name
        for name, leaf in params.items()
        if name != "blocks" and (specs[name].keeps_float32 or leaf.dtype == dtype) and leaf.sharding.is_equivalent_to(at[name], leaf.ndim)
    )


def abstract_decode_copy(config: DecoderConfig, mesh: Mesh, dtype: Any) -> Params:
    """Shapes, dtypes and shardings of the decode copy."""
    return jax.tree.map(
        lambda spec, at: jax.ShapeDtypeStruct(spec.shape, spec.dtype_in(dtype), sharding=at),
        _decode_specs(config.base),
        decode_shardings(config.base, mesh),
    )


@functools.cache
def make_layer_copy(config: DecoderConfig, mesh: Mesh, dtype: Any) -> Any:
    """A program (the stack of layers, i) → layer i of the decode copy."""
    specs = _decode_specs(config.base)["blocks"][0]

    def copy(blocks: Params, i: jax.Array) -> Params:
        layer = jax.tree.map(lambda stack: jax.lax.dynamic_index_in_dim(stack, i, keepdims=False), blocks)
        if config.lora:
            layer = merged_layer(layer, config.lora)
        return jax.tree.map(lambda spec, x: spec.cast(x, dtype), specs, layer)

    return jax.jit(copy, out_shardings=decode_shardings(config.base, mesh)["blocks"][0])


@functools.cache
def _make_end_copy(name: str, config: DecoderConfig, mesh: Mesh, dtype: Any) -> Any:
    """A program that copies a parameter outside of the layers."""
    spec = abstract_params(config.base)[name]
    return jax.jit(lambda leaf: spec.cast(leaf, dtype), out_shardings=decode_shardings(config.base, mesh)[name])


def decode_shardings(config: DecoderConfig, mesh: Mesh) -> Params:
    """Of the decode copy, by the sharding table's column for decoding."""
    return param_shardings(mesh, _decode_specs(config), "decode")


def _decode_specs(config: DecoderConfig) -> Params:
    """The tree of the decode copy, with a list of layers, as `abstract_params` has it stacked."""
    specs = abstract_params(config)
    layer = {name: dataclasses.replace(s, shape=s.shape[1:], axes=s.axes[1:]) for name, s in specs["blocks"].items()}
    return {**specs, "blocks": [layer] * config.layers}


def lane_shardings(plan: Plan, mesh: Mesh) -> Lanes:
    """Lanes over the data shards, key/value heads over `tensor`."""

    def sharding(axes: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
        return NamedSharding(mesh, spec(mesh, axes, shape, "decode"))

    P, G, K, H = plan.lanes, plan.rows, plan.config.kv_heads, plan.config.head_width
    prefix = sharding(("batch", "kv_heads", None, None, None), (P, K, plan.prompts, plan.prefix, H))
    suffix = sharding(("batch", "kv_heads", None, None, None), plan.cache_shape(plan.suffix))
    L = plan.config.layers
    return Lanes(prefix=[(prefix,) * 2] * L, suffix=[(suffix,) * 2] * L, last_PG=sharding(("batch", None), (P, G)))  # type: ignore[arg-type, list-item]


def turns_keys(platform: str) -> bool:
    """Whether lanes hold keys transposed, [..., H, S].

    XLA's CPU products want them so: transposing all of them in every burst took 5 to 15 % of its time where prompts have 256 tokens, and
    more on a busy machine. Accelerators multiply with [..., S, H] as well.
    """
    return platform == "cpu"


@functools.cache
def make_empty(plan: Plan, mesh: Mesh) -> Any:
    """A program that allocates empty lanes."""
    P, K, H, L = plan.lanes, plan.config.kv_heads, plan.config.head_width, plan.config.layers
    turned = turns_keys(mesh.devices.flat[0].platform)

    def empty() -> Lanes:
        def cache(*shape: int) -> tuple[jax.Array, jax.Array]:
            keys, values = jnp.zeros(shape, plan.dtype), jnp.zeros(shape, plan.dtype)
            return keys.swapaxes(-1, -2) if turned else keys, values

        return Lanes(
            prefix=[cache(P, K, plan.prompts, plan.prefix, H) for _ in range(L)],
            suffix=[cache(*plan.cache_shape(plan.suffix_slots(plan.config.kinds[kind]))) for kind in plan.config.kind_of_layer],
            last_PG=jnp.zeros((P, plan.rows), jnp.int32),
        )

    return jax.jit(empty, out_shardings=lane_shardings(plan, mesh))
