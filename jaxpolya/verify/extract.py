"""Finding the one answer that a response gives, by the data set's style.

- `boxed`: the last `\\boxed{}` or `\\fbox{}`. Boxes joined by nothing but "and", "or", commas are one answer of several parts.
- `statement`: a box, else the last explicit statement ("The answer is", "Answer:", "A:", "####", `<answer>`). Never a bare number.
- `number`: as `statement`, else the last number.
- `tag`: the last `<answer>…</answer>`.

A response speaks for itself with its last word: an empty or unterminated last box is no answer, even where an earlier box was
whole, and what was thought was not said (`speech`).

Extraction runs in the parent process, where no deadline protects it, so every step is linear in the response's length: plain
scans, and regular expressions whose repetitions are bounded or cannot overlap.
"""

import collections
import re
from collections.abc import Iterator

from jaxpolya.records import Extraction
from jaxpolya.verify.speech import after_thinking, opened_thought, spoken

__all__ = ["BOX", "after_thinking", "boxes", "clip", "extract", "opened_thought", "spoken", "statements"]

BOX = re.compile(r"\\f?boxed(?![A-Za-z])|\\fbox(?![A-Za-z])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BETWEEN_BOXES = re.compile(
    r"(?:\s|[$,;.*]|\\[()\[\],;: ]|\\q?quad|\\text\{\s?(?:and|or)\s?\}|and(?![A-Za-z])|or(?![A-Za-z]))*", re.IGNORECASE
)
_MARKER = re.compile(
    r"(?<![A-Za-z])answer[ \t]{0,3}[*_]{0,3}[ \t]{0,3}(?:is(?![A-Za-z])|:|=)"
    r"|final[ \t]{1,3}answer[ \t]{0,3}[*_]{0,3}[ \t]{0,3}\n"
    r"|(?:^|\n)[ \t]{0,8}(?:\*\*)?A:"
    r"|####",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\*|$)|\n")
_CLAUSE = re.compile(r"[,;]?\s(?:because|since|which|where|so that|as required|per our)\b|[,;]\sso\b|\s\(?(?:I hope|QED)\b", re.IGNORECASE)
_PREDICATE = re.compile(
    r"[^\n]*[A-Za-z$)] (?:is|are|equals|be)(?: equal to)?(?: simply| therefore| exactly| just)?:? (?=[^ ])", re.IGNORECASE
)
_TAGGED = re.compile(r"<answer>((?:[^<]++|<(?!/?answer>))*+)</answer>")
_WORD = re.compile(r"[A-Za-z]{2,}")
_DISPLAY = {r"\[": r"\]", "$$": "$$", r"\(": r"\)", "$": "$"}
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])-[ ]?)?\$?(?:\\[dt]?frac\{-?\d{1,40}\}\{-?\d{1,40}\}|(?:\d+(?:[.,]\d+)*|\.\d+)(?:/\d+)?)(?:\s?\\?%)?", re.ASCII
)


def extract(response: str, style: Extraction) -> str | None:
    """The answer that a response gives, or None. Linear in the response's length; raises nothing."""
    said = spoken(response)
    if style == "tag":
        return _tagged(said)
    if BOX.search(said):
        return _boxed(said)
    if style == "boxed":
        return None
    stated = _stated(said)
    if style == "statement":
        return stated
    return _last_number(said) if stated is None else _only_number(stated)


def _tagged(said: str) -> str | None:
    closed = said.rfind("</answer>")
    opened = said.rfind("<answer>")
    if closed < 0 or opened > closed:
        return None
    opened = said.rfind("<answer>", 0, closed)
    if opened < 0:
        return None
    inside = said[opened + len("<answer>") : closed].strip()
    return _boxed(inside) if BOX.search(inside) else inside or None


def boxes(said: str) -> list[str]:
    """The content of every outermost box, in order; an unterminated one has none."""
    return [content for _, _, content in _boxes(said)]


def statements(said: str) -> list[str]:
    """What follows each answer marker up to the end of its line or the next marker, and what stands in answer tags."""
    found = _TAGGED.findall(said)
    markers = list(_MARKER.finditer(_TAGGED.sub(" ", said)))
    rest = _TAGGED.sub(" ", said)
    for marker, following in zip(markers, [*markers[1:], None], strict=False):
        limit = following.start() if following else len(rest)
        start = marker.end()
        while start < limit and rest[start] in " \t\n*_:":
            start += 1
        line = rest.find("\n", start, limit)
        found.append(rest[start : line if line >= 0 else limit])
    contents = (content.strip() for content in found)
    return [content for content in contents if content.casefold() not in ("", "the", "so the", "my", "**", "the final", "final")]


def clip(statement: str) -> str | None:
    """The first sentence of a statement without mark-up, reasons and preamble; None where nothing is left."""
    return _clip(_sentence(statement))


def _boxed(said: str) -> str | None:
    """The content of the last box; of the boxes that belong to it, joined by commas, where there are several."""
    found = _boxes(said)
    if not found[-1][2]:
        return None
    parts = [found[-1][2]]
    for (_, end, content), (start, _, _) in zip(reversed(found[:-1]), reversed(found), strict=False):
        if start - end > 40 or not content or not _BETWEEN_BOXES.fullmatch(said, end, start):
            break
        parts.append(content)
    return ", ".join(reversed(parts))


def _boxes(said: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of every outermost box."""
    closes = _closing_braces(said)
    found: list[tuple[int, int, str]] = []
    for match in BOX.finditer(said):
        start, brace = match.span()
        if not found or start >= found[-1][1]:
            end = closes.get(brace, brace)
            found.append((start, end + 1, said[brace + 1 : end].strip()))
    return found


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


def _stated(said: str) -> str | None:
    marker = _last(_MARKER.finditer(said))
    tag_end = said.rfind("</answer>")
    if tag_end >= 0 and (marker is None or marker.start() < tag_end):
        return _tagged(said)
    if marker is None:
        return None
    rest = said[marker.end() :].lstrip(" \t\n*_:")
    for opening, closing in _DISPLAY.items():  # a formula may hold full stops and line ends
        if rest.startswith(opening):
            end = rest.find(closing, len(opening))
            if end >= 0:
                formula, rest = rest[: end + len(closing)], rest[end + len(closing) :]
                return _clip(formula + _sentence(rest))
            break
    return _clip(_sentence(rest))


def _sentence(text: str) -> str:
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end else text


def _clip(statement: str) -> str | None:
    clause = _CLAUSE.search(statement)
    if clause and clause.start():
        statement = statement[: clause.start()]
    if predicate := _PREDICATE.match(statement):
        statement = statement[predicate.end() :]
    return statement.strip().strip("*_:\"'`").strip() or None


def _only_number(statement: str) -> str:
    """The number in a sentence that has one ("Jane has 3 apples left"); any other statement as it is."""
    numbers = _NUMBER.findall(statement)
    prose = "\\" not in statement and len(_WORD.findall(statement)) > 1
    return numbers[0].strip() if prose and len(numbers) == 1 else statement


def _last_number(said: str) -> str | None:
    last = _last(_NUMBER.finditer(said))
    return last.group().strip() if last else None


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    last = collections.deque(matches, maxlen=1)
    return last[0] if last else None
