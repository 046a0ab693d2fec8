"""Training on recorded rollouts (`rl.replay`): nobody is asked, so that it needs no sampler and no verifier.

From the rollouts of a run under that run's configuration it makes the same parameters, bit for bit on the same mesh, since a round is all
that comes between asking and updating.

A record is a JSON object:

    token_ids      of the response, its stop token included
    prompt_ids, prompt or question_id
                   the prompt's tokens, its text, or the id of one of `rl.questions`, whose prompt is built as if it were asked
    reward or verdict
                   a number, null for a response that is left out of the loss; or a verdict's name, which is paid as ever
    logprobs       of the tokens, natural logs under the temperature of `rl.sampling`; may be missing under `old_logprobs: trainer`
    finish         `stop` or `length`; `stop` where it is missing
    response       the text; where it is there, the tokens must say it in this model's tokenizer
    step           the round, from 0, on every record of a file or on none: then rounds of `prompts` · `group` records follow each other

The records of a prompt are its group, `group` of them; prompts come in the order of their first records.
"""

import dataclasses
import difflib
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, SupportsFloat, get_args

from jaxpolya.config import RlConfig
from jaxpolya.errors import InputError
from jaxpolya.files import digest
from jaxpolya.models.decoder import Params
from jaxpolya.progress import Task
from jaxpolya.records import Finish, Question, Sample, VerdictName
from jaxpolya.rollout.recordings import KEY, Recording, Row
from jaxpolya.rollout.respond import Prompt
from jaxpolya.rollout.rewards import reward_of
from jaxpolya.rollout.rounds import Piece, Round, fill_round, write_round

FIELDS = frozenset(field.name for field in dataclasses.fields(Sample)) | {"prompt_ids"}
"""What a record may have; those that aren't named above are for people."""

LARGEST_LOGP = 1e-3
"""A log-probability isn't above 0, but for rounding."""


@dataclasses.dataclass(frozen=True)
class Model:
    """What of a model its records must fit."""

    vocabulary: int
    encode: Callable[[str], list[int]]
    """A prompt's text → its tokens."""
    decode: Callable[[Sequence[int]], str]
    """A response's tokens → its text."""


