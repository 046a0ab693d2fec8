"""Closed-form expressions in LaTeX or plain text: a small reader and an exact evaluator.

Most answers are arithmetic, radicals or polynomials. Reading them takes tens of microseconds here, where a computer algebra
system takes milliseconds and can be led to run for ever. Whatever this reader doesn't know raises `Unreadable`, and somebody
slower looks at it; whatever would cost too much raises `TooLarge` before it is computed.

Two expressions are compared by value. Arithmetic is exact (`Fraction`) as long as it can be, so polynomials and rational
functions agree at random rational points only if they are identical (Schwartz-Zippel: the chance of an error at three points
with 10^4 values each is below 10^-9 for the degrees at hand). Radicals, logarithms and trigonometry fall to complex floats, which
decide where they agree to 1e-12 or differ by more than 1e-6, and leave what is between to others. Variables are positive at
the points, as answers mean them, except where an absolute value makes the sign matter.
"""

import cmath
import functools
import math
import random
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

MAX_DEPTH = 60
MAX_TERMS = 200
MAX_DIGITS = 1000
MAX_BITS = 200_000
MAX_FACTORIAL = 3000

Value = Fraction | complex


class Unreadable(Exception):
    """Not an expression of the kind that this module reads."""


class TooLarge(Exception):
    """An expression whose value, depth or length is beyond what an answer can need."""


class Node(NamedTuple):
    """An expression: `op` is `num`, `var`, or a key of the evaluator; `args` are nodes, or the leaf's value."""

    op: str
    args: tuple[Any, ...]


