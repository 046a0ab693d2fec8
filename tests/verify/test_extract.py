"""Where a response's answer is found, and where there is none."""

import time

import pytest

from jaxpolya.verify.extract import extract


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"so \boxed{12} and finally \boxed{\frac{3}{4}}.", r"\frac{3}{4}"),
        (r"\boxed{\left\{1, \{2\}\right\}}", r"\left\{1, \{2\}\right\}"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"\boxed{5} ... \boxed{}", None),
        (r"\boxed{5} ... \boxed{6", None),
        (r"\boxed{never closed, then \boxed{42}", "42"),
        (r"either \boxed{5} or \boxed{6}", "5, 6"),
        (r"\boxed{5} is wrong, it is \boxed{6}", "6"),
        (r"\boxed 5", None),
        ("the sum is 5", None),
    ],
)
def test_boxes(response, expected):
    assert extract(response, "boxed") == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("We add. The answer is 42.", "42"),
        ("The answer is 42. I hope it is correct.", "42"),
        ("Answer: 41 was a guess.\nAnswer: 42", "42"),
        ("12 + 30 = 42\n#### 42", "42"),
        ("steps\nA: 1,200", "1,200"),
        ("**Final Answer:** $x^2 + 1$", "$x^2 + 1$"),
        ("Final answer\n\\[ 3.5 \\]", "\\[ 3.5 \\]"),
        ("Final Answer: The largest number is 34. Done.", "34"),
        ("The answer is $3.14$ because pi is near it", "$3.14$"),
        ("the answer is 5 or 6.", "5 or 6"),
        ("<answer>7</answer> then <answer> 8 </answer>", "8"),
        (r"The answer is 5. \boxed{6}", "6"),
        ("answers vary, 42", None),
        ("The answer is ", None),
        ("42", None),
    ],
)
def test_statements(response, expected):
    assert extract(response, "statement") == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("she has 3 apples and then 1,250.5", "1,250.5"),
        ("It went from 16-3 to -4", "-4"),
        ("that makes 3/4 of it", "3/4"),
        (r"so \frac{3}{4} remains", r"\frac{3}{4}"),
        ("a rise of 20%", "20%"),
        ("The answer is Jane has 3 apples left.", "3"),
        ("The answer is 7. Check: 2+5=9", "7"),
        ("none", None),
    ],
)
def test_numbers(response, expected):
    assert extract(response, "number") == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<answer>4</answer>", "4"),
        (r"<answer>\boxed{4}</answer>", "4"),
        ("<answer>1</answer> <answer>2", None),
        ("<answer></answer>", None),
        (r"\boxed{4}", None),
    ],
)
def test_tags(response, expected):
    assert extract(response, "tag") == expected


@pytest.mark.parametrize("style", ["boxed", "statement", "number", "tag"])
def test_thinking_is_not_speaking(style):
    said = r"<answer>\boxed{8}</answer>"
    assert extract(rf"<think>\boxed{{9}}</think>{said}", style) == "8"
    assert extract(rf"{said}<think>\boxed{{9}}", style) == "8"
    assert extract(rf"<think>I try {said}", style) is None


def test_what_follows_the_end_of_text_is_not_said():
    assert extract("The answer is 5.<|im_end|>The answer is 6.", "statement") == "5"


@pytest.mark.parametrize("style", ["boxed", "statement", "number", "tag"])
@pytest.mark.parametrize(
    "piece",
    ["\\boxed{", "{", "}", "\\", "<answer>", "</answer>", "answer is ", "answer ", "Final answer\n", "#### ", "1", "1,", "-", " ", "\n",
     "$", "<think>", "A:\n",
     "\\boxed{1} or ", "be is "],
)  # fmt: skip
def test_time_is_linear(style, piece):
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        start = time.process_time()
        extract(text, style)
        return time.process_time() - start

    seconds(1000)
    assert min(seconds(200_000) for _ in range(2)) < 0.5
