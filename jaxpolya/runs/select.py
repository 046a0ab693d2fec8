"""Which responses become fine-tuning rows, for all recipes at once: a cap on questions and the matching look at all of them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.arms import Recipe
from jaxpolya.config import SelectConfig
from jaxpolya.files import digest
from jaxpolya.hf.source import fingerprint
from jaxpolya.keys import Key
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.polya.keep import Candidates, make_keep, needs_scores
from jaxpolya.polya.prompts import exemplar_kind
from jaxpolya.polya.select import ADHERENCE, by_question, cap_questions, match_arms, require_rows, star_rows
from jaxpolya.records import Question, Sample, SftRow, write_records
from jaxpolya.runs.generate import PromptKind
from jaxpolya.runs.identity import meaning, row_stats, samples_digest, stage_fields
from jaxpolya.runs.questions import Questions
from jaxpolya.runs.session import Session
from jaxpolya.runs.stages import Stage
from jaxpolya.score.adherence import AdherenceScorer, Case, MutualInformation, Own, Reward, own_adherence
from jaxpolya.score.reward_model import load_reward_model


def select(session: Session, questions: Questions, samples: Mapping[PromptKind, Sequence[Sample]]) -> dict[Recipe, Path]:
    """The file of fine-tuning rows of each recipe."""
    recipes, train = session.config.recipes, questions.train
    if not recipes or train is None:
        return {}
    stage = session.stage(Key("select"), _identity(session, questions, samples))

    def work() -> dict[str, Any]:
        scores: dict[str, float] = {}
        rows = _rows(session, train.by_id, questions, samples, scores)
        if is_primary():
            for recipe, of_recipe in rows.items():
                write_records(_file(stage, recipe), of_recipe)
            # Those of what wasn't kept too: whoever doubts a selection looks at both.
            write_records(stage.directory / ADHERENCE, ({"sample_id": name, "adherence": score} for name, score in scores.items()))
        return {recipe.name: row_stats(of_recipe) for recipe, of_recipe in rows.items()}

    session.do(stage, work)
    return {recipe: _file(stage, recipe) for recipe in recipes}


def _file(stage: Stage, recipe: Recipe) -> Path:
    return stage.directory / f"{recipe.name}.jsonl"


def _identity(session: Session, questions: Questions, samples: Mapping[PromptKind, Sequence[Sample]]) -> dict[str, Any]:
    config, generate = session.config.select, session.config.generate
    assert questions.train is not None
    return {
        "select": select_fields(config),
        "kinds": [recipe.name for recipe in session.config.recipes],
        "questions": questions.train.stage.directory.name,
        **session.known_by(session.base),
        "samples": {asked: samples_digest(of_asked) for asked, of_asked in samples.items()},
        # What adherence asks with.
        "asked": {"four_phases": generate and generate.four_phases, "catalogue": session.catalogue.fingerprint},
        "external": digest([[trace.question_id, trace.response] for trace in questions.traces]),
        "reward_model": fingerprint(config.reward_model) if config.adherence == "reward_model" and config.reward_model else None,
        **meaning("prompts", "selection"),
    }


def _rows(
    session: Session,
    asked: Mapping[str, Question],
    questions: Questions,
    samples: Mapping[PromptKind, Sequence[Sample]],
    scores: dict[str, float],
) -> dict[Recipe, list[SftRow]]:
    """The rows of every recipe, capped and matched. Puts the adherence of whatever is scored into `scores`, by sample."""
    config, recipes = session.config.select, session.config.recipes
    traced = [session.lessons.trace_row(asked[trace.question_id], trace.response) for trace in questions.traces]
    candidates = {recipe: by_question(samples[recipe.responses], recipe.verdict) for recipe in recipes if recipe.responses}
    ids = {recipe.name: set(of_question) for recipe, of_question in candidates.items()}
    ids |= {"external": {row.question_id for row in traced}} if traced else {}
    kept = cap_questions(ids, config.max_questions, config.seed)
    scorer = functools.cache(functools.partial(_load_scorer, session))  # loaded once, where it is first needed
    rows: dict[str, list[SftRow]] = {}
    for recipe in recipes:
        if recipe.traces:
            rows[recipe.name] = [row for row in traced if kept is None or row.question_id in kept]
        else:
            grouped = {
                question_id: of_question for question_id, of_question in candidates[recipe].items() if kept is None or question_id in kept
            }
            rows[recipe.name] = _choose(session, recipe, grouped, asked, scorer, scores)
    require_rows(rows, {recipe.name: samples[recipe.responses] for recipe in recipes if recipe.responses})
    if config.match != "none":
        rows = match_arms(rows, config.match, lambda row: len(row.token_ids or ()), config.seed)
    return {recipe: rows[recipe.name] for recipe in recipes}


def _choose(
    session: Session,
    recipe: Recipe,
    grouped: Mapping[str, Sequence[Sample]],
    asked: Mapping[str, Question],
    scorer: Callable[[], AdherenceScorer],
    scores: dict[str, float],
) -> list[SftRow]:
    """The rows of one recipe, before matching; what is scored is added to `scores`."""
    config, lessons = session.config.select, session.lessons

    def row(sample: Sample, adherence: float | None) -> SftRow:
        return lessons.sample_row(asked[sample.question_id], sample, adherence=adherence, source=recipe.name)

    if recipe.responses == "plain":
        return star_rows(grouped, row)
    undecided = [sample for group in grouped.values() if needs_scores(config, group) for sample in group]
    slots = {question_id: {slot.index: slot for slot in session.slots[exemplar_kind(asked[question_id])]} for question_id in grouped}
    cases = [Case(asked[sample.question_id], slots[sample.question_id][sample.slot or 0], sample) for sample in undecided]
    if cases:
        session.display.note(f"select: scoring the adherence of {len(cases)} responses of the {recipe.name} arm")
        scores |= zip([sample.id for sample in undecided], scorer().score(cases).tolist(), strict=True)
    keep, _ = make_keep(config)

    def candidates(question_id: str) -> Candidates:
        samples = grouped[question_id]
        known = {sample.id: scores[sample.id] for sample in samples if sample.id in scores}
        return Candidates(asked[question_id], samples, known, config.n, config.duplicate_overlap, config.seed)

    return [row(sample, scores.get(sample.id)) for question_id in grouped for sample in keep(candidates(question_id))]


def select_fields(config: SelectConfig) -> dict[str, Any]:
    """What a selection is known by of its configuration: the content of a user's rules counts, not where they lie."""
    brought = {"adherence": own_adherence(config.adherence), "keep": make_keep(config)[1]}
    return stage_fields(config) | {name: plugin.identity for name, plugin in brought.items() if plugin}


def _load_scorer(session: Session) -> AdherenceScorer:
    config = session.config
    if own := own_adherence(config.select.adherence):
        return Own(own)
    four_phases = bool(config.generate and config.generate.four_phases)
    if config.select.adherence == "reward_model":
        assert config.select.reward_model is not None
        scorer = load_reward_model(config.select.reward_model, session.mesh, session.dtype, session.meta.config.attention)
        return Reward(scorer, session.builder, four_phases=four_phases)
    forward, params = Forward(session.meta.config, session.dtype), session.load(session.base).params
    return MutualInformation(params, forward, session.mesh, session.builder, four_phases=four_phases, model=session.base.source)
