"""The decoder: one Flax NNX block, whose stacked twin holds all layers.

Modules define, plain trees travel. `Block` and `EmbeddingAndHead` say each parameter once, on its `nnx.Param`: shape, dtype, logical
axes, initialiser, whether it decays and whether it is held in float32 throughout. `abstract_params` reads that off without allocating
anything, and shardings, checkpoints, names, the optimizer's mask and copies in a compute dtype follow from it. At every jit boundary
parameters are a nested dict of 11 to 22 arrays:

    {"embed": [V, D], "blocks": {"q": [L, N, H, D], …}, "final_norm": [D], "head": [V, D] where untied}

Inside, `nnx.merge` gives a layer's arrays their methods: in a scan over L for training and scoring (one compiled block),
in an unrolled loop for decoding. A block doesn't know what it attends to: `attend(q, k, v)` is the caller's. Nor does it know
its layer's kind: in the scan window and rotation are data, so layers of several kinds are still one compiled block.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxpolya.models.attention import packed_attention, precision_of
from jaxpolya.models.config import TARGETS, Activation, DecoderConfig
from jaxpolya.models.rope import rope_tables, rotate
from jaxpolya.models.visibility import SharedPrompts, Window
from jaxpolya.parallel.sharding import constrain

Params = dict[str, Any]
ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
}

Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
UNLIMITED = 2**30  # a window beyond any context
FEW_TOKENS = 256  # of a whole batch; from here on products take the same time in either order
PRODUCT = "product"

# What a part of a block keeps for the backward pass is its input and what `_affine` gives. Norms, activations and weights in the compute
# dtype are made again. Gradients are only taken through a scan over layers, whose passes XLA can't merge: hence no `prevent_cse`.
_keeping_products = partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(PRODUCT), prevent_cse=False)


@dataclasses.dataclass(frozen=True)
class ParamSpec:
    """What is known of a parameter before it exists."""

    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[str | None, ...]
    """One logical axis name per dimension; see `parallel.sharding`."""
    decays: bool
    """Whether weight decay acts on it: on matrices, and on no norm or bias."""
    keeps_float32: bool
    """Whether copies in a compute dtype, to decode with or frozen beside adapters, hold it in float32 all the same: norm scales, which the
    forward pass multiplies in float32."""

    def dtype_in(self, dtype: Any) -> Any:
        """What a copy in the compute dtype `dtype` holds it in."""
        return self.dtype if self.keeps_float32 else dtype

    def cast(self, leaf: jax.Array, dtype: Any) -> jax.Array:
        """The parameter as a copy in the compute dtype `dtype` holds it."""
        return leaf.astype(self.dtype_in(dtype))


def weight(key: jax.Array, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int) -> nnx.Param:
    """A float32 matrix, normal with deviation fan_in^-1/2."""
    return _param(jax.random.normal(key, shape, jnp.float32) * fan_in**-0.5, axes, decays=True)


def zeros(shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """A float32 bias, or a head's vector, that says nothing yet."""
    return _param(jnp.zeros(shape, jnp.float32), axes)


def low_rank(key: jax.Array, weight: nnx.Param, rank: int, inputs: int) -> tuple[nnx.Param, nnx.Param]:
    """(A [r, *in], B [*out, r]) of the adapter of a weight whose last `inputs` axes are its input's, float32.

    As PEFT begins: A uniform within ±fan_in^-1/2, B zero, so that the adapter changes nothing yet.
    """
    (out, into), (out_axes, in_axes) = ((sizes[:-inputs], sizes[-inputs:]) for sizes in (weight.shape, weight.get_metadata("axes")))
    bound = math.prod(into) ** -0.5
    a = jax.random.uniform(key, (rank, *into), jnp.float32, -bound, bound)
    b = jnp.zeros((*out, rank), jnp.float32)
    return _param(a, ("rank", *in_axes), decays=True), _param(b, (*out_axes, "rank"), decays=True)


