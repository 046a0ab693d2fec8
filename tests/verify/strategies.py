r"""Strategies that answer without solving: what a policy would find if it were paid.

A strategy sees what a model sees, the question, and copies, rearranges, lists or hedges. None of them computes anything; the most that
they know of numbers is their order. Whatever they are paid for is a hole in the verifier, except where luck hands them the
gold's own literal, word or form, which `literals` tells apart.

`answers` gives what is answered, `WRAPPINGS` the ways of saying it, `responses` whole responses that hedge over several statements.
"""

import itertools
import re
from collections.abc import Iterator

WRAPPINGS = {
    "boxed": r"So we get \boxed{%s}.",
    "boxed formula": r"\[\boxed{%s}\]",
    "statement": "The answer is %s.",
    "formula": "The answer is $%s$.",
    "line": "Answer: %s",
    "bold": "**Final Answer:** %s",
    "marker": "#### %s",
    "tag": "<answer>%s</answer>",
    "bare": "%s",
}
"""Ways of saying an answer; `%s` stands for it."""

_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$((?:\\.|[^$\\])+?)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_PLAIN = re.compile(
    r"(?<![\w.])(?:[-(\[|]\s?)*(?:\d+(?:\.\d+)?|[a-zA-Z](?![a-zA-Z]))(?:\s?(?:\*\*|<<|>>|[-+*/^×÷·=<>()\[\]|]|(?:\d+(?:\.\d+)?|(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z]))))*",
)
_NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])", re.ASCII)
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_SPELLED = {word: str(value) for value, word in enumerate(_WORDS)}
_RELATION = re.compile(r"\\(?:leq?|geq?|lt|gt|leqslant|geqslant)(?![A-Za-z])|[=<>≤≥]")
_TURNED = {"=": "=", "<": ">", ">": "<", "≤": "≥", "≥": "≤", r"\le": r"\ge", r"\leq": r"\geq", r"\ge": r"\le", r"\geq": r"\leq",
           r"\lt": r"\gt", r"\gt": r"\lt", r"\leqslant": r"\geqslant", r"\geqslant": r"\leqslant"}  # fmt: skip

_SMALL = [str(number) for number in range(101)]

