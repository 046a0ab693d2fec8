"""Exactly one choice, stated once, or nothing."""

import pytest
from growth import assert_linear

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


BIRDS = ["heron", "wren", "a red kite", "12 owls"]


@pytest.mark.parametrize(
    "response",
    [
        # Hedges, lists of everything, and statements that contradict each other.
        "The answer is A or B.", "The answer is either B or C.", "Answer: A, B", "Answer: A/B/C/D", "Answer: (A) (B)", "Answer: B and C",
        "Answer: wren or heron", "<answer>A or B</answer>", r"\boxed{A \text{ or } B}", r"\boxed{A}\boxed{B}", r"\boxed{ABCD}",
        "Answer: A\nAnswer: B\nAnswer: C", "The answer is B. On reflection, the answer is C.", "Answer: B. The answer is A or B.",
        "The correct option is A. Answer: B", "B is the correct answer. Answer: A", r"\boxed{B} Answer: C",
        # Denials, doubts and conditions.
        "The answer is not B.", "The answer isn't B.", "Answer: not B", "Answer: B?", "Answer: neither A nor B",
        "Answer: B, but A is likely",
        "B is not the answer.", "Option B is wrong.", "If B is correct, so is A.", "If I choose B, it flies.", "I would not choose B.",
        # A letter with another choice's text.
        "Answer: B) heron", "Answer: B. heron", "B. heron\n\nIt is grey.", "Answer: heron (B)",
        # Letters and texts in prose, and lists of the options.
        "Vitamin B helps.", "I saw a wren.", "A. heron\nB. wren\nC. a red kite\nD. 12 owls", "A) The heron wades.\nB) wren", "A\nB\nC\nD",
        "heron, wren, a red kite, 12 owls", "B\n\nThinking it over.\n\nC", "B\n\nIt is small. So it's C.", "heron\n\nSo the bird is wren.",
        # Statements of nothing.
        "The answer is the answer.", "The answer is one of the options.", "Answer: all of them", "Answer: E", "The answer is a bird.",
        "<think>The answer is B.", "Antwort: B", "#### Option B", r"Answer: B \boxed{",
    ],
)  # fmt: skip
def test_no_single_choice(response):
    assert extract(response, BIRDS) is None


@pytest.mark.parametrize(
    "response",
    [
        # What can't be read says nothing.
        "The answer is plain to see. Answer: B", r"Its wings are \boxed{7} cm. Answer: B", r"From \boxed{12} follows \boxed{B}.",
        "Answer: see below.\n\nThe answer is B.", "The answer is B. The answer is the smallest one.",
        "What the answer is: let's see. Answer: B",
        "The answer is the bird that sings. So the answer is B.", "The answer must be either A or B.\nIt sings: the answer is B.",
        "The answer is either A or B. It sings, so the answer is B.", "The answer is B. A and C are too large.",
        "Answer: B\n\nA. heron: too large.\nC. a red kite is too large.", "Answer: B\nC. a red kite is too large.",
        # Headings and labels of options are no answers.
        "#### Candidate: heron\nToo large.\n\nThe answer is B.", "A: heron\nB: wren\nC: a red kite\n\nAnswer: B",
        "**A: heron** wades.\n**B: wren** sings.\n\n**Answer: B**", "A. The heron wades.\nB. The wren sings.\nAnswer is B.",
        "Q: Who sings?\nA: B",
        # Mark-up.
        r"\boxed{\text{(B) wren}}", r"\boxed{\textbf{(B)}\ wren}", r"\boxed{\mathrm{B}}", r"\boxed{\textrm{B. wren}}", r"\boxed{[B]}",
        r"\boxed{\text{Option B}}", r"Answer: \(B\)", r"Answer: \[B\]", "Answer: [B]", "Answer: (**B**)", "Answer: {B}", "Answer: <b>B</b>",
        "Answer：B", "Answer: （B）", 'Answer: "B"', "Answer: B ✅",
        # Wordings.
        "The correct option is B", "So the correct choice is (B).", "Right option: **B**", "I would go with B.",
        "Option B is the right answer.",
        "The answer must be B.", "The answer would be (B).", "## Answer\nB", "**Final Answer**\n\n(B) wren",
        '{"why": "song", "answer": "B"}',
        "Answer: B (wren)", "Answer: B, wren", "Answer: **B** wren", "Answer: wren (B)", "Answer: B: wren", "Answer: b", "Answer: B - wren",
        "Answer: B because A wades.", "Answer: B. The heron wades.", "The answer is B, since it sings.", "The answer is therefore B.",
        "The answer to the riddle is B.", "Answer: The bird is the wren.", "Answer: B) wren, because it sings",
        # Where nothing is stated: a line at the beginning or end, "B is correct", "so B".
        "B\n\nIt sings.", "b\n\nIt sings.", "**B. wren**\n\nIt sings.", "(B) wren: it sings", "It sings.\n\n(B) wren", "It sings.\nB",
        "wren\n\nIt sings.",
        "Option B is correct.", "It sings. So it's B.", "It sings. Therefore, (B).", "B\n\nA is wrong since it wades.",
        # Turns and thoughts.
        "<|im_start|>assistant\nAnswer: B<|im_end|>", "[THINK]Answer: A[/THINK]Answer: B", "<thinking>A\nor B</thinking>B",
    ],
)  # fmt: skip
def test_one_choice(response):
    assert extract(response, BIRDS) == "B"


