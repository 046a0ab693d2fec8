"""Code answers: which program a response gives, what tests mean, and who is to blame."""

import json

import pytest

from jaxpolya.api.verifying import verify_response
from jaxpolya.errors import InputError
from jaxpolya.verify import code
from jaxpolya.verify.code import BadTests, extract, read
from jaxpolya.verify.files import verify_file
from jaxpolya.verify.judge import Item, judge
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.sandbox.sandbox import Sandbox, SandboxError

DOUBLE = ["assert double(2) == 4", "assert double(-1) == -2"]
PROMPT = 'import math\n\n\ndef helper(x):\n    return x + 1\n\n\ndef area(r: float) -> float:\n    """The area of a circle."""\n'
CHECK = {
    "prompt": PROMPT, "entry_point": "area",
    "test": "def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-4\n    assert candidate(helper(-1)) == 0",
}  # fmt: skip
ECHO = [{"input": "3\n4\n", "output": "7\n"}, {"input": "1\n1\n", "output": "2"}]


@pytest.fixture(scope="module", autouse=True)
def runs_here():
    try:
        code.sandbox()
    except SandboxError as error:
        pytest.skip(f"no program can be run on this machine: {error}")


def verdict(response: str, tests=DOUBLE, seconds: float = 60.0) -> str:
    program = extract(response, tests)
    return code.judge(tests, program, seconds)[0] if program else "unparseable"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("def double(x): return 2 * x", "correct"),
        ("```python\ndouble = lambda x: x + x\n```", "correct"),
        ("def double(x): return x ** 2", "wrong"),
        ("def double(x): return str(2 * x)", "wrong"),
        ("def triple(x): return 3 * x", "wrong"),
        ("def double(x): raise ValueError", "wrong"),
        ("def double(x) return 2 * x", "unparseable"),
        ("The function should multiply by two.", "unparseable"),
        ("import nosuch\ndef double(x): return 2 * x", "wrong"),
        ("import os\ndef double(x): os._exit(0)", "crash"),
        ("def double(x):\n    while True: pass", "timeout"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef double(x): return P(x).x * 2", "correct"),
        ("def double(x): return 2 * x\nif __name__ == '__main__':\n    1 / 0", "correct"),
        ("import collections\nclass N(int): pass\ndef double(x): return N(2 * x)", "correct"),
    ],
)
def test_assertions(response, expected):
    assert verdict(response, seconds=1.0 if expected == "timeout" else 60.0) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("    return math.pi * r * r\n", "correct"),
        ("    area = math.pi * r * r\n    return area\n\nprint('a test')\n", "correct"),
        ("return math.pi * r * r", "correct"),
        ("scale = math.pi\nreturn scale * r * r", "correct"),
        ("scale = math.pi\n    return scale * r * r", "correct"),
        ("```python\nfrom math import pi\ndef area(r):\n    return pi * r ** 2\n```", "correct"),
        ("def area(r): return helper(r)", "wrong"),
        ("    return math.pi * r * r\n\nThis is the area of a circle.", "correct"),
        ("    pass", "wrong"),
        ("def helper(x): return 99\ndef area(r): return 3.14159265 * r * r", "correct"),
    ],
)
def test_a_prompt_may_be_gone_on_with_or_defined_anew(response, expected):
    assert verdict(response, CHECK) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("print(int(input()) + int(input()))", "correct"),
        ("import sys\nprint(sum(map(int, sys.stdin)), end='  \\n\\n')\nsys.exit()", "correct"),
        ("print('7')", "wrong"),
        ("print(int(input()) + int(input()))\nraise SystemExit(1)", "wrong"),
        ("print(int(input()) + int(input()))\n1 / 0", "wrong"),
        ("import os\nos.write(1, b'7')\nos._exit(0)", "wrong"),
        ("import os\nos.write(1, b'%d' % (int(input()) + int(input())))\nos._exit(0)", "correct"),
        ("import os\nos.abort()", "crash"),
        ("while True: print('x' * 1000)", "wrong"),
        ("print(", "unparseable"),
        ("import time\ntime.sleep(60)", "timeout"),
    ],
)
def test_input_and_output(response, expected):
    assert verdict(response, ECHO, seconds=1.0 if expected == "timeout" else 60.0) == expected


