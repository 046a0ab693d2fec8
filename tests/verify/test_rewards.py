"""Rewards that users bring: called by what they ask for, in a process of their own, and named where they fail."""

import asyncio
from pathlib import Path

import pytest

from jaxpolya import doors
from jaxpolya.errors import ConfigError
from jaxpolya.records import Question, Verdict
from jaxpolya.verify.kinds import parcel
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.rewards import Case, form_of, pay

EXAMPLE = Path(__file__).parents[2] / "examples" / "shaped_reward.py"


@pytest.fixture
def own(tmp_path):
    """A function (text, attribute) → what stands under that name in a file of that text."""

    def bring(text: str, attribute: str = "mine") -> doors.Plugin:
        (tmp_path / "own.py").write_text(text)
        return doors.bring(f"{tmp_path}/own.py:{attribute}", "rl.reward")

    return bring


@pytest.fixture(scope="module")
def pool():
    with Pool(1, deadline=30.0) as pool:
        yield pool


def cases(*responses: str) -> list[Case]:
    question = Question(id="q", question="?", answer="yes", entry={"weight": 2})
    right, wrong = Verdict(verdict="correct", extracted="yes"), Verdict(verdict="wrong", score=0.25)
    return [
        Case(question=question, response=text, verdict=right if text == "yes" else wrong, length=len(text), finish="stop")
        for text in responses
    ]


def paid(plugin: doors.Plugin, *responses: str, seconds: float = 30.0) -> list:
    with asyncio.Runner() as loop:
        return pay(form_of(plugin, "rl.reward"), cases(*responses), seconds, loop)


@pytest.mark.parametrize(
    ("text", "rewards"),
    [
        ("def mine(question, response, verdict): return verdict.reward * question.entry['weight']", [2.0, 0.5]),
        ("def mine(length, finish): return -length if finish == 'stop' else 0", [-3.0, -2.0]),
        ("def mine(verdict, scale=3): return scale * (verdict.verdict == 'correct')", [3.0, 0.0]),
        ("def mine(**given): return len(given)", [5.0, 5.0]),
        ("async def mine(response): return len(response)", [3.0, 2.0]),
        ("def mine(responses, verdicts): return [len(responses)] * len(verdicts)", [2.0, 2.0]),
        ("import numpy as np\ndef mine(lengths): return np.array(lengths) / 2", [1.5, 1.0]),
        ("async def mine(questions, finishes): return (1, 2)", [1.0, 2.0]),
        ("class mine:\n    def __call__(self, response): return 1", [1.0, 1.0]),
        ("import functools\ndef f(response, by): return by\nmine = functools.partial(f, by=7)", [7.0, 7.0]),
        ("class A:\n    async def __call__(self, response): return 1\nmine = A()", [1.0, 1.0]),
        ("class A(list):\n    def __call__(self, response): return 1\nmine = A()", [1.0, 1.0]),  # has no hash
    ],
)
def test_a_reward_says_itself_what_it_looks_at(own, text, rewards):
    assert paid(own(text), "yes", "no") == rewards


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine = 3", "is of type int, and something that can be called"),
        ("def mine(q, r, v): pass", r"has the parameter q, r, v; it is called by name, and may ask for question, response"),
        ("def mine(question, responses): pass", "has the parameter question"),
        ("def mine(response, /): pass", "has the parameter response"),
        ("def mine(*responses): pass", "has the parameter responses"),
        ("def mine(): pass", "asks for nothing"),
        ("def mine(scale=1): pass", "asks for nothing"),
        ("class mine:\n    def __init__(self, x): pass", r"\(\) failed"),
    ],
)
def test_what_cant_be_a_reward_is_a_sentence(own, text, message):
    with pytest.raises(ConfigError, match=rf"^rl\.reward: own\.py:mine.*{message}"):
        form_of(own(text), "rl.reward")


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("def mine(response): return {'yes': 1}[response]", [1.0, "raised KeyError: 'no'"]),
        ("async def mine(response): return {'yes': 1}[response]", [1.0, "raised KeyError: 'no'"]),
        ("def mine(response): return float('nan') if response == 'no' else 2", [2.0, "gave nan, which is not a finite number"]),
        ("def mine(lengths): return [float('inf'), 1]", ["gave inf, which is not a finite number", 1.0]),
        ("def mine(response): return None", ["gave a NoneType; a number was expected"] * 2),
        ("def mine(response): return '1'", ["gave a str; a number was expected"] * 2),
        ("def mine(response): return 10 ** 400", ["gave a int; a number was expected"] * 2),
        ("def mine(responses): return 1", ["gave a int for a group; a list of numbers was expected"] * 2),
        ("def mine(responses): return [1]", ["gave 1 numbers for 2 responses"] * 2),
        ("def mine(responses): raise ValueError('x')", ["raised ValueError: x"] * 2),
        ("import asyncio\nasync def mine(response): await asyncio.sleep(response == 'no' and 9)", ["gave a NoneType", "nothing in 0.2 s"]),
        ("async def mine(response): raise TimeoutError", ["raised TimeoutError: "] * 2),
    ],
)  # fmt: skip
def test_what_is_no_reward_is_said_of_the_responses_it_concerns(own, text, trouble):
    payments = paid(own(text), "yes", "no", seconds=0.2)
    for payment, expected in zip(payments, trouble, strict=True):
        if isinstance(expected, float):
            assert payment == expected
        else:
            assert payment.startswith("the reward own.py:mine ") and expected in payment


