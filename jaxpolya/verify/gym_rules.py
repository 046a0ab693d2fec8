r"""Our own rules for those of reasoning-gym's generators whose scorers pay for answers that are not right.

All scorers of reasoning-gym 0.1.25 were tried with answers that solve nothing (copies of the question, constants, lists of everything,
`NaN`, walks at random) and with right answers that something wrong follows. What was found, and is mended here:

- `puzzle24` takes any four small numbers and cuts fractions off: `4*6*1*1` was right everywhere. `countdown` allows an error of 1e-5.
- `coin_flip` gives full marks to the first digit of the answer: `0` was right nearly everywhere.
- `game_of_life_halting` compares the truth of two texts: whatever isn't empty was right.
- `complex_arithmetic` and `number_sorting` take `NaN` for any number, and the latter allows an error of 1.
- `gsm_symbolic` looks at the first number of an answer and not at its sign; `fraction_simplification` at its first fraction.
- `calendar_arithmetic` pays any number where the right one is negative; `polynomial_equations` anything without a number where there is
  no solution.
- `polynomial_multiplication` evaluates the product that the question asks for.
- `rush_hour` leaves out moves that can't be made: one list of blind moves solves many boards. `quantum_lock` and `sokoban` look for moves
  in any text.
- `word_sorting`, `letter_jumble`, `spell_backward`, `figlet_font` forgive what follows the right answer, or some wrong letters.

`REFUSED` are those whose questions can be answered without solving them whatever the scorer does.
"""

import ast
import json
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

Entry = dict[str, Any]

REFUSED = {
    "propositional_logic": "every premise in the question, repeated, is one of its right answers",
}
"""Generator → why its answers can't be judged."""

FORMULAS = frozenset({"puzzle24", "countdown"})
"""Generators whose answers are formulas that are not worked out: judged as mathematics, the target in the question would be right."""

FORMS = {
    "complex_arithmetic": re.compile(r"[\s\d.+\-()ij]+", re.ASCII),
    "polynomial_equations": re.compile(r"\s*[-+]?[\d.]+\s*(?:,\s*[-+]?[\d.]+\s*)*", re.ASCII),
    "quantum_lock": re.compile(r"[\sA-Ca-c,→>\[\]\"'-]+"),
    "sokoban": re.compile(r"[UDLR]+"),
}
"""Generator → what an answer consists of; its own scorer looks at no other."""

