"""The pool: verdicts whatever the worker meets, and nothing left behind."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from jaxpolya.errors import InputError
from jaxpolya.records import Question
from jaxpolya.verify.judge import Item, judge, judge_answer, plain_verdict
from jaxpolya.verify.pool import Pool, _Hand, _Late, _Process


def item(response: str, answer: str = "42", **fields) -> Item:
    return Item(id="x", kind=fields.pop("kind", "math"), response=response, answer=answer, **fields)


@pytest.fixture(autouse=True)
def all_go_to_workers(monkeypatch):
    """Numbers too, which need none: what workers meet is what most tests here are about."""
    monkeypatch.setattr("jaxpolya.verify.pool.plain_verdict", lambda item, answer: None)


@pytest.fixture(scope="module")
def pool():
    with Pool(2, deadline=60.0) as pool:
        pool.verify([item(r"\boxed{0}")])
        yield pool


def test_verdicts_come_in_order(pool):
    answers = [str(number) for number in range(200)]
    verdicts = pool.verify(item(rf"\boxed{{{answer}}}", "42") for answer in answers)
    assert [verdict.extracted for verdict in verdicts] == answers
    assert [verdict.verdict for verdict in verdicts].index("correct") == 42
    assert sum(verdict.verdict == "correct" for verdict in verdicts) == 1


def test_the_pool_says_what_judge_says(pool):
    items = [
        item(r"\boxed{x+1}", "1+x"),
        item("no answer"),
        item("The answer is B", "B", kind="choice", choices=["x", "y"]),
        item(r"\boxed{2^{10^9}}"),
    ]
    assert (
        [verdict.verdict for verdict in pool.verify(items)]
        == [judge(each).verdict for each in items]
        == ["correct", "unparseable", "correct", "wrong"]
    )


@pytest.mark.parametrize("gold", ["0", "7", "-12", "42", "1000", "999999999999999999"])
@pytest.mark.parametrize("answer", ["0", "7", "-7", "12", "-12", "-0", "042", "42", "42.0", "1,000", "1000", "999999999999999999", "x"])
@pytest.mark.parametrize("extraction", ["statement", "number"])
def test_what_takes_no_comparator_is_judged_as_by_one(gold, answer, extraction):
    asked = item("", gold, extraction=extraction, question=f"What is {gold}, and what is 7 less {answer}?")
    plain, compared = plain_verdict(asked, answer), judge_answer(asked, answer)
    assert (plain is None) == (answer in ("-0", "042", "42.0", "1,000", "x"))
    assert plain is None or plain == dataclasses.replace(compared, seconds=0.0)


@pytest.mark.parametrize(("gold", "answer"), [("B", "A"), ("B", "B"), ("y", "B"), ("y", "A")])
def test_letters_take_no_comparator(gold, answer):
    asked = item("", gold, kind="choice", choices=["x", "y"])
    assert plain_verdict(asked, answer) == dataclasses.replace(judge_answer(asked, answer), seconds=0.0)
    assert plain_verdict(dataclasses.replace(asked, second=True), answer) is None


def test_numbers_need_no_worker(monkeypatch):
    monkeypatch.setattr("jaxpolya.verify.pool.plain_verdict", plain_verdict)
    asked, ask = [], _Process.ask
    monkeypatch.setattr(_Process, "ask", lambda self, message, limit: asked.append(message) or ask(self, message, limit))
    with Pool(1) as pool:
        verdicts = pool.verify([item(r"\boxed{42}"), item(r"\boxed{41}")])
    assert not any("item" in message or "together" in message for message in asked)
    assert [(verdict.verdict, verdict.extracted) for verdict in verdicts] == [("correct", "42"), ("wrong", "41")]


def test_gym_entries_are_judged(pool):
    entry = {"question": "1+1?", "answer": "2", "metadata": {"source_dataset": "chain_sum"}}
    verdicts = pool.verify(
        [item("<answer>2</answer>", kind="reasoning_gym", entry=entry, extraction="tag"), item("#### 3", kind="reasoning_gym", entry=entry)]
    )
    assert [verdict.verdict for verdict in verdicts] == ["correct", "wrong"]
    broken = pool.verify([item("#### 3", kind="reasoning_gym", entry={"metadata": {"source_dataset": "nosuch"}})])[0]
    assert broken.verdict == "harness_error" and "nosuch" in broken.detail


def test_items_without_a_possible_verdict_are_refused(pool):
    for bad in (
        item("x", kind="code"),
        item("x", ""),
        item("x", kind="choice"),
        item("x", "Z", kind="choice", choices=["a"]),
        item("x", kind="reasoning_gym"),
    ):
        with pytest.raises(InputError):
            pool.submit(bad)


def test_item_of_a_question_has_its_reference():
    question = Question(id="q", question="?", answer="B", verifier="choice", extraction="boxed", choices=["x", "y"])
    made = Item.of(question, "r", "s")
    assert (made.id, made.kind, made.response, made.answer, made.extraction, made.choices) == ("s", "choice", "r", "B", "boxed", ["x", "y"])


def test_a_worker_that_passes_the_deadline_is_killed_and_replaced():
    with Pool(1, deadline=3.0) as pool:
        pool.verify([item(r"\boxed{0}")])
        stopped = pool._hands[0].process.child.pid
        os.kill(stopped, signal.SIGSTOP)
        start = time.monotonic()
        late, after = pool.submit(item(r"\boxed{42}")), pool.submit(item(r"\boxed{42}"))
        assert late.result().verdict == "timeout"
        assert 3.0 <= time.monotonic() - start < 60  # on a busy machine its end is noticed late
        assert after.result().verdict == "correct"  # the time-out was not cached
        assert not Path(f"/proc/{stopped}").exists()


def test_a_batch_that_is_late_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("jaxpolya.verify.pool.START_LIMIT", 0.2)
    with Pool(1, deadline=0.1) as pool:
        stuck = Future()
        (verdict,) = pool.results([stuck])
        assert verdict.verdict == "harness_error" and "batch's deadline" in verdict.detail and stuck.cancelled()


def test_a_killed_worker_loses_no_item(monkeypatch):
    kills, ask = iter(range(3)), _Process.ask

    def killed_at_times(self, message, limit):
        if ("item" in message or "together" in message) and self.items > 100 and next(kills, None) is not None:
            self.kill()  # between two kills the fresh worker has answered the item that the last one interrupted
        return ask(self, message, limit)

    monkeypatch.setattr(_Process, "ask", killed_at_times)
    with Pool(1, deadline=60) as pool:
        verdicts = [verdict.verdict for verdict in pool.verify(item(rf"\boxed{{{number}}}", "1") for number in range(1000))]
    assert next(kills, None) is None
    assert verdicts.count("correct") == 1 and verdicts.count("wrong") == 999


def test_what_stops_a_worker_is_blamed_on_no_neighbour(monkeypatch):
    """Sent together with others, a response that is late is late, and the others get the verdicts that they get alone."""
    ask, together = _Process.ask, []

    def late(self, message, limit):
        together.append(len(message.get("together", [])))
        if "bad" in json.dumps(message):
            raise _Late
        return ask(self, message, limit)

    monkeypatch.setattr(_Process, "ask", late)
    items = [item(rf"\boxed{{{'bad' if number == 7 else number}}}", "3") for number in range(40)]
    with Pool(1, deadline=60) as pool:
        verdicts = [verdict.verdict for verdict in pool.verify(items)]
    assert max(together) > 7
    assert verdicts == ["correct" if number == 3 else "timeout" if number == 7 else "wrong" for number in range(40)]


def test_a_response_that_kills_its_worker_twice_is_a_crash(monkeypatch):
    ask = _Process.ask

    def killed(self, message, limit):
        if "item" in message:
            self.kill()
        return ask(self, message, limit)

    with Pool(1, deadline=60) as pool:
        pool.verify([item(r"\boxed{0}")])
        with monkeypatch.context() as patch:
            # The worker is killed before each item, which looks the same to the pool as an item that kills it.
            patch.setattr(_Process, "ask", killed)
            assert pool.verify([item(r"\boxed{41}")])[0].verdict == "crash"
        assert pool.verify([item(r"\boxed{42}")])[0].verdict == "correct"


def test_where_no_worker_starts_it_is_our_fault():
    with Pool(1, memory_mb=16) as pool:
        verdict = pool.verify([item(r"\boxed{42}")])[0]
    assert verdict.verdict == "harness_error" and verdict.reward is None and "exit" in verdict.detail


def test_known_answers_are_not_judged_again(pool):
    first, second = pool.verify([item(r"\boxed{7\cdot 6}")])[0], pool.verify([item(r"so we get \boxed{7\cdot 6}")])[0]
    assert first is second


def test_what_is_right_in_one_style_is_not_remembered_for_another(pool):
    styles = ("statement", "number")  # one after the other: the first verdict is known when the second is asked for
    verdicts = [pool.verify([item("The answer is 5%", "5", question="How much?", extraction=style)])[0] for style in styles]
    assert [verdict.verdict for verdict in verdicts] == ["wrong", "correct"]


def test_many_threads_may_submit(pool):
    results: dict[int, list[str]] = {}

    def work(thread: int) -> None:
        results[thread] = [
            verdict.verdict for verdict in pool.verify(item(rf"\boxed{{{thread}{number}}}", f"{thread}7") for number in range(50))
        ]

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(verdicts.count("correct") == 1 and verdicts[7] == "correct" for verdicts in results.values())


CLOSING = r"""
import os
from pathlib import Path

