"""One spelling of the many that LaTeX and plain text have for the same answer.

Delimiters, boxes, sizes, spacing, synonyms and Unicode signs go; what could change the meaning stays. A comma that groups digits
in LaTeX's way (`5,\\!040`, `14{,}916`) goes too, and a blank after a comma stays, since it tells `32, 349` from `32,349`.
"""

import functools
import re
import unicodedata

_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ",
     "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∈": r"\in ", "∪": r"\cup ",
     "∖": r"\setminus ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "°": r"^\circ ", "º": r"^\circ ", "˚": r"^\circ ", "…": r"\ldots ",
     "√": r"\sqrt ", "∛": r"\sqrt[3]", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "∠": r"\angle ", "△": r"\triangle ",
     "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": "|", "⟨": "(", "⟩": ")", "′": "'", "’": "'", "‘": "'",
     "“": '"', "”": '"', "⁄": "/", "∕": "/", "¥": "$", "₹": "$", "₩": "$", "₱": "$", "₽": "$"}
)  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")
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
        (r"\\neq(?![A-Za-z])|\\not\s?=|(?<![\d)\]}])!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\lbrack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\(?:langle)(?![A-Za-z])", "("),
        (r"\\(?:rangle)(?![A-Za-z])", ")"),
        (r"\\(?:lvert|rvert|vert)(?![A-Za-z])|\\\|", "|"),
        (r"(\\(?:mathrm|text)\s?\{[^{}\\]*)\\cdot\s?([^{}\\]*\})", r"\1·\2"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|bf|rm|it)(?![A-Za-z])\s?\{\s?([A-Za-z])\s?\}", r"\1"),
        (
            r"\\(?:text|textbf|textit|textrm|texttt|textnormal|mbox|hbox|mathrm|mathbf|mathtt|mathop|ensuremath|operatorname)\*?\s?\{([^{}\\]*)\}",
            r" \\text{\1} ",
        ),
        (r" \\text\{([^{}A-Za-z\\]*)\} ", r" \1 "),
        (r"(?<!\\)(?<![A-Za-z])sqrt(?=[({])", r"\\sqrt"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"\\sqrt\s?\[?\s?\{\s?\}", r"\\sqrt"),
        (r"\\degrees?(?![A-Za-z])", r"^\\circ "),
        (r"\\dots(?![A-Za-z])|\\cdots(?![A-Za-z])|\.\.\.", r"\\ldots "),
        (r"\\\$|\\?€|\\?£", "$"),
        (
            r"\\displaystyle|\\(?:checkmark|blacksquare|qed|square)(?![A-Za-z])$|[✓✔∎]|\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge)(?![A-Za-z])",
            "",
        ),
        (r"\\phantom\{[^{}]*\}", " "),
        (r"\\(?:text)?color\s?(?:\{[^{}]*\}|[a-z]+(?=\s))", ""),
        (r"\\(?:underline|emph|mathit|mathsf|boldsymbol|bm|textsf)(?=\s?\{)", ""),
        (r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"\\mathsf\s(?=[A-Za-z])|\\(?:bf|rm|it|tt|sf)(?![A-Za-z])\s?", ""),
        (r"\\(?:hspace\*?|hskip)\s?\{[^{}]*\}", " "),
        (r"\^\{\s?\}|(?<=[\w)])(?<!\\)\{\}|^\{\}(?=.)", ""),
        (r"(?<![\\A-Za-z])(sin|cos|tan|ln|log)(?=\s?[(\\\d]|\s[a-z](?![a-z]))", r"\\\1 "),
        (r"\{([-+:])\}", r"\1"),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\(?:pounds|euro|yen|rupee)(?![A-Za-z])|\\text\{\s?\\?\$\s?\}", "$"),
        (r"\\bigcup(?![A-Za-z])", r"\\cup "),
        (r"\\(?:lor|vee)(?![A-Za-z])", r" \\text{or} "),
        (r"\\lg(?![A-Za-z])", r"\\log_{10}"),
        (r"(?:\\text\{\s?|(?<![\\A-Za-z]))arc(sin|cos|tan)(?:\s?\})?(?![A-Za-z])", r"\\arc\1 "),
        (r"\\(?:varnothing|O)(?![A-Za-z])", r"\\emptyset"),
        (r"\\(?:Bbb|mathbf|bf)\s?\{?\s?R\s?\}?(?![A-Za-z])|\\(?:R|reals|Reals)(?![A-Za-z])", r"\\mathbb{R}"),
        (r"\\(?:setminus|backslash)(?![A-Za-z])", r"\\setminus "),
        (r"\\(?:mid|middle\s?\|)(?![A-Za-z])", "|"),
        (r"\\pmod\s?(?:\{[^{}]*\}|\w)|\(\s?(?:\\mod|\\bmod|mod|\\text\{\s?mod\s?\})(?![A-Za-z])[^()]*\)", ""),
        (r"\\equiv(?![A-Za-z])|≡", "="),
        (r"(?<=[)\]])\s?U\s?(?=[(\[])", r"\\cup "),
        (r"(?<=\d)\s?[xX]\s?(?=10\s?(?:\^|\*\*))", r"\\times "),
    )
]
_MINUS = re.compile(r"^(?:negative|minus) (?=[\d\\$.])", re.IGNORECASE)
_ABOUT = re.compile(r"^(?:\\approx|\\sim|about|approximately|roughly|exactly)(?![A-Za-z])", re.IGNORECASE)
_OUTER = (("``", "''"), ("'", "'"), ('"', '"'), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_OVERLINED = re.compile("(?:\\d[\u0304\u0305])+")
_ROOT = re.compile(r"√\s?(\d+(?:\.\d+)?)", re.ASCII)
_RAISED_RUN, _LOWERED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉ₙ]+")
_EXCLAIMED = re.compile(r"(?<!\\)(\b[A-Za-z]{2,}\}?)!+$")
"""A word with a mark of exclamation; after a digit, a bracket or a symbol it is a factorial."""
_GOING_ON = re.compile(r"(\.\d+)\.{3}", re.ASCII)
_BOX = re.compile(r"^\\f?box(?:ed)?\s?\{(.*)\}$", re.DOTALL)


