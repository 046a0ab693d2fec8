"""Kinds of question that users bring: what they are shown, what their word is worth, and what is said where they fail."""

from pathlib import Path

import pytest

import jaxpolya
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import Question, Verdict
from jaxpolya.rollout.respond import try_kinds
from jaxpolya.verify import kinds
from jaxpolya.verify.files import verify_file
from jaxpolya.verify.judge import Item, judge
from jaxpolya.verify.pool import Pool

ESTIMATE = f"{Path(__file__).parents[2] / 'examples' / 'estimates.py'}:Estimate"


@pytest.fixture
def own(tmp_path):
    """A function (text, attribute) → the name of a kind in a file of that text."""

    def bring(text: str, attribute: str = "mine", name: str = "own.py") -> str:
        (tmp_path / name).write_text(text)
        return kinds.bring(f"{tmp_path / name}:{attribute}", "verify")

    return bring


@pytest.fixture(scope="module")
def pool():
    with Pool(1, deadline=60.0) as pool:
        yield pool


def question(kind: str, **fields) -> Question:
    return Question(**{"id": "q", "question": "How far?", "answer": "100", "verifier": kind} | fields)


def verdict(kind: str, response: str = "The answer is 7.", **fields) -> Verdict:
    return judge(Item.of(question(kind, **fields), response, "s"))


def judging(judgement: str) -> str:
    return f"from jaxpolya.records import Verdict\nimport numpy as np\ndef mine(question, answer):\n    return {judgement}\n"


@pytest.mark.parametrize(
    ("judgement", "name", "score", "reward"),
    [
        ("True", "correct", None, 1.0),
        ("np.False_", "wrong", None, 0.0),
        ("0.25", "wrong", 0.25, 0.25),
        ("1", "correct", 1.0, 1.0),
        ("np.float32(0.5)", "wrong", 0.5, 0.5),
        ("Verdict(verdict='timeout')", "timeout", None, 0.0),
        ("Verdict(verdict='wrong', score=0.75, extracted='x', detail='near')", "wrong", 0.75, 0.75),
        ("answer == '7'", "correct", None, 1.0),
        ("question.answer == '100'", "correct", None, 1.0),
    ],
)
def test_what_a_judgement_means(own, judgement, name, score, reward):
    result = verdict(own(judging(judgement)))
    assert (result.verdict, result.score, result.reward) == (name, score, reward)
    assert result.extracted == ("x" if "near" in judgement else "7") and result.detail == ("near" if "near" in judgement else None)


@pytest.mark.parametrize(
    ("judgement", "trouble"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("None", "TypeError: judge gave a NoneType"),
        ("'correct'", "judge gave a str"),
        ("1.5", "ValueError: judge gave 1.5"),
        ("-0.5", "ValueError: judge gave -0.5"),
        ("float('nan')", "ValueError: judge gave nan"),
        ("[[]]", "TypeError"),
        ("Verdict(verdict='right')", "the verdict 'right', not one of correct"),
        ("Verdict(verdict='correct', score=0.5)", "1 is correct, and nothing else is"),
        ("Verdict(verdict='wrong', score=2)", "judge gave 2"),
    ],
)
def test_what_is_no_judgement_is_our_failure_and_named(own, judgement, trouble):
    result = verdict(own(judging(judgement)))
    assert result.verdict == "harness_error" and result.reward is None
    assert result.detail.startswith("own.py:mine: ") and trouble in result.detail


def test_a_class_says_what_it_wants_otherwise(own):
    kind = own(
        "class mine:\n"
        "    def extract(self, question, said):\n"
        "        return said.strip().split()[-1] if said.strip() else None\n"
        "    def judge(self, question, answer):\n"
        "        return answer == question.entry['word']\n"
    )
    assert verdict(kind, "<think>no</think>so yes", entry={"word": "yes"}).verdict == "correct"
    assert verdict(kind, "<think>yes", entry={"word": "yes"}).verdict == "unparseable", "a thought isn't said"
    with pytest.raises(InputError, match="can't be judged: nothing here names it"):
        kinds.verifier_of("mine@0123456789ab")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine = 3", r"own\.py:mine is of type int, and a class with a method `judge`"),
        ("def mine(answer): pass", r"own\.py:mine takes \(answer\), and \(question, answer\) was expected"),
        ("class mine:\n    def judge(self, answer): pass", r"own\.py:mine\.judge takes \(answer\)"),
        ("class mine:\n    def __init__(self, x): pass\n    def judge(self, question, answer): pass", r"mine\(\) failed"),
        ("class mine:\n    def extract(self): pass\n    def judge(self, q, a): pass", r"mine\.extract takes \(\)"),
        (
            "class mine:\n    def ending(self, question): pass\n    def judge(self, q, a): pass",
            "has an `ending` of its own and no `statement`",
        ),
        ("class mine:\n    exemplars = 'maths'\n    def judge(self, q, a): pass", "exemplars is 'maths'"),
        ("from jaxpolya.verify.kinds import Verifier\nclass mine(Verifier): pass", "has no `judge` of its own"),
    ],
)
def test_what_cant_be_a_kind_is_a_sentence(own, text, message):
    with pytest.raises(ConfigError, match=rf"^verify: .*{message}"):
        own(text)


