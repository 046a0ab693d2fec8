"""Code: does a program do what the tests say?

The tests run here, in the judge's process, and the program runs in the sandbox; between the two pass plain built-in values, and stand-ins
for the program's objects (`remote.py`). So the tests, and with them every expected value, are never where the program could read or patch
them, and an object that claims to equal everything equals nothing. Equality itself is Python's, as the tests' authors meant
it (`1 == True`). Tests come from the data set and are trusted; they run under the worker's own limits.

Which names the program has to define is decided by the tests alone, never by the program, or it could replace `set` or `abs` in the
very expression that judges it.

Blame: a program that is wrong, raises or prints too much is `wrong`; one whose process dies is `crash`; one that is late is
`timeout`; a response that holds nothing that compiles is `unparseable`. Tests that fail before they have asked the program
anything, or that want what can't be carried to it, are ours: `harness_error`.
"""

import atexit
import contextlib
import functools
import importlib
import tempfile
import threading
import time
import unittest
from collections.abc import Collection
from typing import Any

from jaxpolya.records import VerdictName
from jaxpolya.verify.programs import blocks, printed
from jaxpolya.verify.programs.suite import Asserts, BadTests, Pairs, read
from jaxpolya.verify.sandbox.bridge import Bridge
from jaxpolya.verify.sandbox.remote import Uncarried, is_remote
from jaxpolya.verify.sandbox.sandbox import Died, Late, Program, Sandbox, SandboxError

MAX_OUTPUT = 8 << 20


def extract(response: str, tests: Any = None) -> str | None:
    """The program that a response gives to be judged by tests, or None. Linear in the response's length; raises nothing."""
    try:
        suite = read(tests)
    except BadTests:
        return blocks.extract(response)
    if isinstance(suite, Pairs):
        return blocks.extract(response, reads=any(pair.given.strip() for pair in suite.pairs))
    return blocks.extract(response, suite.names)


# The verdict -----------------------------------------------------------------------------------------------------------------


def judge(tests: Any, program: str, seconds: float, modules: tuple[str, ...] = ()) -> tuple[VerdictName, str | None]:
    """The verdict on a program, with what happened. seconds: for all tests together. modules: that it may import, see `packages`."""
    try:
        suite = read(tests)
    except BadTests as error:
        return "harness_error", str(error)
    end = time.monotonic() + seconds
    with _lock:
        try:
            cage = sandbox(modules)
            if isinstance(suite, Pairs):
                name, detail = _run_pairs(cage, suite, program, end)
            else:
                name, detail = _run_asserts(cage, suite, program, end)
        except Late as error:
            name, detail = "timeout", str(error)
        except Died as error:
            name, detail = "crash", str(error)
        except (SandboxError, Uncarried) as error:
            name, detail = "harness_error", str(error)
        if detail and "ModuleNotFoundError" in detail:
            detail += f"; programs may import {' and '.join(['the standard library', *modules])} (verify.code.modules)"
        if name != "harness_error" and cage.weakness:
            detail = f"{detail or 'passed'} (sandbox level: {cage.level})"
        # A program may put into its complaint what no file can hold.
        return name, detail and detail.encode("utf-8", "replace").decode()


_lock = threading.Lock()


@functools.cache
def sandbox(modules: tuple[str, ...] = ()) -> Sandbox:
    """This process's sandbox for programs that may import some modules. Raises `SandboxError`."""
    made = Sandbox(modules=modules)
    atexit.register(made.close)
    return made


def _run_asserts(cage: Sandbox, suite: Asserts, program: str, end: float) -> tuple[VerdictName, str | None]:
    with (
        tempfile.TemporaryFile(buffering=0) if suite.prints else contextlib.nullcontext() as output,
        cage.program(end - time.monotonic(), stdout=output) as running,
    ):
        if trouble := _load(running, blocks.readings(program, suite.prompt), as_script=False):
            return trouble
        bridge = Bridge(running, f"{suite.source}\n{program}", suite.objects, suite.changes, output)
        namespace = _Names(bridge, suite.names)
        failure = None
        try:
            exec(suite.helpers, namespace)
            for name in suite.names:
                namespace.pop(name, None)
            namespace |= {name: importlib.import_module(name) for name in suite.modules}
            exec(suite.tests, namespace)
            for name in suite.collected:
                _run_collected(namespace[name])
        except BaseException as error:  # a program may raise SystemExit
            failure = f"{suite.failed(error)}: {_described(error)}"
        if reason := running.ended or bridge.uncarried:  # whatever the tests have made of it
            raise reason
    if failure and suite.beyond:
        return "harness_error", f"{failure}; the tests use {', '.join(sorted(suite.beyond))}, which doesn't reach a program in the sandbox"
    if not bridge.asked:
        return "harness_error", failure or "the tests asked the program nothing"
    return ("wrong" if failure else "correct"), failure


class _Names(dict[str, Any]):
    """The tests' global names. Those that the program has to define are asked for when they are used; what can be called is kept."""

    def __init__(self, bridge: Bridge, names: Collection[str]):
        super().__init__(__name__="tests")
        self.bridge, self.names = bridge, names

    def __missing__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        value = self.bridge.ask("get", name)
        if is_remote(value) or isinstance(value, type):
            self[name] = value
        return value


def _run_collected(tests: Any) -> None:
    """Runs a function or a class of tests, as pytest and unittest would."""
    if not isinstance(tests, type):
        tests()
    elif issubclass(tests, unittest.TestCase):
        unittest.defaultTestLoader.loadTestsFromTestCase(tests).debug()
    else:
        for name in dir(tests):
            if name.startswith("test"):
                getattr(tests(), name)()


def _run_pairs(cage: Sandbox, suite: Pairs, program: str, end: float) -> tuple[VerdictName, str | None]:
    for number, pair in enumerate(suite.pairs):
        with tempfile.TemporaryFile(buffering=0) as output:
            with cage.program(end - time.monotonic(), pair.given.encode(), output) as running:
                if trouble := _load(running, blocks.readings(program), as_script=True):
                    return trouble
                status, complaint = running.finish()
            if status:
                return "wrong", f"test {number} ends with exit status {status}{complaint and f' ({complaint})'}"
            if output.seek(0, 2) > MAX_OUTPUT:
                return "wrong", f"test {number} prints too much"
            output.seek(0)
            text = output.read().decode(errors="replace")
        if not printed.same(text, pair.expected, exact=pair.exact):
            return "wrong", f"test {number} prints something else"
    return "correct", None


def _load(running: Program, readings: list[str], as_script: bool) -> tuple[VerdictName, str | None] | None:
    """The verdict on a program that can't even be loaded, else None."""
    outcome, complaint = running.load(readings, as_script=as_script)
    if outcome == "loaded":
        return None
    return "unparseable" if outcome == "syntax" else "wrong", complaint


def _described(error: BaseException) -> str:
    """An exception in words; one that holds a value of the program's may have none (an integer of a million digits)."""
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")[:500]
    except BaseException:
        return type(error).__name__