_NUMBER = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sec": lambda z: 1 / cmath.cos(z), "csc": lambda z: 1 / cmath.sin(z),
    "cot": lambda z: 1 / cmath.tan(z), "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan, "sinh": cmath.sinh,
    "cosh": cmath.cosh, "tanh": cmath.tanh, "ln": cmath.log, "log": cmath.log, "exp": cmath.exp,
}  # fmt: skip
_GREEK = frozenset(
    ("alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "kappa", "lambda", "mu", "nu", "xi",
     "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "infty", "ell")
)  # fmt: skip
_CALLED = frozenset("fghFGPQ")
_INVERTIBLE = frozenset(("sin", "cos", "tan"))
_INVERSE = Node("neg", (Node("num", (Fraction(1),)),))


class _Reader:
    """Recursive descent over the characters of one expression."""

    def __init__(self, text: str):
        self.text, self.at, self.depth, self.terms = text, 0, 0, 0

    def enter(self) -> None:
        """One more level of nesting: each is a few levels of the reader's own recursion."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge("nested too deeply")

    def count(self) -> None:
        """One more operation in a row: each is a level of the tree that `evaluate` descends."""
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise TooLarge("too many terms")

    def peek(self, *options: str) -> str | None:
        """The option that comes next, after blanks."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return next((option for option in options if self.text.startswith(option, self.at)), None)

    def take(self, *options: str) -> str | None:
        token = self.peek(*options)
        if token:
            self.at += len(token)
        return token

    def command(self, take: bool = False) -> str | None:
        self.peek()
        match = _COMMAND.match(self.text, self.at)
        if match and take:
            self.at = match.end()
        return match.group(1) if match else None

    def whole(self) -> Node:
        node = self.sum()
        self.peek()
        if self.at < len(self.text):
            raise Unreadable(self.text[self.at :])
        return node

    def sum(self) -> Node:
        node = self.product()
        while sign := self.take("+", "-"):
            self.count()
            other = self.product()
            node = Node("add", (node, other if sign == "+" else Node("neg", (other,))))
        return node

    def product(self) -> Node:
        signs = 0
        negative = False
        while sign := self.take("-", "+"):
            negative ^= sign == "-"
            if (signs := signs + 1) > 2:
                raise Unreadable("a row of signs")
        node = self.power()
        while True:
            self.count()
            if self.take("*"):
                node = Node("mul", (node, self.signed()))
            elif self.take("/"):
                node = Node("div", (node, self.signed()))
            elif (name := self.command()) in ("cdot", "times", "ast"):
                self.command(take=True)
                node = Node("mul", (node, self.signed()))
            elif name == "div":  # an operation that is to be done, where a fraction bar may be a number's
                self.command(take=True)
                node = Node("mul", (node, Node("pow", (self.signed(), _INVERSE))))
            elif self.starts_factor():
                node = self.join(node)
            else:
                return Node("neg", (node,)) if negative else node

    def join(self, left: Node) -> Node:
        """A factor and the next one beside it: a product, or a mixed number."""
        before = self.text[: self.at].rstrip()[-1:]
        if self.text[self.at] in "0123456789." and not (before in (")", "]") or before.isalpha()):
            raise Unreadable("a number after a number")
        right = self.power()
        proper = right.op == "div" and all(part.op == "num" for part in right.args) and right.args[0].args[0] < right.args[1].args[0]
        if left.op == "num" and proper and left.args[0].denominator == 1:
            return Node("mixed", (left, right))
        return Node("mul", (left, right))

    def signed(self) -> Node:
        if self.take("-"):
            return Node("neg", (self.power(),))
        return self.power()

    def starts_factor(self) -> bool:
        if self.peek("(", "{", "["):
            return True
        name = self.command()
        if name is not None:
            return name in _FUNCTIONS or name in _GREEK or name in ("frac", "sqrt", "pi", "binom", "overline")
        return self.at < len(self.text) and ((self.text[self.at].isascii() and self.text[self.at].isalnum()) or self.text[self.at] == ".")

    def power(self) -> Node:
        base = self.postfix()
        if self.take("^", "**"):
            return Node("pow", (base, self.exponent()))
        return base

    def exponent(self) -> Node:
        """What `^` raises to: a group, a number with its sign, one symbol; a tower binds to the right."""
        self.enter()
        node = self.signed() if self.peek("-") else self.postfix()
        if self.take("^", "**"):
            node = Node("pow", (node, self.exponent()))
        self.depth -= 1
        return node

    def postfix(self) -> Node:
        node = self.atom()
        while self.take("!"):
            self.count()
            node = Node("factorial", (node,))
        if self.peek("^"):
            match = re.compile(r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})").match(self.text, self.at)
            if match:
                self.at = match.end()
                node = Node("degrees", (node,))
        return node

    def atom(self) -> Node:
        self.enter()
        node = self.unit()
        self.depth -= 1
        return node

    def unit(self) -> Node:
        for opening, closing in (("(", ")"), ("{", "}"), ("[", "]"), ("|", "|")):
            if self.take(opening):
                node = self.sum()
                if not self.take(closing):
                    raise Unreadable("unbalanced")
                return Node("abs", (node,)) if opening == "|" else node
        match = _NUMBER.match(self.text, self.at)
        if match:
            self.at = match.end()
            if len(match.group()) > MAX_DIGITS:
                raise TooLarge("a number of too many digits")
            return Node("num", (Fraction(match.group().rstrip(".")),))
        name = self.command(take=True)
        if name is not None:
            return self.named(name)
        if self.at < len(self.text) and self.text[self.at].isascii() and self.text[self.at].isalpha():
            letter = self.text[self.at]
            self.at += 1
            if letter in _CALLED and self.peek("("):
                raise Unreadable("a function of unknown value")
            return Node("var", (letter + self.subscript(),))
        raise Unreadable(self.text[self.at : self.at + 1])

    def subscript(self) -> str:
        if not self.take("_"):
            return ""
        match = re.compile(r"\{\s*([A-Za-z0-9,]{1,10})\s*\}|([A-Za-z0-9])").match(self.text, self.at)
        if not match:
            raise Unreadable("a subscript")
        self.at = match.end()
        return "_" + (match.group(1) or match.group(2))

    def argument(self) -> Node:
        """A TeX argument: a group or one symbol, so that `\\frac12` is a half."""
        if self.take("{"):
            node = self.sum()
            if not self.take("}"):
                raise Unreadable("unbalanced")
            return node
        if self.peek("(", "["):
            return self.atom()
        if self.at < len(self.text) and self.text[self.at] in "0123456789":
            self.at += 1
            return Node("num", (Fraction(self.text[self.at - 1]),))
        return self.atom()

    def named(self, name: str) -> Node:
        if name in ("pi", "infty") or name in _GREEK:
            return Node("pi", ()) if name == "pi" else Node("var", (name + self.subscript(),))
        if name in ("frac", "binom"):
            return Node("div" if name == "frac" else "binom", (self.argument(), self.argument()))
        if name == "sqrt":
            degree: Node = Node("num", (Fraction(2),))
            if self.take("["):
                degree = self.sum()
                if not self.take("]"):
                    raise Unreadable("unbalanced")
            return Node("root", (self.argument(), degree))
        if name == "overline":
            raise Unreadable("an overline")
        if name in _FUNCTIONS:
            return self.function(name)
        raise Unreadable(name)

    def function(self, name: str) -> Node:
        base = None
        if self.take("_"):
            if name != "log":
                raise Unreadable("a subscript of a function")
            base = self.argument()
        exponent = self.exponent() if self.take("^") else None
        if exponent == _INVERSE and name in _INVERTIBLE:
            name, exponent = f"arc{name}", None
        if exponent is not None and exponent.op != "num":
            raise Unreadable("a power of a function")
        if self.peek("(", "{", "["):
            inside = self.atom()
        else:  # \sin 5x \cos x: the argument ends at the next function
            inside = self.signed()
            while self.starts_factor() and self.command() not in _FUNCTIONS:
                self.count()
                inside = self.join(inside)
        node = Node("call", (name, inside)) if base is None else Node("logarithm", (inside, base))
        return node if exponent is None else Node("pow", (node, exponent))