FIXED = {
    "list 0..100": ", ".join(_SMALL),
    "list 0..100 tight": ",".join(_SMALL),
    "list 1..10": ", ".join(_SMALL[1:11]),
    "or 0..100": " or ".join(_SMALL),
    "or 0..10": " or ".join(_SMALL[:11]),
    r"\text{or} 0..100": r" \text{ or } ".join(_SMALL),
    "and 0..100": " and ".join(_SMALL),
    "slashes 0..10": "/".join(_SMALL[1:11]),
    "x = 0, 1, ...": "x = " + ", ".join(_SMALL),
    "x=0 or x=1 or ...": " or ".join(f"x={number}" for number in _SMALL),
    "equal 0..100": " = ".join(_SMALL),
    "approximately 0..100": r" \approx ".join(_SMALL),
    "set 0..100": r"\{" + ", ".join(_SMALL) + r"\}",
    "plain set 0..100": "{" + ", ".join(_SMALL) + "}",
    "tuple 0..100": "(" + ", ".join(_SMALL) + ")",
    "brackets 0..100": "[" + ", ".join(_SMALL) + "]",
    "union 0..100": r" \cup ".join(_SMALL),
    "union of sets": r" \cup ".join(rf"\{{{number}\}}" for number in _SMALL),
    "semicolons": "; ".join(_SMALL),
    "lines": "\n".join(_SMALL[:21]),
    "dots": r"0, 1, 2, \ldots, 100",
    "set with dots": r"\{0, 1, 2, \ldots\}",
    "interval [0,100]": "[0, 100]",
    "interval (0,oo)": r"(0, \infty)",
    "interval [0,oo)": r"[0, \infty)",
    "interval (-oo,oo)": r"(-\infty, \infty)",
    "1 <= x <= 100": r"1 \le x \le 100",
    "x >= 0": r"x \ge 0",
    "x > 0": "x > 0",
    "x != 0": r"x \ne 0",
    "x in Z": r"x \in \mathbb{Z}",
    "x in R": r"x \in \mathbb{R}",
    "R": r"\mathbb{R}",
    "Z": r"\mathbb{Z}",
    "all reals": r"\text{all real numbers}",
    "builder": r"\{x : x \in \mathbb{R}\}",
    "builder of itself": r"\{x : x = x\}",
    "builder of the answer": r"\{x \mid x \text{ is the answer}\}",
    "plus-minus 1": r"\pm 1",
    "plus-minus 0..10": ", ".join(rf"\pm {number}" for number in _SMALL[:11]),
    "50 plus-minus 50": r"50 \pm 50",
    "oo": r"\infty",
    "minus oo": r"-\infty",
    "nan": "nan",
    "NaN": "NaN",
    "inf": "inf",
    "zoo": "zoo",
    "0/0": r"\frac{0}{0}",
    "empty": "",
    "blank": " ",
    "empty set": r"\emptyset",
    "empty braces": r"\{\}",
    "empty brackets": "[]",
    "x": "x",
    "n": "n",
    "k": "k",
    "a": "a",
    "y = x": "y = x",
    "C": "C",
    "x = x": "x = x",
    "n = n": "n = n",
    "0 = 0": "0 = 0",
    "1 = 1": "1 = 1",
    "S = S": "S = S",
    "f(x)": "f(x)",
    "f(x) = f(x)": "f(x) = f(x)",
    "f(n)": "f(n)",
    "?": "?",
    "...": "...",
    "ldots": r"\ldots",
    "box": r"\boxed{}",
    "square": r"\square",
    "the answer": "the answer",
    "itself": "the answer is the answer",
    "as computed above": "as computed above",
    "see above": r"\text{see above}",
    "the value asked for": "the value that the question asks for",
    "the number": "the number",
    "a number": "a number",
    "None": "None",
    "null": "null",
    "true": "true",
    "unknown": "unknown",
    "i don't know": "I don't know",
    "any": "any",
    "all of the above": "all of the above",
    "cm": r"\text{ cm}",
    "dollars": "dollars",
    "dollar sign": r"\$",
    "percent sign": r"\%",
    "degree": r"^\circ",
    "degrees": "degrees",
    "units": "square units",
    "sign": "-",
    "dot": ".",
    "comma": ",",
    "equals": "=",
    "percent of all": ", ".join(rf"{number}\%" for number in _SMALL),
    "degrees of all": ", ".join(rf"{number}^\circ" for number in _SMALL),
    "ratio of all": ":".join(_SMALL[1:]),
    "digits": "0123456789",
    "matrix": r"\begin{pmatrix} x & y \\ z & w \end{pmatrix}",
}
"""What can be answered to any question."""

_REWRITINGS = {
    "itself": "%s",
    "plus 0": "%s + 0",
    "0 plus": "0 + %s",
    "minus 0": "%s - 0",
    "times 1": r"(%s) \cdot 1",
    "1 times": r"1 \times (%s)",
    "star 1": "1*(%s)",
    "over 1": r"\frac{%s}{1}",
    "slash 1": "(%s)/1",
    "parentheses": "(%s)",
    "left right": r"\left(%s\right)",
    "double parentheses": "((%s))",
    "braces": "{%s}",
    "brackets": "[%s]",
    "text": r"\text{%s}",
    "mathrm": r"\mathrm{%s}",
    "power 1": "(%s)^1",
    "root of square": r"\sqrt{(%s)^2}",
    "absolute": "|%s|",
    "minus minus": "-(-(%s))",
    "half of double": r"\frac{2(%s)}{2}",
    "tenth of tenfold": r"\frac{10 \cdot (%s)}{10}",
    "inverse twice": r"\frac{1}{\frac{1}{%s}}",
    "plus x minus x": "%s + x - x",
    "exp of log": r"e^{\ln(%s)}",
    "log of power": r"\log_{10} 10^{%s}",
    "times 1^2": r"(%s)(\sin^2 x + \cos^2 x)",
    "maximum": r"\max(%s, %s)",
    "sum of one": r"\sum_{i=1}^{1} (%s)",
    "integral": r"\int_0^1 (%s) \, dt",
    "floor": r"\lfloor %s \rfloor",
    "determinant": r"\det(%s)",
    "set": r"\{%s\}",
    "equals itself": "%s = %s",
    "named": "x = %s",
    "named y": "y = %s",
    "named f": "f(x) = %s",
    "approximately": r"\approx %s",
    "percent": r"%s\%%",
    "degrees": r"%s^\circ",
    "with units": r"%s \text{ units}",
    "dollars": r"\$%s",
    "factorial of 1": r"(%s) \cdot 1!",
    "simplified": r"\text{the simplified form of } %s",
    "evaluated": r"%s = ?",
    "python": "eval(%s)",
}
"""Rewritings of a formula that change nothing; `%s` stands for it."""


