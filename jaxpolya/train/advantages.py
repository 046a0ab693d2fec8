"""Group-relative advantages: a response is judged against the other responses to its own question.

This is host code in numpy: rewards come from the verifier, a few hundred numbers a step. A reward that we failed to compute
(verdict `harness_error`) is NaN. It is left out of its group's mean and deviation, and out of the loss: neither a reward
nor a penalty for what was not the response's doing.

The deviation is that of a sample (ddof = 1) plus 1e-6. A group whose rewards are all equal, or of which one reward is left,
says nothing about which response was better: its advantages are exactly 0, and it is counted.
"""

import dataclasses
from typing import Literal

import numpy as np

AdvantageKind = Literal["normalised", "centred"]

STD_OFFSET = 1e-6
"""Added to a group's standard deviation."""


@dataclasses.dataclass(frozen=True)
class GroupAdvantages:
    """What the rewards of P groups of G responses say."""

    advantages_PG: np.ndarray
    """float32; 0 where `valid_PG` is False."""
    valid_PG: np.ndarray
    """bool; False marks responses that must stay out of the loss."""
    signal_P: np.ndarray
    """bool; False marks groups without two different rewards."""
    stats: dict[str, float]
    """`reward_sum` and `reward_count` over valid responses, `groups`, `no_signal` (groups), `masked` (responses); all of them add
    up over hosts and steps."""


def group_advantages(rewards_PG: np.ndarray, kind: AdvantageKind) -> GroupAdvantages:
    """Advantages within each row of rewards, NaN being a reward that is not known.

    - `normalised`: (R − mean) / (std + 1e-6), ddof = 1 (GRPO, arXiv 2402.03300, §4.1.2).
    - `centred`: R − mean (Dr. GRPO, arXiv 2503.20783: dividing by the deviation favours questions that are nearly always or
      nearly never solved).
    """
    rewards_PG = np.asarray(rewards_PG, np.float64)
    valid_PG = ~np.isnan(rewards_PG)
    known_PG = np.where(valid_PG, rewards_PG, 0.0)
    count_P1 = valid_PG.sum(axis=1, keepdims=True)
    centred_PG = np.where(valid_PG, known_PG - known_PG.sum(axis=1, keepdims=True) / np.maximum(count_P1, 1), 0.0)
    highest_P = np.where(valid_PG, rewards_PG, -np.inf).max(axis=1)
    lowest_P = np.where(valid_PG, rewards_PG, np.inf).min(axis=1)
    signal_P = highest_P > lowest_P
    advantages_PG = centred_PG
    if kind == "normalised":
        std_P1 = np.sqrt((centred_PG**2).sum(axis=1, keepdims=True) / np.maximum(count_P1 - 1, 1))
        advantages_PG = centred_PG / (std_P1 + STD_OFFSET)
    return GroupAdvantages(
        # Rounding of the mean must not become an advantage where all rewards are equal.
        advantages_PG=np.where(signal_P[:, None], advantages_PG, 0.0).astype(np.float32),
        valid_PG=valid_PG,
        signal_P=signal_P,
        stats={
            "reward_sum": float(known_PG.sum()),
            "reward_count": int(valid_PG.sum()),
            "groups": len(rewards_PG),
            "no_signal": int((~signal_P).sum()),
            "masked": int((~valid_PG).sum()),
        },
    )
