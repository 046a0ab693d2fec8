"""The built-in catalogue holds what it promises, users can extend it, and slots are dealt by address."""

import difflib
import itertools
import re
import subprocess
import sys
from fractions import Fraction
from math import comb
from pathlib import Path

import pytest

from jaxpolya.errors import ConfigError
from jaxpolya.polya.catalogue import Catalogue, Exemplar, Heuristic, load_catalogue, most_slots, slots
from jaxpolya.polya.prompts import KINDS, worked
from jaxpolya.records import Question

CATALOGUE = load_catalogue()
EXEMPLARS = [(heuristic.key, exemplar) for heuristic in CATALOGUE.heuristics for exemplar in heuristic.exemplars]
DOCS = Path(__file__).parents[2] / "docs" / "heuristics.md"


def of_kind(*kinds):
    return [(key, exemplar) for key, exemplar in EXEMPLARS if exemplar.kind in kinds]


# The built-in content ----------------------------------------------------------------------------------------------------


def test_enough_heuristics_and_exemplars():
    assert len(CATALOGUE.heuristics) >= 16
    assert "four_phases" in CATALOGUE.keys
    for heuristic in CATALOGUE.heuristics:
        assert sum(exemplar.kind == "math" for exemplar in heuristic.exemplars) >= 4, heuristic.key
        assert heuristic.book.startswith("Part "), heuristic.key


def test_every_heuristic_differs_from_the_others():
    for a, b in itertools.combinations(CATALOGUE.heuristics, 2):
        assert difflib.SequenceMatcher(None, a.instruction, b.instruction, autojunk=False).ratio() < 0.6, (a.key, b.key)
    questions = [re.sub(r"\W+", " ", exemplar.question.lower()) for _, exemplar in EXEMPLARS]
    assert len(set(questions)) == len(questions)


def words(text):
    return len(re.findall(r"[A-Za-z]+|\d+", text))


def test_lengths_suit_small_models():
    for heuristic in CATALOGUE.heuristics:
        assert 20 <= words(heuristic.instruction) <= 60, heuristic.key
        for exemplar in heuristic.exemplars:
            assert 15 <= words(exemplar.response) <= 100, (heuristic.key, exemplar.question)
        for exemplar in heuristic.exemplars[:3]:  # the simple ones come first
            assert words(exemplar.response) <= 60, (heuristic.key, exemplar.question)


@pytest.mark.parametrize("extraction", ["boxed", "statement", "number", "tag"])
def test_the_verifier_accepts_every_worked_exemplar(extraction):
    judge = pytest.importorskip("jaxpolya.verify.judge")
    for key, exemplar in of_kind("math", "narrative"):
        verifier = "math" if exemplar.kind == "math" else "choice"
        question = Question(
            id=key, question=exemplar.question, answer=exemplar.answer, choices=exemplar.choices, verifier=verifier, extraction=extraction
        )
        verdict = judge.judge(judge.Item.of(question, worked(exemplar, question), key))
        assert verdict.verdict == "correct", (exemplar.question, verdict)


NUMBER = r"-?\d+(?:\.\d+)?"
EXPRESSION = re.compile(rf"\(*{NUMBER}(?: ?[-+*/] ?\(*{NUMBER}\)*)*\)*")


def value(expression):
    """Value of an arithmetic expression of plain numbers; None if it isn't one."""
    expression = expression.strip()
    if not EXPRESSION.fullmatch(expression) or expression.count("(") != expression.count(")"):
        return None
    return eval(re.sub(r"\d+", r"Fraction(\g<0>)", expression), {"Fraction": Fraction})


def equations(text):
    """(left, right) of the equations between plain numbers in a text: `12 - 5 = 7`, `x = 14 / 2 = 7`, but not `2x = 14`."""
    for clause in re.split(r"[,;:\n]|\.(?:\s|$)|\b(?:and|so|is|are|or|in all)\b", text):
        sides = clause.split("=")
        for left, right in itertools.pairwise(sides):
            tail = re.search(r"(?:(?<=^)|(?<=[a-z] )|(?<=\. ))[-(\d][-+*/() .\d]*$", left.strip())
            head = re.match(rf"{EXPRESSION.pattern}(?![\w ]*[-+*/(\d])", right.strip())
            if tail and head and not re.match(r"- ", tail.group()):
                yield tail.group().strip(), head.group().strip()


def test_the_arithmetic_of_every_exemplar_is_right():
    checked = 0
    for key, exemplar in of_kind("math"):
        for left, right in equations(exemplar.response):
            if (computed := value(left)) is not None:
                assert computed == value(right), (key, exemplar.question, left, right)
                checked += 1
        assert re.search(rf"(?<![\d.]){re.escape(exemplar.answer)}(?![\d])", exemplar.response), (key, exemplar.question)
    assert checked > 250  # the check itself still finds the equations


