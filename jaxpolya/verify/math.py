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

import functools
import math
import re
from dataclasses import dataclass, field
from fractions import Fraction

from jaxpolya.verify.expression import Node, TooLarge, Unreadable, evaluate, names, points, read, same

MAX_ANSWER = 2000
"""Longest answer in characters; a longer one is none."""
_MAX_ITEMS = 64

# Normal form --------------------------------------------------------------------------------------------------------------

_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
     "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ", "∈": r"\in ", "°": r"^\circ ", "²": "^2", "³": "^3", "½": r"\frac12 ",
     "\u00a0": " ", "\u2009": " ", "\u202f": " ", "，": ",", "√": r"\sqrt "}
)  # fmt: skip
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s?\.?", ""),
        (r",\s?\\!\s?|\{,\}", "\ue000"),  # a comma that groups digits, never one of a list
        (r"(?<!\\)\\[!,;:> ]|~|\\q?quad|\\(?:display|text)style(?![A-Za-z])|\\limits(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:leq|leqslant|leslant)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\(le|ge)([a-z])(?![A-Za-z])", r"\\\1 \2"),
        (r"\\neq(?![A-Za-z])|\\not\s?=|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\lbrack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\(?:langle)(?![A-Za-z])", "("),
        (r"\\(?:rangle)(?![A-Za-z])", ")"),
        (r"\\(?:lvert|rvert|vert)(?![A-Za-z])|\\\|", "|"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|bf|rm|it)(?![A-Za-z])\s?\{\s?([A-Za-z])\s?\}", r"\1"),
        (r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname)\*?\s?\{([^{}\\]*)\}", r" \\text{\1} "),
        (r"(?<!\\)(?<![A-Za-z])sqrt(?=[({])", r"\\sqrt"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"\\sqrt\s?\[?\s?\{\s?\}", r"\\sqrt"),
        (r"\\degrees?(?![A-Za-z])", r"^\\circ "),
        (r"\\dots(?![A-Za-z])|\\cdots(?![A-Za-z])|…|\.\.\.", r"\\ldots "),
        (r"\\\$|\\?€|\\?£", "$"),
        (r"\\displaystyle|\\phantom\{[^{}]*\}", ""),
    )
]
_WORD_AND = re.compile(r"\\text\{\s*(?:and|or|,)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])", re.IGNORECASE)
_OUTER = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_BOX = re.compile(r"^\\f?box(?:ed)?\s?\{(.*)\}$", re.DOTALL)


@functools.lru_cache(maxsize=4096)
def normal(text: str) -> str:
    """One spelling of the many that LaTeX has: delimiters, boxes, spacing commands, size commands, synonyms, trailing stops."""
    text = text.translate(_UNICODE).strip()
    if "\\\\" in text and "\\begin" not in text:  # LaTeX that was escaped once too often
        text = re.sub(r"\\\\(?=[A-Za-z{}])", r"\\", text)
    for _ in range(4):
        before = text
        text = text.strip().rstrip(".,;:!" if not text.endswith("!") or " " in text else ".,;:").strip()
        for opening, closing in _OUTER:
            inside = text[len(opening) : len(text) - len(closing)]
            if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing) and opening not in inside:
                text = inside.strip()
        if (box := _BOX.match(text)) and _balanced(box.group(1)):
            text = box.group(1).strip()
        if text == before:
            break
    if len(dollars := re.findall(r"(?<!\\)\$", text)) > 1 and len(dollars) % 2 == 0:
        text = re.sub(r"(?<!\\)\$", " ", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = re.sub(r"(?<=\d)\ue000\s?(?=\d{3})", "", text).replace("\ue000", ",")
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r" ?([-+*/^=<>;:(){}\[\]|]) ?| (?=,)", r"\1", text) if "\\text" not in text else text


def _balanced(text: str) -> bool:
    depth = 0
    for char in re.sub(r"\\[{}]", "", text):
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


