"""Whether changes of arguments are shown to tests."""

import ast

import pytest

from jaxpolya.verify import code
from jaxpolya.verify.programs.arguments import shown
from jaxpolya.verify.sandbox.sandbox import SandboxError


@pytest.mark.parametrize(
    "tests",
    [
        "xs = [1, 1, 2]\nk = f(xs)\nassert k == 2 and xs[:k] == [1, 2]", "xs = [2, 1]\nassert f(xs) == [1, 2]\nassert xs == [2, 1]",
        "xs = [2]\nys = f(xs)\nassert ys == [2]\nassert len(xs) == 1", "s = Solution()\nxs = [1]\nassert s.f(xs) == 1\nassert xs == []",
        "def check(candidate):\n    xs = [3]\n    assert candidate(xs) == 1\n    assert xs == [3]\ncheck(f)",
        "class T(TestCase):\n    def test(self):\n        xs = [3]\n        k = f(xs)\n"
        "        self.assertEqual(k, 1)\n        self.assertEqual(xs, [3])",
    ],
)  # fmt: skip
def test_changes_that_tests_are_about_are_shown(tests):
    assert shown(ast.parse(tests), {"f", "Solution"})


@pytest.mark.parametrize(
    "tests",
    [
        "assert f([1]) == [1]", "xs = [1]\nassert f(xs) == [1]", "xs = [2, 1]\nassert f(xs) == sorted(xs)", "xs = [1]\nassert f(xs) == xs",
        "xs = [1]\nr = f(xs)\nassert r == sum(xs)", "xs = [1]\nr = f(xs)\ne = max(xs)\nassert r == e",
        "xs = [1]\nassert max(xs) in (f(xs), 1)", "import math\nxs = [1]\nassert math.isclose(f(xs), sum(xs))",
        "xs = [1]\nr = f(xs)\nq = r + 1\nassert q == len(xs) + 1", "xs = [1]\nassert same(f(xs), xs)",
        "for xs, e in [([1], 1)]:\n    assert f(xs) == e",
        "class T(TestCase):\n    def test(self):\n        self.assertEqual(f(xs), sorted(xs))",
        "xs = [1]\nassert all(a == b for a, b in zip(f(xs), xs))",
        "def check(candidate):\n    xs = [3]\n    assert candidate(xs) == len(xs)\ncheck(f)",
    ],
)  # fmt: skip
def test_changes_that_could_help_a_program_are_not(tests):
    assert not shown(ast.parse(tests), {"f"})


def test_a_program_can_not_change_what_is_expected_of_it():
    try:
        code.sandbox()
    except SandboxError as error:
        pytest.skip(f"no program can be run on this machine: {error}")
    emptied = "def f(xs):\n    xs.clear()\n    return []"
    assert code.judge("xs = [2, 1]\nassert f(xs) == sorted(xs)", emptied, 60.0)[0] == "wrong"
    assert code.judge("xs = [2, 1]\nassert f(xs) == [] and xs == []", emptied, 60.0) == ("correct", None)
    assert code.judge("xs = [2, 1]\nassert f(xs) == []\nassert xs == [2, 1]", emptied, 60.0)[0] == "wrong"
    dedupe = "def f(xs):\n    ys = sorted(set(xs))\n    xs[:len(ys)] = ys\n    return len(ys)"
    assert code.judge("xs = [1, 1, 2]\nk = f(xs)\nassert k == 2 and xs[:k] == [1, 2]", dedupe, 60.0) == ("correct", None)
