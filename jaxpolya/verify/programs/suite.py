"""What there is to judge a program by: the `tests` of a question, read and checked.

Tests have one of two forms: pairs of an input and the output that it should give, or Python that calls what the program defines. Of the
second form, the names that the program has to define are found here, from the tests alone.
"""

import ast
import builtins
import functools
import importlib.util
import itertools
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

from jaxpolya.verify.programs import arguments

_KEYS = frozenset({"prompt", "test", "tests", "test_list", "entry_point", "test_setup_code", "test_imports", "challenge_test_list"})
_BEYOND = frozenset({"stdin", "environ", "patch", "tempfile", "open"})
_PATCHED = {"sys.stdin": "stdin", "builtins.input": "stdin", "sys.stdout": "stdout", "builtins.open": "open", "os.environ": "environ"}
_ENTRY = re.compile(r"[^\W\d]\w*(?:(?:\(\))?(?:\.[^\W\d]\w*)+)?")
_SOURCES = ("test", "tests", "test_list")


class BadTests(Exception):
    """Tests that no program could be judged by."""


@dataclass(frozen=True)
class Pair:
    """One test of a program that reads and prints."""

    given: str
    expected: str
    exact: bool = False
    """Whether numbers are compared as texts, too, and white space within lines counts."""


@dataclass(frozen=True)
class Pairs:
    """Tests of a program that reads and prints."""

    pairs: tuple[Pair, ...]


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
    collected: tuple[str, ...]
    """Functions and classes of tests that `tests` defines and doesn't run itself."""
    objects: bool
    """Whether `tests` knows of classes of the program's: a name is written like one."""
    changes: bool
    """Whether `tests` looks at arguments that a function with a result may have changed, see `arguments.shown`."""
    prints: bool
    """Whether `tests` looks at what is printed."""
    beyond: frozenset[str]
    """What `tests` changes of the world around it, which is not the program's world."""
    source: str
    starts: tuple[int, ...]
    """Lines of `source` at which its tests begin, where it has several."""

    def failed(self, problem: BaseException) -> str:
        """Which of the tests an exception ended, in words."""
        line, trace = 0, problem.__traceback__
        while trace:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == "tests" else line
            trace = trace.tb_next
        lines = self.source.split("\n")
        statement = lines[line - 1].strip()[:200] if 0 < line <= len(lines) else ""
        number = sum(start <= line for start in self.starts) - 1
        return " ".join(filter(None, [f"test {number} fails" if number >= 0 else "the tests fail", statement and f"at `{statement}`"]))


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
    if entry and not _ENTRY.fullmatch(entry):
        raise BadTests(f"the entry_point {entry!r} is not a name, nor a method such as Solution().solve")
    setup = f"{_lines(tests.get('test_imports') or [])}\n{_text(tests, 'test_setup_code')}"
    return _asserts(setup, _sources(given[0]), entry, prompt)


@functools.lru_cache(maxsize=4096)  # all samples of one question share their tests
def _asserts(setup: str, sources: tuple[str, ...], entry: str, prompt: str) -> Asserts:
    try:
        prompt = _complete(prompt)
        parts = [part.replace("\r\n", "\n") for part in (setup, *sources)]
        source = "\n".join(parts)
        starts = tuple(itertools.accumulate((part.count("\n") + 1 for part in parts[:-1]), initial=1))[1:]
        helpers, tree = ast.parse(prompt), ast.parse(source)
        if any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body):
            if not entry:
                raise BadTests("tests that define check(candidate) need an entry_point")
            tree.body += ast.parse(f"check({entry})").body
        tree.body = [node for node in tree.body if not _imports_program(node)]
        names, modules = _stand_ins(tree, helpers, entry.partition("(")[0].partition(".")[0])
        mentioned = _mentioned(tree)
        prints = bool({"stdout", "redirect_stdout"} & mentioned)
        if not names:
            raise BadTests("the tests call no function of the program")
        return Asserts(
            prompt=prompt,
            helpers=compile(helpers, "prompt", "exec", dont_inherit=True),
            tests=compile(tree, "tests", "exec", dont_inherit=True),
            names=frozenset(names),
            modules=frozenset(modules),
            collected=_collected(tree),
            objects=any(name.lstrip("_")[:1].isupper() for name in names & _operated(tree)),
            changes=arguments.shown(tree, names),
            prints=prints,
            beyond=frozenset((_BEYOND & mentioned) - names - ({"patch"} if prints else set())),
            source=source,
            starts=starts if len(sources) > 1 else (),
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadTests(f"the tests are not Python: {error}") from None


def _imports_program(node: ast.stmt) -> bool:
    """Whether a statement imports names from the program, by whichever name it calls it: a module that isn't there."""
    if not isinstance(node, ast.ImportFrom) or not node.module or any(alias.asname or alias.name == "*" for alias in node.names):
        return False
    top = node.module.partition(".")[0]
    return node.level > 0 or (top not in sys.stdlib_module_names and importlib.util.find_spec(top) is None)


def _mentioned(tree: ast.Module) -> set[str]:
    """What tests use of Python's: names that they don't define themselves, attributes, and what they patch by its full name."""
    names: set[str] = set()
    bound = _bound(ast.Module([node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)], []))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (names if isinstance(node.ctx, ast.Load) else bound).add(node.id)
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return (names - bound) | attributes | {_PATCHED[text] for text in texts & _PATCHED.keys()}


