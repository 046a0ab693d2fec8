"""Rules for acts that see the problem otherwise: something is brought in, something is observed, it is said in other words."""

import re

from jaxpolya.evaluation.acts.cases import pattern
from jaxpolya.evaluation.acts.signs import symmetry
from jaxpolya.evaluation.reading import Reading, content_words, trace
from jaxpolya.evaluation.structure import SUBSTITUTED, by_complement, moved, regrouped

_DRAWN_PART = re.compile(r"diagonal|radi|altitude|height|tangent|median")
_EXPRESSION = re.compile(r"(?<![a-z])[a-z](?![a-z])\s?(?:\^|²|\+|-|\*|/)|[+\-*/]\s?\\?(?:frac)?\W{0,3}[a-z](?![a-z])|sqrt|√|log|ln|sin|cos")


def auxiliary_element(r: Reading) -> bool:
    """A substitution for an expression, a line that the figure doesn't have, a thing that is lent, a number moved between summands."""
    for match in SUBSTITUTED.finditer(r.low):
        letter, side = match[1], match[2]
        if _EXPRESSION.search(side):
            others = re.findall(r"(?<![a-z])[a-z](?![a-z])", side)
            behind = r.low[match.end() :]
            asked = set(re.findall(r"(?<![a-z])[a-z](?![a-z])", r.problem.lower())) - {"a"}
            if set(others) & asked and letter not in asked and re.search(rf"(?<![a-z]){letter}\s?(?:\^|²|=|[-+*/])", behind):
                return True
    drawn = any(
        all(part not in r.problem.lower() for part in _DRAWN_PART.findall(match[0])[-1:]) for match in trace("drawn_in").finditer(r.low)
    )
    return drawn or r.has("lent") or moved(r)


def bright_idea(r: Reading) -> bool:
    """An observation that takes the place of the calculation: pairs, a complement, an invariant, what drops out, a round product first.

    Units that cancel, pairs of things that are exchangeable, and what each further case adds are parts of other acts.
    """
    if len(r.calculations) <= 6 and len(r.low) < 1000 and not r.has("paired_units") and not r.has("units"):
        seen = r.has("observed") and not re.search(r"testing pairs|factor pairs|number pairs", r.low)
        if r.has("spared") or (seen and not symmetry(r) and not pattern(r)):
            return True
    return regrouped(r) or by_complement(r)


_DEFINED = re.compile(
    r"\"?\b([a-z]+)\"?(?:,? [^.\n,]{0,20},?)?? (?:means?|meaning|refers to|is defined as|stands for"
    r"|is the (?:middle|value|one|sum|number|largest|biggest|smallest|result of|average))\b"
)
_QUOTED = re.compile(
    r"\"([^\"\n]{4,60})\"[^.\n]{0,24}?\b(?:means?|is to say|says|asks|amounts to|translates|boils down|is the same|is just|is nothing)\b"
)
_TECHNICAL = frozenset(
    "gcd lcm mean median mode average even odd prime composite divisor factor multiple remainder digit perimeter area diameter radius "
    "dozen score ratio percent reciprocal consecutive product quotient difference sum integer square root half least greatest common "
    "factorial probability equal".split()
)


def restate(r: Reading) -> bool:
    """The problem in words that it doesn't have itself, or a technical word replaced by its meaning."""
    for match in trace("said_again").finditer(r.low):
        behind = re.split(r"(?<=[a-z)])[.?]", r.low[match.end() : match.end() + 160])[0]
        words = {word for word in r.new_words if re.search(rf"\b{re.escape(word)}", behind)}
        superlative = re.search(r"\b(?:small|larg|big|great|least|number)\w*$", match[0]) is not None
        plainly = not re.search(r"\bneed to find\b|\bwe (?:want|need|have) to\b", behind)
        if plainly and len(words) > 1 - superlative and re.search(r"\d|\?", r.low[match.end() : match.end() + 120]):
            return True
    if any(content_words(m[1]) & content_words(r.problem) for m in _QUOTED.finditer(r.low)):
        return True
    defined = {m[1].rstrip("s") for m in _DEFINED.finditer(r.low)} & _TECHNICAL
    return bool(defined & {word.rstrip("s") for word in re.findall(r"[a-z]+", r.problem.lower())})
