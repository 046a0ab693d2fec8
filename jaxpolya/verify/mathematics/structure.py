"""What an answer is made of: a number or expression, words, a list, a tuple or interval, a set, a union, a matrix, a relation.

Answers are taken apart only as far as their comparison needs. A bare list `1,2` has no brackets; a lone pair of brackets around one thing
is only brackets; `1 \\pm \\sqrt2` is a list of two; a unit is what follows a number in words.
"""

import functools
import re
from dataclasses import dataclass, field

from jaxpolya.verify.mathematics.expression import TooLarge, Unreadable, evaluate, names, read, same
from jaxpolya.verify.mathematics.latex import SPELLED, normal, words
from jaxpolya.verify.mathematics.literals import MAGNITUDES, based, based_value, numeral, spelled
from jaxpolya.verify.mathematics.units import changes, doubts, is_unit

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


@dataclass(frozen=True)
class Time:
    """A time of day; `half` is "am", "pm" or not said."""

    hour: int
    minute: int
    second: int = 0
    half: str = ""
    text: str = field(compare=False, default="")


Shape = Leaf | Words | Items | Union | Matrix | Relation | Time

_RELATION = re.compile(r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|\\approx(?![A-Za-z])|=|<|>")
_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|smallmatrix|array)\}(?:\{[clr| ]{0,20}\})?(.*)\\end\{\1\}", re.DOTALL)
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", re.ASCII)
_SPACED = re.compile(r"\d{1,3}(?: \d{3})+(?:\.\d+)?|\d*\.(?:\d{3} )+\d{1,3}", re.ASCII)
_MIXED = re.compile(r"^(-?)(\d+) (\d+)/(\d+)$", re.ASCII)
_SCIENTIFIC = re.compile(r"^(-?\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})$", re.ASCII)
_PERCENT = re.compile(
    r"\s*(?:\\?%|\\text\{\s*(?:\\?%|percent|pct|percentage)\s*\}|per ?cent(?:age)?\b|pct\b)"
    r"\s*(?:\\text\{[^{}]*\}|(?:per|of)(?: [a-z]+){1,4})?\s*$",
    re.IGNORECASE,
)
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_DEGREES = re.compile(r"\s*(?:\^\s?\\circ|\^\s?\{\s?\\circ\s?\}|\\circ)\s*(?:[CFK]|\\text\{\s?[CFK]\s?\})?\s*$")
_CALL = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?(?![A-Za-z])|(?<![A-Za-z])(?:sin|cos|tan)(?![A-Za-z])")
_CURRENCY = re.compile(r"^(-?)\s?(?:[A-Z]{1,3}\s?)?\$|^(-?)(?:\\text\{\s?)?(?:Rs\.?|USD|EUR|GBP|INR|CNY|RMB)(?:\s?\})?(?=\s?\d)\s?")
_REMARK = re.compile(r"(?<=[\w}])\s?\((?=[^()]*[A-Za-z]{3})[^()\\]*\)$")
_TIME = re.compile(r"(\d{1,2})(?::([0-5]\d))?(?::([0-5]\d))?\s?(?:\\text\{\s*)?(?:([ap])\.?\s?m\.?)?(?:\s*\})?", re.ASCII | re.IGNORECASE)
_SET_BUILDER = re.compile(r"\\?\{\s?(?P<name>[A-Za-z])\s?(?:\\in\s?\\mathbb\{R\})?\s?(?:\||:)(?P<where>.*?)\\?\}", re.DOTALL)
_REALS = re.compile(r"\\mathbb\{R\}(?P<less>(?:\\setminus |-)\\?\{[^{}]{1,40}\})?|all real (?:numbers|values)|all reals", re.IGNORECASE)
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)(?![A-Za-z])|(?<=\d)\s?\^\{?\s?\\text\{\s?(?:st|nd|rd|th)\s?\}\s?\}?")
_RATIO = re.compile(r"(\d+)\s?(?:to|\\text\{\s?to\s?\})\s?(\d+)", re.ASCII)
_UNIT_ATOM = r"(?:\\text\{[^{}]*[A-Za-z][^{}]*\}|\\(?:mu|Omega)(?![A-Za-z])|[A-Za-z.¢µΩ]++)(?:\s?\^\s?\{?-?\d\}?)?"
_UNIT = re.compile(
    rf"(?P<value>.*?[\d)}}\]])(?P<unit>(?:\s*|/(?=[A-Za-z]{{3}})){_UNIT_ATOM}(?:(?:\s|/|-|\\cdot\s?|·|\*)*{_UNIT_ATOM})*+\s*"
    r"|\s*\\frac\{\s*\\text\{[^{}]*\}\s*\}\{\s*\\text\{[^{}]*\}\s*\})",
    re.DOTALL,
)
_TEXT_UNIT = re.compile(r"(?P<value>[^{}]*(?:\d|\\pi).*?)(?P<unit>\\text\{[^{}]*[A-Za-z][^{}]*\}\s?(?:\^\{?[23]\}?)?)", re.DOTALL)
_SYMBOL = r"(?:[A-Za-z]{1,3}'?|\\[a-z]{2,8})(?:_(?:\{[^{}]{1,12}\}|\w))?"
_NAME = re.compile(
    rf"{_SYMBOL}(?:\([A-Za-z0-9,]{{1,12}}\))?|\|[A-Za-z]{{1,3}}\||\((?:{_SYMBOL},)+{_SYMBOL}\)|{_SYMBOL}:{_SYMBOL}"
    r"|\\text\{[^{}]*\}|m?\\angle[A-Z]{1,3}|[A-Za-z]\^\{-1\}(?:\([a-z]\))?|[a-z]\([a-z]\([a-z]\)\)|\\frac\{[A-Z]{1,3}\}\{[A-Z]{1,3}\}",
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
    if (time := _TIME.fullmatch(text)) and (time.group(2) or time.group(4)) and not (time.group(3) and not time.group(2)):
        hour, minute, second, half = time.groups()
        if int(hour) < 25:
            return Time(int(hour), int(minute or 0), int(second or 0), half.lower() + "m" if half else "", text)
    if based(text) or spelled(text):
        return Leaf(text)
    if text in (r"\emptyset", r"\{\}", "{}"):
        return Items("{}", ())
    if ratio := _RATIO.fullmatch(text):
        return Items("::", tuple(map(Leaf, ratio.groups())))
    if choice := re.fullmatch(r"\(?(?:\\text\{\s*\(?([A-Z])\)?\.?\s*\}|([A-Z]))\)?", text):
        return Words(choice.group(1) or choice.group(2))
    if worded := SPELLED.fullmatch(text):
        inside = worded.group(1).strip()
        if re.search(r"\d", inside) or spelled(inside) or _REALS.fullmatch(inside):
            return _shape(normal(inside), depth + 1)
        return Words(words(text))
    if matrix := _MATRIX.search(text):
        named, equals, rest = text.partition("=")
        if equals and is_name(named) and r"\begin" not in named:
            return _shape(rest, depth + 1)
        if r"\begin" not in matrix.group(2) and text[: matrix.start()].strip("[( ") == "" and text[matrix.end() :].strip("]) ") == "":
            rows = [row for row in re.split(r"\\\\(?:\[[^\]]{0,8}\])?", matrix.group(2)) if row.strip()]
            return Matrix(tuple(tuple(_shape(entry, depth + 1) for entry in row.split("&")) for row in rows))
        return Leaf(text)
    text = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", text)
    if builder := _SET_BUILDER.fullmatch(text):
        return _shape(builder.group("where"), depth + 1)
    if between := _both(text):
        text = between
    for separator, separated in ((";", text), (",", _AND.sub(", ", text))):
        if len(parts := split(separated, separator)) > 1:
            return _listed(parts, depth)
    member, belongs, where = text.partition(r"\in")
    if belongs and is_name(member) and not where[:1].isalpha():
        text = where.strip()
    if reals := _REALS.fullmatch(text):
        return _reals(reals.group("less"), depth)
    if re.fullmatch(r"[\[\]](?!.*[\[\]].).*,.*[\[\]]", text) and (text[0] == "]" or text[-1] == "["):  # [2,5[ is [2,5)
        text = ("(" if text[0] == "]" else "[") + text[1:-1] + (")" if text[-1] == "[" else "]")
    if len(parts := split(text.replace(r"\cup", "\ue001"), "\ue001")) > 1:
        return Union(tuple(_shape(part, depth + 1) for part in parts))
    if relation := relation_in(text):
        return relation
    if pair := _bracketed(text):
        opening, inside, closing = pair
        parts = split(inside, ";") if ";" in inside else split(inside, ",", bracketed=True)
        if len(parts) > 1 or opening == "{":
            return Items(opening + closing, _spread([_shape(part, depth + 1) for part in parts if part.strip()]))
        return _shape(inside, depth + 1) if opening in "([" and closing in ")]" else Leaf(text)
    if len(parts := split(text, ":")) > 1:
        return Items("::", tuple(_shape(part, depth + 1) for part in parts))
    return _leaf(text)


def _both(text: str) -> str | None:
    """`0<x and x<1` as `0<x<1`: a bound from below and one from above for the same name, in one chain."""
    pieces = re.split(r"\\text\{\s*and\s*\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:wedge|land)(?![A-Za-z])", text)
    if len(pieces) != 2 or not all(relations := [relation_in(piece.strip()) for piece in pieces]):
        return None
    bounds: dict[str, tuple[str, str, str]] = {}
    for relation in relations:
        if relation is None or len(relation.sides) != 2:
            return None
        (left, right), (sign,) = relation.sides, relation.signs
        if is_name(right):
            left, right, sign = right, left, _TURNED.get(sign, "")
        if sign not in _TURNED:
            return None
        bounds["above" if sign in ("<", r"\le ", r"\le") else "below"] = (left, sign, right)
    if len(bounds) < 2 or bounds["above"][0] != bounds["below"][0]:
        return None
    name, sign, high = bounds["above"]
    return f"{bounds['below'][2]}{_TURNED[bounds['below'][1]]} {name}{sign} {high}"


_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


def _reals(less: str | None, depth: int) -> Shape:
    """All real numbers, less the few of a set."""
    low, high = Leaf(r"-\infty"), Leaf(r"\infty")
    if less is None:
        return Items("()", (low, high))
    without = _shape(less.replace(r"\setminus ", "").lstrip("-"), depth + 1)
    if not isinstance(without, Items) or len(without.items) > 8:
        return Leaf(less)
    try:
        points = sorted(without.items, key=_place)
    except (Unreadable, TypeError):
        return Leaf(less)
    return Union(tuple(Items("()", pair) for pair in zip((low, *points), (*points, high), strict=True)))


def _place(item: Shape) -> float:
    if not isinstance(item, Leaf):
        raise Unreadable("not a number")
    return complex(evaluate(read(item.text))).real


def split(text: str, separator: str, bracketed: bool = False) -> list[str]:
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


def relation_in(text: str) -> Relation | None:
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
    text = _ORDINAL.sub("", _REMARK.sub(lambda remark: remark.group() if doubts(remark.group()) else "", text))
    unit = "degree" if not _CALL.search(text) and _DEGREES.search(text) else ""
    text = _DEGREES.sub("", text) if unit else text
    if _CURRENCY.match(text):
        text, unit = _CURRENCY.sub(lambda sign: sign.group(1) or sign.group(2) or "", text).strip(), "dollar"
    if text.endswith("$"):
        text, unit = text[:-1].strip(), "dollar"
    if united := _united(text):
        text, unit = _magnified(*united), unit or united[1]
    elif _WORD.search(re.sub(r"\\[A-Za-z]+", lambda command: command.group() if command.group() == r"\text" else " ", text)):
        return _counted(text) or Words(words(text))
    text = text.strip()
    if _SPACED.fullmatch(text.lstrip("-")):
        text = text.replace(" ", "")
    text = THOUSANDS.sub(lambda group: group.group().replace(",", ""), text)
    if mixed := _MIXED.match(text):
        text = r"{}{}\frac{{{}}}{{{}}}".format(*mixed.groups())
    if scientific := _SCIENTIFIC.match(text):
        text = f"{scientific.group(1)}*10^{{{scientific.group(2)}}}"
    return Leaf(text, percent, unit)


def matrices(text: str) -> list[str]:
    """The matrices that a text works with, to the letter."""
    return [match.group() for match in _ONE_MATRIX.finditer(text)]


_ONE_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|smallmatrix|array)\}.*?\\end\{\1\}", re.DOTALL)


