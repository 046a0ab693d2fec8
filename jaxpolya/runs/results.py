"""results.json: what a run found, gathered from its stages' files; the report and `jaxpolya show` read nothing else.

Its form is described in `jaxpolya.report`. This module doesn't import jax.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.arms import ARMS, BASE, Arm
from jaxpolya.config import EvalConfig, RunConfig
from jaxpolya.errors import InputError
from jaxpolya.evaluate.audit import ACCEPTED, warnings
from jaxpolya.evaluate.composition import summarise_composition
from jaxpolya.evaluate.contamination import Overlap
from jaxpolya.evaluate.diversity import Labels, chosen, common_length, summarise_diversity
from jaxpolya.evaluate.measures import Answers, compare, measure
from jaxpolya.files import write_whole
from jaxpolya.records import Question, Sample, Verdict, iter_json, read_json, read_records, write_json
from jaxpolya.runs.stages import Key, RunDirectory, Stage

EXAMPLES = 256  # samples of a file among which the report looks for readable ones
OVERLAPS = 10  # pairs of training and evaluation questions that the report shows of each training set
PAID_SHOWN, PAID_STEPS = 4, 3  # paid responses of each end of RL that the report shows, of at most so many of its steps
TRAINING_FACTS = ("rows", "tokens", "steps", "loss_first", "loss_last", "heldout_first", "heldout_last")


KEYS = {"run", "config", "best", "models", "arms", "selection", "contamination", "generation", "stages"}


def evaluation(answers: Answers, config: RunConfig, base: Answers | None) -> dict[str, Any]:
    """The evaluation of one arm on one question set; everything but `correct` counts as a failure."""
    samples, counts = answers.samples, answers.counts
    settings = {"resamples": config.eval.bootstrap, "seed": config.eval.seed}
    result: dict[str, Any] = {
        "questions": len(counts),
        "samples": min(n for n, _ in counts.values()),
        **measure(answers, **settings),
        "truncated": sum(s.finish == "length" for s in samples) / len(samples),
        "unparseable": sum(s.verdict == "unparseable" for s in samples) / len(samples),
        "harness_error": sum(s.verdict == "harness_error" for s in samples) / len(samples),
        "cut_short": sum(s.verdict in Verdict.LIMITED for s in samples) / len(samples),
        "tokens_mean": sum(len(s.token_ids) for s in samples) / len(samples),
    }
    if base is not None:
        result["versus_base"] = compare(answers, base, **settings)
    return result


def write_results(directory: Path, results: Mapping[str, Any]) -> None:
    """results.json, for programs."""
    write_whole(directory / "results.json", write_json(results, "results.json", indent=1) + "\n")


def collect_results(
    config: RunConfig,
    evaluations: Mapping[Arm, Mapping[str, Stage]],
    greedy: Mapping[Arm, Mapping[str, Stage]],
    doses: Mapping[Arm, Mapping[str, Stage]],
    stages: Mapping[Key, Stage],
    models: Mapping[str, str],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
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
    arms: dict[str, Any] = {}

    def answers(arm: Arm) -> dict[str, Answers]:
        return {
            name: read_answers(stages[Key("questions", "eval", name)], stage, greedy.get(arm, {}).get(name))
            for name, stage in (evaluations if arm.step is None else doses).get(arm, {}).items()
        }

    base = answers(BASE)
    looked_at: dict[str, dict[str, list[Sample]]] = {name: {} for name in config.eval.questions}
    for arm in evaluations:
        found = base if arm == BASE else answers(arm)
        for name, given in found.items():
            looked_at[name][arm.name] = chosen(given.samples, config.eval.seed)
        arms[arm.name] = {
            "eval": {name: evaluation(given, config, None if arm == BASE else base.get(name)) for name, given in found.items()},
            "sft": _sft(stages.get(Key("sft", arm.recipe.name))),
            "rl": _rl(stages.get(Key("rl", arm.slug))),
        }
    for arm in doses:
        of_step = {name: evaluation(answer, config, base.get(name)) for name, answer in answers(arm).items()}
        arms[dataclasses.replace(arm, step=None).name].setdefault("doses", {})[str(arm.step)] = of_step
    for name, of_arms in looked_at.items():
        labels = {arm: _labels(stages.get(Key("labels", ARMS[arm].slug, name))) for arm in of_arms}
        for arm_name, description in describe(of_arms, labels, config.eval).items():
            arms[arm_name]["eval"][name] |= description
    first = next(iter(config.eval.questions))
    # Whatever an arm does better, it isn't RL's doing where that had no signal.
    fit = [name for name, found in arms.items() if not (found["rl"] or {}).get("without_signal")] or list(arms)
    best = max(fit, key=lambda name: arms[name]["eval"][first]["pass"]["1"]["mean"])
    return {
        "run": {"name": config.name, "model": config.model.source, "arms": list(config.arms), "seeds": _seeds(config), **facts},
        "config": config.model_dump(mode="json"),
        "best": best,
        "models": dict(models),
        "arms": arms,
        "selection": stages[Key("select")].stats if Key("select") in stages else {},
        "contamination": {key.of: _contamination(stage, config) for key, stage in stages.items() if key.what == "contamination"},
        "audit": _audit(config, stages),
        "left_out": left_out(stages, config),
        "generation": _generation([stage for key, stage in stages.items() if key.what == "generate"]),
        "stages": [_stage_row(stage) for stage in stages.values()],
    }


def read_answers(questions: Stage, evaluated: Stage, greedy: Stage | None) -> Answers:
    """The answers that an arm's stages hold to the questions of another."""

    def samples(stage: Stage) -> list[Sample]:
        return read_records(stage.directory / "samples.jsonl", Sample)

    asked = read_records(questions.directory / "questions.jsonl", Question)
    return Answers.of(asked, samples(evaluated), samples(greedy) if greedy else None)


