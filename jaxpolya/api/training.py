"""The two trainings: fine-tuning on rows, and reinforcement learning on questions. Each gives a new model; the old one stays."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxpolya.api.asking import RECORDS, ROWS, ending, fitting, judging, written
from jaxpolya.api.model import Model
from jaxpolya.api.questions import Questions, Rows, as_questions, as_rows
from jaxpolya.config import LoraConfig, RlConfig, SftConfig, VerifyConfig
from jaxpolya.config_file import build
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.hf.adapter import Adapter, merge
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import data_shards, to_host
from jaxpolya.polya.lessons import Lessons
from jaxpolya.progress import Display
from jaxpolya.records import iter_json
from jaxpolya.rollout.rewards import make_pay, try_pay
from jaxpolya.rollout.rounds import Live
from jaxpolya.train.adapters import adapted
from jaxpolya.train.algorithms import make_algorithm, most_refills
from jaxpolya.train.rl import run_rl
from jaxpolya.train.sft import run_sft, sft_batches, sft_examples, split_heldout

MICRO_ROWS = 4
"""Packed rows of one pass, where nobody says, up to what the mesh divides."""

LANE = 128
"""Packed rows are a multiple of so many tokens."""

NEVER = 2**31 - 1
"""Steps between two checkpoints, where nothing is to go on from one."""


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training gives."""

    model: Model
    stats: dict[str, Any]
    """Of fine-tuning: rows, steps, tokens, and the first and last losses, held-out ones too (nats per token)."""
    steps: list[dict[str, Any]]
    """What was measured in each step, or round of RL."""


