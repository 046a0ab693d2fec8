"""Every arm's model answers every question set, and a judge says which heuristics its solutions use."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxpolya.arms import Arm
from jaxpolya.config import Sampling
from jaxpolya.doors import bring, is_reference
from jaxpolya.evaluation.audit import audit_samples
from jaxpolya.evaluation.diversity import chosen
from jaxpolya.evaluation.judge_quality import JudgeQuality, as_facts, measure
from jaxpolya.evaluation.judges import KEY as JUDGE
from jaxpolya.evaluation.judges import NAMED, SEVERAL, HeuristicJudge, Solution, own_judge
from jaxpolya.evaluation.measures import Answers
from jaxpolya.evaluation.parquet import write_parquet
from jaxpolya.evaluation.passk import pass_at_k, reported_ks
from jaxpolya.files import digest
from jaxpolya.keys import Key
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.records import Sample, read_records, write_records
from jaxpolya.rollout.respond import Draws
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
    evaluations = Evaluations({}, {}, {})
    for arm in [*session.config.compared, *session.config.doses]:
        sampled = (evaluations.sampled if arm.step is None else evaluations.doses).setdefault(arm, {})
        for name in config.questions:
            sampled[name] = _evaluate(session, "eval", arm, models[arm], name, config.sampling, config.samples, questions)
            if config.greedy:
                greedy = _evaluate(session, "greedy", arm, models[arm], name, config.sampling.greedy, 1, questions)
                evaluations.greedy.setdefault(arm, {})[name] = greedy
    if config.composition != "none":
        _label(session, evaluations, questions)
    return evaluations


def _evaluate(
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
    question_set, asked = questions.evaluated[name], questions.eval_prompts[name]
    identity = {"eval": fields, "questions": question_set.stage.directory.name, **session.policy, **session.known_by(model)}
    stage = session.stage(Key(use, arm.slug, name), identity)
    file = stage.directory / "samples.jsonl"

    def work() -> dict[str, Any]:
        draws = Draws(arm.name, use, samples, session.config.eval.seed)
        drawn = session.respond(asked.prompts, sampling, draws, model, file, stage.name)
        if is_primary():
            write_parquet(stage.directory / "samples.parquet", drawn, question_set.by_id)
        with session.logged(stage) as sinks:
            sinks.write({"step": 0, **_facts(drawn)})
        audit = session.audited(lambda: audit_samples(drawn, question_set.by_id, session.pool, stage.name, greedy=not sampling.temperature))
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
    seed, judge = session.config.eval.seed, _Judge(session)
    known_by = [[h.key, h.title, h.instruction, h.markers] for h in session.catalogue.heuristics]
    identity = {**judge.identity, "reach": list(judge.reach), "heuristics": digest(known_by), **meaning("composition")}
    for arm, sets in {**evaluations.sampled, **evaluations.doses}.items():
        for name, evaluated in sets.items():
            file = evaluated.directory / "samples.jsonl"
            samples_identity = samples_digest(read_records(file, Sample), verdicts=False)
            stage = session.stage(Key("labels", arm.slug, name), {**identity, "samples": samples_identity})

            def work(stage: Stage = stage, file: Any = file, name: str = name) -> dict[str, Any]:
                asked = questions.evaluated[name].by_id
                samples = chosen(read_records(file, Sample), seed, *judge.reach)
                all_labels = judge.heuristic_judge.label([Solution(asked[sample.question_id], sample.response) for sample in samples])
                if is_primary():
                    rows = ({"sample_id": sample.id, "labels": labels} for sample, labels in zip(samples, all_labels, strict=True))
                    write_records(stage.directory / "labels.jsonl", rows)
                composed = sum(len(labels) >= SEVERAL for labels in all_labels)
                return {
                    "solutions": len(samples),
                    "composed": composed,
                    "judge": judge.heuristic_judge.name,
                    "quality": as_facts(judge.quality),
                }

            session.do(stage, work)


class _Judge:
    """The judge of a run, made and measured when it is first needed: a model is loaded only where there is something to label."""

    def __init__(self, session: Session):
        self._session, self._named = session, session.config.eval.composition
        self._own = own_judge(self._named, session.catalogue.heuristics) if is_reference(self._named) else None

    @property
    def identity(self) -> dict[str, Any]:
        """What a stage knows it by."""
        if self._own is not None:
            return {"judge": bring(self._named, JUDGE).identity}
        return {"judge": self._named, **(self._session.known_by(self._session.base) if self._named == "model" else {})}

    @property
    def reach(self) -> tuple[int, int]:
        """(questions, responses to each) that it is shown at most."""
        if self._own is not None:
            return self._own.reach
        return NAMED[self._named].reach if self._named in NAMED else ModelJudge.reach

    @functools.cached_property
    def heuristic_judge(self) -> HeuristicJudge:
        """The judge."""
        session, heuristics = self._session, self._session.catalogue.heuristics
        if self._own is not None:
            return self._own
        if self._named in NAMED:
            return NAMED[self._named](heuristics)
        forward, params = Forward(session.meta.config, session.dtype), session.load(session.base).params
        return ModelJudge(params, forward, session.mesh, session.builder, heuristics, model=session.base.source)

    @functools.cached_property
    def quality(self) -> JudgeQuality:
        """How well it agrees with the labelled set."""
        return measure(self.heuristic_judge, [heuristic.key for heuristic in self._session.catalogue.heuristics])