# Structure ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """A number, an expression, or something for Math-Verify."""

    text: str
    percent: bool = False
    unit: str = ""


@dataclass(frozen=True)
class Words:
    """Text, a name, a choice letter."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list, tuple, interval or set, by its brackets; a bare list has none."""

    brackets: str
    items: tuple["Shape", ...]


@dataclass(frozen=True)
class Union:
    """A union of sets."""

    parts: tuple["Shape", ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple["Shape", ...], ...]


@dataclass(frozen=True)
class Relation:
    """Sides joined by `=`, `<`, … in a row."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]
    text: str = field(compare=False, default="")


Shape = Leaf | Words | Items | Union | Matrix | Relation

_RELATION = re.compile(r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|\\approx(?![A-Za-z])|=|<|>")
_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|array)\}(?:\{[clr| ]{0,20}\})?(.*)\\end\{\1\}", re.DOTALL)
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", re.ASCII)
_GROUPED = re.compile(r",\d{3}(?!\d)", re.ASCII)
_GROUP_LEAD = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})*$", re.ASCII)
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?! ?\d)", re.ASCII)
_MIXED = re.compile(r"^(-?)(\d+) (\d+)/(\d+)$", re.ASCII)
_SCIENTIFIC = re.compile(r"^(-?\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})$", re.ASCII)
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:\\?%|percent|pct|percentage)\s*\}|percent(?:age)?\b|pct\b)\s*$", re.IGNORECASE)
_DEGREES = re.compile(r"\s*(?:\^\s?\\circ|\^\s?\{\s?\\circ\s?\}|\\circ)\s*$")
_UNIT = re.compile(
    r"^(?P<value>.*?[\d)}\]])\s*(?P<unit>(?:\\text\{[^{}]*[A-Za-z][^{}]*\}|(?<=[\d)}\] ])[A-Za-z]{2,}[A-Za-z ./-]*|(?<= )[A-Za-z]|\s)+)"
    r"(?:\^\{?[23]\}?)?\s*$",
    re.DOTALL,
)
_NAME = re.compile(
    r"[A-Za-z]{1,3}'?(?:_(?:\{[^{}]{1,12}\}|\w))?(?:\([A-Za-z0-9, ]{1,12}\))?|\\[a-z]{2,8}(?:_\w)?(?:\([A-Za-z0-9, ]{1,12}\))?|\|[A-Za-z]{1,3}\||[A-Za-z]\d"
    r"|\((?:[A-Za-z](?:_\{?\d\}?)?,)+[A-Za-z](?:_\{?\d\}?)?\)|\\text\{[^{}]*\}|\\angle ?[A-Z]{1,3}"
    r"|[A-Za-z]{1,2}(?:_\{?\w{1,6}\}?)?:[A-Za-z]{1,2}(?:_\{?\w{1,6}\}?)?|\\frac\{[A-Z]{1,3}\}\{[A-Z]{1,3}\}",
    re.ASCII,
)
_WORD = re.compile(r"(?<![\\A-Za-z_])[A-Za-z]{3,}|\\text\{")
_SPELLED = re.compile(r"\\(?:text|mbox|textbf)\{([^{}]*)\}")


@functools.lru_cache(maxsize=8192)
def shape(text: str) -> Shape:
    """The structure of a text in normal form."""
    return _shape(text, 0)


def _shape(text: str, depth: int) -> Shape:
    text = text.strip()
    if depth > 8:
        raise TooLarge("nested too deeply")
    if choice := re.fullmatch(r"\(?(?:\\text\{\s*\(?([A-Z])\)?\.?\s*\}|([A-Z]))\)?", text):
        return Words(choice.group(1) or choice.group(2))
    if _SPELLED.fullmatch(text) and not re.search(r"\d", text):
        return Words(_words(text))
    if matrix := _MATRIX.search(text):
        if r"\begin" not in matrix.group(2) and text[: matrix.start()].strip("[( ") == "" and text[matrix.end() :].strip("]) ") == "":
            rows = [row for row in re.split(r"\\\\(?:\[[^\]]{0,8}\])?", matrix.group(2)) if row.strip()]
            return Matrix(tuple(tuple(_shape(entry, depth + 1) for entry in row.split("&")) for row in rows))
        return Leaf(text)
    text = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", text)
    for separator, separated in ((";", text), (",", _WORD_AND.sub(", ", text))):
        if len(parts := _split(separated, separator)) > 1:
            return _listed(parts, depth)
    if "\\in " in text or "\\in(" in text or "\\in[" in text or "\\in\\" in text:
        text = re.split(r"\\in(?![A-Za-z])", text, maxsplit=1)[1].strip()
    if len(parts := _split(text.replace(r"\cup", "\ue001"), "\ue001")) > 1:
        return Union(tuple(_shape(part, depth + 1) for part in parts))
    if relation := _related(text):
        return relation
    if pair := _bracketed(text):
        opening, inside, closing = pair
        parts = _split(inside, ";") if ";" in inside else _split(inside, ",", bracketed=True)
        if len(parts) > 1 or opening == "{":
            return Items(opening + closing, _spread([_shape(part, depth + 1) for part in parts if part.strip()]))
        return _shape(inside, depth + 1) if opening in "([" and closing in ")]" else Leaf(text)
    if len(parts := _split(text, ":")) > 1 and not re.search(r"[=\\]in", text):
        return Items("::", tuple(_shape(part, depth + 1) for part in parts))
    return _leaf(text)


def _split(text: str, separator: str, bracketed: bool = False) -> list[str]:
    """The parts between separators outside all brackets.

    A comma before three digits groups them and separates nothing, unless a blank follows it, or the text stood in brackets, where
    `(2,400)` is a pair, and is a list only if other commas have their blanks.
    """
    if separator not in text:
        return [text]
    grouped = separator == "," and not (bracketed and ", " not in text)
    parts, depth, start, index = [], 0, 0, 0
    while index < len(text):
        char = text[index]
        if char == "\\" and text[index + 1 : index + 2] in ("{", "}"):
            depth += 1 if text[index + 1] == "{" else -1
            index += 2
            continue
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == separator and depth == 0 and not (grouped and _GROUPED.match(text, index) and _GROUP_LEAD.search(text[start:index])):
            parts.append(text[start:index])
            start = index + 1
        index += 1
    parts.append(text[start:])
    parts = [part for part in parts if part.strip()]
    if len(parts) > _MAX_ITEMS:
        raise TooLarge("a list of too many items")
    return parts


def _listed(parts: list[str], depth: int) -> Shape:
    """A bare list; `n=2,3,4` names its first item only, and names nothing else."""
    shapes = [_shape(part, depth + 1) for part in parts]
    first = shapes[0]
    if isinstance(first, Relation) and not any(isinstance(other, Relation) for other in shapes[1:]) and (value := _value(first)):
        shapes[0] = value
    return Items("", _spread(shapes))


def _spread(shapes: list[Shape]) -> tuple[Shape, ...]:
    """The items with bare lists (from a plus-minus) in line."""
    return tuple(item for each in shapes for item in (each.items if isinstance(each, Items) and each.brackets == "±" else (each,)))


def _bracketed(text: str) -> tuple[str, str, str] | None:
    """(opening, inside, closing) where one pair of brackets holds the whole text."""
    opening = "{" if text.startswith((r"\{", "{")) else text[:1]
    if opening not in ("(", "[", "{") or not text:
        return None
    start = 2 if text.startswith(r"\{") else 1
    depth, index = 1, start
    while index < len(text):
        escaped = text[index] == "\\" and text[index + 1 : index + 2] in ("{", "}")
        char = text[index + 1] if escaped else text[index]
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            end = index + (2 if escaped else 1)
            if end != len(text):
                return None
            if text[0] == "{" and not escaped:  # a TeX group, not a set
                return "", text[start:index], ""
            return opening, text[start:index], char
        index += 2 if escaped else 1
    return None


def _related(text: str) -> Relation | None:
    """The relation in a text, if there is one outside all brackets."""
    sides, signs, start, depth, seen = [], [], 0, 0, 0
    for match in _RELATION.finditer(text):
        between = text[seen : match.start()]
        depth += sum(between.count(opening) for opening in "({[") - sum(between.count(closing) for closing in ")}]")
        seen = match.end()
        if depth <= 0:
            sides.append(text[start : match.start()].strip())
            signs.append(match.group())
            start = match.end()
    sides.append(text[start:].strip())
    return Relation(tuple(sides), tuple(signs), text) if signs and all(sides) else None


def _leaf(text: str) -> Shape:
    text = text.strip()
    if r"\pm" in text:
        return Items("±", tuple(_leaf(re.sub(r"\\pm(?![A-Za-z])", sign, text)) for sign in "+-"))
    percent = bool(_PERCENT.search(text))
    text = _PERCENT.sub("", text) if percent else text
    unit = "degree" if _DEGREES.search(text) else ""
    text = _DEGREES.sub("", text)
    if text.startswith("$") or re.match(r"-\s?\$", text):
        text, unit = text.replace("$", "", 1).strip(), "dollar"
    if text.endswith("$"):
        text, unit = text[:-1].strip(), "dollar"
    if not unit and (united := _UNIT.match(text)):
        text, unit = united.group("value"), _words(united.group("unit"))
    elif _WORD.search(re.sub(r"\\[A-Za-z]+", lambda command: command.group() if command.group() == r"\text" else " ", text)):
        return Words(_words(text))
    text = text.strip()
    if _SPACED.fullmatch(text.lstrip("-")):
        text = text.replace(" ", "")
    text = _THOUSANDS.sub(lambda group: group.group().replace(",", ""), text)
    if mixed := _MIXED.match(text):
        text = "{}({}+{}/{})".format(*mixed.groups())
    if scientific := _SCIENTIFIC.match(text):
        text = f"{scientific.group(1)}*10^{{{scientific.group(2)}}}"
    return Leaf(text, percent, unit)


def _words(text: str) -> str:
    """Words without case, mark-up, articles and punctuation."""
    text = _SPELLED.sub(r" \1 ", text)
    words = re.findall(r"[^\W_]+|[^\w\s.,;:!?'\"(){}$]", text.casefold())
    return " ".join(word for word in words if word not in ("a", "an", "the", "\\")) or " ".join(words)


# Comparison -----------------------------------------------------------------------------------------------------------------


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
    if _squeezed(gold_text) == _squeezed(answer_text):
        return True
    if _decimal_comma(gold_text, answer_text) or _decimal_comma(answer_text, gold_text):
        return True
    if r"\text" in gold_text and _words(normal(gold.casefold())) == _words(normal(answer.casefold())):
        return True
    return _Comparison(digits).shapes(shape(gold_text), shape(answer_text))


def _squeezed(text: str) -> str:
    """The text without blanks, except those that keep a list from being a number."""
    return re.sub(r"(?<!,) | (?!\d{3})", "", text)


def _decimal_comma(comma: str, point: str) -> bool:
    """1,22 for 1.22: the same digits, where the point is a decimal point without doubt."""
    return (
        bool(re.fullmatch(r"-?\d+,\d+", comma, re.ASCII))
        and comma.replace(",", ".") == point
        and not _THOUSANDS.fullmatch(comma.lstrip("-"))
        or (bool(re.fullmatch(r"-?0,\d+", comma, re.ASCII)) and comma.replace(",", ".") == point)
    )


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
        return isinstance(answer, Leaf) and self.leaves(gold, answer)

    def words(self, gold: Words, answer: Shape) -> bool:
        if isinstance(answer, Words):
            return _words(gold.text) == _words(answer.text)
        return isinstance(answer, Leaf) and _words(gold.text) == _words(answer.text + " " + answer.unit)

    def matrix(self, gold: Matrix, answer: Shape) -> bool:
        if not isinstance(answer, Matrix):
            return isinstance(answer, Leaf) and _by_math_verify(_latex(gold), answer.text)
        if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
            return False
        return all(self.shapes(g, a) for rows in zip(gold.rows, answer.rows, strict=True) for g, a in zip(*rows, strict=True))

    def union(self, gold: Union, answer: Shape) -> bool:
        if isinstance(answer, Items) and not answer.brackets:  # x<1 or x>2
            answer = Union(answer.items)
        if not isinstance(answer, Union):
            return False
        return self.unordered(gold.parts, tuple(_interval(part) or part if isinstance(part, Relation) else part for part in answer.parts))

    def items(self, gold: Items, answer: Shape) -> bool:
        if isinstance(answer, Matrix) or not isinstance(answer, Items):
            return False
        if gold.brackets == "::":
            return self.ratio(gold, answer)
        if answer.brackets in ("", "±"):
            if gold.brackets in ("", "±", "{}"):
                return self.unordered(gold.items, answer.items)
            return gold.brackets == "()" and self.ordered(gold.items, answer.items)
        if gold.brackets in ("", "±"):
            return (
                self.unordered(gold.items, answer.items)
                if answer.brackets == "{}"
                else answer.brackets == "()" and self.ordered(gold.items, answer.items)
            )
        if gold.brackets != answer.brackets:
            return False
        return (self.unordered if gold.brackets == "{}" else self.ordered)(gold.items, answer.items)

    def ratio(self, gold: Items, answer: Items) -> bool:
        if answer.brackets != "::" or len(gold.items) != len(answer.items):
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
            index = next((index for index, other in enumerate(left) if self.shapes(item, other)), None)
            if index is None:
                return False
            del left[index]
        return True

    def shape_and_relation(self, gold: Shape, answer: Relation) -> bool:
        if isinstance(gold, (Items, Union)) and (interval := _interval(answer)):
            return self.shapes(gold, interval)
        value = _value(answer)
        return value is not None and self.shapes(gold, value)

    def relation(self, gold: Relation, answer: Shape) -> bool:
        if isinstance(answer, Relation):
            if _sides_equal(gold, answer):
                return True
            gold_value, answer_value = _value(gold), _value(answer)
            if gold_value and answer_value and (gold.sides[0] == answer.sides[0] or len(gold.sides[0]) > 1 or len(answer.sides[0]) > 1):
                return self.shapes(gold_value, answer_value)
            verdict = _same_relation(gold, answer)
            return _by_math_verify(gold.text, answer.text) if verdict is None else verdict
        if (interval := _interval(gold)) and isinstance(answer, (Items, Union)):
            return self.shapes(interval, answer)
        if isinstance(answer, Union) and len(gold.sides) == 3:
            return _by_math_verify(gold.text, _latex(answer))
        value = _value(gold)
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
        if _squeezed(gold) == _squeezed(answer):
            return True
        repeating, based = _REPEATING.fullmatch(gold), _BASE.fullmatch(gold)
        if repeating:
            return _rounds_to(_repeated(repeating), answer)
        if based or _BASE.fullmatch(answer):
            return bool(based) and based.group(1) == answer  # type: ignore[union-attr]
        try:
            left = _read(gold)
        except Unreadable:
            return _by_math_verify(gold, answer)
        try:
            right = _read(answer)
            verdict = same(left, right)
        except Unreadable:
            return not names(left) ^ _letters(answer) and _by_math_verify(gold, answer)
        if verdict:
            return True
        if _DECIMAL.fullmatch(gold) or _DECIMAL.fullmatch(answer):
            return self.decimals(gold, left, answer, right)
        return _by_math_verify(gold, answer) if verdict is None else False

    def decimals(self, gold: str, left: Node, answer: str, right: Node) -> bool:
        """Whether one is the other rounded: a decimal that shows `digits` digits, or a gold decimal that shows 3."""
        if names(left) or names(right) or re.fullmatch(r"-?\d+", gold, re.ASCII):
            return False
        shown = {side: _significant(side) for side in (gold, answer) if _DECIMAL.fullmatch(side)}
        first, second = evaluate(left), evaluate(right)
        if len(shown) == 1 and gold in shown:
            return shown[gold] >= 3 and _agree(first, second, shown[gold])
        return min(shown.values()) >= self.digits and _agree(first, second, self.digits)


_DECIMAL = re.compile(r"-?\d*\.\d+", re.ASCII)
_REPEATING = re.compile(r"(-?\d*)\.(\d*)\\(?:overline|bar)\{(\d+)\}", re.ASCII)
_BASE = re.compile(r"(\d+)_\{?(\d{1,2})\}?", re.ASCII)


@functools.lru_cache(maxsize=8192)
def _read(text: str) -> Node:
    return read(text)


def _letters(text: str) -> set[str]:
    """The variables that an unread text seems to have."""
    bare = re.sub(r"\\[A-Za-z]+", " ", text)
    return set(re.findall(r"[A-Za-z]", bare)) - {"e", "i"}


def _significant(decimal: str) -> int:
    return len(decimal.lstrip("-").replace(".", "").lstrip("0"))


def _agree(first: Fraction | complex, second: Fraction | complex, digits: int) -> bool:
    """Whether two reals are one when rounded to a number of significant digits: they differ by half a unit at most."""
    first, second = complex(first), complex(second)
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
        return evaluate(_read(answer)) == value
    except Unreadable:
        return False


_UNIT_NAMES = {
    name: canonical
    for canonical, spellings in {
        "mm": "mm millimeter", "cm": "cm centimeter centimetre", "m": "m meter metre", "km": "km kilometer kilometre", "inch": "in inch inche",
        "foot": "ft foot feet", "yard": "yd yard", "mile": "mi mile", "g": "g gm gram", "kg": "kg kilogram", "second": "s sec second",
        "minute": "min minute", "hour": "h hr hour", "day": "day", "dollar": "dollar usd", "cent": "cent", "degree": "degree deg", "radian": "rad radian",
    }.items()
    for name in spellings.split()
}  # fmt: skip


def _units_agree(gold: str, answer: str) -> bool:
    """Units may be missing or unknown; two known ones must be the same."""
    known = [_UNIT_NAMES.get(unit) or _UNIT_NAMES.get(unit.removesuffix("s")) for unit in (gold, answer)]
    return None in known or known[0] == known[1]


def _number(item: Shape) -> Fraction | None:
    if isinstance(item, Leaf):
        try:
            value = evaluate(_read(item.text))
        except Unreadable:
            return None
        return value if isinstance(value, Fraction) else None
    return None


def _names(side: str) -> bool:
    """Whether a side of a relation only names what the other side is: x, f(x), (p,q), AB, |AB|, a:b."""
    return bool(_NAME.fullmatch(side.replace(" ", "")))


def _value(relation: Relation) -> Shape | None:
    """What `x = … = value` says, where its left side only names; an approximation after it doesn't count."""
    signs, sides = list(relation.signs), list(relation.sides)
    if r"\approx" in signs and (at := signs.index(r"\approx")):
        signs, sides = signs[:at], sides[: at + 1]
    if any(sign not in ("=", r"\approx") for sign in signs):
        return None
    named = any(_names(side) for side in sides[:-1])
    if not named:  # a computation: its ends must agree
        try:
            if (
                not all(names(_read(side)) == set() for side in sides)
                or same(_read(sides[0].replace(r"\%", "/100")), _read(sides[-1])) is False
            ):
                return None
        except (Unreadable, TooLarge):
            if not re.fullmatch(r"-?[\d.]+\s?\\?%", sides[-1]):
                return None
    return shape(sides[-1])