def sft(
    model: Model,
    rows: Rows,
    *,
    learning_rate: float = 1e-5,
    epochs: int = 1,
    batch_rows: int | None = None,
    heldout: float = 0.0,
    optimizer: Mapping[str, Any] | None = None,
    batching: Mapping[str, Any] | None = None,
    directory: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> TrainingResult:
    """Fine-tunes on responses: next-token loss on the response, given the bare question.

    Args:
      model: to start from; it stays as it is, beside the trained one.
      rows: what `jaxpolya.select` gives, or dictionaries with `question` and `response` (and `answer`, `choices` and so on, as far as the
        prompt shows them).
      learning_rate: the peak.
      epochs: passes over the rows.
      batch_rows: packed rows an optimizer step; unset is those of one pass.
      heldout: share of the questions that measure the held-out loss.
      optimizer, batching: further fields of `config.Optimizer` and `config.Batching`. Packed rows are as long as the longest example,
        unless `batching.row_tokens` says.
      directory: where `steps.jsonl` is kept; it must not hold anything yet. Unset keeps nothing.
      quiet: shows no progress.
      settings: further fields of `config.SftConfig`: `seed`, and `lora`, whose adapters are merged into what is given.

    Raises:
      ConfigError: an argument is out of its range.
      InputError: a record can't be learned, or is longer than the model's positions; or the model is broken.
      RunError: the training has diverged.
    """
    _refuse_runs("sft", settings)
    builder = model.prompt_builder()
    checkpoint = model.checkpoint
    stop_ids = builder.stop_ids(checkpoint.stop_ids)
    if not stop_ids:
        raise InputError(f"{model.name}: names no end-of-text token, so responses can't be taught to end; add eos_token_id to its config")
    builder.check_answers()
    lessons = as_rows(rows, Lessons(checkpoint.tokenizer, builder, stop_ids), "sft")
    longest = max(row.length for row in lessons)
    packed = _batching(model, longest, batching)
    config = build(
        SftConfig, "sft", optimizer={"learning_rate": learning_rate, **(optimizer or {})}, batching=packed, epochs=epochs, heldout=heldout,
        batch_rows=packed["micro_rows"] if batch_rows is None else batch_rows, **{"checkpoint_every": NEVER, **settings},
    )  # fmt: skip
    if longest > (room := min(config.batching.row_tokens, checkpoint.config.context)):
        raise InputError(
            f"sft: a row has {longest} tokens with its prompt, and there is room for {room} (batching.row_tokens, and the model's "
            "positions); leave it out"
        )
    learnt, held = (sft_examples(part, longest)[0] for part in split_heldout(lessons, config.heldout, config.seed))
    with (
        _fresh(directory, "sft") as place,
        Display(quiet=quiet).task("sft", sft_batches(config, learnt).steps) as task,
    ):
        result = run_sft(
            config, checkpoint.config, lambda: _copy(checkpoint.params), model.mesh, learnt, held,
            dtype=model.dtype, directory=place, task=task, model=model.name,
        )  # fmt: skip
        return TrainingResult(
            model.with_params(_whole(model, config.lora, result.params), stop_ids, f"{model.name}, fine-tuned"), result.stats, _steps(place)
        )


def rl(
    model: Model,
    questions: Questions,
    *,
    steps: int,
    prompts: int = 8,
    group: int = 8,
    max_new_tokens: int = 512,
    learning_rate: float = 1e-6,
    algorithm: Any = "grpo",
    sampling: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, Any] | None = None,
    batching: Mapping[str, Any] | None = None,
    verify: VerifyConfig | None = None,
    rows: int = ROWS,
    directory: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> TrainingResult:
    """Policy gradients on questions, with the verifier's reward or one's own.

    Args:
      model: to start from; it stays as it is, beside the trained one.
      questions: dictionaries with `question` and `answer`, or `Question`s; at least `prompts`.
      steps: rounds of rollouts and updates.
      prompts: questions a round.
      group: responses per question.
      max_new_tokens: of a response.
      learning_rate: the peak.
      algorithm: a name (docs/algorithms.md), or an `Algorithm` of one's own, at the top level of a file.
      sampling, optimizer, batching: further fields of `config.Sampling`, `config.Optimizer` and `config.Batching`. Packed rows are as long
        as the longest prompt and response, unless `batching.row_tokens` says.
      verify: the verifier's limits, and what it accepts.
      rows: responses decoded side by side.
      directory: where `steps.jsonl` and `rollouts/` are kept; it must not hold anything yet. Unset keeps nothing.
      quiet: shows no progress.
      settings: further fields of `config.RlConfig`, such as `kl`, `updates`, `seed`, `lora`, or a door of it with an object of one's
        own, such as `reward` with a function.

    Raises:
      ConfigError: an argument is out of its range, or there are fewer questions than `prompts`.
      InputError: a record can't be asked or judged, or its prompt doesn't fit the model; or the model is broken.
      RunError: the training has diverged, or no group has anything to learn from where the algorithm needs that.
    """
    _refuse_runs("rl", settings)
    asked = as_questions(questions, "rl")
    builder, checkpoint = model.prompt_builder(), model.checkpoint
    drawn = {"max_new_tokens": max_new_tokens, **(sampling or {})}

    def configured(longest: int) -> RlConfig:
        return build(
            RlConfig, "rl", questions=RECORDS, sampling=drawn, optimizer={"learning_rate": learning_rate, **(optimizer or {})},
            batching=_batching(model, longest, batching), steps=steps, prompts=prompts, group=group, algorithm=algorithm,
            **{"checkpoint_every": NEVER, **settings},
        )  # fmt: skip

    loose = configured(checkpoint.config.context)  # checked before prompts are made
    room = loose.batching.row_tokens if "row_tokens" in (batching or {}) else None
    made = fitting(model, builder, [(question, None) for question in asked], loose.sampling, "rl", tokens=room)
    config = configured(max(len(prompt.ids) for prompt in made) + loose.sampling.max_new_tokens)
    engine = model.engine(
        builder, [prompt.ids for prompt in made], ending(config.sampling, builder), config.group, rows=rows, at_a_time=config.prompts,
        lora=config.lora,
    )  # fmt: skip
    display = Display(quiet=quiet)
    with (
        _fresh(directory, "rl") as place,
        judging(verify) as pool,
        display.task("rl", config.steps * config.prompts * config.group) as task,
    ):
        refills = most_refills(config, make_algorithm(config)[0])
        rounds = Live(config, made, engine, pool, arm="rl", directory=place, refills=refills, task=task)
        try_pay(make_pay(config), made[0].question, pool)
        result = run_rl(
            config, checkpoint.config, lambda: _copy(checkpoint.params), model.mesh, rounds, dtype=model.dtype,
            directory=place, task=task, note=display.note, keep=lambda step, params: None, model=model.name,
        )  # fmt: skip
    stop_ids = builder.stop_ids(checkpoint.stop_ids)
    measured = [{name: value for name, value in step.items() if name != "audit"} for step in result.steps]
    return TrainingResult(
        model.with_params(_whole(model, config.lora, result.params), stop_ids, f"{model.name}, after RL"),
        {"steps": len(measured)},
        measured,
    )


OF_RUNS = {
    "validation": "which keep the best model on the way; evaluate what is given here",
    "evaluate_at": "which keep those models; call this for fewer steps, and evaluate what it gives",
    "replay": "which record rollouts",
}
"""Fields that a single training has no use for → why."""


def _refuse_runs(what: str, settings: Mapping[str, Any]) -> None:
    """Raises `ConfigError` where a setting needs a run."""
    for name, why in OF_RUNS.items():
        if settings.get(name):
            raise ConfigError(f"{what}: {name} is for runs, {why}")


def _batching(model: Model, longest: int, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Rows for the longest sequence, as many at a time as the mesh divides, unless the caller says."""
    shards = data_shards(model.mesh)
    return {"row_tokens": -(-longest // LANE) * LANE, "micro_rows": -(-MICRO_ROWS // shards) * shards, **(given or {})}


def _copy(params: Params) -> Params:
    """Parameters that a training may consume."""
    return jax.tree.map(jnp.copy, params)


def _whole(model: Model, lora: LoraConfig | None, params: Params) -> Params:
    """The parameters that a training left: where it trained adapters, merged into the model's own in float32."""
    config = adapted(model.checkpoint.config, lora)
    if config.lora is None:
        return params
    factors = {name: leaf for name, leaf in params["blocks"].items() if "_lora_" in name}
    return merge(_copy(model.checkpoint.params), Adapter(to_host(factors), config.lora, model.name), config.base)


def _steps(directory: Path) -> list[dict[str, Any]]:
    return [row for _, row in iter_json(directory / "steps.jsonl")]


@contextmanager
def _fresh(directory: str | Path | None, what: str) -> Iterator[Path]:
    """A directory with nothing in it: a training goes on from whatever its directory holds, and this one starts afresh."""
    with written(directory, what) as place:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InputError(f"{what}: {place} holds something already; name a new directory (a run that goes on is jaxpolya.run's)")
        place.mkdir(parents=True, exist_ok=True)
        yield place
