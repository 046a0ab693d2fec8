"""The two trainings: fine-tuning on a recipe's rows, and RL from an arm's model."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from jaxpolya.arms import Arm, Recipe
from jaxpolya.config import LoraConfig, Optimizer, RlConfig, SftConfig
from jaxpolya.errors import RunError
from jaxpolya.evaluation.audit import Tally, audit_steps
from jaxpolya.evaluation.collapse import first_collapse
from jaxpolya.files import file_digest
from jaxpolya.hf.adapter import Adapter, read_adapter, save_adapter
from jaxpolya.hf.checkpoint import save_checkpoint
from jaxpolya.keys import Key
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.hosts import from_primary
from jaxpolya.parallel.mesh import to_host
from jaxpolya.progress import Task
from jaxpolya.records import Sample, SftRow, read_records
from jaxpolya.rollout.recordings import open_recording
from jaxpolya.rollout.replay import RecordedRounds
from jaxpolya.rollout.rewards import make_pay
from jaxpolya.rollout.rounds import Live, Rollouts, rollout_file
from jaxpolya.runs.identity import meaning, stage_fields
from jaxpolya.runs.questions import Questions
from jaxpolya.runs.session import Model, Session, kept_model
from jaxpolya.runs.stages import Stage
from jaxpolya.runs.validate import ModelSnapshots, settled, validation_of
from jaxpolya.train.adapters import adapted
from jaxpolya.train.algorithms import make_algorithm, most_refills
from jaxpolya.train.rl import run_rl
from jaxpolya.train.sft import run_sft, sft_batches, sft_examples, split_heldout
from jaxpolya.train.validation import HELDOUT, Validation


def fine_tune(session: Session, rows: Mapping[Recipe, Path], questions: Questions) -> dict[Arm, Model]:
    """The model of every arm without RL, the base model's included."""
    models = {
        arm: session.base for arm in (Arm(recipe) for recipe in {arm.recipe for arm in session.config.compared}) if not arm.recipe.trained
    }
    for recipe, file in rows.items():
        assert session.config.sft is not None
        models[Arm(recipe)] = _fine_tuned(session, session.config.sft, recipe, file, questions)
    return models


def reinforce(session: Session, models: Mapping[Arm, Model], questions: Questions) -> dict[Arm, Model]:
    """The models, and those that RL makes of them."""
    trained, config = dict(models), session.config.rl
    for arm in session.config.reinforced:
        assert config is not None
        start = models[arm.start]
        stage, base = _reinforced(session, config, arm, start, questions), root(start) if config.lora else None
        trained[arm] = Model.of(stage, base=base)
        for step in config.doses:
            trained[dataclasses.replace(arm, step=step)] = Model.of(stage, step, base)
    return trained


def _fine_tuned(session: Session, config: SftConfig, recipe: Recipe, file: Path, questions: Questions) -> Model:
    identity = {"sft": stage_fields(config), "rows": file_digest(file), **session.known_by(session.base)}
    if looked_at := questions.validation.get("sft"):
        identity |= {"validation": looked_at[0].stage.directory.name, **session.policy}
    stage = session.stage(Key("sft", recipe.name), {**identity, **meaning("prompts"), **_training(session, config.optimizer)})
    kept = ModelSnapshots(stage.directory, writer(session, config.lora, session.base))

    def train() -> dict[str, Any]:
        rows, heldout_rows = split_heldout(read_records(file, SftRow), config.heldout, config.seed)
        longest = min(config.batching.row_tokens, session.meta.config.context)
        examples, too_long = sft_examples(rows, longest)
        heldout, heldout_too_long = sft_examples(heldout_rows, longest)
        validation = None
        if config.validation and looked_at:
            if config.validation.metric == HELDOUT and not heldout:
                raise RunError(f"{stage.name}: sft.validation.metric is {HELDOUT}, and no row is held out; raise sft.heldout")
            validation = validation_of(session, config.validation, looked_at[1].prompts, Arm(recipe), stage, kept, config.lora)
        with session.display.task(stage.name, sft_batches(config, examples).steps) as task, session.logged(stage) as sinks:
            result = run_sft(
                config, session.meta.config, lambda: session.take(session.base), session.mesh, examples, heldout,
                dtype=session.dtype, directory=stage.directory, task=task, model=session.base.source,
                validation=validation, sinks=sinks,
            )  # fmt: skip
        left = _leave(validation, kept, result.stats["steps"], result.params)
        return {**result.stats, "too_long": too_long + heldout_too_long, **left}

    session.do(stage, train)
    return Model.of(stage, base=session.base if config.lora else None)


