"""Whether an answer is the gold answer, by the gold's type, and whether it has been worked out.

The gold says what is compared: a number, an expression, a list, a tuple or interval, a set, a union, a matrix, an equation, an
inequality, a time, words. Structure is taken apart here, and leaves are compared exactly where they are numerals or arithmetic, as decimals
where they are decimals, by value where they are closed forms (`expression`), and by Math-Verify where they are anything else.

An answer must be worked out, leaf by leaf (units, names and brackets off, a chain of equalities by its last member). RL finds whatever is
paid, and an equal expression can be had by copying the question:
- The gold's own form is right (spelling, order, the value of its numerals aside), whatever the question says.
- Where the gold is a numeral, only a numeral is right (`literals`), and no fraction that puts one number of the question over another
  and isn't in lowest terms; nor the question's own numeral where the gold writes it in another way (3/20 for 0.15).
- Other golds are compared by value, but an answer holds no operation on numbers that the gold doesn't hold (`forms.operations`).
- Where a formula of the question equals the gold, the question is about form: right is the gold's own form, or a constant with no more
  operations than the gold that doesn't stand in the question (`restated`).

Policy where opinions differ: 5 % is not 5 unless the gold has the percent sign, or the style is `number`, where it is a unit; an ordered
tuple is not a set, an open interval not a closed one, and a bare list is either of them; an exact value equals a decimal that shows at
least 6 significant digits of it, or a gold decimal that it rounds to (at least 3 digits); a unit that the gold lacks doesn't matter, one
that contradicts it does; words and choice letters compare without case; several candidates are not one answer; h:mm is a time, and a
ratio only where the question speaks of one.

Model text is never given to sympy's own parsers, which execute Python. What reaches Math-Verify's LaTeX grammar has passed the
limits below, and Math-Verify's SIGALRM timeouts are off: a worker's deadline belongs to its parent.
"""

import math
import re
from collections.abc import Callable
from fractions import Fraction

from jaxpolya.records import Unevaluated
from jaxpolya.verify.mathematics.algebra import Unparsed, latex_of, same_by_algebra
from jaxpolya.verify.mathematics.expression import Node, TooLarge, Unreadable, evaluate, names, read, same
from jaxpolya.verify.mathematics.forms import Form, form, meaning, operations, parts, size
from jaxpolya.verify.mathematics.latex import folded, normal, squeezed, undelimited, words
from jaxpolya.verify.mathematics.literals import Numeral, based, based_value, kind_of, numeral, spelled, written
from jaxpolya.verify.mathematics.relations import interval, same_relation, sides_equal
from jaxpolya.verify.mathematics.restated import (
    asks_about,
    asks_about_relation,
    ends_with_relation,
    formulas,
    numerals_in,
    repeats_relation,
    restates_division,
    stands_in,
)
from jaxpolya.verify.mathematics.structure import (
    Items,
    Leaf,
    Matrix,
    Relation,
    Shape,
    Time,
    Union,
    Words,
    matrices,
    says_something,
    scaled_matrix,
    shape,
    value_of,
)
from jaxpolya.verify.mathematics.units import agree

MAX_ANSWER = 2000
"""Longest answer in characters; a longer one is none."""

NOT_EVALUATED = "not evaluated"
RESTATES = "restates the question"


