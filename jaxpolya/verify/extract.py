"""Finding the one answer that a response gives, by the data set's style.

- `boxed`: the last `\\boxed{}` or `\\fbox{}`. Boxes joined by nothing but "and", "or", commas are one answer of several parts.
- `statement`: a box, else the last explicit statement ("The answer is", "Answer:", `#### 42`, `<answer>`). Never a bare number.
- `number`: as `statement`, but the number in it; else the last number.
- `tag`: the last `<answer>…</answer>`.

A response speaks for itself with its last word: an empty or unterminated last box is no answer, even where an earlier box was
whole, and what was thought was not said (`speech`).

Extraction runs in the parent process, where no deadline protects it, so every step is linear in the response's length: plain
scans, and regular expressions whose repetitions are bounded or cannot overlap.
"""

import re

from jaxpolya.records import Extraction
from jaxpolya.verify.numerals import last_number, points_elsewhere, stated_number
from jaxpolya.verify.speech import spoken
from jaxpolya.verify.statement import last_statement, tagged, text_of

BOX = re.compile(r"\\f?boxed(?![A-Za-z])|\\fbox(?![A-Za-z])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BETWEEN_BOXES = re.compile(
    r"(?:\s|[$,;.*]|\\[()\[\],;: ]|\\q?quad|\\text\{\s?(?:and|or)\s?\}|and(?![A-Za-z])|or(?![A-Za-z]))*", re.IGNORECASE
)
_SENTENCE = re.compile(r"[A-Z][^\n]*[.!]")


def extract(response: str, style: Extraction) -> str | None:
    """The answer that a response gives, or None. Linear in the response's length; raises nothing."""
    speech = spoken(response)
    if style == "tag":
        inside = tagged(speech)
        return _in_tag(inside) if inside else None
    if BOX.search(speech):
        return _boxed(speech)
    if style == "boxed":
        return None
    return _number(speech) if style == "number" else _stated(speech)


def _in_tag(inside: str) -> str | None:
    """What a tag holds: a box or a statement in it, the number in a sentence, or all of it."""
    if BOX.search(inside):
        return _boxed(inside)
    stated = _stated(inside)
    if stated is None and _SENTENCE.fullmatch(inside):
        return stated_number(inside) or inside
    return stated or inside


def _stated(speech: str) -> str | None:
    statement = last_statement(speech)
    return text_of(speech, statement)[0] if statement else None


def _number(speech: str) -> str | None:
    """The number that the last statement gives; where it gives none, the last one after it, or before one that only points there."""
    statement = last_statement(speech)
    text, end = text_of(speech, statement) if statement else (None, 0)
    if text is None:
        return last_number(speech)
    return stated_number(text) or last_number(speech[end:]) or (last_number(speech) if points_elsewhere(text) else None) or text


def _boxed(speech: str) -> str | None:
    """The content of the last box; of the boxes that belong to it, joined by commas, where there are several."""
    spans = boxes(speech)
    if not spans[-1][2]:
        return None
    parts = [spans[-1][2]]
    for (_, end, content), (start, _, _) in zip(reversed(spans[:-1]), reversed(spans), strict=False):
        if start - end > 40 or not content or not _BETWEEN_BOXES.fullmatch(speech, end, start):
            break
        parts.append(content)
    return ", ".join(reversed(parts))


def boxes(speech: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of every outermost box, in order; an unterminated one has no content."""
    closes = _closing_braces(speech)
    spans: list[tuple[int, int, str]] = []
    for match in BOX.finditer(speech):
        start, brace = match.span()
        if not spans or start >= spans[-1][1]:
            end = closes.get(brace, brace)
            spans.append((start, end + 1, speech[brace + 1 : end].strip()))
    return spans


def _closing_braces(text: str) -> dict[int, int]:
    """The index of each opening brace's partner, in one pass; a brace that is never closed has none."""
    partners: dict[int, int] = {}
    opened: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened:
            partners[opened.pop()] = match.start()
    return partners
