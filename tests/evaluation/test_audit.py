"""The audit of rewards: what it counts, what it finds too large, and that it names no alarm where there is none."""

import subprocess
import sys

import pytest

from jaxpolya.evaluation.audit import WATCHED, Tally, Watch, audit_samples, audit_steps, form_of, is_literal, summarise, warnings
from jaxpolya.records import Question, Sample
from jaxpolya.rollout.traces import Trace
from jaxpolya.verify.judge import Item
from jaxpolya.verify.pool import Pool

PRODUCT = Question(id="q", question="What is 97 * 49?", answer="4753")


def sample(response, extracted, verdict="correct", index=0, question=PRODUCT, step=None, **fields):
    return Sample(
        id=f"{question.id}-{step}#{index}", question_id=question.id, arm="rl", stage="rl", index=index, prompt="", response=response,
        token_ids=[1, 2], logprobs=[], finish="stop", seed=0, verdict=verdict, extracted=extracted, step=step, **fields,
    )  # fmt: skip


def tally(*samples, questions=(PRODUCT,), **settings):
    return Tally.of(samples, {question.id: question for question in questions}, **settings)


@pytest.fixture(scope="module")
def pool():
    with Pool(1) as pool:
        yield pool


@pytest.mark.parametrize(
    ("extracted", "response", "traits"),
    [
        ("4753", "The answer is 4753.", set()),
        ("4,753 apples", "The answer is 4,753 apples.", set()),
        ("97 * 49 = 4753", "The answer is 97 * 49 = 4753.", set()),
        ("97 * 49", "The answer is 97 * 49.", {"not_numbers", "not_literals", "in_question", "copied"}),
        (r"97\times49", r"The answer is $97\times49$.", {"not_numbers", "not_literals", "in_question", "copied"}),
        ("49 * 97", "The answer is 49 * 97.", {"not_numbers", "not_literals"}),
        ("97", "The answer is 97.", {"in_question", "copied"}),
        ("9", "The answer is 9.", set()),
        ("4753", r"The answer is 4752. No: \boxed{4753}", {"contradictory"}),
        ("4753", r"The answer is 97 * 49, so \boxed{4753}", set()),
        ("4753", r"The answer is 4753.0. So \boxed{\frac{9506}{2}}", set()),
    ],
)
def test_a_paid_answer_is_looked_at(extracted, response, traits):
    counts = tally(sample(response, extracted))
    assert (counts.paid, counts.numbers, counts.literals) == (1, 1, 1)
    assert {name for name in ("not_numbers", "not_literals", "contradictory", "in_question", "copied") if getattr(counts, name)} == traits


def test_two_letters_contradict_and_a_letter_with_its_text_does_not():
    which = Question(id="c", question="Which?", answer="B", verifier="choice", choices=["Paris", "Rome"])
    responses = ["The answer is (B) Rome. Answer: B", "The answer is Rome. Answer: B", "The answer is A. Answer: B"]
    assert [tally(sample(text, "B", question=which), questions=[which]).contradictory for text in responses] == [0, 0, 1]


def test_what_is_not_paid_is_not_looked_at():
    counts = tally(sample("The answer is 97 * 49.", "97 * 49", "wrong"), sample("", None, "unparseable", 1))
    assert (counts.responses, counts.tokens, counts.paid, counts.copied, counts.refused) == (2, 4, 0, 0, 0)


def test_what_was_refused_for_being_no_work_is_counted(pool):
    responses = ["The answer is 97 * 49.", "The answer is 4752.", "The answer is 4753."]
    verdicts = pool.verify(Item.of(PRODUCT, text, str(i)) for i, text in enumerate(responses))
    judged = [sample(text, v.extracted, v.verdict, i, detail=v.detail) for i, (text, v) in enumerate(zip(responses, verdicts, strict=True))]
    assert (tally(*judged).refused, tally(*judged).paid) == (1, 1)


def test_the_golds_own_literal_may_stand_in_the_question():
    which = Question(id="w", question="Which is larger, 3.50 or 3?", answer="3.5")
    counts = tally(sample("The answer is 3.50.", "3.50", question=which), questions=[which])
    assert (counts.in_question, counts.copied) == (1, 0)


@pytest.mark.parametrize(
    ("gold", "kind", "form", "literals", "others"),
    [
        ("12", "math", "number", ["12", "12.0", "24/2", "12 cm", r"\frac{24}{2}"], ["4*3", "x", "twelve"]),
        ("-1/3", "math", "number", [r"-\frac{1}{3}", "-2/6"], ["1-4/3"]),
        ("B", "choice", "letter", ["A"], ["Rome"]),
        (r"\text{east}", "math", "words", [r"\text{west}", r"\text{East}"], ["3+4"]),
        (r"\sqrt{53}", "math", "other", ["7", "x+1"], []),
        ("(3+4)*2", "reasoning_gym", "other", ["14"], []),
        ("12", "reasoning_gym", "number", ["12"], ["3*4"]),
        ("", "code", "other", ["print(1)"], []),
    ],
)
def test_literals_by_the_golds_form(gold, kind, form, literals, others):
    assert form_of(gold, kind) == form
    assert all(is_literal(answer, form) for answer in literals) and not any(is_literal(answer, form) for answer in others)


def test_groups_are_those_of_one_prompt():
    drawn = [
        sample(text, answer, "wrong", i) for i, (text, answer) in enumerate([("a 1", "1"), ("a 1", "1"), ("b 1.0", "1.0"), ("c", None)])
    ]
    counts = tally(*drawn, sample("alone", "1", slot=3))
    assert (counts.groups, counts.grouped, counts.distinct_responses, counts.distinct_answers) == (1, 4, 3, 1)
    assert tally(*drawn, greedy=True).groups == 0


