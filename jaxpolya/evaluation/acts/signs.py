"""Rules for acts with signs and reasons: drawings, exchangeable things, names, equations, clashes, units."""

import re

from jaxpolya.evaluation.reading import MANY, Reading, trace
from jaxpolya.evaluation.structure import declared, drawing, names, solved_equation, table


def figure(r: Reading) -> bool:
    """Ink (a table, bars, a number line, a tree), or a drawing in which two places are named."""
    if r.has("ink") or drawing(r) or table(r):
        return True
    match = trace("draw").search(r.low)
    places = {m[0] for m in trace("placed").finditer(r.low)}
    promised = re.search(r"\b(?:can|could|if you|if we|would) draw\b|\bdraw\w* (?:it|this)? ?(?:to help|would)", r.low) is not None
    asked = re.search(r":[^\n]*\?[ \])]*$", r.low, re.MULTILINE) is not None  # the unknown in a drawing
    return match is not None and (len(places) > 1 or asked) and not promised and not r.has("drawn_in")


def symmetry(r: Reading) -> bool:
    """Parts that are said to be exchangeable, with what follows for them; not as a phrase behind a finished calculation."""
    return any(
        trace("saved").search(r.low[max(0, match.start() - 160) : match.end() + 200]) is not None
        and not re.search(r"\bby symmetry of\b", r.low[max(0, match.start() - 4) : match.end() + 4])
        and not re.search(r"\bswapping a \w+ for a\b", r.low[match.start() : match.end() + 30])
        and len(r.low) - match.end() > 15
        for match in trace("alike").finditer(r.low)
    )


def introduce_notation(r: Reading) -> bool:
    """Three quantities or more with names of their own."""
    named = names(r)
    again = {name for name in named if len(re.findall(rf"(?<![a-z]){re.escape(name)}(?![a-z\d₀-₉_])", r.low)) > 1}
    return len(named) >= MANY and len(again) > 1 and declared(r)


def setting_up_equations(r: Reading) -> bool:
    """An unknown in an equation that the problem has in words, and its value further down."""
    return solved_equation(r) and not r.has("quoted")


def contradiction(r: Reading) -> bool:
    """A supposition, a clash behind it, and a conclusion from the clash."""
    whether = re.search(r"\b(?:can|is|are|possible|show|prove|who|which|why|must|there)\b", r.problem.lower()) is not None
    false_position = trace("switch").search(r.low) is not None and trace("short").search(r.low) is not None and len(r.calculations) > 1
    for match in trace("supposed").finditer(r.low):
        clash = (trace("clash") if whether else trace("outright")).search(r.low, match.end(), match.end() + 400)
        if clash and not false_position and trace("therefore").search(r.low, min(clash.start(), match.end())):
            return True
    return False


# Converting units is no test of an operation.
_CONVERSION = re.compile(
    r"[*/]?\s?\(?(?:24 hours?|60 ?min\w*|60 ?s\w*|3600 ?s\w*|7 days?|52 weeks?|12 months?|100 ?cm|1000 ?\w+|365 days?)\)?"
    r"\s?(?:/|per)\s?\(?(?:1 ?)?\w+\)?"
)


def test_by_dimension(r: Reading) -> bool:
    """Units in a calculation of their own."""
    units = trace("units").search(_CONVERSION.sub("", r.low)) is not None
    return units and not (r.has("units_said") and not re.search(r"cancel|units?:", r.low))
