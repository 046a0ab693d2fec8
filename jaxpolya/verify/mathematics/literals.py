"""Numerals: the ways to write down a number that has been worked out.

An integer, a decimal, a repeating decimal, a mixed number, a fraction of integers, `c × 10^k`, digits in a base, words ("twenty-one").
Everything else that has a value (97 * 49, \\binom{5}{2}, \\sqrt{4}) still has to be computed by whoever reads it, and is no numeral.
"""

import functools
import math
import re
from fractions import Fraction
from typing import NamedTuple

from jaxpolya.verify.mathematics.expression import Node, TooLarge, Unreadable, evaluate, read


class Numeral(NamedTuple):
    """A number as it was written."""

    value: Fraction
    decimal: bool = False
    """Whether it is a decimal (its digits may be rounded); integers and fractions are exact."""
    digits: int = 0
    """Significant digits of a decimal."""
    places: int = 0
    """Digits behind the point of a decimal."""
    repeating: bool = False
    """Whether it is a decimal that repeats for ever."""
    fraction: tuple[int, int] | None = None
    """Numerator and denominator as they were written, of a fraction of integers or of a mixed number's fraction."""

    def scaled(self, factor: Fraction) -> "Numeral":
        """The number times a factor, which is 1 or (for a percentage) 1/100."""
        return self if factor == 1 else self._replace(value=self.value * factor, places=self.places + 2)


@functools.lru_cache(maxsize=8192)
def numeral(text: str) -> Numeral | None:
    """The number that a text in normal form writes down, or None. Digits in a base are `based`'s."""
    if (repeated := _repeating(text)) is not None:
        return Numeral(repeated, repeating=True)
    if in_words := spelled(text):
        return in_words
    text = text.replace(r"\ldots", "") if re.fullmatch(r"-?\d*\.\d+\\ldots", text, re.ASCII) else text
    try:
        node = read(text)
        sign, node = signed(node)
        value = _value(node)
    except (Unreadable, TooLarge):
        return None
    if value is None or (node.op == "div" and "." in text):
        return None
    decimal = re.fullmatch(r"[-+]?\(?(\d*\.\d+)\)?", text.replace(" ", ""), re.ASCII)
    shown = decimal.group(1) if decimal else ""
    return Numeral(
        value=sign * value,
        decimal=bool(decimal),
        digits=len(shown.replace(".", "").lstrip("0")),
        places=len(shown.partition(".")[2]),
        fraction=_fraction(node.args[1] if node.op == "mixed" else node),
    )


def kind_of(text: str, percent: bool = False) -> str | None:
    """How a numeral is written: `plain` (an integer or a decimal), `fraction`, `mixed`, `power` (of ten), `repeating`, `percent`."""
    number = numeral(text)
    if number is None:
        return None
    if percent or number.repeating:
        return "percent" if percent else "repeating"
    if number.fraction:
        return "fraction" if number.value == Fraction(*number.fraction) else "mixed"
    return "power" if "10^" in text else "plain"


def written(text: str) -> tuple[Fraction, tuple[int, int] | None]:
    """(value, fraction as it is written) of a numeral, without signs. Raises `Unreadable` where a text is none."""
    if (number := numeral(text)) is None:
        raise Unreadable("not a numeral")
    return abs(number.value), number.fraction and (abs(number.fraction[0]), abs(number.fraction[1]))


def is_reduced(fraction: tuple[int, int]) -> bool:
    """Whether a fraction is in lowest terms and no integer."""
    return math.gcd(*fraction) == 1 and abs(fraction[1]) != 1


@functools.lru_cache(maxsize=8192)
def is_numeral(node: Node) -> bool:
    """Whether an expression only writes down a number."""
    return _value(signed(node)[1]) is not None


def numeral_value(node: Node) -> Fraction:
    """The number that an expression writes down. Raises `Unreadable` where it is no numeral."""
    sign, unsigned = signed(node)
    if (value := _value(unsigned)) is None:
        raise Unreadable("not a numeral")
    return sign * value


def signed(node: Node) -> tuple[int, Node]:
    """(sign, expression without it)."""
    sign = 1
    while node.op == "neg":
        sign, node = -sign, node.args[0]
    return sign, node


def _value(node: Node) -> Fraction | None:
    """The value of a numeral without a sign."""
    if node.op == "num":
        return node.args[0]
    if (fraction := _fraction(node)) and all(fraction):  # 0/7 is a division that is still to be done
        return Fraction(*fraction)
    if node.op == "mixed" and node.args[0].args[0]:
        return node.args[0].args[0] + Fraction(*(_fraction(node.args[1]) or (0, 1)))
    if _power_of_ten(node):
        return _computed(node)
    if node.op == "mul":
        (_, left), right = signed(node.args[0]), node.args[1]
        if left.op == "num" and _power_of_ten(right):
            return _computed(node)
    return None


def _computed(node: Node) -> Fraction | None:
    value = evaluate(node)
    return value if isinstance(value, Fraction) else None


def _fraction(node: Node) -> tuple[int, int] | None:
    if node.op != "div":
        return None
    parts = []
    for sign, part in map(signed, node.args):
        if part.op != "num" or part.args[0].denominator != 1:
            return None
        parts.append(sign * int(part.args[0]))
    return parts[0], parts[1]


def _power_of_ten(node: Node) -> bool:
    if node.op != "pow":
        return False
    _, exponent = signed(node.args[1])
    return node.args[0] == Node("num", (Fraction(10),)) and exponent.op == "num" and exponent.args[0].denominator == 1


