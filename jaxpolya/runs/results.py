"""A run's results, gathered from its stages' files: the report and `jaxpolya show` read nothing else.

What they hold is said in `jaxpolya.results`. This module doesn't import jax.
"""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxpolya.arms import BASE, Arm
from jaxpolya.config import EvalConfig, RunConfig
from jaxpolya.errors import InputError
from jaxpolya.evaluation.audit import warnings
from jaxpolya.evaluation.composition import summarise_composition
from jaxpolya.evaluation.contamination import Overlap
from jaxpolya.evaluation.diversity import Labels, chosen, common_length, make_kernel, summarise_diversity
from jaxpolya.evaluation.judge_quality import from_facts
from jaxpolya.evaluation.measures import Answers, compare, measure
from jaxpolya.keys import Key
from jaxpolya.records import Question, Sample, Verdict, iter_json, read_records
from jaxpolya.results import (
    ArmResults,
    Audit,
    Composition,
    Contamination,
    Diversity,
    Evaluation,
    Generation,
    PaidResponse,
    Provenance,
    Results,
    Rl,
    RlStep,
    Rows,
    Sft,
    SharedQuestions,
    StageRow,
)
from jaxpolya.runs.configurations import results_at
from jaxpolya.runs.stages import RunDirectory, Stage

EXAMPLES = 256  # samples of a file among which the report looks for readable ones
OVERLAPS = 10  # pairs of training and evaluation questions that the report shows of each training set
PAID_SHOWN, PAID_STEPS = 4, 3  # paid responses of each end of RL that the report shows, of at most so many of its steps
TRAINING_FACTS = ("rows", "tokens", "steps", "loss_first", "loss_last", "heldout_first", "heldout_last")


def evaluation(answers: Answers, config: RunConfig, base: Answers | None) -> Evaluation:
    """The evaluation of one arm on one question set; everything but `correct` counts as a failure."""
    samples, counts = answers.samples, answers.counts
    settings = {"resamples": config.eval.bootstrap, "seed": config.eval.seed}
    return Evaluation(
        questions=len(counts),
        samples=min(n for n, _ in counts.values()),
        **measure(answers, **settings),
        versus_base=None if base is None else compare(answers, base, **settings),
        truncated=sum(s.finish == "length" for s in samples) / len(samples),
        unparseable=sum(s.verdict == "unparseable" for s in samples) / len(samples),
        harness_error=sum(s.verdict == "harness_error" for s in samples) / len(samples),
        cut_short=sum(s.verdict in Verdict.LIMITED for s in samples) / len(samples),
        tokens_mean=sum(len(s.token_ids) for s in samples) / len(samples),
    )


def collect_results(
    config: RunConfig,
    evaluations: Mapping[Arm, Mapping[str, Stage]],
    greedy: Mapping[Arm, Mapping[str, Stage]],
    doses: Mapping[Arm, Mapping[str, Stage]],
    stages: Mapping[Key, Stage],
    models: Mapping[str, str],
    facts: Mapping[str, Any],
) -> Results:
    """The results of a run whose arms are all evaluated.

    Args:
      config: the run.
      evaluations: arm → question set → its stage.
      greedy: the same of the greedy responses, those of doses included; empty where there are none.
      doses: arm on the way through its RL → question set → its stage.
      stages: key → stage, of all stages of the run, in their order.
      models: name of an arm → its checkpoint, a stage's as a path from the run's directory.
      facts: of the run: the base model's `fingerprint` and `origin`, and the provenance of this start.
    """
    arms: dict[str, ArmResults] = {}

    def answers(arm: Arm) -> dict[str, Answers]:
        return answers_of(arm, evaluations if arm.step is None else doses, greedy, stages)

    base = answers(BASE)
    given = {arm: base if arm == BASE else answers(arm) for arm in [*evaluations, *doses]}
    described: dict[Arm, dict[str, dict[str, Any]]] = {arm: {} for arm in given}
    for name in config.eval.questions:
        looked_at = {arm: chosen(of_arm[name].samples, config.eval.seed) for arm, of_arm in given.items()}
        labelled = {arm: stages.get(Key("labels", arm.slug, name)) for arm in looked_at}
        # Doses may be added later: what they are doesn't change what the arms' numbers mean.
        length = common_length(samples for arm, samples in looked_at.items() if arm.step is None)
        for arm, description in describe(looked_at, labelled, config.eval, length).items():
            described[arm][name] = description
    evaluated = {
        arm: {
            name: evaluation(of_set, config, None if arm == BASE else base.get(name)).model_copy(update=described[arm][name])
            for name, of_set in of_arm.items()
        }
        for arm, of_arm in given.items()
    }
    for arm in evaluations:
        arms[arm.name] = ArmResults(
            eval=evaluated[arm],
            sft=_sft(stages.get(Key("sft", arm.recipe.name))),
            rl=_rl(stages.get(Key("rl", arm.slug))),
            doses={dose.step: evaluated[dose] for dose in doses if dose.step and dataclasses.replace(dose, step=None) == arm},
        )
    return Results(
        run=Provenance(name=config.name, model=config.model.source, arms=list(config.arms), seeds=_seeds(config), **facts),
        config=config.model_dump(mode="json"),
        best=best_arm(arms, next(iter(config.eval.questions))),
        models=dict(models),
        arms=arms,
        selection={kind: Rows.model_validate(rows) for kind, rows in stages[Key("select")].stats.items()}
        if Key("select") in stages
        else {},
        contamination={key.of: _contamination(stage, config) for key, stage in stages.items() if key.what == "contamination"},
        audit=_audit(config, stages),
        left_out=left_out(stages, config),
        generation=_generation([stage for key, stage in stages.items() if key.what == "generate"]),
        stages=[_stage_row(stage) for stage in stages.values()],
    )


