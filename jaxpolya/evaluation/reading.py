"""A solution as the judge of acts reads it: plain text, lines, sentences, equations and the numbers in them, beside its problem.

Typesetting is taken off first, so that `$3 \\times 4$`, `3 × 4` and `**3 * 4**` are one text. Nothing here knows heuristics, and nothing is
computed but sums of two numbers: an equation is a pair of texts around a sign. Every pattern has bounded repeats, so that no text holds a
reading up.
"""

import dataclasses
import functools
import importlib.resources
import re

import yaml

MANY = 3
"""Cases, terms or names that make a row of them."""

LONGEST = 20_000
"""Characters of a solution that are read; what follows is noise that repeats."""

_SIGNS = {
    **{
        f"\\{name}": sign
        for name, sign in (("le", "≤"), ("leq", "≤"), ("ge", "≥"), ("geq", "≥"), ("ne", "≠"), ("neq", "≠"), ("approx", "≈"))
    },
    **{f"\\{name}": "..." for name in ("ldots", "dots", "cdots")},
    **{f"\\{name}": letter for name, letter in (("pi", "π"), ("alpha", "α"), ("beta", "β"), ("gamma", "γ"), ("theta", "θ"))},
    **{f"\\{name}": "φ" for name in ("varphi", "phi")},
}
_TYPESETTING = (
    (re.compile(r"</?think>|\\[()\[\]]|\\left|\\right(?![a-z])|\\displaystyle|\\[!;:]|\\blacksquare|\*\*|\$\$|`"), ""),
    (re.compile(r"(?<![\w*])\*(?=[^\s*\d])([^*\n]{1,160}?)(?<=[^\s*])\*(?![\w*])"), r"\1"),  # italics
    (re.compile(r"(?<=\d)(?:\\,|\{,\})(?=\d{3}\b)"), ""),
    (re.compile(r"\\[,~ ]|~|\\q?quad(?![a-z])"), " "),
    (re.compile(r"\\(?:begin|end)\s?\{\w{1,20}\*?\}(?:\{[lcr|]{1,12}\})?"), "\n"),
    (re.compile(r"\\\\(?:\[\d*\w*\])?\s"), "\n"),
    (re.compile(r"(?<!\s)\s?&\s?(?==|\\|<|>)|(?<==)&"), " "),
    (re.compile(r"\\times|\\cdot(?!s)|[×·•∙⋅]"), "*"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathit|operatorname)\s?\{([^{}\n]{0,60})\}"), r"\1"),
    (re.compile(r"\\[a-z]{2,8}(?![a-z])"), lambda m: _SIGNS.get(m[0], m[0])),
    (re.compile(r"\$(?! )([^$\n]{1,200}?)(?<! )\$(?!\d)"), r"\1"),  # mathematics as pandoc knows it; what is left are dollars
    (re.compile(r"\\\$"), "$"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"<<[^<>\n]{0,60}>>"), ""),  # a calculator's notes in GSM8K's solutions
    (re.compile(r"\\(?:d|t)?frac\s?\{(\w{1,6})\}\s?\{(\w{1,6})\}"), r"\1/\2"),
    (re.compile(r"\\(?:d|t)?frac\s?\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}"), r"(\1)/(\2)"),
    (re.compile(r"\\(?:d|t)?frac\s?(\w)\s?(\w)"), r"\1/\2"),
    (re.compile(r"\\d?binom\s?\{([^{}]{1,20})\}\s?\{([^{}]{1,20})\}"), r"C(\1, \2)"),
    (re.compile(r"\\sqrt\s?\{([^{}]{1,40})\}"), r"√(\1)"),
    (re.compile(r"\\sqrt\s?(\w)"), r"√\1"),
    (re.compile(r"\\(?:fbox|boxed|underline)\s?\{([^{}\n]{0,60})\}"), r"\1"),
    (re.compile(r"([\^_])\{(\w{1,3})\}"), r"\1\2"),
    (re.compile(r"\\div|÷"), "/"),
    (re.compile(r"\\(?:Rightarrow|Longrightarrow|implies|to|rightarrow)(?![a-z])|[→⇒⟹]|->|=>"), " → "),
    (re.compile(r"\\equiv|≡"), "="),
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"[“”]"), '"'),
    (re.compile(r"[‘’]"), "'"),
    (re.compile(r"✅|✔️?|\\checkmark|👍|👌|☑️?"), "✓"),
    (re.compile(r"❌|✘|🚫"), "✗"),
    (re.compile(r"(?<=\d),(?=\d{3}\b)"), ""),
    (re.compile(r"(\d{30})\d+"), r"\1"),  # no number that a solution is about
    (re.compile(r"^#{1,6} +|^```\w*$", re.MULTILINE), ""),
    (re.compile(r"[ \t]+"), " "),
)
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)|(?<=[a-z(=^*/+-])\d+(?:\.\d+)?")
_SENTENCE = re.compile(r"(?<=[.!?:;])(?<!\d[.:])\s+(?=\S)|(?<=\d[.])\s+(?=[A-Z(])|\n+")
_SIGN = re.compile(r"(?<![<>=!:])(?:=|≈)(?!=)")
_MATHS = r"(?:\d+(?:\.\d+)?|(?<![a-zα-ω])[a-zα-ω](?:_?\d|[₀-₉])?(?![a-zα-ω])|\\?(?:sqrt|pm|frac)|[-+*/^(){}²³%$°√!|\s])"
_BEFORE, _BEHIND = re.compile(rf"{_MATHS}{{1,60}}$", re.IGNORECASE), re.compile(rf"{_MATHS}{{1,60}}", re.IGNORECASE)
_NEXT = re.compile(r"(?<=[\w)]) +[a-zα-ω]\w?$", re.IGNORECASE)
_LAST = re.compile(r"(?:(?<=[\d)]) +(?=[a-zα-ω](?:_?\d)?$))?(?:(?!(?<=[\d)]) +[a-zα-ω](?:_?\d)?$).)+", re.IGNORECASE)
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_CALCULATION = re.compile(
    r"(?<![\d.])(\d{1,15}(?:\.\d{1,15})?)%?\s?(?:[a-z$]{0,12}\s)?([-+*/x:])\s?\$?(\d+(?:\.\d+)?)%?(?:\s?[a-z/²³]{1,12}){0,2}\s?(?:=|≈)\s?\$?(\d+(?:\.\d+)?)"
)

COMMON = frozenset(
    "a about add added adding after again all also altogether always am an and another answer any are as asked at back be because "
    "been before being both but by calculate calculation can check correct could day did difference divide divided division do does "
    "done down each equal equals every exactly far final finally find first five following for found four from full get gets give "
    "given gives go goes got had half has have he her here him his hour how i if in into is it its itself just know last leaves left "
    "less let look make makes many mean means minus more much multiply must need needed needs next no not now number numbers of off "
    "ok okay on once one only or original other out over part parts per plus possible problem product put quantity question rest "
    "result right same second see she should since so solution solve solving some start step steps subtract sum take than that the "
    "their them then there therefore these they thing things think third this those three thus times to together total true twice two "
    "under until up us use used value want was way we well were what when where which while who whole will with work works would "
    "write yes yet you your zero".split()
)
"""Words that say nothing of what a solution is about."""


NAME = r"[a-zα-ορ-ω](?:_?\d|[₀-₉]|_[a-z])?"
"""A letter for a quantity."""

_UNIT = (
    r"(?:\$|dollars?|cents?|km|cm|mm|m|metres?|meters?|kilometres?|litres?|liters?|l|ml|g|kg|grams?|t|tons?|s|sec|seconds?|min|minutes?"
    r"|h|hours?|days?|d|weeks?|pages?|parts?|laps?|ha|hectares?|cm³|m³|cm²|m²|cm\^\d|m\^\d|w|wh|kwh|€|euros?|people|cups?|miles?|units?|rows?|boxes|eggs)"
)
_PLACEHOLDERS = {
    "<head>": r"^\W{0,8}(?:(?:step|phase|part)? ?\(?\d{0,2}[.):]?\W{0,6})?(?:\w+,? ){0,2}?\(?",
    "<rate>": r"\(?<unit>\s?(?:/|per|over|divided by)\s?(?:an? )?<unit>\)?",
    "<unit>": _UNIT,
    "<name>": NAME,
}


FAMILIES = ("order", "detours", "insights", "cases", "signs")
"""Of acts: each has a module of rules and a file of patterns beside it."""


@functools.cache
def _patterns() -> dict[str, str]:
    """A trace's name → any of its patterns in the families' files."""
    joined = {}
    for family in FAMILIES:
        source = importlib.resources.files("jaxpolya.evaluation") / "acts" / f"{family}.yaml"
        for name, patterns in yaml.safe_load(source.read_text(encoding="utf-8")).items():
            joined[name] = "|".join(f"(?:{one})" for one in patterns)
            for placeholder, meant in _PLACEHOLDERS.items():
                joined[name] = joined[name].replace(placeholder, meant)
    return joined


@functools.cache
def trace(name: str) -> re.Pattern[str]:
    """What a trace looks like; compiled when it is first asked for, since all of them together take half a second."""
    return re.compile(_patterns()[name], re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Calculation:
    """a ∘ b = c, as it stands in a text."""

    a: float
    sign: str
    b: float
    c: float
    at: int
    """Where it begins."""

    @property
    def numbers(self) -> frozenset[float]:
        """Those that it joins."""
        return frozenset((self.a, self.b, self.c))


def plain(text: str) -> str:
    """A text without typesetting, at most `LONGEST` characters of it."""
    text = text[:LONGEST]
    for pattern, instead in _TYPESETTING:
        text = pattern.sub(instead, text)
    return text.strip()


def number_set(text: str) -> frozenset[float]:
    """The numbers of a text."""
    return frozenset(map(float, NUMBER.findall(text)))


def content_words(text: str) -> frozenset[str]:
    """Lower-case words of four letters and more, without plural s and without those that are in every solution."""
    return frozenset(word.rstrip("s") for word in _WORD.findall(text.lower()) if len(word) > 3 and word not in COMMON)


class Reading:
    """A solution beside its problem; what is expensive is found once, when it is first asked for."""

    def __init__(self, problem: str, solution: str):
        self.problem, self.text = plain(problem), plain(solution)
        self.low = self.text.lower()

    @functools.cached_property
    def lines(self) -> list[str]:
        """Lower-case lines that aren't empty."""
        return [line.strip() for line in self.low.split("\n") if line.strip()]

    @functools.cached_property
    def sentences(self) -> list[str]:
        """Lower-case sentences; a line ends one."""
        return [sentence.lower() for sentence in _SENTENCE.split(self.text) if sentence]

    @functools.cached_property
    def given(self) -> frozenset[float]:
        """The problem's numbers."""
        return number_set(self.problem.lower())

    @functools.cached_property
    def numbers(self) -> list[float]:
        """The solution's numbers, in order."""
        return [float(number) for number in NUMBER.findall(self.low)]

    @functools.cached_property
    def calculations(self) -> list[Calculation]:
        """a ∘ b = c, in order."""
        return [
            Calculation(float(m[1]), {"x": "*", ":": "/"}.get(m[2], m[2]), float(m[3]), float(m[4]), m.start())
            for m in _CALCULATION.finditer(self.low)
        ]

    @functools.cached_property
    def equations(self) -> list[tuple[str, str]]:
        """What stands on both sides of every =, as far as it is numbers, single letters and signs; a chain gives its neighbours."""
        pairs = []
        for line in self.text.split("\n"):
            for sign in _SIGN.finditer(line):
                left, right = _BEFORE.search(line, max(0, sign.start() - 60), sign.start()), _BEHIND.match(line, sign.end())
                if left and right and left[0].strip() and right[0].strip():
                    # 3x = 39 x = 13 are two equations: what stands behind a blank, before the next sign, is the next one's.
                    behind = _NEXT.sub("", right[0].rstrip()) if line[right.end() : right.end() + 1] in ("=", "≈") else right[0]
                    pairs.append((_LAST.findall(left[0].rstrip())[-1].strip(" $"), behind.strip(" $")))
        return pairs

    @functools.cached_property
    def new_words(self) -> frozenset[str]:
        """Content words that the problem doesn't have."""
        return content_words(self.text) - content_words(self.problem)

    def has(self, name: str) -> bool:
        """Whether a trace is somewhere in the lower-case text."""
        return trace(name).search(self.low) is not None

    def count(self, name: str) -> int:
        """In how many places a trace is."""
        return sum(1 for _ in trace(name).finditer(self.low))
