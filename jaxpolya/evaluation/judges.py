"""Who says which heuristics a solution uses: judges by name, and a door for one's own.

- `acts`, the default: looks for the traces that a heuristic's act leaves in a text (`acts`). Cheap, the same everywhere, English.
- `markers`: regular expressions from the catalogue, such as "guess" or "in other words". Cheap too; it finds what a solution says that it
  does. A heuristic of one's own catalogue is known by its markers under `acts` as well, since there is no rule for it.
- `model` (`score.heuristic_judge`): the base model is asked about every solution and heuristic. Needs jax, so it isn't made here.
- one's own, `module:attribute` or `path/to/file.py:attribute`: a class or function that makes a judge of the catalogue's heuristics.

How well each agrees with a labelled set is measured (`judge_quality`) and stands beside every rate. Numbers of different judges are
not comparable.
This module doesn't import jax.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Protocol

from jaxpolya.doors import Plugin, a, bring, check_call
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.evaluation.acts import RULES
from jaxpolya.evaluation.diversity import QUESTIONS, RESPONSES
from jaxpolya.evaluation.reading import Reading
from jaxpolya.polya.catalogue import Heuristic, compile_marker, load_catalogue
from jaxpolya.records import Question

KEY = "eval.composition"
SEVERAL = 2  # heuristics, from which a solution counts as composed


@dataclasses.dataclass(frozen=True)
class Solution:
    """A question and what was answered."""

    question: Question
    response: str


class HeuristicJudge(Protocol):
    """Says which heuristics solutions use."""

    name: str
    """Stands in the results."""
    reach: tuple[int, int]
    """(questions, responses to each) that it is shown at most."""

    def label(self, solutions: Sequence[Solution]) -> list[list[str]]:
        """The keys of the heuristics of each solution; none is an empty list."""


class Markers:
    """A heuristic is used where one of its markers is found; one without markers is never found."""

    name = "markers"
    reach = (QUESTIONS, RESPONSES)

    def __init__(self, heuristics: Sequence[Heuristic]):
        self._patterns = {heuristic.key: [compile_marker(marker) for marker in heuristic.markers] for heuristic in heuristics}

    def label(self, solutions: Sequence[Solution]) -> list[list[str]]:
        """Keys in the catalogue's order."""
        return [
            [key for key, patterns in self._patterns.items() if any(pattern.search(solution.response) for pattern in patterns)]
            for solution in solutions
        ]


class Acts:
    """A heuristic of the built-in catalogue is used where its rule finds its act; any other one, where one of its markers is found."""

    name = "acts"
    reach = (QUESTIONS, RESPONSES)

    def __init__(self, heuristics: Sequence[Heuristic]):
        known = {heuristic.key: heuristic.instruction for heuristic in load_catalogue().heuristics}
        self._patterns: dict[str, list[re.Pattern[str]] | None] = {
            heuristic.key: None if known.get(heuristic.key) == heuristic.instruction else [compile_marker(m) for m in heuristic.markers]
            for heuristic in heuristics
        }

    def label(self, solutions: Sequence[Solution]) -> list[list[str]]:
        """Keys in the catalogue's order."""
        return [self._label(solution) for solution in solutions]

    def _label(self, solution: Solution) -> list[str]:
        reading = Reading(solution.question.question, solution.response)
        return [
            key
            for key, patterns in self._patterns.items()
            if (RULES[key](reading) if patterns is None else any(pattern.search(solution.response) for pattern in patterns))
        ]


NAMED: dict[str, type[Acts] | type[Markers]] = {"acts": Acts, "markers": Markers}
"""Those that are made of the catalogue's heuristics alone."""


# One's own ---------------------------------------------------------------------------------------------------------------


class CheckedJudge:
    """A user's judge whose answers are looked at before anything is made of them."""

    def __init__(self, judge: Any, brought: Plugin, heuristics: Sequence[Heuristic]):
        self._judge, self._where = judge, f"{KEY}: {brought.name}"
        self._keys = {heuristic.key for heuristic in heuristics}
        self.name: str = judge.name
        self.reach: tuple[int, int] = tuple(getattr(judge, "reach", (QUESTIONS, RESPONSES)))

    def label(self, solutions: Sequence[Solution]) -> list[list[str]]:
        """What it says, as lists. Raises `InputError` where that isn't known keys for each solution, or it fails."""
        try:
            all_labels = [list(labels) for labels in self._judge.label(solutions)]
        except Exception as error:
            raise InputError(f"{self._where} failed on {len(solutions)} solutions: {type(error).__name__}: {error}") from error
        if len(all_labels) != len(solutions):
            raise InputError(f"{self._where} gave labels of {len(all_labels)} solutions, and {len(solutions)} were shown")
        if unknown := sorted({str(key) for labels in all_labels for key in labels} - self._keys):
            raise InputError(f"{self._where} named {', '.join(unknown[:5])}, which the catalogue doesn't have")
        return [list(dict.fromkeys(labels)) for labels in all_labels]


def own_judge(reference: str, heuristics: Sequence[Heuristic]) -> HeuristicJudge:
    """A user's judge, made and tried on no solution at all.

    Args:
      reference: `module:attribute` or `path/to/file.py:attribute` of a class or function that takes the heuristics.
      heuristics: the catalogue's.

    Raises:
      ConfigError: it isn't there, takes something else, or what it makes has no name or no `label(solutions)`.
    """
    brought = bring(reference, KEY)
    where = f"{KEY}: {brought.name}"
    check_call(brought.value, ("heuristics",), where)
    try:
        judge = brought.value(list(heuristics))
    except Exception as error:
        raise ConfigError(f"{where}(heuristics) failed ({type(error).__name__}: {error})") from error
    if not isinstance(getattr(judge, "name", None), str):
        raise ConfigError(f"{where} makes {a(judge)} without a name, a text that stands in the results")
    if not callable(getattr(judge, "label", None)):
        raise ConfigError(f"{where} makes {a(judge)} without a method label(solutions)")
    check_call(judge.label, ("solutions",), f"{where}: label")
    reach = getattr(judge, "reach", (QUESTIONS, RESPONSES))
    if not (isinstance(reach, tuple | list) and len(reach) == 2 and all(isinstance(n, int) and n > 0 for n in reach)):
        raise ConfigError(f"{where}: reach is {reach!r}, and (questions, responses to each) was expected, two whole numbers above 0")
    return CheckedJudge(judge, brought, heuristics)
