"""What an expression still leaves to be computed, and whether two are one but for their order.

A `Form` is an expression without its spelling: sums and products are bags of terms and factors, numerals are their values, signs stand in
front. `97 * 49` and `49 \\times 97` are one form, `4753` is another. Quotients and powers, roots and powers are told apart: to write the
one as the other may be what a question asks.

An expression's operations on numbers are those of its parts that have a rational value and aren't numerals: `2 \\cdot 5!` has two,
`\\frac12 \\sqrt3` none. In a sum or a product all numerals count together, so `3x + 2 + 5` has one wherever they stand.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from jaxpolya.verify.mathematics.expression import Node, TooLarge, Unreadable, evaluate, names
from jaxpolya.verify.mathematics.literals import is_numeral, numeral_value, signed

MAX_DENOMINATOR = 1000
"""Of a rational value that floats are recognised as; an irrational one is within 1e-12 of such a number once in a million times."""


class Form(NamedTuple):
    """An expression without its spelling; hashable, and equal where only spelling and order differ."""

    op: str
    args: tuple[object, ...]


@functools.lru_cache(maxsize=4096)
def form(node: Node) -> Form:
    """The form of an expression."""
    if is_numeral(node):
        return _number(numeral_value(node))
    if node.op in ("add", "neg", "mixed"):
        return _sum(node)
    if node.op in ("mul", "div"):
        return _product(node)
    return Form(node.op, tuple(form(arg) if isinstance(arg, Node) else arg for arg in node.args))


@functools.lru_cache(maxsize=4096)
def meaning(node: Node) -> Form:
    """The form of an expression in which roots and quotients are powers: \\sqrt{72}, 72^{1/2} and (\\sqrt{72})^1 are one."""
    return form(_as_powers(node))


def _as_powers(node: Node) -> Node:
    if is_numeral(node):
        return node
    args = [_as_powers(arg) if isinstance(arg, Node) else arg for arg in node.args]
    if node.op == "div":
        if is_numeral(args[1]) and numeral_value(args[1]):
            return Node("mul", (args[0], Node("num", (1 / numeral_value(args[1]),))))
        inverse = _raised(args[1], Fraction(-1))
        return inverse if args[0] == _ONE else Node("mul", (args[0], inverse))
    if node.op in ("pow", "root") and is_numeral(args[1]) and (exponent := numeral_value(args[1])):
        return _raised(args[0], exponent if node.op == "pow" else 1 / exponent)
    if node.op == "mul" and _ONE in args:
        return args[args[0] == _ONE]
    return Node(node.op, tuple(args))


def _raised(base: Node, exponent: Fraction) -> Node:
    if base.op == "pow" and is_numeral(base.args[1]):
        base, exponent = base.args[0], exponent * numeral_value(base.args[1])
    return base if exponent == 1 else Node("pow", (base, Node("num", (exponent,))))


def operations(node: Node) -> Counter[Form]:
    """The forms of an expression's operations on numbers."""
    counts: Counter[Form] = Counter()
    _operations(node, counts)
    return counts


def size(node: Node) -> int:
    """How many operations an expression has; numerals have none, and a sign is none."""
    if is_numeral(node) or node.op in ("num", "var", "pi"):
        return 0
    if node.op in ("mul", "div"):
        numbers, others = _numbers(node), _others(node)
        return sum(size(other) for other in others) + len(others) + bool(numbers and any(abs(n) != 1 for n, _ in numbers)) - 1
    inner = sum(size(arg) for arg in node.args if isinstance(arg, Node))
    return inner + (node.op != "neg")


def parts(node: Node) -> Iterator[Node]:
    """An expression and everything in it."""
    yield node
    for arg in node.args:
        if isinstance(arg, Node):
            yield from parts(arg)


def _number(value: Fraction) -> Form:
    return Form("num", (value,))


def _terms(node: Node, sign: int = 1) -> Iterator[tuple[int, Node]]:
    """(sign, term) of a sum."""
    if is_numeral(node):
        yield sign, node
    elif node.op in ("add", "mixed"):
        for arg in node.args:
            yield from _terms(arg, sign)
    elif node.op == "neg":
        yield from _terms(node.args[0], -sign)
    else:
        yield sign, node


