"""From hidden states to logits and log-probabilities, never holding [B, T, V].

Log-probabilities mean one thing everywhere: natural log of the softmax of logits / temperature over the full vocabulary. The
time axis is cut into chunks; a chunk's logits exist only while it is processed, and again, recomputed, in the backward pass.
"""

import jax
import jax.numpy as jnp

from jaxpolya.models.attention import precision_of, softcap
from jaxpolya.models.config import DecoderConfig
from jaxpolya.parallel.sharding import constrain, data_shards_in_context

CHUNK_TOKENS = 512  # of a data shard, whose logits exist at one time


def logits(config: DecoderConfig, hidden: jax.Array, table_VD: jax.Array) -> jax.Array:
    """Logits [..., V], float32, of hidden states [..., D]."""
    out = jax.lax.dot_general(
        table_VD.astype(hidden.dtype),
        hidden,
        (((1,), (hidden.ndim - 1,)), ((), ())),
        precision=precision_of(hidden),
        preferred_element_type=jnp.float32,
    )
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
      chunk: positions of a row whose logits exist at one time; None makes chunks of `CHUNK_TOKENS`.
      entropy_gradient: whether the entropy has one; it costs another pass over the chunk's logits.
    """
    B, T, D = hidden_BTD.shape
    chunk = min(T, chunk or max(1, CHUNK_TOKENS * data_shards_in_context() // B))
    # Gathered here once; inside the scan it would be gathered for every chunk.
    table_VD = constrain(table_VD.astype(hidden_BTD.dtype), "vocab", None)
    pad = -T % chunk
    hidden = jnp.pad(hidden_BTD, ((0, 0), (0, pad), (0, 0))).reshape(B, -1, chunk, D).swapaxes(0, 1)
    targets = jnp.pad(targets_BT, ((0, 0), (0, pad))).reshape(B, -1, chunk).swapaxes(0, 1)

    @jax.checkpoint
    def one_chunk(_: None, inputs: tuple[jax.Array, jax.Array]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        hidden_BCD, targets_BC = inputs
        scores_BCV = constrain(logits(config, hidden_BCD, table_VD) / temperature, "batch", None, "vocab")
        normaliser_BC = jax.nn.logsumexp(scores_BCV, axis=-1)
        # A masked sum instead of a gather: it stays local where the vocabulary is sharded.
        hit_BCV = jnp.arange(scores_BCV.shape[-1]) == targets_BC[..., None]
        target_BC = jnp.sum(jnp.where(hit_BCV, scores_BCV, 0.0), axis=-1)
        still = (scores_BCV, normaliser_BC)
        still_BCV, still_BC = still if entropy_gradient else jax.lax.stop_gradient(still)
        entropy_BC = still_BC - jnp.sum(jnp.exp(still_BCV - still_BC[..., None]) * still_BCV, axis=-1)
        return None, (target_BC - normaliser_BC, entropy_BC)

    _, (logp, entropy) = jax.lax.scan(one_chunk, None, (hidden, targets))
    return tuple(x.swapaxes(0, 1).reshape(B, -1)[:, :T] for x in (logp, entropy))  # type: ignore[return-value]
