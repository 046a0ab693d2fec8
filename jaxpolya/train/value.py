"""The value head of PPO: where it lies, how it is trained, and what it makes of a round.

It is a linear read-out of the decoder's own final hidden states, not a second model: D + 1 numbers and their moments, where a critic of its
own would double everything. As a part of the parameters' tree (`DecoderConfig.value_head`) it is sharded, checkpointed and
resumed as they are; a rollout, a reference and an export are of the parameters without it (`policy_of`).

Its optimizer is apart: a rate of its own, and a gradient norm of its own to be clipped, so that a value that is still far off doesn't
shrink the policy's step. During the warm-up the policy's part stands still, count and moments included: its schedule begins behind it.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxpolya.config import Optimizer, ValueConfig
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params
from jaxpolya.train.advantages import Gae, Rewards
from jaxpolya.train.state import make_optimizer

HEAD = ("value", "value_bias")
"""The head's arrays in the parameters' tree."""


def with_head(decoder: DecoderConfig) -> DecoderConfig:
    """The decoder with a value head."""
    return dataclasses.replace(decoder, value_head=True)


def fresh_head(decoder: DecoderConfig) -> Params:
    """A head that says 0 of everything."""
    return {"value": np.zeros(decoder.width, np.float32), "value_bias": np.zeros((), np.float32)}


def policy_of(params: Params) -> Params:
    """The parameters without the head; the same arrays."""
    return {name: leaf for name, leaf in params.items() if name not in HEAD}


@functools.cache
def value_optimizer(
    config: Optimizer, value: ValueConfig, decoder: DecoderConfig, steps: int, updates: int, *, warming: bool
) -> optax.GradientTransformation:
    """The optimizer of policy and head, which `decoder` has, over so many steps of so many updates.

    `warming` leaves the policy and its optimizer's state as they are. The states of both kinds are alike.
    """
    policy = make_optimizer(config, decoder, (steps - value.warmup) * updates)
    head = make_optimizer(config.model_copy(update={"learning_rate": value.learning_rate}), decoder, steps * updates)
    return optax.partition({"policy": _still(policy) if warming else policy, "head": head}, _parts)


def _parts(params: Params) -> Params:
    return jax.tree.map_with_path(lambda path, _: "head" if path[0].key in HEAD else "policy", params)


def _still(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.GradientTransformation(optimizer.init, lambda updates, state, params=None: (jax.tree.map(jnp.zeros_like, updates), state))


def per_token(values: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Values of P · G responses' tokens as float64 [P, G, T], 0 beyond their ends: `Rewards.values_PGT`."""
    found_PGT = np.zeros((*shape, max(map(len, values))))
    for row, own in zip(found_PGT.reshape(-1, found_PGT.shape[-1]), values, strict=True):
        row[: len(own)] = own
    return found_PGT


def targets(rewards: Rewards, value: ValueConfig) -> tuple[np.ndarray, Mapping[str, float]]:
    """(what the head is to say at each token, float64 [P, G, T]; facts of the round).

    Facts: `value`, the mean of what it said, and `explained_variance`, 1 − Var(R − V) / Var(R) over the round's tokens: 1 is a head that
    knows every return, 0 one that knows no more than their mean, and a negative one is worse than that.
    """
    returns_PGT, mask_PGT = Gae(value.gamma, value.lam).returns(rewards), rewards.mask_PGT
    assert rewards.values_PGT is not None
    values, due = rewards.values_PGT[mask_PGT], returns_PGT[mask_PGT]
    if not len(due):
        return returns_PGT, {"value": 0.0, "explained_variance": 0.0}
    spread = due.var()
    explained = 1 - (due - values).var() / spread if spread > 0 else 0.0
    return returns_PGT, {"value": float(values.mean()), "explained_variance": float(explained)}
