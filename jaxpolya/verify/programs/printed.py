"""Whether a program printed what it should, as the field's judges see it.

Lines are compared as tokens, so that white space within them, at their ends and at the end of the output doesn't count, and numbers as
numbers: `2.5`, `2.50` and `2.500000` are one, to 1e-6 relative or absolute. A whole number that is expected is met by itself and by its
own value as a decimal, never by a neighbour, however large it is. Where white space is what a test is about, it counts: in a
test that says `exact`, and where the expected output begins a line with white space or sets words apart by more than a space.
"""

import math
import re
from decimal import Decimal

TOLERANCE = 1e-6
_NUMBER = re.compile(r"([\[({$]*)([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?)([\])},;:%]*)", re.ASCII)


def same(printed: str, expected: str, exact: bool = False) -> bool:
    """Whether an output is the expected one."""
    got, wanted = _lines(printed), _lines(expected)
    if got == wanted:
        return True
    if exact or len(got) != len(wanted) or any(map(_is_layout, wanted)):
        return False
    return all(_same_line(one, other) for one, other in zip(got, wanted, strict=True))


def _lines(text: str) -> list[str]:
    """The lines of an output without white space at their ends, and without empty lines at its end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _is_layout(line: str) -> bool:
    """Whether white space is part of what a line says."""
    tokens = line.split()
    return line[:1].isspace() or (" ".join(tokens) != line and not all(map(_NUMBER.fullmatch, tokens)))


def _same_line(printed: str, expected: str) -> bool:
    got, wanted = printed.split(), expected.split()
    return len(got) == len(wanted) and all(map(_same_token, got, wanted))


def _same_token(printed: str, expected: str) -> bool:
    if printed == expected:
        return True
    got, wanted = _NUMBER.fullmatch(printed), _NUMBER.fullmatch(expected)
    if not (got and wanted and got[1] == wanted[1] and got[3] == wanted[3]):
        return False
    if re.fullmatch(r"[+-]?\d+", wanted[2]):
        return "." in got[2] and Decimal(got[2]) == Decimal(wanted[2])
    one, other = float(got[2]), float(wanted[2])
    return math.isfinite(other) and abs(one - other) <= TOLERANCE * max(1.0, abs(other))
