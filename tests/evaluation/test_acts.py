"""The judge that looks for acts: what it says of solutions that aren't in the labelled set, lures included, and how long it takes."""

import json
from pathlib import Path

import pytest
from growth import assert_linear

from jaxpolya.evaluation.acts import RULES
from jaxpolya.evaluation.judges import SEVERAL, Acts, Solution
from jaxpolya.evaluation.reading import Reading, _patterns, trace
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


ACTS_AND_LURES = [
    (
        "four_phases",
        "A bus ticket costs 3, a day pass 8. Sam rides 4 times.",
        "**What do we know?** Single rides cost 3, the pass 8, and there are 4 rides.\n**How to go about it.** First "
        "price the single rides, then compare with the pass.\n**Let's do it.** 4 * 3 = 12, and 12 - 8 = 4.\n"
        "**Looking back.** With three rides it is 9, above 8: the pass wins.",
        "**Given:** 4 rides at 3.\n**Solution:** 4 * 3 = 12.\n**Answer:** 12",
    ),
    (
        "step_by_step",
        "6 rows of 14 seats, 9 are broken.",
        "6 * 14 = 84 seats. Check: 84 / 14 = 6.\n84 - 9 = 75 seats are fine. Check: 75 + 9 = 84.",
        "6 * 14 = 84 seats. Next, 84 - 9 = 75. Let me check each step. All good: 75.",
    ),
    (
        "working_backward",
        "A plant tripled its height, then grew 4 cm more and is now 25 cm. How tall was it at first?",
        "Now it is 25 cm. Before the last 4 cm it was 25 - 4 = 21 cm. Before tripling it was 21 / 3 = 7 cm.",
        "Before we begin, note that the plant is 25 cm now. 25 - 4 = 21.",
    ),
    (
        "decomposition",
        "What is the area of an L-shaped room?",
        "Cutting the room along the inner corner gives a 6 by 4 rectangle and a 3 by 2 rectangle. 24 + 6 = 30.",
        "Let's break this down into steps. Step 1: 6 * 4 = 24. Step 2: 24 + 6 = 30.",
    ),
    (
        "analogy",
        "A data link sends 4 packets a second through two channels.",
        "It's just like a motorway with two lanes: cars spread over the lanes, and each lane carries half the traffic. "
        "So each channel sends 4 / 2 = 2.",
        "Like before, we divide: 4 / 2 = 2.",
    ),
    (
        "auxiliary_element",
        "A trapezoid has sides 10, 5, 4, 5. What is its height?",
        "Drop a perpendicular from each upper corner to the base. It leaves 3 on either side, and the height is 4.",
        "The height h of a trapezoid is its perpendicular distance, here 4.",
    ),
    (
        "bright_idea",
        "What is 98 + 99 + 100 + 101 + 102?",
        "There's no need to add them one by one: 98 and 102 as well as 99 and 101 cancel out around 100, so 500.",
        "The key idea is to add the numbers: 98 + 99 = 197, 197 + 100 = 297, 297 + 203 = 500.",
    ),
    (
        "specialisation",
        "By what percent does the volume of a cube grow when its edge doubles?",
        "Choose an edge of 1. The volume goes from 1 to 8, that is 700 % more.",
        "In this special case the volume is 2^3 = 8 times as large.",
    ),
    (
        "generalisation",
        "How many edges has a prism on a 15-gon?",
        "Consider a prism on an n-gon. Each of the n corners gives an edge at the bottom, one at the top and one "
        "between, so there are 3n edges, whatever n is. With n = 15 there are 45.",
        "In general, multiply: 3 * 15 = 45.",
    ),
    (
        "guess_and_check",
        "Which whole number times its successor is 272?",
        "15 * 16 = 240, too small. 17 * 18 = 306, too big. 16 * 17 = 272 works.",
        "My guess is that we need the root: 16 * 17 = 272. I checked, and it's fine.",
    ),
    (
        "pattern",
        "How many dots has the 10th figure?",
        "Figure 1 has 4 dots, figure 2 has 7, figure 3 has 10. Each figure has 3 more than the one before, so the 10th has 4 + 9 * 3 = 31.",
        "Let's look for a pattern. 4 + 9 * 3 = 31.",
    ),
    (
        "figure",
        "Ben has 3 times as many stamps as Ida. Together they have 48.",
        "Ida | ■\nBen | ■ ■ ■\n\n4 squares are 48, so one is 12.",
        "A figure would help here. 48 / 4 = 12.",
    ),
    (
        "symmetry",
        "Two people each pick a number from 1 to 5. What is the chance that the first is larger?",
        "They tie with probability 1/5. Swapping the two people changes nothing, so the other 4/5 are shared equally: 2/5 each.",
        "By symmetry of multiplication 4 * 5 = 5 * 4 = 20.",
    ),
    (
        "introduce_notation",
        "A shop sells 30 hats at 12 and pays 90 for rent.",
        "Let n = 30 be the number of hats, p = 12 the price and r = 90 the rent. The profit is n * p - r = 360 - 90 = 270.",
        "The area is A = l * w with l = 4 and w = 3, so A = 12.",
    ),
    (
        "setting_up_equations",
        "Ann is 5 years older than Bob. Together they are 31.",
        "Let b be Bob's age. Then b + (b + 5) = 31, so 2b = 26 and b = 13.",
        "The number of years is x = 31 - 5 = 26.",
    ),
    (
        "contradiction",
        "Is there a whole number whose square ends in 7?",
        "Suppose there were one. Its last digit squared would have to end in 7. But the squares of the digits end in "
        "0, 1, 4, 5, 6 or 9, which contradicts that. So there is none.",
        "Suppose we have 7 apples. 7 * 7 = 49, which isn't 7.",
    ),
    (
        "variation",
        "A taxi takes 3 to start and 2 per km. How far for 19?",
        "First forget the 3 to start: 19 would pay for 9.5 km. Now put the 3 back in: it takes away 1.5 km, which leaves 8 km.",
        "We can forget about the rest. (19 - 3) / 2 = 8.",
    ),
    (
        "restate",
        "How many positive divisors of 36 are odd?",
        "In other words, which divisors lack the factor 2? Those of 9: 1, 3, 9.",
        "The problem asks how many divisors there are. There are 3.",
    ),
    (
        "test_by_dimension",
        "Water flows at 4 l/min. How long for 60 l?",
        "l divided by l/min is min, so divide: 60 / 4 = 15.",
        "60 l / 4 = 15. The unit is minutes. Remember that 1 h = 60 min.",
    ),
    (
        "related_problem",
        "How many matches do 9 chess players play, each against each?",
        "We solved the problem of the handshakes last week: 9 people shake hands 36 times. The same works here, so 36.",
        "Recall that the sum of angles in a triangle is 180. So 180 - 144 = 36.",
    ),
]


