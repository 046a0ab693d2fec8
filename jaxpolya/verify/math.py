"""Whether an answer is the gold answer, by the gold's type.

The gold says what is compared: a number, an expression, a list, a tuple or interval, a set, a union, a matrix, an equation, an
inequality, words. Structure is taken apart here, and leaves are compared exactly where they are arithmetic, as decimals
where they are decimals, by value where they are closed forms (`expression`), and by Math-Verify where they are anything else.

Policy where opinions differ: 5 % is not 5 unless the gold has the percent sign; an ordered tuple is not a set, an open interval
not a closed one, and a bare list is either of them; an exact value equals a decimal that shows at least 6 significant digits of
it, or a gold decimal that it rounds to (at least 3 digits); a unit that the gold lacks doesn't matter, one that contradicts it does;
words and choice letters compare without case; several candidates are not one answer.

Model text is never given to sympy's own parsers, which execute Python. What reaches Math-Verify's LaTeX grammar has passed the
limits below, and Math-Verify's SIGALRM timeouts are off: a worker's deadline belongs to its parent.
"""

import math
import re
from fractions import Fraction

from jaxpolya.records import Unevaluated
from jaxpolya.verify.algebra import Unparsed, latex_of, same_by_algebra
from jaxpolya.verify.expression import Node, TooLarge, Unreadable, evaluate, names, read, same
from jaxpolya.verify.latex import folded, normal, squeezed, words
from jaxpolya.verify.relations import interval, same_relation, sides_equal
from jaxpolya.verify.structure import UNITS, Items, Leaf, Matrix, Relation, Shape, Union, Words, shape, value_of

MAX_ANSWER = 2000
"""Longest answer in characters; a longer one is none."""


def judge(gold: str, answer: str, *, question: str = "", unevaluated: Unevaluated = "refuse") -> str | None:
    """None where the answer is right; else why not, in a few words, or "" where it is just another answer."""
    return None if equal(gold, answer) else ""


def equal(gold: str, answer: str, digits: int = 6) -> bool:
    """Whether an answer is the gold answer under the policy above.

    `digits` is the number of significant digits that a decimal must show to stand for an exact value. Raises `TooLarge` where
    the answer is beyond what is computed, and `Unparsed` where Math-Verify fails on it: it is not right then.
    """
    if max(len(gold), len(answer)) > MAX_ANSWER:
        raise TooLarge(f"an answer of more than {MAX_ANSWER} characters")
    gold_text, answer_text = normal(gold), normal(answer)
    if not answer_text:
        return False
    if squeezed(gold_text) == squeezed(answer_text):
        return True
    if _decimal_comma(gold_text, answer_text) or _decimal_comma(answer_text, gold_text):
        return True
    if r"\text" in gold_text and folded(gold) == folded(answer):
        return True
    return _Comparison(digits).shapes(shape(gold_text), shape(answer_text))


def _decimal_comma(comma: str, point: str) -> bool:
    """1,22 for 1.22: the same digits, where the point is a decimal point without doubt."""
    return bool(re.fullmatch(r"-?(?:0,\d+|\d+,(?!\d{3}$)\d+)", comma, re.ASCII)) and comma.replace(",", ".") == point