def _interval(relation: Relation) -> Shape | None:
    """The interval that an inequality in one plain name describes."""
    sides, signs = relation.sides, relation.signs
    if any(sign not in ("<", ">", r"\le", r"\ge") for sign in signs) or any(side.startswith("|") for side in sides):
        return None
    if signs[0] in (">", r"\ge"):
        flipped = {">": "<", r"\ge": r"\le", "<": ">", r"\le": r"\ge"}
        sides, signs = sides[::-1], tuple(flipped[sign] for sign in reversed(signs))
    if any(sign not in ("<", r"\le") for sign in signs):
        return None
    opening, closing = ("[" if signs[0] == r"\le" else "("), ("]" if signs[-1] == r"\le" else ")")
    if len(sides) == 3 and _names(sides[1]):
        low, high = sides[0], sides[2]
    elif len(sides) == 2 and _names(sides[1]):
        low, high, closing = sides[0], r"\infty", ")"
    elif len(sides) == 2 and _names(sides[0]):
        low, high, opening = r"-\infty", sides[1], "("
    else:
        return None
    return Items(opening + closing, (shape(low), shape(high)))


def _sides_equal(gold: Relation, answer: Relation) -> bool:
    """The same relation side by side, as written or read from the right."""
    flipped = {"=": "=", r"\ne": r"\ne", "<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\approx": r"\approx"}
    for sides, signs in ((answer.sides, answer.signs), (answer.sides[::-1], tuple(flipped[sign] for sign in reversed(answer.signs)))):
        if signs == gold.signs and all(_same_text(g, a) for g, a in zip(gold.sides, sides, strict=True)):
            return True
    return False


