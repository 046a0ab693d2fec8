"""Whose questions traces answer, which of them are kept, and what is said of the others."""

import json

import pytest

from jaxpolya.errors import InputError, RunError
from jaxpolya.records import Question, SftRow
from jaxpolya.rollout.traces import Trace, judge_traces, read_traces, require_traces
from jaxpolya.verify.pool import Pool

QUESTIONS = [Question(id="q", question="What is  it?", answer="1"), Question(id="7", question="And that?", answer="2")]


def written(tmp_path, *rows):
    path = tmp_path / "traces.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_traces_are_found_by_id_or_by_text_and_those_of_other_questions_are_counted(tmp_path):
    rows = [
        {"question_id": "q", "response": "one"},
        {"question": "What is it?", "response": "two"},
        {"question_id": 7, "response": "three"},
        {"question_id": "renamed", "question": "And that?", "response": "four"},
        {"question_id": "left-out", "response": "five"},
        {"question": "Evaluated on?", "response": "six"},
    ]
    traces, elsewhere = read_traces(written(tmp_path, *rows), QUESTIONS)
    assert [(trace.question_id, trace.response) for trace in traces] == [("q", "one"), ("q", "two"), ("7", "three"), ("7", "four")]
    assert elsewhere == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question_id": "q"}', ":1: needs a `response`"),
        ('{"response": "r"}', ":1: needs a `question_id`, or the `question` itself"),
        ('{"question_id": "z", "response": "r"}', ":1: no training question has this question_id or question text, nor"),
        ("", "holds no traces"),
    ],
)
def test_broken_traces_are_named(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        read_traces(written(tmp_path, line), QUESTIONS)


def lesson(question: Question, trace: str) -> SftRow:
    if trace == "nothing":
        raise InputError("the trace says nothing")
    return SftRow(question_id=question.id, prompt="p", response=trace, prompt_ids=[1], token_ids=list(range(len(trace))))


def test_traces_are_judged_once_and_again_only_under_larger_limits(tmp_path):
    responses = ["The answer is 1.", "The answer is 3.", "The answer is 1. " + "x" * 80]
    traces = [Trace(id=f"line {i}", question_id="q", response=response) for i, response in enumerate(responses)]
    path = tmp_path / "traces.jsonl"
    with Pool(1, deadline=20) as pool:
        judged, too_long = judge_traces(path, traces, [], QUESTIONS, lesson, 60, pool)
        assert [trace.verdict for trace in judged] == ["correct", "wrong"] and too_long == 1
        cut = {"question_id": "q", "response": "?", "verdict": "timeout", "memory_mb": pool.memory_mb}
        known = [Trace(id="line 0", deadline=1.0, **cut), Trace(id="line 1", deadline=20, **cut)]
        judged, _ = judge_traces(path, traces, known, QUESTIONS, lesson, 60, pool)
        assert [trace.verdict for trace in judged] == ["correct", "timeout"] and judged[0].deadline is None
        with pytest.raises(InputError, match="line 9: the trace says nothing"):
            judge_traces(path, [Trace(id="line 9", question_id="q", response="nothing")], [], QUESTIONS, lesson, 60, pool)


def test_what_can_not_be_learned_from_is_said(tmp_path):
    wrong = Trace(id="line 1", question_id="q", response="r", verdict="wrong")
    with pytest.raises(RunError, match=r"only correct traces are kept, and there are 1 wrong; select.external_verdicts: all"):
        require_traces(tmp_path / "t", [], [wrong])
    with pytest.raises(InputError, match="fits the model's positions"):
        require_traces(tmp_path / "t", [], [])
