"""Advantages: how much better than expected a response was, by several notions of what was to be expected.

This is host code in numpy: rewards come from the verifier, a few hundred numbers a round. A reward that we failed to compute
(verdict `harness_error`) is NaN. It is left out of every mean and deviation, and out of the loss: neither a reward nor a penalty
for what was not the response's doing.

An estimator is a function of `Rewards`. Those here that compare a response with the others to its question give exactly 0 where
the group says nothing about which was better: all rewards are equal, or one is left.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxpolya.config import KlConfig
from jaxpolya.rollout.rewards import mixed_groups

STD_OFFSET = 1e-6
"""Added to a group's standard deviation."""

MAX_LOG_RATIO = 20.0
"""Log-ratios are held within ± this: e^20 is far outside any clip, and exp must not overflow on a token gone astray."""

LEAST_VARIANCE = 1e-8
"""Of a round's advantages, where they are divided by their deviation."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rewards:
    """What is known of P groups of G responses."""

    rewards_PG: np.ndarray
    """float64: of the whole response; NaN where it isn't known."""
    lengths_PG: np.ndarray
    """int64: tokens of each response, at least 1."""
    kl_PGT: np.ndarray | None = None
    """float64: β · KL at each token, which is taken off its reward; 0 beyond a response's end. None: no KL in the reward."""
    values_PGT: np.ndarray | None = None
    """float64: the old policy's value of what stands before each token; anything beyond a response's end. None: no value head."""

    @property
    def valid_PG(self) -> np.ndarray:
        """bool: the reward is known."""
        return ~np.isnan(self.rewards_PG)

    @property
    def totals_PG(self) -> np.ndarray:
        """float64: reward less all of the response's KL; NaN where it isn't known."""
        return self.rewards_PG if self.kl_PGT is None else self.rewards_PG - self.kl_PGT.sum(axis=-1)

    @property
    def mask_PGT(self) -> np.ndarray:
        """bool: tokens of responses whose reward is known."""
        return (np.arange(self.lengths_PG.max()) < self.lengths_PG[..., None]) & self.valid_PG[..., None]


Estimator = Callable[[Rewards], np.ndarray]
"""rewards → advantages: floats [P, G], one for all tokens of a response, or [P, G, T], one a token, T the longest response. Finite where
`valid_PG`; what they hold elsewhere, and beyond a response's end, doesn't matter. Must depend on its argument alone."""


def estimate(estimator: Estimator, rewards: Rewards) -> np.ndarray:
    """An estimator's advantages, checked: float32 [P, G, T], T = 1 where all tokens of a response have the same; 0 where there is none.

    Raises `ValueError` where they can't be advantages.
    """
    estimates = np.asarray(estimator(rewards))
    P, G = rewards.rewards_PG.shape
    per_token = (P, G, int(rewards.lengths_PG.max(initial=1)))
    if estimates.shape not in ((P, G), per_token) or not np.issubdtype(estimates.dtype, np.floating):
        raise ValueError(f"gave {estimates.dtype} of shape {estimates.shape}; floats of shape {(P, G)} or {per_token} were expected")
    if estimates.ndim == 2:
        estimates, counted = estimates[..., None], rewards.valid_PG[..., None]
    else:
        counted = rewards.mask_PGT
    if not np.isfinite(estimates[counted]).all():
        raise ValueError("gave an advantage that is not finite for a response whose reward is known")
    return np.where(counted, estimates, 0.0).astype(np.float32)


# Against the group ------------------------------------------------------------------------------------------------------


def centred(rewards: Rewards) -> np.ndarray:
    """R − mean (Dr. GRPO, arXiv 2503.20783, §3.2: dividing by the deviation favours questions nearly always or nearly never solved)."""
    centred_PG, _ = _centred(rewards.totals_PG)
    return centred_PG


def normalised(rewards: Rewards) -> np.ndarray:
    """(R − mean) / (std + 1e-6), std with ddof = 1 (GRPO, arXiv 2402.03300, §4.1.2)."""
    centred_PG, count_P1 = _centred(rewards.totals_PG)
    std_P1 = np.sqrt((centred_PG**2).sum(axis=1, keepdims=True) / np.maximum(count_P1 - 1, 1))
    return centred_PG / (std_P1 + STD_OFFSET)


def leave_one_out(rewards: Rewards) -> np.ndarray:
    """R less the mean of the *other* rewards, which is (R − mean) · n / (n − 1) for n known ones (RLOO, arXiv 2402.14740, eq. 8)."""
    centred_PG, count_P1 = _centred(rewards.totals_PG)
    return centred_PG * count_P1 / np.maximum(count_P1 - 1, 1)


def mean_normalised(rewards: Rewards) -> np.ndarray:
    """(R − mean) / mean (MaxRL, arXiv 2602.02710): for rewards of 0 and 1 its expected gradient is that of a truncated log-likelihood of
    success, of which the success rate itself is the first term. 0 where the mean isn't positive: nobody succeeded."""
    totals_PG = rewards.totals_PG
    centred_PG, count_P1 = _centred(totals_PG)
    mean_P1 = np.where(np.isnan(totals_PG), 0.0, totals_PG).sum(axis=1, keepdims=True) / np.maximum(count_P1, 1)
    return np.where(mean_P1 > 0, centred_PG / np.where(mean_P1 > 0, mean_P1, 1.0), 0.0)


