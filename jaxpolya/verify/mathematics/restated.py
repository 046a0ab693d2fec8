"""What a question says itself: its numbers, its formulas, and whether an answer only repeats one.

Whoever answers with a formula of the question has not answered it, however equal it is to the gold. Formulas stand between LaTeX's
delimiters, or are runs of numbers, single letters and operators in plain text. They are compared by form (`forms`), where they can be
read, and else as text.
"""

import functools
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from jaxpolya.verify.mathematics.expression import Node, TooLarge, Unreadable, read, same
from jaxpolya.verify.mathematics.forms import Form, meaning, parts
from jaxpolya.verify.mathematics.latex import normal, squeezed
from jaxpolya.verify.mathematics.literals import is_numeral, is_reduced, numeral, spelled
from jaxpolya.verify.mathematics.relations import same_relation, sides_equal
from jaxpolya.verify.mathematics.structure import Relation, relation_in, split

MAX_QUESTION = 20_000
MAX_FORMULAS = 200

_MATH = re.compile(r"\$\$(.+?)\$\$|\$((?:\\.|[^$\\])+)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{(?:align|equation|gather|cases|aligned)\*?\}|&|\\\\(?:\[[^\]]*\])?|\\(?:qquad|quad)")
_TOKEN = re.compile(r"\S+")
_MATHS_WORD = re.compile(
    r"[(\[{|]*(?:[-+*/^=<>×·÷−–!|%(){}\[\]]+|[A-Zb-z]|a(?=[\^*+=/])|[-+]?[\d.,]*\d[\d.,]*%?|(?:sin|cos|tan|log|ln|sqrt|exp|pi)\b.*"
    r"|[-+(\[]*(?:\d|[A-Za-z](?![A-Za-z]{2}))\S*[-+*/^=()×·÷−–!]\S*|\S*\d\S*[A-Za-z](?![A-Za-z]))[)\]}|]*[.,;:?!]*"
)
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+", re.ASCII)


class Formulas(NamedTuple):
    """The formulas of a question; sides of its relations count by themselves too."""

    texts: tuple[str, ...]
    nodes: tuple[Node, ...]
    relations: tuple[Relation, ...]
    forms: frozenset[Form]
    """The meanings of the formulas and of everything in them, but numerals and single symbols."""


@functools.lru_cache(maxsize=2048)
def numbers(question: str) -> frozenset[Fraction]:
    """The numbers that stand in a question, in digits or in words, without signs."""
    values = {Fraction(number.replace(",", "")) for number in _NUMBER.findall(question[:MAX_QUESTION]) if len(number) < 40}
    words = (spelled(word) for word in re.findall(r"[A-Za-z]+(?:-[a-z]+)?", question[:MAX_QUESTION]))
    return frozenset(values | {abs(word.value) for word in words if word})


@functools.lru_cache(maxsize=2048)
def numerals_in(question: str) -> frozenset[tuple[str, Fraction, tuple[int, int] | None]]:
    """(kind, value, fraction as it is written) of the numerals that stand in a question, without signs; see `literals`."""
    numerals: set[tuple[str, Fraction, tuple[int, int] | None]] = {("plain", number, None) for number in numbers(question)}
    for match in _REPEATING.finditer(question[:MAX_QUESTION]):
        if number := numeral(match.group()):
            numerals.add(("repeating", abs(number.value), None))
    for match in _WRITTEN.finditer(question[:MAX_QUESTION]):
        whole, *parts = match.group("whole"), *filter(None, match.group("p", "q", "top", "bottom", "flat_top", "flat_bottom"))
        if match.group("percent"):
            numerals.add(("percent", Fraction(match.group("percent")), None))
        elif match.group("power"):
            numerals.add(("power", Fraction(match.group("scale")) * Fraction(10) ** int(match.group("power")), None))
        elif match.group("exponent"):
            numerals.add(("power", Fraction(match.group("digits")) * Fraction(10) ** int(match.group("exponent")), None))
        elif int(parts[1]):
            fraction = int(parts[0]), int(parts[1])
            numerals.add(("mixed" if whole else "fraction", int(whole or 0) + Fraction(*fraction), fraction))
    return frozenset(numerals)


