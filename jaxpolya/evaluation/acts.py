"""A judge that looks for what a solution does, not for what it calls it.

Each heuristic of the built-in catalogue has a rule. A rule asks for the traces that the heuristic's act leaves in a text
(docs/composition.md says when an act counts as carried out): a step undone by the operation that checks it, a chain of "before that" with
numbers, parallel trials with a verdict on each, units multiplied by units, names on the left of lines, a hypothesis that ends in a clash.
Where an act leaves no such trace, the rule asks for words that say what is done *together with* something that was done: a comparison
with a situation whose nouns the problem doesn't have; a drawing verb and places in the drawing. What is in numbers and letters is
found by `structure`; what is in words, by the patterns of `traces.yaml`.

The rules were written with the development half of the labelled set at hand, and are measured on the other half
(`benchmarks/composition.py`). A rule is no understanding: it sees one way of doing a thing at a time, in English.
"""

import itertools
import re
from collections.abc import Callable

from jaxpolya.evaluation.reading import MANY, TRACES, Reading, content_words
from jaxpolya.evaluation.structure import (
    SUBSTITUTED,
    by_complement,
    by_digits,
    by_percents,
    case_row,
    counted_down,
    declared,
    drawing,
    equal_steps,
    moved,
    names,
    near,
    regrouped,
    rounder,
    series,
    solved_equation,
    table,
    trials,
    undoes,
)

Rule = Callable[[Reading], bool]

# Phases and steps --------------------------------------------------------------------------------------------------------


def _four_phases(r: Reading) -> bool:
    """A plan that is stated before the first result, a look back behind a calculation, and one of the other two phases."""
    understand, plan = _first("understand", r), _first("plan", r)
    carry, back = _first("carry", r, plan or 0), _first("back", r, plan or 0)
    headed = {phase for line in r.lines for phase in ("understand", "plan", "carry", "back") if TRACES[f"{phase}_head"].match(line)}
    if "plan" in headed and len(headed) >= MANY:
        return True
    if plan is None or back is None or back < plan:
        return False
    between = r.low[plan:back]
    if not re.search(r"\d\s?[-+*/x]\s?\d|=|\d", between) or len(r.low) - back < 12:
        return False
    return (understand is not None and understand < plan) or (carry is not None and plan < carry < back)


def _first(trace: str, r: Reading, start: int = 0) -> int | None:
    match = TRACES[trace].search(r.low, start)
    return match.start() if match else None


_CHECK_FIRST = re.compile(r"^\W{0,4}(?:(?:final|the|quick) )?(?:check|verif|confirm|sanity)")


def _step_by_step(r: Reading) -> bool:
    """Two steps, each with a check of its own: the inverse operation right behind it, or an estimate, or a reason for the size."""
    undone = sum(undoes(second, first) for first, second in itertools.pairwise(r.calculations))
    lines = r.lines if len(r.lines) > 2 else r.sentences
    checked = 0
    for line, behind in itertools.pairwise([*lines, ""]):
        if _CHECK_FIRST.search(line) or not re.search(r"\d", line):
            continue
        checked += TRACES["sound"].search(line) is not None or (
            _CHECK_FIRST.search(behind) is not None and re.search(r"\d", behind) is not None
        )
    return undone > 1 or checked > 1 or len(re.findall(r"\bcheck\w*\s?:\s?\S+ ?\S", r.low)) > 1


# Directions --------------------------------------------------------------------------------------------------------------


_START_ASKED = re.compile(
    r"\b(?:at first|originally|original|initial\w*|to begin with|(?:at|in) the (?:beginning|start|outset|morning)|(?:start|began|begin|started) (?:with|out|at)?"
    r"|thinks? of (?:an?|my) number|thought of|which number|what (?:was|is) (?:my|her|his|the|their) (?:\w+ )?number)\b"
)


def _working_backward(r: Reading) -> bool:
    """Two operations or more undone from the final state, or two links of "for this I need that"."""
    if r.count("need") > 1 or r.count("came") > 1:
        return True
    if counted_down(r):
        return True
    before, end = r.count("before"), r.has("at_the_end")
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", r.problem)]
    end_first = bool(numbers and any(near(numbers[-1], number) for number in r.numbers[:3]))
    start_asked = _START_ASKED.search(r.problem.lower()) is not None
    return before > 0 and before + end + end_first + start_asked >= MANY and len(r.numbers) >= MANY


# Parts -------------------------------------------------------------------------------------------------------------------


