"""Majority vote: who agrees with whom, ties, abstentions; and the measures built on it."""

from fractions import Fraction

import pytest

from jaxpolya.errors import InputError
from jaxpolya.evaluation.measures import Answers, compare, compare_seeds, measure, measure_seeds
from jaxpolya.evaluation.vote import ballot, majority
from jaxpolya.records import Question, Sample

SETTINGS = {"resamples": 200, "seed": 0}


def sample(question, index, verdict, extracted=None, stage="eval"):
    return Sample(
        id=f"{question}#{index}", question_id=question, arm="base", stage=stage, index=index, prompt="?", response="!", token_ids=[1],
        logprobs=[0.0], finish="stop", seed=0, verdict=verdict, extracted=extracted,
    )  # fmt: skip


def answers_to(question, *answers, right="7"):
    """Samples whose answers are these; None is none."""
    verdicts = ["unparseable" if answer is None else "correct" if answer == right else "wrong" for answer in answers]
    return [sample(question, i, verdict, answer) for i, (verdict, answer) in enumerate(zip(verdicts, answers, strict=True))]


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        ("1/2", "0.5", True),
        ("\\frac{1}{2}", "\\dfrac12", True),
        ("-\\frac{3}{6}", "-.5", True),
        ("$27.0$", "27", True),
        ("1,000", "1000", True),
        ("( 1, 2 )", "(1,2)", True),
        ("\\text{Monday}", "monday.", True),
        ("A", "a", True),
        ("(1,2)", "(2,1)", False),
        ("5%", "5", False),
        ("-5", "5", False),
        ("1/0", "0", False),
        ("12", "1, 2", False),
        ("x" * 400, "x" * 401, False),
    ],
)
def test_who_votes_alike(first, second, agree):
    assert (ballot(first) == ballot(second)) is agree


def test_numbers_vote_by_their_value():
    assert ballot("0.125") == Fraction(1, 8)


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (["7", "8", "7"], 1.0),
        (["8", "8", "7"], 0.0),
        (["7", "8"], 1.0),  # a tie goes to what was said first
        (["8", "7"], 0.0),
        (["8", "9", "10", "7", "7"], 1.0),
        ([None, None, "7"], 1.0),  # who has no answer abstains
        ([None, None], 0.0),
        (["1/3", "0.5", "7", "1/2", "7", "\\frac12"], 0.0),  # wrong answers are merged as right ones are
    ],
)
def test_the_majority_decides(answers, right):
    assert majority(answers_to("q", *answers)) == {"q": right}


def test_a_majority_counts_by_place_not_by_the_file_s_order():
    assert majority(answers_to("q", "8", "7")[::-1]) == {"q": 0.0}


def test_measures_of_constructed_answers():
    samples = [
        *answers_to("a", "7", "7", "8", "8", "7"),
        *answers_to("b", "1", "1", None, "7", "2"),
        *answers_to("c", "7", "7", "7", "7", "7"),
    ]
    greedy = [sample("a", 0, "wrong", "8"), sample("b", 0, "correct", "7"), sample("c", 0, "correct", "7")]
    result = measure(Answers.of([], samples, greedy), **SETTINGS)
    assert list(result["pass_"]) == [1, 2, 3, 4, 5]
    assert result["pass_"][1].mean == pytest.approx((3 / 5 + 1 / 5 + 1) / 3) and result["pass_"][5].mean == 1
    assert result["majority"].mean == pytest.approx(2 / 3) and result["greedy"].mean == pytest.approx(2 / 3)
    assert result["majority"].low < 2 / 3 < result["majority"].high


def test_programs_have_no_majority():
    questions = [Question(id=i, question="?", answer="", verifier="code") for i in "ab"]
    result = measure(Answers.of(questions, [*answers_to("a", "7"), *answers_to("b", "8")], None), **SETTINGS)
    assert set(result) == {"pass_"}
    mixed = measure(Answers.of(questions[:1], [*answers_to("a", "7"), *answers_to("b", "8")], None), **SETTINGS)
    assert mixed["majority"].mean == 0.0


def test_two_models_are_compared_on_the_questions_that_both_answered():
    ours = Answers.of(
        [], [*answers_to("a", "7", "7"), *answers_to("b", "7", "8"), *answers_to("c", "8", "8")], [sample("a", 0, "correct", "7")]
    )
    theirs = Answers.of([], [*answers_to("b", "8", "8", "8"), *answers_to("a", "7", "8", "8")], None)
    result = compare(ours, theirs, **SETTINGS)
    assert set(result) == {"1", "2", "majority"}  # the other has no greedy responses, and only two samples are shared
    assert result["1"].mean == pytest.approx(((1 - 1 / 3) + (1 / 2 - 0)) / 2)
    assert result["majority"].mean == 1.0
    back = compare(theirs, ours, **SETTINGS)
    assert back["1"].mean == -result["1"].mean and back["1"].low == -result["1"].high
    with pytest.raises(InputError, match="no questions"):
        compare(ours, Answers.of([], answers_to("z", "7"), None), **SETTINGS)


def test_several_trainings_are_compared_each_with_its_own_seed_s():
    answers = [Answers.of([], [*answers_to("a", *first), *answers_to("b", "7", "8")], None) for first in (("7", "7"), ("7", "8"))]
    base = [Answers.of([], [*answers_to("a", "8", "8"), *answers_to("b", "7", "7"), *answers_to("z", "7")], None) for _ in answers]
    result = measure_seeds(answers, **SETTINGS)
    assert result["pass_"][1].mean == pytest.approx((1 + 1 / 2 + 1 / 2 + 1 / 2) / 4) and result["pass_"][2].mean == 1
    versus = compare_seeds(answers, base, **SETTINGS)
    assert versus["1"].mean == pytest.approx(((1 - 0) + (1 / 2 - 1) + (1 / 2 - 0) + (1 / 2 - 1)) / 4) and "majority" in versus
    with pytest.raises(InputError, match="no questions"):
        compare_seeds(answers, [Answers.of([], answers_to("y", "7"), None)] * 2, **SETTINGS)
