"""Numbers in prose: the last one of a text, and the one that a sentence states.

A number is taken as it is written: with its sign (a hyphen, minus or dash that is attached to it and joins it to nothing before),
currency, percent sign, fraction and power of ten, and as the clock time or ratio that it is a part of. A number that is an operand
(`97 * 49`) is no result: all of the expression is taken, and the comparison will know what to make of it. What counts steps and items of
a list is no number of the text's.
"""

import collections
import itertools
import re

_SIGN = r"(?:(?<![\w)\]}.%])(?<![\d)\]}][ ])[-−–—‐‑‒﹣－]|(?<==[ ])[-−][ ])?"
_DIGITS = r"(?:\d{1,3}(?:[\u00a0\u2009\u202f]\d{3})+(?:\.\d+)?|\d++(?:[.,]\d++)*+|\.\d++)"
_POWER = r"[ ]?(?:×|\*|x|\\times|\\cdot)[ ]?10[ ]?(?:\^|\*\*)[ ]?\{?[-−]?\d++\}?|e[-+]?\d++(?![\w.])"
_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_SCALES = "percent|hundred|thousand|million|billion|trillion"
_BEGINS = rf"(?=[-−–—‐‑‒﹣－\\$€£¥₹\d.{_VULGAR}]|[ ][\\{_VULGAR}])"
"""What a number may begin with. It changes no match, but most places of a text are left after this one look."""
_NUMBER = re.compile(
    rf"{_BEGINS}{_SIGN}(?:\\?[$€£¥₹][ ]?)?{_SIGN}(?:"
    r"\d{0,20}[ ]?\\[dtc]?frac[ ]?(?:\{-?\d{1,40}\}\{-?\d{1,40}\}|\d\d)"
    r"|\d++(?::\d++)++(?:[ ]?[ap]\.?m(?![a-z]))?"
    r"|\d++[ ]\d++/\d++(?![\d/])"
    rf"|\d*+[ ]?[{_VULGAR}]"
    rf"|{_DIGITS}(?:/\d++|{_POWER})?"
    rf")(?:[ ]?(?:\\?%|(?:{_SCALES})(?![a-z])))?",
    re.ASCII | re.IGNORECASE,
)
_OPERATOR = re.compile(
    r"[ \t)\]}$]*(?:\+|×|·|÷|/|−|\^|\\times|\\cdot|\\div|[ \t]-|(?<! )\*{1,2}(?! )| \*{1,2} |(?<![A-Za-z])x(?![A-Za-z]))[ \t({\[$]*"
)
_EXPONENT = re.compile(r"(?:[A-Za-z}]\^\{?|_\{?)$")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_HARMLESS = frozenset({r"\frac", r"\dfrac", r"\tfrac", r"\cfrac", r"\times", r"\cdot", r"\div", r"\text", r"\quad", r"\mathrm"})
_PART = re.compile(r"[#*_>\s]{0,12}(?:step|part|case|phase)\s?#?", re.IGNORECASE)
_AFTER_PART = re.compile(r"[*_ ]{0,4}(?:[:.)\n–—-]|$)")
_INDENT = re.compile(r"[*_># \t]{0,8}")
_AFTER_ITEM = re.compile(r"[.)][ \t*_]{1,4}[A-Za-z]")
_LONGEST_LABEL = 24
_LATEST = 64
"""Numbers that are looked at, an expression's operands among them."""

_TO_LAST_DIGIT = re.compile(rf".*[\d{_VULGAR}]", re.ASCII)
"""Up to the last digit or vulgar fraction, one of which is in every number."""
_TO_LAST_BREAK = re.compile(
    rf".*(?:[gjkqwyz?;\"'<>=]|[ ](?!(?:{_SCALES}|[ap]m)[ ])[a-z]{{2,}}(?=[ ]))",
    re.ASCII | re.IGNORECASE,
)
"""Up to the last letter, sign or word between numbers. What `_NUMBER` or `_OPERATOR` may match must not be among them."""