def test_the_pool_survives_it(own, pool, monkeypatch):
    text = (
        "import os, time, asyncio\n"
        "def plain(response): return len(response)\n"
        "def dies(response): os._exit(3)\n"
        "def hangs(response):\n    while True: pass\n"
        "async def blocks(response): time.sleep(1e6)\n"
        "def hidden(response): return os.environ['JAX_PLATFORMS'] == 'cpu'\n"
    )

    def asked(attribute: str) -> list:
        plugin = own(text, attribute)
        return pool.submit_reward(form_of(plugin, "k"), parcel(plugin), cases("yes", "no")).result()

    assert asked("plain") == [3.0, 2.0] and asked("hidden") == [1.0, 1.0], "the accelerator is the trainer's"
    assert asked("dies") == ["the reward own.py:dies: the verifier process died twice"] * 2
    monkeypatch.setattr(pool, "deadline", 0.3)
    for attribute, seconds in (("hangs", 0.6), ("blocks", 0.6)):
        assert asked(attribute) == [f"the reward own.py:{attribute} gave nothing in {seconds} s (verify.deadline)"] * 2
    monkeypatch.setattr(pool, "deadline", 30.0)
    plugin = own(text, "plain")
    (Path(plugin.reference.rpartition(":")[0])).write_text(text + "# edited\n")
    pool._hands[0].drop()  # a worker that starts now reads the file anew
    payments = pool.submit_reward(form_of(plugin, "k"), parcel(plugin), cases("yes")).result()
    assert "own.py:plain was changed since this run began" in payments[0]
    (Path(plugin.reference.rpartition(":")[0])).unlink()
    pool._hands[0].drop()
    assert "own.py is not a file" in pool.submit_reward(form_of(plugin, "k"), parcel(plugin), cases("yes")).result()[0]


def test_the_examples_pay_what_they_say():
    shaped = doors.bring(f"{EXAMPLE}:shaped", "rl.reward")
    assert paid(shaped, "yes", "no \\boxed{x}") == pytest.approx([1 - 0.0006, 0.25 + 0.1 - 0.2 * 0.012])
    assert paid(doors.bring(f"{EXAMPLE}:briefest", "rl.reward"), "yes", "no", "yes") == [1.5, 0.0, 1.5]
