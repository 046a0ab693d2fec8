"""The two trainings: fine-tuning on rows, and reinforcement learning on questions. Each gives a new model; the old one stays."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxpolya.api.asking import RECORDS, ROWS, ending, fitting, judging, output_file
from jaxpolya.api.looking import Best, as_fields, look_at, settle
from jaxpolya.api.model import Model
from jaxpolya.api.questions import Questions, Rows, as_questions, as_rows
from jaxpolya.config import LoraConfig, RlConfig, SftConfig, VerifyConfig
from jaxpolya.config.file import build
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.hf.adapter import Adapter, merge
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import data_shards, to_host
from jaxpolya.polya.lessons import Lessons
from jaxpolya.progress import Display
from jaxpolya.records import iter_json
from jaxpolya.rollout.recordings import open_recording
from jaxpolya.rollout.replay import Model as TextModel
from jaxpolya.rollout.replay import RecordedRounds, check_recording
from jaxpolya.rollout.respond import try_kinds
from jaxpolya.rollout.rewards import make_pay, try_pay
from jaxpolya.rollout.rounds import Live, Rollouts
from jaxpolya.train.adapters import adapted
from jaxpolya.train.algorithms import make_algorithm, most_refills
from jaxpolya.train.rl import run_rl
from jaxpolya.train.sft import run_sft, sft_batches, sft_examples, split_heldout

MICRO_ROWS = 4
"""Packed rows of one pass, where nobody says, up to what the mesh divides."""

SHARING = 4
"""Times that such a row is longer, and rows of a pass are fewer, where responses share their prompt: it is to have room for several."""

LANE = 128
"""Packed rows are a multiple of so many tokens."""

NEVER = 2**31 - 1
"""Steps between two checkpoints, where nothing is to go on from one."""


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training gives."""

    model: Model
    stats: dict[str, Any]
    """Of fine-tuning: rows, steps, tokens, and the first and last losses, held-out ones too (nats per token). With a validation:
    `validation`, which step's model this is, and the metric at every look."""
    steps: list[dict[str, Any]]
    """What was measured in each step, or round of RL."""
    doses: dict[int, Model] = dataclasses.field(default_factory=dict)
    """RL's models on the way, by the steps done, where `evaluate_at` asked for them."""


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
    validation: Mapping[str, Any] | None = None,
    verify: VerifyConfig | None = None,
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
      validation: looks at the model on the way, as in `rl`; its metric may be `heldout_loss` too.
      verify: the verifier's limits in a validation, and what it accepts.
      directory: where `steps.jsonl` is kept; it must not hold anything yet. Unset keeps nothing.
      quiet: shows no progress.
      settings: further fields of `config.SftConfig`: `seed`, and `lora`, whose adapters are merged into what is given.

    Raises:
      ConfigError: an argument is out of its range.
      InputError: a record can't be learned, or is longer than the model's positions; or the model is broken.
      RunError: the training has diverged.
    """
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
        batch_rows=packed["micro_rows"] if batch_rows is None else batch_rows,
        **{"checkpoint_every": NEVER, **as_fields(validation, "sft"), **settings},
    )  # fmt: skip
    if longest > (room := min(config.batching.row_tokens, checkpoint.config.context)):
        raise InputError(
            f"sft: a row has {longest} tokens with its prompt, and there is room for {room} (batching.row_tokens, and the model's "
            "positions); leave it out"
        )
    learnt, held = (sft_examples(part, longest)[0] for part in split_heldout(lessons, config.heldout, config.seed))

    def left(params: Params) -> Model:
        return model.with_params(_whole(model, config.lora, params), stop_ids, f"{model.name}, fine-tuned")

    best, looks = Best(lambda params: left(_apart(params, config.lora))), None
    with (
        _fresh(directory, "sft") as place,
        judging(verify) if validation else contextlib.nullcontext() as pool,
        Display(quiet=quiet).task("sft", sft_batches(config, learnt).steps) as task,
    ):
        if config.validation and validation and pool:
            looks = look_at(
                model, builder, validation["questions"], config.validation, best, what="sft", pool=pool, directory=place, lora=config.lora
            )
        result = run_sft(
            config, checkpoint.config, lambda: _copy(checkpoint.params), model.mesh, learnt, held,
            dtype=model.dtype, directory=place, task=task, model=model.name, validation=looks,
        )  # fmt: skip
        trained, facts = settle(looks, best, result.stats["steps"], lambda: left(result.params))
        return TrainingResult(trained, result.stats | facts, _steps(place))


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
    validation: Mapping[str, Any] | None = None,
    verify: VerifyConfig | None = None,
    rows: int = ROWS,
    directory: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> TrainingResult:
    """Policy gradients on questions, with the verifier's reward or one's own.

    Args:
      model: to start from; it stays as it is, beside the trained one.
      questions: dictionaries with `question` and `answer`, or `Question`s; at least `prompts`. With `replay` those that its records name,
        if any: an empty list will do, where `batching.row_tokens` says how long a packed row is.
      steps: rounds of rollouts and updates.
      prompts: questions a round.
      group: responses per question.
      max_new_tokens: of a response.
      learning_rate: the peak.
      algorithm: a name (docs/algorithms.md), or an `Algorithm` of one's own, at the top level of a file.
      sampling, optimizer, batching: further fields of `config.Sampling`, `config.Optimizer` and `config.Batching`. Packed rows are as long
        as the longest prompt and response, four times as long with `share_prompts`, unless `batching.row_tokens` says.
      validation: looks at the model on the way: a dictionary with `questions` of its own (a list as above), `sampling`, and further
        fields of `config.ValidationConfig`. The model of the best look is given, unless `keep` is `last`.
      verify: the verifier's limits, and what it accepts.
      rows: responses decoded side by side.
      directory: where `steps.jsonl` and `rollouts/` are kept; it must not hold anything yet. Unset keeps nothing.
      quiet: shows no progress.
      settings: further fields of `config.RlConfig`, such as `kl`, `updates`, `seed`, `lora`, or a door of it with an object of one's
        own, such as `reward` with a function. `replay` learns from recorded rollouts and asks nobody (docs/extending.md). `evaluate_at`
        gives the models after so many steps too, in `doses`.

    Raises:
      ConfigError: an argument is out of its range, or there are fewer questions than `prompts`.
      InputError: a record can't be asked or judged, or its prompt doesn't fit the model; or the model is broken.
      RunError: the training has diverged, or no group has anything to learn from where the algorithm needs that.
    """
    replayed = settings.get("replay") is not None
    asked = as_questions(questions, "rl") if questions or not replayed else []
    if not asked and "row_tokens" not in (batching or {}):
        raise ConfigError("rl: without questions nothing says how long a row of `replay` is; set batching={'row_tokens': …}")
    builder, checkpoint = model.prompt_builder(), model.checkpoint
    drawn = {"max_new_tokens": max_new_tokens, **(sampling or {})}

    def configured(longest: int) -> RlConfig:
        return build(
            RlConfig, "rl", questions=RECORDS, sampling=drawn, optimizer={"learning_rate": learning_rate, **(optimizer or {})},
            batching=_batching(model, longest, batching, SHARING if settings.get("share_prompts") else 1), steps=steps, prompts=prompts,
            group=group, algorithm=algorithm,
            **{"checkpoint_every": NEVER, **as_fields(validation, "rl"), **settings},
        )  # fmt: skip

    loose = configured(checkpoint.config.context)  # checked before prompts are made
    room = loose.batching.row_tokens if "row_tokens" in (batching or {}) else None
    made = fitting(model, builder, [(question, None) for question in asked], loose.sampling, "rl", tokens=room) if asked else []
    config = configured(max((len(prompt.ids) for prompt in made), default=0) + loose.sampling.max_new_tokens)
    refills, stop_ids = most_refills(config, make_algorithm(config)[0]), builder.stop_ids(checkpoint.stop_ids)

    def left(params: Params, steps: int | None = None) -> Model:
        after = "RL" if steps is None else f"{steps} steps of RL"
        return model.with_params(_whole(model, config.lora, params), stop_ids, f"{model.name}, after {after}")

    best, doses, looks = Best(lambda params: left(_apart(params, config.lora))), dict[int, Model](), None
    display = Display(quiet=quiet)
    with (
        _fresh(directory, "rl") as place,
        judging(verify) if validation or not replayed else contextlib.nullcontext() as pool,
        display.task("rl", config.steps * config.prompts * config.group) as task,
    ):
        if config.replay:
            text = TextModel(checkpoint.config.vocab_size, builder.encode, builder.spelling.decode)
            recording = open_recording(config, "rl")
            check_recording(config, recording, text, refills)
            rounds: Rollouts = RecordedRounds(config, recording, text, made, arm="rl", directory=place, refills=refills, task=task)
        else:
            assert pool is not None
            engine = model.engine(
                builder, [prompt.ids for prompt in made], ending(config.sampling, builder), config.group, rows=rows,
                at_a_time=config.prompts, lora=config.lora,
            )  # fmt: skip
            rounds = Live(config, made, engine, pool, arm="rl", directory=place, refills=refills, task=task)
            try_kinds([prompt.question for prompt in made], pool)
            try_pay(make_pay(config), made[0].question, pool)
        if config.validation and validation and pool:
            looks = look_at(
                model, builder, validation["questions"], config.validation, best, what="rl", pool=pool, directory=place, lora=config.lora
            )

        def keep(step: int, params: Params) -> None:
            doses[step] = left(_apart(params, config.lora), step)

        result = run_rl(
            config, checkpoint.config, lambda: _copy(checkpoint.params), model.mesh, rounds, dtype=model.dtype,
            directory=place, task=task, note=display.note, keep=keep, validation=looks, model=model.name,
        )  # fmt: skip
    measured = [{name: value for name, value in step.items() if name != "audit"} for step in result.steps]
    trained, facts = settle(looks, best, len(measured), lambda: left(result.params))
    doses |= {step: trained for step in config.evaluate_at if step not in doses}  # the last one, where nothing else is kept of it
    return TrainingResult(trained, {"steps": len(measured)} | facts, measured, doses)


def _batching(model: Model, longest: int, given: Mapping[str, Any] | None, times: int = 1) -> dict[str, Any]:
    """Rows for so many sequences of the longest, as many at a time as the mesh divides, unless the caller says."""
    shards = data_shards(model.mesh)
    rows = {"row_tokens": -(-times * longest // LANE) * LANE, "micro_rows": -(-MICRO_ROWS // (times * shards)) * shards}
    return {**rows, **(given or {})}


def _copy(params: Params) -> Params:
    """Parameters that a training may consume."""
    return jax.tree.map(jnp.copy, params)


def _apart(params: Params, lora: LoraConfig | None) -> Params:
    """Parameters that a training goes on with, to be kept: a copy, but of adapters, which are merged into one."""
    return params if lora else _copy(params)


def _whole(model: Model, lora: LoraConfig | None, params: Params) -> Params:
    """The parameters that a training left: where it trained adapters, merged into the model's own in float32."""
    config = adapted(model.checkpoint.config, lora)
    if config.lora is None:
        return params
    factors = {name: leaf for name, leaf in params["blocks"].items() if "_lora_" in name}
    return merge(_copy(model.checkpoint.params), Adapter(to_host(factors), config.lora, model.name), config.base)


def _steps(directory: Path) -> list[dict[str, Any]]:
    return [row for _, row in iter_json(directory / "steps.jsonl")]


@contextlib.contextmanager
def _fresh(directory: str | Path | None, what: str) -> Iterator[Path]:
    """A directory with nothing in it: a training goes on from whatever its directory holds, and this one starts afresh."""
    with output_file(directory, what) as place:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InputError(f"{what}: {place} holds something already; name a new directory (a run that goes on is jaxpolya.run's)")
        place.mkdir(parents=True, exist_ok=True)
        yield place
