"""Drawing tokens, with addressed randomness.

A token's key is fold_in(fold_in(seed, sequence id), position): which lane a sequence sat in, when it was refilled and how
many hosts there were do not enter. The draw inverts the cumulative distribution in two levels (a block of the vocabulary,
then a token within it), from two uniform numbers a row: a Gumbel draw would need one for every entry of the vocabulary.

The log-probability recorded with a token is that of the temperature-scaled full-vocabulary distribution, which is what the
RL loss is defined on; top-k and top-p restrict the draw only.
"""

import dataclasses

import jax
import jax.numpy as jnp

BLOCKS = (256, 128)  # entries of the vocabulary in a block, about √V; one that divides V needs no padded copy of [B, V]


@dataclasses.dataclass(frozen=True)
class Draw:
    """What is static about drawing. `greedy` ignores the rest; `top_k` 0 and `top_p` False are off."""

    greedy: bool = False
    top_k: int = 0
    top_p: bool = False


def token_keys(seed: jax.Array, sequence_ids_B: jax.Array, positions_B: jax.Array) -> jax.Array:
    """Keys [B] of the tokens at `positions_B` of the sequences; `seed` is a typed key."""
    return jax.vmap(lambda sequence, position: jax.random.fold_in(jax.random.fold_in(seed, sequence), position))(
        sequence_ids_B, positions_B
    )


def sample(logits_BV: jax.Array, keys_B: jax.Array, temperature: jax.Array, top_p: jax.Array, draw: Draw) -> tuple[jax.Array, jax.Array]:
    """(token ids [B] int32, their log-probs [B] float32 in nats).

    Args:
      logits_BV: float32, unscaled.
      keys_B: typed keys from `token_keys`.
      temperature: positive float32 scalar (1 where the draw is greedy).
      top_p: float32 scalar, used where `draw.top_p`.
      draw: what is static.
    """
    scaled_BV = logits_BV / temperature
    peak_B1 = jnp.max(scaled_BV, axis=-1, keepdims=True)
    weights_BV = jnp.exp(scaled_BV - peak_B1)
    total_B = jnp.sum(weights_BV, axis=-1)
    if draw.greedy:
        tokens_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    else:
        if draw.top_k:
            weights_BV = _keep_top_k(weights_BV, draw.top_k)
        if draw.top_p:
            weights_BV = _keep_top_p(weights_BV, top_p)
        tokens_B = _invert(weights_BV, jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B))
    picked_B = jnp.take_along_axis(scaled_BV, tokens_B[:, None], axis=-1)[:, 0]
    return tokens_B, picked_B - peak_B1[:, 0] - jnp.log(total_B)


def _invert(weights_BV: jax.Array, uniforms_B2: jax.Array) -> jax.Array:
    """Tokens [B] drawn in proportion to non-negative weights."""
    B, V = weights_BV.shape
    size = next((size for size in BLOCKS if V % size == 0), BLOCKS[0])
    blocks_BnX = jnp.pad(weights_BV, ((0, 0), (0, -V % size))).reshape(B, -1, size)
    sums_Bn = jax.lax.platform_dependent(blocks_BnX, tpu=sums_by_product, default=lambda blocks_BnX: jnp.sum(blocks_BnX, axis=-1))
    block_B = _first_beyond(jnp.cumsum(sums_Bn, axis=-1), uniforms_B2[:, 0])
    inner_BX = jnp.take_along_axis(blocks_BnX, block_B[:, None, None], axis=1)[:, 0]
    return block_B * size + _first_beyond(jnp.cumsum(inner_BX, axis=-1), uniforms_B2[:, 1])


def sums_by_product(blocks_BnX: jax.Array) -> jax.Array:
    """Sums [B, n] of the last axis, in float32, as a product with ones.

    A TPU adds up the lanes of a register slowly, and the sums then lie across registers and have to be transposed; a product takes an
    eighth of the cycles (modelled for v5e). With a single column of ones XLA would turn it back into a sum; with eight it stays a product,
    of which only the column that is taken is computed.
    """
    ones_X8 = jnp.ones((blocks_BnX.shape[-1], 8), blocks_BnX.dtype)
    return jnp.einsum("bnx,xo->bno", blocks_BnX, ones_X8, precision=jax.lax.Precision.HIGHEST)[..., 0]


def _first_beyond(cumulative_BX: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """First index whose cumulative weight exceeds uniform × total; never one of weight zero."""
    total_B = cumulative_BX[:, -1]
    target_B = jnp.minimum(uniform_B * total_B, total_B * (1 - 2**-23))
    return jnp.sum(cumulative_BX <= target_B[:, None], axis=-1, dtype=jnp.int32)


def _keep_top_k(weights_BV: jax.Array, k: int) -> jax.Array:
    """Zero below the k-th largest weight (ties with it stay)."""
    threshold_B = jax.lax.top_k(weights_BV, min(k, weights_BV.shape[-1]))[0][:, -1]
    return jnp.where(weights_BV >= threshold_B[:, None], weights_BV, 0.0)


def _keep_top_p(weights_BV: jax.Array, p: jax.Array) -> jax.Array:
    """Zero outside the smallest set of largest weights with at least share p of the sum (Holtzman et al., arXiv 1904.09751)."""
    sorted_BV = jnp.sort(weights_BV, axis=-1, descending=True)
    before_BV = jnp.cumsum(sorted_BV, axis=-1) - sorted_BV
    kept_BV = before_BV < p * jnp.sum(sorted_BV, axis=-1, keepdims=True)
    threshold_B = jnp.min(jnp.where(kept_BV, sorted_BV, jnp.inf), axis=-1)
    return jnp.where(weights_BV >= threshold_B[:, None], weights_BV, 0.0)