def _factors(node: Node, inverse: bool = False) -> Iterator[tuple[Node, bool]]:
    """(factor, whether it divides) of a product; a sign is the factor −1."""
    if is_numeral(node):
        yield node, inverse
    elif node.op in ("mul", "div"):
        yield from _factors(node.args[0], inverse)
        yield from _factors(node.args[1], inverse ^ (node.op == "div"))
    elif node.op == "neg":
        yield _MINUS_ONE, inverse
        yield from _factors(node.args[0], inverse)
    else:
        yield node, inverse


_MINUS_ONE, _ONE = Node("num", (Fraction(-1),)), Node("num", (Fraction(1),))


def _numbers(node: Node) -> list[tuple[Fraction, bool]]:
    return [(numeral_value(factor), inverse) for factor, inverse in _factors(node) if is_numeral(factor)]


def _others(node: Node) -> list[Node]:
    return [factor for factor, _ in _factors(node) if not is_numeral(factor)]


def _sum(node: Node) -> Form:
    terms = list(_terms(node))
    if len(terms) == 1:
        sign, term = terms[0]
        return _scaled(Fraction(sign), form(term))
    return Form("add", tuple(sorted((_scaled(Fraction(sign), form(term)) for sign, term in terms), key=repr)))


def _product(node: Node) -> Form:
    """A coefficient and factors, above and below; the sign of a sum among them goes into the coefficient.

    Where several numerals stand above, or several below, they are factors, not one coefficient: `4 \\cdot 15` isn't `3 \\cdot 20`.
    """
    sign, numbers, factors = 1, [], []
    for factor, inverse in _factors(node):
        if factor == _MINUS_ONE:
            sign = -sign
        elif is_numeral(factor):
            numbers.append((numeral_value(factor), inverse))
        else:
            inside = form(factor)
            if inside.op == "add" and _leads_negative(inside):
                inside, sign = _negated(inside), -sign
            factors.append(Form("below" if inverse else "above", (inside,)))
    coefficient = Fraction(sign)
    if all(sum(inverse is where for _, inverse in numbers) <= 1 for where in (True, False)):
        for value, inverse in numbers:
            if inverse and not value:
                raise Unreadable("no value")
            coefficient = coefficient / value if inverse else coefficient * value
    else:
        factors += [Form("below" if inverse else "above", (_number(value),)) for value, inverse in numbers]
    return _multiplied(coefficient, sorted(factors, key=repr))


def _multiplied(coefficient: Fraction, factors: Sequence[Form]) -> Form:
    """A coefficient times sorted factors, as simple as it can be said."""
    if not factors or not coefficient:
        return _number(coefficient)
    if coefficient == 1 and len(factors) == 1 and factors[0].op == "above":
        return factors[0].args[0]  # type: ignore[return-value]
    return Form("mul", (coefficient, *factors))


def _scaled(factor: Fraction, given: Form) -> Form:
    if given.op == "num":
        return _number(factor * given.args[0])  # type: ignore[operator]
    if factor == 1:
        return given
    if given.op == "mul":
        return _multiplied(factor * given.args[0], given.args[1:])  # type: ignore[operator, arg-type]
    if given.op == "add":
        return _negated(given)
    return Form("mul", (factor, Form("above", (given,))))


def _leads_negative(given: Form) -> bool:
    """Whether more of a sum's terms are negative than positive; the first one decides where they are as many."""
    signs = [term.args[0] < 0 for term in given.args if term.op in ("num", "mul")]  # type: ignore[attr-defined, operator]
    positive = len(given.args) - sum(signs)
    first = min(given.args, key=lambda term: repr(_magnitude(term)))  # type: ignore[arg-type]
    negative_first = first.op in ("num", "mul") and first.args[0] < 0  # type: ignore[attr-defined, operator]
    return sum(signs) > positive or (sum(signs) == positive and negative_first)


