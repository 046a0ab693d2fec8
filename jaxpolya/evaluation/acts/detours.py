"""Rules for acts that go by another problem: an analogy, a related one, a changed one."""

import re

from jaxpolya.evaluation.reading import MANY, Reading, trace
from jaxpolya.evaluation.structure import moved, rounder


def analogy(r: Reading) -> bool:
    """A comparison with something that has nouns of its own, two of them at least, and that is gone into."""
    for match in trace("likeness").finditer(r.low):
        around = r.low[max(0, match.start() - 10) : match.start() + 220]
        words = {word for word in r.new_words if re.search(rf"\b{re.escape(word)}", around)}
        if (
            len(words) >= MANY
            and (re.search(r"\d", r.low[match.end() :]) or not r.given)
            and not re.search(r"\bsame (?:as|reason)[^.]{0,12}(?:before|above|again)", around[:60])
        ):
            return True
    return False


def related_problem(r: Reading) -> bool:
    """A problem or a result that is recalled as such and is used, where it isn't a theorem or a formula by its name alone."""
    for match in trace("recall").finditer(r.low):
        sentence = re.split(r"\banswer is\b", r.low[max(0, match.start() - 60) : match.end() + 200])[0]
        if (
            trace("posed").search(sentence)
            and re.search(r"\d|\w\(|how to", sentence)
            and not (trace("textbook").search(sentence[:150]) and not re.search(r"before|earlier|once|solved|lesson|class|book", sentence))
        ):
            return True
    return False


def variation(r: Reading) -> bool:
    """Another problem than the given one is solved (all of one kind, a rounder number, a condition less), and its solution is adjusted."""
    for match in trace("switch").finditer(r.low):
        behind = r.low[match.end() : match.end() + 200]
        if re.search(r"\d", behind) and trace("short").search(behind) and not re.search(r"contradict|impossible|pigeon|nonsense", behind):
            return True
    rounded = any(
        x not in r.given and any(0 < abs(x - g) <= 0.06 * g and rounder(x, g) for g in r.given) for c in r.calculations for x in (c.a, c.b)
    ) or any(x not in r.given and any(0 < abs(x - g) <= 0.06 * g and rounder(x, g) for g in r.given) for x in r.numbers[:2])
    if rounded and not moved(r) and re.search(r"\d", r.low) and r.has("adjust") and not r.has("estimate"):
        return True
    if (altered := trace("altered").search(r.low)) and len(r.numbers) > MANY:
        returned = trace("returned").search(r.low, altered.end())
        if returned and re.search(r"\d", r.low[altered.end() : returned.start()]) and not r.has("outright"):
            return True
    return r.has("easier") and r.has("back_to_it") and len(r.numbers) > MANY
