"""Advantages: closed forms, masked rewards, groups without signal, KL in the reward, an independent oracle."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxpolya.config import KlConfig
from jaxpolya.rollout.rewards import mixed_groups
from jaxpolya.train import advantages
from jaxpolya.train.advantages import Gae, Rewards, estimate, soft_overlong_penalty

ORACLE = Path(__file__).parents[2].parent / "shared/oracles/policy_losses.json"
WITHIN_GROUPS = ["centred", "normalised", "leave_one_out", "mean_normalised"]
ALL = [*WITHIN_GROUPS, "batch_normalised", "group_batch_normalised", "plain"]


def rewards(rows, lengths=None, kl=None, values=None) -> Rewards:
    rows = np.array(rows, np.float64)
    return Rewards(rows, np.ones(rows.shape, int) if lengths is None else np.array(lengths), kl, values)


def advantages_of(name: str, *arguments, **keywords) -> np.ndarray:
    return estimate(getattr(advantages, name), rewards(*arguments, **keywords))


def test_normalised_uses_the_sample_deviation():
    of_two = advantages_of("normalised", [[1.0, 0.0], [3.0, 1.0]])
    # Two rewards a, b: mean-distance (a−b)/2 over sample deviation (a−b)/√2 is 1/√2 whatever the rewards.
    np.testing.assert_allclose(of_two[..., 0], [[0.5**0.5, -(0.5**0.5)]] * 2, atol=2e-6)
    assert of_two.dtype == np.float32


def test_centred_keeps_the_scale_of_the_rewards():
    np.testing.assert_allclose(advantages_of("centred", [[1.0, 0.0, 0.0, 0.0]])[0, :, 0], [0.75, -0.25, -0.25, -0.25])


@pytest.mark.parametrize("name", ALL)
def test_masked_rewards_leave_the_others_alone(name):
    whole = advantages_of(name, [[1.0, 0.0, 0.5]], [[2, 3, 1]])
    holed = advantages_of(name, [[1.0, np.nan, 0.0, 0.5, np.nan]], [[2, 3, 3, 1, 2]])
    np.testing.assert_array_equal(holed[:, [0, 2, 3]], whole)
    np.testing.assert_array_equal(holed[:, [1, 4]], 0)


@pytest.mark.parametrize("name", WITHIN_GROUPS)
@pytest.mark.filterwarnings("error")
def test_groups_without_signal_are_exactly_zero(name):
    nan = np.nan
    rows = [[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [nan, 1.0, nan], [nan, nan, nan], [1.0, 0.0, nan]]
    result = advantages_of(name, rows)
    assert not result[:4].any() and result[4].any()
    np.testing.assert_array_equal(mixed_groups(np.array(rows)), [False, False, False, False, True])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("error")
def test_a_round_of_which_nothing_is_known_is_zero(name):
    assert not advantages_of(name, [[np.nan, np.nan]]).any()


@pytest.mark.skipif(not ORACLE.exists(), reason="the oracle file lies outside the repository")
@pytest.mark.parametrize(
    ("entry", "name", "of"),
    [
        ("grpo_advantages_rewards_1_ddof1", "normalised", "rewards_1"),
        ("grpo_advantages_rewards_2_ddof1", "normalised", "rewards_2"),
        ("rloo_advantages_rewards_2", "leave_one_out", "rewards_2"),
    ],
)
def test_oracle(entry, name, of):
    oracle = json.loads(ORACLE.read_text())
    given, expected = (np.array(values).reshape(2, 3) for values in (oracle["fixture"][of], oracle["expected"][entry]["value"]))
    np.testing.assert_allclose(advantages_of(name, given)[..., 0], expected, atol=1e-6)


# What the oracle lacks, written out from the papers one number at a time --------------------------------------------------


def random_round(seed=0, P=3, G=4, T=6):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, T + 1, (P, G))
    kl = np.where(np.arange(lengths.max()) < lengths[..., None], rng.normal(0, 0.1, (P, G, lengths.max())), 0.0)
    return rng.normal(0.5, 0.3, (P, G)), lengths, kl


@pytest.mark.parametrize("with_kl", [False, True])
def test_reinforce_plus_plus_by_hand(with_kl):
    given, lengths, kl = random_round()
    P, G = given.shape
    # A_t = r − Σ_{i ≥ t} β KL(i), then less the mean and by the deviation over all tokens of the batch (arXiv 2501.03262).
    raw = {
        (p, g, t): given[p, g] - (sum(kl[p, g, i] for i in range(t, lengths[p, g])) if with_kl else 0.0)
        for p in range(P)
        for g in range(G)
        for t in range(lengths[p, g])
    }
    mean = sum(raw.values()) / len(raw)
    deviation = (sum((value - mean) ** 2 for value in raw.values()) / len(raw)) ** 0.5
    result = advantages_of("batch_normalised", given, lengths, kl if with_kl else None)
    for place, value in raw.items():
        assert result[place] == pytest.approx((value - mean) / deviation, abs=1e-6)
    assert not result[np.arange(result.shape[-1]) >= lengths[..., None]].any()


@pytest.mark.parametrize("with_kl", [False, True])
def test_reinforce_plus_plus_with_baseline_by_hand(with_kl):
    given, lengths, kl = random_round(1)
    totals = given - (kl.sum(-1) if with_kl else 0.0)
    raw = [totals[p, g] - totals[p].mean() for p in range(3) for g in range(4) for _ in range(lengths[p, g])]
    expected = (totals - totals.mean(axis=1, keepdims=True) - np.mean(raw)) / np.std(raw)
    result = advantages_of("group_batch_normalised", given, lengths, kl if with_kl else None)
    np.testing.assert_allclose(result[..., 0], expected, atol=1e-6)


def test_maxrl_by_hand():
    # (r − r̂) / r̂ with r̂ the group's mean (arXiv 2602.02710); a group that nobody solved is silent.
    result = advantages_of("mean_normalised", [[1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]])[..., 0]
    np.testing.assert_allclose(result, [[3, -1, -1, -1], [1 / 3, 1 / 3, -1, 1 / 3], [0, 0, 0, 0]], atol=1e-6)


def test_maxrl_estimates_the_gradient_of_a_truncated_log_likelihood():
    """For N draws that succeed with probability p: ∂/∂p log p = 1 / p = Σ (1 − p)^(k − 1), cut off."""
    p, N = 0.3, 5
    gradient = 0.0
    for draw in np.ndindex(*[2] * N):
        chance = np.prod([p if hit else 1 - p for hit in draw])
        advantages_G = advantages_of("mean_normalised", [draw])[0, :, 0]
        score = np.array([1 / p if hit else -1 / (1 - p) for hit in draw])  # ∂ log chance of each draw / ∂p
        gradient += chance * float(advantages_G @ score) / N
    # The terms are those up to N − 1: the N-th is what taking the scores' mean off costs, since it isn't taken off where all fail.
    assert gradient == pytest.approx(sum((1 - p) ** (k - 1) for k in range(1, N)), rel=1e-6)


def test_kl_in_the_reward_is_taken_off_it():
    kl = np.array([[[0.25, 0.25], [0.5, 0.0]]])
    for name in ("centred", "normalised", "leave_one_out", "plain"):
        taken = advantages_of(name, [[1.0, 0.0]], [[2, 1]], kl)
        np.testing.assert_allclose(taken, advantages_of(name, [[0.5, -0.5]], [[2, 1]]), atol=1e-6)


def test_soft_overlong_penalty_is_the_papers():
    longest, buffer = 20, 5
    lengths = np.arange(1, 21)
    # Eq. 13 of arXiv 2503.14476, its three cases.
    expected = [0.0 if n <= longest - buffer else ((longest - buffer) - n) / buffer if n <= longest else -1.0 for n in lengths]
    np.testing.assert_allclose(soft_overlong_penalty(lengths, longest, buffer), expected)
    assert expected[-1] == -1 and expected[15] == -0.2


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (lambda rewards: rewards.rewards_PG[:, :1], r"float64 of shape \(1, 1\); floats of shape \(1, 2\)"),
        (lambda rewards: np.zeros((1, 2), int), "int64"),
        (lambda rewards: np.full((1, 2), np.nan), "not finite"),
    ],
)
def test_what_can_be_no_advantages_is_refused(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimate(estimator, rewards([[1.0, 0.0]]))


def test_kl_in_the_reward_by_hand():
    old, ref = [np.array([-1.0, -2.0]), np.array([-0.5])], [np.array([-1.5, -1.0]), np.array([-0.5])]
    for estimator, of in {"k1": lambda d: d, "k2": lambda d: d**2 / 2, "k3": lambda d: np.exp(-d) - 1 + d}.items():
        advantages_of = advantages.kl_in_reward(old, ref, (1, 2), KlConfig(weight=0.1, estimator=estimator, place="reward"))
        np.testing.assert_allclose(advantages_of, [[[0.1 * of(0.5), 0.1 * of(-1.0)], [0, 0]]], atol=1e-12)


def gae_by_hand(rewards, values, gamma, lam):
    """One response's GAE as the double sum that defines it (arXiv 1506.02438, eq. 16), float64."""
    following = np.append(values[1:], 0.0)
    delta = rewards + gamma * following - values
    return np.array([sum((gamma * lam) ** (i - t) * delta[i] for i in range(t, len(delta))) for t in range(len(delta))])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.97, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("with_kl", [False, True])