def judge(
    gold: str,
    answer: str,
    *,
    question: str = "",
    unevaluated: Unevaluated = "refuse",
    percent_is_unit: bool = False,
    digits: int = 6,
) -> str | None:
    """None where the answer is right; else why an equal one is not, or "" where it is just another answer.

    Args:
      gold: the reference.
      answer: what was extracted.
      question: what was asked, where it is known.
      unevaluated: whether an equal answer that was not worked out is refused.
      percent_is_unit: whether 5 % is right for 5.
      digits: significant digits that a decimal must show to stand for an exact value.

    Raises:
      TooLarge: the answer is beyond what is computed; it is not right then.
      Unparsed: Math-Verify fails on it; likewise.
    """
    if max(len(gold), len(answer)) > MAX_ANSWER:
        raise TooLarge(f"an answer of more than {MAX_ANSWER} characters")
    gold_text, labelled = normal(gold), _LABELLED.fullmatch(undelimited(answer.strip()))  # (B) 42
    if letter := _CHOICE.fullmatch(gold_text):
        choice = labelled if labelled and not _HEDGE.search(labelled["rest"]) else _CHOICE.fullmatch(normal(answer))
        return None if choice and _letter(choice).casefold() == letter["letter"].casefold() else ""
    answer_text = normal(labelled["rest"] if labelled else answer)
    if _moduli(gold) and _moduli(answer) and _moduli(gold) != _moduli(answer):
        return ""
    if not answer_text:
        return ""
    if squeezed(gold_text) == squeezed(answer_text):
        return None
    if _ROW.fullmatch(gold_text) and not _GROUPED.fullmatch(gold_text):
        return None if _ROW.fullmatch(answer_text) and gold_text.split() == answer_text.split() else ""
    if _decimal_comma(gold_text, answer_text) or _decimal_comma(answer_text, gold_text):
        return None
    if r"\text" in gold_text and folded(gold) == folded(answer):
        return None
    comparison = _Comparison(digits, percent_is_unit, None if unevaluated == "accept" else _DRAWING.sub(" ", question))
    if comparison.shapes(shape(gold_text), shape(answer_text)):
        return None
    if not comparison.refused:
        return ""
    return comparison.refused if _Comparison(digits, percent_is_unit, None).settled(shape(gold_text), shape(answer_text)) else ""


def equal(gold: str, answer: str, digits: int = 6) -> bool:
    """Whether an answer to an unknown question is right. Raises as `judge`."""
    return judge(gold, answer, digits=digits) is None


_LABELLED = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf)\s?\{\s*(?:\((?P<inner>[A-Z])\)|(?P<dotted>[A-Z])\.)\s*\}(?:\s|~|\\[ ,;])*"
    r"|\((?P<outer>[A-Z])\)(?:\s|~|\\[ ,;]|\\quad)+)(?P<rest>\S.*)",
    re.DOTALL,
)
_CHOICE = re.compile(r"(?:(?:option|choice)\s)?(?:\\text\{\s?)?(?:option |choice )?\(?(?P<letter>[A-Za-z])\)?(?:\s?\})?", re.IGNORECASE)
_HEDGE = re.compile(
    r"^[-+*/^<>]|[,;?=]|\b(?:or|and|nor|not|no|wrong|false|incorrect|versus|vs)\b|\(\s?[A-Za-z]{1,4}\s?\)|\b[B-HJ-Z]\b", re.IGNORECASE
)
_MODULUS = re.compile(r"\\[pb]?mod\s?\{?\s?(\w+)|\bmod\s+(\w+)")


def _letter(match: re.Match[str]) -> str:
    return next(filter(None, (match.groupdict().get(name) for name in ("letter", "inner", "dotted", "outer"))))


def _moduli(text: str) -> list[tuple[str, ...]]:
    return _MODULUS.findall(text)


def _decimal_comma(comma: str, point: str) -> bool:
    """1,22 for 1.22: the same digits, where the point is a decimal point without doubt."""
    return bool(re.fullmatch(r"-?(?:0,\d+|\d+,(?!\d{3}$)\d+)", comma, re.ASCII)) and comma.replace(",", ".") == point