class _Comparison:
    """Shapes compared under one setting; the gold is always the left one."""

    def __init__(self, digits: int):
        self.digits = digits

    def shapes(self, gold: Shape, answer: Shape) -> bool:
        if gold == answer:
            return True
        if isinstance(answer, Relation) and not isinstance(gold, Relation):
            return self.shape_and_relation(gold, answer)
        if isinstance(gold, Relation):
            return self.relation(gold, answer)
        if isinstance(gold, Words):
            return self.words(gold, answer)
        if isinstance(gold, Matrix):
            return self.matrix(gold, answer)
        if isinstance(gold, Union) or isinstance(answer, Union):
            return isinstance(gold, Union) and self.union(gold, answer)
        if isinstance(gold, Items):
            return self.items(gold, answer)
        if isinstance(answer, Items) and answer.brackets == "":  # the same answer in several forms
            return all(isinstance(item, Leaf) and self.leaves(gold, item) for item in answer.items)
        return isinstance(answer, Leaf) and self.leaves(gold, answer)

    def words(self, gold: Words, answer: Shape) -> bool:
        if isinstance(answer, Words):
            return words(gold.text) == words(answer.text)
        return isinstance(answer, Leaf) and words(gold.text) == words(answer.text + " " + answer.unit)

    def matrix(self, gold: Matrix, answer: Shape) -> bool:
        if not isinstance(answer, Matrix):
            return isinstance(answer, Leaf) and same_by_algebra(latex_of(gold), answer.text)
        if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
            return False
        return all(self.shapes(g, a) for rows in zip(gold.rows, answer.rows, strict=True) for g, a in zip(*rows, strict=True))

    def union(self, gold: Union, answer: Shape) -> bool:
        if isinstance(answer, Items) and not answer.brackets:  # x<1 or x>2
            answer = Union(answer.items)
        if not isinstance(answer, Union):
            return False
        return self.unordered(gold.parts, tuple(interval(part) or part if isinstance(part, Relation) else part for part in answer.parts))

    def items(self, gold: Items, answer: Shape) -> bool:
        if gold.brackets == "::":
            return self.ratio(gold, answer)
        if not isinstance(answer, Items):
            return False
        named = {gold.brackets, answer.brackets} - {"", "±"}  # a bare list is whatever the other one is, but no interval
        if not named or named == {"{}"}:
            return self.unordered(gold.items, answer.items)
        return (gold.brackets == answer.brackets or named == {"()"}) and self.ordered(gold.items, answer.items)

    def ratio(self, gold: Items, answer: Shape) -> bool:
        if isinstance(answer, Leaf) and len(gold.items) == 2:  # 1:2 is a half
            return self.leaves(Leaf("({})/({})".format(*(latex_of(item) for item in gold.items))), answer)
        if not isinstance(answer, Items) or answer.brackets != "::" or len(gold.items) != len(answer.items):
            return False
        left, right = [_number(item) for item in gold.items], [_number(item) for item in answer.items]
        if None in left or None in right or 0 in left or 0 in right:
            return self.ordered(gold.items, answer.items)
        return len({g / a for g, a in zip(left, right, strict=True)}) == 1  # type: ignore[operator]

    def ordered(self, gold: tuple[Shape, ...], answer: tuple[Shape, ...]) -> bool:
        return len(gold) == len(answer) and all(self.shapes(g, a) for g, a in zip(gold, answer, strict=True))

    def unordered(self, gold: tuple[Shape, ...], answer: tuple[Shape, ...]) -> bool:
        left = list(answer) if len(gold) == len(answer) else list(dict.fromkeys(answer))
        if len(gold) != len(left):
            return False
        for item in gold:
            index = next((index for index, other in enumerate(left) if self.settled(item, other)), None)
            if index is None:
                return False
            del left[index]
        return True

    def settled(self, gold: Shape, answer: Shape) -> bool:
        """As `shapes`, for pairs that need not belong together: what can't be compared is not equal."""
        try:
            return self.shapes(gold, answer)
        except (TooLarge, Unparsed):
            return False

    def shape_and_relation(self, gold: Shape, answer: Relation) -> bool:
        if isinstance(gold, (Items, Union)) and (span := interval(answer)):
            return self.shapes(gold, span)
        value = value_of(answer)
        return value is not None and self.shapes(gold, value)

    def relation(self, gold: Relation, answer: Shape) -> bool:
        if isinstance(answer, Relation):
            if sides_equal(gold, answer):
                return True
            gold_value, answer_value = value_of(gold), value_of(answer)
            if gold_value and answer_value and squeezed(gold.sides[0]).casefold() == squeezed(answer.sides[0]).casefold():
                return self.shapes(gold_value, answer_value)
            verdict = same_relation(gold, answer)
            if verdict is not None:
                return verdict
            return bool(_letters(gold.text)) and same_by_algebra(gold.text, answer.text)
        if (span := interval(gold)) and isinstance(answer, (Items, Union)):
            return self.shapes(span, answer)
        if isinstance(answer, Union) and len(gold.sides) == 3:
            return same_by_algebra(gold.text, latex_of(answer))
        value = value_of(gold)
        return value is not None and self.shapes(value, answer)

    def leaves(self, gold: Leaf, answer: Leaf) -> bool:
        if answer.percent and not gold.percent and re.fullmatch(r"-?\d+", gold.text, re.ASCII):
            return False
        if not _units_agree(gold.unit, answer.unit):
            return False
        if gold.percent and not answer.percent:
            return self.values(gold.text, answer.text) or self.values(f"({gold.text})/100", answer.text)
        if answer.percent and not gold.percent:
            return self.values(gold.text, f"({answer.text})/100")
        return self.values(gold.text, answer.text)

    def values(self, gold: str, answer: str) -> bool:
        if squeezed(gold) == squeezed(answer):
            return True
        repeating, based = _REPEATING.fullmatch(gold), _BASE.fullmatch(gold)
        if repeating:
            return _rounds_to(_repeated(repeating), answer)
        if other := _BASE.fullmatch(answer):
            return based is not None and other.groups() == based.groups()
        if based:
            return answer == based.group(1)
        try:
            left = read(gold)
        except Unreadable:
            return same_by_algebra(gold, answer)
        try:
            right = read(answer)
            verdict = same(left, right)
        except Unreadable:
            return not names(left) ^ _letters(answer) and same_by_algebra(gold, answer)
        if verdict:
            return True
        if _DECIMAL.fullmatch(gold) or _DECIMAL.fullmatch(answer):
            return self.decimals(gold, left, answer, right)
        return same_by_algebra(gold, answer) if verdict is None else False

    def decimals(self, gold: str, left: Node, answer: str, right: Node) -> bool:
        """Whether one is the other rounded: a decimal that shows `digits` digits, or a gold one that shows 3. Integers are exact."""
        if names(left) or names(right):
            return False
        first, second = evaluate(left), evaluate(right)
        if isinstance(first, Fraction) and first.denominator == 1:
            return False
        shown = {side: _significant(side) for side in (gold, answer) if _DECIMAL.fullmatch(side)}
        if len(shown) == 1 and gold in shown:
            return shown[gold] >= 3 and _agree(first, second, shown[gold])
        if len(shown) == 2:
            places, more = sorted(len(side.partition(".")[2]) for side in (gold, answer))
            if places == more or abs(Fraction(gold) - Fraction(answer)) > Fraction(1, 2 * 10**places):
                return False
        return min(shown.values()) >= self.digits and _agree(first, second, self.digits)


