"""An algorithm of one's own: right responses are pushed up, wrong ones pushed down, by a loss whose bound is smooth.

    jaxpolya run configs/quickstart.yaml --set rl.algorithm=examples/signed_reward.py:signed

Advantages are 2 R − 1 for rewards of 0 and 1, so that no group is silent; the loss is −A tanh(log r), which has the gradient −A on a
round's first update and less the farther the policy has moved.
"""

import jax.numpy as jnp
import numpy as np

from jaxpolya.train.advantages import Rewards
from jaxpolya.train.algorithms import Algorithm
from jaxpolya.train.losses import Tokens


def signs(rewards: Rewards) -> np.ndarray:
    """2 R − 1, float64 [P, G]; NaN stays where a reward isn't known."""
    return 2 * rewards.totals_PG - 1


def smooth(tokens: Tokens) -> tuple[jnp.ndarray, dict[str, jnp.ndarray]]:
    """(−A tanh(log r), `moved`: |log r|), each [B, T]."""
    return -tokens.advantages_BT * jnp.tanh(tokens.log_ratio_BT), {"moved": jnp.abs(tokens.log_ratio_BT)}


signed = Algorithm(advantages=signs, token_loss=smooth, aggregation="token_mean")