class _Comparison:
    """Shapes compared under one setting; the gold is always the left one."""

    def __init__(self, digits: int, percent_is_unit: bool, question: str | None):
        """question: what was asked; None accepts an answer that was not worked out."""
        self.digits, self.percent_is_unit, self.question = digits, percent_is_unit, question
        self.refused = ""
        """Why the last leaf that was equal was refused."""

    def shapes(self, gold: Shape, answer: Shape) -> bool:
        if gold == answer:
            return True
        if isinstance(gold, Words) and spelled(gold.text):
            gold = Leaf(gold.text)
        if isinstance(answer, Relation) and not says_something(answer):
            return False
        if isinstance(answer, Relation) and not isinstance(gold, Relation):
            return self.shape_and_relation(gold, answer)
        if isinstance(gold, Relation):
            return self.relation(gold, answer)
        if isinstance(gold, Time) or isinstance(answer, Time):
            return self.times(gold, answer)
        if isinstance(gold, Words):
            return self.words(gold, answer)
        if isinstance(gold, Matrix):
            return self.matrix(gold, answer)
        if isinstance(gold, Items) and isinstance(answer, Union) and not gold.brackets:  # x<1 or x>2
            gold = Union(tuple(interval(part) or part if isinstance(part, Relation) else part for part in gold.items))
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
        if isinstance(answer, Leaf):
            operands = {shape(matrix) for matrix in matrices(answer.text)}
            if self.question and operands & {shape(matrix) for matrix in matrices(normal(self.question))}:
                return not self.refuse(RESTATES)
            if scaled := scaled_matrix(answer.text):
                return _Comparison(self.digits, self.percent_is_unit, None).matrix(gold, scaled)
            return _by_algebra(latex_of(gold), answer.text) and not (self.question and self.refuse(NOT_EVALUATED))
        if not isinstance(answer, Matrix):
            return False
        if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
            return False
        return all(self.shapes(g, a) for rows in zip(gold.rows, answer.rows, strict=True) for g, a in zip(*rows, strict=True))

    def union(self, gold: Union, answer: Shape) -> bool:
        if isinstance(answer, Items) and not answer.brackets:  # x<1 or x>2
            answer = Union(answer.items)
        if not isinstance(answer, Union):
            return False
        return self.unordered(gold.parts, tuple(interval(part) or part if isinstance(part, Relation) else part for part in answer.parts))

    def times(self, gold: Shape, answer: Shape) -> bool:
        """Times of day; where the question speaks of a ratio, h:mm is one."""
        if self.question and _RATIO.search(self.question):
            ratios = [Items("::", tuple(map(Leaf, side.text.split(":")))) if isinstance(side, Time) else side for side in (gold, answer)]
            if not any(isinstance(side, Time) and side.half for side in (gold, answer)):
                return self.shapes(*ratios)
        first, second = _clock(gold), _clock(answer)
        if not first or not second or (first.half and second.half and first.half != second.half):
            return isinstance(gold, Leaf) and isinstance(answer, Time) and not answer.minute and self.shapes(gold, Leaf(str(answer.hour)))
        hours = {(first.hour, second.hour)}
        if bool(first.half) != bool(second.half):
            hours |= {(_of_day(first), _of_day(second))}
        return any(left == right for left, right in hours) and (first.minute, first.second) == (second.minute, second.second)

    def items(self, gold: Items, answer: Shape) -> bool:
        if gold.brackets == "::":
            return self.ratio(gold, answer)
        if not isinstance(answer, Items):
            return False
        named = {gold.brackets, answer.brackets} - {"", "±"}  # a bare list is whatever the other one is, but no interval
        if gold.brackets == "()" and all(isinstance(item, Relation) for item in answer.items):  # y=2, x=3
            answer = Items(answer.brackets, tuple(sorted(answer.items, key=lambda item: item.sides[0])))  # type: ignore[union-attr]
        if not named or named == {"{}"}:
            return self.unordered(gold.items, answer.items)
        return (gold.brackets == answer.brackets or named == {"()"}) and self.ordered(gold.items, answer.items)

    def ratio(self, gold: Items, answer: Shape) -> bool:
        if isinstance(answer, Leaf) and len(gold.items) == 2:  # 1:2 is a half
            return self.leaves(Leaf("({})/({})".format(*(latex_of(item) for item in gold.items))), answer)
        if not isinstance(answer, Items) or answer.brackets != "::" or len(gold.items) != len(answer.items):
            return False
        if self.question is not None and not all(isinstance(item, Leaf) and numeral(item.text) for item in answer.items):
            return self.ordered(gold.items, answer.items)
        left, right = [_number(item) for item in gold.items], [_number(item) for item in answer.items]
        if None in left or None in right or 0 in left or 0 in right:
            return self.ordered(gold.items, answer.items)
        if left == right:
            return True
        if len({g / a for g, a in zip(left, right, strict=True)}) > 1:  # type: ignore[operator]
            return False
        written = tuple(int(value) for value in right if value is not None and value.denominator == 1)[:2]
        restated = len(written) == 2 and restates_division(written, self.question or "")
        return not (restated and self.refuse(RESTATES))

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
            repeated = self.question is not None and repeats_relation(answer, self.question)
            return self.shapes(gold, span) and not (repeated and self.refuse(RESTATES))
        if self.question and ends_with_relation(answer, self.question):
            return not self.refuse(RESTATES)
        value = value_of(answer)
        return value is not None and self.shapes(gold, value)

    def relation(self, gold: Relation, answer: Shape) -> bool:
        if isinstance(answer, Relation):
            if sides_equal(gold, answer):
                return not self.refuses_relation(gold, answer)
            gold_value, answer_value = value_of(gold), value_of(answer)
            if gold_value and answer_value and squeezed(gold.sides[0]).casefold() == squeezed(answer.sides[0]).casefold():
                return self.shapes(gold_value, answer_value)
            verdict = same_relation(gold, answer)
            if verdict is None:
                verdict = bool(_letters(gold.text)) and _by_algebra(gold.text, answer.text)
            return verdict and not self.refuses_relation(gold, answer)
        if (span := interval(gold)) and (isinstance(answer, Union) or (isinstance(answer, Items) and answer.brackets)):
            return self.shapes(span, answer) and not self.refuses(latex_of(answer), stands_in)
        if isinstance(answer, Union) and len(gold.sides) == 3:
            return _by_algebra(gold.text, latex_of(answer))
        value = value_of(gold)
        if value is None or not self.shapes(value, answer):
            return False
        solved = not self.question or not isinstance(answer, Leaf) or not asks_about_relation(gold, self.question)
        return solved or (isinstance(answer, Leaf) and _same_form(value, answer)) or not self.refuse(NOT_EVALUATED)

    def leaves(self, gold: Leaf, answer: Leaf) -> bool:
        if not agree(gold.unit, answer.unit):
            return False
        integer = re.fullmatch(r"-?\d+", gold.text, re.ASCII)
        hundredth = Fraction(1, 100)
        if answer.percent and not gold.percent:
            plain = self.percent_is_unit and self.values(gold.text, answer.text)
            equal = plain or (not integer and self.values(gold.text, answer.text, answer_scale=hundredth))
        elif gold.percent and not answer.percent:
            equal = self.values(gold.text, answer.text) or self.values(gold.text, answer.text, gold_scale=hundredth)
        else:
            equal = self.values(gold.text, answer.text)
        return equal and not self.rewrites(gold, answer)

    def values(self, gold: str, answer: str, gold_scale: Fraction = Fraction(1), answer_scale: Fraction = Fraction(1)) -> bool:
        """Whether two leaves are equal (times their scales) and the answer's has been worked out."""
        if gold_scale == answer_scale and squeezed(gold) == squeezed(answer):
            return True
        if first_based := based(gold):
            return (based(answer) or (answer.lstrip("0"), first_based[1])) == first_based
        if second_based := based(answer):
            asked = not self.question or bool(_BASES.search(self.question))
            return asked and second_based[0] == gold and based_value(*second_based) is not None
        left, right = numeral(gold), numeral(answer)
        if left is None and len(gold) > 1:
            answer = _STRAY_UNIT.sub("", answer) if not _letters(gold) else answer
        elif left and right is None:
            right = numeral(_STRAY_UNIT.sub("", answer))
        if left and right:
            if not self.numerals(left.scaled(gold_scale), right.scaled(answer_scale)):
                return False
            return not (restates_division(right.fraction, self.question or "") and left != right and self.refuse(RESTATES))
        if left and self.refuse(NOT_EVALUATED):
            return False
        scaled = [text if scale == 1 else f"({text})/100" for text, scale in ((gold, gold_scale), (answer, answer_scale))]
        return self.expressions(*scaled) and not self.refuses_leaf(gold, answer)

    def numerals(self, gold: Numeral, answer: Numeral) -> bool:
        """Whether one is the other, or the other rounded: a decimal that shows `digits` digits, or a gold one that shows 3."""
        if gold.value == answer.value:
            return True
        if gold.repeating and answer.decimal:  # can't be written out: any of its roundings stands for it
            return abs(gold.value - answer.value) <= Fraction(1, 2 * 10**answer.places)
        if gold.value.denominator == 1 or not (gold.decimal or answer.decimal):
            return False
        if not answer.decimal:
            return gold.digits >= 3 and abs(gold.value - answer.value) <= Fraction(1, 2 * 10**gold.places)
        if gold.decimal:
            places, more = sorted((gold.places, answer.places))
            if places == more or abs(gold.value - answer.value) > Fraction(1, 2 * 10**places):
                return False
            return min(gold.digits, answer.digits) >= self.digits and _agree(gold.value, answer.value, self.digits)
        return answer.digits >= self.digits and _agree(gold.value, answer.value, self.digits)

    def expressions(self, gold: str, answer: str) -> bool:
        """Whether two expressions have the same value."""
        if gold.count("'") != answer.count("'"):
            return False
        try:
            left = read(gold)
        except Unreadable:
            return _by_algebra(gold, answer)
        try:
            right = read(answer)
            verdict = same(left, right)
        except Unreadable:
            return not names(left) ^ _letters(answer) and _by_algebra(gold, answer)
        if verdict:
            return True
        if _DECIMAL.fullmatch(gold) or _DECIMAL.fullmatch(answer):
            return self.decimals(gold, left, answer, right)
        return _by_algebra(gold, answer) if verdict is None else False

    def decimals(self, gold: str, left: Node, answer: str, right: Node) -> bool:
        """Whether a decimal is the other side rounded: one that shows `digits` digits, or a gold one that shows 3. Integers are exact."""
        if names(left) or names(right):
            return False
        first, second = evaluate(left), evaluate(right)
        if isinstance(first, Fraction) and first.denominator == 1:
            return False
        if _DECIMAL.fullmatch(gold):
            places = len(gold.partition(".")[2])
            return (
                _significant(gold) >= 3 and isinstance(first, Fraction) and abs(complex(first) - complex(second)) <= 0.5000001 * 10**-places
            )
        return _significant(answer) >= self.digits and _agree(first, second, self.digits)

    # Whether an equal answer has been worked out -------------------------------------------------------------------------

    def refuse(self, why: str) -> bool:
        """Notes why an equal answer is refused; False where nothing is."""
        if self.question is None:
            return False
        self.refused = why
        return True

    def rewrites(self, gold: Leaf, answer: Leaf) -> bool:
        """Whether the question asks to write a number in another way, and the answer is the number as the question has it."""
        if self.question is None or (kind := kind_of(answer.text, answer.percent)) in (None, kind_of(gold.text, gold.percent)):
            return False
        value, fraction = written(answer.text)
        return (kind, value, fraction) in numerals_in(self.question) and self.refuse(RESTATES)

    def refuses(self, text: str, restated: Callable[[str, str], bool]) -> bool:
        return self.question is not None and restated(text, self.question) and self.refuse(RESTATES)

    def refuses_leaf(self, gold: str, answer: str) -> bool:
        """Whether an answer that equals a gold which is no numeral leaves something to compute, or repeats the question."""
        if self.question is None or numeral(answer):
            return False
        try:
            left = read(gold)
        except (Unreadable, TooLarge):
            left = None
        try:
            right = read(answer)
            if left and form(left) == form(right) and operations(right) <= operations(left):
                return False
            if not set(operations(right)) <= (set(operations(left)) if left else set()):
                return self.refuse(NOT_EVALUATED)
        except (Unreadable, TooLarge):
            return self.refuses_text(gold, answer)
        if left is None:
            return meaning(right) in formulas(self.question).forms and self.refuse(RESTATES)
        if not asks_about(left, self.question):
            return False
        stated, own = formulas(self.question).forms, {meaning(part) for part in parts(left)}
        repeated = meaning(right) in stated or any(meaning(part) in stated - own for part in parts(right))
        constant = not names(right)
        if constant and not repeated and size(right) <= size(left):
            return False
        return self.refuse(RESTATES if repeated else NOT_EVALUATED)

    def refuses_text(self, gold: str, answer: str) -> bool:
        """As `refuses_leaf`, where one of them can't be read."""
        if not (_held(_OPERATORS, answer) <= _held(_OPERATORS, gold) and _held(_ARITHMETIC, answer) <= _held(_ARITHMETIC, gold)):
            return self.refuse(NOT_EVALUATED)
        return self.refuses(answer, stands_in)

    def refuses_relation(self, gold: Relation, answer: Relation) -> bool:
        """Whether a relation with the gold's solutions is one of the question's, or leaves arithmetic to do."""
        if self.question is None:
            return False
        held = {operation for side in gold.sides for operation in _operations_of(side) or ()}
        for side in answer.sides:
            operations = _operations_of(side)
            unread = operations is None and bool(_ARITHMETIC.search(side) or not _held(_OPERATORS, side) <= _held(_OPERATORS, gold.text))
            if unread or (operations is not None and not operations <= held):
                return self.refuse(NOT_EVALUATED)
        if _own_form(gold, answer):
            return False
        return (asks_about_relation(gold, self.question) or stands_in(answer.text, self.question)) and self.refuse(RESTATES)


