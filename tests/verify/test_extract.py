"""Where a response's answer is found, and where there is none."""

import random
import re

import pytest
from growth import assert_linear

from jaxpolya.verify import numerals, statement
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


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        # Markdown headings are no answers; GSM8K's own form is one.
        ("#### Step 1\n7 + 8 = 15", None),
        ("#### Conclusion\nThere are 15 goats.", None),
        ("#### 2 pens are left\nSo they need 15 more.", None),
        ("#### 1. Count the goats\n15 goats", None),
        ("##### 15", None),
        ("**Answer:** 15 goats\n\n#### Check\n15 - 8 = 7", "15 goats"),
        ("#### First the pens\n5 pens\n#### 15", "15"),
        ("#### 9 at first\n9 + 6 = 15\n#### 15 goats", "15 goats"),
        ("7 + 8 = 15 #### 15,", "15"),
        ("#### $x + 2$\nThat was it.", "$x + 2$"),
        # A line label in a list of options is none either.
        ("A: 4 goats\nB: 11 goats\nTogether 15.", None),
        ("**A:** $(1,2)$\n**B:** $(4,6)$\n\nThe answer is 5.", "5"),
        ("Q: How many goats?\nA: 15", "15"),
        # Headings and wordings that do state one.
        ("## Answer\n\n15", "15"),
        ("**Final Answer**\n15", "15"),
        ("Answer\n======\n15", "15"),
        ("Answer:\n```\n15\n```", "15"),
        ("✅ **Answer: 15** ✅", "15"),
        ("Answer：15", "15"),
        ("Ans: 15", "15"),
        ("Answer - 15", "15"),
        ("The answer to this riddle is 15.", "15"),
        ("The answer (in goats) is 15.", "15"),
        ("The answer in goats is 15.", "15"),
        ("The answer is thus 15.", "15"),
        ("The answer is therefore:\n\n15", "15"),
        ("The answer is 5 * 3 = 15 goats.", "15 goats"),
        ("The answer is Rs. 15 in all.", "Rs. 15 in all"),
        ("The answer is 3! + 9 = 15.", "3! + 9 = 15"),
        ("The answer is 15! Great.", "15"),
        ("15 is the answer. Answer: 15 is what they have.", "15"),
        ('{"steps": "7 + 8", "answer": 15}', "15"),
        ('{"answer": "\\\\frac{1}{2}", "sure": true}', r"\frac{1}{2}"),
        ("<answer>The answer is 15.</answer>", "15"),
        ("<Final_Answer>15</final_answer>", "15"),
        ("The answer is $15 per goat. That is $3 more.", "$15 per goat"),
        # Weak markers count where no strong one is.
        ("The answer must be 15.", "15"),
        ("It would be odd. The answer would then be 15.", "15"),
        ("The answer is 15. Without the kid the answer would be 14.", "15"),
        ("The answer would be 14 if the kid had left.", None),
        ("The solutions are 2 and 5.", "2 and 5"),
        ("The result is 14. Then comes the kid.", "14"),
        ("The result is 14.\nThen comes the kid.", None),
        # What denies an answer states none of its parts.
        ("The answer isn't 15.", None),
        ("The answer is not known to be 15.", "not known to be 15"),
    ],
)
def test_wordings(response, expected):
    assert extract(response, "statement") == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        # A statement that isn't one number hides no number.
        ("The answer is 5 * 3 = 15 goats in all.", "15"),
        ("The answer is found by adding. 7 + 8 = 15", "15"),
        ("Add to get the answer: first the kids. 7 + 8 = 15.", "15"),
        ("7 + 8 = 15. The answer is written above.", "15"),
        ("7 + 8 = 15, so the answer is clear.", "15"),
        ("The answer is not hard to see. 7 + 8 = 15", "15"),
        ("The answer is 15 goats in 3 pens.", "15"),
        ("The answer is 15 (3 pens of 5).", "15"),
        ("The answer is that 3 pens hold 15 goats.", "15"),
        ("#### Step 1: 3 pens\n#### Step 2: 5 goats each\n3 * 5 = 15", "15"),
        ("A: 3 pens\nB: 5 goats each\nThat makes 15", "15"),
        ("The answer is about 3 million goats here.", "3 million"),
        # Steps and items are counted by no number of the text's.
        ("They have 15.\n\n### Step 3: Check\nIt fits.", "15"),
        ("They have 15.\n**Step 3.**\nIt fits.", "15"),
        ("1. There are 15.\n2. It fits.", "15"),
        ("There are\n15. It fits.", "15"),
        ("#### Step 3\nIt fits.", None),
        ("They are at step 15.", "15"),
        # Nothing that isn't worked out becomes a number.
        ("The answer is 31 * 29.", "31 * 29"),
        ("The answer is 31 * 29 goats in all.", "31 * 29 goats in all"),
        ("So they have 31 × 29.", "31 × 29"),
        ("So they have $31 \\times 29$", "$31 \\times 29"),
        ("That is 7 + 8", "7 + 8"),
        ("That leaves 31 - 29 goats", "31 - 29"),
        ("It comes to 2^5", "2^5"),
        ("The answer is 12 more than 3.", "12 more than 3"),
        ("The answer is twice 15 goats or so.", "twice 15 goats or so"),
        ("The answer is 15 or 16 goats in total.", "15 or 16 goats in total"),
        ("The answer is 3 goats, 4 goats, 5 goats.", "3 goats, 4 goats, 5 goats"),
        ("The answer is 2 hours 15 minutes.", "2 hours 15 minutes"),
        ("The answer is how many goats 15 pens hold.", "how many goats 15 pens hold"),
        ("The answer is not 15 goats but more.", "not 15 goats but more"),
        ("The answer is more than 15 goats in all.", "more than 15 goats in all"),
        ("The answer is anything but 15 here.", "anything but 15 here"),
        ("The answer is the square of 15 here.", "the square of 15 here"),
        ("The answer is the answer.", "the answer"),
        # Words stay what they are.
        ("7 days later. The answer is Friday.", "Friday"),
        ("The answer is fifteen.", "fifteen"),
        # Signs, times, ratios, powers, fractions.
        ("It drops to −15 degrees", "-15"),
        ("It drops by –15.", "-15"),
        ("It drops to -15", "-15"),
        ("x = - 15", "- 15"),
        ("$-15$", "$-15"),
        ("pages 12–15", "15"),
        ("pages 12-15", "15"),
        ("Total - 15", "15"),
        ("- 12 goats\n- 15 kids", "15"),
        ("They left at 7:15.", "7:15"),
        ("The answer is 7:15 in the morning.", "7:15"),
        ("They left at 7:15 pm.", "7:15 pm"),
        ("as 3:5", "3:5"),
        ("about 1.5e-3 m", "1.5e-3"),
        ("about 1.5 × 10^{8} km", "1.5 × 10^{8}"),
        ("an area of 15 m^2", "15"),
        ("1 1/2 pens", "1 1/2"),
        (r"$1\frac{1}{2}$ pens", r"$1\frac{1}{2}"),
        ("1\u202f500 goats", "1\u202f500"),
        ("15% of the goats", "15%"),
        ("15 percent of the goats", "15 percent"),
    ],
)
def test_numbers_in_sentences(response, expected):
    assert extract(response, "number") == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<Answer>15</Answer>", "15"),
        ("<answer>The answer is 15.</answer>", "15"),
        ("<answer>They have 15 goats.</answer>", "15"),
        ("<answer>They have 15 goats and 3 kids.</answer>", "They have 15 goats and 3 kids."),
        ("<answer>y = 15</answer>", "y = 15"),
        ("<answer>15</answer><answer>16", None),
    ],
)
def test_what_tags_hold(response, expected):
    assert extract(response, "tag") == expected


