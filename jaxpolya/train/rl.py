"""Reinforcement learning: rounds of rollouts from the current weights and updates on their verdicts.

A round (`rollout.rounds`) has P questions, G responses each; the verifier's rewards become advantages, by the `algorithm`; its groups are
split into `updates` optimizer steps, in each of `epochs` passes. The old policy's log-probs are the sampler's record, or computed anew by
the trainer before the first update; `sampler_kl` is how far apart the two are. A reference, where one is needed, is the model that
the arm's RL started from: a second copy of the parameters in the compute dtype, spread over the mesh as they are; with adapters it is the
frozen parameters, which are there.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from jaxpolya.config import RlConfig
from jaxpolya.data.packing import Batch, Example, pack, token_example, unpack
from jaxpolya.evaluation.audit import Tally, Watch, step_facts
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.progress import Task
from jaxpolya.records import Sample
from jaxpolya.rollout.respond import Prompt
from jaxpolya.rollout.rewards import mixed_groups, outcome_facts, reward_of, rewards_of
from jaxpolya.rollout.rounds import Rollouts, members
from jaxpolya.score.logprobs import score_rows, scoring_copy
from jaxpolya.train.adapters import adapted, begin
from jaxpolya.train.advantages import Rewards, estimate, kl_in_reward, soft_overlong_penalty
from jaxpolya.train.algorithms import Algorithm, make_algorithm, most_refills, needs_reference, overlong_buffer, policy_loss, value_head
from jaxpolya.train.checkpoints import Checkpoints
from jaxpolya.train.drift import Speed, drift_facts
from jaxpolya.train.health import Health
from jaxpolya.train.metrics import StepLog
from jaxpolya.train.objectives import policy_objective
from jaxpolya.train.sft import check_rows
from jaxpolya.train.sinks import Sinks
from jaxpolya.train.state import Measured, Step, abstract_state, init_state, make_optimizer, rate_after
from jaxpolya.train.validation import ROW, Validation
from jaxpolya.train.value import fresh_head, per_token, policy_of, targets, value_optimizer, with_head


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
    algorithm, _ = make_algorithm(config)
    value = value_head(config, algorithm)
    decoder = adapted(decoder, config.lora)
    trained = decoder if value is None else with_head(decoder)
    forward = Forward(decoder, dtype, temperature=config.sampling.temperature)
    of_trained, without = (dataclasses.replace(forward, config=of) for of in (trained, decoder.base))
    objective = policy_objective(dataclasses.replace(of_trained, remat=config.batching.remat == "block"), policy_loss(config, algorithm))
    still = 0 if value is None else value.warmup  # steps in which the policy doesn't move
    updates_a_step = config.updates * config.epochs
    if value is None:
        optimizer = warming = make_optimizer(config.optimizer, trained, config.steps * updates_a_step)
    else:
        optimizer, warming = (
            value_optimizer(config.optimizer, value, trained, config.steps, updates_a_step, warming=w) for w in (False, True)
        )
    checkpoints = Checkpoints(directory / "checkpoints")
    done = checkpoints.latest() or 0
    reference: Params | None = None
    looks_back = "start" in config.drift or ("base" in config.drift and base is None)
    refers, frozen = needs_reference(config, algorithm) or looks_back, Params()
    if refers or decoder.lora or not done:
        first = start()
        reference = scoring_copy(first, decoder, mesh, dtype) if refers and not decoder.lora else None
        first, frozen = begin(first, decoder, mesh, dtype, config.seed, "rl")
        reference = frozen if refers and decoder.lora else reference  # adapters begin at nothing
        first |= {} if value is None else fresh_head(decoder)
        state = init_state(first, trained, mesh, optimizer) if not done else {}
        del first
    update, warm_up = (Step(objective, trained, mesh, by, frozen) for by in (optimizer, warming))
    if done:
        state = checkpoints.restore(done, abstract_state(trained, mesh, optimizer))
    models = {} if reference is None else {"start": reference}
    if "base" in config.drift:
        models["base"] = models["start"] if base is None else scoring_copy(base(), decoder.base, mesh, dtype)
    speed = Speed()
    health = Health(directory, decoder.vocab_size, model)
    log = StepLog(directory / "steps.jsonl", keep=done, primary=is_primary(), sinks=sinks)
    if validation:
        validation.resume(log.rows)
    task.advance(done * config.prompts * config.group)
    watch = Watch(config.group, log.rows)
    refills = most_refills(config, algorithm)
    for step in range(done, config.steps):
        weights = policy_of(update.weights(state))
        round_ = rollouts.draw(step, weights, sum(row.get("refills", 0) for row in log.rows))
        task.phase("updating")
        asked, samples = round_.prompts, round_.samples
        parts = np.array_split(np.arange(config.prompts), config.updates)
        looked = {name: scored(params, without, mesh, samples, asked, parts, config) for name, params in models.items()}
        logps = {"logp_ref": looked["start"]} if needs_reference(config, algorithm) else {}
        if config.old_logprobs == "trainer":
            logps["logp_old"] = scored(weights, forward, mesh, samples, asked, parts, config)
        if value is not None:
            logps["value_old"] = scored(update.weights(state), of_trained, mesh, samples, asked, parts, config, "values")
        del weights  # the update consumes them
        examples, facts, learnt = make_examples(samples, asked, config, algorithm, logps)
        rated = round_.rated(learnt)
        if refills:
            facts |= outcome_facts([sample for piece in rated for sample in piece], config.group) | {"refills": len(rated) - 1}
        rollouts.write(step, rated)
        updates: list[Measured] = []
        for part in parts * config.epochs:
            batch = _packed([examples[i] for i in members(part, config.group)], config)
            state, measured = (warm_up if value and step < value.warmup else update).measured(state, batch, config.batching.micro_rows)
            updates.append(measured)
        facts |= Measured.of(updates).facts
        # The first update measures before it moves: what is between the two there is no learning.
        facts |= {"kl": facts["kl_k3"], "sampler_kl": updates[0].facts["sampler_kl"]}
        if not samples[0].logprobs:
            del facts["sampler_kl"]  # recorded by somebody who didn't say
        questions = {prompt.question.id: prompt.question for asked, _ in round_.pieces for prompt in asked}
        tally = Tally.of([sample for piece in rated for sample in piece], questions)
        health.check_step({"step": step, **facts})
        facts |= drift_facts(samples, config.group, looked)
        facts["learning_rate"] = rate_after(config.optimizer, (config.steps - still) * updates_a_step, (step - still) * updates_a_step)
        row = {"step": step, **facts, **step_facts(tally), "audit": tally.to_json(), "speed": speed.lap(tally.tokens)}
        if validation and validation.due(step + 1, config.steps):
            row[ROW] = validation.look(step + 1, policy_of(update.weights(state)))
        log.append(row)
        task.step(step + 1, config.steps, facts)
        for words in watch.see(log.rows[-1]):
            note(f"warning: {directory.name}, step {step}: {words}")
        if step + 1 in config.doses:
            keep(step + 1, policy_of(update.weights(state)))
        if validation and validation.stops:
            break  # before a checkpoint, from which a resumed stage would go on
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            checkpoints.save(step + 1, state)
            if validation:
                validation.saving(step + 1)
    checkpoints.close()
    health.check_end(state["params"], update.glance(state, batch, config.batching.micro_rows))
    return RlResult(policy_of(update.weights(state)), log.close())


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


def scored(
    params: Params,
    forward: Forward,
    mesh: Mesh,
    samples: Sequence[Sample],
    prompts: Sequence[Prompt],
    parts: Sequence[np.ndarray],
    config: RlConfig,
    what: Literal["logprobs", "values"] = "logprobs",
) -> list[np.ndarray]:
    """Log-probs (or values) of each response's tokens under `params`, float32, in the order of the samples.

    Computed on the updates' own batches (`parts`: their groups): the same rows of the same shapes are rounded alike.
    """
    by_place: dict[int, np.ndarray] = {}
    for part in parts:
        places = members(part, config.group)
        bare = [token_example(prompts[i // config.group].ids, samples[i].token_ids) for i in places]
        logp_RT = score_rows(params, forward, mesh, _packed(bare, config), config.batching.micro_rows, what)
        for i, values in zip(places, unpack(logp_RT, bare), strict=True):
            by_place[i] = values[-len(samples[i].token_ids) :]
    return [by_place[i] for i in range(len(samples))]


def _packed(examples: Sequence[Example], config: RlConfig) -> Batch:
    return pack(examples, row_tokens=config.batching.row_tokens, rows_multiple=config.batching.micro_rows)