class RecordedRounds:
    """Rounds that nobody is asked for."""

    def __init__(
        self,
        config: RlConfig,
        recording: Recording,
        model: Model,
        prompts: Sequence[Prompt],
        *,
        arm: str,
        directory: Path,
        refills: int,
        task: Task,
    ):
        """Takes what a recording holds.

        Args:
          config: the stage.
          recording: from `open_recording`.
          model: that is trained.
          prompts: of `rl.questions`, for records that name their question.
          arm: named in the records of this stage.
          directory: of the stage; `rollouts/` is written below it.
          refills: further pieces that a round may take.
          task: is advanced by one a rollout.
        """
        self._config, self._recording, self._model, self._arm = config, recording, model, arm
        self._known = {prompt.question.id: prompt for prompt in prompts}
        self._directory, self._refills, self._task = directory, refills, task

    def draw(self, step: int, params: Params, refilled: int) -> Round:
        """Round `step` as it was recorded. Raises `InputError`, which names the record, where it can't be one of this training."""
        del params, refilled
        where = f"{KEY}: {self._recording.name}, round {step}"
        pieces = split(self._recording.pieces(step), self._config, self._refills, where)
        self._task.advance(self._config.prompts * self._config.group)
        taken = fill_round(lambda attempt: self._piece(pieces[attempt], step), self._config, min(self._refills, len(pieces) - 1), where)
        with_logps = {bool(sample.logprobs) for _, samples in taken.pieces for sample in samples}
        if len(with_logps) > 1:
            raise InputError(f"{where}: some records have logprobs and some have none; give all of them theirs, or none")
        return taken

    def write(self, step: int, rated: Sequence[Sequence[Sample]]) -> None:
        """Writes a round's pieces as this stage's own, with what has been made of them."""
        write_round(self._directory, step, rated)

    def _piece(self, groups: Sequence[Sequence[Row]], step: int) -> Piece:
        prompts, samples = [], []
        for group in groups:
            prompt = self._prompt(group)
            prompts.append(prompt)
            for index, row in enumerate(group):
                sample = read_sample(row, self._config, self._model)
                if len(prompt.ids) + len(sample.token_ids) > self._config.batching.row_tokens:
                    raise InputError(
                        f"{row.where}: prompt and response have {len(prompt.ids) + len(sample.token_ids)} tokens, and "
                        f"rl.batching.row_tokens is {self._config.batching.row_tokens}; raise it"
                    )
                if prompt.question.id not in self._known:  # what isn't known of a question can't be audited: its pay alone is kept
                    sample = dataclasses.replace(sample, reward=reward_of(sample), verdict=None)
                name = f"{prompt.id}#{index}"
                sample = dataclasses.replace(sample, id=name, question_id=prompt.question.id, prompt=prompt.text, index=index)
                samples.append(dataclasses.replace(sample, arm=self._arm, step=step, seed=self._config.seed))
        return prompts, samples

    def _prompt(self, group: Sequence[Row]) -> Prompt:
        """What a group was asked."""
        first = group[0]
        for name in ("prompt", "prompt_ids"):
            if other := next((row for row in group if row.fields.get(name) != first.fields.get(name)), None):
                raise InputError(f"{other.where}: its {name} is another than that of {first.where}, and both are of one prompt")
        known, text, ids = self._known.get(first.fields.get("question_id", "")), first.fields.get("prompt"), first.fields.get("prompt_ids")
        if ids is None and known is not None and text in (None, known.text):
            return known
        if ids is None and text is None:
            raise InputError(f"{first.where}: it has no prompt_ids and no prompt, and its question_id is that of none of rl.questions")
        tokens = tuple(self._model.encode(str(text)) if ids is None else _tokens(first, "prompt_ids", self._model))
        text = self._model.decode(tokens) if text is None else str(text)
        question_id = first.fields.get("question_id") or f"recorded-{digest(list(tokens))[:12]}"
        return Prompt(known.question if known else Question(id=question_id, question=text, answer=""), text, tokens)


def check_recording(config: RlConfig, recording: Recording, model: Model, refills: int) -> None:
    """Reads the first and the last of the rounds that will be learned. Raises `InputError` where a record can't be one of this training."""
    for step in sorted({0, config.steps - 1}):
        for groups in split(recording.pieces(step), config, refills, f"{KEY}: {recording.name}, round {step}"):
            for row in itertools.chain(*groups):
                read_sample(row, config, model)


def split(pieces: Sequence[Sequence[Row]], config: RlConfig, refills: int, where: str) -> list[list[list[Row]]]:
    """The groups of each piece of a round, P in each, in their order. Raises `InputError`, which begins with `where` or names a record."""
    rounds: list[list[list[Row]]] = []
    for rows in pieces:
        groups = _grouped(rows, config.group)
        if not groups or len(groups) % config.prompts or (len(groups) > config.prompts and not refills):
            raise InputError(f"{where}: it holds the responses to {len(groups)} prompts, and rl.prompts is {config.prompts}")
        rounds += [groups[first : first + config.prompts] for first in range(0, len(groups), config.prompts)]
    if not rounds:
        raise InputError(f"{where}: there are no records")
    return rounds


def _grouped(rows: Iterable[Row], size: int) -> list[list[Row]]:
    grouped: dict[Any, list[Row]] = {}
    for row in rows:
        if unknown := sorted(set(row.fields) - FIELDS):
            close = difflib.get_close_matches(unknown[0], FIELDS, n=1)
            raise InputError(f"{row.where}: a rollout has no field {unknown[0]}" + (f"; did you mean {close[0]}?" if close else ""))
        fields = row.fields
        key = fields.get("question_id") or fields.get("prompt") or tuple(fields.get("prompt_ids") or ())
        if not key:
            raise InputError(f"{row.where}: it says nothing of its prompt; give it prompt_ids, prompt, or a question_id of rl.questions")
        grouped.setdefault(key, []).append(row)
    for group in grouped.values():
        if len(group) != size:
            raise InputError(f"{group[0].where}: this prompt has {len(group)} responses in its round, and rl.group is {size}")
    return [sorted(group, key=lambda row: row.fields.get("index") or 0) for group in grouped.values()]


