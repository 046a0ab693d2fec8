"""Exactly one choice, stated once, or nothing."""

import pytest

from jaxpolya.verify.choice import extract, letter_of

CHOICES = ["Mackenzie", "Ana", "Mr. Smith of York"]


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"), ("(B)", "B"), ("b.", "B"), ("**B**", "B"), ("Ana", "B"), ("B) Ana", "B"), ("(B): Ana", "B"), ("Option B", "B"),
        ("It must be her. The answer is B.", "B"), ("The answer is (B) Ana.", "B"), ("Answer: Ana", "B"), (r"So \boxed{B}", "B"),
        (r"\boxed{\text{(B)}}", "B"),
        ("<answer>B</answer>", "B"), ("The answer is B. Because A has an alibi.", "B"), ("Answer: C) Mr. Smith of York", "C"),
        ("The answer is B.\n**Final Answer:** B", "B"), (r"The answer is \boxed{B}.", "B"),
        ("<think>The answer is A.</think>Answer: B", "B"),
    ],
)  # fmt: skip
def test_stated(response, letter):
    assert extract(response, CHOICES) == letter


@pytest.mark.parametrize(
    "response",
    ["", "I think it was Ana, since B is odd", "Both Ana and Mackenzie", "The answer is A or B.",
     "The answer is A. No, the answer is B.", "D", "Answer: D",
     "The answer is Anastasia.", "The answer is not B.", "B) Mackenzie", r"\boxed{A} or \boxed{B}", r"\boxed{}", r"Answer: B, \boxed{A}",
     "A B", "AB", "<answer>B",
     "The answer is B" * 200],
)  # fmt: skip
def test_not_stated(response):
    assert extract(response, CHOICES) is None


def test_gold_is_a_letter_or_a_choice():
    assert letter_of("c", CHOICES) == "C"
    assert letter_of("ana", CHOICES) == "B"
    assert letter_of("Anna", CHOICES) is None


def test_equal_choices_are_told_apart_by_letter_only():
    assert extract("Answer: same", ["same", "same"]) is None
    assert extract("Answer: B", ["same", "same"]) == "B"