def best_arm(arms: Mapping[str, ArmResults], question_set: str) -> str:
    """The arm with the highest mean pass@1. Whatever an arm does better, it isn't RL's doing where that had no signal."""
    fit = [name for name, entry in arms.items() if not (entry.rl and entry.rl.without_signal)] or list(arms)
    return max(fit, key=lambda name: arms[name].eval[question_set].pass_[1].mean)


def answers_of(
    arm: Arm, sampled: Mapping[Arm, Mapping[str, Stage]], greedy: Mapping[Arm, Mapping[str, Stage]], stages: Mapping[Key, Stage]
) -> dict[str, Answers]:
    """Question set → an arm's answers."""
    return {
        name: read_answers(stages[Key("questions", "eval", name)], stage, greedy.get(arm, {}).get(name))
        for name, stage in sampled.get(arm, {}).items()
    }


def read_answers(questions: Stage, evaluated: Stage, greedy: Stage | None) -> Answers:
    """The answers that an arm's stages hold to the questions of another."""

    def samples(stage: Stage) -> list[Sample]:
        return read_records(stage.directory / "samples.jsonl", Sample)

    asked = read_records(questions.directory / "questions.jsonl", Question)
    return Answers.of(asked, samples(evaluated), samples(greedy) if greedy else None)


def describe(
    samples: Mapping[Arm, Sequence[Sample]], labelled: Mapping[Arm, Stage | None], config: EvalConfig, length: int
) -> dict[Arm, dict[str, Any]]:
    """Arm → {diversity, composition} on one question set; the arms' numbers are comparable.

    Args:
      samples: arm → its samples, as `diversity.chosen` gives them.
      labelled: arm → the stage that holds what the judge of `eval.composition` said, if there is one.
      config: whose seed and bootstrap the intervals use.
      length: words that distinct-n looks at.
    """
    resamples, seed = config.bootstrap, config.seed
    kernel = make_kernel(config.kernel)
    described: dict[Arm, dict[str, Any]] = {}
    for arm, of_arm in samples.items():
        stage = labelled.get(arm)
        known = _labels(stage)
        diversity = summarise_diversity(of_arm, length=length, labels=known, resamples=resamples, seed=seed, kernel=kernel)
        described[arm] = {"diversity": diversity and Diversity.model_validate(diversity)}
        if stage is not None and known is not None:
            quality = from_facts(stage.stats["quality"]) if "quality" in stage.stats else None  # stages of earlier versions have none
            judge = stage.stats.get("judge", config.composition)
            composed = summarise_composition(of_arm, known, judge=judge, quality=quality, resamples=resamples, seed=seed)
            described[arm]["composition"] = composed and Composition.model_validate(composed)
    return described


def _labels(stage: Stage | None) -> Labels | None:
    return {row["sample_id"]: row["labels"] for _, row in iter_json(stage.directory / "labels.jsonl")} if stage else None


def _contamination(stage: Stage, config: RunConfig) -> Contamination:
    """What one training set shares with the evaluation sets."""
    overlaps = read_records(stage.directory / "contamination.jsonl", Overlap)
    sets = {
        name: SharedQuestions(shared=len({overlap.train for overlap in of_set}), pairs=len(of_set))
        for name in config.eval.questions
        if (of_set := [overlap for overlap in overlaps if overlap.eval_set == name])
    }
    settings = config.contamination
    return Contamination(n=settings.n, dropped=settings.drop, **stage.stats, sets=sets, examples=overlaps[:OVERLAPS])