from jaxpolya.verify.judge import Item
from jaxpolya.verify.pool import Pool


def left():
    return sorted(os.listdir("/proc/self/fd")), Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def item(number):
    return Item(id="x", kind="math", response=rf"\boxed{{{number}.5}}", answer="42.5")


left()
before, pool = left(), Pool(2)
pending = [pool.submit(item(number)) for number in range(500)]
pool.close()
assert all(future.done() for future in pending)
assert left() == before, (left(), before)
try:
    pool.submit(Item(id="x", kind="math", response=r"\boxed{1}", answer="42"))
except RuntimeError:
    print("closed")
"""


def test_closing_leaves_nothing():
    # In a process of its own: this one has other threads, which open files and end as they like.
    result = subprocess.run([sys.executable, "-c", CLOSING], check=False, capture_output=True, text=True, timeout=600)
    assert result.stdout == "closed\n", result.stderr


def test_making_a_pool_waits_for_nothing(monkeypatch):
    go, ready = threading.Event(), _Hand.ready

    def held(self, needs, message):
        assert go.wait(60), "the workers were waited for"
        return ready(self, needs, message)

    monkeypatch.setattr(_Hand, "ready", held)
    with Pool(2, deadline=60) as pool:
        assert not any(hand.process for hand in pool._hands)
        go.set()
        assert pool.verify([item(r"\boxed{42}")])[0].verdict == "correct"


def test_workers_leave_when_their_parent_is_killed():
    code = (
        "import time; from jaxpolya.verify.pool import Pool; pool = Pool(1)\n"
        "while not (pool._hands[0].process and 'math' in pool._hands[0].process.prepared): time.sleep(0.05)\n"
        "print(pool._hands[0].process.child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(600):
        if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]:
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent by a minute")


def test_a_worker_ignores_ctrl_c(pool):
    for hand in pool._hands:
        os.kill(hand.process.child.pid, signal.SIGINT)
    pids = {hand.process.child.pid for hand in pool._hands}
    assert pool.verify([item(rf"\boxed{{3{number}}}", "35") for number in range(20)])[5].verdict == "correct"
    assert pids == {hand.process.child.pid for hand in pool._hands}


@pytest.mark.parametrize(
    "module", ["jaxpolya.verify.pool", "jaxpolya.verify.worker", "jaxpolya.verify.files", "jaxpolya.config", "jaxpolya.records"]
)
def test_jax_is_never_imported(module):
    code = f"import sys, {module}; print([name for name in ('jax', 'flax', 'numpy', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
