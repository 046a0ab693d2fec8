"""One spelling of the many that LaTeX and plain text have for the same answer.

Delimiters, boxes, sizes, spacing, synonyms and Unicode signs go; what could change the meaning stays. A comma that groups digits
in LaTeX's way (`5,\\!040`, `14{,}916`) goes too, and a blank after a comma stays, since it tells `32, 349` from `32,349`.
"""

import functools
import re

_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
     "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ", "∈": r"\in ", "°": r"^\circ ", "²": "^2", "³": "^3", "½": r"\frac12 ",
     "\u00a0": " ", "\u2009": " ", "\u202f": " ", "，": ",", "√": r"\sqrt "}
)  # fmt: skip
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s?\.?", ""),
        (r",\s?\\!\s?|\{,\}", "\ue000"),  # a comma that groups digits, never one of a list
        (r"(?<!\\)\\[!,;:> ]|~|\\q?quad|\\(?:display|text)style(?![A-Za-z])|\\limits(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:leq|leqslant|leslant)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\(le|ge)([a-z])(?![A-Za-z])", r"\\\1 \2"),
        (r"\\neq(?![A-Za-z])|\\not\s?=|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\lbrack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\(?:langle)(?![A-Za-z])", "("),
        (r"\\(?:rangle)(?![A-Za-z])", ")"),
        (r"\\(?:lvert|rvert|vert)(?![A-Za-z])|\\\|", "|"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|bf|rm|it)(?![A-Za-z])\s?\{\s?([A-Za-z])\s?\}", r"\1"),
        (r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname)\*?\s?\{([^{}\\]*)\}", r" \\text{\1} "),
        (r" \\text\{([^{}A-Za-z\\]*)\} ", r" \1 "),
        (r"(?<!\\)(?<![A-Za-z])sqrt(?=[({])", r"\\sqrt"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"\\sqrt\s?\[?\s?\{\s?\}", r"\\sqrt"),
        (r"\\degrees?(?![A-Za-z])", r"^\\circ "),
        (r"\\dots(?![A-Za-z])|\\cdots(?![A-Za-z])|…|\.\.\.", r"\\ldots "),
        (r"\\\$|\\?€|\\?£", "$"),
        (r"\\displaystyle|\\phantom\{[^{}]*\}", ""),
    )
]
_ABOUT = re.compile(r"^(?:\\approx|\\sim|about|approximately|roughly|exactly)(?![A-Za-z])", re.IGNORECASE)
_OUTER = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_BOX = re.compile(r"^\\f?box(?:ed)?\s?\{(.*)\}$", re.DOTALL)


@functools.lru_cache(maxsize=4096)
def normal(text: str) -> str:
    """One spelling of the many that LaTeX has: delimiters, boxes, spacing commands, size commands, synonyms, trailing stops."""
    text = text.translate(_UNICODE).strip()
    if "\\\\" in text and "\\begin" not in text:  # LaTeX that was escaped once too often
        text = re.sub(r"\\\\(?=[A-Za-z{}])", r"\\", text)
    for _ in range(4):
        before = text
        text = text.strip().rstrip(".,;:!" if not text.endswith("!") or " " in text else ".,;:").strip()
        text = undelimited(text)
        if (box := _BOX.match(text)) and _balanced(box.group(1)):
            text = box.group(1).strip()
        if text == before:
            break
    text = _ABOUT.sub("", text).strip()
    if len(dollars := re.findall(r"(?<!\\)\$", text)) > 1 and len(dollars) % 2 == 0:
        text = re.sub(r"(?<!\\)\$", " ", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = re.sub(r"(?<=\d)\ue000\s?(?=\d{3})", "", text).replace("\ue000", ",")
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r" ?([-+*/^=<>;:(){}\[\]|]) ?| (?=,)", r"\1", text) if "\\text" not in text else text


def undelimited(text: str) -> str:
    """The text without the delimiters of a formula or of emphasis around the whole of it."""
    for opening, closing in _OUTER:
        inside = text[len(opening) : len(text) - len(closing)]
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing) and opening not in inside:
            text = inside.strip()
    return text


def _balanced(text: str) -> bool:
    depth = 0
    for char in re.sub(r"\\[{}]", "", text):
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


SPELLED = re.compile(r"\\(?:text|mbox|textbf)\{([^{}]*)\}")
"""Words in an argument of their own."""


def words(text: str) -> str:
    """Words without case, mark-up, articles and punctuation."""
    text = SPELLED.sub(r" \1 ", text)
    found = re.findall(r"[^\W_]+|[^\w\s.,;:!?'\"(){}$]", text.casefold())
    return " ".join(word for word in found if word not in ("a", "an", "the", "\\")) or " ".join(found)


def folded(text: str) -> str:
    """The text without case, blanks, mark-up of words, and full stops that are no decimal points."""
    return re.sub(r"\s+|\.(?!\d)", "", SPELLED.sub(r"\1", normal(text.casefold())))


def squeezed(text: str) -> str:
    """The text without blanks, except those that keep a list from being a number."""
    return re.sub(r"(?<!,) | (?!\d{3})", "", text)
