"""reasoning-gym's scorers, and what they are kept from."""

import json

import pytest
import reasoning_gym

from jaxpolya.api.verifying import verify_response
from jaxpolya.errors import InputError
from jaxpolya.verify import gym
from jaxpolya.verify.gym_rules import FORMS, REFUSED, RULES
from jaxpolya.verify.mathematics.expression import TooLarge

NAMES = [*sorted(set(RULES) | set(FORMS)), "simple_integration", "intermediate_integration", "n_queens", "spiral_matrix",
         "string_insertion", "binary_matrix", "basic_arithmetic", "chain_sum", "leg_counting"]  # fmt: skip


def entries(name: str, size: int = 4) -> list[dict]:
    """Entries as they come back from a file."""
    return json.loads(json.dumps([entry for entry in reasoning_gym.create_dataset(name, size=size, seed=3)], default=str))


@pytest.mark.parametrize("name", NAMES)
def test_the_right_answer_is_right_and_another_is_not(name):
    for entry in entries(name):
        if entry["answer"] and "Integral" not in entry["answer"]:  # what sympy could not integrate can't be answered either
            assert gym.correct(entry["answer"], entry)
            assert gym.correct(f"${entry['answer']}$", entry)
        assert not gym.correct("no idea", entry)
        assert not gym.correct("", entry)


@pytest.mark.parametrize("name", sorted(gym._LITERALS | gym._FORMULAS | set(RULES) | set(FORMS)))
def test_python_in_an_answer_is_never_run(name, tmp_path):
    mark = tmp_path / "ran"
    for attack in (
        f"open({str(mark)!r}, 'w')",
        f"[open({str(mark)!r}, 'w')]",
        f"__import__('os').system('touch {mark}')",
        "().__class__",
        "lambda: 1",
    ):
        assert not gym.correct(attack, entries(name, 1)[0])
    assert not mark.exists()


def test_a_power_that_can_not_be_computed_is_refused():
    with pytest.raises(TooLarge):
        gym.correct("9**9**9**9", entries("simple_integration", 1)[0])
    assert not gym.correct("9**9**9**9", entries("countdown", 1)[0])


@pytest.mark.parametrize(
    "entry", [{}, {"metadata": {}}, {"metadata": {"source_dataset": "nosuch"}}, {"metadata": {"source_dataset": "chain_sum"}}]
)
def test_broken_entries_are_ours(entry):
    with pytest.raises(gym.BrokenEntry):
        gym.correct("1", entry)


def entry(generator: str, answer: str | None = None, question: str = "", **metadata) -> dict:
    return {"question": question, "answer": answer, "metadata": {"source_dataset": generator, **metadata}}


MAKE24 = entry("puzzle24", "(7 - 5) * 4 * 3", "Make 24. You can use the operators +, -, *.\n", numbers=[3, 4, 5, 7])
MAKE100 = entry("countdown", "50 * 4 / 2", numbers=[2, 4, 50], target=100)
FLIPS = entry("coin_flip", "0.2460937500", rational={"numerator": 252, "denominator": 1024})
SURE = entry("coin_flip", "0.9999694824", rational={"numerator": 32767, "denominator": 32768})
SORTED = entry("number_sorting", "['-3.5', '2.0', '10']", direction="ascending")
HALF = entry("fraction_simplification", "$1/2$", simplified_numerator=1, simplified_denominator=2, numerator=7, denominator=14)
WHOLE = entry("fraction_simplification", "3/1", simplified_numerator=3, simplified_denominator=1, numerator=9, denominator=3)
PRODUCT = entry("polynomial_multiplication", "2*x**2*y - 3*x + 1")
LATE = entry("calendar_arithmetic", "-1", task="recurring_event_calculations")
PARKED = entry("rush_hour", board_config="ooooooooooCoAAooCoxoooooooooooEEoooo")  # shown as A, B, C


