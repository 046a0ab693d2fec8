"""What a verdict pays, and what a group of rewards says: the one place where a response becomes a number."""

from collections.abc import Sequence

import numpy as np

from jaxpolya.records import Sample, Verdict


def reward_of(sample: Sample) -> float | None:
    """What is recorded of it, else the verdict's pay; None where it is masked."""
    if sample.reward is not None:
        return sample.reward
    return Verdict.PAYS[sample.verdict] if sample.verdict else None


def rewards_of(samples: Sequence[Sample], group: int) -> np.ndarray:
    """Rewards of samples that come group by group, float64 [P, G]; NaN where one is masked."""
    rewards = [reward_of(sample) for sample in samples]
    return np.array([np.nan if reward is None else reward for reward in rewards], np.float64).reshape(-1, group)


def mixed_groups(rewards_PG: np.ndarray) -> np.ndarray:
    """Whether a group has two different known rewards, bool [P]."""
    valid_PG = ~np.isnan(rewards_PG)
    return np.where(valid_PG, rewards_PG, -np.inf).max(axis=1) > np.where(valid_PG, rewards_PG, np.inf).min(axis=1)


def outcome_facts(samples: Sequence[Sample], group: int) -> dict[str, float]:
    """What came of asking: shares and means over samples that come group by group."""
    known = rewards_of(samples, group)
    valid = ~np.isnan(known)
    return {
        "reward": float(known[valid].sum()) / max(int(valid.sum()), 1),
        "length": float(np.mean([len(sample.token_ids) for sample in samples])),
        "truncated": float(np.mean([sample.finish == "length" for sample in samples])),
        "unparseable": float(np.mean([sample.verdict == "unparseable" for sample in samples])),
        "cut_short": float(np.mean([sample.verdict in Verdict.LIMITED for sample in samples])),
        "no_signal": float((~mixed_groups(known)).mean()),
        "masked": float((~valid).mean()),
    }
