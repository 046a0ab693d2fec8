"""The rounds of rollouts that reinforcement learning takes: which questions each asks, and what came of them.

The questions are shuffled anew for every pass and cut into pieces of P; a round asks one piece. Where an algorithm learns only from groups
whose rewards differ, a round asks further pieces until it has P such groups, a bounded number of times (DAPO's
dynamic sampling, arXiv 2503.14476, §3.2). How many pieces the rounds before took stands in the step log, so that a resumed run asks
the same.

Rollouts are written, with their verdicts, as they happen, a file a piece, so a killed round keeps what was finished. A round after the
last checkpoint is trained on again from those files: the weights that drew them are the weights that would draw them now, bit for bit.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import grain
import numpy as np

from jaxpolya.config import RlConfig
from jaxpolya.decode.engine import Engine
from jaxpolya.errors import ConfigError, RunError
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.progress import Task
from jaxpolya.records import Question, Sample, write_records
from jaxpolya.rollout.respond import Draws, Prompt, respond
from jaxpolya.rollout.rewards import make_pay, mixed_groups, outcome_facts, pay_samples, reward_of, rewards_of
from jaxpolya.verify.pool import Pool

Piece = tuple[list[Prompt], list[Sample]]
"""P questions, and the G samples of each in their order."""


@dataclasses.dataclass(frozen=True)
class Round:
    """All that a round asked, and what of it is learnt."""

    pieces: list[Piece]
    """The first, and the refills."""
    groups: list[int]
    """P of all groups, by their places, counted through the pieces."""
    size: int
    """G."""
    rows_busy: float | None = None
    """Share of the engine's row-steps whose token was kept; None where nothing was drawn."""

    @property
    def prompts(self) -> list[Prompt]:
        """The P questions that are learnt from."""
        asked = [prompt for prompts, _ in self.pieces for prompt in prompts]
        return [asked[group] for group in self.groups]

    @property
    def samples(self) -> list[Sample]:
        """Their P · G samples, group by group."""
        drawn = [sample for _, samples in self.pieces for sample in samples]
        return [drawn[i] for i in members(self.groups, self.size)]

    @property
    def questions(self) -> dict[str, Question]:
        """All that were asked, by id."""
        return {prompt.question.id: prompt.question for prompts, _ in self.pieces for prompt in prompts}

    def rated(self, learnt: Sequence[Sample]) -> list[list[Sample]]:
        """Each piece's samples with their rewards; `learnt` are those of `samples`, with advantages too."""
        by_place, every = dict(zip(members(self.groups, self.size), learnt, strict=True)), len(self.pieces[0][1])
        return [
            [by_place.get(number * every + i) or dataclasses.replace(sample, reward=reward_of(sample)) for i, sample in enumerate(samples)]
            for number, (_, samples) in enumerate(self.pieces)
        ]


class Rollouts(Protocol):
    """Where rounds come from. Every host calls both, in the same order."""

    def draw(self, step: int, params: Params, refilled: int) -> Round:
        """Round `step`, under the weights of the moment; `refilled` is how many pieces more the rounds before took."""

    def write(self, step: int, rated: Sequence[Sequence[Sample]]) -> None:
        """Takes a round's pieces back, with their rewards and advantages."""