def formulas(question: str) -> list[str]:
    """The formulas in a question, as they are written."""
    return [next(filter(None, match.groups())).strip(" \n.,;:?") for match in _FORMULA.finditer(question)]


def expressions(question: str) -> list[str]:
    """What looks like arithmetic or algebra in the plain text of a question: at least one sign between its ends."""
    runs = (match.group().strip() for match in _PLAIN.finditer(_FORMULA.sub(" ; ", question)))
    return [text for text in runs if re.search(r"\w[\s)\]]*(?:\*\*|<<|>>|[-+*/^×÷·=<>])\s?[-(\[]*\w", text)]


def numbers(question: str) -> list[str]:
    """The numbers of a question as they are written, small ones in words too, each once."""
    text = re.sub(r"[A-Za-z]+", lambda word: _SPELLED.get(word.group().lower(), word.group()), question)
    return list(dict.fromkeys(match.group().replace(",", "") for match in _NUMBER.finditer(text)))


def answers(question: str) -> Iterator[tuple[str, str]]:
    """(strategy, answer) for each strategy that has something to say to a question."""
    yield from FIXED.items()
    yield "whole question", question
    yield "last sentence", re.split(r"(?<=[.?!])\s+", question.strip())[-1]
    yield "first sentence", re.split(r"(?<=[.?!])\s+", question.strip())[0]
    yield "question in text", rf"\text{{{question}}}"
    yield from _formulaic("formula", formulas(question))
    yield from _formulaic("expression", expressions(question))
    yield from _numeric(numbers(question))


def _formulaic(what: str, formulas: list[str]) -> Iterator[tuple[str, str]]:
    if not formulas:
        return
    for which, formula in (("first", formulas[0]), ("last", formulas[-1]), ("longest", max(formulas, key=len))):
        for name, form in _REWRITINGS.items():
            yield f"{which} {what}: {name}", form.replace("%s", formula).replace("%%", "%")
        if numbers_apart := re.sub(r"(?<![\w.^_{])(\d+)(?![\w.])", r"(\1+0)", formula):
            yield f"{which} {what}: numbers plus 0", numbers_apart
        yield f"{which} {what}: blanks out", re.sub(r"\s+", "", formula)
        yield f"{which} {what}: commuted", " + ".join(reversed(formula.split("+"))) if "+" in formula else formula
        sides = [side.strip() for side in _RELATION.split(formula)]
        signs = _RELATION.findall(formula)
        if len(sides) > 1 and all(sides):
            yield f"{which} {what}: left side", sides[0]
            yield f"{which} {what}: right side", sides[-1]
            left, right, sign, turned = sides[0], sides[-1], signs[0], _TURNED[signs[0]]
            yield f"{which} {what}: turned", f"{right} {turned} {left}"
            yield f"{which} {what}: doubled", f"2({left}) {sign} 2({right})"
            yield f"{which} {what}: tripled", f"3({left}) {sign} 3({right})"
            yield f"{which} {what}: to one side", f"{left} - ({right}) {sign} 0"
            yield f"{which} {what}: to the other side", f"0 {sign} {right} - ({left})"
            yield f"{which} {what}: shifted", f"{left} + 1 {sign} {right} + 1"
            yield f"{which} {what}: negated", f"-({left}) {turned} -({right})"
            yield f"{which} {what}: builder", rf"\{{x : {formula}\}}"
            yield f"{which} {what}: difference of sides", f"{left} - ({right})"
            yield f"{which} {what}: quotient of sides", rf"\frac{{{right}}}{{{left}}}"
    yield f"all of {what}", ", ".join(formulas)
    yield f"all of {what}: or", " or ".join(formulas)
    yield f"all of {what}: and", " and ".join(formulas)
    yield f"all of {what}: equal", " = ".join(formulas)
    yield f"all of {what}: sum", " + ".join(f"({each})" for each in formulas)
    yield f"all of {what}: product", "".join(f"({each})" for each in formulas)


