"""The clipped policy-gradient loss, and what "the mean over a batch" means for it.

The per-token loss is the same in every algorithm here; they differ in how advantages are made and in what the sum is divided
by, which is what `ALGORITHMS` says. That choice is not cosmetic: a mean per sequence pays less for each token of a long
response, a mean over tokens does not, and a constant divisor takes no notice of length at all.

Everything is returned as `Mean`, a sum with its count, and divided by nobody in here. A caller differentiates `.sum`, adds
sums and counts over micro-batches (`jax.tree.map(jnp.add, …)`) and divides once at the end, so packing, accumulation and
sharding cannot change a number. What does not add up (a maximum) is returned apart.

Padded positions may hold anything, −1e9 and NaN included. They are replaced *before* `exp`: a `where` behind it would hide
the infinity from the value, but not from the gradient, where 0 · ∞ is NaN.

Sequences are segments: `segment_ids_BT` counts them 1, 2, … within each row and is 0 on padding. A padded batch, one sequence
a row, is the same thing with all ids 1, which is the default.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from jaxpolya.config import Aggregation
from jaxpolya.train.advantages import AdvantageKind

MAX_LOG_RATIO = 20.0
"""Log-ratios are held within ± this: e^20 is far outside any clip, and exp must not overflow on a token gone astray."""


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """What tells one group-relative algorithm from another, besides ε."""

    advantages: AdvantageKind
    aggregation: Aggregation
    drops_no_signal: bool
    """Whether groups whose rewards are all equal leave the denominator too (their advantages are 0 in any case)."""


ALGORITHMS = {
    "grpo": Algorithm("normalised", "token_mean", drops_no_signal=False),
    "dapo": Algorithm("normalised", "token_mean", drops_no_signal=True),
    "dr_grpo": Algorithm("centred", "constant", drops_no_signal=False),
}
"""By the names of `RlConfig.algorithm`: GRPO as arXiv 2402.03300 with the token mean of arXiv 2503.14476 (DAPO, eq. 8), the same
without groups that carry no signal, and Dr. GRPO (arXiv 2503.20783)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean that is not taken yet: two scalars that add up over anything."""

    sum: jax.Array
    count: jax.Array

    @property
    def value(self) -> jax.Array:
        """sum / count; 0 where nothing was counted."""
        return self.sum / jnp.maximum(self.count, 1)


def policy_loss(
    logp_new_BT: jax.Array,
    logp_old_BT: jax.Array,
    advantages_BT: jax.Array,
    mask_BT: jax.Array,
    *,
    clip_low: float,
    clip_high: float,
    aggregation: Aggregation = "token_mean",
    segment_ids_BT: jax.Array | None = None,
    max_length: int | None = None,
) -> tuple[dict[str, Mean], dict[str, jax.Array]]:
    """The clipped surrogate (PPO, arXiv 1707.06347, eq. 7, with ε_low and ε_high as in DAPO, eq. 8), to be minimised.

    With r = exp(logp_new − logp_old), a token's loss is −min(r·A, clip(r, 1−ε_low, 1+ε_high)·A).

    Args:
      logp_new_BT: natural-log probabilities of the tokens under the trained policy; the only argument with a gradient.
      logp_old_BT: the same under the policy that sampled them.
      advantages_BT: A, repeated over a sequence's tokens.
      mask_BT: bool, the tokens that are learnt from; the other arrays may hold anything elsewhere.
      clip_low, clip_high: ε_low and ε_high.
      aggregation: what the loss is divided by; see `aggregate`, which also explains the last two.
      segment_ids_BT: int32.
      max_length: tokens.

    Returns:
      Means and maxima, float32 at least, each computed over the whole batch. Means: `loss` (by `aggregation`) and, per token,
      `clip` (share of tokens whose gradient the clip removes), `ratio` (r), and `kl_k1`, `kl_k2`, `kl_k3` (estimates of
      KL(old ‖ new), nats). Maxima: `ratio_max`.
    """
    ratio_BT = jnp.exp(_log_ratio(logp_new_BT, logp_old_BT, mask_BT))
    # The minimum binds from above where A > 0 and from below where A < 0.
    bounded_BT = jnp.where(advantages_BT > 0, jnp.minimum(ratio_BT, 1 + clip_high), jnp.maximum(ratio_BT, 1 - clip_low))
    clipped_BT = (bounded_BT != ratio_BT) & (advantages_BT != 0)
    per_token = {"clip": clipped_BT, "ratio": ratio_BT}
    per_token |= {f"kl_{name}": kl_BT for name, kl_BT in kl_estimates(logp_old_BT, logp_new_BT, mask_BT).items()}
    means = {name: aggregate(values_BT, mask_BT, "token_mean") for name, values_BT in per_token.items()}
    means["loss"] = aggregate(-bounded_BT * advantages_BT, mask_BT, aggregation, segment_ids_BT=segment_ids_BT, max_length=max_length)
    return means, {"ratio_max": jnp.max(jnp.where(mask_BT, ratio_BT, 0))}


def aggregate(
    values_BT: jax.Array,
    mask_BT: jax.Array,
    mode: Aggregation,
    *,
    segment_ids_BT: jax.Array | None = None,
    max_length: int | None = None,
) -> Mean:
    """Sum and count of per-token values, for one of four meanings of "mean".

    - `token_mean`: Σ over all tokens / number of tokens.
    - `seq_mean_token_mean`: Σ over sequences of the sequence's token mean / number of sequences with a token in the mask.
    - `seq_mean_token_sum`: Σ over sequences of the sequence's token sum / number of sequences with a token in the mask.
    - `constant`: Σ over all tokens / (number of sequences, masked or not · `max_length`) (Dr. GRPO).

    Args:
      values_BT: any dtype; ignored where the mask is False.
      mask_BT: bool.
      mode: one of the above.
      segment_ids_BT: int32, sequences counted 1, 2, … within a row, 0 on padding; None takes each row for one sequence.
      max_length: the longest response possible, in tokens; needed by `constant` only.
    """
    dtype = jnp.promote_types(values_BT.dtype, jnp.float32)
    values_BT = jnp.where(mask_BT, values_BT, 0).astype(dtype)
    if mode == "token_mean":
        return Mean(values_BT.sum(), mask_BT.sum(dtype=dtype))

    if segment_ids_BT is None:
        segment_ids_BT = jnp.ones(values_BT.shape, jnp.int32)
    # A row of T tokens holds at most T sequences; id 0, the padding, is cut off. The last axis then counts sequences.
    per_sequence = jax.vmap(partial(jax.ops.segment_sum, num_segments=values_BT.shape[1] + 1))
    if mode == "constant":
        if max_length is None:
            raise ValueError("aggregation 'constant' divides by rows · max_length: max_length is needed")
        positions = per_sequence(jnp.ones(values_BT.shape, dtype), segment_ids_BT)[:, 1:]
        return Mean(values_BT.sum(), (positions > 0).sum(dtype=dtype) * max_length)

    sums = per_sequence(values_BT, segment_ids_BT)[:, 1:]
    tokens = per_sequence(mask_BT.astype(dtype), segment_ids_BT)[:, 1:]
    if mode == "seq_mean_token_mean":
        sums = sums / jnp.maximum(tokens, 1)
    return Mean(sums.sum(), (tokens > 0).sum(dtype=dtype))


def kl_estimates(logp_BT: jax.Array, logp_other_BT: jax.Array, mask_BT: jax.Array) -> dict[str, jax.Array]:
    """Per-token estimates k1, k2, k3 of KL(p ‖ q) in nats, from tokens that were sampled from p; 0 outside the mask.

    With log r = log q − log p (Schulman, "Approximating KL divergence", 2020): k1 = −log r is unbiased and noisy, k2 =
    (log r)² / 2 is biased and calm, k3 = r − 1 − log r is unbiased, calm and never negative.
    """
    log_ratio_BT = _log_ratio(logp_other_BT, logp_BT, mask_BT)
    return {"k1": -log_ratio_BT, "k2": log_ratio_BT**2 / 2, "k3": jnp.expm1(log_ratio_BT) - log_ratio_BT}


def _log_ratio(logp_new_BT: jax.Array, logp_old_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """logp_new − logp_old, safe to exponentiate: 0 outside the mask, bounded inside it; at least float32."""
    difference_BT = logp_new_BT.astype(jnp.promote_types(logp_new_BT.dtype, jnp.float32)) - logp_old_BT
    return jnp.clip(jnp.where(mask_BT, difference_BT, 0), -MAX_LOG_RATIO, MAX_LOG_RATIO)
