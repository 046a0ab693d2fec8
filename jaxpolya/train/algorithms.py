"""Algorithms by name: each a handful of settings of the same code, and the door for a user's own.

An `Algorithm` says how advantages are made (`advantages`), what a token then adds to the loss (`policy_terms`), what the loss is a
mean over (`losses.aggregate`), and what a round must give it. `docs/algorithms.md` has the formulas. Settings of `RlConfig` that
are set go before an algorithm's own.
"""

import dataclasses
from collections.abc import Mapping
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxpolya.config import Aggregation, RlConfig, ValueConfig
from jaxpolya.doors import a, bring, is_reference
from jaxpolya.errors import ConfigError
from jaxpolya.train.advantages import (
    Estimator,
    Gae,
    Rewards,
    batch_normalised,
    centred,
    estimate,
    group_batch_normalised,
    leave_one_out,
    mean_normalised,
    normalised,
    plain,
)
from jaxpolya.train.losses import PolicyLoss, TokenLoss, Tokens
from jaxpolya.train.policy_terms import Cispo, Gspo, PpoClip, Reinforce


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a round must give an algorithm, besides rollouts and their rewards."""

    reference: bool = False
    """`Tokens.logp_ref_BT`: log-probs under the model that the arm's RL starts from, of which a copy in the compute dtype is held."""
    value: bool = False
    """A value head on the decoder, and `Rewards.values_PGT`: what it says before a round's first update."""
    mixed_groups: bool = False
    """Groups whose rewards are all equal leave the loss and its denominator (their advantages are 0 against the group in any case)."""
    refills: int = 0
    """How often further questions are asked to replace those groups, at most, where `mixed_groups`."""
    overlong: float = 0.0
    """Share of the longest response possible over which the reward falls by 1 (`advantages.soft_overlong_penalty`)."""


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """What tells one policy-gradient algorithm from another."""

    advantages: Estimator
    """Rewards of a round → advantages; numpy, on the host."""
    token_loss: TokenLoss
    """Tokens of a micro-batch → their losses; traced by jax."""
    aggregation: Aggregation = "token_mean"
    """What the loss is a mean over."""
    needs: Needs = Needs()
    """What a round must give it."""


PRESETS = {
    # arXiv 2402.03300, eq. 3 without its KL term, with the token mean of arXiv 2503.14476, eq. 8, as verl has it.
    "grpo": Algorithm(normalised, PpoClip(0.2, 0.2)),
    # arXiv 2503.20783, §3.2: no deviation, a constant divisor.
    "dr_grpo": Algorithm(centred, PpoClip(0.2, 0.2), "constant"),
    # arXiv 2503.14476, eq. 8 (clip-higher, token mean), 11 (dynamic sampling; ten batches a round at most, as verl), 13 (4,096 of 20,480
    # tokens).
    "dapo": Algorithm(normalised, PpoClip(0.2, 0.28), needs=Needs(mixed_groups=True, refills=9, overlong=0.2)),
    # arXiv 2507.18071, eq. 5 to 7, with the ε of its §5.1; `gspo_token` is eq. 13 and 14.
    "gspo": Algorithm(normalised, Gspo(3e-4, 4e-4), "seq_mean_token_mean"),
    "gspo_token": Algorithm(normalised, Gspo(3e-4, 4e-4, "token"), "seq_mean_token_mean"),
    # arXiv 2506.13585, eq. 4 and 5: no bound from below; its upper ε isn't published, weights up to 5 are ScaleRL's (arXiv 2510.13786).
    "cispo": Algorithm(normalised, Cispo(1.0, 4.0)),
    # arXiv 2402.14740, eq. 8: the sequence is the action.
    "rloo": Algorithm(leave_one_out, Reinforce(), "seq_mean_token_sum"),
    # arXiv 2501.03262: advantages normalised over the round; the second takes the group's mean off first.
    "reinforce++": Algorithm(batch_normalised, PpoClip(0.2, 0.2)),
    "reinforce++-baseline": Algorithm(group_batch_normalised, PpoClip(0.2, 0.2)),
    # arXiv 2602.02710: divided by the group's mean; the sequence is the action.
    "maxrl": Algorithm(mean_normalised, PpoClip(0.2, 0.2), "seq_mean_token_sum"),
    # Williams 1992: no baseline, no ratio.
    "reinforce": Algorithm(plain, Reinforce(), "seq_mean_token_sum"),
    # arXiv 1707.06347, eq. 7 and 9, with GAE and the means as InstructGPT's descendants have them.
    "ppo": Algorithm(Gae(), PpoClip(0.2, 0.2), needs=Needs(value=True)),
}
"""By the names of `RlConfig.algorithm`."""

CLIPS = {"clip_low": "low", "clip_high": "high", "clip_dual": "dual"}
"""Settings of `RlConfig` → fields of a token loss, where it has them."""

KEY = "rl.algorithm"