SUM = "a, b = int(input()), int(input())\nprint(a + b)\n"
SCRIPTS = {
    "exit": SUM + "exit()\nprint(1)",
    "exit with a status": SUM + "quit(0)\nprint(1)",
    "exit within a function": f"def main():\n    {SUM.replace(chr(10), chr(10) + '    ')}exit()\nmain()\nprint(1)",
    "sys.exit": SUM + "import sys\nsys.exit()",
    "SystemExit": SUM + "raise SystemExit",
    "the main module": "import __main__, sys\ndef main():\n    "
    + SUM.replace("\n", "\n    ")
    + "\nif __name__ == '__main__' and sys.modules[__name__].main is __main__.main: main()",
    "a thread that nobody joins": "import threading, time\ndef main():\n    time.sleep(0.1)\n    print(int(input()) + int(input()))\n"
    "threading.Thread(target=main).start()",
    "a thread with a large stack": "import sys, threading\nsys.setrecursionlimit(10 ** 6)\nthreading.stack_size(1 << 29)\n"
    "def deep(n): return 0 if n == 0 else 1 + deep(n - 1)\ndef main(): print(int(input()) + int(input()) + deep(50000) - 50000)\n"
    "thread = threading.Thread(target=main)\nthread.start()\nthread.join()",
    "a handler at exit": "import atexit, io, sys\nsys.stdout = io.StringIO()\n"
    "atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))\n" + SUM,
    "a file that nobody closes": "import os\nout = os.fdopen(1, 'w')\nout.write(str(int(input()) + int(input())))",
    "/dev/stdin": "a, b = open('/dev/stdin').read().split()\nprint(int(a) + int(b))",
    "/dev/stdin by os": "import os\na, b = os.read(os.open('/dev/stdin', os.O_RDONLY), 99).split()\nprint(int(a) + int(b))",
    "/dev/stdin by pathlib": "import pathlib\na, b = pathlib.Path('/dev/stdin').read_text().split()\nprint(int(a) + int(b))",
    "/dev/stdout": "with open('/dev/stdout', 'w') as out: print(int(input()) + int(input()), file=out)",
    "descriptors": "import sys\nsys.stdin = open(0)\na, b = sys.stdin.readlines()\nopen(1, 'w').write(str(int(a) + int(b)))",
    "a pool of processes": "import multiprocessing\na, b = int(input()), int(input())\n"
    "with multiprocessing.Pool(2) as pool: print(sum(pool.map(abs, [a, b])))",
    "an error in a thread": SUM + "import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
    "standard error": SUM + "import sys\nprint('debug', file=sys.stderr)",
    "arguments": "import sys\nassert len(sys.argv) == 1 and __file__ == sys.argv[0]\n" + SUM,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_runs_as_python_runs_it(script):
    assert code.judge(ECHO, script, 60.0) == ("correct", None)


@pytest.mark.parametrize(
    ("ending", "detail"),
    [
        ("exit(3)", "test 0 ends with exit status 3"), ("exit('no')", "test 0 ends with exit status 1"),
        ("1 / 0", "test 0 ends with exit status 1 (ZeroDivisionError: division by zero)"),
        ("import atexit, os\natexit.register(lambda: os._exit(4))", "test 0 ends with exit status 4"),
        ("import sys\nsys.stdout.close()", None), ("print()", None), ("print(1)", "test 0 prints something else"),
    ],
)  # fmt: skip
def test_how_a_script_ends_counts(ending, detail):
    assert code.judge(ECHO, SUM + ending, 60.0) == ("wrong" if detail else "correct", detail)


def test_a_script_that_never_ends_is_late():
    for ending in ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()", "while True: pass"):
        assert code.judge(ECHO, SUM + ending, 0.7) == ("timeout", "the deadline has passed")
        assert code.judge(ECHO, SUM, 60.0) == ("correct", None)


def test_a_test_may_ask_for_the_very_text():
    pairs = [{"input": "", "output": "2.50\n", "exact": True}]
    assert code.judge(pairs, "print('2.50 ')", 60.0)[0] == "correct"
    assert code.judge(pairs, "print(2.5)", 60.0)[0] == "wrong"


ATTACKS = {
    "equal to everything": "class A:\n    __eq__ = __ge__ = __le__ = lambda a, b: True\n    __hash__ = None\ndef double(x): return A()",
    "an integer that lies": "class A(int):\n    __eq__ = lambda a, b: True\n    __hash__ = int.__hash__\ndef double(x): return A()",
    "a list that lies": "class A(list):\n    __eq__ = lambda a, b: True\ndef double(x): return A([9])",
    "a metaclass that lies": "class M(type):\n    __eq__ = lambda a, b: True\n    __hash__ = type.__hash__\n"
    "class A(metaclass=M): pass\ndef double(x): return A",
    "leaving before the tests": "import sys\nsys.exit(0)",
    "leaving in a test": "def double(x): raise SystemExit(0)",
    "leaving for good": "import os\nos._exit(0)",
    "swallowing assertions": "import sys\nsys.excepthook = lambda *a: None\ndef double(x): raise AssertionError",
    "patching built-ins": "import builtins\nbuiltins.abs = builtins.isinstance = builtins.type = lambda *a: True\ndef double(x): return 0",
    "a check of its own": "def check(candidate): pass\ndef double(x): return 0",
    "frames": "import sys\ndef double(x):\n    frame = sys._getframe()\n    while frame:\n"
    "        for value in list(frame.f_locals.values()):\n            if isinstance(value, list): value.append('passed')\n"
    "        frame = frame.f_back\n    return None",
    "the collector's view": "import gc\ndef double(x):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, str) and 'double(2) == ' in o: return int(o.split('== ')[1])\n    return 0",
    "reading its own memory": "def double(x):\n    data = open('/proc/self/mem', 'rb').read()\n    return 4",
    "looking for the tests on disk": "import os\ndef double(x):\n    for top, _, names in os.walk('/'):\n        for name in names:\n"
    "            if name == 'jail.py': return 2 * x\n    return 0",
    "forging the answer that would follow": "import os\nos.write(3, b'\\0\\0\\0\\x0ft3;s5;valueT;d0;')\ndef double(x): return 0",
    "shadowing the judge's names": "sorted = set = len = lambda *a: 4\ndef double(x): return x",
    "not a number": "def double(x): return float('nan')",
    "deep nesting": "def double(x):\n    a = []\n    for _ in range(10 ** 5): a = [a]\n    return a",
    "an endless iterator": "import itertools\ndef double(x): return itertools.repeat(4)",
    "much of everything": "def double(x): return [0] * (1 << 28)",
    "endless recursion": "def double(x): return double(x)",
    "a signal": "import os, signal\ndef double(x): os.kill(0, signal.SIGKILL); os.kill(os.getppid(), signal.SIGKILL); return 0",
    "a function to call": "def double(x): return lambda *a: True",
    "a module": "import sys\ndef double(x): return sys",
    "the judge's exception": "class Late(BaseException): pass\ndef double(x): raise Late",
    "a stop of the iteration": "def double(x): raise StopIteration(4)",
    "source that breaks the parser": "x = " + "(" * 5000 + ")" * 5000,
    "source that breaks the compiler": "x = " + "-" * 20_000 + "1",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attacks_earn_nothing(attack):
    if "os.walk" in attack and code.sandbox().weakness:
        pytest.skip("without namespaces the disk is within reach")
    assert code.judge(DOUBLE, attack, 5.0)[0] in ("wrong", "crash", "timeout", "unparseable")


@pytest.mark.parametrize("name", ["set", "sorted", "abs", "double"])
def test_a_program_can_not_replace_what_the_tests_use(name):
    tests = ["assert set(double([1])) == set([2])", "assert sorted(double([1])) == [2]", "assert abs(double([1])[0]) == 2"]
    assert verdict(f"def double(x): return [1]\ndef {name}(*a): return [2]\n", tests) == ("correct" if name == "double" else "wrong")


def test_time_outs_of_the_program_can_not_be_caught_by_tests():
    tests = "try:\n    f()\nexcept Exception:\n    pass"
    assert verdict("def f():\n    while True: pass", tests, 1.0) == "timeout"
    assert verdict("import os\ndef f(): os._exit(0)", "try:\n    f()\nexcept BaseException:\n    pass") == "crash"


def test_complaints_that_can_not_be_written_are_no_escape():
    name, detail = code.judge(DOUBLE, "def double(x): raise ValueError('\\ud800')", 60.0)
    assert (name, detail) == ("wrong", "test 0 fails at `assert double(2) == 4`: ValueError: ?")
    name, detail = code.judge(["assert {4: 1}[double(2)]"], "def double(x): return 10 ** 5000", 60.0)
    assert (name, detail) == ("wrong", "the tests fail at `assert {4: 1}[double(2)]`: KeyError")


def test_values_of_every_kind_come_back():
    tests = [
        "assert f(0) == (1, [2.5, {'a': {3}}], None)", "assert f(1) == {frozenset({1}): b'x'}", "assert list(f(2)) == [0, 1]",
        "assert f(3) == {'x': 2}", "assert f(4) == (1, 2)", "assert f(5) == 10 ** 5000", "assert math.isnan(f(6))", "assert f(7) is True",
        "assert f(8) == range(3)", "assert f(9) == int",
    ]  # fmt: skip
    response = (
        "import collections\nP = collections.namedtuple('P', 'x y')\ndef f(n):\n    return [(1, [2.5, {'a': {3}}], None),"
        " {frozenset({1}): b'x'},"
        " (i for i in range(2)), collections.Counter('xx'), P(1, 2), 10 ** 5000, float('nan'), True, range(3), int][n]"
    )
    assert code.judge(tests, response, 60.0) == ("correct", None)


def test_objects_of_the_programs_own_classes_can_be_given_back():
    tests = {"tests": ["assert area(Box(2, 3)) == 6"], "test_setup_code": ""}
    assert (
        verdict("class Box:\n    def __init__(self, a, b): self.a, self.b = a, b\ndef area(box): return box.a * box.b", tests) == "correct"
    )


def test_a_function_may_have_a_builtins_name():
    assert verdict("def sum(a, b): return a + b", ["assert sum(10, 15) == 25"]) == "correct"
    assert verdict("def double(x): return 0", ["assert sum(10, 15) == 25"]) == "wrong"


def test_tests_may_use_modules_and_set_up():
    tests = {
        "test_list": ["assert size((1,)) == sys.getsizeof((1,)) + extra"],
        "test_setup_code": "extra = 0",
        "test_imports": ["import re"],
    }
    assert verdict("import sys\ndef size(t): return sys.getsizeof(t)", tests) == "correct"


@pytest.mark.parametrize(
    ("tests", "complaint"),
    [
        (None, "one of"), ("", "one of"), ([], "one of"), ([1], "tests must be"), ([" "], "tests must be"), ({"test": 3}, "tests must be"),
        (["assert f( == 1"], "not Python"), (["assert True"], "no function"), ({"test": "def check(candidate): pass"}, "entry_point"),
        ({"tests": ["assert f()"], "entry_point": "f()"}, "not a name"), ({"tests": ["assert f()"], "weights": 1}, "no field weights"),
        ({"tests": ["assert f()"], "test": "assert f()"}, "one of"),
        ([{"input": "1"}], "input: text"), ([{"input": "1", "output": 2}], "input: text"),
        ([{"input": "1", "output": "2", "exact": 1}], "exact"),
        ({"tests": ["assert f()"], "prompt": "def ("}, "not Python"),
    ],
)  # fmt: skip
def test_tests_that_can_not_be_used_are_refused(tests, complaint):
    with pytest.raises(BadTests, match=complaint):
        read(tests)
    with pytest.raises(InputError, match=complaint):
        verify_response("x", kind="code", tests=tests)


def test_tests_that_fail_by_themselves_are_our_fault():
    result = judge(Item(id="x", kind="code", response="def f(): return 1", tests=["1 / 0", "assert f()"]))
    assert result.verdict == "harness_error" and "ZeroDivisionError" in result.detail


def test_where_no_program_can_be_run_it_is_our_fault(monkeypatch):
    def fail(modules):
        raise SandboxError("no")

    monkeypatch.setattr(code, "sandbox", fail)
    assert code.judge(DOUBLE, "def double(x): return 2 * x", 1.0) == ("harness_error", "no")


def test_a_weak_sandbox_is_named_in_every_verdict(monkeypatch):
    with Sandbox("limits") as weak:
        monkeypatch.setattr(code, "sandbox", lambda modules: weak)
        assert code.judge(DOUBLE, "def double(x): return 2 * x", 60.0) == ("correct", "passed (sandbox level: limits)")
        assert "sandbox level: limits" in code.judge(DOUBLE, "def double(x): return 2", 60.0)[1]


def test_the_pool_judges_code_within_its_deadline_and_by_its_tests():
    def item(program: str, tests=DOUBLE) -> Item:
        return Item(id="x", kind="code", response=program, tests=tests)

    with Pool(2, deadline=10.0) as pool:  # long enough for what ends on a busy machine
        pool.verify([item("def double(x): return 0")])
        workers = {hand.process.child.pid for hand in pool._hands if hand.process}
        right = "def double(x): return 2 * x"
        verdicts = pool.verify(
            [item(right), item(right, ["assert double(2) == 5"]), item("while True: pass"), item("import os; os.abort()")]
        )
        assert [each.verdict for each in verdicts] == ["correct", "wrong", "timeout", "crash"]
        assert pool.verify([item(f"# again\n{right}")])[0].verdict == "correct"
        assert pool.verify([item(right)])[0] is verdicts[0]
        hung = pool.verify([item(right, ["while True: pass", "assert double(1) == 2"])])[0]
        assert hung.verdict == "timeout"  # the tests themselves; now the pool had to kill a worker
        assert len(workers & {hand.process.child.pid for hand in pool._hands if hand.process}) == 1
        assert pool.verify([item(f"#\n{right}")])[0].verdict == "correct"


def test_files_of_code(tmp_path):
    rows = [{"id": 1, "response": "def double(x): return 2 * x", "tests": DOUBLE}, {"id": 2, "response": "    return 1", "tests": CHECK}]
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = verify_file(source, out, workers=1)
    assert summary["verdicts"] == {"correct": 1, "wrong": 1} and summary["sandbox"] == code.sandbox().weakness
    assert json.loads(out.read_text().splitlines()[0])["extracted"] == rows[0]["response"]


def test_verify_response():
    assert verify_response("def double(x): return 2 * x", kind="code", tests=DOUBLE).verdict == "correct"
