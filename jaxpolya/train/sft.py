"""Mid-training: supervised fine-tuning on selected responses, given the bare question.

Loss is on the response only, its stop token included. Rows of some questions are held out to measure what was learnt beyond
them. Batches are functions of the step number, so that a resumed stage needs its weights, its step and nothing else.
"""

import dataclasses
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxpolya.config import SftConfig
from jaxpolya.data.packing import Batch, Example, PackedBatches, pack, token_example
from jaxpolya.errors import ConfigError, RunError, not_finite
from jaxpolya.files import write_whole
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import batch_to_mesh, data_shards, is_primary, to_host
from jaxpolya.progress import Task
from jaxpolya.records import SftRow
from jaxpolya.train.adapters import adapted, begin
from jaxpolya.train.checkpoints import Checkpoints
from jaxpolya.train.drift import Speed
from jaxpolya.train.health import Health
from jaxpolya.train.metrics import StepLog
from jaxpolya.train.objectives import sft_objective
from jaxpolya.train.sinks import Sinks
from jaxpolya.train.state import Pending, Step, abstract_state, init_state, make_evaluation, make_optimizer, rate_after
from jaxpolya.train.validation import HELDOUT, ROW, Validation


@dataclasses.dataclass(frozen=True)
class SftResult:
    """What mid-training gives."""

    params: Params
    """With `config.lora`, the adapters are beside the frozen ones (`models.lora`)."""
    stats: dict[str, Any]
    """rows, tokens, steps, loss_first, loss_last, heldout_first, heldout_last (nats per token), too_long."""


def split_heldout(rows: Sequence[SftRow], share: float, seed: int) -> tuple[list[SftRow], list[SftRow]]:
    """(training rows, held-out rows), split by question; at least one question is held out if share > 0 and there are two."""
    ids = sorted({row.question_id for row in rows})
    count = min(max(1, round(share * len(ids))), len(ids) - 1) if share else 0
    held = set(random.Random(f"heldout/{seed}").sample(ids, count))
    return [row for row in rows if row.question_id not in held], [row for row in rows if row.question_id in held]


def sft_examples(rows: Sequence[SftRow], longest: int) -> tuple[list[Example], int]:
    """(examples of at most `longest` tokens, how many were longer). Raises `InputError` for a row without tokens."""
    kept = [row for row in rows if row.length <= longest]
    return [token_example(row.prompt_ids or (), row.token_ids or ()) for row in kept], len(rows) - len(kept)


def sft_batches(config: SftConfig, examples: Sequence[Example]) -> PackedBatches:
    """The batches of all epochs. Raises `RunError` where there is nothing to pack."""
    if not examples:
        raise RunError(f"no training row fits sft.batching.row_tokens ({config.batching.row_tokens}); raise it")
    return PackedBatches(
        examples, row_tokens=config.batching.row_tokens, batch_rows=config.batch_rows, epochs=config.epochs, seed=config.seed
    )