_WORD = re.compile(r"[A-Za-z]{2,}")
_DENIAL = re.compile(
    r"(?<![a-z])(?:not|no|never|neither|nor|none|nothing|cannot|unknown|undefined|undetermined|indeterminate|impossible|infinit[ey]|unclear"
    r"|minus|negative|twice|half|double|triple|anything but|far from"
    r"|(?:less|more|greater|fewer|other|rather) than|(?:square|cube|root) of)(?![a-z])|n['’]t(?![a-z])",
    re.IGNORECASE,
)
_SPELLED = re.compile(
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|a|an|half|hundred|thousand|million|dozen)(?![a-z])",
    re.IGNORECASE,
)
_POINTER = re.compile(
    r"(?:clear|obvious|found|shown|seen|given|computed|calculated|determined|known|simple|easy|above|below|this|that|it|correct|right|unique"
    r"|verified|confirmed|positive|straightforward)",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\s*(?:how|what|which|whether|the (?:number|amount|sum|product|total|difference|quotient|result|value) of)(?![a-z])", re.IGNORECASE
)
_COEFFICIENT = re.compile(r"(?<![A-Za-z\d])\d{1,20}[a-z](?![A-Za-z])")
_UNIT = re.compile(r"\s*[A-Za-z]+\.?\s*")
_RELATING = re.compile(r"(?<![a-z])(?:in|on|at|for|from|over|after|with|across|by|since)(?![a-z])|[(;]", re.IGNORECASE)
_COMBINING = re.compile(
    r"(?<![a-z])(?:or|and|to|times|plus|minus|more|less|fewer|out|of|per|divided|multiplied|squared|cubed|factorial)(?![a-z])|[-−–+*/×^!,]",
    re.IGNORECASE,
)
_OPERATION = re.compile(
    r"\s*(?:[*/×÷^+!]|(?:squared|cubed|factorial|times|plus|minus|divided|multiplied|more|less|fewer|out of|of \d)(?![a-z]))", re.IGNORECASE
)


def last_number(text: str) -> str | None:
    """The last number of a text; all of an expression that ends with it. Linear in the text's length.

    Neither numbers nor operators hold a line's end, nor the breaks of `_TO_LAST_BREAK`: so the text is read piece by piece from its end.
    """
    end, left = len(text), _LATEST
    while end >= 0 and left:
        line = text.rfind("\n", 0, end) + 1
        last_digit = _TO_LAST_DIGIT.match(text, line, end)
        if not last_digit:
            end = line - 1
            continue
        apart = _TO_LAST_BREAK.match(text, line, last_digit.end())
        start = apart.end() if apart else line
        numbers = collections.deque(_NUMBER.finditer(text, start, end), maxlen=left)
        left -= len(numbers)
        while numbers:
            last = numbers.pop()
            first = last
            while numbers and _OPERATOR.fullmatch(text, numbers[-1].end(), first.start()):
                first = numbers.pop()
            if first is not last or not (_is_exponent(text, last) or _is_label(text, last)):
                return _with_surroundings(text, first.start(), last.end())
        end = start if apart else line - 1
    return None


def stated_number(statement: str) -> str | None:
    """The number that a statement gives ("12 apples in 3 boxes"); the whole statement, where that isn't one number; None, where it gives
    nothing that could stand for a number ("found by adding")."""
    before, equals, member = statement.rpartition("=")
    formula = not _HARMLESS.issuperset(_COMMAND.findall(statement)) or _COEFFICIENT.search(before)
    words = _WORD.findall(_COMMAND.sub(" ", statement))
    numbers = [number for number in _NUMBER.finditer(member) if not _is_exponent(member, number)]
    if not numbers:
        is_answer = formula or equals or not words or _SPELLED.match(statement) or all(map(str.istitle, words))
        return statement if is_answer else None
    first, last = numbers[0], numbers[-1]
    lead = member[: first.start()]
    if formula or len(words) + ("(" in member) < 2 or _DENIAL.search(lead) or _QUESTION.match(lead):
        return statement
    between = [member[one.end() : other.start()] for one, other in itertools.pairwise(numbers)]
    if _OPERATION.match(member, last.end()) or any(_OPERATOR.fullmatch(gap) or _UNIT.fullmatch(gap) for gap in between):
        return statement
    if not between:
        return _with_surroundings(member, *first.span())
    if not lead.strip() and _RELATING.search(between[0]) and not _COMBINING.search(between[0]):
        return _with_surroundings(member, *first.span())
    return statement if _COMBINING.search(between[-1]) else _with_surroundings(member, *last.span())


