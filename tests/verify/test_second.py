"""The second reading: it finds what a plain reader finds, and nobody's arithmetic is done for them."""

import json
from pathlib import Path

import pytest
from growth import assert_linear

from jaxpolya.verify.judge import Item
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.second import confirms, is_number, read, readings

ORACLES = Path(__file__).resolve().parents[3] / "shared" / "oracles" / "verifier"


def agrees(response, gold, kind="math", choices=None):
    answer = read(response, kind, gold)
    return answer is not None and confirms(gold, kind, choices, answer)


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("12", "The answer is 3 * 4 = 12 apples."),
        ("12", "So the answer is 6 * 2, \\boxed{12}"),
        ("72", "**Answer:** 72 clips in 2 months"),
        ("42", "Final answer:\n42"),
        ("42", "Adding up.\n#### 42"),
        ("42", "<answer>42</answer>"),
        ("42", "I add them and get\n42"),
        ("7", "There are 4 apples and 3 pears, so 7 fruits."),
        ("7", "The answer is 7 fruits, of which 3 are pears."),
        ("-5", "Answer: −5"),
        ("1234567", "The answer is $1,234,567."),
        ("2.5", r"The answer is 2\frac{1}{2}."),
        ("2.5", "The answer is 2 1/2 cups."),
        (r"36^\circ", r"\boxed{36^{\circ}}"),
        (r"36^\circ", "The answer is 36 degrees."),
        (r"15\mbox{ cm}^2", r"\boxed{15\text{ cm}^2}"),
        ("x+1", "<reasoning>x+2</reasoning>The answer is x+1<|im_end|>"),
        ("42", "<think>The answer is 41.</think>\n\n42</s>"),
        ("1500", r"\boxed{1.5\times10^3}"),
        ("0.25", "The answer is 25%."),
        ("25", "The answer is 25%."),
        (r"\frac{3}{4}", r"$\boxed{\frac{6}{8}}$"),
        ("x+1", r"The answer is $\boxed{1+x}$."),
        ("(1,2)", r"The answer is $(1,2)$, because it is."),
        ("east", "The answer is East."),
    ],
)
def test_what_a_plain_reader_agrees_with(gold, response):
    assert agrees(response, gold)


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("4753", "The answer is 97 * 49."),
        ("4753", r"\boxed{97\cdot 49}"),
        ("49", "So it is 97 * 49."),
        ("20", "The answer is (4)(5)."),
        ("3", "The answer is 5 - 2."),
        ("12", "The answer is 48/4."),
        ("16", r"\boxed{\sqrt{16}}"),
        ("5", "The answer is 2 + 3, five of them."),
        ("42", "The answer is 42. The answer is 43."),
        ("42", "<think>42</think>"),
        ("14", "A: 1.4"),
        ("x+1", "The answer is x + 2."),
        ("east", "The answer is east or west."),
        ("42", ""),
    ],
)
def test_what_no_plain_reader_agrees_with(gold, response):
    assert not agrees(response, gold)


@pytest.mark.parametrize(
    ("gold", "response", "agree"),
    [
        ("B", "The answer is B.", True),
        ("B", "The answer is (B) Rome.", True),
        ("B", "Answer: Rome", True),
        ("B", "The correct option is **B**.", True),
        ("A", "Answer: A lie", True),
        ("B", "Answer: A lie", False),
        ("B", "It may be A or B. Answer: A", False),
    ],
)
def test_choices(gold, response, agree):
    assert agrees(response, gold, "choice", ["A lie", "Rome", "Oslo"]) == agree


def test_all_that_a_response_says_is_read():
    assert readings("The answer is 41. No, the answer is 42.", "math", "42") == ["41", "42"]
    assert readings(r"The answer is 7 * 6, so \boxed{42}.", "math", "42") == [None, "42"]
    assert readings(r"The answer is $\boxed{42}$.", "math", "42") == ["42"]


@pytest.mark.parametrize(
    "text",
    [
        "7",
        "-7",
        "7.50",
        "1,234",
        "3/4",
        r"-\frac{3}{4}",
        "1 1/2",
        r"2\frac{1}{2}",
        "50%",
        "$5",
        r"5\%",
        "1e9",
        r"36^\circ",
        "36°",
        r"15\mbox{ cm}^2",
    ],
)
def test_numbers(text):
    assert is_number(text)


@pytest.mark.parametrize("text", ["7 * 8", "7+8", r"\sqrt{2}", "x", "1, 2", "2:30", "seven", "", "7 apples", r"\pi", "5!", "2^{10}"])
def test_no_numbers(text):
    assert not is_number(text)


def test_the_pool_reads_a_second_time_beside_its_verdicts():
    copied = Item(id="x", kind="math", response=r"\boxed{18}", answer="18")
    with Pool(1) as pool:
        for response, first, second in (
            (r"\boxed{18}", "correct", "correct"),
            (r"The answer is 17. \boxed{18}", "correct", "correct"),
            (r"\boxed{19}", "wrong", "wrong"),
            ("Eighteen.", "unparseable", "unparseable"),
        ):
            item = Item(**(vars(copied) | {"response": response}))
            verdicts = pool.verify([item, Item(**(vars(item) | {"second": True}))])
            assert [verdict.verdict for verdict in verdicts] == [first, second]


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "answer is ", "the answer ", "{}", "A:\n", "1,", "1,111", "answer is - ", "\\boxed{{{{", "answer is x ", "= 1 "]
)
def test_hostile_responses_are_read_in_linear_time(piece):
    for gold in ("42", "x"):
        assert_linear(lambda size, gold=gold: readings("\\boxed{" + piece * (size // len(piece)), "math", gold), 100_000, gold)


@pytest.mark.skipif(not ORACLES.exists(), reason="the shared verdicts are not here")
def test_it_agrees_with_published_labels():
    rows = [json.loads(line) for line in (ORACLES / "gsm8k_model_solutions.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "A:" in row["response"]]
    assert len(rows) > 5000
    for row in rows:
        assert agrees(row["response"], row["gold"]) == row["verdict"], row["id"]
