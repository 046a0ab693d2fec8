"""The first phase: what is asked, what training and evaluation share, and whether all of it can be asked.

What can't be is known here, before the stages ahead of it have worked for hours.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxpolya.config import AnySource, RlConfig, ValidationConfig
from jaxpolya.data.questions import load_questions
from jaxpolya.errors import ConfigError, InputError, RunError
from jaxpolya.evaluation.audit import audit_samples
from jaxpolya.evaluation.contamination import Overlap, find_overlaps
from jaxpolya.files import file_digest
from jaxpolya.keys import Key
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.polya.catalogue import Slot
from jaxpolya.polya.prompts import exemplar_kind
from jaxpolya.records import Question, read_records, write_records
from jaxpolya.rollout.respond import Prompt, require_judged, try_kinds
from jaxpolya.rollout.rewards import make_pay, try_pay
from jaxpolya.rollout.rounds import check_prompts
from jaxpolya.rollout.traces import ELSEWHERE, TOO_LONG, Trace, judge_traces, read_traces, require_traces
from jaxpolya.runs.checks import check_slots, saying_where
from jaxpolya.runs.identity import meaning, source_identity, stage_fields
from jaxpolya.runs.session import Session
from jaxpolya.runs.stages import Stage
from jaxpolya.verify.sandbox.sandbox import machine_weakness


@dataclasses.dataclass(frozen=True)
class QuestionSet:
    """Questions for one use, and the stage that holds them."""

    stage: Stage
    questions: list[Question]

    @property
    def by_id(self) -> dict[str, Question]:
        """The questions by their ids."""
        return {question.id: question for question in self.questions}


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Bare questions as they are put to a model, and how many were left out for their length."""

    prompts: list[Prompt]
    too_long: int


@dataclasses.dataclass(frozen=True)
class Questions:
    """What a run asks."""

    train: QuestionSet | None
    """To generate from; None where no arm is fine-tuned."""
    rl: QuestionSet | None
    evaluated: dict[str, QuestionSet]
    """By name."""
    rl_prompts: Prompts | None
    eval_prompts: dict[str, Prompts]
    traces: list[Trace]
    """Of the `external` arms, those that are kept."""
    validation: dict[str, tuple[QuestionSet, Prompts]]
    """By the training that is looked at: `sft`, `rl`."""


def ask_questions(session: Session) -> Questions:
    """Loads all question sets, compares them, and makes the prompts that ask them without a heuristic."""
    config = session.config
    train = _load(session, Key("questions", "train"), config.generate.questions) if config.recipes and config.generate else None
    rl = _load(session, Key("questions", "rl"), config.rl.questions) if config.reinforced and config.rl else None
    evaluated = {name: _load(session, Key("questions", "eval", name), sources) for name, sources in config.eval.questions.items()}
    validation = {str(use): _validation(session, use, validated, evaluated) for use, validated in config.validated.items()}
    if train and any(recipe.responses == "polya" for recipe in config.recipes):
        check_slots(config, session.catalogue, [exemplar_kind(question) for question in train.questions], min)
    train = train and _compared(session, "train", train, evaluated)
    rl = rl and _compared(session, "rl", rl, evaluated)
    sets = [one for one in (train, rl, *evaluated.values(), *(looked_at for looked_at, _ in validation.values())) if one]
    _look_at_sandbox(session, sets)
    try_kinds([question for one in sets for question in one.questions], session.pool)
    eval_prompts = {name: Prompts(*session.prompts(bare(one.questions), config.eval.sampling, "eval")) for name, one in evaluated.items()}
    rl_prompts = _rl_prompts(session, config.rl, rl.questions) if rl and config.rl else None
    if rl_prompts and config.rl and config.rl.replay is None:
        try_pay(make_pay(config.rl), rl_prompts.prompts[0].question, session.pool)
    traces = _traces(session, train) if train and any(recipe.traces for recipe in config.recipes) else []
    return Questions(train, rl, evaluated, rl_prompts, eval_prompts, traces, validation)


def bare(questions: Sequence[Question]) -> list[tuple[Question, Slot | None]]:
    """Questions that are asked without a heuristic."""
    return [(question, None) for question in questions]


def _load(session: Session, key: Key, sources: Sequence[AnySource]) -> QuestionSet:
    with saying_where(session.config):
        stage = session.stage(key, {"sources": [source_identity(source) for source in sources], **meaning("questions")})

    def load() -> dict[str, Any]:
        with saying_where(session.config):
            loaded = load_questions(sources)
        if is_primary():
            write_records(stage.directory / "questions.jsonl", loaded.questions)
        return {"questions": len(loaded.questions), "dropped": loaded.dropped}

    session.do(stage, load)
    return QuestionSet(stage, read_records(stage.directory / "questions.jsonl", Question))