def _operated(tree: ast.Module) -> set[str]:
    """Names that tests call, or of which they want an attribute."""
    uses = (node for node in ast.walk(tree) if isinstance(node, ast.Call | ast.Attribute))
    operands = (node.func if isinstance(node, ast.Call) else node.value for node in uses)
    return {operand.id for operand in operands if isinstance(operand, ast.Name)}


def _collected(tree: ast.Module) -> tuple[str, ...]:
    called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    tests = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test") and len(node.args.args) == len(node.args.defaults):
            tests.append(node.name)
        if isinstance(node, ast.ClassDef) and (node.name.startswith("Test") or any("TestCase" in ast.unparse(base) for base in node.bases)):
            tests.append(node.name)
    return tuple(name for name in tests if name not in called)


def _stand_ins(tree: ast.Module, helpers: ast.Module, entry: str) -> tuple[set[str], set[str]]:
    """(names that the program has to define, modules that are used without an import).

    The program defines what the tests use and nobody else defines. Classes of the prompt are the program's, too: tests make objects of
    them for it. A builtin counts only if it is the entry point, or if the tests call nothing else.
    """
    classes = {node.name for node in helpers.body if isinstance(node, ast.ClassDef)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | _bound(tree) | (_bound(helpers) - {entry} - classes)
    used = {node.id for node in names} - bound
    attributed = {node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    modules = used & attributed & sys.stdlib_module_names
    wanted = {name for name in used - modules if not hasattr(builtins, name)} | ({entry} if entry else set())
    if not wanted:
        wanted = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)} & used
    return wanted, modules


def _bound(tree: ast.Module) -> set[str]:
    """Names that a module defines or imports, and the parameters of its functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            names.add(node.name or "")
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


def _complete(prompt: str) -> str:
    """A prompt as a module: its last function, or method, may lack a body."""
    try:
        ast.parse(prompt)
    except SyntaxError:
        heads = re.findall(r"^([ \t]*)(?:async[ \t]+)?def[ \t]", prompt, re.MULTILINE)
        return f"{prompt.rstrip()}\n{heads[-1] if heads else ''}    pass\n"
    return prompt


def _pair(pair: Mapping[str, Any]) -> Pair:
    given, expected, exact = pair.get("input"), pair.get("output"), pair.get("exact", False)
    if set(pair) - {"exact"} != {"input", "output"} or not (isinstance(given, str) and isinstance(expected, str) and type(exact) is bool):
        raise BadTests("a test of a program that reads and prints is {input: text, output: text}, and may say exact: true")
    return Pair(given, expected, exact)


def _text(tests: Mapping[str, Any], name: str) -> str:
    value = tests.get(name) or ""
    if not isinstance(value, str):
        raise BadTests(f"{name} must be a text")
    return value


def _lines(value: Any) -> str:
    return "\n".join(_sources(value))


def _sources(value: Any) -> tuple[str, ...]:
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines) or (value and not "".join(lines).strip()):
        raise BadTests("tests must be a text, a list of texts (assertions), or a list of {input, output}")
    return tuple(lines)
