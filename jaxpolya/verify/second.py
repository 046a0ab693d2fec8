"""A second reading of a response that was paid: by other code than the first, so that one mistake doesn't vouch for itself.

The first reading (`extract`, `choice`, `math`) decides what is paid and has to be fair to every way of writing an answer. This one only
says whether somebody who reads plainly would agree. It looks for the last box, tag or statement in the last `TAIL` characters, and where
there is none at the last line. Where the gold is a number, what stands there must *be* a number: "97 * 49" is no reading of 4753. What is
found goes to Math-Verify, under the limits of `algebra`.

It errs on the side of not agreeing. A few per cent of honest answers are worded in ways that it doesn't follow, so its share over many
paid answers is a reason to look at them, and a single one is not. Programs and the scorers of reasoning-gym whose answers aren't
numbers are judged by being run: there is no second way to read them.
"""

import re

from jaxpolya.verify.mathematics.algebra import Unparsed, same_by_algebra
from jaxpolya.verify.mathematics.expression import TooLarge

TAIL = 2000
"""An answer stands at the end: no more characters than these are looked at, which bounds every search."""

_FINAL = re.compile(
    r"\\f?box(?:ed)?\s*\{(?P<box>(?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}"
    r"|<answer>(?P<tag>[^<]*)</answer>"
    r"|(?:\banswer\s*[*_]*\s*(?:is|=|:)(?!\w)|^\s*[*_]*A:|\#\#\#\#)[\s*_:]*"
    r"(?P<line>(?:(?!\\f?box|\banswer\b|\#\#\#\#)[^\n])*)",
    re.IGNORECASE | re.MULTILINE,
)
_FRACTION = r"\\[dt]?frac\s?\{?\d+\}?\s?\{?\d+\}?"
_DECIMAL = r"(?:\d{1,3}(?:(?:,|\\,|\{,\})\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)}}\]])[-−–]\s?)?\\?\$?\s?(?:(?P<whole>\d+)\s?(?={_FRACTION}|(?<=\s)\d+/\d))?"
    rf"(?:\\[dt]?frac\s?\{{?(?P<over>\d+)\}}?\s?\{{?(?P<under>\d+)\}}?|(?P<decimal>{_DECIMAL})(?:/(?P<below>\d+))?)"
    r"(?:\s?(?:\\times|\\cdot|×|·|\*|x)\s?10\s?\^\s?\{?(?P<power>[-−]?\d+)\}?|[eE](?P<exponent>[-+]?\d+)(?!\w))?",
    re.ASCII,
)
_OPERATOR = re.compile(
    r"[\s$]*(?:[*+×÷·∗^/−-]|\\(?:times|cdot|div|pm)(?![a-z])|\)\s*\(|(?:x|times|plus|minus|divided by)\s)[\s\\$({]*\d", re.IGNORECASE
)
_OPERATED = re.compile(r"(?:[*+×÷·∗^/]|\\(?:times|cdot|div)|\d\s*[-−])[\s$({]*$")
_FUNCTION = re.compile(r"\\(?!text|math|bold|boxed|quad|left|right|approx|q?quad)[A-Za-z]{2,}|\b(?:sqrt|log|sum)\b")
_UNIT = re.compile(r"\s?(?:\^?\{?\\circ\}?|°|\\(?:text|mbox|mathrm)\{[^{}\d]*\}(?:\^\{?[23]\}?)?)$")
_THOUGHT = re.compile(r"</\s?(?:think|thinking|thoughts?|reason|reasoning)>|\[/THINK\]", re.IGNORECASE)
_MARKS = re.compile(r"<[|｜][^<>\s]{1,40}[|｜]>|</?s>|<(?:eos|end_of_turn)>")
_EQUALS = re.compile(r"=|≈|\\approx")
_STOP = re.compile(r"[.!?](?=\s|$)|\n|,?\s(?:because|since|as|so)\s", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)?(?![A-Za-z]|')")


def is_number(text: str) -> bool:
    """Whether a text is one number written out, with or without a currency, degree or per cent sign or a unit in `\\text{}`."""
    return _NUMBER.fullmatch(_bare(text)) is not None


def number_in(text: str, *, last: bool = False) -> str | None:
    """The number that a statement gives, as LaTeX: of a chain of equations its last member, beside words the first number (or the last).

    None where it is left to be worked out (`97 * 49`), or where there is none.
    """
    pieces = [piece for piece in _EQUALS.split(text) if re.search(r"\d", piece, re.ASCII)]
    if not pieces:
        return None
    matches = list(_NUMBER.finditer(pieces[-1]))
    match = matches[-1 if last else 0] if matches else None
    before = pieces[-1][: match.start()] if match else ""
    if match is None or _OPERATED.search(before) or _FUNCTION.search(before) or _OPERATOR.match(pieces[-1], match.end()):
        return None
    percent = re.match(r"\s?\\?%", pieces[-1][match.end() :])
    return _written(match) + (r"\%" if percent else "")


def readings(response: str, kind: str, gold: str) -> list[str | None]:
    """What a plain reader finds in a response's boxes, tags and statements, in their order. Linear in its length.

    The last one is the answer; a consistent response says the same each time. None stands for one that says nothing of the gold's kind.
    Where there is neither box, tag nor statement, the last line is read, and of its numbers the last.

    Args:
      response: all that the model said.
      kind: who judged it.
      gold: a number, a formula or words; of a choice its letter.
    """
    end = _MARKS.sub(" ", _THOUGHT.split(response[-TAIL:])[-1]).strip()
    finals = [next(filter(None, match.groups()), "") for match in _FINAL.finditer(end)]
    stated = [text for final in finals if (text := final.strip("$*_ \t\r"))]
    return [_reading(final.strip("*_ "), kind, gold, stated=bool(stated)) for final in stated or end.splitlines()[-1:]]


def read(response: str, kind: str, gold: str) -> str | None:
    """The last of the readings: what the response answers, or None."""
    return (readings(response, kind, gold) or [None])[-1]


def one_statement(response: str) -> bool:
    """Whether a response can't have two final statements. Cheap, and true of nearly all."""
    end = response[-TAIL:].lower()
    return sum(map(end.count, ("answer", "box", "####", "a:"))) < 2


def _reading(final: str, kind: str, gold: str, *, stated: bool) -> str | None:
    if kind == "choice":
        return final
    if is_number(gold):
        return number_in(final, last=not stated)
    stop = _STOP.search(final)
    return (final[: stop.start()] if stop else final).strip().strip("$*. ") or None


def confirms(gold: str, kind: str, choices: list[str] | None, answer: str) -> bool:
    """Whether what was read is the gold answer; Math-Verify may hang on it, so this is a worker's job."""
    if kind == "choice":
        return letter(answer, choices or []) == gold
    if _plain(gold) and _plain(gold) == _plain(answer):
        return True
    if match := _NUMBER.fullmatch(_bare(gold)):
        if gold.isdecimal() and "frac" in answer:  # a whole number that is left as a division is not worked out
            return False
        gold = _written(match)
    try:
        number = answer.removesuffix("\\%")
        if same_by_algebra(gold, number):
            return True
        return number != answer and same_by_algebra(rf"{gold}\cdot100", number)
    except (TooLarge, Unparsed):
        return False


def letter(answer: str, choices: list[str]) -> str | None:
    """The choice whose text an answer is, else the first letter that stands alone in it."""
    for i, choice in enumerate(choices):
        if _plain(choice) == _plain(answer):
            return chr(ord("A") + i)
    match = _LETTER.search(answer)
    return match[1] if match else None


def _written(match: re.Match[str]) -> str:
    parts = match.groupdict()
    if parts["over"]:
        text = rf"\frac{{{parts['over']}}}{{{parts['under']}}}"
    else:
        text = re.sub(r"[^\d.]", "", parts["decimal"])
        text = rf"\frac{{{text}}}{{{parts['below']}}}" if parts["below"] else text
    if parts["whole"]:
        text = f"{parts['whole']}+{text}"
    power = parts["power"] or parts["exponent"]
    if power:
        text = rf"{text}\cdot10^{{{power.replace('−', '-').lstrip('+')}}}"
    return f"-({text})" if parts["sign"] and parts["whole"] else f"-{text}" if parts["sign"] else text


def _bare(text: str) -> str:
    """A number without what says of what."""
    text = _UNIT.sub("", text.strip().strip("$"))
    return text.strip().strip("$").rstrip("%").rstrip("\\ ").strip()


def _plain(text: str) -> str:
    """Words and signs without case, mark-up and blanks."""
    return re.sub(r"\\(?:text|textbf|mathrm|left|right|[,;!])|[\s{}$\\]|\.(?!\d)", "", text.casefold())