def _magnitude(term: Form) -> Form:
    if term.op in ("num", "mul"):
        return Form(term.op, (abs(term.args[0]), *term.args[1:]))  # type: ignore[arg-type]
    return Form("mul", (Fraction(1), Form("above", (term,))))


def _negated(given: Form) -> Form:
    return Form("add", tuple(sorted((_scaled(Fraction(-1), term) for term in given.args), key=repr)))  # type: ignore[arg-type]


def _operations(node: Node, counts: Counter[Form]) -> None:
    if is_numeral(node) or node.op in ("num", "var", "pi"):
        return
    if node.op in ("add", "neg", "mixed"):
        _operations_of_sum(node, counts)
    elif node.op in ("mul", "div"):
        _operations_of_product(node, counts)
    else:
        for arg in node.args:
            if isinstance(arg, Node):
                _operations(arg, counts)
        if _rational(node) or (node.op == "abs" and not names(node)) or (node.op == "pow" and _gaussian(node.args[0])):
            counts[_power(node)] += 1


def _power(node: Node) -> Form:
    """The form of an operation; a power with a negative exponent is the quotient that it means: 2^{-99} holds what 1/2^{99} does."""
    sign, exponent = signed(node.args[1]) if node.op == "pow" else (1, None)
    return form(Node("pow", (node.args[0], exponent))) if sign < 0 else form(node)


def _operations_of_sum(node: Node, counts: Counter[Form]) -> None:
    terms = list(_terms(node))
    for _, term in terms:
        _operations(term, counts)
    rational = sum(_rational(term) for _, term in terms)
    idle = any(is_numeral(term) and not numeral_value(term) for _, term in terms)
    imaginary = sum((value := _gaussian(term)) is not None and abs(value.real) < 1e-12 for _, term in terms)
    if len(terms) > 1 and (rational > 1 or imaginary > 1 or idle or _rational(node)):
        counts[form(node)] += 1


def _operations_of_product(node: Node, counts: Counter[Form]) -> None:
    factors = [factor for factor in _factors(node) if factor[0] != _MINUS_ONE]
    for factor, _ in factors:
        _operations(factor, counts)
    above = [factor for factor, inverse in factors if not inverse and _rational(factor)]
    below = [factor for factor, inverse in factors if inverse and _rational(factor)]
    fractions = [factor for factor in above + below if not _is_integer(factor)]
    beside = sum(not inverse for _, inverse in factors) > 1
    idle = any(_is_one(factor) and (inverse or beside) for factor, inverse in factors)
    complexes = [inverse for factor, inverse in factors if _gaussian(factor)]
    if (
        len(complexes) > 1
        or any(complexes)
        or len(above) > 1
        or len(below) > 1
        or (fractions and above and below)
        or idle
        or (len(factors) > 1 and _rational(node))
    ):
        counts[form(node)] += 1


def _is_one(node: Node) -> bool:
    return is_numeral(node) and numeral_value(node) == 1


def _gaussian(node: Node) -> complex | None:
    """The value of a complex number with rational parts that isn't real, else None: powers and products of such are still to be done."""
    if names(node) or not any(part == Node("var", ("i",)) for part in parts(node)):
        return None
    try:
        value = complex(evaluate(node))
    except (Unreadable, TooLarge, OverflowError):
        return None
    return value if abs(value.imag) > 1e-12 and _near_rational(value.real) and _near_rational(value.imag) else None


def _near_rational(value: float) -> bool:
    if not abs(value) < 1e9:
        return False
    return abs(value - float(Fraction(value).limit_denominator(MAX_DENOMINATOR))) <= 1e-12 * max(1.0, abs(value))


def _is_integer(node: Node) -> bool:
    return node.op == "num" and node.args[0].denominator == 1


def _rational(node: Node) -> bool:
    """Whether an expression without variables has a rational value."""
    if is_numeral(node):
        return True
    if names(node):
        return False
    try:
        value = evaluate(node)
    except Unreadable:
        return False
    except TooLarge:
        return True
    if isinstance(value, Fraction):
        return True
    return abs(value.imag) <= 1e-12 * abs(value) and _near_rational(value.real)
