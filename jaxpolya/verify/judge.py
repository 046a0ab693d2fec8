"""One verdict: what a response answers, and whether that is right.

The work has two halves, so that the pool can do the first one itself and remember the second: `answer_of` extracts (linear time,
safe in the trusted process), `judge_answer` compares (a worker's job, but for what `plain_verdict` can say). Blame is settled here too:
what a response brings about is the response's (`wrong`, `crash`), what would have failed with any response is ours (`harness_error`).
"""

import dataclasses
import re
import time
from dataclasses import dataclass
from typing import Any, Self, get_args

from jaxpolya.errors import InputError
from jaxpolya.records import Extraction, Kind, Question, Unevaluated, Verdict, VerdictName
from jaxpolya.verify import choice, code, gym, second
from jaxpolya.verify.extract import extract
from jaxpolya.verify.kinds import is_own, judge_own, own_kinds
from jaxpolya.verify.mathematics import compare
from jaxpolya.verify.mathematics.algebra import Unparsed
from jaxpolya.verify.mathematics.expression import TooLarge

DEADLINE = 10.0
"""Seconds for one answer, where nobody says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A response with what it takes to judge it; the fields are those of `Question`."""

    id: str
    kind: str
    """A `Kind`, or one of the user's own (`kinds`)."""
    response: str
    question: str = ""
    """The question with its context, where it is known: an answer that only restates it is not right."""
    answer: str = ""
    extraction: Extraction = "statement"
    choices: list[str] | None = None
    tests: Any = None
    entry: dict[str, Any] | None = None
    asked: dict[str, Any] | None = None
    """The question's record, which a kind of the user's own is shown."""
    second: bool = False
    """Whether the independent second reading judges it (`verify.second`), as the audit of rewards asks; it decides nothing."""

    @classmethod
    def of(cls, question: Question, response: str, id: str) -> Self:
        """The item for one response to a question."""
        return cls(
            id=id, kind=question.verifier, response=response, question="\n".join(filter(None, (question.context, question.question))),
            answer=question.answer, extraction=question.extraction, choices=question.choices, tests=question.tests, entry=question.entry,
            asked=question.to_json() if is_own(question.verifier) else None,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What verdicts depend on beside the item: the settings of a run's `verify` that change them."""

    unevaluated: Unevaluated = "refuse"
    """What becomes of an answer that equals the gold without having been worked out (`verify.math`)."""
    modules: tuple[str, ...] = ()
    """Third-party modules that a program may import (`verify.packages`)."""

    def to_json(self) -> dict[str, Any]:
        """As it travels to a worker."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """What `to_json` has made, back."""
        return cls(**{**fields, "modules": tuple(fields["modules"])})


DEFAULT = Policy()


_STYLES = get_args(Extraction)


def problem(item: Item) -> str | None:
    """Why an item cannot be judged whatever its response is, or None."""
    if is_own(item.kind):
        return None if item.kind in own_kinds() else f"{item.kind!r} is not a kind of answer; use one of {', '.join(get_args(Kind))}"
    if item.extraction not in _STYLES:
        return f"{item.extraction!r} is not a style of extraction; use one of {', '.join(_STYLES)}"
    if item.kind == "code":
        try:
            code.read(item.tests)
        except code.BadTests as error:
            return str(error)
    if item.kind == "choice":
        if not item.choices:
            return "a choice item needs choices"
        if choice.letter_of(item.answer, item.choices) is None:
            return f"the answer {item.answer!r} is none of the choices: give a letter or one choice's full text"
    if item.kind == "reasoning_gym" and not (item.entry and isinstance(item.entry.get("metadata"), dict)):
        return "a reasoning_gym item needs its entry, with metadata.source_dataset"
    if item.kind == "reasoning_gym" and item.entry and (reason := gym.refused(str(item.entry["metadata"].get("source_dataset")))):
        return reason
    if item.kind == "math" and not item.answer.strip():
        return "a math item needs an answer"
    return None


def answer_of(item: Item) -> str | None:
    """The answer that the response gives, or None. Linear in its length."""
    if item.second:
        return second.read(item.response, item.kind, item.answer)
    if item.kind == "choice":
        return choice.extract(item.response, item.choices or [])
    if item.kind == "code":
        return code.extract(item.response, item.tests)
    return extract(item.response, item.extraction)


_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def plain_verdict(item: Item, answer: str) -> Verdict | None:
    """The verdict where it takes no comparator: two integers in plain digits, or the letter of a choice. `judge_answer` says the same.

    Most answers to arithmetic and word problems are such. On two cores the pool takes some 15 µs for one, and 150 by way of its workers.
    """
    if item.second:
        return None
    if item.kind == "choice":
        right = answer == choice.letter_of(item.answer, item.choices or [])
    elif item.kind == "math" and _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(item.answer):
        right = answer == item.answer
    else:
        return None
    return Verdict(verdict="correct" if right else "wrong", extracted=answer)


def judge_answer(item: Item, answer: str | None, seconds: float = DEADLINE, policy: Policy = DEFAULT) -> Verdict:
    """The verdict on an extracted answer; the response itself is not looked at. seconds: how long a program may run."""
    start = time.perf_counter()
    name, detail = _compare(item, answer, seconds, policy)
    return Verdict(verdict=name, extracted=answer, seconds=round(time.perf_counter() - start, 6), detail=detail)


def judge(item: Item, policy: Policy = DEFAULT) -> Verdict:
    """The verdict on a response, in this process: no deadline and no memory limit protects it (see `pool.Pool`).

    A program alone is always run in the sandbox, with a deadline.
    """
    start = time.perf_counter()
    if is_own(item.kind):
        verdict = judge_own(Question.from_json(item.asked or {}), item.response)
    else:
        verdict = judge_answer(item, answer_of(item), policy=policy)
    return dataclasses.replace(verdict, seconds=round(time.perf_counter() - start, 6))


def _compare(item: Item, answer: str | None, seconds: float, policy: Policy) -> tuple[VerdictName, str | None]:
    if ours := problem(item):
        return "harness_error", ours
    if answer is None:
        return "unparseable", None
    try:
        if item.second:
            gold = choice.letter_of(item.answer, item.choices or []) if item.kind == "choice" else item.answer
            right = second.confirms(gold or "", item.kind, item.choices, answer)
        elif item.kind == "code":
            return code.judge(item.tests, answer, seconds, policy.modules)
        elif item.kind == "choice":
            right = answer == choice.letter_of(item.answer, item.choices or [])
        elif item.kind == "reasoning_gym":
            right = gym.correct(answer, item.entry or {})
        else:
            refused = compare.judge(
                item.answer,
                answer,
                question=item.question,
                unevaluated=policy.unevaluated,
                percent_is_unit=item.extraction == "number",
            )
            return ("correct", None) if refused is None else ("wrong", refused or None)
    except (TooLarge, Unparsed) as error:
        return "wrong", str(error)
    except (MemoryError, RecursionError) as error:
        return "crash", type(error).__name__
    except Exception as error:
        return "harness_error", f"{type(error).__name__}: {error}"[:500]
    return ("correct" if right else "wrong"), None


def reference_text(answer: Any) -> str:
    """A reference answer as text. Raises `InputError` for what is neither a text nor a number."""
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise InputError(f"answer must be a string or a number, not {type(answer).__name__}")
    return str(answer)
