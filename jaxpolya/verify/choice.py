"""Multiple choice: exactly one choice, stated once as the answer.

A choice is stated by its letter, by its full text, or by both in agreement, in a box, in answer tags, after "the answer is" or
"Answer:", or as the whole response. Everything else is `unparseable`: a letter somewhere in the prose, part of a choice's text, two
statements that disagree, a statement that names two choices. Whoever can't be understood has not answered; guessing would pay
for hedging.
"""

import re

from jaxpolya.verify.extract import BOX, boxes, clip, spoken, statements

_LETTER = re.compile(r"[\s*_\"'`$]*\(?\s*(?:\\(?:text|mathrm|textbf)\{\s*\(?([A-Za-z])\)?\s*\}|([A-Za-z]))\s*\)?[\s*_\"'`$.,:]*")
_LED = re.compile(r"[\s*_\"'`$]*(?:option|choice)?\s*\(?([A-Za-z])\s*(?:\)|[.):]|\s-)\s*(.+)", re.DOTALL | re.IGNORECASE)
_CALLED = re.compile(r"\s*(?:option|choice|letter)\s+(.+)", re.DOTALL | re.IGNORECASE)
MAX_STATEMENT = 2000
MAX_STATEMENTS = 100


def letter_of(answer: str, choices: list[str]) -> str | None:
    """The letter of the choice that a gold answer names by letter or by full text, or None."""
    return _choice(answer, choices)


def extract(response: str, choices: list[str]) -> str | None:
    """The letter of the one choice that a response states as its answer, or None. Linear in the response's length."""
    said = spoken(response)
    boxed = boxes(said)
    stated = statements(said)
    if not boxed and not stated:
        return _choice(said, choices) if len(said) <= MAX_STATEMENT else None
    if len(boxed) + len(stated) > MAX_STATEMENTS:
        return None
    letters = [_choice(content, choices) for content in boxed]
    for content in stated:
        if box := BOX.search(content):  # the box speaks for itself; what stands before it may name a choice too
            before = _choice(content[: box.start()], choices)
            letters += [before] if before else []
        else:
            letters.append(_choice(content, choices) or _choice(clip(content) or "", choices))
    return letters[0] if len(set(letters)) == 1 else None


def _choice(text: str, choices: list[str]) -> str | None:
    """The letter of the choice that a text is: its letter, its text, or the two together."""
    if len(text) > MAX_STATEMENT:
        return None
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    by_text = [letter for letter, choice in zip(letters, choices, strict=True) if _plain(choice) == _plain(text)]
    if by_text:
        return by_text[0] if len(by_text) == 1 else None
    if called := _CALLED.fullmatch(text):
        text = called.group(1)
    if alone := _LETTER.fullmatch(text):
        letter = (alone.group(1) or alone.group(2)).upper()
        return letter if letter in letters else None
    if led := _LED.fullmatch(text):
        letter = led.group(1).upper()
        if letter in letters and _plain(led.group(2)) == _plain(choices[letters.index(letter)]):
            return letter
    return None


def _plain(text: str) -> str:
    """Words without case, mark-up and punctuation."""
    return " ".join(re.findall(r"[^\W_]+|[-+/^=<>%]", re.sub(r"\\(?:text|mathrm|textbf)(?![A-Za-z])", "", text).casefold()))