def _decomposition(r: Reading) -> bool:
    """A whole that is cut, cases that are counted apart, or a number that is taken by its digits or a percentage by its parts."""
    asked = r.problem.lower()
    cut = (
        r.has("cut")
        or len({m[0] for m in TRACES["piece"].finditer(r.low)}) > 1
        or any((m[1] or m[2] or "|") not in asked for m in TRACES["divided"].finditer(r.low) if m[1] or m[2])
    )
    if cut and (len(r.numbers) > 2 or not r.given):
        return True
    cases = (r.count("case") > 1 and not r.has("before")) or (r.has("sorted_by") and (trials(r) > 1 or r.count("case")))
    shapes = {m[1] for m in TRACES["shape"].finditer(r.low)}
    if not r.has("drawn_in") and len(shapes) > 1 and len([shape for shape in shapes if shape in asked]) < 2 and r.has("total") and re.search("area|volume|surface", asked):
        return True
    return (cases and r.has("total") and trials(r) < MANY + 2 * r.has("sorted_by")) or by_digits(r) or by_percents(r)


# Other problems ----------------------------------------------------------------------------------------------------------


def _analogy(r: Reading) -> bool:
    """A comparison with something that has nouns of its own, two of them at least, and that is gone into."""
    for match in TRACES["likeness"].finditer(r.low):
        around = r.low[max(0, match.start() - 10) : match.start() + 220]
        words = {word for word in r.new_words if re.search(rf"\b{re.escape(word)}", around)}
        if (
            len(words) >= MANY
            and (re.search(r"\d", r.low[match.end() :]) or not r.given)
            and not re.search(r"\bsame (?:as|reason)[^.]{0,12}(?:before|above|again)", around[:60])
        ):
            return True
    return False


def _related_problem(r: Reading) -> bool:
    """A problem or a result that is recalled as such and is used, where it isn't a theorem or a formula by its name alone."""
    for match in TRACES["recall"].finditer(r.low):
        sentence = re.split(r"\banswer is\b", r.low[max(0, match.start() - 60) : match.end() + 200])[0]
        if (
            TRACES["posed"].search(sentence)
            and re.search(r"\d|\w\(|how to", sentence)
            and not (TRACES["textbook"].search(sentence[:150]) and not re.search(r"before|earlier|once|solved|lesson|class|book", sentence))
        ):
            return True
    return False


def _variation(r: Reading) -> bool:
    """Another problem than the given one is solved (all of one kind, a rounder number, a condition less), and its solution is adjusted."""
    for match in TRACES["switch"].finditer(r.low):
        behind = r.low[match.end() : match.end() + 200]
        if re.search(r"\d", behind) and TRACES["short"].search(behind) and not re.search(r"contradict|impossible|pigeon|nonsense", behind):
            return True
    rounded = any(
        x not in r.given and any(0 < abs(x - g) <= 0.06 * g and rounder(x, g) for g in r.given) for c in r.calculations for x in (c.a, c.b)
    ) or any(x not in r.given and any(0 < abs(x - g) <= 0.06 * g and rounder(x, g) for g in r.given) for x in r.numbers[:2])
    if rounded and not moved(r) and re.search(r"\d", r.low) and r.has("adjust") and not r.has("estimate"):
        return True
    if (altered := TRACES["altered"].search(r.low)) and len(r.numbers) > MANY:
        returned = TRACES["returned"].search(r.low, altered.end())
        if returned and re.search(r"\d", r.low[altered.end() : returned.start()]) and not r.has("outright"):
            return True
    return r.has("easier") and r.has("back_to_it") and len(r.numbers) > MANY


# Things that are brought in ----------------------------------------------------------------------------------------------

_DRAWN_PART = re.compile(r"diagonal|radi|altitude|height|tangent|median")


def _auxiliary_element(r: Reading) -> bool:
    """A substitution for an expression, a line that the figure doesn't have, a thing that is lent, a number moved between summands."""
    for match in SUBSTITUTED.finditer(r.low):
        letter, side = match[1], match[2]
        if re.search(r"(?<![a-z])[a-z](?![a-z])\s?(?:\^|²|\+|-|\*|/)|[+\-*/]\s?\\?(?:frac)?\W{0,3}[a-z](?![a-z])|sqrt|√|log|ln|sin|cos", side):
            others = re.findall(r"(?<![a-z])[a-z](?![a-z])", side)
            behind = r.low[match.end() :]
            asked = set(re.findall(r"(?<![a-z])[a-z](?![a-z])", r.problem.lower())) - {"a"}
            if set(others) & asked and letter not in asked and re.search(rf"(?<![a-z]){letter}\s?(?:\^|²|=|[-+*/])", behind):
                return True
    drawn = any(_DRAWN_PART.findall(match[0])[-1:] == [] or _DRAWN_PART.findall(match[0])[-1] not in r.problem.lower() for match in TRACES["drawn_in"].finditer(r.low))
    return drawn or r.has("lent") or moved(r)


# Observations ------------------------------------------------------------------------------------------------------------


