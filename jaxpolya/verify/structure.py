"""What an answer is made of: a number or expression, words, a list, a tuple or interval, a set, a union, a matrix, a relation.

Answers are taken apart only as far as their comparison needs. A bare list `1,2` has no brackets; a lone pair of brackets around one thing
is only brackets; `1 \\pm \\sqrt2` is a list of two; a unit is what follows a number in words.
"""

import functools
import re
from dataclasses import dataclass, field

from jaxpolya.verify.expression import TooLarge, Unreadable, names, read, same
from jaxpolya.verify.latex import SPELLED, words

MAX_ITEMS = 64


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

UNITS = {
    spelling: unit
    for unit, spellings in {
        "mm": "mm millimeter millimeters", "cm": "cm centimeter centimeters", "m": "meter meters metre metres",
        "km": "km kilometer kilometers", "inch": "in inch inches", "foot": "ft foot feet", "yard": "yd yard yards", "mile": "mi mile miles",
        "gram": "gm gram grams", "kg": "kg kilogram kilograms", "pound": "lb lbs pound pounds", "second": "sec second seconds",
        "minute": "min minute minutes", "hour": "hr hrs hour hours", "day": "day days", "dollar": "dollar dollars usd",
        "cent": "cent cents", "degree": "deg degree degrees", "radian": "rad radian radians", "mph": "mph",
    }.items()
    for spelling in spellings.split()
}  # fmt: skip
"""Units that contradict each other where they differ."""

_RELATION = re.compile(r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|\\approx(?![A-Za-z])|=|<|>")
_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|array)\}(?:\{[clr| ]{0,20}\})?(.*)\\end\{\1\}", re.DOTALL)
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", re.ASCII)
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?! ?\d)", re.ASCII)
_MIXED = re.compile(r"^(-?)(\d+) (\d+)/(\d+)$", re.ASCII)
_SCIENTIFIC = re.compile(r"^(-?\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})$", re.ASCII)
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:\\?%|percent|pct|percentage)\s*\}|percent(?:age)?\b|pct\b)\s*$", re.IGNORECASE)
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])")
_DEGREES = re.compile(r"\s*(?:\^\s?\\circ|\^\s?\{\s?\\circ\s?\}|\\circ)\s*$")
_UNIT = re.compile(r"(?P<value>.*?[\d)}\]])(?P<unit>(?:\\text\{[^{}]*[A-Za-z][^{}]*\}|[A-Za-z./-]++|\s)++)(?:\^\{?[23]\}?)?", re.DOTALL)
_TEXT_UNIT = re.compile(r"(?P<value>[^{}]*(?:\d|\\pi).*?)(?P<unit>\\text\{[^{}]*[A-Za-z][^{}]*\})\s?(?:\^\{?[23]\}?)?", re.DOTALL)
_SYMBOL = r"(?:[A-Za-z]{1,3}'?|\\[a-z]{2,8})(?:_(?:\{[^{}]{1,12}\}|\w))?"
_NAME = re.compile(
    rf"{_SYMBOL}(?:\([A-Za-z0-9,]{{1,12}}\))?|\|[A-Za-z]{{1,3}}\||\((?:{_SYMBOL},)+{_SYMBOL}\)|{_SYMBOL}:{_SYMBOL}"
    r"|\\text\{[^{}]*\}|\\angle[A-Z]{1,3}|\\frac\{[A-Z]{1,3}\}\{[A-Z]{1,3}\}",
    re.ASCII,
)
_AND = re.compile(r"\\text\{[\s,]*(?:and|or)?[\s,]*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\A-Za-z_])[A-Za-z]{3,}|\\text\{")


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
    if SPELLED.fullmatch(text) and not re.search(r"\d", text):
        return Words(words(text))
    if matrix := _MATRIX.search(text):
        if r"\begin" not in matrix.group(2) and text[: matrix.start()].strip("[( ") == "" and text[matrix.end() :].strip("]) ") == "":
            rows = [row for row in re.split(r"\\\\(?:\[[^\]]{0,8}\])?", matrix.group(2)) if row.strip()]
            return Matrix(tuple(tuple(_shape(entry, depth + 1) for entry in row.split("&")) for row in rows))
        return Leaf(text)
    text = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", text)
    for separator, separated in ((";", text), (",", _AND.sub(", ", text))):
        if len(parts := _split(separated, separator)) > 1:
            return _listed(parts, depth)
    member, belongs, where = text.partition(r"\in")
    if belongs and is_name(member) and not where[:1].isalpha():
        text = where.strip()
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
    if len(parts := _split(text, ":")) > 1:
        return Items("::", tuple(_shape(part, depth + 1) for part in parts))
    return _leaf(text)