@functools.lru_cache(maxsize=8192)
def read(text: str) -> Node:
    """The expression that a text denotes. Raises `Unreadable` and `TooLarge`."""
    return _Reader(text).whole()


def names(node: Node) -> set[str]:
    """The variables of an expression."""
    if node.op == "var":
        return {node.args[0]} - {"e", "i"}
    return set().union(*(names(arg) for arg in node.args if isinstance(arg, Node))) if node.op != "num" else set()


def evaluate(node: Node, point: dict[str, Value] | None = None) -> Value:
    """The value of an expression where its variables have the given values. Raises `Unreadable` (no value) and `TooLarge`."""
    try:
        return _evaluate(node, point or {})
    except (ZeroDivisionError, ValueError):
        raise Unreadable("no value") from None
    except OverflowError:
        raise TooLarge("beyond the range of numbers") from None


def _evaluate(node: Node, point: dict[str, Value]) -> Value:
    op, args = node
    if op == "num":
        return args[0]
    if op == "var":
        if args[0] in point:
            return point[args[0]]
        if args[0] in ("e", "i"):
            return complex(math.e) if args[0] == "e" else 1j
        raise Unreadable(args[0])
    if op == "pi":
        return complex(math.pi)
    if op == "call":
        return _FUNCTIONS[args[0]](complex(_evaluate(args[1], point)))
    values = [_evaluate(arg, point) for arg in args]
    if op == "neg":
        return -values[0]
    if op == "degrees":
        return values[0] * complex(math.pi / 180)
    if op == "abs":
        return abs(values[0]) if isinstance(values[0], Fraction) else complex(abs(values[0]))
    if op == "factorial":
        count = _count(values[0])
        return Fraction(math.factorial(count))
    left, right = values
    if op in ("add", "mixed"):
        return left + right
    if op == "mul":
        return _checked(left * right)
    if op == "div":
        return _checked(left / right)
    if op == "logarithm":
        return cmath.log(complex(left)) / cmath.log(complex(right))
    if op == "binom":
        return Fraction(math.comb(_count(left), _count(right)))
    if op == "root":
        return _power(left, 1 / right)
    return _power(left, right)


