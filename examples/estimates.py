"""A kind of question of one's own: estimates, which are right within 5 % and worth the less the farther they are off.

    jaxpolya verify --in answers.jsonl --out verdicts.jsonl --kind examples/estimates.py:Estimate

In a configuration it is the `verifier` of a source. A question may bring a tolerance of its own, as a further column of its row.
"""

import re

from jaxpolya.records import Question
from jaxpolya.verify.extract import extract
from jaxpolya.verify.kinds import Verifier

STATED = re.compile(r"Estimate:\s*([-+]?[\d.,]*\d)")


class Estimate(Verifier):
    """Says how to end, finds the estimate, and gives it a score from 0 to 1."""

    def ending(self, question: Question) -> str:
        """The line under the question."""
        return 'End with "Estimate:" and one number.'

    def statement(self, question: Question, answer: str) -> str:
        """The last line of a worked example, in the same form."""
        return f"Estimate: {answer}"

    def extract(self, question: Question, text: str) -> str | None:
        """The number after the last "Estimate:"; a response that has none may have stated it in another way."""
        stated = STATED.findall(text)
        return stated[-1] if stated else extract(text, "number")

    def problem(self, question: Question) -> str | None:
        """Asked once, when questions are read: what isn't a number could be compared with nothing."""
        return None if number(question.answer) else f"its answer {question.answer!r} is no number other than 0"

    def judge(self, question: Question, answer: str) -> float:
        """1 within the tolerance, from there falling to 0 where the answer is off by as much as the reference itself."""
        given, reference = number(answer), number(question.answer)
        if given is None or reference is None:
            return 0.0
        off, tolerance = abs(given / reference - 1), float((question.entry or {}).get("tolerance", 0.05))
        return 1.0 if off <= tolerance else max(0.0, 1 - off)


def number(text: str) -> float | None:
    """The value of a number as people write it."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
