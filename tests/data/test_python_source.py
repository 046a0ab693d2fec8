"""Question sources that users write: records as rows of files are, known by their code, and named where they are wrong."""

import json
from pathlib import Path

import pytest

from jaxpolya.config import PythonSource
from jaxpolya.data.questions import load_questions, question_of
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import Question
from jaxpolya.runs.identity import source_identity

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def own(tmp_path):
    """A function (body, further fields) → a source of the function `rows` with that body."""

    def source(body: str, *, takes: str = "", name: str = "own.py", **fields) -> PythonSource:
        (tmp_path / name).write_text(
            f"from jaxpolya.records import Question\ndef rows({takes}):\n    {body}\nITERATOR, TEXT = iter([]), ''\n"
        )
        attribute = fields.pop("attribute", "rows")
        return PythonSource(kind="python", source=f"{tmp_path / name}:{attribute}", **fields)

    return source


def sums(**arguments) -> PythonSource:
    return PythonSource(kind="python", source=f"{EXAMPLES}/random_sums.py:sums", arguments=arguments, limit=5)


def test_records_are_rows(own):
    body = """return [
        {"question": " What? ", "answer": 3.0}, Question(id="b", question="Which?", answer="B", choices=["x", "y"], verifier="choice"),
        {"question": "What?", "answer": "4"}, {"question": "", "answer": "4"}, {"problem": "P"} | {"question": "Q", "answer": "#### 5"}]"""
    loaded = load_questions([own(body)])
    assert [(q.id, q.question, q.answer, q.verifier) for q in loaded.questions] == [
        ("rows-0", "What?", "3.0", "math"), ("b", "Which?", "B", "choice"), ("rows-4", "Q", "#### 5", "math"),
    ]  # fmt: skip
    assert loaded.dropped == {"repeated question": 1, "empty question": 1}
    renamed = own("yield {'p': 'Q', 'a': '#### 5'}", columns={"question": "p", "answer": "a"}, answer_after="####")
    (mapped,) = load_questions([renamed]).questions
    assert (mapped.question, mapped.answer) == ("Q", "5")


def test_a_function_without_end_is_cut(own):
    questions = load_questions([sums(below=50)]).questions
    assert len(questions) == 5 and all(eval(q.question[8:-1]) == int(q.answer) < 50 for q in questions)
    again, other = load_questions([sums(below=50)]).questions, load_questions([sums(below=50, seed=1)]).questions
    assert again == questions != other
    both = load_questions([sums(below=50), sums(below=50)])
    assert both.questions == questions and both.dropped == {"repeated question": 5}
    body = "import itertools; yield from ({'question': str(n), 'answer': n} for n in itertools.count())"
    assert [q.answer for q in load_questions([own(body, skip=2, limit=3)]).questions] == ["2", "3", "4"]


def test_a_source_is_known_by_its_code_and_arguments(own, tmp_path):
    here = source_identity(own("yield {}", takes="n", arguments={"n": 1}))
    assert json.loads(json.dumps(here)) == here and str(tmp_path) not in json.dumps(here)
    (tmp_path / "there").mkdir()
    assert source_identity(own("yield {}", takes="n", arguments={"n": 1}, name="there/other.py")) == here
    others = [own("yield {}", takes="n", arguments={"n": 2}), own("yield {'question': ''}", takes="n", arguments={"n": 1})]
    assert len({json.dumps(source_identity(source), sort_keys=True) for source in others} | {json.dumps(here, sort_keys=True)}) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"body": "pass", "arguments": {"n": 3}}, r"own\.py:rows takes \(\), and `arguments` don't fit: got an unexpected"),
        ({"body": "pass", "takes": "n"}, r"own\.py:rows takes \(n\), and `arguments` don't fit: missing a required argument: 'n'"),
        ({"body": "pass", "attribute": "TEXT"}, r"own\.py:TEXT is of type str; a function that gives records"),
        ({"body": "pass", "attribute": "ITERATOR"}, r"own\.py:ITERATOR is of type list_iterator; a function"),
        ({"body": "pass", "attribute": "row"}, r"has no row; did you mean rows\?"),
    ],
)  # fmt: skip
def test_what_cant_be_a_source_is_a_sentence(own, fields, message):
    with pytest.raises(ConfigError, match=message):
        load_questions([own(**fields)])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("yield {'question': 'a', 'answer': 1}; 1 / 0", r"own\.py:rows, record 1: ZeroDivisionError: division by zero"),
        ("raise KeyError('x')", r"own\.py:rows, record 0: KeyError: 'x'"),
        ("return 3", r"own\.py:rows, record 0: TypeError: 'int' object is not iterable"),
        ("yield 'What?'", r"own\.py:rows, record 0 is of type str; a dictionary"),
        ("yield {'query': 'a', 'answer': 1}", r"own\.py:rows, record 0: there is no column 'question'; the row has query, answer"),
        ("yield {'question': 'a', 'answer': [1, 2]}", r"record 0: answer holds a list"),
        ("yield {'question': 'a', 'answer': 1, 'verifier': 'x.py:y'}", r"record 0: verifier is 'x\.py:y', and a row names one of ours"),
        ("return []", r"python source .*own\.py:rows has no usable question; it is empty"),
    ],
)
def test_a_record_that_is_wrong_is_named(own, body, message):
    with pytest.raises(InputError, match=message):
        load_questions([own(body)])


def test_a_kind_of_ones_own_is_shown_what_the_row_has_beside(own):
    rows = "yield from [{'question': 'How far?', 'answer': '100', 'tolerance': 0.2, 'unit': {'m': 1}}, {'question': 'b', 'answer': '1'}]"
    far, plain = load_questions([own(rows, verifier=f"{EXAMPLES}/estimates.py:Estimate")]).questions
    assert far.entry == {"tolerance": 0.2, "unit": {"m": 1}} and plain.entry is None
    assert far.verifier.startswith("Estimate@") and Question.from_json(far.to_json()) == far
    with pytest.raises(InputError, match=r"record 1: Estimate can't judge it: its answer 'soon' is no number"):
        load_questions([own(rows.replace("'1'", "'soon'"), verifier=f"{EXAMPLES}/estimates.py:Estimate")])
    known = source_identity(own(rows, verifier=f"{EXAMPLES}/estimates.py:Estimate"))["verifier"]
    assert known[0] == "Estimate" and len(known[1]) == 64


def same(question, answer):
    return answer == question.answer


def test_a_callers_record_may_bring_its_kind_in_person():
    made = question_of({"question": "?", "answer": "yes", "verifier": same, "level": 3}, 0, "rl, record 0")
    assert made.verifier.startswith("same@") and made.entry == {"level": 3}
    for judged_by, message in ((lambda question, answer: True, "can't be found by other processes"), ("x.py:y", "a row names one of ours")):
        with pytest.raises(InputError, match=rf"^rl, record 0: verifier.*{message}"):
            question_of({"question": "?", "answer": "yes", "verifier": judged_by}, 0, "rl, record 0")
