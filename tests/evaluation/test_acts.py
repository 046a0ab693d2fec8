"""The judge that looks for acts: what it says of solutions that aren't in the labelled set, lures included, and how long it takes."""

import json
import time
from pathlib import Path

import pytest

from jaxpolya.evaluation.acts import RULES
from jaxpolya.evaluation.judges import SEVERAL, Acts, Solution
from jaxpolya.evaluation.reading import Reading
from jaxpolya.polya.catalogue import load_catalogue
from jaxpolya.records import Question

CATALOGUE = load_catalogue()
JUDGE = Acts(CATALOGUE.heuristics)
SOLUTIONS = Path(__file__).resolve().parents[3] / "shared" / "oracles" / "verifier" / "gsm8k_model_solutions.jsonl"


def label(problem, solution):
    return JUDGE.label([Solution(Question(id="q", question=problem, answer="?"), solution)])[0]


def test_every_heuristic_of_the_catalogue_has_a_rule():
    assert list(RULES) == CATALOGUE.keys


CASES = [
    ("step_by_step", "What is 9 * 12 - 8?", "9 * 12 = 108. Since 108 / 12 = 9, fine. 108 - 8 = 100. Since 100 + 8 = 108, fine."),
    (
        "working_backward",
        "Half of a sum and 6 more were spent, 9 is left.",
        "At the end 9 is left. Before the 6 it was 9 + 6 = 15, and before that 30.",
    ),
    ("decomposition", "What is 8 * 73?", "8 * 70 = 560\n8 * 3 = 24\n560 + 24 = 584"),
    ("guess_and_check", "x * (x + 3) = 88?", "7 * 10 = 70 is too small. 9 * 12 = 108 is too large. 8 * 11 = 88 fits."),
    ("pattern", "What comes next: 5, 9, 13, 17?", "9 - 5 = 4, 13 - 9 = 4, 17 - 13 = 4, so the next one is 21."),
    ("figure", "Tom has 3 times as many as Al, together 24.", "Al:  [ ]\nTom: [ ][ ][ ]\nFour boxes are 24, one is 6."),
    ("introduce_notation", "What does she earn?", "Let h = 8, w = 15 and t = 20. Then pay = h * w - t = 120 - 20 = 100."),
    ("setting_up_equations", "Three times a number less 5 is 16.", "Let z be the number. 3z - 5 = 16, so 3z = 21 and z = 7."),
    ("test_by_dimension", "How far in 3 h at 80 km/h?", "km/h * h = km, so multiply: 80 * 3 = 240."),
    ("variation", "What is 7 * 98?", "7 * 100 = 700, which is 14 too many, so 686."),
    ("specialisation", "A price rises by 10 %, then by 10 %.", "Suppose it is 100. Then 110, then 121: 21 % more."),
    ("auxiliary_element", "Solve x^4 - 5x^2 + 4 = 0.", "Let w = x^2. Then w^2 - 5w + 4 = 0, w is 1 or 4."),
]


@pytest.mark.parametrize(("key", "problem", "solution"), CASES, ids=[case[0] for case in CASES])
def test_acts_are_found_without_the_heuristics_name(key, problem, solution):
    assert key in label(problem, solution)


@pytest.mark.parametrize(
    ("problem", "solution"),
    [
        (
            "A box has 12 pens. How many are in 7 boxes?",
            "Let me check each step. 12 * 7 = 84. I guess there is a pattern. The answer is 84.",
        ),
        ("A tap gives 5 litres a minute.", "Step 1: 5 litres * 6 = 30 litres.\nStep 2: 30 - 4 = 26 litres.\nThe units are litres."),
        ("A coat costs 40, 25 % off.", "We work backwards from the answer by symmetry. 40 * 0.25 = 10 and 40 - 10 = 30."),
        ("What is 6 * 7?", "In general, the key idea is to multiply. 6 * 7 = 42."),
    ],
)
def test_words_without_acts_are_no_heuristic(problem, solution):
    assert label(problem, solution) == []


def test_one_solution_may_use_several():
    text = "With only hens there are 60 legs, 14 short. A goat has 2 more, so there are 7 goats.\n"
    text += "Or: h + g = 30, 2h + 4g = 74, so 2g = 14, g = 7."
    assert set(label("Hens and goats: 30 heads, 74 legs.", text)) == {"variation", "setting_up_equations"}


@pytest.mark.skipif(not SOLUTIONS.exists(), reason="the solutions are not here")
def test_solutions_written_without_heuristics_are_rarely_composed():
    with SOLUTIONS.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["response"] for _, line in zip(range(400), lines, strict=False)]
    labels = [label("", text) for text in texts]
    assert sum(len(keys) >= SEVERAL for keys in labels) <= 4 and sum(map(bool, labels)) <= 40


HOSTILE = [
    "\n" * 20_000,
    "1 = " * 8_000,
    "let x be 3, " * 3_000,
    "before 5 " * 4_000,
    "a per b " * 4_000,
    "= x + 1 " * 4_000,
    "(((" * 8_000,
    "9" * 20_000,
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_holds_the_judge_up(hostile):
    start = time.process_time()
    label(hostile[:400], hostile)
    assert time.process_time() - start < 10


def test_typesetting_is_no_difference():
    plain, typeset = Reading("", "Half: 3 * 4 = 12, x = 3/4."), Reading("", r"Half: $3 \times 4 = 12$, $x = \frac{3}{4}$.")
    assert [one.numbers for one in typeset.calculations] == [one.numbers for one in plain.calculations] == [{3, 4, 12}]
    assert plain.equations[0] == typeset.equations[0]
    assert Reading("", "3x = 39 x = 13").equations == [("3x", "39"), ("x", "13")]
