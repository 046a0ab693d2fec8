"""Rules for acts with values: special ones, arbitrary ones, trials, rows of cases."""

import re

from jaxpolya.evaluation.reading import MANY, Reading, trace
from jaxpolya.evaluation.structure import case_row, equal_steps, series, solved_equation, table, trials

_FOR_EXAMPLE_LETTER = re.compile(r"(?<![a-z])([a-z])\s?=\s?[a-z](?![a-z])\s?(?:=|must|gives?|it)")


def _puts_given(r: Reading, text: str) -> bool:
    """Whether `n = 50` puts in one of the problem's numbers, rather than trying it."""
    value = None if re.match(r"(?:take|try|test|look)", text) else re.search(r"\b[a-z] ?= ?(\d+)$", text)
    return value is not None and float(value[1]) in r.given


def specialisation(r: Reading) -> bool:
    """A value that the problem leaves open is chosen and worked out, or its smallest or extreme cases are; a row of cases is a pattern."""
    special = [
        m
        for m in trace("special").finditer(r.low)
        if not _puts_given(r, m[0]) and not trace("recall").search(r.low, max(0, m.start() - 60), m.end() + 60)
    ]
    if special and len(r.numbers) > 1 and not re.search(r"special case of|in this special case", r.low):
        if guess_and_check(r) and not re.search(r"extreme|simplest|smallest", r.low):
            return False
        return not (case_row(r) or series(r)) or bool(re.search(r"extreme|tie|for every", r.low))
    if _FOR_EXAMPLE_LETTER.search(r.low) and re.search(r"formula|which|kn/h|or\b", r.problem.lower()):
        return True
    open_ended = re.search(r"%|percent|fraction|average|times as|\bhow many times\b|\b[a-z]\b(?<!a)", r.problem.lower()) is not None
    for match in trace("chosen").finditer(r.low):
        value = float(match[match.lastindex or 1])
        if open_ended and value not in r.given and value == int(value) and not r.has("accepted") and trials(r) < MANY:
            around = r.low[match.start() : match.end() + 1]
            if not re.search(r"\d\s?[-+*/]\s?\d|instead|each|from|then\b", around):
                return True
    return False


def generalisation(r: Reading) -> bool:
    """A rule in letters, with a reason, and the problem's numbers put into it."""
    lettered = {m[0] for m in re.finditer(r"(?<![a-z'])[b-hj-z](?![a-z'])", r.low)}
    letters = (
        len(lettered) > 1
        or re.search(r"(?<![a-z])[a-z](?![a-z])\s?[\^²(*+\-/]|[+\-*/(]\s?[a-z](?![a-z])|\d[a-z](?![a-z])", r.low) is not None
    )
    if r.has("quoted"):
        return False
    if re.search(r"\bgeneral (?:rule|principle)\s?:.{20,}\d", r.low):
        return True
    if not letters:
        return False
    arbitrary = any(not re.search(r"[a-z] ?= ?\d", match[0]) for match in trace("arbitrary").finditer(r.low))
    return arbitrary and r.has("put_in") and r.has("reason") and not solved_equation(r)


def guess_and_check(r: Reading) -> bool:
    """Candidates of one shape that are told apart by a verdict on each, or a candidate that is tried and left for another."""
    alike, tried, verdicts = trials(r), r.count("try"), r.count("verdict")
    settled, refused, accepted = r.has("settled"), r.count("refused"), r.count("accepted")
    if (
        refused > 1
        or r.count("eliminated") > 1
        or (table(r) and (accepted or settled) and not r.has("regular"))
        or (refused and (accepted or tried or settled) and (alike > 1 or len(r.calculations) > 1))
    ):
        return True
    if (tried and (alike > 1 or tried > 1) and (verdicts or settled or accepted)) or (tried > 1 and len(r.calculations) > 1):
        return True
    if r.has("pairs_listed") and (refused or accepted or settled) and len(re.findall(r"\(\d+, ?\d+\)|\d ?\* ?\d", r.low)) > 1:
        return True
    return alike >= MANY and (verdicts > 1 or settled) and not r.has("regular")


def pattern(r: Reading) -> bool:
    """A row of three terms or cases, a regularity that is said or calculated, and what follows from it."""
    if equal_steps(r):
        return True
    if not r.has("regular") or (re.search(r"need to find the pattern|follow a pattern", r.low) and not r.has("row")):
        return False
    terms = (
        r.has("row")
        or trials(r) >= MANY
        or case_row(r)
        or series(r)
        or len(re.findall(r"\b(?:one|two|three|four) terms?\b", r.low)) >= MANY
    )
    words = re.search(r"(\b\w+\b), (\b\w+\b), (\b\w+\b), (\b\w+\b)", r.low) is not None
    return terms or words or r.low.count("after ") >= MANY