def make_algorithm(config: RlConfig) -> tuple[Algorithm, str | None]:
    """(the algorithm with the configuration's own settings, the digest of the file that a user brought; None for a preset).

    Raises `ConfigError` where it can't be found, isn't an `Algorithm`, doesn't do what one does, or has no such setting.
    """
    algorithm, digest = _named(config.algorithm)
    for setting, field in CLIPS.items():
        value = getattr(config, setting)
        if value is None:
            continue
        loss = algorithm.token_loss
        if not dataclasses.is_dataclass(loss) or field not in {known.name for known in dataclasses.fields(loss)}:
            raise ConfigError(f"rl.{setting}: the algorithm {config.algorithm} has no such bound; leave it out")
        algorithm = dataclasses.replace(algorithm, token_loss=dataclasses.replace(loss, **{field: value}))  # type: ignore[arg-type, type-var]
    if config.refills and not algorithm.needs.mixed_groups:
        raise ConfigError(f"rl.refills: {config.algorithm} learns from groups as they come, and has none to replace; leave it out")
    if config.value is not None and not algorithm.needs.value:
        raise ConfigError(f"rl.value: {config.algorithm} has no value head; leave it out")
    if (value := value_head(config, algorithm)) is not None:
        if value.warmup >= config.steps:
            raise ConfigError(f"rl.value.warmup ({value.warmup}) leaves none of the {config.steps} steps for the policy; lower it")
        if isinstance(algorithm.advantages, Gae):
            algorithm = dataclasses.replace(algorithm, advantages=Gae(value.gamma, value.lam))
    return dataclasses.replace(algorithm, aggregation=config.aggregation or algorithm.aggregation), digest


def policy_loss(config: RlConfig, algorithm: Algorithm) -> PolicyLoss:
    """The loss that an algorithm and a configuration's terms make together."""
    return PolicyLoss(
        algorithm.token_loss,
        algorithm.aggregation,
        max_length=config.sampling.max_new_tokens,
        kl=config.kl if config.kl is not None and config.kl.place == "loss" else None,
        entropy_bonus=config.entropy_bonus,
        tis=config.tis,
        icepop=config.icepop,
        value=value_head(config, algorithm),
    )


def value_head(config: RlConfig, algorithm: Algorithm) -> ValueConfig | None:
    """The settings of the value head; None where the algorithm has none."""
    return (config.value or ValueConfig()) if algorithm.needs.value else None


def needs_reference(config: RlConfig, algorithm: Algorithm) -> bool:
    """Whether log-probs under the start are computed."""
    return config.kl is not None or algorithm.needs.reference


def most_refills(config: RlConfig, algorithm: Algorithm) -> int:
    """How often a round's groups without signal are replaced, at most."""
    if config.refills is not None:
        return config.refills
    return algorithm.needs.refills if algorithm.needs.mixed_groups else 0


def overlong_buffer(config: RlConfig, algorithm: Algorithm) -> int:
    """Tokens over which the reward of a long response falls; 0 is off."""
    if config.overlong_buffer is not None:
        return config.overlong_buffer
    return round(algorithm.needs.overlong * config.sampling.max_new_tokens)


def _named(name: str) -> tuple[Algorithm, str | None]:
    if not is_reference(name):
        return PRESETS[name], None
    value, digest, _ = bring(name, KEY)
    if not isinstance(value, Algorithm):
        raise ConfigError(
            f"{KEY}: {name} is {a(value)}, and an Algorithm was expected: jaxpolya.train.algorithms.Algorithm(advantages, token_loss, "
            "aggregation, needs), as docs/algorithms.md has it"
        )
    _check(value, name)
    return value, digest


def _check(algorithm: Algorithm, name: str) -> None:
    """Tries an algorithm on two groups of two responses, so that what it can't do is known before a weight is loaded."""
    if algorithm.aggregation not in get_args(Aggregation):
        raise ConfigError(f"{KEY}: {name}: aggregation {algorithm.aggregation!r} is not one of {', '.join(get_args(Aggregation))}")
    if not isinstance(algorithm.needs, Needs):
        raise ConfigError(f"{KEY}: {name}: needs is {a(algorithm.needs)}, and a Needs was expected")
    values_PGT = np.zeros((2, 2, 3)) if algorithm.needs.value else None
    rewards = Rewards(np.array([[1.0, 0.0], [1.0, np.nan]]), np.array([[3, 1], [2, 3]]), values_PGT=values_PGT)
    try:
        estimate(algorithm.advantages, rewards)
    except Exception as error:
        raise ConfigError(f"{KEY}: {name}: its advantages, tried on two groups: {_message(error)}") from error
    floats, mask, ids = (jax.ShapeDtypeStruct((2, 3), dtype) for dtype in (jnp.float32, jnp.bool_, jnp.int32))
    try:
        hash(algorithm.token_loss)
        given = (floats, floats, floats, mask, ids, floats if algorithm.needs.reference else None)
        gives = jax.eval_shape(lambda *given: algorithm.token_loss(Tokens.of(*given[:-1], logp_ref_BT=given[-1])), *given)
        if not (isinstance(gives, tuple) and len(gives) == 2 and isinstance(gives[1], Mapping)):
            raise ValueError(f"gave {'nothing' if gives is None else 'something else'} where (loss_BT, {{name: values_BT}}) was expected")
        loss_BT, reported = gives
        shapes = {"the loss": loss_BT.shape} | {key: value.shape for key, value in reported.items()}
    except Exception as error:
        raise ConfigError(f"{KEY}: {name}: its token loss, tried on arrays of shape (2, 3): {_message(error)}") from error
    if wrong := [f"{what} has shape {shape}" for what, shape in shapes.items() if shape != (2, 3)]:
        raise ConfigError(f"{KEY}: {name}: its token loss, tried on arrays of shape (2, 3): {', '.join(wrong)}")


def _message(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return first if type(error) is ValueError else f"{type(error).__name__}: {first}"