def _bright_idea(r: Reading) -> bool:
    """An observation that takes the place of the calculation: pairs, a complement, an invariant, what drops out, a round product first.

    Units that cancel, pairs of things that are exchangeable, and what each further case adds are parts of other acts.
    """
    if len(r.calculations) <= 6 and len(r.low) < 1000 and not r.has("paired_units") and not r.has("units"):
        seen = r.has("observed") and not re.search(r"testing pairs|factor pairs|number pairs", r.low)
        if r.has("spared") or (seen and not _symmetry(r) and not _pattern(r)):
            return True
    return regrouped(r) or by_complement(r)


# Cases and rules ---------------------------------------------------------------------------------------------------------

_FOR_EXAMPLE_LETTER = re.compile(r"(?<![a-z])([a-z])\s?=\s?[a-z](?![a-z])\s?(?:=|must|gives?|it)")


def _puts_given(r: Reading, text: str) -> bool:
    """Whether `n = 50` is one of the problem's numbers."""
    value = re.search(r"\b[a-z] ?= ?(\d+)$", text)
    if re.match(r"(?:take|try|test|look)", text):
        return False
    return value is not None and float(value[1]) in r.given


def _specialisation(r: Reading) -> bool:
    """A value that the problem leaves open is chosen and worked out, or its smallest or extreme cases are; a row of cases is a pattern."""
    special = [
        m
        for m in TRACES["special"].finditer(r.low)
        if not _puts_given(r, m[0]) and not TRACES["recall"].search(r.low, max(0, m.start() - 60), m.end() + 60)
    ]
    if special and len(r.numbers) > 1 and not re.search(r"special case of|in this special case", r.low):
        if _guess_and_check(r) and not re.search(r"extreme|simplest|smallest", r.low):
            return False
        return not (case_row(r) or series(r)) or bool(re.search(r"extreme|tie|for every", r.low))
    if _FOR_EXAMPLE_LETTER.search(r.low) and re.search(r"formula|which|kn/h|or\b", r.problem.lower()):
        return True
    open_ended = re.search(r"%|percent|fraction|average|times as|\bhow many times\b|\b[a-z]\b(?<!a)", r.problem.lower()) is not None
    for match in TRACES["chosen"].finditer(r.low):
        value = float(match[1] or match[2])
        if open_ended and value not in r.given and value == int(value) and not r.has("accepted") and trials(r) < MANY:
            around = r.low[match.start() : match.end() + 1]
            if not re.search(r"\d\s?[-+*/]\s?\d|instead|each|from|then\b", around):
                return True
    return False


def _generalisation(r: Reading) -> bool:
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
    return r.has("arbitrary") and r.has("put_in") and r.has("reason") and not solved_equation(r)


def _guess_and_check(r: Reading) -> bool:
    """Candidates of one shape that are told apart by a verdict on each, or a candidate that is tried and left for another."""
    alike, tried, verdicts = trials(r), r.count("try"), r.count("verdict")
    settled, refused, accepted = r.has("settled"), r.count("refused"), r.count("accepted")
    if refused > 1 or r.count("eliminated") > 1 or (table(r) and (accepted or settled) and not r.has("regular")) or (refused and (accepted or tried or settled) and (alike > 1 or len(r.calculations) > 1)):
        return True
    if (tried and (alike > 1 or tried > 1) and (verdicts or settled or accepted)) or (tried > 1 and len(r.calculations) > 1):
        return True
    if r.has("pairs_listed") and (refused or accepted or settled) and len(re.findall(r"\(\d+, ?\d+\)|\d ?\* ?\d", r.low)) > 1:
        return True
    return alike >= MANY and (verdicts > 1 or settled) and not r.has("regular")


def _pattern(r: Reading) -> bool:
    """A row of three terms or cases, a regularity that is said or calculated, and what follows from it."""
    if equal_steps(r):
        return True
    if not r.has("regular") or (re.search(r"need to find the pattern|follow a pattern", r.low) and not r.has("row")):
        return False
    terms = r.has("row") or trials(r) >= MANY or case_row(r) or series(r) or len(re.findall(r"\b(?:one|two|three|four) terms?\b", r.low)) >= MANY
    words = re.search(r"(\b\w+\b), (\b\w+\b), (\b\w+\b), (\b\w+\b)", r.low) is not None
    return terms or words or r.low.count("after ") >= MANY


# Drawings and names ------------------------------------------------------------------------------------------------------


