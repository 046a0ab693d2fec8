"""Overlap of training questions with evaluation sets: what counts as the same words, and what is only wording."""

import pytest
from growth import assert_linear
from hypothesis import given
from hypothesis import strategies as st

from jaxpolya.evaluation.contamination import COMMON, find_overlaps, normalise
from jaxpolya.records import Question

STORY = "Nora picks 14 plums on the first day and twice as many on the second, then gives 9 of them to her brother. How many are left?"


def question(text, number=0, **more):
    return Question(id=f"q{number}", question=text, answer="0", **more)


def overlaps(training, evaluated, n=13):
    pairs = find_overlaps(
        [question(text, i) for i, text in enumerate(training)], {"set": [question(text, i) for i, text in enumerate(evaluated)]}, n
    )
    return [(int(overlap.train[1:]), int(overlap.eval[1:]), overlap.whole) for overlap in pairs]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is 3 * 4?", "what is $3 \\times 4$"),
        ("3 - 4 ÷ 2", "3 − 4 / 2"),
        ("It costs $1,000.", "it costs 1000"),
        ("\\left( x \\right)^2", "(x)²"),
        ("A well-known, long \u201cstory\u201d", "a well known long story"),
        ("ｆull width ５", "full width 5"),
    ],
)
def test_the_same_words(first, second):
    assert normalise(first) == normalise(second) != []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("3 * 4", "3 + 4"),
        ("2 * (3 + 4)", "2 * 3 + 4"),
        ("1.5", "15"),
        ("1 5", "15"),
        ("3²", "32"),
        ("5!", "5"),
        ("-3", "3"),
        ("x < 2", "x > 2"),
    ],
)
def test_other_words(first, second):
    assert normalise(first) != normalise(second)


def test_short_questions_are_compared_as_a_whole():
    training = ["What is 3 * 4?", "What is 3 * 4 + 5?", "What is 3 + 4?", "WHAT IS 3*4"]
    assert overlaps(training, ["What is 3 * 4 ?"]) == [(0, 0, True), (3, 0, True)]


def test_questions_without_words_share_nothing():
    assert overlaps(["★ ★", "?"], ["☆"]) == []


def test_a_shared_run_of_n_words():
    other = "Before the fair " + STORY.removesuffix("How many are left?") + "How many does he get?"
    assert len(normalise(STORY)) > 20
    assert overlaps([other], [STORY]) == [(0, 0, False)]
    (overlap,) = find_overlaps([question(other)], {"set": [question(STORY)]}, 13)
    assert overlap.ngram in " ".join(normalise(STORY)) and overlap.ngram in " ".join(normalise(other))
    assert len(overlap.ngram.split()) == 13
    # Twelve words are no run of 13.
    twelve = " ".join(normalise(STORY)[:12])
    assert overlaps([twelve + " and then she goes home"], [STORY]) == []
    assert overlaps([twelve + " and then she goes home"], [STORY], n=12) == [(0, 0, False)]


def test_context_and_choices_belong_to_the_question():
    asked = "Who did it?"
    train = [question(asked, 0, choices=["Ann", "Bo"], verifier="choice"), question(asked, 1, choices=["Cy", "Di"], verifier="choice")]
    pairs = find_overlaps(train, {"set": [question(asked, 0, choices=["Ann", "Bo"], verifier="choice")]}, 13)
    assert [overlap.train for overlap in pairs] == ["q0"]
    read = [question("Who?", 0, context=STORY)]
    assert find_overlaps([question(STORY)], {"set": read}, 13)


def template(a, b):
    return f"Work out the following sum and give nothing but the final result as a number in the last line: {a} + {b}"


def test_a_template_is_no_overlap():
    training = [template(i, i + 3) for i in range(40)]
    # The whole template is in every question; its end with a number in front of it is in few, and is wording for the greater part.
    assert overlaps(training, [template(100 + i, i + 3) for i in range(40)]) == []
    assert overlaps(training, [template(100, 7)]) == []
    assert overlaps(training, [template(100, 7), template(5, 8)]) == [(5, 1, True)]


def test_a_few_questions_of_one_wording_are_no_template():
    # Up to COMMON questions may share a run and it still counts: variants of one story are what this looks for.
    variants = [STORY.replace("Nora", name) for name in "abcdefghijk"[: COMMON - 1]]
    assert len(overlaps(variants, [STORY])) == COMMON - 1


def test_sets_are_told_apart():
    pairs = find_overlaps([question(STORY)], {"first": [question("Other?")], "second": [question(STORY, 4)]}, 13)
    assert [(overlap.eval_set, overlap.eval, overlap.whole) for overlap in pairs] == [("second", "q4", True)]


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.integers(1, 9)
)
def test_it_is_the_definition(first, second, n):
    def runs(words):
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    expected = first == second or bool(runs(first) & runs(second))
    assert bool(overlaps([" ".join(first)], [" ".join(second)], n)) == expected


def test_time_is_linear():
    def find(count):
        words = [f"w{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(17_000)]
        texts = [question(" ".join(words[(i * 7 + j * 13) % 17_000] for j in range(60)), i) for i in range(count)]
        return find_overlaps(texts, {"set": texts[: count // 2]}, 13)

    assert_linear(find, 2_000)