@pytest.mark.parametrize("wrong", ["So 12 - 5 = 8.", "Tens: 40 + 30 = 80.", "Guess 8: 7 * 2 = 14 and 14 + 5 = 20, so it fits."])
def test_the_arithmetic_check_sees_errors(wrong):
    assert any(value(left) != value(right) for left, right in equations(wrong))


def test_plain_sums_have_their_value():
    pattern = re.compile(r"What is ([-+*/() \d]+)\?")
    sums = [(match[1], exemplar.answer) for _, exemplar in of_kind("math") if (match := pattern.fullmatch(exemplar.question))]
    assert len(sums) >= 20
    for question, answer in sums:
        assert value(question) == Fraction(answer), question


def test_linear_equations_are_solved_by_their_answer():
    pattern = re.compile(r"Solve for (?:the whole number )?([a-z]): (.*) = (\d+)\.")
    solved = [(match, exemplar.answer) for _, exemplar in of_kind("math") if (match := pattern.fullmatch(exemplar.question))]
    assert len(solved) >= 12
    for match, answer in solved:
        letter, left, right = match.groups()
        assert eval(re.sub(rf"(\d){letter}", rf"\1*{letter}", left), {letter: Fraction(answer)}) == int(right), match[0]


def test_code_exemplars_pass_their_assertions():
    script = []
    for key, exemplar in of_kind("code"):
        (block,) = re.findall(r"```python\n(.*?)```", exemplar.response, re.DOTALL)
        assert exemplar.answer.count("assert ") >= 1
        script.append(f"try:\n    exec({block + exemplar.answer!r}, {{}})\nexcept Exception as e:\n    failed.append(({key!r}, e))")
    program = "\n".join(["failed = []", *script, "assert not failed, failed"])
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


# Slots -------------------------------------------------------------------------------------------------------------------


def keys_and_draws(dealt):
    return [(slot.heuristic.key, [exemplar.question for exemplar in slot.exemplars]) for slot in dealt]


def test_a_slot_a_heuristic_unless_told_otherwise():
    heuristics = CATALOGUE.pick("all")
    dealt = slots(heuristics, None, 2, seed=0)
    assert [slot.index for slot in dealt] == list(range(len(heuristics)))
    assert [slot.heuristic.key for slot in dealt] == CATALOGUE.keys
    assert all(len(slot.exemplars) == 2 for slot in dealt)
    assert [slot.heuristic.key for slot in slots(heuristics, 3, 2, seed=0)] == CATALOGUE.keys[:3]


def test_further_slots_are_dealt_in_turn_with_other_draws():
    heuristics = CATALOGUE.pick(["analogy", "pattern"])
    dealt = slots(heuristics, 64, 2, seed=3)
    assert [slot.heuristic.key for slot in dealt] == ["analogy", "pattern"] * 32
    pool = sum(exemplar.kind == "math" for exemplar in heuristics[0].exemplars)
    possible = comb(pool, 2)
    draws = [frozenset(exemplar.question for exemplar in slot.exemplars) for slot in dealt[::2]]
    assert len(set(draws[:possible])) == possible  # distinct while there are any left
    assert len(set(draws[possible : 2 * possible])) == possible  # then again


@pytest.mark.parametrize(("exemplars", "kind"), [(0, "math"), (1, "math"), (2, "math"), (2, "code"), (9, "math"), (1, "narrative")])
def test_the_most_slots_without_copies(exemplars, kind):
    def copies(count: int) -> int:
        dealt = slots(heuristics, count, exemplars, seed=0, kind=kind)
        return count - len({(slot.heuristic.key, frozenset(exemplar.question for exemplar in slot.exemplars)) for slot in dealt})

    heuristics = CATALOGUE.pick(["pattern", "four_phases", "figure", "auxiliary_element"])
    most = most_slots(heuristics, exemplars, kind)
    assert copies(most) == 0 and copies(most + 1) == 1


def test_draws_are_addressed():
    some, more = CATALOGUE.pick(["analogy", "pattern"]), CATALOGUE.pick(["analogy", "symmetry", "pattern"])
    few, many = slots(some, 4, 2, seed=1), slots(more, 9, 2, seed=1)

    def of(dealt, key):
        return [draw for name, draw in keys_and_draws(dealt) if name == key]

    assert of(few, "pattern") == of(many, "pattern")[:2]
    assert keys_and_draws(slots(some, 4, 2, seed=1)) == keys_and_draws(few)
    assert keys_and_draws(slots(some, 4, 2, seed=2)) != keys_and_draws(few)


