"""The model itself as a judge of which heuristics a solution uses (`composition.HeuristicJudge`).

For each (solution, heuristic) the model is asked whether the one uses the other, and the log-probs of yes and no are compared: no
sampling, the same answer every time. The heuristic comes last in the question, so that problem and solution are computed once for several
of them (`data.sharing`). It is as good as the model, and far dearer than rules, which is why it is shown fewer responses (`reach`).

Some models say yes to whatever they are asked. Yes must therefore also be likelier than about no problem and no solution at all: "N/A" in
both places, which Zhao et al. 2021 (arXiv 2102.09690) call a content-free input. The threshold only ever rises: a model that
says a firm no to "N/A" isn't led to yes by a less firm no.
"""

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from jaxpolya.data.packing import Example
from jaxpolya.data.sharing import common_tokens
from jaxpolya.errors import ConfigError
from jaxpolya.evaluation.judges import Solution
from jaxpolya.models.decoder import Params
from jaxpolya.models.forward import Forward
from jaxpolya.polya.catalogue import Heuristic
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.score.logprobs import score_examples, scoring_shape

ASKED_TOGETHER = 8  # heuristics that a row takes beside the longest problem and solution: more make attention longer, and save little
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
        asked = [(NOTHING, NOTHING), *((solution.question.question, solution.response) for solution in solutions)]
        odds_SH = self._log_odds([example for texts in asked for example in self._examples(*texts)])
        used_SH = odds_SH[1:] > np.maximum(odds_SH[0], 0.0)
        return [[heuristic.key for heuristic, uses in zip(self._heuristics, used_H, strict=True) if uses] for used_H in used_SH]

    def _log_odds(self, examples: Sequence[Example]) -> np.ndarray:
        """log p(yes) − log p(no) of each solution and heuristic, [S, H], nats."""
        group = 2 * len(self._heuristics)
        longest = max(example.prompt + min(group, 2 * ASKED_TOGETHER) * (len(example) - example.prompt) for example in examples)
        shape = scoring_shape(examples, self._mesh, PASS_TOKENS, shortest=longest)
        scored = score_examples(self._params, self._forward, self._mesh, examples, **shape, group=group, model=self._model)
        sums = [float(values[example.weights > 0].sum()) for values, example in zip(scored, examples, strict=True)]
        return np.subtract(sums[::2], sums[1::2]).reshape(-1, len(self._heuristics))

    def _examples(self, question: str, response: str) -> list[Example]:
        """The model asked about each heuristic, with yes and with no as its answer.

        What doesn't fit its context is cut off the response, then the question, for all heuristics alike.
        """
        while (over := max(map(len, asked := self._asked(question, response))) - self._positions) > 0:
            if response:
                response = response[: max(0, len(response) - CHARACTERS * over)]
            else:
                question = question[: max(0, len(question) - CHARACTERS * over)]
        prompt = common_tokens(asked)
        # Encoded whole, since a tokenizer may join the answer with what precedes it; what both begin with says nothing of either.
        answers = [common_tokens(pair) for pair in zip(asked[::2], asked[1::2], strict=True) for _ in pair]
        return [
            Example(np.asarray(ids, np.int32), (np.arange(len(ids)) >= answer).astype(np.float32), prompt=prompt)
            for ids, answer in zip(asked, answers, strict=True)
        ]

    def _asked(self, question: str, response: str) -> list[list[int]]:
        """Token ids with yes and with no, heuristic by heuristic."""
        return [ids for heuristic in self._heuristics for ids in _ask(self._builder, question, response, heuristic)]


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
