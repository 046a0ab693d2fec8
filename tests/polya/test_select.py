"""What becomes fine-tuning data, on samples written by hand."""

import pytest

from jaxpolya.errors import RunError
from jaxpolya.polya.select import by_question, cap_questions, match_arms, star_rows
from jaxpolya.records import Sample, SftRow


def sample(index: int, slot: int | None = 0, tokens=None, verdict="correct", finish="stop", question="q") -> Sample:
    tokens = tokens if tokens is not None else list(range(100 * index, 100 * index + 12))
    return Sample(
        id=f"{question}/{slot}#{index}", question_id=question, arm="polya", stage="generate", index=index, prompt="p", response=f"r{index}",
        token_ids=tokens, logprobs=[], finish=finish, seed=0, slot=slot, verdict=verdict,
    )  # fmt: skip


def test_truncated_and_wrong_responses_are_no_candidates():
    samples = [sample(0), sample(1, verdict="wrong"), sample(2, finish="length"), sample(3, question="other")]
    assert {q: [s.index for s in of_question] for q, of_question in by_question(samples, "correct").items()} == {"q": [0], "other": [3]}
    assert [s.index for s in by_question(samples, "wrong")["q"]] == [1]


def test_star_keeps_one_a_question():
    assert star_rows({"q": [sample(3, None), sample(4, None)]}, lambda chosen, adherence: (chosen.id, adherence)) == [("q/None#3", None)]


def test_the_cap_is_one_draw_for_all_arms():
    candidates = {"polya": [f"q{i}" for i in range(20)], "star": [f"q{i}" for i in range(5, 30)]}
    chosen = cap_questions(candidates, 6, seed=1)
    assert chosen is not None and len(chosen) == 6 and chosen <= {f"q{i}" for i in range(5, 20)}
    assert chosen == cap_questions(candidates, 6, seed=1) != cap_questions(candidates, 6, seed=2)
    assert cap_questions(candidates, None, seed=1) is None


def row(tokens: int, name: str) -> SftRow:
    return SftRow(question_id=name, prompt="p", response="x" * tokens)


def test_arms_are_matched_in_instances_or_tokens():
    arms = {"polya": [row(10, f"a{i}") for i in range(8)], "star": [row(20, f"b{i}") for i in range(3)]}
    length = lambda r: len(r.response)  # noqa: E731
    assert {arm: len(rows) for arm, rows in match_arms(arms, "instances", length, 0).items()} == {"polya": 3, "star": 3}
    matched = match_arms(arms, "tokens", length, 0)
    assert {arm: sum(map(length, rows)) for arm, rows in matched.items()} == {"polya": 60, "star": 60}
    assert matched == match_arms(arms, "tokens", length, 0)


def test_a_budget_that_no_row_fits_is_named():
    with pytest.raises(RunError, match="the star arm has only 20 tokens, and no row of the polya arm is that short"):
        match_arms({"star": [row(20, "a")], "polya": [row(40, "b")]}, "tokens", lambda r: len(r.response), 0)
