"""Math-Verify for what the exact forms leave: each text as one formula in its LaTeX grammar, never as Python.

Limits come first, since a computer algebra system can be led to compute for ever. Math-Verify's own timeouts are off: they use
SIGALRM, which needs a process's main thread, and a worker's deadline belongs to its parent.
"""

import functools
import logging
import re

from jaxpolya.verify.mathematics.expression import TooLarge
from jaxpolya.verify.mathematics.structure import Items, Matrix, Shape, Union

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off, which is meant

_HARD = re.compile(r"\\(?:sum|prod|int|lim|binom|dbinom)(?![A-Za-z])|!")
_DIGITS = re.compile(r"\d+", re.ASCII)


def _affordable(text: str) -> bool:
    """Whether a text may be given to a computer algebra system: short, shallow, without large powers, factorials or ranges."""
    depth = deepest = towers = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        deepest = max(deepest, depth)
        towers += char == "^"
    largest = max((int(digits) if len(digits) < 20 else 10**20 for digits in _DIGITS.findall(text)), default=0)
    if len(text) > 400 or deepest > 12 or towers > 20 or re.search(r"\^\W*\d+\W*\^|\^\s*\{[^{}]*\^", text):
        return False
    if _HARD.search(text) and largest > 100:
        return False
    exponents = [int(match) for match in re.findall(r"\^\s?[({]?\s?[({]?-?(\d{1,20})", text)]
    return max(exponents, default=0) <= 100


class Unparsed(Exception):
    """An answer on which Math-Verify itself fails."""


def same_by_algebra(gold: str, answer: str) -> bool:
    """Math-Verify's verdict on two formulas, each as a whole. Raises `TooLarge` before it would cost too much, and `Unparsed`."""
    from math_verify import verify

    for text in (gold, answer):
        if not _affordable(text):
            raise TooLarge("too large to compare")
    try:
        left, right = _parsed(gold), _parsed(answer)
        return bool(left and right) and verify(left, right, timeout_seconds=None, allow_set_relation_comp=True)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # any of sympy's and antlr's, on text that is not ours
        raise Unparsed(f"math-verify: {type(error).__name__}") from error


@functools.lru_cache(maxsize=1024)
def _parsed(text: str) -> list[object]:
    from math_verify import LatexExtractionConfig, parse

    return parse(f"${text}$", extraction_config=[LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)  # type: ignore[arg-type]


def latex_of(given: Shape) -> str:
    """A structure as LaTeX again."""
    if isinstance(given, Matrix):
        return r"\begin{pmatrix}" + r"\\".join("&".join(latex_of(entry) for entry in row) for row in given.rows) + r"\end{pmatrix}"
    if isinstance(given, Union):
        return r"\cup ".join(latex_of(part) for part in given.parts)
    if isinstance(given, Items):
        opening, closing = (r"\{", r"\}") if given.brackets == "{}" else (given.brackets[:1], given.brackets[1:])
        return opening + ",".join(latex_of(item) for item in given.items) + closing
    return given.text
