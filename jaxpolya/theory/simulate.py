"""Sampled policy-gradient training of a softmax policy over approaches, as RL does it: rounds of P questions, G samples each."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp

Advantages = Literal["plain", "centred", "grpo"]


@dataclasses.dataclass(frozen=True)
class Training:
    """What is static about a training."""

    questions: int = 8
    """P: questions a round."""
    group: int = 16
    """G: samples a question."""
    rate: float = 0.1
    """η, of plain gradient ascent on the logits."""
    steps: int = 200
    advantages: Advantages = "grpo"
    """`plain`: the reward; `centred`: less the group's mean; `grpo`: that, divided by the group's deviation."""
    epochs: int = 1
    """Passes over a round; from the second on the ratio is clipped."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    entropy: float = 0.0
    kl: float = 0.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trace:
    """What happened, a row a round."""

    p_TA: jax.Array
    """The policy before the round."""
    reward_T: jax.Array
    no_signal_T: jax.Array
    """Share of groups whose rewards are all alike."""
    distinct_T: jax.Array
    """Different approaches among the samples of a group, on average."""


@functools.partial(jax.jit, static_argnames="training")
def train(theta_A: jax.Array, pays_QA: jax.Array, key: jax.Array, training: Training) -> Trace:
    """Trains from logits θ on questions that pay approach a with chance pays_QA[q, a]; each round draws its questions anew."""
    start_A = jax.nn.log_softmax(theta_A)

    def round_(theta_A: jax.Array, key: jax.Array) -> tuple[jax.Array, Trace]:
        which, draw, pay = jax.random.split(key, 3)
        P, G = training.questions, training.group
        asked_P = jax.random.randint(which, (P,), 0, pays_QA.shape[0])
        actions_PG = jax.random.categorical(draw, theta_A, shape=(P, G))
        chance_PG = jnp.take_along_axis(pays_QA[asked_P], actions_PG, axis=1)
        rewards_PG = (jax.random.uniform(pay, (P, G)) < chance_PG).astype(jnp.float32)
        advantages_PG, old_PG = _advantages(rewards_PG, training.advantages), jax.nn.log_softmax(theta_A)[actions_PG]
        gradient = jax.grad(lambda theta: _objective(theta, start_A, actions_PG, advantages_PG, old_PG, training))
        now_A = theta_A
        for _ in range(training.epochs):
            now_A = now_A + training.rate * gradient(now_A)
        seen_PA = jax.vmap(lambda actions_G: jnp.zeros(theta_A.shape).at[actions_G].set(1.0))(actions_PG)
        alike_P = rewards_PG.min(axis=1) == rewards_PG.max(axis=1)
        return now_A, Trace(jax.nn.softmax(theta_A), rewards_PG.mean(), alike_P.mean(), seen_PA.sum(axis=1).mean())

    return jax.lax.scan(round_, theta_A, jax.random.split(key, training.steps))[1]


def _advantages(rewards_PG: jax.Array, kind: Advantages) -> jax.Array:
    if kind == "plain":
        return rewards_PG
    centred_PG = rewards_PG - rewards_PG.mean(axis=1, keepdims=True)
    deviation_P1 = rewards_PG.std(axis=1, keepdims=True)
    return centred_PG if kind == "centred" else jnp.where(deviation_P1 > 0, centred_PG / jnp.maximum(deviation_P1, 1e-6), 0.0)


def _objective(
    theta_A: jax.Array, start_A: jax.Array, actions_PG: jax.Array, advantages_PG: jax.Array, old_PG: jax.Array, training: Training
) -> jax.Array:
    """The clipped surrogate of PPO (arXiv 1707.06347, eq. 7), with entropy and KL taken exactly over the policy."""
    log_p_A = jax.nn.log_softmax(theta_A)
    p_A = jnp.exp(log_p_A)
    ratio_PG = jnp.exp(log_p_A[actions_PG] - old_PG)
    clipped_PG = jnp.clip(ratio_PG, 1 - training.clip_low, 1 + training.clip_high)
    surrogate = jnp.minimum(ratio_PG * advantages_PG, clipped_PG * advantages_PG).mean()
    return surrogate - training.entropy * p_A @ log_p_A - training.kl * p_A @ (log_p_A - start_A)
