"""Collapse in RL: a policy that had many answers to a question comes to have one.

It shows in three numbers of a step's log: the responses of a group become one text, the entropy of the tokens' distributions falls with
them, and the reward may rise all the while, so that a reward curve shows nothing. What is looked at is the fall, not the level: a
model that begins with alike responses hasn't collapsed (`audit` says of it that its responses are one).

Steps are compared in means over a few: single ones are noisy. Whatever steps a stage's log holds give the same answer, so a resumed stage
and a report find what was said while it ran.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxpolya.evaluation.diversity import RESPONSES, vendi
from jaxpolya.ngrams import NgramKernel
from jaxpolya.records import Sample

ENDS = 3
"""Steps at the beginning, and just behind one, whose means are compared."""

MANY = 0.25
"""Share of a group's responses that must differ at the beginning for there to be something to lose."""

LEFT_RESPONSES, LEFT_ENTROPY = 0.15, 0.5
"""What a collapse leaves at most: of the different responses of a group beyond the first, and of the entropy."""

VENDI_GROUPS = 8
"""Groups of a round whose Vendi score is taken; of each at most `diversity.RESPONSES` responses."""

FACTS = ("distinct_responses", "entropy", "reward")


def vendi_of_round(samples: Sequence[Sample], group: int) -> float:
    """The mean Vendi score of the first groups of a round: 1 (all alike) to the number of responses (nothing in common).

    `samples` come group by group. The kernel is that of the report's diversity.
    """
    kernel, size = NgramKernel(), min(group, RESPONSES)
    first = range(0, min(len(samples), VENDI_GROUPS * group), group)
    scores = [vendi(kernel.gram([sample.response for sample in samples[start : start + size]])) for start in first]
    return sum(scores) / len(scores)


def collapsed(steps: Sequence[Mapping[str, Any]], group: int) -> dict[str, Any] | None:
    """Whether the responses have collapsed by the last of these steps.

    Args:
      steps: rows of a stage's step log from the first on, each with `FACTS`.
      group: G.

    Returns:
      {step, group, and of each of `FACTS` [at the beginning, now]}; None where nothing has collapsed, or there are too few steps to say.
    """
    if len(steps) < 2 * ENDS or any(name not in steps[0] for name in FACTS):
        return None
    first, now = ({name: sum(row[name] for row in rows) / ENDS for name in FACTS} for rows in (steps[:ENDS], steps[-ENDS:]))
    if first["distinct_responses"] < max(2.0, MANY * group):
        return None
    alike = now["distinct_responses"] - 1 <= LEFT_RESPONSES * (first["distinct_responses"] - 1)
    if not alike or now["entropy"] > LEFT_ENTROPY * first["entropy"]:
        return None
    return {"step": steps[-1]["step"], "group": group} | {name: [first[name], now[name]] for name in FACTS}


def first_collapse(steps: Sequence[Mapping[str, Any]], group: int) -> dict[str, Any] | None:
    """What `collapsed` says at the first step at which it says anything."""
    return next(filter(None, (collapsed(steps[:end], group) for end in range(1, len(steps) + 1))), None)


def collapse_words(facts: Mapping[str, Any]) -> str:
    """What a collapse is, and what people do about it."""
    (many, few), (was, entropy), (paid, reward) = (facts[name] for name in FACTS)
    return (
        f"the policy has collapsed by step {facts['step']}: of the {facts['group']} responses to a question {many:.1f} differed at the "
        f"beginning and {few:.1f} do now, while the entropy went from {was:.2f} to {entropy:.2f} nats a token and the reward from "
        f"{paid:.2f} to {reward:.2f}. Groups that are all one response teach nothing more, and pass@k is pass@1. Look first at the paid "
        "responses in report.md, whether they solve anything: what is learned so fast is often a way to be paid. If they do, people take "
        "fewer steps (rl.evaluate_at shows which), a lower learning rate, a divergence from the start (rl.kl), an entropy bonus "
        "(rl.entropy_bonus) or a higher upper clip (rl.clip_high, as dapo has it)"
    )
