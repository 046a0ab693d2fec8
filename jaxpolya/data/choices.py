"""Multiple-choice questions as data sets write them, brought to one form: a list of texts, and the letter of the right one.

Published sets agree neither on how choices are written (a list, a printed list, labels in a column of their own or inside the
text) nor on what an answer is (a label, a text, an index). Prompts and the verifier know only A, B, C … in order.
"""

import ast
import re
import string
from typing import Any

_LETTERS = string.ascii_uppercase
_LABEL = re.compile(r"(?:^|(?<=[\s,;]))\(?([A-Za-z])\s?\)\s*")  # "a ) ", "B)", "(c) "


class NotAChoice(Exception):
    """Choices that can't be read, or an answer that is none of them; the message is the reason that is counted."""


def read_choices(cell: Any) -> tuple[list[str], list[str]]:
    """Labels (upper case) and texts of a question's choices.

    They come as a list, as the printed form of one (MuSR), as `{label: […], text: […]}` (ARC), as `{A: …, B: …}`, or labelled in
    the text: `a ) 38 , b ) 27 …` (MathQA) and `["A)21", "B)24", …]` (AQuA), whose labels are taken off. Raises
    `NotAChoice` where none of these fits, or where they aren't 2 to 26.
    """
    if isinstance(cell, str) and cell.startswith("["):
        try:
            cell = ast.literal_eval(cell)
        except (ValueError, SyntaxError):
            raise NotAChoice("unreadable choices") from None
    if isinstance(cell, dict):
        labels, texts = (cell["label"], cell["text"]) if {"label", "text"} <= set(cell) else (list(cell), list(cell.values()))
    elif isinstance(cell, str | list):
        before, *parts = _LABEL.split(cell if isinstance(cell, str) else "\n".join(map(str, cell)))
        labels, texts = parts[::2], [text.strip(" ,;\n") for text in parts[1::2]]
        labelled = not before.strip() and "".join(labels).upper() == _LETTERS[: len(labels)]
        if isinstance(cell, list) and not (labelled and len(labels) == len(cell)):
            labels, texts = list(_LETTERS[: len(cell)]), cell
        elif not labelled:
            raise NotAChoice("unreadable choices")
    else:
        raise NotAChoice("unreadable choices")
    if not 2 <= len(texts) == len(labels) <= len(_LETTERS):
        raise NotAChoice("unreadable choices")
    return [str(label).upper() for label in labels], [str(text).strip() for text in texts]


def letter_of(answer: str, labels: list[str], texts: list[str], is_index: bool) -> str:
    """The letter of the right choice, given as a label, a text or an index from 0.

    A whole number could be any of the three. `is_index` says that the source holds it as a number: then it is an index first;
    as text it is one last. Raises `NotAChoice`.
    """
    place = int(answer) if answer.isdecimal() and int(answer) < len(texts) else None
    bare, folded = answer.strip(" ().:").upper(), [text.casefold() for text in texts]
    if not (is_index and place is not None):
        if bare in labels:
            place = labels.index(bare)
        elif answer.casefold() in folded:
            place = folded.index(answer.casefold())
    if place is None:
        raise NotAChoice("answer that is none of the choices")
    return _LETTERS[place]
