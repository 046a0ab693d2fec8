"""The two things that training minimises, as functions of one packed micro-batch. Arrays are laid out as in `models.forward`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxpolya.models.decoder import Params
from jaxpolya.models.forward import Forward
from jaxpolya.train.losses import Mean, PolicyLoss, Tokens, Values, aggregate
from jaxpolya.train.state import LossFn, Maxima, Means


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
    `logp_ref` where there is a reference; `value_old` and `returns` where there is a value head.
    """
    forward = dataclasses.replace(forward, entropy_gradient=loss.entropy_bonus > 0)

    def objective(params: Params, batch: dict[str, jax.Array]) -> tuple[Means, Maxima]:
        given = {name: array[:, 1:] for name, array in batch.items()}
        values = None
        if loss.value is None:
            logp, entropy = forward.logprobs(params, batch)
        else:
            logp, entropy, value = forward.logprobs_and_values(params, batch, loss.value.coefficient)
            values = Values(value, given["value_old"], given["returns"])
        mask = given["weights"] > 0
        tokens = Tokens.of(
            logp, given["logp_old"], given["advantage"], mask, given["segment_ids"],
            logp_sampler_BT=given.get("logp_sampler"), logp_ref_BT=given.get("logp_ref"),
        )  # fmt: skip
        means, maxima = loss(tokens, entropy, values)
        return means | {"tokens": _count(mask)}, maxima

    return objective


def _count(mask: jax.Array) -> Mean:
    """The number of tokens, as the sum of a mean."""
    return Mean(mask.sum(dtype=jnp.float32), jnp.float32(1))