def _reinforced(session: Session, config: RlConfig, arm: Arm, start: Model, questions: Questions) -> Stage:
    assert questions.rl is not None and questions.rl_prompts is not None
    asked, prompts, too_long = questions.rl, questions.rl_prompts.prompts, questions.rl_prompts.too_long
    identity = {"rl": rl_fields(config), "questions": asked.stage.directory.name, **session.policy, **session.known_by(start)}
    if looked_at := questions.validation.get("rl"):
        identity["validation"] = looked_at[0].stage.directory.name
    recording = open_recording(config, arm.slug) if config.replay else None
    if recording:
        identity["replay"] = recording.identity
    stage = session.stage(Key("rl", arm.slug), {**identity, **_training(session, config.optimizer)})

    def train() -> dict[str, Any]:
        validation = None
        if config.validation and looked_at:
            validation = validation_of(session, config.validation, looked_at[1].prompts, arm, stage, kept, config.lora)
        base = None if start.identity == session.base.identity else lambda: session.take(session.base)
        name = f"{start.source}, as the arm {arm.name} trained it"
        refills = most_refills(config, make_algorithm(config)[0])
        settings: dict[str, Any] = {"arm": arm.name, "directory": stage.directory, "refills": refills}

        def rollouts(task: Task) -> Rollouts:
            if recording:
                return RecordedRounds(config, recording, session.text_model, prompts, task=task, **settings)
            engine = session.engine(prompts, config.sampling, config.group, name, at_a_time=config.prompts, lora=config.lora)
            return Live(config, prompts, engine, session.pool, task=task, **settings)

        with session.display.task(stage.name, config.steps * config.prompts * config.group) as task, session.logged(stage) as sinks:
            result = run_rl(
                config, session.meta.config, lambda: session.take(start), session.mesh, rollouts(task), dtype=session.dtype,
                directory=stage.directory, task=task, note=session.display.note, keep=kept.save, base=base, validation=validation,
                model=name, sinks=sinks,
            )  # fmt: skip
        left = _leave(validation, kept, len(result.steps), result.params)
        tokens = sum(step["length"] * (1 + step.get("refills", 0)) for step in result.steps) * config.prompts * config.group
        audit = session.audited(lambda: _audit(session, stage, config.group, result.steps, questions))
        return {"steps": len(result.steps), "tokens": round(tokens), "too_long": too_long, **audit, **left}

    kept = ModelSnapshots(stage.directory, writer(session, config.lora, start), config.doses)
    if lacking := from_primary([step for step in config.doses if not kept_model(stage.directory, step).exists()]):
        session.train_again(stage, lacking)
    session.do(stage, train)
    return stage


def _training(session: Session, optimizer: Optimizer) -> dict[str, Any]:
    """What training's code means. It once let norms decay that span several heads: where that mattered, a stage is another one now."""
    mattered = optimizer.weight_decay > 0 and session.meta.config.qk_norm == "all"
    return meaning("training") | ({"norms": "undecayed"} if mattered else {})


def _leave(validation: Validation | None, kept: ModelSnapshots, last: int, params: Params) -> dict[str, Any]:
    """Leaves a training's model in `model/`; what its manifest says of how it was chosen."""
    if validation:
        return settled(validation, kept, last, params)
    kept.write(kept.directory / "model", params)
    return {}


def root(start: Model) -> Model:
    """The model that adapters trained from `start` are adapters of: its own base, whose adapters they add to, or itself."""
    return start.base or start


def writer(session: Session, lora: LoraConfig | None, start: Model) -> Callable[[Path, Params], None]:
    """What writes a model that a training has made of `start`: a whole one, or adapters of its `root`. Every host calls it."""

    def write(directory: Path, params: Params) -> None:
        config, base = session.meta.config, root(start)
        if (settings := adapted(config, lora).lora) is None:
            save_checkpoint(directory, params, session.meta)
            return
        factors = {name: leaf for name, leaf in params["blocks"].items() if "_lora_" in name}
        made = Adapter(to_host(factors), settings, base.source, None if base.made_here else session.config.model.revision)
        if start.base:
            made = read_adapter(epath.Path(start.source), config) + made
        save_adapter(directory, made, session.meta)

    return write


def rl_fields(config: RlConfig) -> dict[str, Any]:
    """What an RL stage is known by of its configuration: the content of what a user brings counts, not where it lies."""
    _, digest = make_algorithm(config)
    fields = stage_fields(config)
    if digest is not None:
        fields |= {"algorithm": [config.algorithm.rpartition(":")[2], digest]}
    if (identity := make_pay(config).identity) is not None:
        fields |= {"reward": identity}
    return fields


def _audit(session: Session, stage: Stage, group: int, steps: Sequence[Mapping[str, Any]], questions: Questions) -> dict[str, Any]:
    """The audit of an RL stage, from the counts in its log. Steps of a version that didn't count are left out."""
    counted = [step for step in steps if "audit" in step]
    assert questions.rl is not None

    def samples_of(place: int) -> list[Sample]:
        step = counted[place]
        files = [rollout_file(stage.directory, step["step"], attempt) for attempt in range(1 + step.get("refills", 0))]
        return [sample for file in files for sample in read_records(file, Sample)]

    audit = audit_steps([Tally.from_json(step["audit"]) for step in counted], samples_of, questions.rl.by_id, session.pool, stage.name)
    fallen = first_collapse(steps, group)
    return audit | {"collapse": fallen} if fallen else audit
