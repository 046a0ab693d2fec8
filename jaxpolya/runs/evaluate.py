"""Every arm's model answers every question set, and a judge says which heuristics its solutions use."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxpolya.arms import Arm
from jaxpolya.config import Sampling
from jaxpolya.evaluation.audit import audit_samples
from jaxpolya.evaluation.composition import SEVERAL, HeuristicJudge, Markers, Solution
from jaxpolya.evaluation.diversity import chosen
from jaxpolya.evaluation.measures import Answers
from jaxpolya.evaluation.parquet import write_parquet
from jaxpolya.evaluation.passk import pass_at_k, reported_ks
from jaxpolya.files import digest
from jaxpolya.keys import Key
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.records import Sample, read_records, write_records
from jaxpolya.rollout.respond import Asking
from jaxpolya.runs.identity import meaning, sample_stats, samples_digest, stage_fields
from jaxpolya.runs.questions import Questions
from jaxpolya.runs.session import Model, Session
from jaxpolya.runs.stages import Stage
from jaxpolya.score.heuristic_judge import ModelJudge


@dataclasses.dataclass(frozen=True)
class Evaluations:
    """The stages that hold the arms' answers, by arm and question set."""

    sampled: dict[Arm, dict[str, Stage]]
    greedy: dict[Arm, dict[str, Stage]]
    """Empty where nothing was asked greedily."""
    doses: dict[Arm, dict[str, Stage]]
    """As `sampled`, of arms on the way through their RL (`Arm.step`)."""


def evaluate(session: Session, models: Mapping[Arm, Model], questions: Questions) -> Evaluations:
    """Has every arm's model answer all question sets, and its solutions labelled."""
    config = session.config.eval
    once = config.sampling.model_copy(update={"temperature": 0.0, "top_k": 0, "top_p": 1.0})
    found = Evaluations({}, {}, {})
    for arm in [*session.config.compared, *session.config.doses]:
        sampled = (found.sampled if arm.step is None else found.doses).setdefault(arm, {})
        for name in config.questions:
            sampled[name] = _asked(session, "eval", arm, models[arm], name, config.sampling, config.samples, questions)
            if config.greedy:
                found.greedy.setdefault(arm, {})[name] = _asked(session, "greedy", arm, models[arm], name, once, 1, questions)
    if config.composition != "none":
        _label(session, found, questions)
    return found


def _asked(
    session: Session,
    use: Literal["eval", "greedy"],
    arm: Arm,
    model: Model,
    name: str,
    sampling: Sampling,
    samples: int,
    questions: Questions,
) -> Stage:
    """The stage of one arm's answers to one question set."""
    fields = stage_fields(
        session.config.eval.model_copy(update={"sampling": sampling, "samples": samples}), without=("greedy", "composition")
    )
    found, asked = questions.evaluated[name], questions.eval_prompts[name]
    identity = {"eval": fields, "questions": found.stage.directory.name, **session.policy, **session.known_by(model)}
    stage = session.stage(Key(use, arm.slug, name), identity)
    file = stage.directory / "samples.jsonl"

    def work() -> dict[str, Any]:
        asking = Asking(arm.name, use, samples, session.config.eval.seed)
        drawn = session.respond(asked.prompts, sampling, asking, model, file, stage.name)
        if is_primary():
            write_parquet(stage.directory / "samples.parquet", drawn, found.by_id)
        with session.logged(stage) as sinks:
            sinks.write({"step": 0, **_facts(drawn)})
        audit = session.audited(lambda: audit_samples(drawn, found.by_id, session.pool, stage.name, greedy=not sampling.temperature))
        return {**sample_stats(drawn), "too_long": asked.too_long, **audit}

    session.do(stage, work, judged=(file, Sample))
    return stage


def _facts(samples: Sequence[Sample]) -> dict[str, float]:
    """The numbers of one evaluation, for sinks; the report has their intervals."""
    counts = Answers(samples, None, frozenset()).counts
    n, correct = np.array(list(counts.values())).T
    ks = [k for k in reported_ks(int(n.min())) if k & (k - 1) == 0]
    return {
        **{f"pass@{k}": float(pass_at_k(n, correct, k).mean()) for k in ks},
        "length": float(np.mean([len(sample.token_ids) for sample in samples])),
        "truncated": float(np.mean([sample.finish == "length" for sample in samples])),
        "unparseable": float(np.mean([sample.verdict == "unparseable" for sample in samples])),
    }


def _label(session: Session, evaluations: Evaluations, questions: Questions) -> None:
    """Has a judge say which heuristics the evaluated solutions use."""
    judged_by, seed = session.config.eval.composition, session.config.eval.seed
    reach = (Markers if judged_by == "markers" else ModelJudge).reach
    known_by = [[h.key, h.title, h.instruction, h.markers] for h in session.catalogue.heuristics]
    identity = {"judge": judged_by, "reach": list(reach), "heuristics": digest(known_by), **meaning("composition")}
    if judged_by == "model":
        identity |= session.known_by(session.base)
    for arm, sets in evaluations.sampled.items():
        for name, evaluated in sets.items():
            file = evaluated.directory / "samples.jsonl"
            said = samples_digest(read_records(file, Sample), verdicts=False)
            stage = session.stage(Key("labels", arm.slug, name), {**identity, "samples": said})

            def work(stage: Stage = stage, file: Any = file, name: str = name) -> dict[str, Any]:
                asked = questions.evaluated[name].by_id
                samples = chosen(read_records(file, Sample), seed, *reach)
                found = _judge(session).label([Solution(asked[sample.question_id], sample.response) for sample in samples])
                if is_primary():
                    rows = ({"sample_id": sample.id, "labels": labels} for sample, labels in zip(samples, found, strict=True))
                    write_records(stage.directory / "labels.jsonl", rows)
                return {"solutions": len(samples), "composed": sum(len(labels) >= SEVERAL for labels in found)}

            session.do(stage, work)


def _judge(session: Session) -> HeuristicJudge:
    if session.config.eval.composition == "markers":
        return Markers(session.catalogue.heuristics)
    forward, params = Forward(session.meta.config, session.dtype), session.load(session.base).params
    return ModelJudge(params, forward, session.mesh, session.builder, session.catalogue.heuristics, model=session.base.source)
