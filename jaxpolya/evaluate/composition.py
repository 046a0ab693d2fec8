"""Which heuristics a solution uses, and how often one solution uses several.

The composition rate is the share of the correct solutions that use two heuristics or more: what a model that has learned several
approaches may do with them, and the paper (arXiv 2605.08472) sees rise after RL. Only correct solutions count, for noise holds
every phrase. It is taken per question, then averaged over the questions that were solved, with `passk`'s bootstrap interval.

Who says which heuristics a solution uses is a judge, and its name stands in the result. Two are built in:

- `Markers`: regular expressions from the catalogue, such as "guess" or "in other words". Cheap, the same everywhere, and blind to
  a heuristic that isn't named: of the catalogue's own exemplars it finds nine in ten, where they are written as their instruction asks.
- `ModelJudge`: the base model is asked, for each solution and heuristic, whether the one uses the other, and the log-probs of
  yes and no are compared. It can see what isn't named, costs two forward passes a pair, and is as good as the model.

Numbers of different judges are not comparable.
"""

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jax.sharding import Mesh

from jaxpolya.data.packing import Example, token_example
from jaxpolya.evaluate.diversity import QUESTIONS, RESPONSES, Labels
from jaxpolya.evaluate.passk import bootstrap
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import data_shards
from jaxpolya.polya.catalogue import Heuristic, compile_marker
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.records import Question, Sample
from jaxpolya.train.objectives import Forward
from jaxpolya.train.score import score_examples

SEVERAL = 2  # heuristics, from which a solution counts as composed
SHORTEST_ROW, PASS_TOKENS = 256, 2048  # tokens of a scoring row, at least; and of a forward pass on one data shard, about
NOTHING = "N/A"


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


class ModelJudge:
    """A heuristic is used where the model holds yes for likelier than no.

    Small models say yes to everything, so yes must also be likelier than about no problem and no solution at all ("N/A" in both
    places; Zhao et al. 2021, arXiv 2102.09690, call it content-free). The threshold only ever rises: a model that says a firm no to
    "N/A" isn't led to yes by a less firm one.
    """

    name = "model"
    reach = (50, 4)

    def __init__(self, params: Params, forward: Forward, mesh: Mesh, builder: PromptBuilder, heuristics: Sequence[Heuristic]):
        self._params, self._forward, self._mesh, self._builder, self._heuristics = params, forward, mesh, builder, heuristics

    def label(self, solutions: Sequence[Solution]) -> list[list[str]]:
        """Keys in the catalogue's order."""
        if not solutions:
            return []
        keys = [heuristic.key for heuristic in self._heuristics]
        asked = [(NOTHING, NOTHING), *((solution.question.question, solution.response) for solution in solutions)]
        odds_SH = self._log_odds([self._pair(*texts, heuristic) for texts in asked for heuristic in self._heuristics]).reshape(
            -1, len(keys)
        )
        used_SH = odds_SH[1:] > np.maximum(odds_SH[0], 0.0)
        return [[key for key, uses in zip(keys, used_H, strict=True) if uses] for used_H in used_SH]

    def _log_odds(self, pairs: Sequence[tuple[Example, Example]]) -> np.ndarray:
        """log p(yes) − log p(no) of each pair, nats."""
        examples = [example for pair in pairs for example in pair]
        row_tokens = max(SHORTEST_ROW, -(-max(len(example) for example in examples) // 128) * 128)
        rows = max(1, PASS_TOKENS // row_tokens) * data_shards(self._mesh)
        scored = score_examples(self._params, self._forward, self._mesh, examples, row_tokens=row_tokens, micro_rows=rows)
        sums = [float(values[example.weights > 0].sum()) for values, example in zip(scored, examples, strict=True)]
        return np.array(sums[::2]) - np.array(sums[1::2])

    def _pair(self, question: str, response: str, heuristic: Heuristic) -> tuple[Example, Example]:
        """The model asked, with yes and with no as its answer.

        A response that doesn't fit the model's context loses its end.
        """
        while True:
            prompt = self._builder.say(
                f"Problem: {question}\n\nSolution: {response}\n\nHeuristic: {heuristic.title}. {heuristic.instruction}\n\n"
                "Does the solution use this heuristic? Answer yes or no."
            )
            yes, no = (self._builder.encode(prompt + answer) for answer in (("Yes", "No") if self._builder.chat else (" yes", " no")))
            over = max(len(yes), len(no)) - self._forward.config.max_positions
            if over <= 0 or not response:
                break
            response = response[:-over] if over < len(response) else ""  # a token is a character or more
        # Encoded whole, since a tokenizer may join the answer with what precedes it; what both begin with says nothing of either.
        shared = sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], zip(yes, no, strict=False)))
        return token_example(yes[:shared], yes[shared:]), token_example(no[:shared], no[shared:])


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
