"""Group-relative advantages: closed forms, masked rewards, groups without signal, an independent oracle."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxpolya.train.advantages import group_advantages

ORACLE = Path(__file__).parents[2].parent / "shared/oracles/policy_losses.json"


def test_normalised_uses_the_sample_deviation():
    found = group_advantages(np.array([[1.0, 0.0], [3.0, 1.0]]), "normalised")
    # Two rewards a, b: mean-distance (a−b)/2 over sample deviation (a−b)/√2 is 1/√2 whatever the rewards.
    np.testing.assert_allclose(found.advantages_PG, [[0.5**0.5, -(0.5**0.5)]] * 2, atol=2e-6)
    assert found.advantages_PG.dtype == np.float32


def test_centred_keeps_the_scale_of_the_rewards():
    found = group_advantages(np.array([[1.0, 0.0, 0.0, 0.0]]), "centred")
    np.testing.assert_allclose(found.advantages_PG, [[0.75, -0.25, -0.25, -0.25]])


@pytest.mark.parametrize("kind", ["normalised", "centred"])
def test_masked_rewards_leave_mean_and_deviation_alone(kind):
    whole = group_advantages(np.array([[1.0, 0.0, 0.5]]), kind)
    holed = group_advantages(np.array([[1.0, np.nan, 0.0, 0.5, np.nan]]), kind)
    np.testing.assert_array_equal(holed.advantages_PG[:, [0, 2, 3]], whole.advantages_PG)
    np.testing.assert_array_equal(holed.advantages_PG[:, [1, 4]], 0)
    np.testing.assert_array_equal(holed.valid_PG, [[True, False, True, True, False]])
    assert holed.stats == {"reward_sum": 1.5, "reward_count": 3, "groups": 1, "no_signal": 0, "masked": 2}


@pytest.mark.parametrize("kind", ["normalised", "centred"])
@pytest.mark.filterwarnings("error")
def test_groups_without_signal_are_exactly_zero_and_counted(kind):
    nan = np.nan
    rewards = np.array([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [nan, 1.0, nan], [nan, nan, nan], [1.0, 0.0, nan]])
    found = group_advantages(rewards, kind)
    assert not found.advantages_PG[:4].any() and found.advantages_PG[4].any()
    np.testing.assert_array_equal(found.signal_P, [False, False, False, False, True])
    assert found.stats["no_signal"] == 4


@pytest.mark.skipif(not ORACLE.exists(), reason="the oracle file lies outside the repository")
@pytest.mark.parametrize("name", ["rewards_1", "rewards_2"])
def test_oracle(name):
    oracle = json.loads(ORACLE.read_text())
    rewards = np.array(oracle["fixture"][name]).reshape(2, 3)
    expected = np.array(oracle["expected"][f"grpo_advantages_{name}_ddof1"]["value"]).reshape(2, 3)
    np.testing.assert_allclose(group_advantages(rewards, "normalised").advantages_PG, expected, atol=1e-6)
