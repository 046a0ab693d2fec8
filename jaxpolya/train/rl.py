"""Reinforcement learning: rounds of rollouts from the current weights and updates on their verdicts.

A round asks P questions, G responses each; the verifier's rewards become advantages, by the `algorithm`; the round's groups are
split into `updates` optimizer steps. The sampler's recorded log-probs are those of the old policy: it and the trainer compute
the same quantity.

Rollouts are written, with their verdicts, as they happen, one file a round, so a killed round keeps what was finished. A round
after the last checkpoint is trained on again from those files: the weights that drew them are the weights that would draw
them now, bit for bit.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from jax.sharding import Mesh

from jaxpolya.config import RlConfig
from jaxpolya.data.packing import Example, pack, token_example
from jaxpolya.decode.engine import Engine
from jaxpolya.errors import ConfigError
from jaxpolya.evaluate.audit import Tally, Watch, step_facts
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.polya.respond import Asking, Prompt, respond
from jaxpolya.progress import Task
from jaxpolya.records import Sample, Verdict, write_records
from jaxpolya.train.advantages import Rewards, estimate
from jaxpolya.train.algorithms import Algorithm, make_algorithm, policy_loss
from jaxpolya.train.checkpoints import Checkpoints
from jaxpolya.train.health import Health
from jaxpolya.train.metrics import StepLog
from jaxpolya.train.objectives import Forward, policy_objective
from jaxpolya.train.sft import check_rows
from jaxpolya.train.state import Measured, Step, abstract_state, init_state, make_optimizer
from jaxpolya.verify.pool import Pool


@dataclasses.dataclass(frozen=True)
class RlResult:
    """What RL gives."""

    params: Params
    steps: list[dict[str, Any]]
    """Metrics of each round."""


def round_prompts(prompts: Sequence[Prompt], config: RlConfig, step: int) -> list[Prompt]:
    """The questions of a round: the next piece of a shuffled pass.

    A pass ends with its last whole piece, so that no question is asked twice in a round.
    """
    epoch, piece = divmod(step, len(prompts) // config.prompts)
    order = grain.MapDataset.range(len(prompts)).seed(config.seed).shuffle().repeat()  # each pass anew, and not as another seed's
    first = epoch * len(prompts) + piece * config.prompts
    return [prompts[order[i]] for i in range(first, first + config.prompts)]


def check_prompts(prompts: Sequence[Prompt], config: RlConfig) -> None:
    """Raises `ConfigError` where a round asks more questions than there are."""
    if len(prompts) < config.prompts:
        raise ConfigError(f"rl.prompts ({config.prompts}) is larger than the number of RL questions that fit ({len(prompts)}); lower it")


def run_rl(
    config: RlConfig,
    decoder: DecoderConfig,
    start: Callable[[], Params],
    mesh: Mesh,
    prompts: Sequence[Prompt],
    engine: Engine,
    pool: Pool,
    *,
    arm: str,
    dtype: Any,
    directory: Path,
    task: Task,
    note: Callable[[str], None],
) -> RlResult:
    """Trains from `start()`, or goes on from whatever `directory` holds.

    Args:
      config: the stage.
      decoder: the model.
      start: loads the parameters to start from, which are consumed; not called where there is a checkpoint to go on from.
      mesh: where it runs.
      prompts: of all RL questions.
      engine: made for them, with `config.group` samples.
      pool: the verifier.
      arm: named in the records.
      dtype: compute dtype.
      directory: of the stage; `checkpoints/`, `rollouts/` and `steps.jsonl` are written below it.
      task: is advanced by one a rollout.
      note: is told what the audit of rewards finds too large on the way.
    """
    check_prompts(prompts, config)
    check_rows(config.batching.micro_rows, mesh, "rl.batching.micro_rows")
    algorithm, _ = make_algorithm(config)
    optimizer = make_optimizer(config.optimizer, config.steps * config.updates)
    objective = policy_objective(
        Forward(decoder, dtype, remat=config.batching.remat == "block", temperature=config.sampling.temperature),
        policy_loss(config, algorithm),
    )
    update = Step(objective, decoder, mesh, optimizer)
    checkpoints = Checkpoints(directory / "checkpoints")
    done = checkpoints.latest() or 0
    if done:
        state = checkpoints.restore(done, abstract_state(decoder, mesh, optimizer))
    else:
        state = init_state(start(), decoder, mesh, optimizer)
    health = Health(directory, decoder.vocab_size, engine.model)
    log = StepLog(directory / "steps.jsonl", keep=done, primary=is_primary())
    task.advance(done * config.prompts * config.group)
    watch = Watch()
    for step in range(done, config.steps):
        asking = Asking(arm, "rl", config.group, config.seed, first_sequence=step * config.prompts * config.group, step=step)
        file = directory / "rollouts" / f"{step:06d}.jsonl"
        asked = round_prompts(prompts, config, step)
        weights: Params = state["params"]
        samples = respond(engine, lambda weights=weights: weights, asked, asking, pool=pool, out=file, task=task)  # type: ignore[misc]
        del weights  # the update consumes them
        examples, facts, rated = make_examples(samples, asked, config, algorithm)
        if is_primary():
            write_records(file, rated)
        updates: list[Measured] = []
        for part in np.array_split(np.arange(config.prompts), config.updates):
            chosen = [example for group in part for example in examples[group * config.group : (group + 1) * config.group]]
            batch = pack(chosen, row_tokens=config.batching.row_tokens, rows_multiple=config.batching.micro_rows)
            state, measured = update.measured(state, batch, config.batching.micro_rows)
            updates.append(measured)
        facts |= Measured.of(updates).facts
        facts["kl"] = facts["kl_k3"]
        tally = Tally.of(rated, {prompt.question.id: prompt.question for prompt in asked})
        health.check_step({"step": step, **facts})
        log.append({"step": step, **facts, **step_facts(tally), "audit": tally.to_json()})
        task.advance(0, reward=facts["reward"])
        for words in watch.see(tally):
            note(f"warning: {directory.name}, step {step}: {words}")
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            checkpoints.save(step + 1, state)
    checkpoints.close()
    health.check_end(state["params"], update.glance(state, batch, config.batching.micro_rows))
    return RlResult(state["params"], log.close())


def make_examples(
    samples: Sequence[Sample], prompts: Sequence[Prompt], config: RlConfig, algorithm: Algorithm
) -> tuple[list[Example], dict[str, float], list[Sample]]:
    """(training examples, facts of the round, the samples with reward and advantage), all in the order of the samples.

    Samples come group by group, a group a prompt. A `harness_error` has no reward and its tokens stay out of the loss; so do
    those of truncated responses where `mask_truncated`, and those of groups without signal where the algorithm needs mixed ones.
    """
    rewards = [reward_of(sample) for sample in samples]
    known = np.array([np.nan if reward is None else reward for reward in rewards]).reshape(-1, config.group)
    lengths = np.array([len(sample.token_ids) for sample in samples]).reshape(-1, config.group)
    groups = estimate(algorithm.advantages, Rewards(known, lengths))
    learnt_PG = groups.valid_PG & (groups.signal_P[:, None] if algorithm.needs.mixed_groups else True)
    learnt, advantages = learnt_PG.reshape(-1).copy(), groups.advantages_PGT.reshape(len(samples), -1)
    truncated = np.array([sample.finish == "length" for sample in samples])
    if config.mask_truncated:
        learnt &= ~truncated
    examples, rated = [], []
    for i, sample in enumerate(samples):
        own = advantages[i, : len(sample.token_ids)]  # one, or one a token
        along = np.broadcast_to(own, len(sample.token_ids))
        example = token_example(prompts[i // config.group].ids, sample.token_ids, logp_old=sample.logprobs, advantage=along)
        examples.append(example if learnt[i] else dataclasses.replace(example, weights=np.zeros_like(example.weights)))
        rated.append(dataclasses.replace(sample, reward=rewards[i], advantage=float(own.mean())))
    counts = groups.stats
    facts = {
        "reward": counts["reward_sum"] / max(counts["reward_count"], 1),
        "length": float(np.mean([len(sample.token_ids) for sample in samples])),
        "truncated": float(truncated.mean()),
        "unparseable": float(np.mean([sample.verdict == "unparseable" for sample in samples])),
        "cut_short": float(np.mean([sample.verdict in Verdict.LIMITED for sample in samples])),
        "no_signal": counts["no_signal"] / counts["groups"],
        "masked": counts["masked"] / len(samples),
    }
    return examples, facts, rated


def reward_of(sample: Sample) -> float | None:
    """The verdict's pay, or None where it is masked."""
    return Verdict.PAYS[sample.verdict] if sample.verdict else None
