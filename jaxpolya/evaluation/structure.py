"""What is in the numbers and letters of a solution: calculations that undo each other, splits, trials of one shape, names, equations.

Nothing here looks at words, except where they number or name something.
"""

import itertools
import re

from jaxpolya.evaluation.reading import MANY, NAME, Calculation, Reading, trace


def near(a: float, b: float) -> bool:
    """Whether two numbers are the same but for rounding in the text."""
    return abs(a - b) <= 1e-6 * max(1.0, abs(a), abs(b))


def undoes(second: Calculation, first: Calculation) -> bool:
    """Whether a calculation takes another one's result back to where that began."""
    inverse = {"+": "-", "-": "+", "*": "/", "/": "*"}
    return (
        inverse[first.sign] == second.sign
        and second.numbers == first.numbers
        and (near(second.c, first.a) or near(second.c, first.b))
        and (near(second.a, first.c) or near(second.b, first.c))
    )


_AFTER = r"\bafter (\d{1,3})\b[^\n]{1,30}\bafter (\d{1,3})\b[^\n]{1,30}\bafter (\d{1,3})\b"


def counted_down(r: Reading) -> bool:
    """Day 6, day 5, day 4, with a calculation to each; or after 4: …, after 3: …, after 2: …"""
    if any(int(a) - int(b) == int(b) - int(c) == 1 for a, b, c in re.findall(_AFTER, r.low)):
        return True
    indices: dict[str, list[int]] = {}
    for match in re.finditer(r"\b(day|hour|week|month|year|minute|round|stage|stop|level|term|generation) (\d{1,3})\b", r.low):
        indices.setdefault(match[1], []).append(int(match[2]))
    return len(r.calculations) >= MANY and any(
        a - b == 1 and b - c == 1 for row in indices.values() for a, b, c in zip(row, row[1:], row[2:], strict=False)
    )


def by_digits(r: Reading) -> bool:
    """A number of the problem times k, as two products by k whose other factors add up to it."""
    products = [c for c in r.calculations if c.sign == "*"]
    for first, second in itertools.combinations(products, 2):
        for x, k in ((first.a, first.b), (first.b, first.a)):
            for y, m in ((second.a, second.b), (second.b, second.a)):
                if near(k, m) and x + y in r.given and x not in r.given and y not in r.given:
                    return True
    sums = [c for c in r.calculations if c.sign in "+-"]
    return any(  # 47 + 36 as 40 + 30 and 7 + 6
        a.a + b.a in r.given and a.b + b.b in r.given and a.a % 10 == 0 and a.b % 10 == 0 and min(b.a, b.b) > 0 and max(b.a, b.b) < 10
        for a, b in itertools.permutations(sums, 2)
    )


def by_percents(r: Reading) -> bool:
    """A percentage of the problem as the sum of two that it doesn't have."""
    asked = {float(n) for n in re.findall(r"(\d+(?:\.\d+)?)\s?\\?%", r.problem)}
    used = {float(n) for n in re.findall(r"(\d+(?:\.\d+)?)\s?\\?%", r.low)} - asked
    return any(x + y in asked for x, y in itertools.combinations(used, 2))


def rounder(x: float, g: float) -> bool:
    """Whether x has fewer digits that aren't 0 than g, or is a whole number beside a broken one."""
    digits = lambda n: len(f"{n:g}".replace(".", "").strip("0"))  # noqa: E731
    return digits(x) < digits(g)


def moved(r: Reading) -> bool:
    """297 + 186 as 300 + 183."""
    sums = [(c.a, c.b) for c in r.calculations if c.sign == "+"]
    asked = [(float(m[1]), float(m[2])) for m in re.finditer(r"(\d+(?:\.\d+)?)\s?\+\s?(\d+(?:\.\d+)?)", r.problem)]
    return any(near(a + b, x + y) and not {a, b} & {x, y} and (a % 10 == 0 or b % 10 == 0) for a, b in sums for x, y in asked)


def regrouped(r: Reading) -> bool:
    """Numbers of a product or sum of the problem taken in another order, because they make a round number or equal ones."""
    row = re.search(r"\d+(?:\s?[-+*]\s?\d+){2,}", r.problem)
    if not row or not r.calculations:
        return False
    terms = [float(n) for n in re.findall(r"\d+", row[0])]
    firsts = [c for c in r.calculations if c.a in terms and c.b in terms]
    apart = [c for c in firsts if abs(terms.index(c.a) - terms.index(c.b)) > 1]
    return bool(apart) and (apart[0].c % 10 == 0 or (len({c.c for c in apart}) == 1 and len(apart) > 1))


