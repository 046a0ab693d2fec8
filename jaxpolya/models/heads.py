"""From hidden states to logits and log-probabilities, never holding [B, T, V].

Log-probabilities mean one thing everywhere: natural log of the softmax of logits / temperature over the full vocabulary. The time axis is
cut into chunks, as large as a share of the device's memory has room for. A chunk's logits exist only while it is processed, and again,
recomputed, in the backward pass; where one chunk is all there is, they are kept instead: their gradient is what comes next anyway.

The gradient is written out. In training, logits lie [tokens, V], as all their products take them: transposed, they cost a CPU a fifth of a
product each time. The table's gradient is summed over chunks in float32, whatever the compute dtype.
"""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxpolya.models.attention import precision_of, softcap
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import FEW_TOKENS
from jaxpolya.parallel.sharding import constrain, data_shards_in_context, shards_in_context

CHUNK_SHARE = 1 / 32  # of a device's memory, for the logits of a chunk; their gradient takes about as much again
CHUNK_BYTES = 2**28  # where the device doesn't say how much memory it has, as CPUs don't


def logits(config: DecoderConfig, hidden: jax.Array, table_VD: jax.Array) -> jax.Array:
    """Logits [..., V], float32, of hidden states [..., D]."""
    out = jax.lax.dot_general(
        table_VD.astype(hidden.dtype),
        hidden,
        (((1,), (hidden.ndim - 1,)), ((), ())),
        precision=precision_of(hidden),
        preferred_element_type=jnp.float32,
    )
    if hidden.size // hidden.shape[-1] <= FEW_TOKENS:
        # A CPU makes the product of a step faster with the table first. XLA would put it second, to save the transpose of a small result.
        out = jax.lax.platform_dependent(out, cpu=jax.lax.optimization_barrier, default=lambda out: out)
    return softcap(jnp.moveaxis(out, 0, -1), config.logit_cap)


def values(hidden_BTD: jax.Array, value_D: jax.Array, bias: jax.Array) -> jax.Array:
    """What a value head says of hidden states [B, T, D]: [B, T], float32."""
    return jnp.einsum("btd,d->bt", hidden_BTD.astype(jnp.float32), value_D, precision=jax.lax.Precision.HIGHEST) + bias