_ROW = re.compile(r"-?\d+(?:\.\d+)?(?: -?\d+(?:\.\d+)?)+", re.ASCII)
"""Numbers side by side, as puzzles have them in their rows: neither one number nor a product."""
_GROUPED = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?", re.ASCII)
_DRAWING = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)", re.DOTALL)
"""A drawing as a program: its numbers and formulas are the draughtsman's, not the question's."""
_BASES = re.compile(r"\bbases?\b|\bbinary\b|\bternary\b|\boctal\b|\bhexadecimal\b|\d_\{?\d", re.IGNORECASE)
_RATIO = re.compile(r"\bratios?\b|\bproportions?\b|\bodds\b|\bscale\b|simplest form|lowest terms", re.IGNORECASE)
_STRAY_UNIT = re.compile(r"(?<=[\d})])[LgshVWJNCKA]$")
"""A unit glued to a number; where the gold has such a letter, it may be a variable."""
_OPERATORS = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|max|min|gcd|lcm|det|bmod|mod|lfloor|lceil|partial|nabla|frac\{d)(?![A-Za-z])|'")
_ARITHMETIC = re.compile(r"(?<![\^_{\d.])\d[\d.]*\s?(?:[-+*]|\\cdot|\\times|\\div)\s?\d|(?:\d\s|\})\s?\d", re.ASCII)