def describe(samples: Mapping[str, Sequence[Sample]], labels: Mapping[str, Labels | None], config: EvalConfig) -> dict[str, dict[str, Any]]:
    """Arm → {diversity, composition} on one question set; the arms' numbers are comparable.

    Args:
      samples: arm → its samples, as `diversity.chosen` gives them.
      labels: arm → what the judge of `eval.composition` said, if there is one.
      config: whose seed and bootstrap the intervals use.
    """
    length = common_length(samples.values())
    resamples, seed = config.bootstrap, config.seed
    described: dict[str, dict[str, Any]] = {}
    for arm, found in samples.items():
        known = labels.get(arm)
        described[arm] = {"diversity": summarise_diversity(found, length=length, labels=known, resamples=resamples, seed=seed)}
        if known is not None:
            described[arm]["composition"] = summarise_composition(found, known, judge=config.composition, resamples=resamples, seed=seed)
    return described


def _labels(stage: Stage | None) -> Labels | None:
    return {row["sample_id"]: row["labels"] for _, row in iter_json(stage.directory / "labels.jsonl")} if stage else None


def _contamination(stage: Stage, config: RunConfig) -> dict[str, Any]:
    """What one training set shares with the evaluation sets."""
    overlaps = read_records(stage.directory / "contamination.jsonl", Overlap)
    sets = {
        name: {"shared": len({overlap.train for overlap in found}), "pairs": len(found)}
        for name in config.eval.questions
        if (found := [overlap for overlap in overlaps if overlap.eval_set == name])
    }
    shown = [overlap.to_json() for overlap in overlaps[:OVERLAPS]]
    return {"n": config.contamination.n, "dropped": config.contamination.drop, **stage.stats, "sets": sets, "examples": shown}


def _sft(stage: Stage | None) -> dict[str, Any] | None:
    return {name: stage.stats[name] for name in TRAINING_FACTS} if stage else None


def _rl(stage: Stage | None) -> dict[str, Any] | None:
    if stage is None:
        return None
    # The audit's sums of each step are in the log; what they say stands in `audit`.
    rows = (row for _, row in iter_json(stage.directory / "steps.jsonl"))
    steps = [{name: value for name, value in row.items() if name != "audit"} for row in rows]
    # A KL term, an entropy bonus or a penalty of length gives a gradient without any reward.
    without = all(step["grad_norm"] == 0 for step in steps) or all(step["no_signal"] == 1 for step in steps)
    return {"steps": steps, "without_signal": without}


