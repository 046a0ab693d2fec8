"""Multiple choice: exactly one choice, stated as the answer and never contradicted.

A choice is stated by its letter, by its full text, or by both in agreement: in a box, in answer tags, after "the answer is" or "the
correct option is". Only where nothing of that kind can be read do weaker signs count: "B is correct", "so it's B", a first or last line
that is nothing but a choice. What can't be read ("the answer is clear", a box with an intermediate result) says nothing. Two readable
statements that disagree, or one that names several choices, are no answer, and neither is a letter somewhere in the prose: whoever can't
be understood has not answered, and guessing would pay for hedging.
"""

import re
import unicodedata

from jaxpolya.verify.extract import BOX, boxes
from jaxpolya.verify.speech import spoken
from jaxpolya.verify.statement import Statement, clip, first_sentence, statements

MAX_STATEMENT = 2000
MAX_STATEMENTS = 100

_FONT = re.compile(
    r"\\(?:text|math)(?:rm|bf|it|sf|tt|up|normal|cal)?(?![A-Za-z])|\\(?:operatorname|large|Large|LARGE|huge|Huge|displaystyle|bm|boldsymbol)(?![A-Za-z])|\\(?:text)?color\{[^{}]*\}|\\(?:boxed|fbox|mbox|emph|underline)(?![A-Za-z])|</?(?:b|i|em|strong)>"
)
_MARKUP = re.compile(r"\\[()\[\]]|[*_`$}{\"“”]")
_SPACE = re.compile(r"\\[ ,;:!]|~|\\q?quad(?![A-Za-z])")
_LEAD = re.compile(
    r"\s*(?:the\s+)?(?:(?:correct|right|best|final)\s+)?(?:(?:option|choice|letter|answer|alternative)(?:\s+is)?\s*:?)?"
    r"\s*[(\[]?\s*([A-Za-z])(?![A-Za-z'’])\s*[)\]]?(.*)",
    re.DOTALL | re.IGNORECASE,
)
_TRAIL = re.compile(r"(.*\S)\s*[(\[]\s*([A-Z])\s*[)\]][\s.]*", re.DOTALL)
_DELIMITER = re.compile(r"\A\s*[.:,;)\]/(–—-]*\s*")
_REASON = re.compile(r"(?:because|since|as(?! (?:well|does|do|is|are))|for|given|due|which)(?![a-z])", re.IGNORECASE)
_ANOTHER = re.compile(
    r"[\s.…,;*_)\]]*(?:(?:or|and|no|wait|maybe|perhaps|actually)[ ,:]+)*[(\[]?(?-i:([A-Z]))[)\]]?(?=[\s.*_!?)\]]*(?:\n|\Z))", re.IGNORECASE
)
"""A letter, alone in its sentence or line or behind "or", that comes right after a statement."""
_A_NOUN = re.compile(r"[^\w]*(?:a|an|the|An|The|A(?= [a-z]))\s")
_NAMED = re.compile(r"(?<![A-Za-z'’])([AI](?! (?!or |and |nor )[a-z])|[B-HJ-Z])(?![A-Za-z'’])")
_ALTERNATIVES = re.compile(
    r"(?<![a-z])(?:or|nor|either|neither|both|maybe|perhaps|possibly)(?![a-z])|(?-i:[A-Z])[)\]]?\s?(?:,|/|&|and\s)\s?[(\[]?(?-i:[A-Z])(?![a-z])",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:a|an|the) (?=.)")
_EITHER = re.compile(r"(?<![a-z])either(?![a-z])", re.IGNORECASE)

_LETTER = r"(?:(?:[Oo]ption|[Cc]hoice)[ ])?[*_$(\[]{0,4}(?P<letter>[A-Z])[*_$)\]]{0,4}"
_BEGINS = r"(?:^|[.!\n][\s*_]{0,9}|(?<![A-Za-z])(?i:so|thus|therefore|hence),?[ ])"
_CALLED = re.compile(
    r"(?<![a-z])(?:correct|right|best|chosen|final)[ ](?:option|choice|letter|alternative|one)[*_]{0,3}"
    r"(?:[ ]is(?![a-z'’])|[ ](?:must|should|would)[ ]be(?![a-z])|[ ]?[:：])"
    r"|(?<![a-z])(?<!if )I(?:['’](?:d|ll)|[ ]would|[ ]will)?[ ](?:choose|pick|select|go with)(?![a-z])",
    re.IGNORECASE,
)
_IS_ANSWER = re.compile(
    rf"{_BEGINS}{_LETTER}[ ]is[ ]the[ ](?:(?:correct|right|best|final)[ ])?(?:answer|option|choice)[*_ ]{{0,4}}(?=[.!\n]|$)"
)
_IS_RIGHT = re.compile(rf"{_BEGINS}{_LETTER}[ ]is[ ](?:correct|right)[*_ ]{{0,4}}(?=[.!\n]|$)")
_IT_IS = re.compile(
    r"(?<![A-Za-z])(?:(?i:so|thus|therefore|hence),?[ ](?:(?i:it)(?:['’]s|[ ]is|[ ]must[ ]be)[ ])?|(?i:it)(?:['’]s|[ ]is|[ ]must[ ]be)[ ])"
    rf"{_LETTER}[.!*\s]*\Z"
)
_OPTION = re.compile(r"[\s*_>-]*\(?([A-Z])[.):]")


