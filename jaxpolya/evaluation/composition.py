"""Which heuristics a solution uses, and how often one solution uses several.

The composition rate is the share of the correct solutions that use two heuristics or more: what a model that has learned several
approaches may do with them, and the paper (arXiv 2605.08472) sees rise after RL. Only correct solutions count, for noise holds
every phrase. It is taken per question, then averaged over the questions that were solved, with `passk`'s bootstrap interval.

Who says which heuristics a solution uses is a judge, and its name stands in the result. Two are built in:

- `Markers`: regular expressions from the catalogue, such as "guess" or "in other words". Cheap, the same everywhere, and blind to
  a heuristic that isn't named: of the catalogue's own exemplars it finds nine in ten, where they are written as their instruction asks.
- `score.heuristic_judge.ModelJudge`: the base model is asked, for each solution and heuristic, whether the one uses the other, and the
  log-probs of yes and no are compared. It can see what is not named, costs two forward passes a pair, and is as good as the model.

Numbers of different judges are not comparable. This module doesn't import jax.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from jaxpolya.evaluation.diversity import QUESTIONS, RESPONSES, Labels
from jaxpolya.evaluation.passk import bootstrap
from jaxpolya.polya.catalogue import Heuristic, compile_marker
from jaxpolya.records import Question, Sample

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


def summarise_composition(samples: Sequence[Sample], labels: Labels, *, judge: str, resamples: int, seed: int) -> dict[str, Any] | None:
    """How often the correct solutions of one model to one question set use several heuristics; None where none is correct.

    Args:
      samples: of which those that are correct and have labels count.
      labels: what a judge said, sample id → keys.
      judge: its name.
      resamples, seed: of the bootstrap over questions.

    Returns:
      {judge, questions, solutions, rate (`passk.Interval`), by_heuristic: {key: share of the solutions that use it}}.
    """
    found: dict[str, list[bool]] = defaultdict(list)
    uses: Counter[str] = Counter()
    for sample in samples:
        if sample.verdict == "correct" and sample.id in labels:
            found[sample.question_id].append(len(labels[sample.id]) >= SEVERAL)
            uses.update(labels[sample.id])
    if not found:
        return None
    solutions = sum(map(len, found.values()))
    rates = np.array([np.mean(composed) for _, composed in sorted(found.items())])
    return {
        "judge": judge,
        "questions": len(found),
        "solutions": solutions,
        **bootstrap({"rate": rates}, resamples, seed),
        "by_heuristic": {key: count / solutions for key, count in sorted(uses.items(), key=lambda item: (-item[1], item[0]))},
    }
