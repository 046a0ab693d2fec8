"""Equations and inequalities: as intervals, side by side, and up to a factor."""

from fractions import Fraction

from jaxpolya.verify.mathematics.expression import Unreadable, evaluate, names, points, read, same
from jaxpolya.verify.mathematics.latex import squeezed
from jaxpolya.verify.mathematics.structure import Items, Leaf, Relation, Shape, Union, is_name, shape

_FLIPPED = {"=": "=", r"\ne": r"\ne", "<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\approx": r"\approx"}


def interval(relation: Relation) -> Shape | None:
    """The interval, or the union of two, that an inequality in one plain name describes."""
    sides, signs = relation.sides, relation.signs
    if signs == (r"\ne",) and is_name(sides[0]):
        point = shape(sides[1])
        return Union((Items("()", (Leaf(r"-\infty"), point)), Items("()", (point, Leaf(r"\infty")))))
    if any(sign not in ("<", ">", r"\le", r"\ge") for sign in signs) or any(side.startswith("|") for side in sides):
        return None
    if signs[0] in (">", r"\ge"):
        sides, signs = sides[::-1], tuple(_FLIPPED[sign] for sign in reversed(signs))
    if any(sign not in ("<", r"\le") for sign in signs):
        return None
    opening, closing = ("[" if signs[0] == r"\le" else "("), ("]" if signs[-1] == r"\le" else ")")
    if len(sides) == 3 and is_name(sides[1]):
        low, high = sides[0], sides[2]
    elif len(sides) == 2 and is_name(sides[1]):
        low, high, closing = sides[0], r"\infty", ")"
    elif len(sides) == 2 and is_name(sides[0]):
        low, high, opening = r"-\infty", sides[1], "("
    else:
        return None
    return Items(opening + closing, (shape(low), shape(high)))


def sides_equal(gold: Relation, answer: Relation) -> bool:
    """The same relation side by side, as written or read from the right."""
    for sides, signs in ((answer.sides, answer.signs), (answer.sides[::-1], tuple(_FLIPPED[sign] for sign in reversed(answer.signs)))):
        if signs == gold.signs and all(_same_text(g, a) for g, a in zip(gold.sides, sides, strict=True)):
            return True
    return False


def _same_text(gold: str, answer: str) -> bool:
    try:
        return squeezed(gold) == squeezed(answer) or bool(same(read(gold), read(answer)))
    except Unreadable:
        return False


def same_relation(gold: Relation, answer: Relation) -> bool | None:
    """Whether two relations of two sides have the same solutions because one is a multiple of the other; None where unread."""
    if len(gold.sides) != 2 or len(answer.sides) != 2:
        return None if len(gold.sides) == len(answer.sides) else False
    try:
        trees = [read(f"({side})") for side in (*gold.sides, *answer.sides)]
        variables = set().union(*(names(tree) for tree in trees))
        factors: set[Fraction] = set()
        approximate: list[tuple[complex, complex]] = []
        for point in points(variables, signed=True):
            first, second, third, fourth = (evaluate(tree, point) for tree in trees)
            left, right = first - second, third - fourth
            if not all(isinstance(value, Fraction) for value in (first, second, third, fourth)):
                approximate.append((complex(left), complex(right)))
            elif left == 0 or right == 0:
                return None
            else:
                factors.add(Fraction(right) / Fraction(left))  # type: ignore[arg-type]
    except (Unreadable, OverflowError):
        return None
    if approximate:
        return _proportional(approximate) and answer.signs == gold.signs == ("=",)
    if len(factors) != 1:
        return False if gold.signs == ("=",) else None
    sign = answer.signs[0] if next(iter(factors)) > 0 else _FLIPPED[answer.signs[0]]
    return sign == gold.signs[0]


def _proportional(values: list[tuple[complex, complex]]) -> bool:
    """Whether one of two differences is the other times a constant, at all points. Solving equations is no verifier's business."""
    first, second = values[0]
    if not first or not second:
        return False
    return all(abs(left * second - right * first) <= 1e-9 * (abs(left * second) + abs(right * first)) for left, right in values)
