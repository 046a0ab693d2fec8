"""What a response is paid, and what a group of rewards says: the one place where a response becomes a number.

By default it is what the verdict pays. A reward of the user's own (`verify.rewards`) is asked once a response, in the verifier's
processes, and what it said is recorded: rounds that are trained on again take the record.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from jaxpolya.config import RlConfig
from jaxpolya.doors import bring, is_reference
from jaxpolya.errors import ConfigError, RunError
from jaxpolya.parallel.hosts import exchange, from_primary
from jaxpolya.records import Question, Sample, Verdict
from jaxpolya.verify.kinds import parcel
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.rewards import Case, Form, Payment, form_of

KEY = "rl.reward"

FAILURES, FAILURE_SHARE = 2, 0.05
"""Responses that the verifier or a reward may fail on, in number or as a share of all; a scorer may have a case that it can't judge."""


@dataclasses.dataclass(frozen=True)
class Pay:
    """How responses are paid."""

    name: str
    of_verdict: Callable[[Sample], float | None] | None = None
    """What a verdict pays; None where the reward is a user's."""
    form: Form | None = None
    parcel: Mapping[str, Any] | None = None
    identity: list[str] | None = None
    """What a stage knows a user's reward by."""


def make_pay(config: RlConfig) -> Pay:
    """How the configuration has responses paid. Raises `ConfigError` where a user's reward isn't there, or can't be called."""
    if not is_reference(config.reward):
        return Pay(config.reward, {"verdict": verdict_pays, "correct": correct_pays}[config.reward])
    plugin = bring(config.reward, KEY)
    return Pay(plugin.name, form=form_of(plugin, KEY), parcel=parcel(plugin), identity=plugin.identity)


def verdict_pays(sample: Sample) -> float | None:
    """The verdict's pay: its score where its verifier gives one, else 1 or 0; None where it is masked."""
    return None if sample.verdict is None else Verdict(verdict=sample.verdict, score=sample.score).reward


def correct_pays(sample: Sample) -> float | None:
    """1 for what is right and 0 for the rest, whatever its score; None where it is masked."""
    return None if sample.verdict is None else Verdict.PAYS[sample.verdict]


def pay_samples(samples: Sequence[Sample], questions: Sequence[Question], pay: Pay, pool: Pool, where: str) -> list[Sample]:
    """The samples with their rewards; those that have one keep it.

    Each host sees to its share of the groups.

    Args:
      samples: judged; the same number for each question, group by group.
      questions: of the groups.
      pay: how they are paid.
      pool: whose workers ask a user's reward.
      where: the stage and its step, for errors.

    Raises `RunError` where a user's reward fails on more than a few. Those few are harness errors that name it.
    """
    if pay.of_verdict is not None:
        return [dataclasses.replace(sample, reward=pay.of_verdict(sample)) for sample in samples]
    size = len(samples) // len(questions)
    groups = [samples[number * size :][:size] for number in range(len(questions))]
    mine = range(jax.process_index(), len(groups), jax.process_count())
    waiting = {number: _ask(groups[number], questions[number], pay, pool) for number in mine}
    paid = {number: [payment for future in futures for payment in future.result()] for number, futures in waiting.items()}
    payments: dict[int, list[Payment]] = {}
    for share in exchange({str(number): amounts for number, amounts in paid.items()}):
        payments |= {int(number): amounts for number, amounts in share.items()}
    rewarded = [sample for number, group in enumerate(groups) for sample in _rewarded(group, payments[number])]
    _require_paid(rewarded, samples, pay, where)
    return rewarded


def too_many_failed(failed: int, of: int) -> bool:
    """Whether so many failures are more than the few that are let pass."""
    return failed > max(FAILURES, FAILURE_SHARE * of)


def _unpaid(group: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in group if sample.reward is None and sample.verdict != "harness_error"]


def _ask(group: Sequence[Sample], question: Question, pay: Pay, pool: Pool) -> list[Future[list[Payment]]]:
    """What a user's reward is asked about one group: all at once where it looks at groups or is awaited, else one by one."""
    assert pay.form is not None and pay.parcel is not None
    cases = [_case(sample, question) for sample in _unpaid(group)]
    together = pay.form.group or pay.form.awaited
    pieces = [cases] if together and cases else [[case] for case in cases]
    return [pool.submit_reward(pay.form, pay.parcel, piece) for piece in pieces]


def _case(sample: Sample, question: Question) -> Case:
    assert sample.verdict is not None
    seconds = sample.seconds or 0.0
    verdict = Verdict(verdict=sample.verdict, extracted=sample.extracted, seconds=seconds, detail=sample.detail, score=sample.score)
    return Case(question=question, response=sample.response, verdict=verdict, length=len(sample.token_ids), finish=sample.finish)


def _rewarded(group: Sequence[Sample], payments: Sequence[Payment]) -> list[Sample]:
    paid = dict(zip([sample.id for sample in _unpaid(group)], payments, strict=True))
    return [_with(sample, paid[sample.id]) if sample.id in paid else sample for sample in group]


def _with(sample: Sample, payment: Payment) -> Sample:
    if isinstance(payment, str):
        return dataclasses.replace(sample, verdict="harness_error", detail=payment, score=None)
    return dataclasses.replace(sample, reward=payment)


def _require_paid(rewarded: Sequence[Sample], before: Sequence[Sample], pay: Pay, where: str) -> None:
    failed = [after for after, sample in zip(rewarded, before, strict=True) if after.verdict == "harness_error" != sample.verdict]
    if too_many_failed(len(failed), len(before)):
        raise RunError(
            f"{where}: {len(failed)} of {len(before)} responses have no reward: {failed[0].detail}. Mend {pay.name}, or raise "
            "verify.deadline or verify.memory_mb where it needs more, and start again"
        )


def try_pay(pay: Pay, question: Question, pool: Pool) -> None:
    """Asks a user's reward about two made-up responses, the reference answer and an empty one, before a weight is loaded.

    Raises `ConfigError` where it fails on either.
    """
    if pay.form is None or pay.parcel is None:
        return
    right = Verdict(verdict="correct", extracted=question.answer)
    cases = [
        Case(question=question, response=question.answer, verdict=right, length=1, finish="stop"),
        Case(question=question, response="", verdict=Verdict(verdict="unparseable"), length=1, finish="length"),
    ]
    payments = pool.submit_reward(pay.form, pay.parcel, cases).result()
    trouble = next((payment for payment in payments if isinstance(payment, str)), None)
    if trouble := from_primary(trouble):
        raise ConfigError(f"{KEY}: tried on the question {question.id} with its answer and with an empty response: {trouble}")


def reward_of(sample: Sample) -> float | None:
    """What the sample was paid; where nobody has said yet, the verdict's pay. None where it is masked."""
    return sample.reward if sample.reward is not None else verdict_pays(sample)


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
        "correct": float(np.mean([sample.verdict == "correct" for sample in samples])),
        "unparseable": float(np.mean([sample.verdict == "unparseable" for sample in samples])),
        "cut_short": float(np.mean([sample.verdict in Verdict.LIMITED for sample in samples])),
        "no_signal": float((~mixed_groups(known)).mean()),
        "masked": float((~valid).mean()),
    }