def _sft(stage: Stage | None) -> Sft | None:
    if stage is None:
        return None
    return Sft(**{name: stage.stats[name] for name in TRAINING_FACTS}, validation=stage.stats.get("validation"))


def _rl(stage: Stage | None) -> Rl | None:
    if stage is None:
        return None
    # The audit's sums of each step are in the log; what they say stands in `audit`.
    rows = (row for _, row in iter_json(stage.directory / "steps.jsonl"))
    steps = [RlStep(**{name: value for name, value in row.items() if name != "audit"}) for row in rows]
    # A KL term, an entropy bonus or a penalty of length gives a gradient without any reward.
    without = all(step.grad_norm == 0 for step in steps) or all(step.no_signal == 1 for step in steps)
    return Rl(steps=steps, without_signal=without, validation=stage.stats.get("validation"))


def _audit(config: RunConfig, stages: Mapping[Key, Stage]) -> dict[str, Audit]:
    """The audits of the stages that have one, with what they find too large in words, and paid responses of the ends of RL."""
    audits: dict[str, Audit] = {}
    for key, stage in stages.items():
        facts = stage.stats.get("audit") or {}
        shown = _payments(stages[Key("questions", "rl")], stage) if key.what == "rl" else []
        if facts or shown:
            audits[stage.name] = Audit(**facts, warnings=list(warnings(facts).values()), shown=shown)
    return audits