def test_gae_is_the_sum_that_defines_it(gamma, lam, with_kl):
    rng, lengths = np.random.default_rng(0), [[4, 1, 6], [2, 6, 3]]
    rows = np.array([[1.0, 0.0, 0.5], [1.0, np.nan, 0.0]])
    values = rng.normal(size=(2, 3, 6))
    kl = np.where(np.arange(6) < np.array(lengths)[..., None], rng.normal(size=(2, 3, 6)), 0) if with_kl else None
    given, gae = rewards(rows, lengths, kl, values), Gae(gamma, lam)
    expected, inside = np.zeros((2, 3, 6)), []
    for p, g in np.ndindex(2, 3):
        n = lengths[p][g]
        if not np.isnan(rows[p, g]):
            paid = (0.0 if kl is None else -kl[p, g, :n]) + np.eye(n)[-1] * rows[p, g]
            expected[p, g, :n] = gae_by_hand(paid, values[p, g, :n], gamma, lam)
            inside += expected[p, g, :n].tolist()
    np.testing.assert_allclose(gae.raw(given), expected, rtol=1e-12, atol=1e-12)
    known = given.mask_PGT
    np.testing.assert_allclose(gae.returns(given)[known], (expected + values)[known], rtol=1e-12, atol=1e-12)
    whitened = np.where(known, (expected - np.mean(inside)) / np.std(inside), 0)
    np.testing.assert_allclose(estimate(gae, given), whitened, rtol=1e-5, atol=1e-6)
    # What stands in the values beyond a response's end, or where no reward is known, doesn't matter.
    soiled = rewards(rows, lengths, kl, np.where(known, values, np.nan))
    np.testing.assert_array_equal(estimate(gae, soiled), estimate(gae, given))


def test_gae_between_its_ends():
    """λ = 1 is the return less the value; λ = 0 is one step's surprise; with values that are right nothing is one."""
    values = np.array([[[0.25, 0.5, 0.75], [0.1, 0.2, 0.3]]])
    given = rewards([[1.0, 0.0]], [[3, 3]], None, values)
    np.testing.assert_allclose(Gae(1.0, 1.0).raw(given), np.array([[[1.0], [0.0]]]) - values)
    np.testing.assert_allclose(Gae(1.0, 0.0).raw(given)[0, 0], [0.25, 0.25, 0.25])
    assert not Gae(1.0, 0.95).raw(rewards([[1.0, 0.0]], [[3, 3]], None, np.array([[[1.0] * 3, [0.0] * 3]]))).any()
    with pytest.raises(ValueError, match="needs a value head"):
        Gae()(rewards([[1.0, 0.0]]))
