"""Code: does a program do what the tests say?

The tests run here, in the judge's process, and the program runs in the sandbox; between the two pass plain built-in values. So the tests,
and with them every expected value, are never where the program could read or patch them, and what is compared is of exact
built-in types: an object that claims to equal everything arrives as an `Opaque` that equals nothing. Equality itself is Python's, as the
tests' authors meant it (`1 == True`). Tests come from the data set and are trusted; they run under the worker's own limits.

Tests call the program's functions through stand-ins. Which names those are is decided by the tests alone, never by the program, or it
could replace `set` or `abs` in the very expression that judges it. Arguments are copied, so changing one in place has no
effect on the tests.

Blame: a program that is wrong, raises or prints too much is `wrong`; one whose process dies is `crash`; one that is late is
`timeout`; a response that holds nothing that compiles is `unparseable`. Tests that fail before they have asked the program anything
are ours: `harness_error`.
"""

import ast
import atexit
import builtins
import functools
import importlib
import re
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

from jaxpolya.records import VerdictName
from jaxpolya.verify.extract import after_thinking
from jaxpolya.verify.sandbox import Died, Late, Program, Sandbox, SandboxError

_FENCE = re.compile(r"^[ \t]{0,3}(```++|~~~++)[ \t]*+([A-Za-z0-9_+-]*+)[^\n`]*+$", re.MULTILINE)
_PYTHON = frozenset({"python", "python3", "py", "py3"})
_KEYS = frozenset({"prompt", "test", "tests", "test_list", "entry_point", "test_setup_code", "test_imports", "challenge_test_list"})
_SOURCES = ("test", "tests", "test_list")
MAX_SOURCE = 200_000
"""Characters of a program; nobody writes more by hand."""
MAX_OUTPUT = 8 << 20


class BadTests(Exception):
    """Tests that no program could be judged by."""


@dataclass(frozen=True)
class Pairs:
    """Tests of a program that reads and prints: (input, output that it should give)."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Asserts:
    """Tests of functions, as code to run with stand-ins for them."""

    prompt: str
    """What the program goes on with, complete in itself; empty for a program that stands alone."""
    helpers: CodeType
    """The prompt again: tests may use functions that it defines."""
    tests: CodeType
    names: frozenset[str]
    """What `tests` wants from the program."""
    modules: frozenset[str]
    """Modules that `tests` uses without importing them."""


# The response ----------------------------------------------------------------------------------------------------------------


def extract(response: str) -> str | None:
    """The program that a response gives: its last fenced Python block, else (where nothing is fenced) all of it.

    A block that never ends was cut off, and is no answer. Linear in the response's length; raises nothing.
    """
    said = after_thinking(response)
    plain: str | None = None
    python: str | None = None
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(said):
        if opened is None:
            opened = fence
        elif fence.group(1).startswith(opened.group(1)) and not fence.group(2):
            block, language = said[opened.end() + 1 : fence.start()], opened.group(2).lower()
            if language in _PYTHON:
                python = block
            elif not language:
                plain = block
            opened = None
    if opened and opened.group(2).lower() in _PYTHON | {""}:
        return None
    found = python if python is not None else plain
    if found is None:
        found = "" if _FENCE.search(said) else said
    return found.strip("\r\n").rstrip() if found.strip() and len(found) <= MAX_SOURCE else None


def variants(program: str, prompt: str) -> list[str]:
    """The ways of reading a program behind a complete prompt, best first.

    Behind a prompt that ends in a function, whole definitions follow it and indented lines go on with its body, whichever they are. Else
    the program is a body whose first line, or every line, has lost its indentation, or a body with prose behind it.
    """
    if not prompt:
        return [program]
    indented = "".join(f"    {line}" for line in program.splitlines(keepends=True))
    body = re.match(r"(?:[ \t]+\S[^\n]*(?:\n|$)|[ \t]*\n)*", program)
    readings = [program, "    " + program, indented, body.group() if body else ""]
    return [f"{prompt}\n{reading}" for reading in readings if reading.strip()]


# The tests -------------------------------------------------------------------------------------------------------------------


def read(tests: Any) -> Pairs | Asserts:
    """What there is to judge by in a question's `tests`. Raises `BadTests`."""
    if isinstance(tests, list) and tests and all(isinstance(pair, Mapping) for pair in tests):
        return Pairs(tuple(_pair(pair) for pair in tests))
    if not isinstance(tests, Mapping):
        tests = {"tests": tests}
    if unknown := sorted(set(tests) - _KEYS):
        raise BadTests(f"tests have no field {', '.join(unknown)}; they have {', '.join(sorted(_KEYS))}")
    given = [tests[name] for name in _SOURCES if tests.get(name)]
    if len(given) != 1:
        raise BadTests(f"tests need one of {', '.join(_SOURCES)}")
    entry, prompt = _text(tests, "entry_point"), _text(tests, "prompt")
    if entry and not entry.isidentifier():
        raise BadTests(f"the entry_point {entry!r} is not a name")
    setup = f"{_lines(tests.get('test_imports') or [])}\n{_text(tests, 'test_setup_code')}"
    return _asserts(setup, _lines(given[0]), entry, prompt)