def _by_algebra(gold: str, answer: str) -> bool:
    """Math-Verify's word, which passes over words, percent signs and colons: an answer holds none that the gold doesn't hold."""
    return _held(_PASSED_OVER, answer) <= _held(_PASSED_OVER, gold) and same_by_algebra(gold, answer)


_PASSED_OVER = re.compile(r"\\text\{[^{}]*\}|%|:")


def _held(pattern: re.Pattern[str], text: str) -> set[str]:
    return set(pattern.findall(text))


def _operations_of(side: str) -> set[Form] | None:
    try:
        return set(operations(read(side)))
    except (Unreadable, TooLarge):
        return None


def _own_form(gold: Relation, answer: Relation) -> bool:
    """Whether an answer is the gold as it is written, or read from the right."""
    try:
        sides = [[form(read(side)) for side in relation.sides] for relation in (gold, answer)]
    except (Unreadable, TooLarge):
        return False
    return sides[0] == sides[1] or sides[0] == sides[1][::-1]


def _same_form(gold: Shape, answer: Leaf) -> bool:
    try:
        return isinstance(gold, Leaf) and form(read(gold.text)) == form(read(answer.text))
    except (Unreadable, TooLarge):
        return False


def _of_day(time: Time) -> int:
    """The hour from 0 to 23."""
    return time.hour % 12 + 12 * (time.half == "pm") if time.half else time.hour


def _clock(given: Shape) -> Time | None:
    """A time; a bare number with am or pm is one too."""
    if isinstance(given, Leaf) and given.unit in ("am", "pm", "a.m", "p.m") and re.fullmatch(r"\d{1,2}", given.text, re.ASCII):
        return Time(int(given.text), 0, 0, given.unit[0] + "m")
    return given if isinstance(given, Time) else None


_DECIMAL = re.compile(r"-?\d*\.\d+", re.ASCII)


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


def _number(item: Shape) -> Fraction | None:
    if isinstance(item, Leaf):
        try:
            value = evaluate(read(item.text))
        except Unreadable:
            return None
        return value if isinstance(value, Fraction) else None
    return None