# Against a value head ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Gae:
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16), then less the mean over the round's tokens, by their deviation, as PPO's
    implementations have it. A response ends its episode, one that was cut off too: no value is added behind it."""

    gamma: float = 1.0
    lam: float = 0.95

    def __call__(self, rewards: Rewards) -> np.ndarray:
        """[P, G, T]."""
        return _whitened(self.raw(rewards), rewards.mask_PGT)

    def raw(self, rewards: Rewards) -> np.ndarray:
        """[P, G, T]: Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V_{t+1} − V_t; 0 where there is no token, or no known reward.

        r is the KL's part at each token and, at the last one, the response's reward.
        """
        mask_PGT, values_PGT = rewards.mask_PGT, _values(rewards)
        given_PGT = np.zeros(mask_PGT.shape) if rewards.kl_PGT is None else np.where(mask_PGT, -rewards.kl_PGT, 0.0)
        last_PG1 = rewards.lengths_PG[..., None] - 1
        total_PG1 = np.take_along_axis(given_PGT, last_PG1, axis=-1) + np.where(rewards.valid_PG, rewards.rewards_PG, 0.0)[..., None]
        np.put_along_axis(given_PGT, last_PG1, total_PG1, axis=-1)
        next_PGT = np.concatenate([values_PGT[..., 1:], np.zeros_like(last_PG1, float)], axis=-1)
        delta_PGT = np.where(mask_PGT, given_PGT + self.gamma * next_PGT - values_PGT, 0.0)
        advantages_PGT, running_PG = np.zeros(mask_PGT.shape), np.zeros(rewards.lengths_PG.shape)
        for t in reversed(range(mask_PGT.shape[-1])):
            running_PG = delta_PGT[..., t] + self.gamma * self.lam * running_PG
            advantages_PGT[..., t] = running_PG
        return advantages_PGT

    def returns(self, rewards: Rewards) -> np.ndarray:
        """[P, G, T]: what the value head is to say at each token, A + V: the λ-return."""
        return self.raw(rewards) + _values(rewards)


def _values(rewards: Rewards) -> np.ndarray:
    if rewards.values_PGT is None:
        raise ValueError("GAE needs a value head's values")
    return np.where(rewards.mask_PGT, rewards.values_PGT, 0.0)


# Against the round, or nothing ------------------------------------------------------------------------------------------


def batch_normalised(rewards: Rewards) -> np.ndarray:
    """[P, G, T]: R − Σ of the KL from the token on, less the mean over all tokens of the round, by their deviation (REINFORCE++, arXiv
    2501.03262: the definitions of A and of its global normalisation)."""
    returns_PGT = np.broadcast_to(rewards.rewards_PG[..., None], rewards.mask_PGT.shape)
    if rewards.kl_PGT is not None:
        returns_PGT = returns_PGT - rewards.kl_PGT[..., ::-1].cumsum(axis=-1)[..., ::-1]
    return _whitened(returns_PGT, rewards.mask_PGT)


def group_batch_normalised(rewards: Rewards) -> np.ndarray:
    """[P, G, T]: R − the group's mean, then as `batch_normalised` (REINFORCE++ with baseline, arXiv 2501.03262)."""
    centred_PG, _ = _centred(rewards.totals_PG)
    return _whitened(np.broadcast_to(centred_PG[..., None], rewards.mask_PGT.shape), rewards.mask_PGT)


def plain(rewards: Rewards) -> np.ndarray:
    """R itself, no baseline (REINFORCE, Williams 1992)."""
    return rewards.totals_PG


def _whitened(values_PGT: np.ndarray, mask_PGT: np.ndarray) -> np.ndarray:
    """Less the mean, by the deviation (ddof = 0), both over the tokens in the mask."""
    inside = values_PGT[mask_PGT]
    if not len(inside):
        return np.zeros(mask_PGT.shape)
    return np.where(mask_PGT, values_PGT - inside.mean(), 0.0) / math.sqrt(max(inside.var(), LEAST_VARIANCE))


def _centred(totals_PG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R − mean over the known ones, their number [P, 1]); exactly 0 in groups without signal, where rounding mustn't become one."""
    valid_PG = ~np.isnan(totals_PG)
    known_PG = np.where(valid_PG, totals_PG, 0.0)
    count_P1 = valid_PG.sum(axis=1, keepdims=True)
    centred_PG = np.where(valid_PG, known_PG - known_PG.sum(axis=1, keepdims=True) / np.maximum(count_P1, 1), 0.0)
    return np.where(mixed_groups(totals_PG)[:, None], centred_PG, 0.0), count_P1


def soft_overlong_penalty(lengths: np.ndarray, longest: int, buffer: int) -> np.ndarray:
    """What is added to the reward of responses of these lengths (DAPO, arXiv 2503.14476, eq. 13): 0 up to `longest` − `buffer` tokens, from
    there falling evenly to −1 at `longest`. float64, of the lengths' shape."""
    return np.clip((longest - buffer - lengths) / buffer, -1.0, 0.0)


def kl_in_reward(logp_old: Sequence[np.ndarray], logp_ref: Sequence[np.ndarray], shape: tuple[int, int], kl: KlConfig) -> np.ndarray:
    """β · KL at each token of P · G responses, float64 [P, G, T], 0 beyond their ends: `Rewards.kl_PGT`.

    `logp_old` and `logp_ref` hold each response's log-probs, under the policy that drew it and under the reference. It is the old policy's
    divergence: the reward is a number. In the policy gradient k1 there has the gradient of KL(policy ‖ reference); k3 has that less the
    gradient of KL(reference ‖ policy), and k2 that of neither.
    """
    kl_PGT = np.zeros((*shape, max(map(len, logp_old))))
    for row, old, ref in zip(kl_PGT.reshape(-1, kl_PGT.shape[-1]), logp_old, logp_ref, strict=True):
        k1 = np.clip(np.asarray(old, np.float64) - np.asarray(ref, np.float64), -MAX_LOG_RATIO, MAX_LOG_RATIO)
        row[: len(k1)] = {"k1": k1, "k2": k1**2 / 2, "k3": np.expm1(-k1) + k1}[kl.estimator]
    return kl.weight * kl_PGT