def token_logprobs(
    config: DecoderConfig,
    hidden_BTD: jax.Array,
    table_VD: jax.Array,
    targets_BT: jax.Array,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy_gradient: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """(log p of each target [B, T], entropy of each distribution [B, T]), float32, in nats.

    Args:
      config: how logits are capped.
      hidden_BTD: final-norm outputs; position t predicts `targets_BT[:, t]`.
      table_VD: the output matrix.
      targets_BT: int32.
      temperature: divides the logits.
      chunk: positions of a row whose logits exist at one time; None: as many as there is memory for (`chunk_tokens`).
      entropy_gradient: whether the entropy has one.
    """
    B, T = targets_BT.shape
    chunk = min(T, chunk or max(1, chunk_tokens(table_VD.shape[0]) * data_shards_in_context() // B))
    return _logprobs(_Head(config.logit_cap, temperature, chunk, chunk == T, entropy_gradient), hidden_BTD, table_VD, targets_BT)


def chunk_tokens(vocabulary: int) -> int:
    """Tokens of a data shard whose logits exist at one time: a power of two, so that devices with about the same memory agree."""
    stored = 4 * -(-vocabulary // shards_in_context("vocab", vocabulary))
    return 2 ** max(0, int(_chunk_bytes() // stored).bit_length() - 1)


@functools.cache
def _chunk_bytes() -> int:
    memory = jax.local_devices()[0].memory_stats() or {}
    return int(memory["bytes_limit"] * CHUNK_SHARE) if "bytes_limit" in memory else CHUNK_BYTES


@dataclasses.dataclass(frozen=True)
class _Head:
    """What is static about log-probabilities."""

    cap: float | None
    temperature: float
    chunk: int
    whole: bool
    """Whether a chunk is all there is."""
    entropy_gradient: bool

    def scores(self, hidden_BCD: jax.Array, table_VD: jax.Array) -> jax.Array:
        """What the softmax is of: [B, C, V], float32."""
        contract = (((2,), (1,)), ((), ()))
        out_BCV = jax.lax.dot_general(hidden_BCD, table_VD, contract, precision_of(hidden_BCD), preferred_element_type=jnp.float32)
        return constrain(softcap(out_BCV, self.cap) / self.temperature, "batch", None, "vocab")

    def slope(self, scores_BCV: jax.Array) -> jax.Array | float:
        """Of the scores, by what the product gives."""
        return (1.0 if self.cap is None else 1 - jnp.square(scores_BCV * (self.temperature / self.cap))) / self.temperature


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logprobs(head: _Head, hidden_BTD: jax.Array, table_VD: jax.Array, targets_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _forward(head, hidden_BTD, table_VD, targets_BT)[0]


def _forward(head: _Head, hidden_BTD: jax.Array, table_VD: jax.Array, targets_BT: jax.Array) -> tuple[tuple[jax.Array, jax.Array], Any]:
    """((log p of the targets, entropies), what the gradient needs)."""
    table = _gathered(table_VD, hidden_BTD)

    def chunk(_: None, hidden_BCD: jax.Array, targets_BC: jax.Array) -> tuple[None, Any]:
        scores_BCV = head.scores(hidden_BCD, table)
        normaliser_BC = jax.nn.logsumexp(scores_BCV, axis=-1)
        logp_BCV = scores_BCV - normaliser_BC[..., None]
        # An entry without probability adds nothing. The condition is there for its speed: without one, the CPU library that jax 0.10's XLA
        # hands this sum to takes seven times as long.
        entropy_BC = -jnp.sum(jnp.exp(logp_BCV) * logp_BCV, axis=-1, where=logp_BCV != -jnp.inf)
        of_tokens = (_of_targets(scores_BCV, targets_BC) - normaliser_BC, entropy_BC, normaliser_BC)
        return None, (of_tokens, scores_BCV if head.whole else None)

    _, ((logp_BT, entropy_BT, normaliser_BT), kept_BTV) = _over_chunks(head, chunk, None, hidden_BTD, targets_BT)
    return (logp_BT, entropy_BT), (hidden_BTD, table_VD, targets_BT, normaliser_BT, entropy_BT, kept_BTV)


def _backward(head: _Head, kept: Any, gradients: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, None]:
    """Gradients of hidden states and table. By a score, log p has 1 at the target less p, and the entropy −p (log p + entropy)."""
    hidden_BTD, table_VD, targets_BT, normaliser_BT, entropy_BT, kept_BTV = kept
    table = _gathered(table_VD, hidden_BTD)

    def chunk(d_table_VD: jax.Array | None, hidden_BCD: jax.Array, targets_BC: jax.Array, *of_tokens: jax.Array) -> Any:
        normaliser, entropy, d_logp, d_entropy = (x_BC[..., None] for x_BC in of_tokens)
        scores_BCV = head.scores(hidden_BCD, table) if kept_BTV is None else kept_BTV
        logp_BCV = jnp.minimum(scores_BCV - normaliser, 0.0)  # scores made again may be rounded otherwise: huge ones would overflow
        by_p = d_logp + d_entropy * (logp_BCV + entropy) if head.entropy_gradient else d_logp
        at_target_BCV = jnp.arange(scores_BCV.shape[-1]) == targets_BC[..., None]
        d_out_BCV = (jnp.where(at_target_BCV, d_logp, 0.0) - jnp.exp(logp_BCV) * by_p) * head.slope(scores_BCV)
        d_out_BCV = constrain(d_out_BCV.astype(hidden_BCD.dtype), "batch", None, "vocab")
        product = partial(jnp.einsum, precision=precision_of(hidden_BCD), preferred_element_type=jnp.float32)
        more_VD = product("bcv,bcd->vd", d_out_BCV, hidden_BCD)
        d_hidden_BCD = product("bcv,vd->bcd", d_out_BCV, table).astype(hidden_BCD.dtype)
        return more_VD if d_table_VD is None else d_table_VD + more_VD, d_hidden_BCD

    begun = None if head.whole else jnp.zeros(table_VD.shape, jnp.float32)
    d_table_VD, d_hidden_BTD = _over_chunks(head, chunk, begun, hidden_BTD, targets_BT, normaliser_BT, entropy_BT, *gradients)
    return d_hidden_BTD, d_table_VD.astype(table_VD.dtype), None


_logprobs.defvjp(_forward, _backward)


def _over_chunks(head: _Head, function: Callable[..., Any], carry: Any, *arrays_BT: jax.Array) -> Any:
    """(what is carried, results [B, T, …]) of a function (carried, arrays of a chunk [B, C, …]) over the chunks of the time axis."""
    if head.whole:
        return function(carry, *arrays_BT)
    (B, T), pad = arrays_BT[0].shape[:2], -arrays_BT[0].shape[1] % head.chunk

    def cut(array: jax.Array) -> jax.Array:
        padded = jnp.pad(array, ((0, 0), (0, pad), *[(0, 0)] * (array.ndim - 2)))
        return padded.reshape(B, -1, head.chunk, *array.shape[2:]).swapaxes(0, 1)

    carry, results = jax.lax.scan(lambda carry, inputs: function(carry, *inputs), carry, tuple(map(cut, arrays_BT)))
    return carry, jax.tree.map(lambda result: result.swapaxes(0, 1).reshape(B, T + pad, *result.shape[3:])[:, :T], results)


def _gathered(table_VD: jax.Array, hidden: jax.Array) -> jax.Array:
    """The table as the products take it. Gathered here once; inside the scan it would be gathered for every chunk."""
    return constrain(table_VD.astype(hidden.dtype), "vocab", None)


def _of_targets(scores_BCV: jax.Array, targets_BC: jax.Array) -> jax.Array:
    """The scores [B, C] of the targets. A masked sum stays local where the vocabulary is sharded, and on a TPU is one pass with the other
    sums; on CPUs and GPUs it would be a pass of its own."""

    def masked_sum() -> jax.Array:
        return jnp.sum(jnp.where(jnp.arange(scores_BCV.shape[-1]) == targets_BC[..., None], scores_BCV, 0.0), axis=-1)

    def picked() -> jax.Array:
        return jnp.take_along_axis(scores_BCV, targets_BC[..., None], axis=-1)[..., 0]

    sharded = shards_in_context("vocab", scores_BCV.shape[-1]) > 1
    return jax.lax.platform_dependent(cpu=picked, cuda=masked_sum if sharded else picked, default=masked_sum)