def norm_scale(config: DecoderConfig, shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """A norm's float32 scale, which changes nothing yet."""
    return _param(jnp.full(shape, 0.0 if config.zero_centred_norms else 1.0, jnp.float32), axes, keeps_float32=True)


def _param(value: jax.Array, axes: tuple[str, ...], *, decays: bool = False, keeps_float32: bool = False) -> nnx.Param:
    return nnx.Param(value, axes=axes, decays=decays, keeps_float32=keeps_float32)


class EmbeddingAndHead(nnx.Module):
    """What lies before and after the blocks: embedding, final norm, output head."""

    def __init__(self, config: DecoderConfig, key: jax.Array):
        embed_key, head_key = jax.random.split(key)
        V, D = config.vocab_size, config.width
        self.embed = weight(embed_key, (V, D), ("vocab", "width"), D)
        self.final_norm = norm_scale(config, (D,), ("width",))
        if not config.tied_embeddings:
            self.head = weight(head_key, (V, D), ("vocab", "width"), D)
        if config.value_head:  # it says 0 of everything yet
            self.value = zeros((D,), ("width",))
            self.value_bias = zeros((), ())


class Block(nnx.Module):
    """One layer: attention and gated feed-forward, each with norms before or after it, each added to the residual stream."""

    def __init__(self, config: DecoderConfig, key: jax.Array):
        self.config = config
        D, F, N, K, H = config.width, config.ff_width, config.heads, config.kv_heads, config.head_width
        keys = iter(jax.random.split(key, 7))
        pre, post = config.pre_norms, config.post_norms
        heads_width, kv_heads_width = ("heads", "head_width"), ("kv_heads", "head_width")
        # What a family lacks is None, said here: a misspelt name is an error, and not a part that is left out.
        self.attn_norm = norm_scale(config, (D,), ("width",)) if pre else None
        self.mlp_norm = norm_scale(config, (D,), ("width",)) if pre else None
        self.attn_post_norm = norm_scale(config, (D,), ("width",)) if post else None
        self.mlp_post_norm = norm_scale(config, (D,), ("width",)) if post else None
        self.q = weight(next(keys), (N, H, D), (*heads_width, "width"), D)
        self.k = weight(next(keys), (K, H, D), (*kv_heads_width, "width"), D)
        self.v = weight(next(keys), (K, H, D), (*kv_heads_width, "width"), D)
        self.o = weight(next(keys), (D, N, H), ("width", *heads_width), N * H)
        self.q_bias = zeros((N, H), heads_width) if config.qkv_bias else None
        self.k_bias = zeros((K, H), kv_heads_width) if config.qkv_bias else None
        self.v_bias = zeros((K, H), kv_heads_width) if config.qkv_bias else None
        self.o_bias = zeros((D,), ("width",)) if config.o_bias else None
        whole = config.qk_norm == "all"
        q_shape, q_axes = ((N, H), heads_width) if whole else ((H,), ("head_width",))
        k_shape, k_axes = ((K, H), kv_heads_width) if whole else ((H,), ("head_width",))
        self.q_norm = norm_scale(config, q_shape, q_axes) if config.qk_norm != "none" else None
        self.k_norm = norm_scale(config, k_shape, k_axes) if config.qk_norm != "none" else None
        self.gate = weight(next(keys), (F, D), ("ff", "width"), D)
        self.up = weight(next(keys), (F, D), ("ff", "width"), D)
        self.down = weight(next(keys), (D, F), ("width", "ff"), F)
        self.gate_bias = zeros((F,), ("ff",)) if config.mlp_bias else None
        self.up_bias = zeros((F,), ("ff",)) if config.mlp_bias else None
        self.down_bias = zeros((D,), ("width",)) if config.mlp_bias else None
        if lora := config.lora:
            for name in lora.targets:
                a, b = low_rank(jax.random.fold_in(key, 7 + TARGETS.index(name)), getattr(self, name), lora.rank, 1 + (name == "o"))
                setattr(self, f"{name}_lora_a", a)
                setattr(self, f"{name}_lora_b", b)

    def __call__(self, x_BTD: jax.Array, rope: tuple[jax.Array, jax.Array], attend: Attend) -> tuple[jax.Array, Any]:
        """(x [B, T, D], whatever `attend` returned beside its output [B, T, N, H])."""
        with jax.named_scope("attention"):
            out_BTNH, kept = attend(*_keeping_products(self.project_qkv)(x_BTD, rope))
            x_BTD = x_BTD + _keeping_products(self._project_out)(out_BTNH)
        with jax.named_scope("mlp"):
            return x_BTD + _keeping_products(self._feed_forward)(x_BTD), kept

    def project_qkv(self, x_BTD: jax.Array, rope: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries [B, T, N, H], rotated keys and plain values [B, T, K, H]."""
        y_BTD = self._norm(x_BTD, self.attn_norm)
        q, k, v = (self._affine(y_BTD, name) for name in ("q", "k", "v"))
        return rotate(self._norm(q, self.q_norm), rope), rotate(self._norm(k, self.k_norm), rope), v

    def _project_out(self, out_BTNH: jax.Array) -> jax.Array:
        return self._norm(self._affine(out_BTNH, "o"), self.attn_post_norm)

    def _feed_forward(self, x_BTD: jax.Array) -> jax.Array:
        y_BTD = self._norm(x_BTD, self.mlp_norm)
        hidden_BTF = gated(self.config.activation, self._affine(y_BTD, "gate"), self._affine(y_BTD, "up"))
        return self._norm(self._affine(hidden_BTF, "down"), self.mlp_post_norm)

    def _norm(self, x: jax.Array, scale: nnx.Param | None) -> jax.Array:
        """The RMS norm of x, over as many axes as its scale has; x itself where the block has no such norm."""
        return x if scale is None else rms_norm(x, scale[...], self.config)

    def _affine(self, x: jax.Array, name: str) -> jax.Array:
        """The weight `name` times x, plus its bias and its adapter's part where it has them, in x's dtype."""
        y = linear(getattr(self, name)[...].astype(x.dtype), x)
        if (bias := getattr(self, f"{name}_bias")) is not None:
            y = y + bias[...].astype(x.dtype)
        if (lora := self.config.lora) and name in lora.targets:
            a, b = (getattr(self, f"{name}_lora_{factor}")[...].astype(x.dtype) for factor in "ab")
            y = y + linear(b, lora.scale * linear(a, x))
        return checkpoint_name(y, PRODUCT)


def linear(w: jax.Array, x_BT: jax.Array) -> jax.Array:
    """w [*out, *in] applied to x [B, T, *in]: [B, T, *out]. Weights lie output-major, as in Hugging Face files.

    The order of the factors is for XLA's CPU products; accelerators choose their own layouts. Few tokens come second, so that weights are
    streamed as they lie (1.4 to 1.9 times the speed at 16 tokens). Many come first: results lie as the next products want them then, and
    the backward pass.
    """
    inner = tuple(range(-(x_BT.ndim - 2), 0))
    of_w, of_x = tuple(w.ndim + i for i in inner), tuple(x_BT.ndim + i for i in inner)
    if x_BT.shape[0] * x_BT.shape[1] > FEW_TOKENS:
        return jax.lax.dot_general(x_BT, w, ((of_x, of_w), ((), ())), precision=precision_of(x_BT))
    out = jax.lax.dot_general(w, x_BT, ((of_w, of_x), ((), ())), precision=precision_of(x_BT))
    return jnp.moveaxis(out, (-2, -1), (0, 1))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def gated(activation: Activation, gate: jax.Array, up: jax.Array) -> jax.Array:
    """The activation of the gate times up, elementwise (Shazeer, arXiv 2002.05202)."""
    return ACTIVATIONS[activation](gate) * up


def _gated_forward(activation: Activation, gate: jax.Array, up: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return gated(activation, gate, up), (gate, up)


def _gated_backward(activation: Activation, kept: tuple[jax.Array, jax.Array], d: jax.Array) -> tuple[jax.Array, ...]:
    """Autodiff's numbers. SiLU's gradients end in a division: XLA repeats a cheap multiplication for each product that takes what it
    gives, but no division, and on a CPU it repeats it in the order that the product wants, element by element: 18 ms for [1024, 1536],
    where turning around what is there takes 3.
    """
    if activation != "silu":
        return jax.vjp(lambda gate, up: ACTIVATIONS[activation](gate) * up, *kept)[1](d)
    gate, up, d32 = (x.astype(jnp.float32) for x in (*kept, d))
    denominator = 1 + jnp.exp(-gate)
    d_gate = d32 * up * (1 + gate * (1 - 1 / denominator)) / denominator
    return d_gate.astype(d.dtype), (d32 * gate / denominator).astype(d.dtype)


gated.defvjp(_gated_forward, _gated_backward)


def rms_norm(x: jax.Array, scale: jax.Array, config: DecoderConfig) -> jax.Array:
    """x / √(mean x² + eps) · scale over the axes that the scale has; float32 inside, x's dtype outside."""
    x32 = x.astype(jnp.float32)
    axes = tuple(range(-scale.ndim, 0))
    x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=axes, keepdims=True) + config.norm_eps)
    if config.zero_centred_norms:
        return ((1 + scale) * x32).astype(x.dtype)
    return (scale * x32.astype(x.dtype)).astype(x.dtype)


