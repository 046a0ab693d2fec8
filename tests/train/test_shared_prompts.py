"""A group's prompt that is computed once gives the losses and gradients of one that is computed with each response."""

import jax
import numpy as np
import pytest
import replays

from jaxpolya.config import ALGORITHMS
from jaxpolya.runs.identity import stage_fields


def test_every_algorithm_has_the_losses_and_gradients_of_plain_rows(tmp_path):
    """Parameters after three updates by the sum of all gradients (rate 0.1) agree to a tenth of what gradients have to."""
    file = replays.write(tmp_path / "rollouts.jsonl", replays.rows())
    (plain, params), (shared, others) = (replays.side_by_side(file, str(tmp_path), share=share) for share in (False, True))
    assert set(plain) == set(ALGORITHMS)
    for name, losses in plain.items():
        assert shared[name] == pytest.approx(losses, rel=1e-5, abs=1e-5), name
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, others)


def test_what_a_round_is_scored_as_comes_back_to_its_tokens(tmp_path, mesh1):
    """The old policy and the reference are the policy itself before the first update: no other token's log-prob would say so."""
    records = replays.rows(steps=1)
    changes = {"old_logprobs": "trainer", "kl": {"weight": 0.1}, "tis": 1.01, "steps": 1, "updates": 1}
    config = replays.rl_config(
        replays.write(tmp_path / "rollouts.jsonl", records), algorithm="gspo", share_prompts=True, **changes,
        batching={"row_tokens": 32, "micro_rows": 2},
    )  # fmt: skip
    (facts,) = replays.train(config, tmp_path / "rl", mesh1).steps
    assert facts["ratio"] == pytest.approx(1, abs=1e-6) and facts["ratio_max"] == pytest.approx(1, abs=1e-5)
    assert facts["reference_kl"] == pytest.approx(0, abs=1e-9) and facts["sampler_kl"] > 1e-3 and facts["corrected"] > 0
    assert facts["tokens"] == sum(len(row["token_ids"]) for row in records) and facts["grad_norm"] > 0


def test_a_stage_without_sharing_is_known_by_what_it_was_known_by_before_there_was_any():
    assert "share_prompts" not in stage_fields(replays.rl_config("x", share_prompts=False))
    assert stage_fields(replays.rl_config("x", share_prompts=True))["share_prompts"] is True