def read_sample(row: Row, config: RlConfig, model: Model) -> Sample:
    """A record as a response, without its prompt. Raises `InputError`, which names the record."""
    fields = row.fields
    tokens = _tokens(row, "token_ids", model)
    if len(tokens) > config.sampling.max_new_tokens:
        raise InputError(
            f"{row.where}: the response has {len(tokens)} tokens; raise rl.sampling.max_new_tokens ({config.sampling.max_new_tokens})"
        )
    text = model.decode(tokens)
    response = fields.get("response", text)
    if not text.startswith(response):
        raise InputError(
            f"{row.where}: it was recorded with another tokenizer: in this model's its tokens say {text[:60]!r}, and its response is "
            f"{response[:60]!r}"
        )
    finish, verdict = fields.get("finish", "stop"), fields.get("verdict")
    if finish not in get_args(Finish):
        raise InputError(f"{row.where}: finish is {finish!r}, and not one of {', '.join(get_args(Finish))}")
    if verdict is not None and verdict not in get_args(VerdictName):
        raise InputError(f"{row.where}: verdict is {verdict!r}, and not one of {', '.join(get_args(VerdictName))}")
    if "reward" not in fields and verdict is None:
        raise InputError(f"{row.where}: it has neither reward nor verdict; a reward of null leaves a response out of the loss")
    reward = fields.get("reward")
    if reward is not None and not _is_finite(reward):
        raise InputError(f"{row.where}: reward is {reward!r}, and a number was expected")
    left_out = "reward" in fields and reward is None
    ours: dict[str, Any] = {
        "id": "", "question_id": "", "arm": "", "stage": "rl", "index": 0, "prompt": "", "seed": 0, "response": response,
        "token_ids": tokens, "logprobs": _logprobs(row, len(tokens), config), "finish": finish, "advantage": None,
        "verdict": None if left_out else verdict, "reward": None if reward is None else float(reward),
    }  # fmt: skip
    return Sample(**{name: value for name, value in fields.items() if name != "prompt_ids"} | ours)


def _tokens(row: Row, name: str, model: Model) -> list[int]:
    try:
        tokens = [operator.index(token) for token in row.fields[name]]
    except (KeyError, TypeError):
        raise InputError(f"{row.where}: {name} is no list of token ids") from None
    if not tokens:
        raise InputError(f"{row.where}: {name} is empty")
    if strange := next((token for token in tokens if not 0 <= token < model.vocabulary), None):
        raise InputError(
            f"{row.where}: it was recorded with another tokenizer: {name} holds {strange}, and the model's tokens are 0 to "
            f"{model.vocabulary - 1}"
        )
    return tokens


def _logprobs(row: Row, count: int, config: RlConfig) -> list[float]:
    values = row.fields.get("logprobs")
    values = [] if values is None else list(values)
    if not values:
        if config.old_logprobs == "sampler":
            raise InputError(f"{row.where}: it has no logprobs; set rl.old_logprobs to trainer, which computes them")
        if config.tis is not None or config.icepop is not None:
            raise InputError(f"{row.where}: it has no logprobs, which rl.tis and rl.icepop weigh the trainer's against; leave those out")
        return []
    if len(values) != count:
        raise InputError(f"{row.where}: it has {len(values)} logprobs for {count} tokens")
    if strange := next((value for value in values if not _is_finite(value) or value > LARGEST_LOGP), None):
        raise InputError(f"{row.where}: logprobs holds {strange!r}; they are natural logs of probabilities, so at most 0")
    return [float(value) for value in values]


def _is_finite(value: Any) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, str | bool) and math.isfinite(value)
