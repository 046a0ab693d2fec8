"""The two things that training minimises, as functions of one packed micro-batch.

Arrays are [B, T] and aligned to the token that they are about: entry t belongs to predicting token t from those before it.
The shift happens here and nowhere else.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, head_table, hidden_states
from jaxpolya.models.heads import token_logprobs
from jaxpolya.train.losses import Mean, PolicyLoss, Tokens, aggregate
from jaxpolya.train.state import LossFn, Maxima, Means


@dataclasses.dataclass(frozen=True)
class Forward:
    """What is static about a forward pass over packed rows."""

    config: DecoderConfig
    dtype: Any
    """Compute dtype."""
    remat: bool = False
    """Recompute blocks in the backward pass."""
    temperature: float = 1.0
    """Divides the logits."""
    entropy_gradient: bool = False
    """Whether the entropy has a gradient."""

    def logprobs(self, params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """(log p of tokens 1 … T−1, entropy of their distributions), [B, T − 1] float32; entry t is about token t + 1."""
        hidden_BTD = hidden_states(
            params, self.config, batch["tokens"], batch["positions"], batch["segment_ids"], dtype=self.dtype, remat=self.remat
        )
        table_VD, targets = head_table(params), batch["tokens"][:, 1:]
        return token_logprobs(
            self.config, hidden_BTD[:, :-1], table_VD, targets, temperature=self.temperature, entropy_gradient=self.entropy_gradient
        )


@functools.cache
def sft_objective(forward: Forward) -> LossFn:
    """Next-token loss (nats) over the tokens of weight 1, as a token mean; `tokens` counts them."""

    def objective(params: Params, batch: dict[str, jax.Array]) -> tuple[Means, Maxima]:
        logp, _ = forward.logprobs(params, batch)
        mask = batch["weights"][:, 1:] > 0
        return {"loss": aggregate(-logp, mask, "token_mean"), "tokens": _count(mask)}, {}

    return objective


@functools.cache
def policy_objective(forward: Forward, loss: PolicyLoss) -> LossFn:
    """A policy-gradient loss over the tokens of weight 1.

    The batch has two arrays more than SFT's, `logp_old` and `advantage`; `logp_sampler` where `logp_old` isn't the sampler's record, and
    `logp_ref` where there is a reference.
    """
    forward = dataclasses.replace(forward, entropy_gradient=loss.entropy_bonus > 0)

    def objective(params: Params, batch: dict[str, jax.Array]) -> tuple[Means, Maxima]:
        logp, entropy = forward.logprobs(params, batch)
        mask = batch["weights"][:, 1:] > 0
        given = {name: values[:, 1:] for name, values in batch.items()}
        tokens = Tokens.of(
            logp, given["logp_old"], given["advantage"], mask, given["segment_ids"],
            logp_sampler_BT=given.get("logp_sampler"), logp_ref_BT=given.get("logp_ref"),
        )  # fmt: skip
        means, maxima = loss(tokens, entropy)
        return means | {"tokens": _count(mask)}, maxima

    return objective


def _count(mask: jax.Array) -> Mean:
    """The number of tokens, as the sum of a mean."""
    return Mean(mask.sum(dtype=jnp.float32), jnp.float32(1))