def letter_of(answer: str, choices: list[str]) -> str | None:
    """The letter of the choice that a gold answer names by letter or by full text, or None."""
    letters = _Choices(choices).read(answer)
    return letters.pop() if len(letters) == 1 else None


def extract(response: str, choices: list[str]) -> str | None:
    """The letter of the one choice that a response states as its answer, or None. Linear in the response's length."""
    speech = spoken(response)
    reader = _Choices(choices)
    boxed, stated = boxes(speech), statements(speech)
    called = [*_CALLED.finditer(speech), *_IS_ANSWER.finditer(speech)]
    if len(boxed) + len(stated) + len(called) > MAX_STATEMENTS or (boxed and not boxed[-1][2]):
        return None
    readings = [(start, reader.read(content), False) for start, _, content in boxed]
    for statement in stated:
        if statement.weight == "strong":
            box = BOX.search(statement.line)  # speaks for itself; what stands before it may name a choice too
            letters, tentative = reader.state(statement.line[: box.start()] if box else statement.line)
            end = statement.start + len(statement.line)
            listed = (
                letters | reader.next_line(speech, statement.start) | reader.followed_by(speech[end : end + 40]) if letters else letters
            )
            readings.append((statement.start, listed, tentative))
    for mark in called:
        if mark.re is _CALLED:
            line = _line(speech, mark.end())
            letters, tentative = reader.state(line)
            end = mark.end() + len(line)
            readings.append((mark.start(), letters | reader.followed_by(speech[end : end + 40]) if letters else letters, tentative))
        else:
            readings.append((mark.start(), reader.known(mark["letter"]), False))
    readings.sort(key=lambda reading: reading[0])
    clear = [start for start, letters, _ in readings if len(letters) == 1]
    if any(len(letters) > 1 and not (tentative and clear and start < clear[-1]) for start, letters, tentative in readings):
        return None
    letters = set[str]().union(*(letters for _, letters, _ in readings if len(letters) == 1))
    return _only(letters) if letters else _by_weak_signs(speech, reader, stated)


def _by_weak_signs(speech: str, reader: "_Choices", stated: list[Statement]) -> str | None:
    """The letter that a response without a readable statement shows by other signs, if all of them agree."""
    signs: set[str] = set()
    others: set[str] = set()
    for statement in stated:
        if statement.weight != "strong":
            signs |= reader.state(statement.line)[0]
    for mark in [*_IS_RIGHT.finditer(speech), *_IT_IS.finditer(speech, max(0, len(speech) - MAX_STATEMENT))]:
        signs |= reader.known(mark["letter"])
    lines = [line for line in speech.splitlines() if line.strip()]
    labelled = any(statement.weight == "label" for statement in stated)
    for index, line in enumerate(lines):
        (signs if index in (0, len(lines) - 1) else others).update(reader.read(line))
        others |= reader.followed_by(line) if index else set()
        if (option := _OPTION.match(line)) and not (labelled and option[1] == "A"):
            others |= reader.known(option[1])
    if lines:
        others |= reader.read(clip(lines[-1][-MAX_STATEMENT:].rstrip(" .!*").rpartition(". ")[2]) or "")
    return _only(signs) if others <= signs else None