def _is_label(text: str, number: re.Match[str]) -> bool:
    """Whether a number counts the parts of the text: "### Step 2:", or "2." where an earlier line begins with "1."."""
    start, end = number.span()
    line = text.rfind("\n", max(0, start - _LONGEST_LABEL), start) + 1
    if not line and start > _LONGEST_LABEL:
        return False
    if _PART.fullmatch(text, line, start):
        return bool(_AFTER_PART.match(text, end))
    if not (
        number.group().isdecimal() and len(number.group()) <= 2 and _INDENT.fullmatch(text, line, start) and _AFTER_ITEM.match(text, end)
    ):
        return False
    before = int(number.group()) - 1
    return not before or bool(re.search(rf"(?:^|\n)[*_># \t]{{0,8}}{before}[.)]", text[:start]))


_SIGN_WORD = re.compile(r"(?<![A-Za-z])(?:minus|negative)[ ]\Z", re.IGNORECASE)
_BEFORE = re.compile(
    r"(?:[<>≤≥≠±√∛|~]|!=|\+/-|\\(?:leq?|geq?|neq?|lt|gt|pm|mp)(?![A-Za-z])|\\sqrt\{?|(?<=\d )or"
    r"|(?<![A-Za-z])(?:mod|not|n['’]t|never|cannot be|(?:more|less|fewer|greater|larger|smaller)[ ]than|at[ ]least|at[ ]most|up[ ]to"
    r"|(?:square|cube)(?:[ ]root)?[ ]of))[ ]?\Z",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"[²³⁴-⁹¹⁰ⁿ]|\||\^|![ ]?(?=[a-z)*/+-])|[a-z](?![a-z])"
    r"|[ ](?:squared|cubed|factorial|halves|thirds|quarters|and[ ]an?[ ][a-z]+|or[ ](?:more|less|fewer|so|\d+)|at[ ](?:most|least)"
    r"|(?:is|was)[ ](?:wrong|incorrect|not|false))(?![a-z])|[ ]?\((?:wrong|incorrect|no|false)\)",
    re.IGNORECASE,
)


def _with_surroundings(text: str, start: int, end: int) -> str:
    """A number with what stands beside it and changes it: `√64`, `x < 8`, "12 squared" are not their numbers."""
    number = _hyphenated(text[start:end])
    lead = text[max(0, start - 24) : start]
    if _SIGN_WORD.search(lead):
        return f"-{number}"
    before, after = _BEFORE.search(lead), _AFTER.match(text, end)
    return (before.group() if before else "") + number + (after.group() if after else "")


def _hyphenated(number: str) -> str:
    """A number as text, its sign a hyphen, whatever dash it was."""
    number = number.strip()
    return f"-{number[1:]}" if number[0] in "−–—‐‑‒﹣－" else number


def points_elsewhere(statement: str) -> bool:
    """Whether a statement without a number says no more than that the answer stands somewhere else ("shown above", "clear")."""
    return bool(_POINTER.fullmatch(statement)) or (len(_WORD.findall(statement)) > 1 and not _DENIAL.search(statement))


def _is_exponent(text: str, number: re.Match[str]) -> bool:
    """Whether a number stands above a letter or below a sign (ft^2, x_1): it belongs to that."""
    return bool(_EXPONENT.search(text[max(0, number.start() - 3) : number.start()]))
