"""Long promises of the verifier: hostile input and killed workers."""

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import get_args

import pytest
from growth import assert_linear
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxpolya.records import Extraction
from jaxpolya.verify.judge import Item, answer_of
from jaxpolya.verify.pool import Pool

pytestmark = pytest.mark.soak
OUTCOMES = {"correct", "wrong", "unparseable", "timeout", "crash"}

PIECES = [
    *"0123456789xyzabefi+-*/^_=<>!|(){}[],.;:$%&#~'\"\\ \n\t\x00", "\\frac", "\\frac{1}{2}", "\\sqrt", "\\sqrt[3]", "{", "}", "\\{",
    "\\}", "\\left(", "\\right]", "^{", "_{",
    "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\", "\\cup ", "\\in ", "\\infty", "\\pm ", "\\le ", "\\ne ", "\\approx ",
    "\\text{and}", "\\text{ cm}", "\\%", "^\\circ", "999999999",
    "10^{10^{10}}", "**", "!", "\\binom", "\\sum_{k=1}^{n}", "\\int", "\\lim", "\\sin", "\\log", "\\boxed{", "\\fbox{", "<answer>",
    "</answer>", "</think>", "<think>", "The answer is ",
    "Answer:", "#### ", "__import__('os')", "lambda: 0", "and", "or", "١٢", "²", "\ud800", "½", "π", "\\overline{3}", "1,234", "1:2",
    "e", "i", "\\mathbb{R}", "\\operatorname", "[THINK]", "<|channel|>analysis<|message|>", "<|im_end|>", "<thinking>", "answer", "must be",
    "correct option is", "so B", "A:", "B is the answer", "\n- ", "**", " x ", "p.m.", "%", "either", '"answer": "',
]  # fmt: skip
GOLDS = ["42", r"\frac{1}{2}", "0.333", r"50\%", "(1,2)", r"\{1,2\}", r"[0,\infty)", "x^2+1", "2x+3y=6", r"x \ge 2",
r"\begin{pmatrix}1\\2\end{pmatrix}", r"\text{odd}", "A",
         r"1\pm\sqrt2", r"\sqrt2", "1:2", r"\int_0^x t dt"]  # fmt: skip
HOSTILE = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    st.tuples(st.sampled_from(PIECES), st.integers(1, 3000)).map(lambda t: t[0] * t[1]),
)


def test_hostile_inputs_leave_the_pool_alive():
    """10,000 hostile inputs: each answered, none our fault, no worker lost for good, no file descriptor leaked."""
    before = len(os.listdir("/proc/self/fd"))
    with Pool(2, deadline=10, memory_mb=1024) as pool:

        @settings(max_examples=2500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(
            st.lists(
                st.tuples(HOSTILE, st.sampled_from(GOLDS), st.sampled_from(["boxed", "statement", "number", "tag"]), st.booleans()),
                min_size=4,
                max_size=4,
            )
        )
        def run(cases):
            items = [
                Item(id="h", kind="math", response=rf"\boxed{{{text}}}" if boxed else text, answer=gold, extraction=style)
                for text, gold, style, boxed in cases
            ]
            for item, verdict in zip(items, pool.verify(items), strict=True):
                assert verdict.verdict in OUTCOMES, (item, verdict)

        run()
        assert pool.verify([Item(id="x", kind="math", response=r"\boxed{42}", answer="42")])[0].verdict == "correct"
        assert all(hand.thread.is_alive() for hand in pool._hands)
    assert len(os.listdir("/proc/self/fd")) == before


@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), min_size=1, max_size=4),
    st.sampled_from([*get_args(Extraction), "choice"]),
)
def test_extraction_is_linear_in_hostile_texts(pieces, style):
    """It runs where no deadline protects it."""
    piece = "".join(pieces) or " "

    def read(size):
        item = Item(id="h", kind="math", response=piece * (size // len(piece)), answer="1", extraction=style)
        if style == "choice":
            item = Item(id="h", kind="choice", response=item.response, choices=["x", "1", "and"], answer="A")
        return answer_of(item)

    assert_linear(read, 100_000, piece)


LINES = """\
def f(x): return x
    return 42
def f(x):
    while True: pass
    return f(x)
f = lambda x: A()
f = os.urandom
del f
class A:
    __eq__ = lambda a, b: True
f = A()
f = gc.get_objects
sys.setrecursionlimit(10 ** 9)
sys.exit()
os._exit(0)
import threading, ctypes, signal
os.fork()
while os.fork(): pass
os.setsid()
os.kill(0, 9)
os.kill(-1, 15)
os.abort()
os.close(3)
os.read(3, 9)
os.write(3, b'\\xff' * 9)
os.write(3, os.urandom(20))
[0] * (1 << 40)
x = 'x' * (1 << 27)
print(x)
open('a', 'w').write('a' * 10 ** 8)
os.mkdir('d'); os.chmod('.', 0)
signal.alarm(1)
ctypes.string_at(0)
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).prctl(1, 0)
__builtins__.compile = None
)
\x00
\ud800
"""


def test_hostile_programs_leave_nothing():
    """1,000 hostile programs: each answered, none right and none our fault, nothing left running, no file descriptor leaked."""
    before = len(os.listdir("/proc/self/fd")), set(Path("/tmp").glob("jaxpolya-*"))
    with Pool(2, deadline=2) as pool:

        @settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.lists(st.sampled_from(LINES.splitlines()), max_size=6), min_size=4, max_size=4))
        def run(programs):
            items = [
                Item(id="h", kind="code", response="\n".join(["import os, sys, gc, time", *lines]), tests=["assert f(1) == 43"])
                for lines in programs
            ]
            for item, verdict in zip(items, pool.verify(items), strict=True):
                assert verdict.verdict in OUTCOMES - {"correct"}, (item, verdict)

        run()
        right = Item(id="x", kind="code", response="def f(x): return x + 42", tests=["assert f(1) == 43"])
        assert pool.verify([right])[0].verdict == "correct"
    time.sleep(1)  # launchers see that their workers are gone
    assert (len(os.listdir("/proc/self/fd")), set(Path("/tmp").glob("jaxpolya-*"))) == before
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if "/runner.pyc" in read(path)]


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_killed_workers_lose_no_verdict():
    """Random workers are killed during 5,000 verdicts: every row is answered, and none of them wrongly."""
    rng = random.Random(0)
    done = threading.Event()
    kills = 0
    with Pool(2, deadline=20) as pool:

        def kill() -> None:
            nonlocal kills
            while not done.wait(rng.uniform(0.05, 0.15)):
                process = rng.choice(pool._hands).process
                if process and process.items:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.child.pid, signal.SIGKILL)
                        kills += 1

        killer = threading.Thread(target=kill)
        killer.start()
        verdicts = pool.verify(
            Item(id=str(n), kind="math", response=rf"\boxed{{\int_0^{{{n}}} x dx}}" if n % 5 == 0 else rf"\boxed{{{n}.5}}", answer="7.5")
            for n in range(5000)
        )
        done.set()
        killer.join()
        workers = [hand.process.child.pid for hand in pool._hands if hand.process]
    assert kills > 3
    assert len(verdicts) == 5000 and all(verdict.verdict in OUTCOMES for verdict in verdicts)
    assert [n for n, verdict in enumerate(verdicts) if verdict.verdict == "correct"] == [7]
    assert sum(verdict.verdict == "crash" for verdict in verdicts) <= 2  # only an item whose worker was killed twice
    time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
