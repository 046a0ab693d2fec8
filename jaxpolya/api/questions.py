"""What a caller's records become: questions, and the rows that fine-tuning learns.

Nothing is left out in silence, as a run leaves out what a large set holds of unusable rows: the list is the caller's own, and an error
names the record.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxpolya.data.questions import question_of
from jaxpolya.errors import InputError
from jaxpolya.polya.lessons import Lessons
from jaxpolya.records import Question, Sample, SftRow

Questions = Iterable[Question | Mapping[str, Any]]
"""Questions, or dictionaries with `question`, `answer`, and what else a question has (docs/questions.md)."""

Rows = Iterable[SftRow | Mapping[str, Any]]
"""Fine-tuning rows, or dictionaries with `question` and `response`, and what else a question has."""


def as_questions(records: Questions, what: str) -> list[Question]:
    """The questions in a caller's records. Raises `InputError` that names the record; `what` names the call."""
    questions = [_question(record, number, what) for number, record in enumerate(_several(records, what))]
    for name, count in collections.Counter(question.id for question in questions).items():
        if count > 1:
            raise InputError(f"{what}: {count} questions have the id {name!r}; give each its own, or none")
    return questions


def _question(record: Any, number: int, what: str) -> Question:
    if isinstance(record, Question):
        return record
    if not isinstance(record, Mapping):
        raise InputError(f"{what}, record {number}: a dictionary with question and answer, or a Question, is needed, not {record!r:.60}")
    return question_of(record, number, f"{what}, record {number}")


def as_rows(records: Rows, lessons: Lessons, what: str) -> list[SftRow]:
    """The fine-tuning rows in a caller's records, in the model's tokens. Raises `InputError` that names the record."""
    return [_row(record, number, lessons, what) for number, record in enumerate(_several(records, what))]


def _row(record: Any, number: int, lessons: Lessons, what: str) -> SftRow:
    where = f"{what}, record {number}"
    if isinstance(record, SftRow):
        return record
    if isinstance(record, Sample):
        raise InputError(f"{where}: a Sample doesn't hold the bare question that is learned; jaxpolya.select makes rows of samples")
    if not isinstance(record, Mapping) or not all(isinstance(record.get(name), str) for name in ("question", "response")):
        raise InputError(f"{where}: a dictionary with the texts question and response, or an SftRow, is needed, not {record!r:.60}")
    fields = {field.name: record[field.name] for field in dataclasses.fields(Question) if field.name in record}
    question = Question.from_json({"id": f"{what}-{number}", "answer": "", **fields})
    try:
        return lessons.trace_row(question, record["response"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _several(records: Any, what: str) -> Sequence[Any]:
    """The records as a list. Raises `InputError` where there is none, or one in place of a list."""
    if isinstance(records, str | Mapping) or not isinstance(records, Iterable):
        raise InputError(f"{what}: a list of records is needed, not {records!r:.60}")
    items = list(records)
    if not items:
        raise InputError(f"{what}: there is no record")
    return items