def _split(text: str, separator: str, bracketed: bool = False) -> list[str]:
    """The parts between separators outside all brackets.

    Commas without a blank after them may all group digits (`1,234` or `1,234, 5,678`), and separate nothing then; in brackets they never
    do: `(2,400)` is a pair.
    """
    if separator not in text:
        return [text]
    grouped = separator == "," and not bracketed and not re.search(r",(?! |$)", THOUSANDS.sub("0", text))
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
        elif char == separator and depth == 0 and not (grouped and text[index + 1 : index + 2] not in ("", " ")):
            parts.append(text[start:index])
            start = index + 1
        index += 1
    parts.append(text[start:])
    parts = [part for part in parts if part.strip()]
    if len(parts) > MAX_ITEMS:
        raise TooLarge("a list of too many items")
    return parts


def _listed(parts: list[str], depth: int) -> Shape:
    """A bare list; `n=2,3,4` names its first item only, and names nothing else."""
    shapes = [_shape(part, depth + 1) for part in parts]
    first = shapes[0]
    if isinstance(first, Relation) and not any(isinstance(other, Relation) for other in shapes[1:]) and (value := value_of(first)):
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
    if _PLUS_MINUS.search(text):
        return Items("±", tuple(_leaf(_PLUS_MINUS.sub(sign, text)) for sign in "+-"))
    percent = bool(_PERCENT.search(text))
    text = _PERCENT.sub("", text) if percent else text
    unit = "degree" if _DEGREES.search(text) else ""
    text = _DEGREES.sub("", text)
    if text.startswith("$") or re.match(r"-\s?\$", text):
        text, unit = text.replace("$", "", 1).strip(), "dollar"
    if text.endswith("$"):
        text, unit = text[:-1].strip(), "dollar"
    if not unit and (united := _UNIT.fullmatch(text) or _TEXT_UNIT.fullmatch(text)) and _is_unit(united.group("unit")):
        text, unit = united.group("value"), words(united.group("unit"))
    elif _WORD.search(re.sub(r"\\[A-Za-z]+", lambda command: command.group() if command.group() == r"\text" else " ", text)):
        return Words(words(text))
    text = text.strip()
    if _SPACED.fullmatch(text.lstrip("-")):
        text = text.replace(" ", "")
    text = THOUSANDS.sub(lambda group: group.group().replace(",", ""), text)
    if mixed := _MIXED.match(text):
        text = "{}({}+{}/{})".format(*mixed.groups())
    if scientific := _SCIENTIFIC.match(text):
        text = f"{scientific.group(1)}*10^{{{scientific.group(2)}}}"
    return Leaf(text, percent, unit)


def is_name(side: str) -> bool:
    """Whether a side of a relation only names what the other side is: x, f(x), (p,q), AB, |AB|, a:b."""
    return bool(_NAME.fullmatch(side.replace(" ", "")))


def value_of(relation: Relation) -> Shape | None:
    """What `x = … = value` says, where its left side only names; an approximation after it doesn't count."""
    signs, sides = list(relation.signs), list(relation.sides)
    if r"\approx" in signs and ((at := signs.index(r"\approx")) or not is_name(sides[0])):
        signs, sides = signs[:at], sides[: at + 1]
    if not signs:
        return shape(sides[0])
    if any(sign not in ("=", r"\approx") for sign in signs):
        return None
    if not any(is_name(side) for side in sides[:-1]) and not _computes(sides):
        return None
    return shape(sides[-1])


def _computes(sides: list[str]) -> bool:
    """Whether sides are a computation: numbers, the first and the last of them one value."""
    try:
        trees = [read(re.sub(r"\\?%$", "/100", side)) for side in sides]
        return not any(names(tree) for tree in trees) and same(trees[0], trees[-1]) is not False
    except (Unreadable, TooLarge):
        return False


def _is_unit(text: str) -> bool:
    """Whether what follows a number is a unit and not a product of variables."""
    return any(len(word) > 3 or word in UNITS for word in words(text).split()) or r"\text" in text