# The plain tree ----------------------------------------------------------------------------------------------------------


def init_params(config: DecoderConfig, key: jax.Array) -> Params:
    """Random parameters as a plain tree, float32; blocks stacked along L."""
    ends_key, blocks_key = jax.random.split(key)
    block_keys = jax.random.split(blocks_key, config.layers)
    blocks = jax.vmap(lambda block_key: _plain(Block(config, block_key)))(block_keys)
    return {**_plain(EmbeddingAndHead(config, ends_key)), "blocks": blocks}


@functools.cache
def abstract_params(config: DecoderConfig) -> Params:
    """The tree of `init_params` with a `ParamSpec` for each array; nothing is allocated."""

    def specs(module: Callable[[], nnx.Module], stacked: bool) -> Params:
        state = nnx.split(nnx.eval_shape(module))[1]
        lead_shape, lead_axes = ((config.layers,), ("layers",)) if stacked else ((), ())
        return {
            name: ParamSpec(
                lead_shape + param.shape,
                param.dtype,
                lead_axes + param.get_metadata("axes"),
                param.get_metadata("decays"),
                param.get_metadata("keeps_float32"),
            )
            for name, param in state.items()
        }

    # The key is made inside, where it is abstract too: a real one would be the first program that this process compiles.
    ends = specs(lambda: EmbeddingAndHead(config, jax.random.key(0)), stacked=False)
    return {**ends, "blocks": specs(lambda: Block(config, jax.random.key(0)), stacked=True)}