_REPEATING = re.compile(r"\d{0,30}\.\d{0,30}(?:\\(?:overline|bar)\{\d{1,30}\}|\\dot\{?\d\}?(?:\d{0,30}\\dot\{?\d\}?)?)", re.ASCII)
_WRITTEN = re.compile(
    r"(?P<percent>\d{1,30}(?:\.\d{1,30})?)\s?(?:\\?%|percent)"
    r"|(?P<scale>\d{1,30}(?:\.\d{1,30})?)\s?(?:\\times|\\cdot|×|\*|x)\s?10\s?\^\s?\{?(?P<power>-?\d{1,3})"
    r"|(?P<digits>\d{1,30}(?:\.\d{1,30})?)[eE](?P<exponent>[-+]?\d{1,3})"
    r"|(?:(?P<whole>\d{1,30})\s?)??(?:\\[dtc]?frac\s?(?:\{(?P<p>\d{1,30})\}\s?\{(?P<q>\d{1,30})\}|(?P<top>\d)(?P<bottom>\d))"
    r"|(?<!\d)(?P<flat_top>\d{1,30})\s?/\s?(?P<flat_bottom>\d{1,30}))",
    re.ASCII,
)


def restates_division(fraction: tuple[int, int] | None, question: str) -> bool:
    """Whether a fraction that isn't in lowest terms is one number of the question over another, as they stand or multiplied."""
    if fraction is None or not all(fraction) or is_reduced(fraction):
        return False
    quotient = abs(Fraction(*fraction))
    stated = numbers(question)
    return any(number * quotient in stated for number in stated if number)


@functools.lru_cache(maxsize=1024)
def formulas(question: str) -> Formulas:
    """What a question's formulas are."""
    texts = list(dict.fromkeys(filter(None, map(normal, _candidates(question[:MAX_QUESTION])))))[:MAX_FORMULAS]
    nodes, relations = [], []
    for text in texts:
        relation = relation_in(text)
        if relation:
            relations.append(relation)
        for side in relation.sides if relation else (text,):
            try:
                nodes.append(read(side))
            except (Unreadable, TooLarge):
                continue
    inner = {meaning(part) for node in nodes for part in parts(node) if not is_numeral(part) and part.op not in ("var", "pi")}
    return Formulas(tuple(texts), tuple(nodes), tuple(relations), frozenset(inner))


def asks_about(gold: Node, question: str) -> bool:
    """Whether a formula of the question equals the gold: then the question is about the gold's form, not its value."""
    return any(not is_numeral(node) and _equal(gold, node) for node in formulas(question).nodes)


def asks_about_relation(gold: Relation, question: str) -> bool:
    """Whether a relation of the question has the gold's solutions, as it stands or up to a factor."""
    for relation in formulas(question).relations:
        try:
            if sides_equal(gold, relation) or same_relation(gold, relation):
                return True
        except TooLarge:
            continue
    return False


def repeats_relation(relation: Relation, question: str) -> bool:
    """Whether a relation is one of the question's, read from either side."""
    return any(sides_equal(stated, relation) for stated in formulas(question).relations)


def ends_with_relation(answer: Relation, question: str) -> bool:
    """Whether a chain ends with an equation of the question: `f(x)=78y^2=0` says no more than `78y^2=0` did."""
    own_sides = {squeezed(side) for side in answer.sides}
    return len(own_sides) > 2 and any(
        {squeezed(side) for side in stated.sides} <= own_sides and squeezed(answer.sides[-1]) in map(squeezed, stated.sides)
        for stated in formulas(question).relations
    )


def stands_in(text: str, question: str) -> bool:
    """Whether an answer that can't be read as an expression is part of a formula of the question, to the letter."""
    letters = squeezed(text)
    return len(letters) > 2 and any(letters in squeezed(formula) for formula in formulas(question).texts)


def _equal(gold: Node, node: Node) -> bool:
    try:
        return bool(same(gold, node))
    except (Unreadable, TooLarge):
        return False


def _candidates(question: str) -> Iterator[str]:
    """The texts that may be formulas: between delimiters, then runs of mathematical words in what is left."""
    for match in _MATH.finditer(question):
        yield from _separated(next(filter(None, match.groups())))
    plain = _MATH.sub(" \ue000 ", question)
    run: list[str] = []
    for token in [*_TOKEN.findall(plain), "\ue000"]:
        if _MATHS_WORD.fullmatch(token):
            run.append(token)
        if not _MATHS_WORD.fullmatch(token) or token[-1] in ",;?":
            if run and (len(run) > 1 or len(run[0]) > 2):
                yield from _separated(" ".join(run).strip(".,;:?="))
            run = []


def _separated(formula: str) -> Iterator[str]:
    """A formula and, of a list or of an aligned display, its parts."""
    yield formula
    for line in _ENVIRONMENT.split(formula):
        pieces = split(line, ",")
        if line != formula or len(pieces) > 1:
            yield from pieces