@functools.lru_cache(maxsize=4096)  # all samples of one question share their tests
def _asserts(setup: str, source: str, entry: str, prompt: str) -> Asserts:
    try:
        prompt = _complete(prompt)
        helpers, tree = ast.parse(prompt), ast.parse(f"{setup}\n{source}".replace("\r\n", "\n"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body):
            if not entry:
                raise BadTests("tests that define check(candidate) need an entry_point")
            tree.body += ast.parse(f"check({entry})").body
        names, modules = _stand_ins(tree, helpers, entry)
        if not names:
            raise BadTests("the tests call no function of the program")
        return Asserts(
            prompt=prompt,
            helpers=compile(helpers, "prompt", "exec", dont_inherit=True),
            tests=compile(tree, "tests", "exec", dont_inherit=True),
            names=frozenset(names),
            modules=frozenset(modules),
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadTests(f"the tests are not Python: {error}") from None


def _stand_ins(tree: ast.Module, helpers: ast.Module, entry: str) -> tuple[set[str], set[str]]:
    """(names that the program has to define, modules that are used without an import).

    The program defines what the tests use and nobody else defines. A builtin counts only if it is the entry point, or if the
    tests call nothing else.
    """
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | _bound(tree) | (_bound(helpers) - {entry})
    used = {node.id for node in names} - bound
    attributed = {node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    modules = used & attributed & sys.stdlib_module_names
    wanted = {name for name in used - modules if not hasattr(builtins, name)} | ({entry} if entry else set())
    if not wanted:
        wanted = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)} & used
    return wanted, modules


def _bound(tree: ast.Module) -> set[str]:
    """Names that a module defines or imports, and the parameters of its functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def _complete(prompt: str) -> str:
    """A prompt as a module: its last function may lack a body."""
    try:
        ast.parse(prompt)
    except SyntaxError:
        return prompt.rstrip() + "\n    pass\n"
    return prompt


def _pair(pair: Mapping[str, Any]) -> tuple[str, str]:
    if set(pair) != {"input", "output"} or not all(isinstance(text, str) for text in pair.values()):
        raise BadTests("a test of a program that reads and prints is {input: text, output: text}")
    return pair["input"], pair["output"]


def _text(tests: Mapping[str, Any], name: str) -> str:
    value = tests.get(name) or ""
    if not isinstance(value, str):
        raise BadTests(f"{name} must be a text")
    return value


def _lines(value: Any) -> str:
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines) or (value and not "".join(lines).strip()):
        raise BadTests("tests must be a text, a list of texts (assertions), or a list of {input, output}")
    return "\n".join(lines)


# The verdict -----------------------------------------------------------------------------------------------------------------


def judge(tests: Any, program: str, seconds: float) -> tuple[VerdictName, str | None]:
    """The verdict on a program, with what happened. seconds: for all tests together."""
    try:
        suite = read(tests)
    except BadTests as error:
        return "harness_error", str(error)
    end = time.monotonic() + seconds
    with _lock:
        try:
            if isinstance(suite, Pairs):
                name, detail = _run_pairs(suite, program, end)
            else:
                name, detail = _run_asserts(suite, program, end)
        except Late as error:
            name, detail = "timeout", str(error)
        except Died as error:
            name, detail = "crash", str(error)
        except SandboxError as error:
            return "harness_error", str(error)
        if sandbox().weakness:
            detail = f"{detail or 'passed'} (sandbox level: {sandbox().level})"
        # A program may put into its complaint what no file can hold.
        return name, detail and detail.encode("utf-8", "replace").decode()


_lock = threading.Lock()


@functools.cache
def sandbox() -> Sandbox:
    """This process's sandbox. Raises `SandboxError`."""
    made = Sandbox()
    atexit.register(made.close)
    return made


def _run_asserts(suite: Asserts, program: str, end: float) -> tuple[VerdictName, str | None]:
    with sandbox().program(end - time.monotonic()) as running:
        if trouble := _load(running, variants(program, suite.prompt), as_script=False):
            return trouble
        namespace: dict[str, Any] = {"__name__": "tests"}
        try:
            exec(suite.helpers, namespace)
            namespace |= {name: importlib.import_module(name) for name in suite.modules}
            namespace |= {name: functools.partial(running.call, name) for name in suite.names}
            exec(suite.tests, namespace)
        except Exception as error:
            blamed: VerdictName = "wrong" if running.calls else "harness_error"
            return blamed, _described(error)
        if running.ended:
            raise running.ended
    return "correct", None


def _run_pairs(suite: Pairs, program: str, end: float) -> tuple[VerdictName, str | None]:
    for number, (given, expected) in enumerate(suite.pairs):
        with tempfile.TemporaryFile(buffering=0) as printed:
            with sandbox().program(end - time.monotonic(), given.encode(), printed) as running:
                if trouble := _load(running, [program], as_script=True):
                    return trouble
            if printed.seek(0, 2) > MAX_OUTPUT:
                return "wrong", f"test {number} prints too much"
            printed.seek(0)
            text = printed.read().decode(errors="replace")
        if _plain(text) != _plain(expected):
            return "wrong", f"test {number} prints something else"
    return "correct", None


def _load(running: Program, readings: list[str], as_script: bool) -> tuple[VerdictName, str | None] | None:
    """The verdict on a program that can't even be loaded, else None."""
    outcome, complaint = running.load(readings, as_script=as_script)
    if outcome == "loaded":
        return None
    return "unparseable" if outcome == "syntax" else "wrong", complaint


def _described(error: Exception) -> str:
    """An exception in words; one that holds a value of the program's may have none (an integer of a million digits)."""
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")[:500]
    except Exception:
        return type(error).__name__


def _plain(text: str) -> list[str]:
    """The lines of an output without white space at their ends, and without empty lines at its end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]
