"""Solutions from a file, which the `external` arms learn: whose questions they answer, and whether they are right.

They are read, matched and judged before anything is generated. A trace belongs to a training question by id or by its text; what was
left out of the questions (a repeat, one that is evaluated on, what lies beyond a source's `limit`) takes its traces with it, and they are
counted. A file none of whose traces has a question is a mistake. Verdicts are the verifier's, on the text as it is learned.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxpolya.errors import InputError, RunError
from jaxpolya.records import Question, Record, Sample, SftRow, VerdictName, VerdictRecord, iter_json
from jaxpolya.rollout.respond import judge_all
from jaxpolya.verify.judge import Item
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.speech import opened_thought

ELSEWHERE = "no training question"
TOO_LONG = "longer than the model's context"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace(VerdictRecord, Record):
    """A trace with its question and, once it has one, its verdict; `id` is the line that it stands in."""

    id: str
    question_id: str
    response: str
    verdict: VerdictName | None = None
    extracted: str | None = None
    seconds: float | None = None
    detail: str | None = None
    score: float | None = None
    deadline: float | None = None
    memory_mb: int | None = None

    def as_sample(self) -> Sample:
        """This trace as a response that somebody else gave."""
        return Sample(
            id=self.id, question_id=self.question_id, arm="external", stage="traces", index=0, prompt="", response=self.response,
            token_ids=[], logprobs=[], finish="stop", seed=0, verdict=self.verdict, extracted=self.extracted, detail=self.detail,
            score=self.score,
        )  # fmt: skip


def read_traces(path: Path, questions: Sequence[Question]) -> tuple[list[Trace], int]:
    """(the traces that answer one of the questions, how many don't) of a file of `{question_id or question, response}`.

    Raises `InputError` that names the line, or the file where no trace has a question.
    """
    ids = {question.id for question in questions}
    by_text = {_words(question.question): question.id for question in questions}
    traces, elsewhere = [], []
    for number, row in iter_json(path):
        response, named, text = row.get("response"), row.get("question_id"), row.get("question")
        if not isinstance(response, str) or not response.strip():
            raise InputError(f"{path}:{number}: needs a `response`, the trace to learn")
        if named is None and not isinstance(text, str):
            raise InputError(f"{path}:{number}: needs a `question_id`, or the `question` itself as a text")
        question_id = str(named) if str(named) in ids else by_text.get(_words(str(text)))
        if question_id is None:
            elsewhere.append(number)
        else:
            traces.append(Trace(id=f"line {number}", question_id=question_id, response=response))
    if elsewhere and not traces:
        raise InputError(
            f"{path}:{elsewhere[0]}: no training question has this question_id or question text, nor those of any other of its lines; "
            "the traces answer generate.questions"
        )
    if not traces:
        raise InputError(f"{path}: holds no traces")
    return traces, len(elsewhere)


def _words(text: str) -> str:
    return " ".join(text.split())


def judge_traces(
    path: Path,
    traces: Sequence[Trace],
    known: Sequence[Trace],
    questions: Sequence[Question],
    lesson: Callable[[Question, str], SftRow],
    longest: int,
    pool: Pool,
) -> tuple[list[Trace], int]:
    """(the traces that fit the model, with their verdicts, how many are too long).

    Args:
      path: of the file, for errors.
      traces: as `read_traces` gives them.
      known: of these, some that have verdicts already; those that larger limits may change are found again.
      questions: of the run.
      lesson: what is learned of a question and a trace.
      longest: tokens of a question and its trace.
      pool: the verifier.

    Raises `InputError` that names the line of a trace that says nothing.
    """  # fmt: skip
    by_id, judged = {question.id: question for question in questions}, {trace.id: trace for trace in known}
    kept, items = [], []
    for trace in traces:
        question = by_id[trace.question_id]
        try:
            row = lesson(question, trace.response)
        except InputError as error:
            raise InputError(f"{path}, {trace.id}: {error}") from None
        if row.length > longest:
            continue
        kept.append(trace)
        before = judged.get(trace.id)
        if before is None or before.verdict == "harness_error" or before.outgrown(pool.deadline, pool.memory_mb):
            items.append(Item.of(question, opened_thought(row.prompt) + row.response, trace.id))
    fields = dict(zip([item.id for item in items], judge_all(items, pool), strict=True))
    verdicts = [dataclasses.replace(trace, **fields[trace.id]) if trace.id in fields else judged[trace.id] for trace in kept]
    return verdicts, len(traces) - len(kept)


def require_traces(path: Path, kept: Sequence[Trace], judged: Sequence[Trace]) -> None:
    """Raises where none is left: `InputError` if none fits the model, else `RunError`, which says what the verdicts were."""
    if not judged:
        raise InputError(f"{path}: no trace, with its question, fits the model's positions")
    if not kept:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in collections.Counter(t.verdict for t in judged).most_common())
        raise RunError(
            f"{path}: the external arm has nothing to learn from: only correct traces are kept, and there are {counts}; "
            "select.external_verdicts: all keeps them all"
        )