_DECIMAL = re.compile(r"-?\d*\.\d+", re.ASCII)
_REPEATING = re.compile(r"(-?\d*)\.(\d*)\\(?:overline|bar)\{(\d+)\}", re.ASCII)
_BASE = re.compile(r"(-?\d+)_\{?(\d{1,2})\}?", re.ASCII)


def _letters(text: str) -> set[str]:
    """The variables that an unread text seems to have."""
    bare = re.sub(r"\\[A-Za-z]+", " ", text)
    return set(re.findall(r"[A-Za-z]", bare)) - {"e", "i"}


def _significant(decimal: str) -> int:
    return len(decimal.lstrip("-").replace(".", "").lstrip("0"))


def _agree(first: Fraction | complex, second: Fraction | complex, digits: int) -> bool:
    """Whether two reals are one when rounded to a number of significant digits: they differ by half a unit at most."""
    try:
        first, second = complex(first), complex(second)
    except OverflowError:
        return False
    size = max(abs(first), abs(second))
    if size == 0 or not math.isfinite(size) or abs(first.imag) + abs(second.imag) > 0:
        return size == 0
    unit = 10.0 ** (math.floor(math.log10(size)) - digits + 1)
    return abs(first - second) <= 0.5000001 * unit


def _repeated(match: re.Match[str]) -> Fraction:
    whole, lead, cycle = match.groups()
    magnitude = Fraction(int((whole.lstrip("-") or "0") + lead), 10 ** len(lead)) + Fraction(
        int(cycle), (10 ** len(cycle) - 1) * 10 ** len(lead)
    )
    return -magnitude if whole.startswith("-") else magnitude


def _rounds_to(value: Fraction, answer: str) -> bool:
    """A repeating decimal can't be written out: any of its roundings stands for it, as does its exact value."""
    if repeating := _REPEATING.fullmatch(answer):
        return _repeated(repeating) == value
    if _DECIMAL.fullmatch(answer):
        return abs(Fraction(answer) - value) <= Fraction(1, 2 * 10 ** len(answer.partition(".")[2]))
    try:
        return evaluate(read(answer)) == value
    except Unreadable:
        return False


def _units_agree(gold: str, answer: str) -> bool:
    """Units may be missing or unknown; two known ones must be the same."""
    known = [UNITS.get(unit) for unit in (gold, answer)]
    return None in known or known[0] == known[1]


def _number(item: Shape) -> Fraction | None:
    if isinstance(item, Leaf):
        try:
            value = evaluate(read(item.text))
        except Unreadable:
            return None
        return value if isinstance(value, Fraction) else None
    return None