@pytest.mark.parametrize(("key", "problem", "act", "lure"), ACTS_AND_LURES, ids=[case[0] for case in ACTS_AND_LURES])
def test_what_is_done_counts_and_what_is_only_said_does_not(key, problem, act, lure):
    assert key in label(problem, act)
    assert key not in label(problem, lure)


def test_every_heuristic_has_an_act_and_a_lure():
    assert [case[0] for case in ACTS_AND_LURES] == CATALOGUE.keys


def test_parts_of_one_act_are_no_second_heuristic():
    rows = "For 1 person there are 0 handshakes, for 2 there is 1, for 3 there are 3, for 4 there are 6. It "
    rows += "always grows by one more, so 10, 15."
    assert label("How many handshakes are there among 6 people?", rows) == ["pattern"]
    substituted = "Put u = x^2. Then u^2 - 5u + 4 = 0, so u = 1 or u = 4, and x is 1, -1, 2 or -2."
    assert label("Solve x^4 - 5x^2 + 4 = 0.", substituted) == ["auxiliary_element"]
    converted = "2 days * 24 hours/day * 60 min/hour = 2880 min"
    assert label("How many minutes are there in 2 days?", converted) == []


def test_a_letter_that_gets_a_number_of_the_problem_is_no_unknown():
    rule = "For n cuts there are 2n + 1 = m pieces, since each cut makes two more. With n = 12 this is 25."
    assert "setting_up_equations" not in label("A folded string is cut 12 times. How many pieces are there?", rule)


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


@pytest.mark.parametrize("hostile", ["\n", "1 = ", "let x be 3, ", "before 5 ", "a per b ", "= x + 1 ", "(((", "9"])
def test_no_text_holds_the_judge_up(hostile):
    assert_linear(lambda size: label((hostile * 400)[:400], hostile * (size // len(hostile))), 36_000)


def test_typesetting_is_no_difference():
    plain, typeset = Reading("", "Half: 3 * 4 = 12, x = 3/4."), Reading("", r"Half: $3 \times 4 = 12$, $x = \frac{3}{4}$.")
    assert [one.numbers for one in typeset.calculations] == [one.numbers for one in plain.calculations] == [{3, 4, 12}]
    assert plain.equations[0] == typeset.equations[0]
    aligned = Reading(
        "", "\\begin{align*}\na + b &= 12, \\\\\n a - b &= \\tfrac12\n\\end{align*}\n*(Check: $12 \\cdot 2 = 24$, costs \\$5.)*"
    )
    assert aligned.equations[:2] == [("a + b", "12"), ("a - b", "1/2")]
    assert aligned.lines[-1] == "(check: 12 * 2 = 24, costs $5.)"
    assert Reading("", "It costs $5, and $7 for two.").text == "It costs $5, and $7 for two."
    assert Reading("", "3x = 39 x = 13").equations == [("3x", "39"), ("x", "13")]


def test_every_pattern_compiles():
    """They are compiled when they are first asked for, which would be in the middle of a report."""
    assert len(_patterns()) > 50 and all(trace(name).pattern for name in _patterns())