def test_sums_are_the_counts_of_all():
    first, second = [sample("x", "97 * 49", step=0)], [sample("y", "4753", step=1), sample("z", "4753", step=1, index=1)]
    assert tally(*first) + tally(*second) == tally(*first, *second)
    assert Tally.from_json(tally(*second).to_json()) == tally(*second)


def test_a_sample_is_read_a_second_time(pool):
    hacked = [sample("The answer is 97 * 49.", "97 * 49", index=i) for i in range(4)]
    honest = [sample("Well. " * i + "The answer is 4753.", "4753", index=i) for i in range(4, 10)]
    part = audit_samples(hacked + honest, {"q": PRODUCT}, pool, "stage")["all"]
    assert (part["paid"], part["checked"], part["unconfirmed"], part["not_number"]) == (10, 10, 0.4, 0.4)
    assert part["examples"] == [f"q-None#{i}" for i in range(4)]
    words = warnings({"all": part})
    assert set(words) == {"not_number", "unconfirmed"}
    assert "40.0% of the 10 paid answers are no numbers" in words["not_number"] and "q-None#0" in words["unconfirmed"]
    assert warnings(audit_samples(honest, {"q": PRODUCT}, pool, "stage")) == {}


def test_traces_of_somebody_else_are_looked_at(pool):
    responses = ["The answer is 97 * 49.", "The answer is 4753.", "So the answer is 4753."]
    traces = [
        Trace(id=str(i), question_id="q", response=text, verdict="correct", extracted=text[14:-1]) for i, text in enumerate(responses)
    ]
    part = audit_samples([trace.as_sample() for trace in traces], {"q": PRODUCT}, pool, "traces")["all"]
    assert (part["paid"], part["unconfirmed"], part["examples"], part["distinct_responses"]) == (3, 1 / 3, ["0"], 3.0)
    assert "length" not in part, "their tokens are nobody's"


def test_programs_have_no_second_reading(pool):
    program = Question(id="p", question="Double.", answer="", verifier="code", tests=["assert f(1) == 2"])
    part = audit_samples([sample("def f(x): return 2*x", "def f(x): return 2*x", question=program)], {"p": program}, pool, "s")["all"]
    assert part["paid"] == 1 and not {"checked", "not_number", "not_literal"} & set(part)


def test_a_sum_of_steps_may_hide_what_the_last_ones_show(pool):
    def step(i):
        hacked = i >= 36
        answer = "97 * 49" if hacked else "4753"
        return [sample(f"The answer is {answer}." + " " * (0 if hacked else k), answer, index=k, step=i) for k in range(4)]

    audit = audit_steps([tally(*step(i)) for i in range(40)], step, {"q": PRODUCT}, pool, "rl")
    assert audit["all"]["paid"] == 160 and audit["first"]["paid"] == audit["last"]["paid"] == 40
    assert (audit["first"]["not_number"], audit["last"]["not_number"], audit["all"]["not_number"]) == (0.0, 0.4, 0.1)
    assert audit["last"]["unconfirmed"] == 0.4 and audit["all"]["unconfirmed"] == 0.2
    words = warnings(audit)
    assert set(words) == {"not_number", "unconfirmed"} and "of its last steps" in words["not_number"]
    assert set(audit_steps([tally(*step(39))], lambda _: step(39), {"q": PRODUCT}, pool, "rl")) == {"all"}
    assert warnings(audit_steps([], step, {"q": PRODUCT}, pool, "rl")) == {}


def test_groups_that_become_one_are_named():
    alike = summarise(tally(*(sample("same", "1", "wrong", i) for i in range(8))), (0, ()))
    apart = summarise(tally(*(sample(f"other {i % 3}", "1", "wrong", i) for i in range(8))), (0, ()))
    assert "the 8 responses to a question are 1.0 different ones" in warnings({"all": alike})["one_response"]
    assert warnings({"all": apart}) == {}


def test_a_reward_that_pays_something_else_more_than_being_right_is_named():
    def group(step, right, other):
        return [
            sample("a", "4753", index=0, step=step, reward=right), sample("b", "4753", index=1, step=step, reward=1.0),
            sample("c", "1", "wrong", index=2, step=step, reward=other), sample("d", None, "harness_error", index=3, step=step),
        ]  # fmt: skip

    sound = tally(*(each for step in range(9) for each in group(step, 0.5, 0.5)))
    assert (sound.contested, sound.inverted) == (9, 0) and warnings({"all": summarise(sound, (0, ()))}) == {}
    hacked = sound + tally(*(each for step in range(3) for each in group(step, 0.5, 0.6)))
    assert "in 25.0% of the 12 groups that hold right and other" in warnings({"all": summarise(hacked, (0, ()))})["inverted"]
    assert tally(*group(0, None, 0.6)).inverted == 0 and tally(sample("a", "4753"), sample("c", "1", "wrong", index=1)).contested == 0


def test_a_finding_is_said_once_while_a_stage_works():
    watch, hacked = Watch(3), tally(*(sample(f"The answer is 97 * 49. {i}", "97 * 49", index=i) for i in range(3)))
    notes = [watch.see({"audit": hacked.to_json()}) for _ in range(3 * WATCHED)]
    assert [bool(words) for words in notes] == [False] * (WATCHED - 1) + [True] + [False] * 2 * WATCHED


def test_the_audit_does_not_load_jax():
    code = "import sys; import jaxpolya.evaluation.audit; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
