"""What responses are paid: by their verdicts, or by a user's reward, whose failures are masked and named."""

import dataclasses

import numpy as np
import pytest

from jaxpolya.config import RlConfig
from jaxpolya.errors import ConfigError, RunError
from jaxpolya.records import Question, Sample
from jaxpolya.rollout.rewards import make_pay, outcome_facts, pay_samples, rewards_of, try_pay
from jaxpolya.verify.pool import Pool

QUESTIONS = [Question(id=f"q{i}", question="?", answer="yes") for i in range(2)]


def rl_config(reward: str = "verdict") -> RlConfig:
    tree = {
        "questions": [{"kind": "jsonl", "path": "q.jsonl"}], "sampling": {"max_new_tokens": 8}, "optimizer": {"learning_rate": 1e-2},
        "batching": {"row_tokens": 32}, "steps": 1, "prompts": 2, "group": 2, "reward": reward,
    }  # fmt: skip
    return RlConfig.model_validate(tree)


@pytest.fixture
def own(tmp_path):
    """A function (text) → how a configuration pays whose reward is `mine` in a file of that text."""

    def pay(text: str):
        (tmp_path / "own.py").write_text(text)
        return make_pay(rl_config(f"{tmp_path}/own.py:mine"))

    return pay


@pytest.fixture(scope="module")
def pool():
    with Pool(1, deadline=30.0) as pool:
        yield pool


def samples(*verdicts: str, score: float | None = None) -> list[Sample]:
    """Two groups of responses with these verdicts, one, two, … tokens long."""
    return [
        Sample(
            id=f"{i}", question_id=f"q{i * 2 // len(verdicts)}", arm="rl", stage="rl", index=i, prompt="p", response=f"r{i}",
            token_ids=[1] * (i + 1), logprobs=[0.0] * (i + 1), finish="stop", seed=0, verdict=verdict,
            score=score if verdict == "wrong" else None,
        )
        for i, verdict in enumerate(verdicts)
    ]  # fmt: skip


VERDICTS = ("correct", "wrong", "harness_error", "unparseable")


def test_verdicts_pay(pool):
    drawn = samples(*VERDICTS, score=0.25)
    pays = {name: make_pay(rl_config(name)) for name in ("verdict", "correct")}
    rewards = {name: [sample.reward for sample in pay_samples(drawn, QUESTIONS, pay, pool, "here")] for name, pay in pays.items()}
    assert rewards == {"verdict": [1.0, 0.25, None, 0.0], "correct": [1.0, 0.0, None, 0.0]}
    np.testing.assert_array_equal(rewards_of(drawn, 2), [[1, 0.25], [np.nan, 0]])


def test_a_users_reward_is_asked_once_a_response(own, pool):
    pay = own("def mine(response, length): return length + 0.5")
    drawn = samples(*VERDICTS)
    drawn[1] = dataclasses.replace(drawn[1], reward=-3.0)  # of a round that is trained on again
    paid = pay_samples(drawn, QUESTIONS, pay, pool, "here")
    assert [sample.reward for sample in paid] == [1.5, -3.0, None, 4.5]
    assert [dataclasses.replace(sample, reward=None) for sample in paid] == samples(*VERDICTS)
    facts = outcome_facts(paid, 2)
    assert facts["reward"] == 1.0 and facts["no_signal"] == 0.5 and facts["masked"] == 0.25 and facts["correct"] == 0.25


def test_a_group_is_what_answers_one_question(own, pool):
    pay = own("def mine(questions, lengths): return [len(lengths) * 100 + int(q.id[1:]) * 10 + n for q, n in zip(questions, lengths)]")
    paid = pay_samples(samples(*VERDICTS, "wrong", "wrong"), QUESTIONS, pay, pool, "here")
    assert [sample.reward for sample in paid] == [201, 202, None, 314, 315, 316]


def test_failures_are_masked_and_many_stop_the_run(own, pool):
    pay = own("def mine(response, verdict): return {'r0': 1, 'r1': 2, 'r3': 0}[response]")
    paid = pay_samples(samples("correct", "wrong", "wrong", "correct"), QUESTIONS, pay, pool, "here")
    assert [(sample.verdict, sample.reward) for sample in paid] == [("correct", 1), ("wrong", 2), ("harness_error", None), ("correct", 0)]
    assert paid[2].detail == "the reward own.py:mine raised KeyError: 'r2'"
    np.testing.assert_array_equal(rewards_of(paid, 2), [[1, 2], [np.nan, 0]])
    pay = own("def mine(response): return float('nan')")
    with pytest.raises(RunError, match=r"^step 3: 3 of 4 responses have no reward: the reward own\.py:mine gave nan.*Mend own\.py:mine"):
        pay_samples(samples("correct", "wrong", "harness_error", "wrong"), QUESTIONS, pay, pool, "step 3")


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("def mine(question): return question.entry['level']", "raised TypeError: 'NoneType' object is not subscriptable"),
        ("def mine(response): return 1 / len(response)", "raised ZeroDivisionError"),
        ("def mine(verdict): return verdict", "gave a Verdict; a number was expected"),
    ],
)
def test_it_is_tried_before_a_weight_is_loaded(own, pool, text, trouble):
    with pytest.raises(ConfigError, match=rf"^rl\.reward: tried on the question q0 .*the reward own\.py:mine {trouble}"):
        try_pay(own(text), QUESTIONS[0], pool)
    try_pay(own("def mine(response): return len(response)"), QUESTIONS[0], pool)
    try_pay(make_pay(rl_config()), QUESTIONS[0], pool)


def test_an_unknown_name_is_answered():
    with pytest.raises(ValueError, match=r"'verdcit' is none of verdict, correct, nor module:attribute .*did you mean verdict"):
        rl_config("verdcit")