def test_a_kind_is_called_by_its_content(own, tmp_path):
    name = own(judging("True"))
    assert name.startswith("mine@") and own(judging("True"), name="elsewhere.py") == name
    assert own(judging("False")) != name
    assert kinds.bring("math", "k") == "math"
    with pytest.raises(ConfigError, match=r"^k: 'maths' is none of math, choice"):
        kinds.bring("maths", "k")


def test_the_pool_judges_it_and_survives_it(own, pool, monkeypatch):
    kind = own(
        "import os, time\n"
        "def mine(question, answer):\n"
        "    if answer == '1': os._exit(7)\n"
        "    if answer == '2': time.sleep(1e6)\n"
        "    return 0.5 if answer == '3' else float(answer) == float(question.answer)\n"
    )
    asked = question(kind)
    verdicts = pool.verify(Item.of(asked, f"The answer is {answer}.", answer) for answer in ("100", "3", "1", "unclear"))
    assert [one.verdict for one in verdicts] == ["correct", "wrong", "crash", "harness_error"] and verdicts[1].score == 0.5
    assert pool.verify([Item.of(asked, "The answer is 100.", "again")])[0] is verdicts[0], "one response is judged once"
    monkeypatch.setattr(pool, "deadline", 1.0)
    assert pool.verify([Item.of(asked, "The answer is 2.", "2")])[0].verdict == "timeout"
    assert pool.verify([Item.of(asked, "It's 3, so the answer is 3.", "3")])[0].score == 0.5


@pytest.mark.parametrize(
    ("judgement", "says"),
    [
        ("float(answer) > 7", None),
        (
            "{'yes': True}[answer]",
            "the response '(The answer is )?100.?': own.py:mine: KeyError: '100'; what can't be judged right is False",
        ),
        ("None if answer == '100' else 1 / 0", "the response '(The answer is )?100.?': own.py:mine: TypeError: judge gave a NoneType"),
    ],
)
def test_a_kind_is_tried_before_anybody_is_asked(own, pool, judgement, says):
    asked = [question(own(judging(judgement))), question("math", id="ours")]
    if says is None:
        return try_kinds(asked, pool)
    with pytest.raises(ConfigError, match=f"verifier: tried on the question q with {says}"):
        try_kinds(asked, pool)


def test_a_file_that_changes_meanwhile_is_said(own, pool):
    kind = own(judging("True"))
    asked = question(kind)
    own(judging("False"))
    result = pool.verify([Item.of(asked, "The answer is 7.", "s")])[0]
    assert result.verdict == "harness_error" and "own.py:mine was changed since this run began" in result.detail


def test_the_example_judges_a_file(tmp_path):
    rows = [
        '{"id": 1, "response": "Estimate: 1,040", "answer": "1000"}',
        '{"id": 2, "response": "The answer is 700.", "answer": "1000"}',
        '{"id": 3, "response": "Estimate: 1040", "answer": "1000", "tolerance": 0.01}',
        '{"id": 4, "response": "No idea", "answer": "1000"}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    report = verify_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", kind=ESTIMATE, workers=1)
    assert report["verdicts"] == {"correct": 1, "wrong": 2, "unparseable": 1}
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert lines[1] == '{"id":2,"verdict":"wrong","extracted":"700","score":0.7}'
    assert '"score":0.96' in lines[2] and "score" not in lines[3]


def test_one_response_in_this_process():
    result = jaxpolya.verify_response("Estimate: 990", answer=1000, kind=ESTIMATE)
    assert (result.verdict, result.score) == ("correct", 1.0)
    assert jaxpolya.verify_response("The answer is yes.", answer="yes", kind=agrees).verdict == "correct"
    with pytest.raises(ConfigError, match=r"^kind: .*can't be found by other processes"):
        jaxpolya.verify_response("x", kind=lambda question, answer: True)


def agrees(question, answer):
    return answer == question.answer


def test_a_row_may_not_name_code(tmp_path):
    (tmp_path / "in.jsonl").write_text(f'{{"id": 1, "response": "x", "answer": "1", "kind": "{ESTIMATE}"}}')
    with pytest.raises(InputError, match=r"in\.jsonl:1: .* is not a kind of answer"):
        verify_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