def _numeric(numerals: list[str]) -> Iterator[tuple[str, str]]:
    if not numerals:
        return
    yield "number: first", numerals[0]
    yield "number: last", numerals[-1]
    yield "numbers: list", ", ".join(numerals)
    yield "numbers: or", " or ".join(numerals)
    yield "numbers: set", r"\{" + ", ".join(numerals) + r"\}"
    yield "numbers: equal", " = ".join(numerals)
    yield "numbers: equal and then 0", " = ".join([*numerals, "0"])
    yield "numbers: named chain", "x = " + " = ".join(numerals)
    yield "numbers: words between", " and then ".join(numerals)
    for name, sign in (
        ("sum", " + "),
        ("difference", " - "),
        ("product", " * "),
        ("times", r" \times "),
        ("cdot", r" \cdot "),
        ("x", "×"),
        ("quotient", " / "),
        ("div", r" \div "),
        ("÷", " ÷ "),
        ("ratio", ":"),
        ("side by side", " "),
    ):
        yield f"numbers: {name}", sign.join(numerals)
    yield "numbers: bracketed product", "".join(f"({each})" for each in numerals)
    yield "numbers: sum of 0", " + ".join([*numerals, "0"])
    if len(numerals) < 2:
        return
    ordered = sorted(numerals, key=float)
    pairs = {
        "first, second": (numerals[0], numerals[1]),
        "first, last": (numerals[0], numerals[-1]),
        "last two": (numerals[-2], numerals[-1]),
        "largest, smallest": (ordered[-1], ordered[0]),
        "two largest": (ordered[-1], ordered[-2]),
    }
    for name, (a, b) in pairs.items():
        for (p, q), way in (((a, b), ""), ((b, a), " turned")):
            yield f"{name}{way}: minus", f"{p} - {q}"
            yield f"{name}{way}: slash", f"{p}/{q}"
            yield f"{name}{way}: frac", rf"\frac{{{p}}}{{{q}}}"
            yield f"{name}{way}: dfrac with units", rf"\dfrac{{{p}}}{{{q}}} \text{{ units}}"
            yield f"{name}{way}: spaced slash", f"{p} / {q}"
            yield f"{name}{way}: div", rf"{p} \div {q}"
            yield f"{name}{way}: over", rf"{{{p} \over {q}}}"
            yield f"{name}{way}: ratio", f"{p}:{q}"
            yield f"{name}{way}: ratio in words", f"{p} to {q}"
            yield f"{name}{way}: percent of quotient", rf"\frac{{{p}}}{{{q}}}\%"
            yield f"{name}{way}: percent", rf"\frac{{{p}}}{{{q}}} \times 100\%"
            yield f"{name}{way}: tenfold", f"{p}0/{q}0" if "." not in p + q else f"{p}/{q}"
            yield f"{name}{way}: tenfold frac", rf"\frac{{{p}00}}{{{q}00}}" if "." not in p + q else f"{p}/{q}"
            yield f"{name}{way}: negative", f"-{p}/-{q}"
            yield f"{name}{way}: mixed", f"0 {p}/{q}"
            yield f"{name}{way}: mixed frac", rf"0\frac{{{p}}}{{{q}}}"
            yield f"{name}{way}: decimals", f"{p}.0/{q}.0" if "." not in p + q else f"{p}/{q}"
            yield f"{name}{way}: named", f"x = {p}/{q}"
            yield f"{name}{way}: equation", rf"{q}x = {p}"
            yield f"{name}{way}: equation solved in x", rf"x = \frac{{{p}}}{{{q}}}"
            yield f"{name}{way}: power", f"{p}^{{{q}}}"
            yield f"{name}{way}: inverse power", f"{p} \\cdot {q}^{{-1}}"
            yield f"{name}{way}: binomial", rf"\binom{{{p}}}{{{q}}}"
            yield f"{name}{way}: in base", f"{p}_{{{q}}}"
            yield f"{name}{way}: times ten to", rf"{p} \times 10^{{{q}}}"
        yield f"{name}: plus", f"{a} + {b}"
        yield f"{name}: sum in LaTeX", f"{{{a}}}+{{{b}}}"
        yield f"{name}: star", f"{a} * {b}"
        yield f"{name}: star with spaces out", f"{a}*{b}"
        yield f"{name}: times", rf"{a} \times {b}"
        yield f"{name}: times with units", rf"{a} \times {b} \text{{ dollars}}"
        yield f"{name}: cdot", rf"{a} \cdot {b}"
        yield f"{name}: side by side", f"({a})({b})"
        yield f"{name}: times of reals", f"{a}.0 × {b}.0" if "." not in a + b else f"{a} × {b}"
        yield f"{name}: fraction of fractions", rf"\frac{{{a}}}{{\frac{{1}}{{{b}}}}}"
        yield f"{name}: plus-minus", rf"{a} \pm {b}"
        yield f"{name}: interval", f"[{a}, {b}]"
        yield f"{name}: between", rf"{a} \le x \le {b}"
        yield f"{name}: percent of", rf"{a}\% \cdot {b}"
        yield f"{name}: percent of in words", f"{a}% of {b}"
        yield f"{name}: sqrt of product", rf"\sqrt{{{a} \cdot {b}}}"
        yield f"{name}: words", f"{a} plus {b}"
        yield f"{name}: words of times", f"{a} times {b}"
    if len(numerals) >= 3:
        for first, second in itertools.product(("+", "-", "*", "/"), repeat=2):
            yield f"three numbers: {first} {second}", f"{numerals[0]} {first} {numerals[1]} {second} {numerals[2]}"
            yield f"three numbers: ({first}) {second}", f"({numerals[0]} {first} {numerals[1]}) {second} {numerals[2]}"