def run_sft(
    config: SftConfig,
    decoder: DecoderConfig,
    start: Callable[[], Params],
    mesh: Mesh,
    train: Sequence[Example],
    heldout: Sequence[Example],
    *,
    dtype: Any,
    directory: Path,
    task: Task,
    model: str = "the model",
    validation: Validation | None = None,
    sinks: Sinks | None = None,
) -> SftResult:
    """Fine-tunes from `start()`, or goes on from whatever `directory` holds.

    Args:
      config: the stage.
      decoder: the model.
      start: loads the parameters to start from, which are consumed; not called where there is a checkpoint to go on from that holds all of
        them.
      mesh: where it runs.
      train, heldout: examples; none longer than `config.batching.row_tokens`.
      dtype: compute dtype.
      directory: of the stage; `checkpoints/`, `steps.jsonl` and `heldout.json` are written below it.
      task: is advanced by one a step.
      model: what `start` loads, as errors name it.
      validation: looks at the model on the way, and may end the training.
      sinks: are told the rows of `steps.jsonl` too.

    Raises:
      InputError: the model is broken, or the newest checkpoint.
      RunError: the training has diverged, or the network has died.
    """
    check_rows(config.batching.micro_rows, mesh, "sft.batching.micro_rows")
    decoder = adapted(decoder, config.lora)
    batches = sft_batches(config, train)
    optimizer = make_optimizer(config.optimizer, decoder, batches.steps)
    objective = sft_objective(Forward(decoder, dtype, remat=config.batching.remat == "block"))
    heldout_loss = _heldout(config, decoder, mesh, heldout, dtype)
    health = Health(directory, decoder.vocab_size, model)
    checkpoints = Checkpoints(directory / "checkpoints")
    done = checkpoints.latest()
    trained, frozen = begin(start(), decoder, mesh, dtype, config.seed, "sft") if done is None or decoder.lora else ({}, {})
    update = Step(objective, decoder, mesh, optimizer, frozen)
    if done is None:
        state = init_state(trained, decoder, mesh, optimizer)
        del trained
        first = heldout_loss(update.weights(state))
        if first is not None and not math.isfinite(first):
            raise not_finite(model, "log-probs of held-out responses", dtype)
        if is_primary():
            write_whole(directory / "heldout.json", json.dumps({"first": first}))
    else:
        state = checkpoints.restore(done, abstract_state(decoder, mesh, optimizer))
    log = StepLog(directory / "steps.jsonl", keep=done or 0, primary=is_primary(), sinks=sinks)
    if validation:
        validation.resume(log.rows)
    task.advance(done or 0)
    speed = Speed()

    def finish(step: int, pending: Pending) -> None:
        """Waits for a step, and puts on record what it measured."""
        facts = pending.measured().facts
        health.check_step({"step": step, **facts})
        facts["learning_rate"] = rate_after(config.optimizer, batches.steps, step)
        row: dict[str, Any] = {"step": step, **facts, "speed": speed.lap(facts["tokens"])}
        if validation and validation.due(step + 1, batches.steps):
            loss = heldout_loss(weights := update.weights(state))
            row[ROW] = validation.look(step + 1, weights, {} if loss is None else {HELDOUT: loss})
        log.append(row)
        task.advance(1)
        task.step(step + 1, batches.steps, facts)

    # A step is dispatched before the one before it is waited for, but where what comes next rests on its outcome.
    running: tuple[int, Pending] | None = None
    for step, batch in enumerate(batches.stream(done or 0), done or 0):
        state, pending = update.dispatch(state, batch, config.batching.micro_rows)
        if running:
            finish(*running)
        running = (step, pending)
        saves = (step + 1) % config.checkpoint_every == 0 and step + 1 < batches.steps
        if saves or step + 1 == batches.steps or (validation and validation.due(step + 1, batches.steps)):
            finish(*running)
            running = None
        if validation and validation.stops:
            break  # before a checkpoint, from which a resumed stage would go on
        if saves:
            checkpoints.save(step + 1, state)
            if validation:
                validation.saving(step + 1)
    if running:
        finish(*running)
    checkpoints.close()
    steps = log.close()
    health.check_end(state["params"], update.glance(state, batch, config.batching.micro_rows))
    stats = {
        "rows": len(train),
        "steps": len(steps),
        "tokens": int(sum(example.weights.sum() for example in train)) * config.epochs,
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "heldout_rows": len(heldout),
        "heldout_first": json.loads((directory / "heldout.json").read_text())["first"],
        "heldout_last": heldout_loss(update.weights(state)),
    }
    return SftResult(update.weights(state), stats)


def _heldout(config: SftConfig, decoder: DecoderConfig, mesh: Mesh, examples: Sequence[Example], dtype: Any) -> Any:
    """A function params → mean loss over the held-out tokens (nats), or None without any."""
    if not examples:
        return lambda params: None
    rows = config.batching.micro_rows
    packed: Batch = pack(examples, row_tokens=config.batching.row_tokens, rows_multiple=rows)
    evaluate = make_evaluation(sft_objective(Forward(decoder, dtype)), decoder, mesh)

    def loss(params: Params) -> float:
        with jax.set_mesh(mesh):
            parts = [
                to_host(evaluate(params, batch_to_mesh({name: array[i : i + rows] for name, array in packed.items()}, mesh))["loss"])
                for i in range(0, len(packed["tokens"]), rows)
            ]
        return float(sum(part.sum for part in parts) / sum(part.count for part in parts))

    return loss


def check_rows(rows: int, mesh: Mesh, key: str) -> None:
    """Raises `ConfigError` where the mesh's data shards don't divide a number of rows."""
    if rows % data_shards(mesh):
        raise ConfigError(
            f"{key} ({rows}) is not a multiple of the mesh's {data_shards(mesh)} data shards (replica × fsdp); "
            f"set it to {-(-rows // data_shards(mesh)) * data_shards(mesh)}, or give the mesh a larger tensor axis"
        )
