"""Selection of one's own: a scorer of adherence, and a rule for which of the correct responses are kept. Each works without the other.

    jaxpolya run configs/quickstart.yaml --set select.adherence=examples/brief_and_apart.py:names_it
    jaxpolya run configs/quickstart.yaml --set select.keep=examples/brief_and_apart.py:brief

A scorer that asked a model of its own would load it at its first call, and not when this file is imported.
"""

from collections.abc import Sequence

from jaxpolya.polya.keep import Candidates
from jaxpolya.records import Sample
from jaxpolya.score.adherence import Case


def names_it(cases: Sequence[Case]) -> list[float]:
    """The share of the instruction's longer words that the response uses too."""
    return [_share(case.slot.heuristic.instruction, case.sample.response) for case in cases]


def brief(candidates: Candidates) -> list[Sample]:
    """The n shortest responses, one a slot, however well they follow their heuristics; of equal ones, drawn by the seed."""
    ranked = sorted(candidates.samples, key=lambda sample: (len(sample.token_ids), candidates.chance(sample.slot, sample.index)))
    one_a_slot = {sample.slot: sample for sample in reversed(ranked)}
    return sorted(one_a_slot.values(), key=ranked.index)[: candidates.n]


brief.unscored = True  # it doesn't look at adherence: nothing is scored


def _share(instruction: str, response: str) -> float:
    words = {word for word in instruction.lower().split() if len(word) > 3}
    return len(words & set(response.lower().split())) / max(len(words), 1)
