"""A judge of composition of one's own, and a kernel: what a solution says it does, and how alike the lengths of responses are.

    jaxpolya run configs/quickstart.yaml --set eval.composition=examples/short_and_long.py:SaidAloud \
        --set eval.kernel=examples/short_and_long.py:Lengths

The judge holds a heuristic for used where a solution has the words of its title: crude, and the report says how crude, for every judge is
measured on the labelled solutions.
"""

from collections.abc import Sequence

import numpy as np

from jaxpolya.evaluation.judges import Solution
from jaxpolya.polya.catalogue import Heuristic


class SaidAloud:
    """A heuristic is used where a solution names it."""

    name = "said aloud"
    reach = (200, 16)

    def __init__(self, heuristics: Sequence[Heuristic]):
        self._titles = {heuristic.key: heuristic.title.lower() for heuristic in heuristics}

    def label(self, solutions: Sequence[Solution]) -> list[list[str]]:
        """The keys of the titles that stand in each response."""
        return [[key for key, title in self._titles.items() if title in solution.response.lower()] for solution in solutions]


class Lengths:
    """Two responses are alike as far as their lengths are: exp(−|log m − log n|) of m and n characters, which is a kernel."""

    name = "ratio of lengths"

    def gram(self, responses: Sequence[str]) -> np.ndarray:
        """Similarities [M, M]."""
        logs_M = np.log([1 + len(response) for response in responses])
        return np.exp(-np.abs(logs_M[:, None] - logs_M))
