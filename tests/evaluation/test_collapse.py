"""Collapse: what it is told from, what isn't one, and that it is said once, by everyone alike."""

import pytest

from jaxpolya.evaluation.audit import Watch, warnings
from jaxpolya.evaluation.collapse import ENDS, collapse_words, collapsed, first_collapse, vendi_of_round
from jaxpolya.records import Sample

GROUP = 16


def steps(distinct, entropy, reward):
    rows = zip(distinct, entropy, reward, strict=True)
    return [{"step": i, "distinct_responses": d, "entropy": e, "reward": r} for i, (d, e, r) in enumerate(rows)]


def falling(last=1.0, count=20):
    """From 10 different responses of 16 to one, as a run that had found a way to be paid: the reward rises all the while."""
    along = [i / (count - 1) for i in range(count)]
    return steps([10 + (last - 10) * t for t in along], [1.2 - 1.1 * t for t in along], [0.1 + 0.8 * t for t in along])


def test_a_collapse_is_seen_while_the_reward_rises():
    rows = falling()
    collapse = first_collapse(rows, GROUP)
    assert collapsed(rows, GROUP) and collapse["step"] < 19
    assert collapsed(rows[: collapse["step"]], GROUP) is None and collapsed(rows[: collapse["step"] + 1], GROUP) == collapse
    words = collapse_words(collapse)
    for part in ("of the 16 responses", "9.5 differed", "paid responses", "rl.kl", "rl.entropy_bonus", "rl.clip_high", "fewer steps"):
        assert part in words
    assert collapse["reward"][1] > collapse["reward"][0] and collapse["entropy"][1] < collapse["entropy"][0]


@pytest.mark.parametrize(
    "rows",
    [
        steps([1.0] * 20, [0.1] * 20, [0.5] * 20),  # they were one from the start
        steps([10.0] * 20, [1.2 - i / 20 for i in range(20)], [0.5] * 20),  # surer of itself, and as varied
        steps([10.0 - i / 2 for i in range(19)] + [1.0], [1.2] * 20, [0.5] * 20),  # alike in one step only
        falling(last=4.0),
        falling(count=2 * ENDS - 1),
        [{"step": i, "reward": 0.5, "entropy": 1.0} for i in range(20)],  # of a version that didn't count
    ],
)
def test_what_is_none(rows):
    assert first_collapse(rows, GROUP) is None


def test_it_is_said_once_and_after_a_resumption_not_again():
    rows = falling()
    watch = Watch(GROUP)
    notes = [words for row in rows for words in watch.see(row)]
    assert len(notes) == 1 and notes[0].startswith("the policy has collapsed")
    later = Watch(GROUP, rows[:-1])
    assert [words for row in rows[-1:] for words in later.see(row)] == []


def test_an_audit_with_a_collapse_says_it_in_the_place_of_less():
    part = {"responses": 64, "paid": 60, "groups": 4, "group": 16.0, "distinct_responses": 1.0, "distinct_answers": 1.0}
    assert list(warnings({"all": part})) == ["one_response"]
    assert list(warnings({"all": part, "collapse": first_collapse(falling(), GROUP)})) == ["collapse"]


def test_vendi_of_a_round():
    def samples(texts):
        common = {"arm": "rl", "stage": "rl", "prompt": "p", "token_ids": [1], "logprobs": [-1.0], "finish": "stop", "seed": 0}
        return [Sample(id=str(i), question_id="q", index=i, response=text, **common) for i, text in enumerate(texts)]

    assert vendi_of_round(samples(["add them"] * 4), 2) == pytest.approx(1)
    assert vendi_of_round(samples(["one two", "three four", "add them", "add them"]), 2) == pytest.approx(1.5)