_OPERATORS: dict[type[ast.operator], tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", lambda a, b: a + b),
    ast.Sub: ("-", lambda a, b: a - b),
    ast.Mult: ("*", lambda a, b: a * b),
    ast.Div: ("/", lambda a, b: a / b),
}
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})
_MAX_FORMULA = 300
_NUMBER = re.compile(r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?", re.ASCII)
_QUOTIENT = re.compile(r"(?:(-?)\\[dt]?frac\{(-?\d{1,40})\}\{(-?\d{1,40})\}|(-?\d{1,40})\s?/\s?(-?\d{1,40}))", re.ASCII)


class _NotArithmetic(Exception):
    """Not a formula of whole numbers and the four operations."""


def puzzle24(answer: str, entry: Entry) -> bool:
    """24 from the given numbers, each once, with the operators that the question names."""
    named = re.search(r"operators ([^\n]*?)\.?\s*(?:\n|$)", entry.get("question", ""))
    return _makes(answer, entry["metadata"]["numbers"], 24, set(named[1]) if named else set("+-*/"))


def countdown(answer: str, entry: Entry) -> bool:
    """The target from the given numbers, each once."""
    return _makes(answer, entry["metadata"]["numbers"], entry["metadata"]["target"], set("+-*/"))


def coin_flip(answer: str, entry: Entry) -> bool:
    """The probability, as a fraction, a percentage, or a decimal: three digits of it and of its complement are right."""
    rational = entry["metadata"]["rational"]
    exact = Fraction(rational["numerator"], rational["denominator"])
    stated = number(answer)
    return stated is not None and (stated == exact or abs(stated - exact) <= min(exact, 1 - exact) / 1000)


def game_of_life_halting(answer: str, entry: Entry) -> bool:
    """The word, in whatever case."""
    return answer.strip().casefold() == entry["answer"].casefold()


def number_sorting(answer: str, entry: Entry) -> bool:
    """The same numbers in the same order."""
    return _numbers_in(answer) == _numbers_in(entry["answer"])


def gsm_symbolic(answer: str, entry: Entry) -> bool:
    """One number, with a currency before it or some words after it."""
    stated = re.fullmatch(r"(-?)\s?[$€£]?\s?(-?\d[\d,.]*?)(?:\s?%|(?:\s[A-Za-z]+){1,4})?\.?", answer.strip(), re.ASCII)
    return stated is not None and number(stated[1] + stated[2]) == Fraction(entry["answer"])


def fraction_simplification(answer: str, entry: Entry) -> bool:
    """Numerator and denominator as they are in lowest terms."""
    wanted = (entry["metadata"]["simplified_numerator"], entry["metadata"]["simplified_denominator"])
    if quotient := _QUOTIENT.fullmatch(answer.strip()):
        sign, *parts = quotient.groups()
        p, q = (int(part) for part in parts if part is not None)
        return (-p if sign else p, q) == wanted
    return wanted[1] == 1 and number(answer) == wanted[0]


def polynomial_multiplication(answer: str, entry: Entry) -> bool:
    """The product multiplied out."""
    wanted = _polynomial(entry["answer"])
    if wanted is None:
        raise ValueError("the answer is no polynomial in expanded form")
    return _polynomial(answer) == wanted


def rush_hour(answer: str, entry: Entry) -> bool:
    """Moves that can all be made in full, after which the car A stands at the right edge. The question names the cars anew, in order."""
    board, size = entry["metadata"]["board_config"], 6
    moves = re.findall(r"([A-Z])([+-])(\d{1,2})(?:[\s,]+|$)", answer)
    if not moves or "".join(re.split(r"[\s,]+", answer)) != "".join(map("".join, moves)):
        return False
    cars = sorted(set(board) - {"o", "x"})
    cells = {chr(ord("A") + place): [at for at, held in enumerate(board) if held == car] for place, car in enumerate(cars)}
    taken = {at for at, held in enumerate(board) if held != "o"}
    for letter, sign, count in moves:
        if letter not in cells:
            return False
        for _ in range(int(count)):
            old = cells[letter]
            step = (old[1] - old[0]) * (1 if sign == "+" else -1)
            new = [at + step for at in old]
            within = all(0 <= at < size * size for at in new) and (abs(step) == size or len({at // size for at in new}) == 1)
            if not within or (set(new) - set(old)) & taken:
                return False
            taken = taken - set(old) | set(new)
            cells[letter] = new
    return cells["A"][-1] % size == size - 1


def calendar_arithmetic(answer: str, entry: Entry) -> bool:
    """The number, or the word in whatever case."""
    wanted, stated = entry["answer"].strip(), answer.strip()
    return int(stated) == int(wanted) if _whole(wanted) and _whole(stated) else stated.casefold() == wanted.casefold()


def word_sorting(answer: str, entry: Entry) -> bool:
    """The words in order, with commas between them."""
    return [word.strip() for word in answer.split(",")] == entry["metadata"]["sorted_words"]


def words(answer: str, entry: Entry) -> bool:
    """The same words, in whatever case."""
    return answer.casefold().split() == entry["answer"].casefold().split()


RULES: dict[str, Callable[[str, Entry], bool]] = {
    "puzzle24": puzzle24,
    "countdown": countdown,
    "coin_flip": coin_flip,
    "game_of_life_halting": game_of_life_halting,
    "number_sorting": number_sorting,
    "gsm_symbolic": gsm_symbolic,
    "fraction_simplification": fraction_simplification,
    "polynomial_multiplication": polynomial_multiplication,
    "rush_hour": rush_hour,
    "calendar_arithmetic": calendar_arithmetic,
    "word_sorting": word_sorting,
    "letter_jumble": words,
    "spell_backward": words,
    "figlet_font": words,
}
"""Generator → whether an answer is right. Raises what a lookup in a broken entry raises (`KeyError`, `TypeError`, `ValueError`)."""


def number(text: str) -> Fraction | None:
    """The value of one literal: an integer with or without separators, a decimal, p/q of integers, a percentage; None for anything else."""
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.strip())
    share = re.fullmatch(r"(.*\d)\s?\\?%", text)
    text = share[1] if share else text
    if _NUMBER.fullmatch(text):
        value = Fraction(text)
    elif (quotient := _QUOTIENT.fullmatch(text)) and not share:
        sign, *parts = quotient.groups()
        p, q = (int(part) for part in parts if part is not None)
        if not q:
            return None
        value = Fraction(-p if sign else p, q)
    else:
        return None
    return value / 100 if share else value


def _makes(answer: str, numbers: list[int], target: int, operators: set[str]) -> bool:
    try:
        used: list[int] = []
        return _value(_tree(answer), used, operators) == target and sorted(used) == sorted(numbers)
    except (_NotArithmetic, ZeroDivisionError):
        return False


def _tree(text: str) -> ast.expr:
    text = re.sub(r"\\(?:times|cdot)(?![A-Za-z])", "*", re.sub(r"\\div(?![A-Za-z])", "/", text.translate(_SIGNS))).strip()
    if len(text) > _MAX_FORMULA or not re.fullmatch(r"[\s\d+\-*/()]+", text, re.ASCII):
        raise _NotArithmetic
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise _NotArithmetic from None


def _value(tree: ast.expr, used: list[int], operators: set[str]) -> Fraction:
    """The exact value of a formula; its numbers are added to `used`."""
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        used.append(tree.value)
        return Fraction(tree.value)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_value(tree.operand, used, operators)
    if isinstance(tree, ast.BinOp) and (operator := _OPERATORS.get(type(tree.op))) and operator[0] in operators:
        return operator[1](_value(tree.left, used, operators), _value(tree.right, used, operators))
    raise _NotArithmetic


def _numbers_in(text: str) -> list[Fraction] | None:
    """The numbers of a list as JSON or Python prints it, None for anything else."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        items = json.loads(text.replace("'", '"'), parse_constant=refuse, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        return None
    values = [number(item) for item in items]
    return None if None in values else values  # type: ignore[return-value]


def _polynomial(text: str) -> dict[tuple[tuple[str, int], ...], int] | None:
    """Monomial → coefficient of a sum of terms, each with one coefficient and each variable once; None for anything else."""
    text = re.sub(r"\s+", "", text.replace("**", "^"))
    terms = re.findall(r"[+-]?[^+-]+", text)
    if not text or len(text) > 2000 or "".join(terms) != text:
        return None
    coefficients: dict[tuple[tuple[str, int], ...], int] = {}
    for term in terms:
        parts = re.fullmatch(r"([+-]?)(\d{0,40})\*?((?:[A-Za-z](?:\^\d{1,4})?(?:\*(?=[A-Za-z]))?)*)", term, re.ASCII)
        if parts is None or not (parts[2] or parts[3]) or (term.endswith("*")):
            return None
        powers = [(name, int(power or 1)) for name, power in re.findall(r"([A-Za-z])(?:\^(\d+))?", parts[3])]
        monomial = tuple(sorted(powers))
        if len({name for name, _ in powers}) < len(powers) or monomial in coefficients:
            return None
        coefficients[monomial] = int(parts[1] + (parts[2] or "1"))
    return {monomial: coefficient for monomial, coefficient in coefficients.items() if coefficient} or {(): 0}


def _whole(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d{1,40}", text, re.ASCII))