# Repeating decimals -------------------------------------------------------------------------------------------------------

_MARKED = re.compile(r"(-?)(\d*)\.(\d*)(?:\\(?:overline|bar)\s?(?:\{(\d+)\}|(\d))|\((\d+)\))", re.ASCII)
_DOTTED = re.compile(r"(-?)(\d*)\.(\d*)\\dot\s?(?:\{(\d)\}|(\d))(?:(\d*)\\dot\s?(?:\{(\d)\}|(\d)))?", re.ASCII)
_GOING_ON = re.compile(r"(-?)(\d*)\.(\d+)\\ldots", re.ASCII)


def _repeating(text: str) -> Fraction | None:
    """0.1\\overline{6}, 0.1\\dot{6}, 0.\\dot{1}4\\dot{2}, 0.1666\\ldots (a cycle that is seen twice, three times if it is one digit)."""
    if marked := _MARKED.fullmatch(text):
        sign, whole, lead, *cycle = marked.groups()
        return _repeated(sign, whole, lead, next(filter(None, cycle)))
    if dotted := _DOTTED.fullmatch(text):
        sign, whole, lead, *dots = dotted.groups()
        return _repeated(sign, whole, lead, "".join(filter(None, dots)))
    if going_on := _GOING_ON.fullmatch(text):
        sign, whole, digits = going_on.groups()
        for length in range(1, len(digits) // 2 + 1):
            tail = digits[-length:]
            if digits.endswith(tail * (3 if length == 1 else 2)):
                return _repeated(sign, whole, digits[: len(digits) - length], tail)
    return None


def _repeated(sign: str, whole: str, lead: str, cycle: str) -> Fraction:
    value = Fraction(int((whole or "0") + lead), 10 ** len(lead)) + Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(lead))
    return -value if sign else value


# Bases --------------------------------------------------------------------------------------------------------------------

_DIGITS = r"(-?)\(?((?:\d|[A-Z](?![a-z])|[a-f](?![a-z]))+)\)?"
_BASED = re.compile(rf"{_DIGITS}(?:_\(?(?:base)?|\(?(?:in)?base-?)([a-z]+|\d{{1,2}})\)?", re.ASCII)
_WORDED = re.compile(r"\\(?:text|mathrm|textrm|mbox)\{([^{}]*)\}")


def based(text: str) -> tuple[str, int] | None:
    """(digits with their sign, base) of a number that names its base: 4210_5, (4210)_{\\text{five}}, 4210 base 5."""
    if prefixed := re.fullmatch(r"(-?)0([xbo])([0-9A-Fa-f]+)", text, re.ASCII):
        return prefixed.group(1) + (prefixed.group(3).upper().lstrip("0") or "0"), {"x": 16, "b": 2, "o": 8}[prefixed.group(2)]
    if "_" not in text and "base" not in text:
        return None
    match = _BASED.fullmatch(re.sub(r"[{}\s]|\\overline", "", _WORDED.sub(r"\1", text)))
    if not match:
        return None
    sign, digits, base = match.group(1), match.group(2).upper(), match.group(3)
    named = int(base) if base.isdigit() else _SMALL.get(base, 0)
    return (sign + (digits.lstrip("0") or "0"), named) if 2 <= named <= 36 else None


def based_value(digits: str, base: int) -> int | None:
    """The integer that digits in a base stand for; None where a digit is too large."""
    try:
        return int(digits, base)
    except ValueError:
        return None


# Words --------------------------------------------------------------------------------------------------------------------

_SMALL = {
    word: number
    for number, word in enumerate(
        (
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
            "nineteen"
        ).split()
    )
} | {word: 10 * number for number, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
MAGNITUDES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
          "tenth": 10, "hundredth": 100, "thousandth": 1000}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def spelled(text: str) -> Numeral | None:
    """A number in English words: "twenty-one", "two hundred and five", "three quarters", "minus four"."""
    words = re.findall(r"[a-z]+", text.casefold())
    if not words or re.search(r"[^A-Za-z\s,-]", text) or len(words) > 20:
        return None
    negative = words[0] in ("minus", "negative")
    words = [word for word in words[negative:] if word not in ("and", "a")]
    if words and (parts := _PARTS.get(words[-1]) or _PARTS.get(words[-1].removesuffix("s"))):
        count = _cardinal(words[:-1]) if words[:-1] else 1 if words == ["half"] else None
        fraction = None if count is None else Numeral(Fraction(count, parts), fraction=(count, parts))
        return fraction and (fraction._replace(value=-fraction.value) if negative else fraction)
    number = _cardinal(words)
    return None if number is None else Numeral(Fraction(-number if negative else number))


def _cardinal(words: list[str]) -> int | None:
    """The integer in words; each is smaller than what stands before it, unless it is a magnitude that multiplies it."""
    total, group, last = 0, 0, 1000
    for word in words:
        if word in _SMALL:
            number = _SMALL[word]
            if number >= last:
                return None
            group, last = group + number, 10 if number >= 20 else 1
        elif word == "hundred":
            if group >= 10:
                return None
            group, last = (group or 1) * 100, 100
        elif word in MAGNITUDES:
            if total and MAGNITUDES[word] >= total:
                return None
            total, group, last = total + (group or 1) * MAGNITUDES[word], 0, 1000
        else:
            return None
    return total + group if words else None
