"""The policy terms: what a token adds to the loss, given its ratio and its advantage.

Each is a frozen dataclass of its settings that is called with `losses.Tokens`; presets (`algorithms`) are made of them. They all
have the gradient −A ∇ log p while the policy is the one that drew the tokens, and differ in what they do once it has moved.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxpolya.train.losses import Tokens


@dataclasses.dataclass(frozen=True)
class PpoClip:
    """−min(r·A, clip(r, 1−ε_low, 1+ε_high)·A) (PPO, arXiv 1707.06347, eq. 7; two ε as in DAPO, arXiv 2503.14476, eq. 8).

    With `dual` (c > 1), where A < 0 no less than c·A is counted: −max(min(…), c·A) (arXiv 1912.09729, eq. 5). It bounds what a
    token may cost that the new policy has made far more likely. Logs `clip`, the share of tokens whose gradient is 0 by a bound.
    """

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None

    def __call__(self, tokens: Tokens) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(loss, `clip`), each [B, T]."""
        bounded_BT = self.bounded(tokens.ratio_BT, tokens.advantages_BT)
        clipped_BT = (bounded_BT != tokens.ratio_BT) & (tokens.advantages_BT != 0)
        return -bounded_BT * tokens.advantages_BT, {"clip": clipped_BT}

    def bounded(self, ratio_BT: jax.Array, advantages_BT: jax.Array) -> jax.Array:
        """The ratio as it is counted: the minimum binds from above where A > 0 and from below where A < 0."""
        bounded_BT = jnp.where(advantages_BT > 0, jnp.minimum(ratio_BT, 1 + self.high), jnp.maximum(ratio_BT, 1 - self.low))
        if self.dual is not None:
            bounded_BT = jnp.where(advantages_BT < 0, jnp.minimum(bounded_BT, self.dual), bounded_BT)
        return bounded_BT


@dataclasses.dataclass(frozen=True)
class Gspo:
    """The clip on a sequence's ratio s = (Π r_t)^(1/|y|), the geometric mean of its tokens' (GSPO, arXiv 2507.18071).

    `sequence`: −min(s·A, clip(s)·A) with A the sequence's own (eq. 5 to 7). `token`: s_t = sg[s]·p_t / sg[p_t], which has s's value and
    lets each token have its own advantage (GSPO-token, eq. 13 and 14). Where A is the same for all tokens of a sequence, and the loss is
    a mean over sequences of token means, both are equal in value and gradient. Logs `clip`.
    """

    low: float = 3e-4
    high: float = 4e-4
    form: Literal["sequence", "token"] = "sequence"

    def __call__(self, tokens: Tokens) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(loss, `clip`), each [B, T]."""
        log_ratio_BT, advantages_BT = tokens.sequence_mean(tokens.log_ratio_BT), tokens.advantages_BT
        if self.form == "sequence":
            advantages_BT = tokens.sequence_mean(advantages_BT)
        else:
            own_BT = tokens.logp_new_BT - jax.lax.stop_gradient(tokens.logp_new_BT)
            log_ratio_BT = jax.lax.stop_gradient(log_ratio_BT) + own_BT
        ratio_BT = jnp.exp(log_ratio_BT)
        bounded_BT = PpoClip(self.low, self.high).bounded(ratio_BT, advantages_BT)
        return -bounded_BT * advantages_BT, {"clip": (bounded_BT != ratio_BT) & (advantages_BT != 0)}


@dataclasses.dataclass(frozen=True)
class Cispo:
    """−sg[clip(r, 1−ε_low, 1+ε_high)]·A·log p (CISPO, MiniMax-M1, arXiv 2506.13585, eq. 4 and 5).

    The *weight* is clipped, and every token keeps a gradient. `low` = 1 is no bound from below. Logs `clip`, the share of tokens whose
    weight a bound has changed.
    """

    low: float = 1.0
    high: float = 4.0

    def __call__(self, tokens: Tokens) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(loss, `clip`), each [B, T]."""
        ratio_BT = jax.lax.stop_gradient(tokens.ratio_BT)
        weight_BT = jnp.clip(ratio_BT, 1 - self.low, 1 + self.high)
        clipped_BT = (weight_BT != ratio_BT) & (tokens.advantages_BT != 0)
        return -weight_BT * tokens.advantages_BT * tokens.logp_new_BT, {"clip": clipped_BT}


@dataclasses.dataclass(frozen=True)
class Reinforce:
    """−A·log p (REINFORCE, Williams 1992). It knows nothing of an old policy: from a round's second update on it is biased."""

    def __call__(self, tokens: Tokens) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(loss [B, T], nothing to log)."""
        return -tokens.advantages_BT * tokens.logp_new_BT, {}