def scaled_matrix(text: str) -> Matrix | None:
    """The matrix that a number times a matrix, or a transposed one, is; None for anything else."""
    whole = _SCALED.fullmatch(text)
    if not whole or r"\begin" in whole.group("body") or not (whole.group("scalar") or whole.group("transposed")):
        return None
    rows = [row.split("&") for row in re.split(r"\\\\(?:\[[^\]]{0,8}\])?", whole.group("body")) if row.strip()]
    if whole.group("transposed") and len({len(row) for row in rows}) == 1:
        rows = [list(column) for column in zip(*rows, strict=True)]
    scalar = "-1" if whole.group("scalar") == "-" else whole.group("scalar")
    return Matrix(tuple(tuple(shape(f"({scalar})*({entry.strip()})" if scalar else entry.strip()) for entry in row) for row in rows))


_SCALED = re.compile(
    r"(?P<scalar>-|[^&\\]*?|-?\\frac\{[^{}]*\}\{[^{}]*\}|-?\\frac\d\d)\s?(?:\\cdot|\\times|\*)?\s?"
    r"\\begin\{(?P<kind>[pbB]?matrix|smallmatrix)\}(?P<body>.*)\\end\{(?P=kind)\}(?P<transposed>\^\{?(?:\{T\}|T|\\top|t|\\text\{\s?T\s?\})\s?\}?)?",
    re.DOTALL,
)


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


