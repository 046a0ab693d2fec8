"""Reinforcement learning: rounds of rollouts from the current weights and updates on their verdicts.

A round (`rollout.rounds`) has P questions, G responses each; the verifier's rewards become advantages, by the `algorithm`; its groups are
split into `updates` optimizer steps, in each of `epochs` passes. Here is the order of a stage's steps, and what a round's rewards come to;
what is done to parameters is in `train.policy`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxpolya.config import RlConfig
from jaxpolya.data.packing import Example, token_example
from jaxpolya.evaluation.audit import Tally, Watch, step_facts
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.progress import Task
from jaxpolya.records import Sample
from jaxpolya.rollout.respond import Prompt
from jaxpolya.rollout.rewards import mixed_groups, outcome_facts, reward_of, rewards_of
from jaxpolya.rollout.rounds import Rollouts
from jaxpolya.train.advantages import Rewards, estimate, kl_in_reward, soft_overlong_penalty
from jaxpolya.train.algorithms import Algorithm, most_refills, overlong_buffer, value_head
from jaxpolya.train.checkpoints import Checkpoints
from jaxpolya.train.drift import Speed, drift_facts
from jaxpolya.train.health import Health
from jaxpolya.train.metrics import StepLog
from jaxpolya.train.policy import begin_policy
from jaxpolya.train.sft import check_rows
from jaxpolya.train.sinks import Sinks
from jaxpolya.train.validation import ROW, Validation
from jaxpolya.train.value import per_token, targets


@dataclasses.dataclass(frozen=True)
class RlResult:
    """What RL gives."""

    params: Params
    """With `config.lora`, the adapters are beside the frozen ones (`models.lora`)."""
    steps: list[dict[str, Any]]
    """Metrics of each round."""


def run_rl(
    config: RlConfig,
    decoder: DecoderConfig,
    start: Callable[[], Params],
    mesh: Mesh,
    rollouts: Rollouts,
    *,
    dtype: Any,
    directory: Path,
    task: Task,
    note: Callable[[str], None],
    keep: Callable[[int, Params], None],
    base: Callable[[], Params] | None = None,
    validation: Validation | None = None,
    model: str = "the model",
    sinks: Sinks | None = None,
) -> RlResult:
    """Trains from `start()`, or goes on from whatever `directory` holds.

    Args:
      config: the stage.
      decoder: the model.
      start: loads the parameters to start from, which are consumed; not called where there is a checkpoint to go on from that holds all of
        them and no reference is needed.
      mesh: where it runs.
      rollouts: where its rounds come from; an engine behind them is made for the adapters, if `config.lora`.
      dtype: compute dtype.
      directory: of the stage; `checkpoints/` and `steps.jsonl` are written below it.
      task: is advanced by the rollouts of the steps that are done already, and shows the reward.
      note: is told what the audit of rewards finds too large on the way.
      keep: is given the parameters after each number of steps in `config.doses`, before a checkpoint goes past it.
      base: loads the base model, where the arm doesn't start from it and `config.drift` asks how far the policy is from it.
      validation: looks at the model on the way, and may end the training.
      model: what `start` loads, as errors name it.
      sinks: are told the rows of `steps.jsonl` too.
    """
    check_rows(config.batching.micro_rows, mesh, "rl.batching.micro_rows")
    checkpoints = Checkpoints(directory / "checkpoints")
    done = checkpoints.latest() or 0
    trainer, state = begin_policy(config, decoder, start, base, mesh, dtype, checkpoints)
    health = Health(directory, decoder.vocab_size, model)
    log = StepLog(directory / "steps.jsonl", keep=done, primary=is_primary(), sinks=sinks)
    if validation:
        validation.resume(log.rows)
    task.advance(done * config.prompts * config.group)
    speed, watch = Speed(), Watch(config.group, log.rows)
    for step in range(done, config.steps):
        round_ = rollouts.draw(step, trainer.policy(state), sum(row.get("refills", 0) for row in log.rows))
        task.phase("updating")
        logps, divergences = trainer.score(round_, state)
        examples, facts, learnt = make_examples(round_.samples, round_.prompts, config, trainer.algorithm, logps)
        rated = round_.rated(learnt)
        rollouts.write(step, rated)
        state, measured = trainer.update(state, examples, step)

        facts |= _round_facts(rated, config, trainer.algorithm) | measured
        if not round_.samples[0].logprobs:
            del facts["sampler_kl"]  # recorded by somebody who didn't say
        health.check_step({"step": step, **facts})
        facts |= drift_facts(round_.samples, config.group, divergences) | {"learning_rate": trainer.rate(step)}
        tally = Tally.of([sample for piece in rated for sample in piece], round_.questions)
        row = {"step": step, **facts, **step_facts(tally), "audit": tally.to_json(), "speed": speed.lap(tally.tokens, round_.rows_busy)}
        if validation and validation.due(step + 1, config.steps):
            row[ROW] = validation.look(step + 1, trainer.policy(state))
        log.append(row)
        task.step(step + 1, config.steps, facts)
        for words in watch.see(log.rows[-1]):
            note(f"warning: {directory.name}, step {step}: {words}")

        if step + 1 in config.doses:
            keep(step + 1, trainer.policy(state))
        if validation and validation.stops:
            break  # before a checkpoint, from which a resumed stage would go on
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            checkpoints.save(step + 1, state)
            if validation:
                validation.saving(step + 1)
    checkpoints.close()
    health.check_end(state["params"], trainer.glance(state, examples))
    return RlResult(trainer.policy(state), log.close())


def _round_facts(rated: Sequence[Sequence[Sample]], config: RlConfig, algorithm: Algorithm) -> dict[str, float]:
    """What a round says of all that it asked, where it may ask further questions than those it learns from."""
    if not most_refills(config, algorithm):
        return {}
    return outcome_facts([sample for piece in rated for sample in piece], config.group) | {"refills": len(rated) - 1}


def make_examples(
    samples: Sequence[Sample],
    prompts: Sequence[Prompt],
    config: RlConfig,
    algorithm: Algorithm,
    logps: Mapping[str, Sequence[np.ndarray]],
) -> tuple[list[Example], dict[str, float], list[Sample]]:
    """(training examples, facts of the round, the samples with reward and advantage), all in the order of the samples.

    Samples come group by group, a group a prompt. A `harness_error` has no reward and its tokens stay out of the loss; so do
    those of truncated responses where `mask_truncated`, and those of groups without signal where the algorithm needs mixed ones.
    `logps` may hold each response's log-probs as the trainer found them, `logp_old` and `logp_ref`, and a value head's `value_old`. A
    recorded reward is what the verdict pays; what a length or a divergence takes off it shows in the advantage.
    """
    known = rewards_of(samples, config.group)
    lengths = np.array([len(sample.token_ids) for sample in samples]).reshape(-1, config.group)
    taken_off, kl_PGT = np.zeros(known.shape), None
    if buffer := overlong_buffer(config, algorithm):
        taken_off = soft_overlong_penalty(lengths, config.sampling.max_new_tokens, buffer)
    old = logps.get("logp_old", [np.asarray(sample.logprobs) for sample in samples])
    if config.kl is not None and config.kl.place == "reward":
        kl_PGT = kl_in_reward(old, logps["logp_ref"], known.shape, config.kl)
    values_PGT = per_token(logps["value_old"], known.shape) if "value_old" in logps else None
    rewards = Rewards(known + taken_off, lengths, kl_PGT, values_PGT)
    advantages = estimate(algorithm.advantages, rewards).reshape(len(samples), -1)
    learnt = (~np.isnan(known) & (mixed_groups(known)[:, None] if algorithm.needs.mixed_groups else True)).reshape(-1)
    if config.mask_truncated:
        learnt &= np.array([sample.finish != "length" for sample in samples])
    facts = outcome_facts(samples, config.group)
    if (value := value_head(config, algorithm)) is not None:
        returns_PGT, of_values = targets(rewards, value)
        returns = returns_PGT.reshape(len(samples), -1)
        logps = {**logps, "returns": [returns[i, : len(sample.token_ids)] for i, sample in enumerate(samples)]}
        facts |= of_values
    examples, rated = [], []
    for i, sample in enumerate(samples):
        own = advantages[i, : len(sample.token_ids)]  # one, or one a token
        along = np.broadcast_to(own, len(sample.token_ids))
        extras = {"logp_old": sample.logprobs} | {name: values[i] for name, values in logps.items()}
        if "logp_old" in logps and sample.logprobs:
            extras["logp_sampler"] = sample.logprobs
        example = token_example(prompts[i // config.group].ids, sample.token_ids, **extras, advantage=along)
        examples.append(example if learnt[i] else dataclasses.replace(example, weights=np.zeros_like(example.weights)))
        rated.append(dataclasses.replace(sample, reward=reward_of(sample), advantage=float(own.mean())))
    if buffer:
        facts["overlong_penalty"] = float(taken_off.mean())
    return examples, facts, rated