def _audit(config: RunConfig, stages: Mapping[Key, Stage]) -> dict[str, Any]:
    """The audits of the stages that have one, with what they find too large in words, and paid responses of the ends of RL."""
    audits: dict[str, Any] = {}
    for stage in stages.values():
        if audit := stage.stats.get("audit"):
            audits[stage.name] = {**audit, "warnings": list(warnings(audit).values())}
    for arm in config.reinforced:
        if trained := stages.get(Key("rl", arm.slug)):
            audits.setdefault(trained.name, {"warnings": []})["shown"] = _paid(stages[Key("questions", "rl")], trained)
    return audits


def _paid(asked: Stage, trained: Stage) -> list[dict[str, Any]]:
    """Some responses that the first and the last steps of RL paid, one a question."""
    questions = {question.id: question for question in read_records(asked.directory / "questions.jsonl", Question)}
    rollouts = sorted((trained.directory / "rollouts").glob("*.jsonl"))
    shown: list[dict[str, Any]] = []
    steps = min(PAID_STEPS, len(rollouts) // 2)  # no step is both a first and a last one
    for end, files in (("first", rollouts[:steps]), ("last", rollouts[: -steps - 1 : -1])):
        chosen: dict[str, dict[str, Any]] = {}
        for row in (row for file in files for _, row in iter_json(file) if row.get("verdict") == "correct"):
            question = questions[row["question_id"]]
            facts = {"end": end, "step": row["step"], "question": question.question, "gold": question.answer}
            chosen.setdefault(question.id, {**facts, "answer": row.get("extracted"), "response": row["response"]})
            if len(chosen) == PAID_SHOWN:
                break
        shown += chosen.values()
    return shown


def left_out(stages: Mapping[Key, Stage], config: RunConfig) -> dict[str, dict[str, int]]:
    """Set of questions, or stage → reason → how many of its questions, traces or rows took no part; without those that are whole."""
    found: dict[str, dict[str, int]] = {}
    for key, stage in stages.items():
        stats, name = stage.stats, stage.name
        if key.what == "questions":
            found[name.removeprefix("questions-")] = dict(stats["dropped"])
        elif key.what == "traces":
            wrong = stats["traces"] - stats["verdicts"].get("correct", 0) if config.select.external_verdicts == "correct" else 0
            found[name] = {**stats["dropped"], "not correct": wrong}
        elif key.what == "sft":
            found[name] = {"row too long": stats["too_long"]}
        elif key.what in ("generate", "rl", "eval", "greedy"):
            found[name] = {"prompt too long": stats["too_long"]}
    counted = {name: {why: number for why, number in reasons.items() if number} for name, reasons in found.items()}
    return {name: reasons for name, reasons in counted.items() if reasons}


def _seeds(config: RunConfig) -> dict[str, int]:
    stages = {"generate": config.generate, "select": config.select, "sft": config.sft, "rl": config.rl, "eval": config.eval}
    return {name: stage.seed for name, stage in stages.items() if stage is not None}


def _generation(stages: Sequence[Stage]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in stages:
        for _, sample in iter_json(stage.directory / "samples.jsonl"):
            counts = found.setdefault(sample.get("heuristic", "plain"), {"samples": 0, "correct": 0, "truncated": 0})
            counts["samples"] += 1
            counts["correct"] += sample["verdict"] == "correct"
            counts["truncated"] += sample["finish"] == "length"
    return found


def _stage_row(stage: Stage) -> dict[str, Any]:
    manifest = stage.manifest or {"seconds": 0.0, "stats": {}}
    tokens, seconds = manifest["stats"].get("tokens", 0), manifest["seconds"]
    return {"name": stage.name, "seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds if seconds else 0.0}


def example_samples(evaluations: Mapping[Arm, Mapping[str, Stage]], stages: Mapping[Key, Stage]) -> list[dict[str, Any]]:
    """Samples for people to read: of each arm its last RL rollouts, or its evaluation where it had no RL."""
    rows: list[dict[str, Any]] = []
    for arm, sets in evaluations.items():
        stage = stages.get(Key("rl", arm.slug))
        rollouts = sorted((stage.directory / "rollouts").glob("*.jsonl")) if stage else []
        files = rollouts[-1:] or [evaluated.directory / "samples.jsonl" for evaluated in sets.values()]
        rows += [row for file in files for _, row in itertools.islice(iter_json(file), EXAMPLES)]
    return rows


def read_results(run: Path) -> dict[str, Any] | None:
    """A run's results.json, if it has come that far. Raises `InputError` if it can't be read."""
    path = run / "results.json"
    if not path.exists():
        return None
    with contextlib.suppress(ValueError, RecursionError):
        results = read_json(path.read_text(encoding="utf-8"))
        if isinstance(results, dict) and set(results) >= KEYS and results["best"] in results["models"]:
            return results
    raise InputError(f"{path} is damaged, or of another version of jaxpolya; `jaxpolya run` writes it again from the stages")


def model_of_run(run: Path, arm: str | None = None) -> str | None:
    """The checkpoint of a run's best (or a named) arm; None where `run` is not a run directory. Raises `InputError`."""
    if (found := arm_of_run(run, arm)) is None:
        return None
    results, arm = found
    within = run / results["models"][arm]  # a stage's model is named from the run's directory, which may have been moved
    return str(within) if within.is_dir() else results["models"][arm]


def arm_of_run(run: Path, arm: str | None = None) -> tuple[dict[str, Any], str] | None:
    """(results, best or named arm) of a run; None where `run` is not a run directory. Raises `InputError`."""
    if not (run / "config.yaml").exists() or not (run / "stages").is_dir():
        return None
    RunDirectory(run).check_format()
    results = read_results(run)
    if results is None:
        models = ", ".join(str(path) for path in sorted(run.glob("stages/*/model")))
        raise InputError(
            f"{run}: this run isn't finished; finish it with `jaxpolya run`" + (f", or name a model of it: {models}" if models else "")
        )
    arm = arm or results["best"]
    if arm not in results["models"]:
        raise InputError(f"{run}: has no arm {arm}; it has {', '.join(results['models'])}")
    return results, arm


def arm_of_model(checkpoint: Path) -> tuple[dict[str, Any], str] | None:
    """(results, arm) of the finished run whose stage left a checkpoint as an arm's last; None where there is none. Raises `InputError`."""
    path = checkpoint.expanduser().resolve()
    stage = path.parent
    run = stage.parent.parent
    if stage.parent.name != "stages" or not (run / "config.yaml").exists() or (results := read_results(run)) is None:
        return None
    named = str(path.relative_to(run))
    return next(((results, arm) for arm, model in results["models"].items() if model == named), None)


def show_stages(run: Path) -> list[str]:
    """One line a stage: done, or begun. Raises `InputError` where it is not a run directory."""
    if not (run / "config.yaml").is_file():
        runs = sorted({str(path.parent) for place in (run, run.parent) for path in place.glob("*/config.yaml")})
        there = f"runs near it: {', '.join(runs)}" if runs else "`jaxpolya run CONFIG` makes one, below the config's `output`"
        raise InputError(f"{run} is not a run directory; {there}")
    RunDirectory(run).check_format()
    done = RunDirectory(run).manifests()
    whole = {Path(manifest["directory"]).name for manifest in done}
    begun = sorted(path.name for path in run.glob("stages/*") if path.is_dir() and path.name not in whole)
    lines = []
    for manifest in done:
        when = manifest["finished"][:16].replace("T", " ")
        lines.append(f"done   {manifest['stage']:32} {manifest['seconds']:8.1f} s  {when}  {brief(manifest['stats'])}")
    lines += [f"begun  {name}; the same `jaxpolya run` goes on with it" for name in begun]
    return lines or ["nothing is done yet"]


def stage_warnings(run: Path) -> list[str]:
    """What makes the verdicts of a run's whole stages doubtful, a line each: what was accepted, and what the audits find too large."""
    RunDirectory(run).check_format()
    lines = []
    for manifest in RunDirectory(run).manifests():
        accepted = manifest.get("identity", {}).get("verify", {}).get("math", {}).get("unevaluated") == "accept"
        found = [*([ACCEPTED] if accepted else []), *warnings(manifest["stats"].get("audit", {})).values()]
        lines += [f"{manifest['stage']}: {words}" for words in found]
    return lines


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