class Live:
    """Rounds that are drawn from the weights of the moment."""

    def __init__(
        self,
        config: RlConfig,
        prompts: Sequence[Prompt],
        engine: Engine,
        pool: Pool,
        *,
        arm: str,
        directory: Path,
        refills: int,
        task: Task,
    ):
        """Asks all RL questions in turn.

        Args:
          config: the stage.
          prompts: of all RL questions.
          engine: made for them, with `config.group` samples.
          pool: the verifier.
          arm: named in the records.
          directory: of the stage; `rollouts/` is written below it.
          refills: further pieces that a round may ask.
          task: is advanced by one a rollout.
        """
        check_prompts(prompts, config)
        self._config, self._prompts, self._engine, self._pool, self._arm = config, prompts, engine, pool, arm
        self._directory, self._refills, self._task = directory, refills, task
        self._pay = make_pay(config)

    def draw(self, step: int, params: Params, refilled: int) -> Round:
        """Round `step`, drawn from `params` where it isn't on disk; `refilled` is how many pieces more the rounds before took."""
        config, where, before = self._config, f"{self._directory.name}, step {step}", self._engine.usage

        def ask(attempt: int) -> Piece:
            number = step + refilled + attempt
            draws = Draws(self._arm, "rl", config.group, config.seed, first_sequence=number * config.prompts * config.group, step=step)
            prompts, file = piece_prompts(self._prompts, config, number), rollout_file(self._directory, step, attempt)
            task = None if attempt else self._task  # of the rollouts that are sure to be asked for
            samples = respond(self._engine, lambda: params, prompts, draws, pool=self._pool, out=file, task=task)
            return prompts, pay_samples(samples, [prompt.question for prompt in prompts], self._pay, self._pool, where)

        filled = fill_round(ask, config, self._refills, where)
        return dataclasses.replace(filled, rows_busy=(self._engine.usage - before).busy)

    def write(self, step: int, rated: Sequence[Sequence[Sample]]) -> None:
        """Writes a round's pieces again, with what has been made of them."""
        write_round(self._directory, step, rated)


def piece_prompts(prompts: Sequence[Prompt], config: RlConfig, number: int) -> list[Prompt]:
    """The questions of piece `number` of the shuffled passes.

    A pass ends with its last whole piece, so that no question is asked twice in a round.
    """
    epoch, piece = divmod(number, len(prompts) // config.prompts)
    order = grain.MapDataset.range(len(prompts)).seed(config.seed).shuffle().repeat()  # each pass anew, and not as another seed's
    first = epoch * len(prompts) + piece * config.prompts
    return [prompts[order[i]] for i in range(first, first + config.prompts)]


def check_prompts(prompts: Sequence[Prompt], config: RlConfig) -> None:
    """Raises `ConfigError` where a round asks more questions than there are."""
    if len(prompts) < config.prompts:
        raise ConfigError(f"rl.prompts ({config.prompts}) is larger than the number of RL questions that fit ({len(prompts)}); lower it")


def fill_round(ask: Callable[[int], Piece], config: RlConfig, refills: int, where: str) -> Round:
    """One piece of questions, and with `refills` as many more as it takes to have P mixed groups, at most so many.

    Learnt are the first mixed groups and, where they are too few, the first others.

    Raises `RunError` where refills were allowed and no group at all is mixed: there is nothing to learn, and asking on won't help.
    """
    pieces: list[Piece] = []
    mixed_P = np.zeros(0, bool)
    while len(pieces) <= refills and (not pieces or mixed_P.sum() < config.prompts):
        pieces.append(ask(len(pieces)))
        mixed_P = np.append(mixed_P, mixed_groups(rewards_of(pieces[-1][1], config.group)))
    if refills and not mixed_P.any():
        reward = outcome_facts([sample for _, samples in pieces for sample in samples], config.group)["reward"]
        raise RunError(
            f"{where}: of {len(mixed_P)} questions none got responses whose rewards differ (mean reward {reward:.2f}), so "
            "there is nothing to learn from; take questions that the model solves now and then, a larger rl.group, or set rl.refills to 0 "
            "to go on all the same"
        )
    first = np.arange(config.prompts) if len(pieces) == 1 else np.argsort(~mixed_P, kind="stable")[: config.prompts]
    return Round(pieces, sorted(first.tolist()), config.group)


def members(groups: Iterable[int], size: int) -> list[int]:
    """The places of the samples of these groups."""
    return [int(group) * size + index for group in groups for index in range(size)]


def write_round(directory: Path, step: int, rated: Sequence[Sequence[Sample]]) -> None:
    """Writes the pieces of a round below a stage's directory, over what was written of them while they were drawn."""
    if is_primary():
        for attempt, samples in enumerate(rated):
            write_records(rollout_file(directory, step, attempt), samples)


def rollout_file(directory: Path, step: int, attempt: int) -> Path:
    """Where the rollouts of a round's first piece, or of one of its refills, are written."""
    return directory / "rollouts" / (f"{step:06d}-{attempt}.jsonl" if attempt else f"{step:06d}.jsonl")
