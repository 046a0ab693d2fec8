"""The base model answers the training questions: without heuristics for some recipes, under all of them for others."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxpolya.config import GenerateConfig
from jaxpolya.evaluation.audit import audit_samples
from jaxpolya.keys import Key
from jaxpolya.polya.catalogue import Slot
from jaxpolya.polya.prompts import exemplar_kind
from jaxpolya.records import Question, Sample, read_records
from jaxpolya.rollout.respond import Draws
from jaxpolya.runs.identity import sample_stats, stage_fields
from jaxpolya.runs.questions import Questions, QuestionSet, bare
from jaxpolya.runs.session import Session
from jaxpolya.runs.stages import Stage

PromptKind = Literal["plain", "polya"]
"""How questions were asked: bare, or under heuristics (`arms.Recipe.responses`)."""


def generate(session: Session, questions: Questions) -> dict[PromptKind, list[Sample]]:
    """The judged responses that recipes choose their rows from, without log-probs, by how they were asked for."""
    config, needed = session.config.generate, {recipe.responses for recipe in session.config.recipes}
    if config is None or questions.train is None:
        return {}
    samples: dict[PromptKind, list[Sample]] = {}
    if "plain" in needed:
        samples["plain"] = _plain(session, config, questions.train)
    if "polya" in needed:
        samples["polya"] = _polya(session, config, questions.train)
    return samples


def _plain(session: Session, config: GenerateConfig, train: QuestionSet) -> list[Sample]:
    fields = stage_fields(config, without=("samples", "heuristics", "slots", "exemplars", "four_phases"))
    stage = session.stage(Key("generate", "plain"), {"generate": fields, **_common(session, train)})
    return _ask(session, config, stage, bare(train.questions), config.plain_samples)


def _polya(session: Session, config: GenerateConfig, train: QuestionSet) -> list[Sample]:
    offered = session.catalogue.model_copy(update={"heuristics": session.catalogue.pick(config.heuristics)})
    fields = {"generate": stage_fields(config, without=("plain_samples",)), "catalogue": offered.fingerprint}
    stage = session.stage(Key("generate", "polya"), {**fields, **_common(session, train)})
    # Slot by slot: prompts under one slot begin with the same exemplars, whose prefill they share.
    number, slots = range(len(session.slots["math"])), session.slots
    pairs = [(question, slots[exemplar_kind(question)][i]) for i in number for question in train.questions]
    return _ask(session, config, stage, pairs, config.samples)


def _common(session: Session, train: QuestionSet) -> Mapping[str, Any]:
    return {"questions": train.stage.directory.name, **session.policy, **session.known_by(session.base)}


def _ask(
    session: Session, config: GenerateConfig, stage: Stage, pairs: Sequence[tuple[Question, Slot | None]], samples: int
) -> list[Sample]:
    file = stage.directory / "samples.jsonl"

    def work() -> dict[str, Any]:
        prompts, too_long = session.prompts(pairs, config.sampling, "generate", four_phases=config.four_phases)
        draws = Draws(stage.key.of, "generate", samples, config.seed)
        drawn = session.respond(prompts, config.sampling, draws, session.base, file, stage.name)
        asked, greedy = {question.id: question for question, _ in pairs}, not config.sampling.temperature
        audit = session.audited(lambda: audit_samples(drawn, asked, session.pool, stage.name, greedy=greedy))
        return {**sample_stats(drawn), "prompts": len(prompts), "too_long": too_long, **audit}

    session.do(stage, work, judged=(file, Sample))
    # Nothing after this asks for log-probs, which are half of the memory.
    return [dataclasses.replace(sample, logprobs=[]) for sample in read_records(file, Sample)]