def _compared(session: Session, use: str, question_set: QuestionSet, evaluated: Mapping[str, QuestionSet]) -> QuestionSet:
    """Finds the questions that an evaluation set asks too, and leaves them out where that is asked for."""
    config = session.config.contamination
    sets = {name: other.stage.directory.name for name, other in evaluated.items()}
    identity = {**stage_fields(config, without=("drop",)), "questions": question_set.stage.directory.name, "sets": sets}
    stage = session.stage(Key("contamination", use), {**identity, **meaning("contamination")})
    file = stage.directory / "contamination.jsonl"

    def compare() -> dict[str, Any]:
        overlaps = find_overlaps(question_set.questions, {name: other.questions for name, other in evaluated.items()}, config.n)
        if is_primary():
            write_records(file, overlaps)
        return {"questions": len(question_set.questions), "shared": len({overlap.train for overlap in overlaps}), "pairs": len(overlaps)}

    session.do(stage, compare)
    shared = {overlap.train for overlap in read_records(file, Overlap)}
    return _left_out(session, use, question_set, shared) if config.drop and shared else question_set


def _validation(session: Session, use: str, config: ValidationConfig, evaluated: Mapping[str, QuestionSet]) -> tuple[QuestionSet, Prompts]:
    """The questions that a training is looked at with. Raises `InputError` where an evaluation set asks one of them too."""
    question_set = _load(session, Key("questions", "validation", use), config.questions)
    sets = {name: other.questions for name, other in evaluated.items()}
    if overlaps := find_overlaps(question_set.questions, sets, session.config.contamination.n):
        shared, first = {overlap.train for overlap in overlaps}, overlaps[0]
        raise InputError(
            f"{use}.validation: {len(shared)} of its {len(question_set.questions)} questions are asked by an evaluation set too, such as "
            f"{first.train} ({first.eval_set}: {first.eval}). The model that is kept would be chosen by what it is measured on; take "
            "other questions"
        )
    return question_set, Prompts(*session.prompts(bare(question_set.questions), config.sampling, f"{use}.validation"))


def _left_out(session: Session, use: str, question_set: QuestionSet, shared: set[str]) -> QuestionSet:
    """The questions without the shared ones. Another evaluation set redoes a training only if it shares other questions."""
    kept = [question for question in question_set.questions if question.id not in shared]
    if not kept:
        raise RunError(f"contamination.drop leaves no question for {use}: the evaluation sets ask all {len(shared)} of them too")
    stage = session.stage(Key("questions", use), {"questions": question_set.stage.directory.name, "left_out": sorted(shared)})

    def leave_out() -> dict[str, Any]:
        if is_primary():
            write_records(stage.directory / "questions.jsonl", kept)
        return {"questions": len(kept), "dropped": {**question_set.stage.stats["dropped"], "shared with an evaluation set": len(shared)}}

    session.do(stage, leave_out)
    return QuestionSet(stage, kept)


def _look_at_sandbox(session: Session, sets: Sequence[QuestionSet]) -> None:
    """Notes what the sandbox doesn't protect from, where programs will be run."""
    if any(question.verifier == "code" for one in sets for question in one.questions):
        weakness = machine_weakness(session.config.verify.code.modules)
        session.provenance["sandbox"] = weakness or "namespaces"
        if weakness:
            session.display.note(f"warning: {weakness}")


def _rl_prompts(session: Session, config: RlConfig, questions: Sequence[Question]) -> Prompts:
    """The prompts of RL, whose whole rollouts must fit a packed row. Raises `ConfigError` if none does."""
    prompts, too_long = session.prompts(bare(questions), config.sampling, "rl")
    longest = config.batching.row_tokens - config.sampling.max_new_tokens
    kept = [prompt for prompt in prompts if len(prompt.ids) <= longest]
    if not kept:
        raise ConfigError(
            f"rl.batching.row_tokens leaves {longest} tokens beside rl.sampling.max_new_tokens, too few for any prompt (the shortest has "
            f"{min(len(prompt.ids) for prompt in prompts)}); raise it"
        )
    check_prompts(kept, config)
    return Prompts(kept, too_long + len(prompts) - len(kept))


def _traces(session: Session, train: QuestionSet) -> list[Trace]:
    """Looks through the traces of the external arms before anything is generated for them to be compared with."""
    path, keep = session.config.select.external, session.config.select.external_verdicts
    assert path is not None
    asked = {"traces": file_digest(path), "questions": train.stage.directory.name}
    stage = session.stage(Key("traces"), {**asked, **session.policy, **session.known_by(session.base)})
    file = stage.directory / "traces.jsonl"

    def judge() -> dict[str, Any]:
        traces, elsewhere = read_traces(path, train.questions)
        known = read_records(file, Trace) if file.exists() else []
        lesson, context = session.lessons.trace_row, session.meta.config.context
        judged, too_long = judge_traces(path, traces, known, train.questions, lesson, context, session.pool)
        require_judged(judged, file)
        if is_primary():
            write_records(file, judged)
        dropped = {ELSEWHERE: elsewhere, TOO_LONG: too_long}
        verdicts = dict(collections.Counter(str(trace.verdict) for trace in judged).most_common())
        counts = {"traces": len(judged), "verdicts": verdicts, "dropped": {why: number for why, number in dropped.items() if number}}
        samples = [trace.as_sample() for trace in judged]
        return {**counts, **session.audited(lambda: audit_samples(samples, train.by_id, session.pool, stage.name))}

    session.do(stage, judge, judged=(file, Trace))
    judged = read_records(file, Trace)
    kept = [trace for trace in judged if keep == "all" or trace.verdict == "correct"]
    require_traces(path, kept, judged)
    return kept