def _figure(r: Reading) -> bool:
    """Ink (a table, bars, a number line, a tree), or a drawing in which two places are named."""
    if r.has("ink") or drawing(r) or table(r):
        return True
    match = TRACES["draw"].search(r.low)
    places = {m[0] for m in TRACES["placed"].finditer(r.low)}
    promised = re.search(r"\b(?:can|could|if you|if we|would) draw\b|\bdraw\w* (?:it|this)? ?(?:to help|would)", r.low) is not None
    asked = re.search(r":[^\n]*\?[ \])]*$", r.low, re.MULTILINE) is not None  # the unknown in a drawing
    return match is not None and (len(places) > 1 or asked) and not promised and not r.has("drawn_in")


def _symmetry(r: Reading) -> bool:
    """Parts that are said to be exchangeable, with what follows for them; not as a phrase behind a finished calculation."""
    return any(
        TRACES["saved"].search(r.low[max(0, match.start() - 160) : match.end() + 200]) is not None
        and not re.search(r"\bby symmetry of\b", r.low[max(0, match.start() - 4) : match.end() + 4])
        and not re.search(r"\bswapping a \w+ for a\b", r.low[match.start() : match.end() + 30])
        and len(r.low) - match.end() > 15
        for match in TRACES["alike"].finditer(r.low)
    )


def _introduce_notation(r: Reading) -> bool:
    """Three quantities or more with names of their own."""
    named = names(r)
    again = {name for name in named if len(re.findall(rf"(?<![a-z]){re.escape(name)}(?![a-z\d₀-₉_])", r.low)) > 1}
    return len(named) >= MANY and len(again) > 1 and declared(r)


def _setting_up_equations(r: Reading) -> bool:
    """An unknown in an equation that the problem has in words, and its value further down."""
    return solved_equation(r) and not r.has("quoted")


# Reasons -----------------------------------------------------------------------------------------------------------------


def _contradiction(r: Reading) -> bool:
    """A supposition, a clash behind it, and a conclusion from the clash."""
    whether = re.search(r"\b(?:can|is|are|possible|show|prove|who|which|why|must|there)\b", r.problem.lower()) is not None
    false_position = TRACES["switch"].search(r.low) is not None and TRACES["short"].search(r.low) is not None and len(r.calculations) > 1
    for match in TRACES["supposed"].finditer(r.low):
        clash = (TRACES["clash"] if whether else TRACES["outright"]).search(r.low, match.end(), match.end() + 400)
        if clash and not false_position and TRACES["therefore"].search(r.low, min(clash.start(), match.end())):
            return True
    return False


_DEFINED = re.compile(
    r"\"?\b([a-z]+)\"?(?:,? [^.\n,]{0,20},?)?? (?:means?|meaning|refers to|is defined as|stands for"
    r"|is the (?:middle|value|one|sum|number|largest|biggest|smallest|result of|average))\b"
)
_QUOTED = re.compile(r"\"([^\"\n]{4,60})\"[^.\n]{0,24}?\\b(?:means?|is to say|says|asks|amounts to|translates|boils down|is the same|is just|is nothing)\\b".replace("\\\\b", "\\b"))
_TECHNICAL = frozenset(
    "gcd lcm mean median mode average even odd prime composite divisor factor multiple remainder digit perimeter area diameter radius "
    "dozen score ratio percent reciprocal consecutive product quotient difference sum integer square root half least greatest common "
    "factorial probability equal".split()
)


def _restate(r: Reading) -> bool:
    """The problem in words that it doesn't have itself, or a technical word replaced by its meaning."""
    for match in TRACES["said_again"].finditer(r.low):
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


_CONVERSION = re.compile(r"[*/]?\s?\(?(?:24 hours?|60 ?min\w*|60 ?s\w*|3600 ?s\w*|7 days?|52 weeks?|12 months?|100 ?cm|1000 ?\w+|365 days?)\)?\s?(?:/|per)\s?\(?(?:1 ?)?\w+\)?")


def _test_by_dimension(r: Reading) -> bool:
    """Units in a calculation of their own."""
    units = TRACES["units"].search(_CONVERSION.sub("", r.low)) is not None
    return units and not (r.has("units_said") and not re.search(r"cancel|units?:", r.low))


RULES: dict[str, Rule] = {
    "four_phases": _four_phases,
    "step_by_step": _step_by_step,
    "working_backward": _working_backward,
    "decomposition": _decomposition,
    "analogy": _analogy,
    "auxiliary_element": _auxiliary_element,
    "bright_idea": _bright_idea,
    "specialisation": _specialisation,
    "generalisation": _generalisation,
    "guess_and_check": _guess_and_check,
    "pattern": _pattern,
    "figure": _figure,
    "symmetry": _symmetry,
    "introduce_notation": _introduce_notation,
    "setting_up_equations": _setting_up_equations,
    "contradiction": _contradiction,
    "variation": _variation,
    "restate": _restate,
    "test_by_dimension": _test_by_dimension,
    "related_problem": _related_problem,
}
"""Heuristic of the built-in catalogue → its rule."""
