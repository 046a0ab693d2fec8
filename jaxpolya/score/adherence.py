"""How well a response follows the heuristic that it was asked for.

A scorer is anything with `score(cases) -> numbers`, higher meaning better; numbers are compared within one question only. Built in are the
base model's own pointwise mutual information, which needs no other model, and a reward model, which the paper uses; a function of a
user's is the third kind.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jax.sharding import Mesh

from jaxpolya.data.packing import token_example
from jaxpolya.doors import Plugin, bring, check_call, is_reference
from jaxpolya.errors import InputError, failure
from jaxpolya.hf.chat import chat_text
from jaxpolya.hf.spelling import Spelling
from jaxpolya.models.decoder import Params
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.hosts import from_primary, together
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.polya.catalogue import Slot
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.records import Question, Sample
from jaxpolya.score.logprobs import score_examples, scoring_shape
from jaxpolya.score.reward_model import RewardModel

KEY = "select.adherence"

PASS_TOKENS = 1024  # of a forward pass on one data shard, about


@dataclasses.dataclass(frozen=True)
class Case:
    """A response to judge."""

    question: Question
    slot: Slot
    sample: Sample


class AdherenceScorer(Protocol):
    """Says how well responses follow their heuristics."""

    def score(self, cases: Sequence[Case]) -> np.ndarray:
        """One number a case, float, higher is better."""


class Own:
    """A function of a user's: the cases → a number each. The primary host alone calls it, so that it needn't be a function."""

    def __init__(self, plugin: Plugin):
        """found: what `select.adherence` names."""
        self._function, self._where = plugin.value, f"{KEY}: {plugin.name}"

    def score(self, cases: Sequence[Case]) -> np.ndarray:
        """One number a case. Raises `InputError` where the function fails, or gives something else."""
        with together():
            scores = self._called(cases) if is_primary() else []
        return np.array(from_primary(scores))

    def _called(self, cases: Sequence[Case]) -> list[float]:
        try:
            scores = np.asarray(list(self._function(cases)), np.float64)
        except Exception as error:
            raise InputError(f"{self._where}: {failure(error)}") from error
        if scores.shape != (len(cases),) or not np.isfinite(scores).all():
            what = f"shape {scores.shape}" if scores.shape != (len(cases),) else "numbers that are not finite"
            raise InputError(f"{self._where} gave {what} for {len(cases)} cases; a finite number for each was expected")
        return scores.tolist()


def own_adherence(reference: str) -> Plugin | None:
    """What a user brought to score with; None for a scorer that is built in. Raises `ConfigError` where it can't be one."""
    if not is_reference(reference):
        return None
    plugin = bring(reference, KEY)
    check_call(plugin.value, ("cases",), f"{KEY}: {plugin.name}")
    return plugin


class MutualInformation:
    """The mean per token of log p(y | q, heuristic's instruction) − log p(y | q), in nats, under the base model.

    Without exemplars in either, so that a response isn't praised for copying them; the mean, because a sum would reward
    length.
    """

    def __init__(self, params: Params, forward: Forward, mesh: Mesh, builder: PromptBuilder, *, four_phases: bool, model: str):
        """Scores with the given parameters; `model` names them in errors."""
        self._params, self._forward, self._mesh, self._builder, self._four_phases = params, forward, mesh, builder, four_phases
        self._model = model

    def score(self, cases: Sequence[Case]) -> np.ndarray:
        """One number a case, in nats per token."""
        if not cases:
            return np.zeros(0, np.float32)
        told = [self._builder.build(c.question, c.slot, four_phases=self._four_phases, exemplars=False) for c in cases]
        bare = [self._builder.build(c.question) for c in cases]
        examples = [
            token_example(prompt.ids, case.sample.token_ids)
            for prompts in (told, bare)
            for prompt, case in zip(prompts, cases, strict=True)
        ]
        shape = scoring_shape(examples, self._mesh, PASS_TOKENS)
        scored = score_examples(self._params, self._forward, self._mesh, examples, **shape, model=self._model)
        means = [float(values[example.weights > 0].mean()) for values, example in zip(scored, examples, strict=True)]
        return np.array(means[: len(cases)]) - np.array(means[len(cases) :])


class Reward:
    """A reward model's score of the response as an answer to the question under the heuristic's instruction."""

    def __init__(self, model: RewardModel, builder: PromptBuilder, *, four_phases: bool):
        self._model, self._builder, self._four_phases = model, builder, four_phases
        self._spelling = Spelling(model.meta.tokenizer)

    def score(self, cases: Sequence[Case]) -> np.ndarray:
        """One number a case, on the model's own scale."""
        if not cases:
            return np.zeros(0, np.float32)
        return self._model.score([self._row(case) for case in cases])

    def _row(self, case: Case) -> list[int]:
        protect = self._spelling.protect
        conversation = [
            {"role": "user", "content": protect(self._builder.message(case.question, case.slot, four_phases=self._four_phases))},
            {"role": "assistant", "content": protect(case.sample.response)},
        ]
        return self._spelling.encode(chat_text(self._model.meta.tokenizer, conversation, add_generation_prompt=False))