def _payments(asked: Stage, trained: Stage) -> list[PaidResponse]:
    """Some responses that the first and the last steps of RL paid, one a question."""
    questions = {question.id: question for question in read_records(asked.directory / "questions.jsonl", Question)}
    rollouts = sorted((trained.directory / "rollouts").glob("*.jsonl"))
    shown: list[PaidResponse] = []
    steps = min(PAID_STEPS, len(rollouts) // 2)  # no step is both a first and a last one
    ends: list[tuple[Literal["first", "last"], list[Path]]] = [("first", rollouts[:steps]), ("last", rollouts[: -steps - 1 : -1])]
    for end, files in ends:
        one_each: dict[str, PaidResponse] = {}
        for row in (row for file in files for _, row in iter_json(file) if row.get("verdict") == "correct"):
            asked_for = questions[row["question_id"]]
            facts = {"step": row["step"], "question": asked_for.question, "gold": asked_for.answer}
            one_each.setdefault(asked_for.id, PaidResponse(end=end, **facts, answer=row.get("extracted"), response=row["response"]))
            if len(one_each) == PAID_SHOWN:
                break
        shown += one_each.values()
    return shown


def left_out(stages: Mapping[Key, Stage], config: RunConfig) -> dict[str, dict[str, int]]:
    """Set of questions, or stage → reason → how many of its questions, traces or rows took no part; without those that are whole."""
    by_stage: dict[str, dict[str, int]] = {}
    for key, stage in stages.items():
        stats, name = stage.stats, stage.name
        if key.what == "questions":
            by_stage[name.removeprefix("questions-")] = dict(stats["dropped"])
        elif key.what == "traces":
            wrong = stats["traces"] - stats["verdicts"].get("correct", 0) if config.select.external_verdicts == "correct" else 0
            by_stage[name] = {**stats["dropped"], "not correct": wrong}
        elif key.what == "sft":
            by_stage[name] = {"row too long": stats["too_long"]}
        elif key.what in ("generate", "rl", "eval", "greedy"):
            by_stage[name] = {"prompt too long": stats["too_long"]}
    counted = {name: {why: number for why, number in reasons.items() if number} for name, reasons in by_stage.items()}
    return {name: reasons for name, reasons in counted.items() if reasons}


def _seeds(config: RunConfig) -> dict[str, int]:
    stages = {"generate": config.generate, "select": config.select, "sft": config.sft, "rl": config.rl, "eval": config.eval}
    return {name: stage.seed for name, stage in stages.items() if stage is not None}


def _generation(stages: Sequence[Stage]) -> dict[str, Generation]:
    counts: dict[str, collections.Counter[str]] = {}
    for stage in stages:
        for _, sample in iter_json(stage.directory / "samples.jsonl"):
            is_so = {"samples": True, "correct": sample["verdict"] == "correct", "truncated": sample["finish"] == "length"}
            counts.setdefault(sample.get("heuristic", "plain"), collections.Counter()).update(is_so)
    return {heuristic: Generation(**count) for heuristic, count in counts.items()}


def _stage_row(stage: Stage) -> StageRow:
    manifest = stage.manifest or {"seconds": 0.0, "stats": {}}
    tokens, seconds = manifest["stats"].get("tokens", 0), manifest["seconds"]
    rate = tokens / seconds if seconds else 0.0
    return StageRow(name=stage.name, seconds=seconds, tokens=tokens, tokens_per_second=rate, rows_busy=manifest.get("rows_busy"))


def example_samples(evaluations: Mapping[Arm, Mapping[str, Stage]], stages: Mapping[Key, Stage]) -> list[dict[str, Any]]:
    """Samples for people to read: of each arm its last RL rollouts, or its evaluation where it had no RL."""
    rows: list[dict[str, Any]] = []
    for arm, sets in evaluations.items():
        stage = stages.get(Key("rl", arm.slug))
        rollouts = sorted((stage.directory / "rollouts").glob("*.jsonl")) if stage else []
        files = rollouts[-1:] or [evaluated.directory / "samples.jsonl" for evaluated in sets.values()]
        rows += [row for file in files for _, row in itertools.islice(iter_json(file), EXAMPLES)]
    return rows


def model_of_run(run: Path, arm: str | None = None, at: str | None = None) -> str | None:
    """The checkpoint of the best (or a named) arm of a run, or of one of its configurations; None where `run` is not a run directory.

    Raises `InputError`.
    """
    if (place := arm_of_run(run, arm, at)) is None:
        return None
    results, arm = place
    within = run / results.models[arm]  # a stage's model is named from the run's directory, which may have been moved
    return str(within) if within.is_dir() else results.models[arm]


def arm_of_run(run: Path, arm: str | None = None, at: str | None = None) -> tuple[Results, str] | None:
    """(results, best or named arm) of a run; None where `run` is not a run directory. Raises `InputError`."""
    if not (run / "config.yaml").exists() or not (run / "stages").is_dir():
        return None
    RunDirectory(run).check_format()
    results = Results.read(run) if at is None else results_at(run, at)
    if results is None:
        models = ", ".join(str(path) for path in sorted(run.glob("stages/*/model")))
        raise InputError(
            f"{run}: this run isn't finished; finish it with `jaxpolya run`" + (f", or name a model of it: {models}" if models else "")
        )
    arm = arm or str(results.best)
    if arm not in results.models:
        raise InputError(f"{run}: has no arm {arm}; it has {', '.join(results.models)}")
    return results, arm


def arm_of_model(checkpoint: Path) -> tuple[Results, str] | None:
    """(results, arm) of the finished run whose stage left a checkpoint as an arm's last; None where there is none. Raises `InputError`."""
    path = checkpoint.expanduser().resolve()
    stage = path.parent
    run = stage.parent.parent
    if stage.parent.name != "stages" or not (run / "config.yaml").exists() or (results := Results.read(run)) is None:
        return None
    named = str(path.relative_to(run))
    return next(((results, arm) for arm, model in results.models.items() if model == named), None)


def brief(stats: Mapping[str, Any]) -> str:
    """What of a stage's counts is worth a line."""
    parts = []
    if "samples" in stats:
        parts = [f"{stats['samples']} responses", f"{stats['verdicts'].get('correct', 0)} correct", f"{stats['tokens']} tokens"]
        if broken := stats["verdicts"].get("harness_error"):
            parts.append(f"{broken} could not be judged")
    elif "loss_first" in stats:
        parts = [f"{stats['rows']} rows", f"{stats['steps']} steps", f"loss {stats['loss_first']:.3f} → {stats['loss_last']:.3f}"]
        if stats["heldout_first"] is not None:
            parts.append(f"held-out {stats['heldout_first']:.3f} → {stats['heldout_last']:.3f}")
    else:
        parts = [f"{value} {key}" for key, value in stats.items() if isinstance(value, int) and key != "too_long"]
        parts += [f"{number} {verdict}" for verdict, number in stats.get("verdicts", {}).items()]
        parts += [f"{value['rows']} {key} rows" for key, value in stats.items() if isinstance(value, dict) and "rows" in value]
        parts += [f"left out {number} × {reason}" for reason, number in stats.get("dropped", {}).items()]
    if stats.get("too_long"):
        parts.append(f"{stats['too_long']} left out for their length")
    return ", ".join(parts)