@functools.cache
def block_def(config: DecoderConfig) -> nnx.GraphDef:
    """What `nnx.merge` needs to turn one layer's dict of arrays into a `Block`."""
    return nnx.split(nnx.eval_shape(lambda: Block(config, jax.random.key(0))))[0]


def _plain(module: nnx.Module) -> Params:
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


# Forward ---------------------------------------------------------------------------------------------------------------


def hidden_states(
    params: Params,
    config: DecoderConfig,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segment_ids_BT: jax.Array,
    *,
    group_ids_BT: jax.Array | None = None,
    dtype: Any = jnp.float32,
    remat: bool = False,
) -> jax.Array:
    """Final-norm outputs [B, T, D] in `dtype` for packed rows.

    Args:
      params: the plain tree, any float dtype.
      config: the decoder.
      tokens_BT: int32 token ids.
      positions_BT: int32, from 0 within each segment.
      segment_ids_BT: int32, 0 for padding, otherwise the segment within the row.
      group_ids_BT: int32, where prompts are shared (`data.sharing`): whose prompt a token sees; segment 0 of a group is its prompt.
      dtype: compute dtype.
      remat: recompute each block in the backward pass.
    """
    graphdef = block_def(config)
    kinds, tables = config.kinds, rope_tables(config, positions_BT)
    shared = None if group_ids_BT is None else SharedPrompts(group_ids_BT, positions_BT)

    def layer(x_BTD: jax.Array, inputs: tuple[Params, jax.Array]) -> tuple[jax.Array, None]:
        layer_params, kind = inputs
        rope, window = tables[0], cast(Window, kinds[0].window)
        if len(kinds) > 1:
            rope = jax.tree.map(lambda *of_kinds: jnp.stack(of_kinds)[kind], *tables)
            window = jnp.array([of_kind.window or UNLIMITED for of_kind in kinds])[kind]

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
            return packed_attention(config, q, k, v, segment_ids_BT, window, shared=shared), None

        x_BTD, _ = nnx.merge(graphdef, layer_params)(x_BTD, rope, attend)
        return constrain(x_BTD, "batch", None, None), None

    if remat:
        layer = jax.checkpoint(layer)
    x_BTD = constrain(embed(params, config, tokens_BT, dtype), "batch", None, None)
    x_BTD, _ = jax.lax.scan(layer, x_BTD, (params["blocks"], jnp.array(config.kind_of_layer)))
    return rms_norm(x_BTD, params["final_norm"], config)


def embed(params: Params, config: DecoderConfig, tokens: jax.Array, dtype: Any) -> jax.Array:
    """Embeddings [..., D] of token ids [...]."""
    x = params["embed"][tokens].astype(dtype)
    return x * jnp.asarray(config.width**0.5, dtype) if config.scaled_embeddings else x


def head_table(params: Params) -> jax.Array:
    """The output matrix [V, D]: the head, or the embedding where they are tied."""
    return params["head"] if "head" in params else params["embed"]
