r"""Whether an answer is the gold's own literal, word, letter or form: a reader of its own, which shares nothing with the verifier.

It settles what may be paid by luck: a number written as one number, a word, a letter, or the gold's own symbols in any order. It
computes nothing but the value of one literal. An answer with any sign between two numbers is none, nor is a quotient that isn't in
lowest terms: whoever wrote that has not divided.
"""

import collections
import math
import re
from fractions import Fraction

_DROPPED = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|quad|qquad|boxed|fbox|rm|bf)(?![A-Za-z])|\\[!,;:> ]|\\[()\[\]]|[$~`]"
)
_SPELLED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\*?\s?\{([^{}]*)\}")
_SYNONYMS = {"−": "-", "–": "-",
             "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "°": r"^\circ ",
             r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\leq": r"\le", r"\geq": r"\ge", "<=": r"\le ", ">=": r"\ge ",
             r"\cdot": r"\times", r"\neq": r"\ne", "\u00a0": " ", "÷": "/", r"\div": "/", "²": "^2",
             "³": "^3", r"\lbrace": r"\{", r"\rbrace": r"\}", "ℝ": r"\mathbb{R}"}  # fmt: skip
_UNITS = re.compile(r"\\%|%|\^\s?\{?\s?\\circ\s?\}?|\\circ(?![A-Za-z])|\\\$|(?<=[\d}])\s?[A-Za-z][A-Za-z ./^{}\d-]*$")
_NAME = re.compile(r"^\s*[A-Za-z]\w{0,2}(?:_\{?\w+\}?)?(?:\([a-z0-9]\))?\s*(?:=|\\in(?![A-Za-z])|\\approx)\s*(?=[^=<>]+$)")
_REALS = re.compile(
    r"^\(- ?\\infty ?, ?\+?\\infty ?\)$|^(?:\\\{ ?[a-z] ?[:|] ?)?(?:[a-z] ?\\in ?)?\\mathbb ?\{r\}(?: ?\\\})?$|^all real numbers$"
)
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\[A-Za-z]+|\\.|[A-Za-z]+|\S")
_FRACTION = re.compile(r"(?:\\frac\s?\{?\s?(-?\d+)\s?\}?\s?\{?\s?(-?\d+)\s?\}?|\(?(-?\d+)\)?\s?/\s?\(?(-?\d+)\)?)")
_UNITS_IN_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
                   "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_UNITS_IN_WORDS)} | {word: 10 * value for value, word in enumerate(_TENS, 2)}
_ARTICLES = {"a", "an", "the", "and", "or", "is"}


def is_literal(answer: str, gold: str) -> bool:
    """Whether an answer is the gold in other spelling: its value as one literal, its word, or its symbols in some order."""
    answer, gold = _clean(answer), _clean(gold)
    if not answer.strip() or not gold.strip():
        return False
    if _one(answer, gold) or (_REALS.search(answer) and _REALS.search(gold)):
        return True
    parts, golds = _entries(answer), _entries(gold)
    return len(parts) == len(golds) > 1 and _matched(parts, golds)


def value(text: str) -> Fraction | None:
    """The value of one literal (an integer, decimal, percent, quotient in lowest terms, mixed number, c·10^k, number in words), or None."""
    text = _NAME.sub("", _unwrapped(_clean(text)))
    percent = bool(re.search(r"%|\bpercent\b", text))
    for stated in (text, _UNITS.sub("", text)):
        if (literal := _literal(_unwrapped(stated))) is not None:
            return literal / 100 if percent else literal
    return None


def _unwrapped(text: str) -> str:
    text = text.strip(" ,;:!?").rstrip(" .,;:!?")
    while len(text) > 2 and text[0] + text[-1] in ("()", "[]", "{}"):
        text = text[1:-1].strip()
    return text


def _literal(text: str) -> Fraction | None:
    sign = -1 if text.startswith("-") else 1
    body = text[1:].strip() if text[:1] in ("-", "+") else text
    body = re.sub(r"(?<=\d)(?:,|\{,\}| )(?=\d{3}(?!\d))", "", body)
    if re.fullmatch(r"\d+\.?\d*|\.\d+", body, re.ASCII):
        return sign * Fraction(body.rstrip(".") or "0")
    if quotient := _FRACTION.fullmatch(body):
        p, q = (int(part) for part in quotient.groups() if part is not None)
        return sign * Fraction(p, q) if q and math.gcd(p, q) == 1 else None
    if mixed := re.fullmatch(r"(\d+)\s?(.+)", body):
        part = _FRACTION.fullmatch(mixed[2])
        if part and ("\\" in mixed[2] or " " in body):
            p, q = (int(each) for each in part.groups() if each is not None)
            return sign * (int(mixed[1]) + Fraction(p, q)) if 0 < p < q and math.gcd(p, q) == 1 and mixed[1] != "0" else None
    if power := re.fullmatch(r"(?:(\d+(?:\.\d*)?|\.\d+)\s?(?:\\times|x|\*)\s?)?10\s?\^\s?\{?\s?([+-]?\d{1,3})\s?\}?", body, re.ASCII):
        return sign * Fraction(power[1] or "1") * Fraction(10) ** int(power[2])
    if power := re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s?e\s?([+-]?\d{1,3})", body, re.ASCII):
        return sign * Fraction(power[1]) * Fraction(10) ** int(power[2])
    if repeating := re.fullmatch(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s?\{(\d+)\}", body, re.ASCII):
        whole, lead, cycle = repeating.groups()
        return sign * (Fraction(int((whole or "0") + lead)) + Fraction(int(cycle), 10 ** len(cycle) - 1)) / 10 ** len(lead)
    return None if not re.fullmatch(r"[a-z -]+", body) else _spelled(body)


def _spelled(text: str) -> Fraction | None:
    total = 0
    for word in re.split(r"[\s-]+", text):
        if word == "hundred":
            total *= 100
        elif word in _WORDS:
            total += _WORDS[word]
        else:
            return None
    return Fraction(total)


def _one(answer: str, gold: str) -> bool:
    if _symbols(answer) == _symbols(gold) or _symbols(_NAME.sub("", _unwrapped(answer))) == _symbols(_NAME.sub("", _unwrapped(gold))):
        return True
    stated, right = value(answer), value(gold)
    if stated is None or right is None:
        return False
    return abs(stated - right) <= max(abs(right) / 10**5, _half_unit(gold)) or stated in (right * 100, right / 100)  # with or without %


def _half_unit(gold: str) -> Fraction:
    """Half of the last place that a decimal gold shows: an answer that is rounded so was not computed less."""
    decimals = re.fullmatch(r"\D*\d*\.(\d{2,})\D*", gold)
    return Fraction(1, 2 * 10 ** len(decimals[1])) if decimals else Fraction(0)


def _symbols(text: str) -> collections.Counter[str]:
    """The symbols of a text without brackets, articles and separators, numerals by their value."""
    text = re.sub(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))", "", text)
    tokens = [token for token in _TOKEN.findall(text) if not re.fullmatch(r"\\?[{}()\[\]]|[.,;:!?'\"]|\\times|\*", token)]
    words = [token for token in tokens if token not in _ARTICLES]
    return collections.Counter(str(Fraction(token)) if token[-1].isdigit() and token.isascii() else token for token in words or tokens)


def _entries(text: str) -> list[str]:
    """The entries of a list, tuple, set, or "or"."""
    inside = _NAME.sub("", text).strip().strip("()[]").removeprefix("\\{").removesuffix("\\}").strip("{}")
    inside = re.sub(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))(?=[\d,]*$)", "", inside) if re.fullmatch(r"[\d,]+", inside) else inside
    return [part for part in re.split(r",|;|\bor\b|\band\b|\\cup(?![A-Za-z])|:(?=\d)", inside) if part.strip()]


def _matched(parts: list[str], golds: list[str]) -> bool:
    left = list(golds)
    for part in parts:
        match = next((gold for gold in left if _one(part.strip(), gold.strip())), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _clean(text: str) -> str:
    for spelling, ours in _SYNONYMS.items():
        text = re.sub(re.escape(spelling) + (r"(?![A-Za-z])" if spelling[-1].isalpha() else ""), lambda _, ours=ours: ours, text)
    text = _SPELLED.sub(r" \1 ", text)
    text = _DROPPED.sub(" ", re.sub(r"\\[%$]", lambda sign: sign.group()[1] if sign.group() == r"\%" else " ", text))
    return re.sub(r"\s+", " ", text).strip(" *").rstrip(" .").casefold()
