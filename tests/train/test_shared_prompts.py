"""A group's prompt that is computed once gives the losses and gradients of one that is computed with each response."""

import jax
import numpy as np
import pytest
import replays

from jaxpolya.config import ALGORITHMS
from jaxpolya.runs.identity import stage_fields

EVERYTHING = {
    "algorithm": "ppo", "value": {"warmup": 0}, "old_logprobs": "trainer", "kl": {"weight": 0.1}, "tis": 2.0, "entropy_bonus": 0.01,
    "mask_truncated": True, "steps": 1, "updates": 1, "batching": {"row_tokens": 32, "micro_rows": 2},
}  # fmt: skip
"""All that a round's rows are scored for and learned from, in several micro-batches."""


def test_every_algorithm_has_the_losses_and_gradients_of_plain_rows(tmp_path):
    """Parameters after three updates by the sum of all gradients (rate 0.1) agree to a tenth of what gradients have to."""
    file = replays.write(tmp_path / "rollouts.jsonl", replays.rows())
    (plain, params), (shared, others) = (replays.side_by_side(file, str(tmp_path), share=share) for share in (False, True))
    assert set(plain) == set(ALGORITHMS)
    for name, losses in plain.items():
        assert shared[name] == pytest.approx(losses, rel=1e-5, abs=1e-5), name
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, others)


def test_a_round_is_scored_and_learned_from_as_in_plain_rows(tmp_path, mesh1):
    file = replays.write(tmp_path / "rollouts.jsonl", replays.rows(steps=1))
    (plain,), (shared,) = (
        replays.train(replays.rl_config(file, **EVERYTHING, share_prompts=share), tmp_path / str(share), mesh1).steps
        for share in (False, True)
    )
    del plain["speed"], shared["speed"], plain["audit"], shared["audit"]
    assert shared == pytest.approx(plain, rel=1e-5, abs=1e-5)
    assert shared["value_loss"] > 0 and shared["reference_kl"] >= 0 and shared["corrected"] > 0 and shared["grad_norm"] > 0


def test_a_stage_without_sharing_is_known_by_what_it_was_known_by_before_there_was_any():
    assert "share_prompts" not in stage_fields(replays.rl_config("x", share_prompts=False))
    assert stage_fields(replays.rl_config("x", share_prompts=True))["share_prompts"] is True
