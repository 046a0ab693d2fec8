"""Rules for acts of order: phases, checks of single steps, directions, parts."""

import itertools
import re

from jaxpolya.evaluation.reading import MANY, Reading, trace
from jaxpolya.evaluation.structure import by_digits, by_percents, counted_down, near, table, trials, undoes


def four_phases(r: Reading) -> bool:
    """A plan that is stated before the first result, a look back behind a calculation, and one of the other two phases."""
    understand, plan = _first("understand", r), _first("plan", r)
    carry, back = _first("carry", r, plan or 0), _first("back", r, plan or 0)
    headed = {phase for line in r.lines for phase in ("understand", "plan", "carry", "back") if trace(f"{phase}_head").match(line)}
    if "plan" in headed and len(headed) >= MANY:
        return True
    if plan is None or back is None or back < plan:
        return False
    between = r.low[plan:back]
    if not re.search(r"\d\s?[-+*/x]\s?\d|=|\d", between) or len(r.low) - back < 12:
        return False
    return (understand is not None and understand < plan) or (carry is not None and plan < carry < back)


def _first(name: str, r: Reading, start: int = 0) -> int | None:
    match = trace(name).search(r.low, start)
    return match.start() if match else None


_CHECK_FIRST = re.compile(r"^\W{0,4}(?:(?:final|the|quick) )?(?:check|verif|confirm|sanity)")


def step_by_step(r: Reading) -> bool:
    """Two steps, each with a check of its own: the inverse operation right behind it, or an estimate, or a reason for the size."""
    if table(r):
        return False  # marks in a table are verdicts on trials
    undone = sum(undoes(second, first) for first, second in itertools.pairwise(r.calculations))
    lines = r.lines if len(r.lines) > 2 else r.sentences
    checked = 0
    for line, behind in itertools.pairwise([*lines, ""]):
        if _CHECK_FIRST.search(line) or not re.search(r"\d", line):
            continue
        checked += trace("sound").search(line) is not None or (
            _CHECK_FIRST.search(behind) is not None and re.search(r"\d", behind) is not None
        )
    return undone > 1 or checked > 1 or len(re.findall(r"\bcheck\w*\s?:\s?\S+ ?\S", r.low)) > 1


_START_ASKED = re.compile(
    r"\b(?:at first|originally|original|initial\w*|to begin with|(?:at|in) the (?:beginning|start|outset|morning)"
    r"|(?:did|does|do) (?:\w+ ){1,3}(?:start|begin)|(?:started|began|starts) (?:with|out|at)"
    r"|thinks? of (?:an?|my) number|thought of|which number|what (?:was|is) (?:my|her|his|the|their) (?:\w+ )?number)\b"
)


def working_backward(r: Reading) -> bool:
    """Two operations or more undone from the final state, or two links of "for this I need that"."""
    if r.count("need") + r.count("came") > 1:
        return True
    if counted_down(r):
        return True
    before, end = r.count("before"), r.has("at_the_end")
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", r.problem)]
    end_first = bool(numbers and any(near(numbers[-1], number) for number in r.numbers[:3]))
    start_asked = _START_ASKED.search(r.problem.lower()) is not None
    return before > 0 and before + end + end_first + start_asked >= MANY and len(r.numbers) >= MANY


def _put_together(r: Reading, asked: str) -> bool:
    """Whether a figure's measure is added up from two shapes that the problem doesn't name."""
    shapes = {m[m.lastindex or 0] for m in trace("shape").finditer(r.low)}
    new = len(shapes) > 1 and len([shape for shape in shapes if shape in asked]) < 2
    return new and r.has("total") and re.search("area|volume|surface", asked) is not None and not r.has("drawn_in")


def decomposition(r: Reading) -> bool:
    """A whole that is cut, cases that are counted apart, or a number that is taken by its digits or a percentage by its parts."""
    asked = r.problem.lower()
    cut = (
        r.has("cut")
        or len({m[0] for m in trace("piece").finditer(r.low)}) > 1
        or any(m.lastindex and m[m.lastindex] not in asked for m in trace("divided").finditer(r.low))
    )
    if cut and (len(r.numbers) > 2 or not r.given):
        return True
    cases = (r.count("case") > 1 and not r.has("before")) or (r.has("sorted_by") and (trials(r) > 1 or r.count("case")))
    if _put_together(r, asked):
        return True
    return (
        (cases and r.has("total") and trials(r) < MANY + 2 * r.has("sorted_by")) or (by_digits(r) and not step_by_step(r)) or by_percents(r)
    )