def _same_text(gold: str, answer: str) -> bool:
    try:
        return _squeezed(gold) == _squeezed(answer) or bool(same(_read(gold), _read(answer)))
    except Unreadable:
        return False


def _same_relation(gold: Relation, answer: Relation) -> bool | None:
    """Whether two relations of two sides have the same solutions because one is a multiple of the other; None where unread."""
    if len(gold.sides) != 2 or len(answer.sides) != 2:
        return None if len(gold.sides) == len(answer.sides) else False
    try:
        trees = [_read(f"({side})") for side in (*gold.sides, *answer.sides)]
        variables = set().union(*(names(tree) for tree in trees))
        factors = set()
        for point in points(variables, signed=True):
            g0, g1, a0, a1 = (evaluate(tree, point) for tree in trees)
            left, right = g0 - g1, a0 - a1
            if not isinstance(left, Fraction) or not isinstance(right, Fraction):
                return None
            if left == 0 or right == 0:
                return None
            factors.add(right / left)
    except Unreadable:
        return None
    if len(factors) != 1:
        return False if gold.signs == ("=",) else None
    flips = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
    sign = answer.signs[0] if next(iter(factors)) > 0 else flips.get(answer.signs[0], answer.signs[0])
    return sign == gold.signs[0]


# What is left ---------------------------------------------------------------------------------------------------------------

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


def _by_math_verify(gold: str, answer: str) -> bool:
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


def _latex(given: Shape) -> str:
    """A structure as LaTeX again."""
    if isinstance(given, Matrix):
        return r"\begin{pmatrix}" + r"\\".join("&".join(_latex(entry) for entry in row) for row in given.rows) + r"\end{pmatrix}"
    if isinstance(given, Union):
        return r"\cup ".join(_latex(part) for part in given.parts)
    if isinstance(given, Items):
        opening, closing = (r"\{", r"\}") if given.brackets == "{}" else given.brackets
        return opening + ",".join(_latex(item) for item in given.items) + closing
    return given.text