def test_a_kind_without_enough_exemplars_gives_those_there_are():
    heuristics = CATALOGUE.pick(["auxiliary_element"])
    assert [len(slot.exemplars) for slot in slots(heuristics, 2, 3, seed=0, kind="narrative")] == [0, 0]
    assert [len(slot.exemplars) for slot in slots(heuristics, 2, 3, seed=0, kind="code")] == [2, 2]
    assert slots(heuristics, 1, 0, seed=0)[0].exemplars == ()
    assert set(KINDS.values()) == {exemplar.kind for _, exemplar in EXEMPLARS}


# A user's catalogue ------------------------------------------------------------------------------------------------------


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_a_user_adds_and_replaces(tmp_path):
    path = written(
        tmp_path,
        """
heuristics:
  - {key: estimate, title: Estimate, instruction: Round first., exemplars: [{kind: math, question: "1 + 1?", response: Two., answer: 2}]}
  - {key: analogy, title: Mine, instruction: My own instruction.}
""",
    )
    merged = load_catalogue(path)
    assert merged.keys == [*CATALOGUE.keys, "estimate"]
    (mine,) = merged.pick(["analogy"])
    assert (mine.title, mine.exemplars) == ("Mine", [])
    assert merged.pick(["estimate"])[0].exemplars[0].answer == "2"  # all scalars are text
    assert merged.frame == CATALOGUE.frame
    assert load_catalogue(written(tmp_path, "frame: 'First plan. {instruction}'")).frame == "First plan. {instruction}"


def test_the_example_of_the_docs_is_a_catalogue(tmp_path):
    (example,) = re.findall(r"```yaml\n(heuristics:.*?)\n```\n", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    merged = load_catalogue(written(tmp_path, example))
    added = merged.heuristics[len(CATALOGUE.heuristics) :]
    assert [{exemplar.kind for exemplar in heuristic.exemplars} for heuristic in added] == [{"math", "code", "narrative"}]
    for key in CATALOGUE.keys:
        assert f"`{key}`" in DOCS.read_text(encoding="utf-8")


HEAD = "heuristics:\n  - key: mine\n    title: Mine\n    instruction: Do.\n"


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("heuristics: [", "not YAML"),
        ("- 1", "a catalogue is a mapping"),
        ("heuristic: []", "did you mean heuristics?"),
        (HEAD + "    exemplar: []", "heuristic mine: there is no key exemplar; did you mean exemplars?"),
        ("heuristics:\n  - key: mine\n    title: Mine", "heuristic mine: instruction is missing"),
        ("heuristics:\n  - 7", "heuristic 1: "),
        (HEAD + HEAD.split("\n", 1)[1], "heuristic mine is there more than once"),
        (HEAD.replace("mine", "My own"), "heuristic My own: key: "),
        ("frame: Plan first.", "frame must contain {instruction} exactly once"),
        (HEAD + "    exemplars: [{kind: maths, question: q, response: r, answer: 1}]", "heuristic mine: exemplar 1: kind: "),
        (HEAD + "    exemplars: [{kind: math, question: q, response: The answer is 1., answer: 1}]", "leave the final statement out"),
        (HEAD + "    exemplars: [{kind: code, question: q, response: r, answer: assert f()}]", "```python block"),
        (HEAD + "    exemplars: [{kind: narrative, question: q, response: r, answer: A}]", "choices belong to a narrative"),
        (
            HEAD + "    exemplars: [{kind: narrative, question: q, response: r, answer: C, choices: [a, b]}]",
            "not the letter of one of the 2",
        ),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text, trouble):
    with pytest.raises(ConfigError) as caught:
        load_catalogue(written(tmp_path, text))
    assert trouble in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_missing_file_and_unknown_keys(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load_catalogue(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="no heuristic 'analogie'; did you mean analogy"):
        CATALOGUE.pick(["analogie"])
    with pytest.raises(ConfigError, match="only once"):
        CATALOGUE.pick(["analogy", "analogy"])
    with pytest.raises(ConfigError, match="at least one"):
        CATALOGUE.pick([])


def test_the_fingerprint_covers_what_reaches_a_prompt():
    def one(**changes):
        exemplar = {"kind": "math", "question": "1 + 1?", "response": "Two.", "answer": "2"} | changes.pop("exemplar", {})
        fields = {"key": "a", "title": "A", "instruction": "Do.", "exemplars": [Exemplar(**exemplar)]} | changes
        return Catalogue(heuristics=[Heuristic(**fields)]).fingerprint

    assert one() == one(title="Another", book="Part III")
    changed = [one(), one(key="b"), one(instruction="Do it."), one(exemplar={"answer": "3"}), one(exemplars=[])]
    assert len(set(changed)) == len(changed)
