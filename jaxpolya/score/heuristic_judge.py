"""The model itself as a judge of which heuristics a solution uses (`composition.HeuristicJudge`).

For each (solution, heuristic) the model is asked whether the one uses the other, and the log-probs of yes and no are compared:
two forward passes, no sampling, the same answer every time. So it is as good as the model, and far dearer than markers, which is why
it is shown fewer responses (`reach`).

Some models say yes to whatever they are asked. Yes must therefore also be likelier than about no problem and no solution at all: "N/A" in
both places, which Zhao et al. 2021 (arXiv 2102.09690) call a content-free input. The threshold only ever rises: a model that
says a firm no to "N/A" isn't led to yes by a less firm no.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from jaxpolya.data.packing import Example, token_example
from jaxpolya.errors import ConfigError
from jaxpolya.evaluation.judges import Solution
from jaxpolya.models.decoder import Params
from jaxpolya.models.forward import Forward
from jaxpolya.polya.catalogue import Heuristic
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.score.logprobs import score_examples, scoring_shape

PASS_TOKENS = 2048  # of a forward pass on one data shard, about
CHARACTERS = 4  # a token, about
ROOM = 64  # tokens for problem and solution without which there is no use in asking
NOTHING = "N/A"


class ModelJudge:
    """A heuristic is used where the model holds yes for likelier than no, and than about nothing at all."""

    name = "model"
    reach = (50, 4)

    def __init__(
        self,
        params: Params,
        forward: Forward,
        mesh: Mesh,
        builder: PromptBuilder,
        heuristics: Sequence[Heuristic],
        *,
        model: str = "the judge",
    ):
        """Judges with the given parameters; `model` names them in errors."""
        self._params, self._forward, self._mesh, self._builder, self._heuristics = params, forward, mesh, builder, heuristics
        self._model = model
        self._positions = forward.config.context

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
        shape = scoring_shape(examples, self._mesh, PASS_TOKENS)
        scored = score_examples(self._params, self._forward, self._mesh, examples, **shape, model=self._model)
        sums = [float(values[example.weights > 0].sum()) for values, example in zip(scored, examples, strict=True)]
        return np.array(sums[::2]) - np.array(sums[1::2])

    def _pair(self, question: str, response: str, heuristic: Heuristic) -> tuple[Example, Example]:
        """The model asked, with yes and with no as its answer; what doesn't fit its context is cut off the response, then the question."""
        while (over := max(map(len, pair := _ask(self._builder, question, response, heuristic))) - self._positions) > 0:
            if response:
                response = response[: max(0, len(response) - CHARACTERS * over)]
            else:
                question = question[: max(0, len(question) - CHARACTERS * over)]
        yes, no = pair
        # Encoded whole, since a tokenizer may join the answer with what precedes it; what both begin with says nothing of either.
        shared = sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], zip(yes, no, strict=False)))
        return token_example(yes[:shared], yes[shared:]), token_example(no[:shared], no[shared:])


def check_room(builder: PromptBuilder, heuristics: Sequence[Heuristic], positions: int) -> None:
    """Raises `ConfigError` where a model of so many positions can't be asked about some heuristic with any room for a solution."""
    longest = max(heuristics, key=lambda heuristic: len(heuristic.instruction))
    needed = max(map(len, _ask(builder, "", "", longest)))
    if positions < needed + ROOM:
        raise ConfigError(
            f"eval.composition model: asking about {longest.key} takes {needed} tokens, and {ROOM} are needed for problem and solution, "
            f"but the model has {positions} positions; take markers or none"
        )


def _ask(builder: PromptBuilder, question: str, response: str, heuristic: Heuristic) -> tuple[list[int], list[int]]:
    """Token ids of the prompt with yes, and with no, as its answer."""
    message = (
        f"Problem: {question}\n\nSolution: {response}\n\nHeuristic: {heuristic.title}. {heuristic.instruction}\n\n"
        "Does the solution use this heuristic? Answer yes or no."
    )
    yes, no = ("Yes", "No") if builder.chat else (" yes", " no")
    return builder.say(message, yes), builder.say(message, no)
