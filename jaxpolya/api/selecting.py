"""From judged samples to fine-tuning rows: the heuristic's instruction goes, the response stays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.api.model import Model
from jaxpolya.api.questions import Questions, as_questions
from jaxpolya.config import SelectConfig
from jaxpolya.config.file import build
from jaxpolya.errors import InputError
from jaxpolya.models.forward import Forward
from jaxpolya.polya.catalogue import Catalogue, Slot, load_catalogue
from jaxpolya.polya.keep import Candidates, make_keep, needs_scores
from jaxpolya.polya.lessons import Lessons
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.polya.select import by_question, require_rows, star_rows
from jaxpolya.records import Question, Sample, SftRow
from jaxpolya.score.adherence import AdherenceScorer, Case, MutualInformation, Own, Reward, own_adherence
from jaxpolya.score.reward_model import load_reward_model


def select(
    model: Model,
    samples: Iterable[Sample],
    questions: Questions,
    *,
    n: int = 4,
    verdict: str = "correct",
    four_phases: bool = False,
    catalogue: str | Path | None = None,
    **settings: Any,
) -> list[SftRow]:
    """Fine-tuning rows of samples that ended by themselves, behind the bare questions.

    Of samples under heuristics, at most n a question are kept, one of each slot, near-duplicates dropped; which, adherence decides, where
    anything hangs on it. Of samples without a heuristic, the first of each question.

    Args:
      model: that gave the samples; its tokens are learned, and it scores adherence.
      samples: as `jaxpolya.generate` gives them.
      questions: the same that were asked.
      n: approaches kept per question, at most.
      verdict: of the samples to learn from; `wrong` is for ablations.
      four_phases, catalogue: as they were asked with.
      settings: further fields of `config.SelectConfig`: `adherence`, `reward_model`, `duplicate_overlap`, `keep`, `seed`.

    Raises:
      ConfigError: an argument is out of its range, or doesn't lead to what it names.
      InputError: a sample is of a question that isn't there.
      RunError: there is nothing to learn from.
    """
    asked = {question.id: question for question in as_questions(questions, "select")}
    config = build(SelectConfig, "select", n=n, **settings)
    drawn = list(samples)
    if strange := next((sample.question_id for sample in drawn if sample.question_id not in asked), None):
        raise InputError(f"select: there is a sample of the question {strange!r}, which is not among the questions")
    heuristics = load_catalogue(Path(catalogue) if catalogue is not None else None)
    builder = model.prompt_builder(frame=heuristics.frame)
    lessons = Lessons(model.checkpoint.tokenizer, builder, builder.stop_ids(model.checkpoint.stop_ids))

    def row(sample: Sample, adherence: float | None) -> SftRow:
        return lessons.sample_row(asked[sample.question_id], sample, adherence=adherence, source="select")

    plain = by_question([sample for sample in drawn if sample.heuristic is None], verdict)
    guided = by_question([sample for sample in drawn if sample.heuristic is not None], verdict)
    undecided = [sample for group in guided.values() if needs_scores(config, group) for sample in group]
    cases = [Case(asked[sample.question_id], _slot(heuristics, sample), sample) for sample in undecided]
    scorer = _scorer(model, builder, config, four_phases) if cases else None
    scores = dict(zip([sample.id for sample in undecided], scorer.score(cases).tolist(), strict=True)) if scorer else {}
    rows = star_rows(plain, row) + _keep(guided, asked, scores, config, row)
    require_rows({"selected": rows}, {"selected": drawn})
    return rows


def _keep(
    guided: Mapping[str, Sequence[Sample]],
    asked: Mapping[str, Question],
    scores: Mapping[str, float],
    config: SelectConfig,
    row: Callable[[Sample, float | None], SftRow],
) -> list[SftRow]:
    keep, _ = make_keep(config)
    rows: list[SftRow] = []
    for question_id, group in guided.items():
        known = {sample.id: scores[sample.id] for sample in group if sample.id in scores}
        candidates = Candidates(asked[question_id], group, known, config.n, config.duplicate_overlap, config.seed)
        rows += [row(sample, scores.get(sample.id)) for sample in keep(candidates)]
    return rows


def _slot(catalogue: Catalogue, sample: Sample) -> Slot:
    """The slot that a sample was asked under, as far as adherence looks at it: it takes the exemplars away."""
    return Slot(sample.slot or 0, catalogue.pick([sample.heuristic or ""])[0], ())


def _scorer(model: Model, builder: PromptBuilder, config: SelectConfig, four_phases: bool) -> AdherenceScorer:
    if own := own_adherence(config.adherence):
        return Own(own)
    if config.adherence == "reward_model":
        if config.reward_model is None:
            raise InputError("select: adherence is reward_model, and reward_model names none")
        scorer = load_reward_model(config.reward_model, model.mesh, model.dtype, model.checkpoint.config.attention)
        return Reward(scorer, builder, four_phases=four_phases)
    checkpoint = model.checkpoint
    forward = Forward(checkpoint.config, model.dtype)
    return MutualInformation(checkpoint.params, forward, model.mesh, builder, four_phases=four_phases, model=model.name)