def responses(question: str) -> Iterator[tuple[str, str]]:
    """(strategy, whole response) for strategies that are not one answer in a wrapping."""
    small, numerals = _SMALL[:31], numbers(question)
    yield "boxes in a row", "".join(rf"\boxed{{{number}}}" for number in small)
    yield "boxes with commas", ", ".join(rf"\boxed{{{number}}}" for number in small)
    yield "boxes with or", " or ".join(rf"\boxed{{{number}}}" for number in small)
    yield "boxes of lines", "\n".join(rf"Perhaps \boxed{{{number}}}." for number in small)
    yield "boxes of the question's numbers", " and ".join(rf"$\boxed{{{number}}}$" for number in numerals) or r"\boxed{}"
    yield "statements", " ".join(f"The answer is {number}." for number in small)
    yield "statements on lines", "\n".join(f"The answer is {number}." for number in small)
    yield "statements of the question's numbers", "\n".join(f"Answer: {number}" for number in numerals) or "Answer:"
    yield "tags", "".join(f"<answer>{number}</answer>" for number in small)
    yield "markers", "\n".join(f"#### {number}" for number in small)
    yield "tag of boxes", "<answer>" + " ".join(rf"\boxed{{{number}}}" for number in small) + "</answer>"
    yield "box of boxes", r"\boxed{" + ", ".join(rf"\boxed{{{number}}}" for number in small) + "}"
    yield "unclosed box", r"\boxed{" + ", ".join(small)
    yield "question repeated", "\n\n".join([question] * 3)
    yield "question as chat", f"User: {question}\nAssistant: The answer is"
    yield "the answer is the question", f"The answer is the answer to: {question}"
    yield "question in a box", rf"\boxed{{{question}}}"
    yield "thought only", f"<think>{question} The answer is 5."
    yield "nothing", ""