def _count(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        raise Unreadable("not a count")
    if value > MAX_FACTORIAL:
        raise TooLarge("a factorial of a large number")
    return int(value)


def _checked(value: Value) -> Value:
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise TooLarge("a number of too many digits")
    return value


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        bits = base.numerator.bit_length() + base.denominator.bit_length()
        if bits > 3 and abs(exponent) * bits > MAX_BITS:
            raise TooLarge("a power of too many digits")
        if exponent.denominator == 1:
            return base ** int(exponent) if bits > 3 else base ** _small(base, exponent)
        roots = [_exact_root(part, exponent.denominator) for part in (base.numerator, base.denominator)]
        if base > 0 and None not in roots:
            return _power(Fraction(*roots), Fraction(exponent.numerator))  # type: ignore[arg-type]
    if base == 0:
        raise Unreadable("a power of zero")
    return complex(base) ** complex(exponent)


def _small(base: Fraction, exponent: Fraction) -> int:
    """An exponent with the same effect on 0, 1, -1 (and the same limits as any other on what is larger)."""
    if base in (0, 1, -1):
        return (1 if exponent > 0 else -1) * (2 - int(exponent) % 2) if exponent else 0
    if abs(exponent) > MAX_BITS:
        raise TooLarge("a power of too many digits")
    return int(exponent)


def _exact_root(number: int, degree: int) -> int | None:
    """The integer whose power `number` is, if there is one."""
    if number < 0 or degree > 64:
        return None
    if degree == 2:
        root = math.isqrt(number)
    elif number.bit_length() < 1000:
        root = round(number ** (1 / degree))
    else:
        return None
    return root if root**degree == number else None


@functools.cache
def _coordinate(place: int, name: str) -> Fraction:
    """A fixed random value of a variable; small in the third place, where high powers drown nothing, and some negative after it."""
    rng = random.Random(f"{place}:{name}")
    value = Fraction(rng.randint(100, 9999), rng.choice((997, 1009, 1013)) * (9 if place == 2 else 1))
    return -value if place > 2 and rng.random() < 0.6 else value


def points(variables: set[str], signed: bool, counting: bool = False) -> list[dict[str, Value]]:
    """Fixed random places to compare expressions at: positive, some negative ones where asked, or counts, which fall from n and m on."""
    if counting and variables:
        ordered = sorted(variables, key=lambda name: (name not in "nNmM", name))
        return [{name: Fraction(start - 3 * at) for at, name in enumerate(ordered)} for start in (17, 22, 29)]
    return [{name: _coordinate(place, name) for name in variables} for place in range(5 if signed else 3 if variables else 1)]


def has(node: Node, op: str) -> bool:
    """Whether an operation occurs in an expression."""
    return node.op == op or any(has(arg, op) for arg in node.args if isinstance(arg, Node))


def close(left: Value, right: Value) -> bool | None:
    """Whether two values are one; None where floats cannot tell."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    try:
        left, right = complex(left), complex(right)
    except OverflowError:  # an integer beyond all floats is none of them
        return False
    if cmath.isnan(left) or cmath.isnan(right) or cmath.isinf(left) or cmath.isinf(right):
        return None
    gap, size = abs(left - right), max(abs(left), abs(right))
    if min(abs(left), abs(right)) < 1e-9 and size < 1e-6:
        return None
    return True if gap <= 1e-12 * size else False if gap > 1e-6 * size else None


def same(left: Node, right: Node) -> bool | None:
    """Whether two expressions are equal; None where this module cannot tell. Raises `Unreadable` and `TooLarge`."""
    signed = has(left, "abs") or has(right, "abs")
    counting = any(has(side, op) for side in (left, right) for op in ("factorial", "binom"))
    verdicts = []
    for point in points(names(left) | names(right), signed, counting):
        verdict = close(evaluate(left, point), evaluate(right, point))
        if verdict is False:
            return False
        verdicts.append(verdict)
    return True if all(verdicts) else None
