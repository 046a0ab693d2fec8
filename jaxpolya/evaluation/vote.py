"""Majority vote: the answer that most responses to a question agree on (self-consistency, arXiv 2203.11171).

Answers vote for the same candidate when their *ballots* are equal: numbers by value (0.5, 1/2 and \\frac{1}{2} agree), the rest by one
spelling of LaTeX's many, without case and blanks. Right and wrong answers are put into form alike. Merging the right ones by their
verdict, and the wrong ones by how they look, would hand the right ones an advantage that no vote without the solution has; comparing all
pairs by the verifier would cost a quadratic number of verdicts for the few that only algebra can tell to be equal.

A tie goes to the candidate that was named first. The vote is right where the first response with the winning ballot was judged
`correct`. Responses without an answer abstain; a question on which all abstain is lost. Programs don't vote: no two are written alike.
"""

import collections
import re
from collections.abc import Sequence
from fractions import Fraction

from jaxpolya.records import Sample
from jaxpolya.verify.mathematics.latex import folded

LONGEST = 300
"""Longer answers vote as they are written."""
_NUMBER = re.compile(r"(-?)(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:/(\d{1,40}))?")
_FRACTION = re.compile(r"(-?)\\frac(?:\{(\d{1,40})\}\{(\d{1,40})\}|(\d)(\d))")
_GROUPED = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def ballot(answer: str) -> str | Fraction:
    """What an extracted answer votes for."""
    if len(answer) > LONGEST:
        return answer
    text = folded(answer)
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    if match := _NUMBER.fullmatch(text):
        sign, over, under = match[1], match[2], match[3] or "1"
    elif match := _FRACTION.fullmatch(text):
        sign, over, under = match[1], match[2] or match[4], match[3] or match[5]
    else:
        return text
    return text if not int(under) else Fraction(over) / int(under) * (-1 if sign else 1)


def majority(samples: Sequence[Sample]) -> dict[str, float]:
    """Question id → 1.0 where the majority of its responses is right, else 0.0; every question of the samples has one."""
    by_question: dict[str, list[Sample]] = collections.defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.index):
        by_question[sample.question_id].append(sample)
    return {question_id: float(_right(group)) for question_id, group in by_question.items()}


def _right(samples: Sequence[Sample]) -> bool:
    """Whether one question's vote is right; the samples are in their order."""
    ballots = [(ballot(sample.extracted), sample) for sample in samples if sample.extracted]
    if not ballots:
        return False
    ((winner, _),) = collections.Counter(cast for cast, _ in ballots).most_common(1)  # of equals the first that was counted
    return next(sample for cast, sample in ballots if cast == winner).verdict == "correct"
