"""What a policy-gradient step minimises, and what "the mean over a batch" means for it.

An algorithm brings a per-token loss (`policy_terms`); this file puts it together with what can be added to every one of them (a
divergence from the reference, a bonus for entropy, weights that correct for the sampler) and aggregates the sum. What it is
divided by is not cosmetic: a mean per sequence pays less for each token of a long response, a mean over tokens does not, and a
constant divisor takes no notice of length at all.

Everything is returned as `Mean`, a sum with its count, and divided by nobody in here. A caller differentiates `.sum`, adds
sums and counts over micro-batches (`jax.tree.map(jnp.add, …)`) and divides once at the end, so packing, accumulation and
sharding cannot change a number. What does not add up (a maximum) is returned apart.

Padded positions may hold anything, −1e9 and NaN included. They are replaced *before* `exp`: a `where` behind it would hide
the infinity from the value, but not from the gradient, where 0 · ∞ is NaN.

Sequences are segments: `segment_ids_BT` counts them 1, 2, … within each row and is 0 on padding. A padded batch, one sequence
a row, is the same thing with all ids 1, which is the default.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxpolya.config import Aggregation, KlConfig, KlEstimator, ValueConfig
from jaxpolya.train.advantages import MAX_LOG_RATIO


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """What a per-token loss sees of a micro-batch: arrays [B, T], 0 wherever `mask_BT` is False. Log-probs are natural.

    Made by `Tokens.of`. `logp_new_BT` is the only array with a gradient.
    """

    logp_new_BT: jax.Array
    """Under the policy that is trained."""
    logp_old_BT: jax.Array
    """Under the policy that drew the round: the sampler's record, or recomputed by the trainer before the round's first update."""
    advantages_BT: jax.Array
    """A."""
    mask_BT: jax.Array
    """bool: the tokens that are learnt from."""
    segment_ids_BT: jax.Array
    """int32: sequences counted 1, 2, … within a row, 0 on padding and on prompts that responses share (`rl.share_prompts`)."""
    logp_sampler_BT: jax.Array
    """As the sampler recorded it; `logp_old_BT` itself where that isn't recomputed."""
    logp_ref_BT: jax.Array | None
    """Under the reference, the model that the arm's training started from; None where nothing needs it."""

    @classmethod
    def of(
        cls,
        logp_new_BT: jax.Array,
        logp_old_BT: jax.Array,
        advantages_BT: jax.Array,
        mask_BT: jax.Array,
        segment_ids_BT: jax.Array | None = None,
        *,
        logp_sampler_BT: jax.Array | None = None,
        logp_ref_BT: jax.Array | None = None,
    ) -> "Tokens":
        """Arrays that may hold anything outside the mask; None for the segments takes each row for one sequence."""

        def inside(values_BT: jax.Array) -> jax.Array:
            return jnp.where(mask_BT, values_BT, 0).astype(jnp.promote_types(values_BT.dtype, jnp.float32))

        old_BT = jax.lax.stop_gradient(inside(logp_old_BT))
        return cls(
            logp_new_BT=inside(logp_new_BT),
            logp_old_BT=old_BT,
            advantages_BT=jax.lax.stop_gradient(inside(advantages_BT)),
            mask_BT=mask_BT,
            segment_ids_BT=jnp.ones(mask_BT.shape, jnp.int32) if segment_ids_BT is None else segment_ids_BT,
            logp_sampler_BT=old_BT if logp_sampler_BT is None else jax.lax.stop_gradient(inside(logp_sampler_BT)),
            logp_ref_BT=None if logp_ref_BT is None else jax.lax.stop_gradient(inside(logp_ref_BT)),
        )

    @property
    def log_ratio_BT(self) -> jax.Array:
        """log r = logp_new − logp_old, held within ±`MAX_LOG_RATIO`."""
        return _bounded(self.logp_new_BT - self.logp_old_BT)

    @property
    def ratio_BT(self) -> jax.Array:
        """r; 1 outside the mask."""
        return jnp.exp(self.log_ratio_BT)

    def sequence_mean(self, values_BT: jax.Array) -> jax.Array:
        """At each token the mean of a per-token quantity over the learnt tokens of its sequence, [B, T]; 0 on padding."""
        per_sequence = _per_sequence(self.mask_BT.shape[1])
        sums_BS = per_sequence(jnp.where(self.mask_BT, values_BT, 0), self.segment_ids_BT)
        counts_BS = per_sequence(self.mask_BT.astype(sums_BS.dtype), self.segment_ids_BT)
        means_BT = jnp.take_along_axis(sums_BS / jnp.maximum(counts_BS, 1), self.segment_ids_BT, axis=1)
        return jnp.where(self.mask_BT, means_BT, 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Values:
    """What a value head says of what stands before each token, and what it is to say: arrays [B, T], which may hold anything outside the
    mask."""

    new_BT: jax.Array
    """With a gradient."""
    old_BT: jax.Array
    """Before the round's first update."""
    returns_BT: jax.Array


TokenLoss = Callable[[Tokens], tuple[jax.Array, dict[str, jax.Array]]]
"""tokens → (what each token adds to the loss, [B, T], to be minimised; per-token quantities [B, T] whose means are logged by name).

Both may hold anything outside the mask. It is traced by `jax.jit` and must be hashable (a function, or a frozen dataclass with
`__call__`): equal ones share a compiled program.
"""


@dataclasses.dataclass(frozen=True)
class PolicyLoss:
    """The whole loss: an algorithm's own term and what is added to it. Hashable."""

    token_loss: TokenLoss
    aggregation: Aggregation = "token_mean"
    max_length: int | None = None
    """The longest response possible, in tokens; `constant` divides by it."""
    kl: KlConfig | None = None
    """A divergence from the reference, where it is part of the loss."""
    entropy_bonus: float = 0.0
    """What a nat of entropy takes off a token's loss."""
    tis: float | None = None
    """C: each token's loss times min(π_old / π_sampler, C)."""
    icepop: tuple[float, float] | None = None
    """[α, β]: each token's loss times π_old / π_sampler, or 0 where that is outside."""
    value: ValueConfig | None = None
    """A value head, whose loss is added to the policy's."""

    def __call__(self, tokens: Tokens, entropy_BT: jax.Array, values: Values | None = None) -> tuple[dict[str, Mean], dict[str, jax.Array]]:
        """Means and maxima over a micro-batch, float32 at least.

        Args:
          tokens: the batch.
          entropy_BT: of the new policy's distributions, nats; with a gradient where there is a bonus for it.
          values: of the value head, where there is one.

        Returns:
          Means: `loss` (by `aggregation`) and, per token, `ratio` (r), `entropy`, `kl_k1`, `kl_k2`, `kl_k3` (estimates of
          KL(old ‖ new), nats), `sampler_kl` (k3 of KL(sampler ‖ new)), `reference_kl` (k3 of KL(new ‖ reference), where there is one),
          `corrected` (share of tokens whose weight `tis` or `icepop` changed to a bound or to 0), `value_loss` and `value_clip` (share of
          tokens on which the bound of the value's move holds) of a value head, and what the token loss reports, such as `clip`.
          Maxima: `ratio_max`.
        """
        loss_BT, reported = self.token_loss(tokens)
        weights_BT, corrected_BT = self._correction(tokens)
        per_token = dict(reported) | {"ratio": tokens.ratio_BT, "entropy": entropy_BT}
        if weights_BT is not None:
            loss_BT, per_token["corrected"] = loss_BT * weights_BT, corrected_BT
        if self.kl is not None:
            loss_BT = loss_BT + self.kl.weight * self._divergence(tokens, self.kl.estimator)
        if self.entropy_bonus:
            loss_BT = loss_BT - self.entropy_bonus * jnp.where(tokens.mask_BT, entropy_BT, 0)
        if values is not None:
            value_loss_BT, held_BT = value_loss(values, tokens.mask_BT, self.value.clip if self.value else None)
            loss_BT = loss_BT + value_loss_BT
            per_token |= {"value_loss": value_loss_BT, "value_clip": held_BT}
        old_new = kl_estimates(tokens.logp_old_BT, tokens.logp_new_BT, tokens.mask_BT)
        per_token |= {f"kl_{name}": kl_BT for name, kl_BT in old_new.items()}
        per_token["sampler_kl"] = kl_estimates(tokens.logp_sampler_BT, tokens.logp_new_BT, tokens.mask_BT)["k3"]
        if tokens.logp_ref_BT is not None:
            per_token["reference_kl"] = self._divergence(tokens, "k3")
        means = {name: aggregate(values_BT, tokens.mask_BT, "token_mean") for name, values_BT in per_token.items()}
        means["loss"] = aggregate(
            loss_BT, tokens.mask_BT, self.aggregation, segment_ids_BT=tokens.segment_ids_BT, max_length=self.max_length
        )
        return means, {"ratio_max": jnp.max(jnp.where(tokens.mask_BT, tokens.ratio_BT, 0))}

    @staticmethod
    def _divergence(tokens: Tokens, estimator: KlEstimator) -> jax.Array:
        if tokens.logp_ref_BT is None:
            raise ValueError("a divergence from the reference needs the reference's log-probs")
        return kl_estimates(tokens.logp_new_BT, tokens.logp_ref_BT, tokens.mask_BT)[estimator]

    def _correction(self, tokens: Tokens) -> tuple[jax.Array | None, jax.Array]:
        """(the weights that make up for a sampler that isn't the trainer's old policy, which of them a bound has changed)."""
        weights_BT = jnp.exp(_bounded(tokens.logp_old_BT - tokens.logp_sampler_BT))
        if self.icepop is not None:
            low, high = self.icepop
            outside_BT = (weights_BT < low) | (weights_BT > high)
            return jnp.where(outside_BT, 0, weights_BT), outside_BT
        if self.tis is not None:
            return jnp.minimum(weights_BT, self.tis), weights_BT > self.tis
        return None, weights_BT


def value_loss(values: Values, mask_BT: jax.Array, clip: float | None) -> tuple[jax.Array, jax.Array]:
    """(half the squared error of each value, whether the bound decides it), [B, T]; 0 outside the mask.

    With `clip` the larger one of (V − R)² / 2 and the same of V held within ± `clip` of the old value (as in OpenAI's Baselines, and
    since then wherever PPO is): an update has nothing to gain from moving a value farther than that.
    """
    new_BT, old_BT, returns_BT = (jnp.where(mask_BT, x, 0).astype(jnp.float32) for x in (values.new_BT, values.old_BT, values.returns_BT))
    old_BT, returns_BT = jax.lax.stop_gradient((old_BT, returns_BT))
    error_BT = jnp.square(new_BT - returns_BT) / 2
    if clip is None:
        return error_BT, jnp.zeros_like(mask_BT)
    held_BT = jnp.square(old_BT + jnp.clip(new_BT - old_BT, -clip, clip) - returns_BT) / 2
    return jnp.maximum(error_BT, held_BT), held_BT > error_BT


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
    per_sequence = _per_sequence(values_BT.shape[1])
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


def _per_sequence(row_tokens: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(values [B, T], segment ids [B, T]) → sums [B, T + 1] by segment id; a row of T tokens holds at most T sequences, 0 is padding."""
    return jax.vmap(partial(jax.ops.segment_sum, num_segments=row_tokens + 1))


def kl_estimates(logp_BT: jax.Array, logp_other_BT: jax.Array, mask_BT: jax.Array) -> dict[KlEstimator, jax.Array]:
    """Per-token estimates k1, k2, k3 of KL(p ‖ q) in nats, from tokens that were sampled from p; 0 outside the mask.

    With log r = log q − log p (Schulman, "Approximating KL divergence", 2020): k1 = −log r is unbiased and noisy, k2 =
    (log r)² / 2 is biased and calm, k3 = r − 1 − log r is unbiased, calm and never negative.

    That is about their values. As losses, whose gradient is taken by p at fixed tokens, they are something else: k1 has the
    gradient ∇ log p, which is 0 in expectation; k2 has (log p − log q) ∇ log p, the gradient of KL(p ‖ q); k3 has (1 − q/p)
    ∇ log p, in expectation the gradient of KL(q ‖ p), the other direction.
    """
    difference_BT = logp_other_BT.astype(jnp.promote_types(logp_other_BT.dtype, jnp.float32)) - logp_BT
    log_ratio_BT = _bounded(jnp.where(mask_BT, difference_BT, 0))
    return {"k1": -log_ratio_BT, "k2": log_ratio_BT**2 / 2, "k3": jnp.expm1(log_ratio_BT) - log_ratio_BT}


def _bounded(log_ratio_BT: jax.Array) -> jax.Array:
    return jnp.clip(log_ratio_BT, -MAX_LOG_RATIO, MAX_LOG_RATIO)
