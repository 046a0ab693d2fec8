"""What a reader of the page can look up: questions with the responses that they got, cut to what one file can hold.

`runs.evidence` gathers it from the records of a run; the page shows it. Everything is counted over all responses, and the responses
themselves are shown as far as the room goes: like responses once with their number, of the different ones a few, for as many questions as
fit, drawn at random. What isn't there is counted, so that the page can say so.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jaxpolya.records import write_json

ROOM = {"rows": 500_000, "answers": 1_200_000, "lessons": 500_000, "histories": 500_000}
"""Bytes of JSON: of the evaluated questions with their counts, of their responses, of the training questions and of the RL questions with
theirs. With the libraries' 0.8 MB that stays below 5 MB."""

LONGEST = 3000
"""Characters of a response that are shown; a longer one loses its middle."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A response, as often as it was given to one question."""

    text: str
    count: int
    verdict: str
    cut: bool = False
    """At the token limit."""
    extracted: str | None = None
    """What the verifier read as the answer."""
    detail: str | None = None
    """What the verifier said of it."""
    remarks: list[str] = dataclasses.field(default_factory=list)
    """What the audit of rewards sees in a paid one."""
    labels: list[str] = dataclasses.field(default_factory=list)
    """The heuristics that a judge finds in it."""
    reward: float | None = None
    advantage: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What one arm answered to one question."""

    n: int
    correct: int
    answers: list[Answer] | None = None
    """Different responses, the most frequent first; None where there was no room."""
    hidden: int = 0
    """Responses that are like none of these."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatedQuestion:
    """One question of an evaluation."""

    id: str
    question: str
    reference: str
    cells: dict[str, Cell]
    """By arm."""
    labelled: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    """Arm → heuristic → correct solutions in which a judge finds it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """The questions of one set, as far as there is room."""

    name: str
    total: int
    questions: list[EvaluatedQuestion]

    @property
    def bare(self) -> int:
        """Questions that are here without their responses."""
        return sum(all(cell.answers is None for cell in asked.cells.values()) for asked in self.questions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A response that could have become a fine-tuning row."""

    text: str
    verdict: str
    cut: bool = False
    extracted: str | None = None
    heuristic: str | None = None
    slot: int | None = None
    adherence: float | None = None
    kept: list[str] = dataclasses.field(default_factory=list)
    """Recipes that learn from it."""
    why: str | None = None
    """Why none does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lesson:
    """One training question: what each heuristic made of it, and what was kept."""

    id: str
    question: str
    reference: str
    tried: dict[str, list[int]]
    """Heuristic → [responses, correct ones, kept ones]."""
    candidates: list[Candidate] | None = None
    hidden: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """One RL step's rollouts of one question."""

    step: int
    n: int
    correct: int
    reward: float | None
    answers: list[Answer] | None = None
    hidden: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """One RL question over the steps that were read."""

    id: str
    question: str
    reference: str
    rounds: dict[str, list[Round]]
    """By arm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """A training's log: for each of its series, [step, value] of every step that has one."""

    name: str
    series: dict[str, list[tuple[int, float]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that is gathered for one page."""

    sets: list[QuestionSet] = dataclasses.field(default_factory=list)
    lessons: list[Lesson] = dataclasses.field(default_factory=list)
    lessons_total: int = 0
    histories: list[History] = dataclasses.field(default_factory=list)
    histories_total: int = 0
    steps_read: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """Arm → (RL steps whose rollouts were read, all)."""
    fine_tuning: list[Training] = dataclasses.field(default_factory=list)
    heldout: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """Recipe → held-out loss before and after, nats a token."""


def plain(value: Any) -> Any:
    """A value as JSON without the fields that say nothing: None, False, 0 responses hidden, and what is empty."""
    if dataclasses.is_dataclass(value):
        named = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: plain(part) for name, part in named if not _says_nothing(name, part)}
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _says_nothing(name: str, part: Any) -> bool:
    return part is None or part is False or (name == "hidden" and not part) or (isinstance(part, list | dict | str) and not part)


def size(value: Any) -> int:
    """Bytes of a value's JSON in the page."""
    return len(write_json(plain(value), "the page", separators=(",", ":")).encode())


def cut(text: str) -> str:
    """A text without its middle where it is long."""
    if len(text) <= LONGEST:
        return text
    head, tail = LONGEST * 2 // 3, LONGEST // 3
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters left out …]\n{text[-tail:]}"


T = TypeVar("T")


def fitting(items: Sequence[T], room: int, seed: int, bare: Callable[[T], T] | None = None) -> list[T]:
    """Those of the items that fit, in their order: drawn at random, so that what is shown isn't what stood first.

    Args:
      items: to choose from.
      room: bytes of JSON.
      seed: of the draw.
      bare: takes from an item what needs the most room; it is shown so where there is none for all of it.
    """
    chosen: dict[int, T] = {}
    for place in random.Random(f"page/{seed}").sample(range(len(items)), len(items)):
        if (needed := size(items[place])) <= room:
            chosen[place] = items[place]
        elif bare is not None:
            needed = 0
            chosen[place] = bare(items[place])
        else:
            needed = 0
        room -= needed
    return [chosen[place] for place in sorted(chosen)]
