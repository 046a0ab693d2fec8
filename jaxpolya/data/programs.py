"""The tests of a code question, put together from the columns that the public sets spread them over.

HumanEval has `test` (a `check(candidate)`), `entry_point` and a prompt that the program goes on with; MBPP has `test_list` (assertions) and
`test_setup_code` or `test_imports`. `verify.code` reads what is made here.
"""

from collections.abc import Mapping
from typing import Any

TESTS = ("tests", "test", "test_list")
"""Columns that hold tests, in the order in which they are looked for."""
_BESIDE = ("entry_point", "test_setup_code", "test_imports")


def column(cells: Mapping[str, Any]) -> str:
    """The column of a row that holds tests: the first that is there, else `tests`."""
    return next((name for name in TESTS if name in cells), "tests")


def assemble(tests: Any, cells: Mapping[str, Any], question: str) -> Any:
    """Tests with what their row says beside them. A question that begins the very function it asks for is a prompt to go on with."""
    if isinstance(tests, Mapping) or (isinstance(tests, list) and any(isinstance(test, Mapping) for test in tests)):
        return tests
    beside = {name: cells[name] for name in _BESIDE if cells.get(name)}
    if f"def {beside.get('entry_point')}(" in question:
        beside["prompt"] = question
    return {"tests": tests, **beside} if beside else tests