def says_something(relation: Relation) -> bool:
    """Whether a chain does more than repeat itself (`1=1`) or list numbers that aren't equal (`x=3=5=8`; `12 \\approx 700`)."""
    if not set(relation.signs) <= {"=", r"\approx"}:
        return True
    members = [_number_of(side) for side in relation.sides if not is_name(side)]
    values = [value for value in members if value is not None]
    rounded = all(abs(value - values[0]) <= abs(values[0]) / (50 if "=" in relation.signs else 20) for value in values)
    return len(set(relation.sides)) > 1 and (rounded or len(values) < len(members) or len(set(relation.signs)) > 1)


def _number_of(side: str) -> float | None:
    number = numeral(side)
    return float(number.value) if number else None


def _computes(sides: list[str]) -> bool:
    """Whether sides are a computation: numbers, the first and the last of them one value."""
    in_bases = [based(side) for side in sides]
    if any(in_bases):
        return len({str(based_value(*number) if number else side) for number, side in zip(in_bases, sides, strict=True)}) == 1
    try:
        last = _leaf(sides[-1])  # 5! = 120 ways
        bare = [*sides[:-1], last.text if isinstance(last, Leaf) and not last.percent else sides[-1]]
        trees = [read(re.sub(r"\\?%$", "/100", side)) for side in bare]
        return not any(names(tree) for tree in trees) and same(trees[0], trees[-1]) is not False
    except (Unreadable, TooLarge):
        return False