@pytest.mark.parametrize(
    ("entry", "right", "wrong"),
    [
        (MAKE24, ["(7-5)*4*3", r"(7 - 5) \times 4 \cdot 3", "−(5−7)×3×4"],
         ["4*6*1*1", "24", "(7-5)*4*3+0", "7*4-5+1", "3*4*(7-5)*3/3", "(7-5)*12", "3*4*5*7/17.5", "(7-5)*4*3 = 24", "4*3*(7-5.0)",
          "(7-5)*4*3*1", "3+4+5+7", "7-5*4*3", "max(7,5)", "24+3-3+0*(4+5+7)", "(" * 400 + "7" + ")" * 400, "3/(5-5)"]),
        (MAKE100, ["50*4/2", "4 * 50 ÷ 2", "50 / (2 / 4)", "(((50))) * 4 / 2"],
         ["100", "50*2", "50*4//2", "50*4/2.0", "5_0*4/2", "50**1*4/2", "50*4/2 + x - x", "100*(50/50)", "0x32*4/2", "50*4/2/1",
         "-50*4/2"]),
        (FLIPS, ["0.24609375", "252/1024", "63/256", r"\frac{63}{256}", "24.61%", "0.2461", "0.246"], ["0", "0.2", "0.25", "1", "2",
         "63", "nan", "1/0", "0.", "1e99999999"]),
        (SURE, ["0.9999694824", "32767/32768"], ["1", "0.9999", "0.99", "0", "0.99996"]),
        (entry("game_of_life_halting", "False"), ["False", "false"], ["True", "0", "no", "x", "False or True", "not True"]),
        (SORTED, ["[-3.5, 2, 10]", "['-3.5', '2.0', '10']"], ["[NaN, NaN, NaN]", "[-3, 2, 10]", "[-3.5, 2.5, 10.5]", "[-3.5, 2.0]", "[]",
         "[[-3.5], 2, 10]",
         "[Infinity, 2, 10]", "[true, 2, 10]", "['x', '2.0', '10']", "-3.5, 2, 10"]),
        (entry("complex_arithmetic", "3.0 - 2.0i", result=[3.0, -2.0]), ["3 - 2i", "3.0-2.0i", "(3 - 2j)"], ["nan", "nan+nanj", "inf",
         "3", "3 + 2i", "1e999j"]),
        (entry("gsm_symbolic", "1310"), ["1310", "$1,310", "1310 apples", "1310.0"], ["-1310", "1310 or 1311", "1310, 7", "1310/7",
         "7 + 1303", "The 1310 apples and 2 pears", "13 10", "1310 + 0"]),
        (HALF, ["1/2", r"$\frac{1}{2}$", r"\dfrac{1}{2}"], ["7/14", "1/2 or 1/3", "1/2, 2/3", "0.5", "1", "2",
         r"\frac{1}{2}, \frac{7}{14}"]),
        (WHOLE, ["3/1", "3"], ["9/3", "1/3", "3/3"]),
        (PRODUCT, ["2*x**2*y - 3*x + 1", "1 - 3x + 2yx^2", "-3*x + 2*y*x**2 + 1"], ["(2*x*y - 3)*x + 1", "2*x*x*y - 3*x + 1",
         "x**2*y + x**2*y - 3*x + 1",
         "2*x**2*y - 3*x", "2*1*x**2*y - 3*x + 1", "2*x**2*y - 2*x - x + 1", "", "2*x**2*y - 3*x + 1 + 0*x**2*y", "2*x**2*y -- 3*x + 1"]),
        (LATE, ["-1", " -1 "], ["0", "1", "5", "-2", "-10", "x"]),
        (entry("calendar_arithmetic", "Monday", task="weekday_of_date"), ["Monday", "monday"], ["Tuesday", "Monday Tuesday", "day"]),
        (PARKED, ["B-1 A+4", "B-1, A+2, A+2", "B+2 A+4"], ["A+4", "B-1 A+9", "B-9 A+4", "B-1 A+4 A-1", "A+4 B-1 A+4", "C-1 B-1 A+4",
         "B-1", "x", "B-1 A+4 x", "D+1 B-1 A+4", "A+1 " * 99]),
        (entry("quantum_lock", "A → B", buttons=[], initial_value=0, initial_state="red", target_value=9), ["A → B", "AB", "a, b"],
         ["A cab", "nan b", "the answer is A then B", "B → A"]),
        (entry("word_sorting", "ann, bob", sorted_words=["ann", "bob"]), ["ann, bob", "ann,bob"], ["bob, ann", "ann, bob, cid", "ann",
         "ann bob"]),
        (entry("spell_backward", "olleh"), ["olleh", "Olleh"], ["olleh hello", "ollehx", "hello", "olle"]),
        (entry("letter_jumble", "a fine day"), ["a fine day", "A fine day"], ["a fine day or so", "a day fine", "afineday"]),
        (entry("figlet_font", "ABCDEFGHIJKL"), ["abcdefghijkl"], ["abcdefghijkx", "abcdefghijklm"]),
        (entry("polynomial_equations", "-0.5, 2.0"), ["-0.5, 2", "2.0,-0.5"], ["-0.5", "-0.5, 2, 3", "-0.5, 2, x", "x = 2",
         "-0.5, 2 and any other", "nan, nan"]),
        (entry("polynomial_equations", ""), [], ["no idea", "x", ",", "-", "the answer", "0"]),
    ],
)  # fmt: skip
def test_only_right_answers_are_right(entry, right, wrong):
    assert [answer for answer in right if not gym.correct(answer, entry)] == []
    assert [answer for answer in wrong if gym.correct(answer, entry)] == []


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_generator_whose_questions_answer_themselves_is_refused(name):
    given = entries(name, 1)[0]
    with pytest.raises(gym.BrokenEntry, match="can't be judged"):
        gym.correct("P", given)
    with pytest.raises(InputError, match="can't be judged"):
        verify_response("The answer is P.", kind="reasoning_gym", entry=given)


@pytest.mark.parametrize("name", sorted(RULES))
def test_an_entry_without_what_its_rule_reads_is_ours(name):
    with pytest.raises(gym.BrokenEntry):
        gym.correct("1", {"metadata": {"source_dataset": name}})