@functools.lru_cache(maxsize=4096)
def normal(text: str) -> str:
    """One spelling of the many that LaTeX has: delimiters, boxes, spacing commands, size commands, synonyms, trailing stops."""
    text = _GOING_ON.sub(r"\1\\ldots ", _plain_signs(text)).strip()
    if "\\\\" in text and "\\begin" not in text:  # LaTeX that was escaped once too often
        text = re.sub(r"\\\\(?=[A-Za-z{}])", r"\\", text)
    for _ in range(4):
        before = text
        text = _EXCLAIMED.sub(r"\1", text.strip()).rstrip(".,;:").removesuffix("\\").strip()
        text = undelimited(text)
        if (box := _BOX.match(text)) and _balanced(box.group(1)):
            text = box.group(1).strip()
        if text == before:
            break
    text = _MINUS.sub("-", _ABOUT.sub("", text).strip().removeprefix("=").strip())
    if len(dollars := re.findall(r"(?<!\\)\$", text)) > 1 and len(dollars) % 2 == 0:
        text = re.sub(r"(?<!\\)\$", " ", text)
    text = re.sub(r"(?<!\\)\\[()]", " ", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = re.sub(r"(?<=\d)\ue000\s?(?=\d{3})", "", text).replace("\ue000", ",")
    text = _point(re.sub(r"\s+", " ", text).strip())
    return re.sub(r" ?([-+*/^=<>;:(){}\[\]|]) ?| (?=,)", r"\1", text) if "\\text" not in text else text


def _plain_signs(text: str) -> str:
    """Unicode's signs, digits and alphabets as LaTeX writes them; invisible characters go."""
    if text.isascii():
        return text
    text = _OVERLINED.sub(lambda run: r"\overline{" + re.sub("[\u0304\u0305]", "", run.group()) + "}", text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = _RAISED_RUN.sub(lambda run: "^{" + run.group().translate(_RAISED) + "}", text)
    text = _LOWERED_RUN.sub(lambda run: "_{" + run.group().translate(_LOWERED) + "}", text)
    return "".join(map(_plain_sign, text.translate(_UNICODE)))


@functools.cache
def _plain_sign(char: str) -> str:
    if char.isascii():
        return char
    plain = unicodedata.normalize("NFKC", char)
    if unicodedata.decomposition(char).startswith("<fraction>"):  # 3½ is a mixed number, not 31/2
        return r" \frac{{{}}}{{{}}} ".format(*plain.split("⁄"))
    return "" if unicodedata.category(char) == "Cf" else plain


def _point(text: str) -> str:
    """A number with the continental or the Indian grouping of digits in ours."""
    if re.fullmatch(r"-?\d{1,3}(?:\.\d{3})+,\d+|-?\d{1,3}(?:\.\d{3}){2,}", text, re.ASCII):
        return text.replace(".", "").replace(",", ".")
    if re.fullmatch(r"-?\d{1,3}(?:'\d{3})+(?:\.\d+)?", text, re.ASCII):
        return text.replace("'", "")
    if re.fullmatch(r"-?\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?", text, re.ASCII):
        return text.replace(",", "")
    return text


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


_ABBREVIATED = re.compile(r"\bD\.?N\.?E\b")


def words(text: str) -> str:
    """Words without case, mark-up, articles and punctuation."""
    text = _ABBREVIATED.sub(" does not exist ", SPELLED.sub(r" \1 ", text))
    tokens = re.findall(r"[^\W_]+|[^\w\s.,;:!?'\"(){}$]", text.casefold())
    return " ".join(word for word in tokens if word not in ("a", "an", "the", "\\")) or " ".join(tokens)


_BLANK = r"(?<![\d,])\s+|(?<=\d)\s+(?![\d.]|\\frac)|(?<=,)\s+(?!\d{3})"
"""White space that means nothing. `4 1/2` isn't `41/2`, `2 3` not `23`, `3 \\frac12` no product, and `32, 349` not `32,349`."""


def folded(text: str) -> str:
    """The text without case, blanks, mark-up of words, and full stops that are no decimal points."""
    return re.sub(rf"{_BLANK}|\.(?!\d)", "", SPELLED.sub(r"\1", normal(text.casefold())))


def squeezed(text: str) -> str:
    """The text without blanks, except those that keep two numbers or a list from being one number."""
    return re.sub(_BLANK, "", text)