def _united(text: str) -> tuple[str, str] | None:
    """(number, unit) where a unit ends the text."""
    for pattern in (_UNIT, _TEXT_UNIT):
        if (match := pattern.fullmatch(text)) and (named := _named_unit(match.group("unit"))):
            return match.group("value"), named
    return None


def _named_unit(text: str) -> str:
    """The unit that follows a number, with its power, or nothing where it is a product of variables."""
    unit = re.sub(r"\\frac\s?\{(.*?)\}\s?\{(.*?)\}", r"\1/\2", SPELLED.sub(r" \1 ", text)) if r"\text" in text else text
    unit = re.sub(r"\s+(?=[\^/])|(?<=/)\s+|[{}]", "", re.sub(r"\\mu\s?", "µ", unit)).strip()
    outside = re.sub(r"[\s/·*^{}0-9-]|\\(?:cdot|frac|mu)", "", SPELLED.sub("", text)) if r"\text" in text else text
    magnitude = unit.split() and unit.split()[0].casefold() in MAGNITUDES
    if (changes(unit) and not magnitude) or ((r"\text" not in text or outside) and not is_unit(unit, apart=text[:1].isspace())):
        return unit.casefold() if magnitude and not changes(" ".join(unit.split()[1:])) else ""
    return unit.casefold()


def _magnified(number: str, unit: str) -> str:
    """3 (million) is 3000000."""
    magnitude = MAGNITUDES.get(unit.split(maxsplit=1)[0])
    read_number = numeral(THOUSANDS.sub(lambda group: group.group().replace(",", ""), number)) if magnitude else None
    if magnitude is None or read_number is None or (read_number.value * magnitude).denominator != 1:
        return number
    return str(read_number.value * magnitude)


def _counted(text: str) -> Leaf | None:
    """A number in words, with what it counts: "twelve", "twenty-one apples"."""
    parts = SPELLED.sub(r" \1 ", text).split()
    for end in range(len(parts), 0, -1):
        if spelled(" ".join(parts[:end])):
            if re.search(r"\b(?:more|less|fewer|than|times|plus|minus|over|divided)\b|\d", " ".join(parts[end:])):
                return None  # "one more than 0" is still to be worked out
            return Leaf(" ".join(parts[:end]), unit=words(" ".join(parts[end:])))
    return None