@pytest.mark.parametrize("style", ["boxed", "statement", "number", "tag"])
def test_thinking_is_not_speaking(style):
    answer = r"<answer>\boxed{8}</answer>"
    assert extract(rf"<think>\boxed{{9}}</think>{answer}", style) == "8"
    assert extract(rf"{answer}<think>\boxed{{9}}", style) == "8"
    assert extract(rf"<think>I try {answer}", style) is None


def test_what_follows_the_end_of_text_is_not_said():
    assert extract("The answer is 5.<|im_end|>The answer is 6.", "statement") == "5"


@pytest.mark.parametrize("style", ["boxed", "statement", "number", "tag"])
@pytest.mark.parametrize(
    "piece",
    ["\\boxed{", "{", "}", "\\", "<answer>", "</answer>", "answer is ", "answer ", "Final answer\n", "#### ", "1", "1,", "-", " ", "\n",
     "$", "<think>", "A:\n",
     "\\boxed{1} or ", "be is ", "1 + ", "3:", "2 x ", "answer (", "answer to ", "#### 1\n", "answer: \\[ ", "The result is 1\n",
     '"answer": "', "-\n", "not be ", "1\u202f", "1e", "*"],
)  # fmt: skip
def test_time_is_linear(style, piece):
    assert_linear(lambda size: extract(piece * (size // len(piece)), style), 60_000)


@pytest.mark.parametrize(
    "text",
    ["She has √64 apples", "It is 12 squared", "So x < 8", "x ≠ 8", "5 ± 1", "So there are 5! ways", "He has 2³ of them",
     "They need at least 12",
     "It isn't so: she has not 12", "That makes 12 or more", "about 12x", "She has 12 (wrong)", "They are 12 or 13"],
)  # fmt: skip
def test_a_number_is_taken_with_what_changes_it(text):
    number = extract(text, "number")
    assert number is None or not re.fullmatch(r"\d+", number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It ends at minus 12", "-12"),
        ("It ends at ‑7.", "-7"),
        ("He has 12½", "12½"),
        ("So 12 in all", "12"),
        ("9 of the 15, or 60%", "60%"),
    ],
)
def test_a_number_keeps_its_sign_and_its_fraction(text, number):
    assert extract(text, "number") == number


NUMBERS = [
    r"\frac{1}{2}", r"\dfrac34", r" \frac{3}{4}", "½", " ½", "3½", "12:30 pm", "1 1/2", "1,000", "1\u00a0000", "e5", " × 10^3", "$-5",
    "-$5", "= - 3", " hundred", " percent", ".5", "5 %", "−", "–7", "€", "٣", "²", "x", "a", "(", ")", " ", "\n", "7", "/", "*",
]  # fmt: skip
MARKERS = [
    "The answer is", "answer", "Final answer", "final  answer\n", "\n", "#### ", "####", "A:", "B:", "\nA: ", "the solutions are",
    "root is", "results are", "must be", "to", "=", ":", "**", "_", "my final answer -", "ANSWER", "anſwer", "ſolution is", " ", "5", "\t",
    "(x)", "thus", "ans:", "answers", "is", "will be",
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "pattern", "pieces"),
    [(numerals, numerals._NUMBER, NUMBERS), (statement, statement._MARKER, MARKERS)],
    ids=["number", "marker"],
)
def test_the_look_before_a_match_changes_none(module, pattern, pieces):
    rest, rng, count = re.compile(pattern.pattern.removeprefix(module._BEGINS), pattern.flags), random.Random(0), 0
    assert rest.pattern != pattern.pattern
    for _ in range(10_000):
        text = rng.choice(["", " "]).join(rng.choices(pieces, k=rng.randint(1, 12)))
        expected = [(match.span(), match.groupdict()) for match in rest.finditer(text)]
        assert [(match.span(), match.groupdict()) for match in pattern.finditer(text)] == expected, text
        count += len(expected)
    assert count > 10_000


BREAKS = [
    "the", " the ", " percent ", " am ", " pm ", "million ", " thousand ", " billion ", " trillion ", ";", "'", ">", "g", "K", "?", '"',
    "=", "<", "Step ", "1. ", "^", "ft^", "\\times", " x ", "-", "**",
]  # fmt: skip


def test_a_line_read_piece_by_piece_gives_the_number_of_the_whole(monkeypatch):
    rng = random.Random(0)
    texts = [rng.choice(["", " "]).join(rng.choices(NUMBERS + BREAKS, k=rng.randint(1, 20))) for _ in range(10_000)]
    by_pieces = [numerals.last_number(text) for text in texts]
    assert sum(bool(numerals._TO_LAST_BREAK.match(text)) for text in texts) > 5_000
    monkeypatch.setattr(numerals, "_TO_LAST_BREAK", re.compile("(?!)"))
    whole = [numerals.last_number(text) for text in texts]
    assert [text for text, one, other in zip(texts, by_pieces, whole, strict=True) if one != other] == []
    assert len(set(whole)) > 500


def test_so_many_numbers_are_looked_at():
    assert numerals.last_number("5 g " + "x_1 g " * 63) == "5"
    assert numerals.last_number("5 g " + "x_1 g " * 64) is None