@pytest.mark.parametrize(
    "piece",
    ["Answer: B ", "\\boxed{B}", "B\n", "A. x\n", "so B ", "I pick B. ", "B is correct\n", "B is the answer\n", "A, B ", "(", " ", "wren ",
     "The correct option is ", "Answer: B. "],
)  # fmt: skip
def test_time_is_linear(piece):
    assert_linear(lambda size: extract(piece * (size // len(piece)), BIRDS), 60_000)


def test_gold_is_a_letter_or_a_choice():
    assert letter_of("c", CHOICES) == "C"
    assert letter_of("ana", CHOICES) == "B"
    assert letter_of("Anna", CHOICES) is None


def test_equal_choices_are_told_apart_by_letter_only():
    assert extract("Answer: same", ["same", "same"]) is None
    assert extract("Answer: B", ["same", "same"]) == "B"


@pytest.mark.parametrize(
    "response",
    [
        r"\boxed{A. Ann Lee; B. Bob Ray; C. Cid}",
        "The answer is A. Ann Lee; B. Bob Ray; C. Cid.",
        "The answer is A. Ann Lee\nB. Bob Ray\nC. Cid.",
        "The answer is A. Ann Lee\n\nB. Bob Ray\n\nC. Cid.",
        "<answer>A. Ann Lee\nB. Bob Ray\nC. Cid</answer>",
        "Answer: (A) Ann Lee (B) Bob Ray (C) Cid",
    ],
)
def test_a_list_of_the_choices_names_none(response):
    assert extract(response, ["Ann Lee", "Bob Ray", "Cid"]) is None


@pytest.mark.parametrize(
    "response",
    ["The answer is A. Bob Ray.", r"\boxed{A. Bob Ray}", "#### A. Bob Ray", "<answer>A. Bob Ray</answer>", "Answer: (A) Bob Ray"],
)
def test_a_letter_and_the_text_of_another_choice_name_none(response):
    assert extract(response, ["Ann Lee", "Bob Ray", "Cid"]) is None


@pytest.mark.parametrize(
    "text",
    ["The answer is B as well as C.", "The answer is B\nor C.", "Answer: B. Or C", "Answer: B\nC", "The answer is A (Rome).", "[A. Rome]",
     "B\nor C", "The correct option is B\nor C."],
)  # fmt: skip
def test_a_second_choice_beside_the_first_is_no_answer(text):
    assert extract(text, ["Paris", "Rome", "Oslo"]) is None


@pytest.mark.parametrize(
    "box", [r"\operatorname{B}", r"\large B", r"\Large\text{B}", r"\mathcal{B}", r"\displaystyle B", r"\color{red}{B}"]
)
def test_fonts_sizes_and_colours_say_nothing(box):
    assert extract(rf"\boxed{{{box}}}", ["Paris", "Rome", "Oslo"]) == "B"