class _Choices:
    """The choices of one question, and what a text says of them: a set of letters, empty where it says nothing that can be read."""

    def __init__(self, choices: list[str]):
        self.choices = {chr(ord("A") + index): choice.strip() for index, choice in enumerate(choices)}
        self.plain = {letter: _plain(choice) for letter, choice in self.choices.items()}
        self.nouns = {letter: _ARTICLE.sub("", choice) for letter, choice in self.plain.items()}

    def known(self, letter: str) -> set[str]:
        """The letter as a set, if there is such a choice."""
        return {letter.upper()} & self.choices.keys()

    def read(self, text: str) -> set[str]:
        """The one choice that a text is: its letter, its text, or the two together."""
        if len(text) > MAX_STATEMENT:
            return set()
        plain, bare = _plain(text), _bare(text)
        noun = _ARTICLE.sub("", plain) if _A_NOUN.match(bare) else plain  # "A. Rome" and "A (Rome)" are a letter and a text
        for form, choices in ((plain, self.plain), (noun, self.nouns)):
            if same := {letter for letter, choice in choices.items() if choice == form}:
                return same if len(same) == 1 else set()
        if (trail := _TRAIL.fullmatch(bare)) and self.plain.get(trail[2]) == _plain(trail[1]):
            return {trail[2]}
        lead = _LEAD.fullmatch(bare)
        return letters if lead and (letters := self.known(lead[1])) and self._agrees(lead[2], lead[1].upper()) else set()

    def state(self, line: str) -> tuple[set[str], bool]:
        """What a line says after the mark of an answer, and whether it only weighs alternatives ("either A or B")."""
        if len(line) > MAX_STATEMENT:
            return set(), False
        if letters := self.read(line):
            return letters, False
        sentence = first_sentence(line)
        if letters := self.read(sentence):
            rest = line[len(sentence) :]
            another = self._is_another(rest, letters) or self.followed_by(rest) - letters
            return (set() if rest.startswith("?") or another else letters), False
        bare = _bare(sentence)
        named = set(_NAMED.findall(bare)) & self.choices.keys()
        words = f" {_plain(bare)} "
        named |= {letter for letter, choice in self.plain.items() if len(choice) > 1 and f" {choice} " in words}
        if len(named) > 1 and _ALTERNATIVES.search(bare):
            return named, bool(_EITHER.search(bare))
        return self.read(clip(line) or ""), False

    def _agrees(self, rest: str, letter: str) -> bool:
        """Whether what follows a letter leaves it the answer: nothing, the choice's own text, or a reason."""
        text = _DELIMITER.sub("", rest, count=1)
        own = self.choices[letter]
        if self.followed_by(rest) - {letter}:
            return False
        if not text or _plain(text) == self.plain[letter]:
            return True
        if own and text.casefold().startswith(own.casefold()):
            text = text[len(own) :].lstrip()
            if self._next_option(text) - {letter}:
                return False
            return text[:1] in tuple(".,:;(–—-") or bool(_REASON.match(text))
        return bool(_REASON.match(text))

    def _next_option(self, text: str) -> set[str]:
        """The choice that a text begins with as lists of choices do: its letter and its text. A list of all choices names none."""
        option = _OPTION.match(_DELIMITER.sub("", text, count=1))
        letters = self.known(option[1]) if option else set()
        named = _plain(_DELIMITER.sub("", text, count=1))[1:].strip()
        return {letter for letter in letters if named == self.plain[letter] or named.startswith(f"{self.plain[letter]} ")}

    def next_line(self, speech: str, start: int) -> set[str]:
        """The choice that the line after a statement lists, with nothing said about it, if it does."""
        end = speech.find("\n", start)
        line = speech[end : end + MAX_STATEMENT].strip().partition("\n")[0] if end >= 0 else ""
        return {letter for letter in self._next_option(line) if _plain(line) == f"{letter.lower()} {self.plain[letter]}"}

    def followed_by(self, rest: str) -> set[str]:
        """The choice that is named, alone or behind "or", right after a statement."""
        another = _ANOTHER.match(rest)
        return self.known(another[1]) if another else set()

    def _is_another(self, rest: str, letters: set[str]) -> bool:
        """Whether what follows "B." is another choice's text, or the list of all choices."""
        rest = _DELIMITER.sub("", rest, count=1)
        begun = [letter for letter, choice in self.plain.items() if choice and f"{_plain(rest)} ".startswith(f"{choice} ")]
        if not begun:
            return False
        longest = max(begun, key=lambda letter: len(self.plain[letter]))
        if longest not in letters:
            return True
        return bool(self._next_option(rest[len(self.choices[longest]) :]) - letters)


def _only(letters: set[str]) -> str | None:
    return next(iter(letters)) if len(letters) == 1 else None


def _line(text: str, start: int) -> str:
    """The rest of a line, as far as statements reach."""
    return text[start : start + MAX_STATEMENT].partition("\n")[0]


def _bare(text: str) -> str:
    """A text without mark-up."""
    return unicodedata.normalize("NFKC", _MARKUP.sub("", _SPACE.sub(" ", _FONT.sub("", text)))).strip()


def _plain(text: str) -> str:
    """Words without case, mark-up and punctuation."""
    return " ".join(re.findall(r"[^\W_]+|[-+/^=<>%]", _FONT.sub("", text).casefold()))