def by_complement(r: Reading) -> bool:
    """Whether what is asked with "at least one" is found as all, or 1, without those that have none."""
    asked = re.search(r"\bat least (?:one|once|an?|two|1)\b", r.problem.lower())
    without = r"(?<![\d.])1 ?- ?(?:\(|[\d\\p])|\bwhat(?:'s| is) left\b|\b(?:all|total)\b[^.\n]{0,30}\b(?:minus|without|except)\b"
    return asked is not None and re.search(without, r.low) is not None


_CASE_VALUE = re.compile(
    r"(?:^\|? ?(\d+) ?\|)|\b(?:[a-z]\s?=\s?(\d+)|(\d+)\s?(?:\w+ ){0,2}(?:→|:|needs?|makes?|takes?|gives?|=))", re.MULTILINE
)


def case_row(r: Reading) -> bool:
    """Whether three cases in a row were worked out, n = 1: …, n = 2: …, n = 3: …"""
    values = [int(m[1] or m[2] or m[3]) for m in _CASE_VALUE.finditer(r.low) if len(m[1] or m[2] or m[3]) < 6]
    return any(b - a == 1 and c - b == 1 for a, b, c in zip(values, values[1:], values[2:], strict=False))


_WORDS = {"no": 0, "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_IN_WORDS = re.compile(r"\b(?:" + "|".join(_WORDS) + r")\b")


def series(r: Reading) -> bool:
    """Whether three clauses in a row are alike but for numbers that begin with 1, 2, 3 or the like, or three sums grow by a term each."""
    text = _IN_WORDS.sub(lambda m: str(_WORDS[m[0]]), r.low)
    clauses = [clause.strip(" |*-") for clause in re.split(r"[,;.\n]", text)]
    read: list[tuple[int, str]] = []
    for clause in clauses:
        first = re.search(r"\d{1,5}", clause)
        counted = first is not None and len(clause) < 60 and len(re.findall(r"\d+", clause)) > 1
        read.append((int(first[0]), re.sub(r"\d+|s\b|[^a-z]", "", clause)[:4]) if first and counted else (-1, ""))
    if any(
        b[0] - a[0] == c[0] - b[0] == 1 and a[1] == b[1] == c[1] and a[0] >= 0 for a, b, c in zip(read, read[1:], read[2:], strict=False)
    ):
        return True
    sums = [clause.split("=")[0].strip() for clause in clauses if "=" in clause]
    return any(
        b.startswith(a) and c.startswith(b) and a and "+" in c and a != b != c for a, b, c in zip(sums, sums[1:], sums[2:], strict=False)
    )


def trials(r: Reading) -> int:
    """The most steps of one shape with different numbers, such as `10 adults: 80 + 100 = 180` four times."""
    pieces = [piece for piece in re.split(r"[.;,\n]|(?:\s→\s)", r.low) if re.search(r"\d", piece)]
    shapes: dict[str, set[str]] = {}
    for piece in pieces:
        shape = re.sub(r"\d+(?:\.\d+)?", "#", re.sub(r"[^\w\s=+*/#:|-]", "", piece)).strip()
        shape = re.sub(r"\s?\b(?:yes|no|so|try|start|assume|guess|hmm)\b\s?", "", shape).strip()
        shape = shape[: shape.rfind("#") + 1]  # what is said of the outcome differs
        if "=" in shape or ":" in shape or "|" in shape:
            shapes.setdefault(shape, set()).add(piece.strip())
    return max(map(len, shapes.values()), default=0)


def equal_steps(r: Reading) -> bool:
    """7 - 3 = 4, 11 - 7 = 4, 15 - 11 = 4."""
    steps = [c for c in r.calculations if c.sign in "-/"]
    return any(
        near(a.c, b.c) and near(b.c, c.c) and near(a.a, b.b) and near(b.a, c.b)
        for a, b, c in zip(steps, steps[1:], steps[2:], strict=False)
    )


_ASSIGNED = re.compile(rf"(?:^|[\s(,;.])({NAME})\s?=\s?([^=\n,;]{{1,40}})", re.MULTILINE)


_NAMED = re.compile(
    rf"\b(?:let|write|call|denote|name|use)\b[^.\n]{{0,30}}?\b({NAME})\s?,\s?({NAME})(?:\s?,\s?({NAME}))?"
    rf"(?:,? (?:and|be|for|the)(?: ({NAME})\b)?|[.:;])",
)


_LISTED = re.compile(rf"^\W{{0,4}}({NAME})\s?(?::|-|=|→)\s?(?:the |number |how |price |time )?[a-z]{{3,}}", re.MULTILINE)
_APPOSED = re.compile(
    rf"(?:,|\band|\blet|\bwith|\bwrite|\bsay|\bcall|\bwhere|:)\s({NAME}) (?:be |for |is |denotes? |means )?"
    r"(?:the|its|his|her|their|number)\b"
)
_BE = re.compile(rf"\b({NAME})\b (?:be|for|stands? for|is|denotes?|represents?) (?:the|his|her|what|their|\w+'s)\b")


def names(r: Reading) -> set[str]:
    """Letters that a solution gives to quantities."""
    text = r.low
    variables = {m[1] for m in _ASSIGNED.finditer(text)} | {m[1] for pattern in (_BE, _LISTED, _APPOSED) for m in pattern.finditer(text)}
    for named in _NAMED.finditer(text):
        variables |= {name for name in named.groups() if name}
    asked = set(re.findall(rf"(?<![a-z])({NAME})(?![a-z])", r.problem.lower())) - {"a"}
    return variables - asked


_SAID = re.compile(
    rf"\b(?:let|call|denote|names?|write|notation|define|abbreviat\w+|symbols?|letters?|variables?|set|say|use|put)\b"
    rf"[^.\n]{{0,40}}?(?<![a-z'])(?:{NAME})(?![a-z'])"
    rf"|(?<![a-z])(?:{NAME})(?![a-z]) ?(?:=|:|for|is|stands for|be|-) ?(?:the|his|her|how|\w+'s|[a-z]{{4,}})\b"
)


def declared(r: Reading) -> bool:
    """Whether names are given in words, or to three numbers before anything is done with them; a formula's letters are neither."""
    literal = re.findall(rf"(?:^|[\s(,;])({NAME})\s?=\s?\$?\d+(?:\.\d+)?(?!\s?[-+*/^\d=])", r.low)
    return _SAID.search(r.low) is not None or len(set(literal)) >= MANY


def table(r: Reading) -> bool:
    """Three lines or more with the same number of bars between their cells, or of nothing but as many numbers."""
    bars = [line.count("|") for line in r.low.split("\n")]
    rows = [len(line.split()) if re.fullmatch(r"[\d\s.?-]+", line) else 0 for line in r.low.split("\n")]
    barred = any(a == b == c and a > 0 for a, b, c in zip(bars, bars[1:], bars[2:], strict=False))
    return barred or any(a == b == c and a > 1 for a, b, c in zip(rows, rows[1:], rows[2:], strict=False))


def drawing(r: Reading) -> bool:
    """Three lines or more of which most is strokes, dots and blanks rather than words or calculations."""
    strokes = 0
    for line in r.text.split("\n"):
        ink = len(re.findall(r"[|/_+#<>│─┌└]|--|\.\.\.|\\(?![a-z \\])", line))
        calculated = re.search(r"[=&]|\d\s?[-+*/]\s?\d|\\[a-z]{2}", line) is not None
        strokes += ink > 2 and ink > len(re.findall(r"[a-z]", line.lower())) and not calculated
    return strokes >= MANY


_LETTER = re.compile(rf"(?<![a-zα-ω\\]){NAME}(?![a-zα-ω0-9])")


_WORKED_UPON = re.compile(rf"\d\s?\*?\s?{NAME}(?![a-z])|(?<![a-z]){NAME}(?![a-z])\s?[-+*/^²]|[-+*/(]\s?{NAME}(?![a-z])")


_FUNCTION = re.compile(r"(?<![a-z])[a-z]_?\d?\s?\(\s?(?:[a-z]|\d+)\s?[,)=]")
_DECLARED = re.compile(
    rf"\b(?:let|call|denote|say|suppose|assume|write|unknown|named?)\b[^.\n=]{{0,40}}?(?<![a-z])({NAME})(?![a-z])"
    rf"|(?<![a-z])({NAME})(?![a-z]) (?:be|for|stands? for|is|denotes?|represents?|=) (?:the|his|her|what|their|number|how)\b"
)
_PUT = re.compile(
    r"(?:\b(?:for|with|here|when|where|put\w*|set\w*|substitut\w*|insert\w*|plug\w*|take|taking|at|if|given|case|using)\b)[^.;\n]{0,16}$"
)
SUBSTITUTED = re.compile(
    r"\b(?:put|let|set|with|write|call|substitut\w+|where|define|introduce|denote)\b[^.\n]{0,20}?"
    r"\b([a-z])\s?(?::?=|for|be|instead of|in place of)\s?([^=,.;\n]{1,30})"
)
"""u = x^2: a letter and what it stands for."""


def given_numbers(r: Reading) -> set[float]:
    """The problem's numbers, those in words too."""
    return set(r.given) | {float(n) for word, n in _WORDS.items() if n and re.search(rf"\b{word}\b", r.problem.lower())}


def _relation(left: str, right: str, declared: set[str]) -> bool:
    """Whether an equation says something of an unknown by numbers, rather than being a law among letters or one product of a formula."""
    both = f"{left} = {right}"
    if (
        _FUNCTION.search(both)
        or re.search(r"\d\s?(?:k?m|c?m|s|h|l|g|w)\s?(?:/|²|³|\^)", both)
        or not re.search(r"(?<![\^_\d])\d", re.sub(r"1/2", "", both))
    ):
        return False
    letters = [m[0] for side in (left, right) for m in _LETTER.finditer(side)]
    if "/" in both and set(letters) <= {"m", "s"} - declared:
        return False  # metres and seconds
    return len(letters) > 1 or bool(set(letters) & declared) or re.search(r"[a-zα-ω²)\d]\s?[-+]\s?[\da-zα-ω(]", both) is not None


def solved_equation(r: Reading) -> bool:
    """An equation in which an unknown is worked upon on one side and does not merely name the other, and the unknown's value behind it.

    Not an equation that the problem gives, nor a law between letters, nor a letter that had a value before or is given one of the
    problem's numbers.
    """
    asked = r.problem.lower()
    given: set[str] = set()
    if "=" in asked:
        given = {m[0] for m in _LETTER.finditer(asked)} - {"a"}
        given |= {letter.lower() for word in re.findall(r"\b[A-Z\d]{2,4}\b", r.problem) for letter in re.findall(r"[A-Z]", word)}
    given |= {m[1] for m in SUBSTITUTED.finditer(r.low) if re.search(r"(?<![a-z])[a-z](?![a-z])", m[2]) and "=" in asked}
    declared = {name for m in _DECLARED.finditer(r.low) for name in m.groups() if name}
    values = given_numbers(r)
    known: set[str] = set()
    worked: set[str] = set()
    systems = 0
    for left, right in r.equations:
        sides = (left.lower(), right.lower())
        names = {m[0] for side in sides for m in _LETTER.finditer(side)}
        alone = {side for side in sides if _LETTER.fullmatch(side)}
        if alone and any(re.search(r"\d", side) and not _LETTER.search(side) for side in sides):
            if alone & worked and not _put_in(r, sides, values):
                return True
            known |= alone
        elif alone and names & given:
            given |= alone  # u = x^2, where x is the problem's
        elif not alone and names - known - given and any(_WORKED_UPON.search(side) for side in sides) and _relation(*sides, declared):
            systems += len(names - known - given) > 1
            if worked & names and any(re.search(r"\)\s?\(", side) for side in sides) and any(side.strip("$ ") == "0" for side in sides):
                return True  # a product that is zero
            worked |= names - known - given
        elif alone and names - alone - known - given and any(_WORKED_UPON.search(side) for side in sides):
            if any(_LETTER.search(side) and side not in alone and alone & {m[0] for m in _LETTER.finditer(side)} for side in sides):
                worked |= names - known - given  # t = 2t - 13
    proof = trace("outright").search(r.low) is not None or re.search(r"lowest terms|rational|\beven\b.{0,200}\beven\b", r.low) is not None
    return (systems > 1 and not proof) or any(
        re.search(rf"\b(?:so|and|thus|hence|therefore|then),? {re.escape(name)} (?:is|equals) (?:therefore |then )?\$?-?\d", r.low)
        for name in worked
    )


def _put_in(r: Reading, sides: tuple[str, str], values: set[float]) -> bool:
    """Whether `p = 12` puts one of the problem's numbers in."""
    name, value = sides if _LETTER.fullmatch(sides[0]) else sides[::-1]
    number = re.fullmatch(r"[$ ]*(\d+(?:\.\d+)?)[ %$.]*", value)
    if not number or float(number[1]) not in values:
        return False
    places = re.finditer(rf"(?<![a-z]){re.escape(name)}\s?=\s?{number[1]}", r.low)
    return any(_PUT.search(r.low[max(0, m.start() - 40) : m.start()]) or re.match(r"\s?[:→]", r.low[m.end() :]) for m in places)
