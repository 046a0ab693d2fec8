"""Asking a model one's own questions: under heuristics, to learn from what it says; or as it is, to see what it can do."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxpolya.api.model import Model
from jaxpolya.api.questions import Questions, as_questions
from jaxpolya.api.verifying import judging
from jaxpolya.config import EvalConfig, GenerateConfig, Sampling, VerifyConfig
from jaxpolya.config.file import build
from jaxpolya.errors import InputError
from jaxpolya.evaluation.measures import Answers, compare, measure
from jaxpolya.evaluation.passk import Interval
from jaxpolya.polya.catalogue import Slot, load_catalogue, slots
from jaxpolya.polya.prompts import PromptBuilder, exemplar_kind
from jaxpolya.progress import Display
from jaxpolya.records import Question, Sample
from jaxpolya.results import Evaluation
from jaxpolya.rollout.respond import Draws, Prompt, make_prompts, respond, try_kinds

RECORDS: Any = [{"kind": "jsonl", "path": "records"}]
"""Stands in configurations for questions that a caller gave."""

ROWS = 64
"""Responses decoded side by side, where nobody says."""


def generate(
    model: Model,
    questions: Questions,
    *,
    samples: int = 4,
    max_new_tokens: int = 512,
    temperature: float = 1.0,
    heuristics: Sequence[str] | Literal["all"] | None = None,
    sampling: Mapping[str, Any] | None = None,
    verify: VerifyConfig | None = None,
    rows: int = ROWS,
    out: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> list[Sample]:
    """Judged responses to questions: under Pólya's heuristics, or to the bare questions.

    Args:
      model: who is asked.
      questions: dictionaries with `question` and `answer`, or `Question`s.
      samples: responses per question and, with heuristics, per slot.
      max_new_tokens: of a response; one that reaches it is marked `length`.
      temperature: divides the logits; 0 is greedy.
      heuristics: keys of the catalogue, or all of it; None asks the bare question.
      sampling: further fields of `config.Sampling`.
      verify: the verifier's limits, and what it accepts.
      rows: responses decoded side by side.
      out: a file of JSON lines for the samples. What it holds already is not asked again, so that a call that was cut short goes on.
      quiet: shows no progress.
      settings: further fields of `config.GenerateConfig`: `exemplars`, `slots`, `four_phases`, `catalogue`, `seed`.

    Returns:
      All samples with their verdicts, by slot, question and index.

    Raises:
      ConfigError: an argument is out of its range, or there is no such heuristic.
      InputError: a record can't be asked or judged, or its prompt doesn't fit the model.
    """
    asked = as_questions(questions, "generate")
    drawn = {"max_new_tokens": max_new_tokens, "temperature": temperature, **(sampling or {})}
    picked = "all" if heuristics is None else heuristics if isinstance(heuristics, str) else list(heuristics)
    config = build(GenerateConfig, "generate", questions=RECORDS, samples=samples, heuristics=picked, sampling=drawn, **settings)
    catalogue = load_catalogue(config.catalogue)
    builder = model.prompt_builder(frame=catalogue.frame)
    pairs: list[tuple[Question, Slot | None]] = [(question, None) for question in asked]
    if heuristics is not None:
        chosen, kinds = catalogue.pick(config.heuristics), {exemplar_kind(question) for question in asked}
        offered = {kind: slots(chosen, config.slots, config.exemplars, config.seed, kind) for kind in kinds}
        number = len(next(iter(offered.values())))
        pairs = [(question, offered[exemplar_kind(question)][i]) for i in range(number) for question in asked]
    prompts = fitting(model, builder, pairs, config.sampling, "generate", four_phases=config.four_phases)
    draws = Draws("plain" if heuristics is None else "polya", "generate", config.samples, config.seed)
    return draw_samples(model, builder, prompts, config.sampling, draws, verify, rows=rows, out=out, quiet=quiet)


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """A model's answers to questions, and what they come to."""

    questions: list[Question]
    samples: list[Sample]
    greedy: list[Sample] | None
    """One response a question at temperature 0; None where none was asked for."""
    measures: Evaluation
    """pass@k (`measures.pass_[k]`), majority vote and greedy accuracy, each with its interval, and shares of what was cut off."""
    config: EvalConfig

    def versus(self, other: "EvaluationResult") -> dict[str, Interval]:
        """How much better this one is, paired over the questions that both answered: k as text, `majority` or `greedy` → interval.

        Raises `InputError` where no question is shared.
        """
        return compare(self.answers, other.answers, resamples=self.config.bootstrap, seed=self.config.seed)

    @property
    def answers(self) -> Answers:
        """What it measures."""
        return Answers.of(self.questions, self.samples, self.greedy)


def evaluate(
    model: Model,
    questions: Questions,
    *,
    samples: int = 16,
    max_new_tokens: int = 1024,
    temperature: float = 1.0,
    greedy: bool = False,
    sampling: Mapping[str, Any] | None = None,
    verify: VerifyConfig | None = None,
    rows: int = ROWS,
    out: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> EvaluationResult:
    """Unbiased pass@k, majority vote and greedy accuracy of a model on questions, with bootstrap intervals over them.

    Args:
      model: who is asked.
      questions: dictionaries with `question` and `answer`, or `Question`s.
      samples: responses per question; pass@k is given for k up to it.
      max_new_tokens: of a response; one that reaches it is marked `length`.
      temperature: divides the logits.
      greedy: asks each question once more at temperature 0.
      sampling: further fields of `config.Sampling`.
      verify: the verifier's limits, and what it accepts.
      rows: responses decoded side by side.
      out: a file of JSON lines for the samples; what it holds already is not asked again. Greedy ones stand beside it, in `NAME-greedy`.
      quiet: shows no progress.
      settings: further fields of `config.EvalConfig`: `bootstrap`, `seed`.

    Raises:
      ConfigError: an argument is out of its range.
      InputError: a record can't be asked or judged, or its prompt doesn't fit the model.
    """
    asked = as_questions(questions, "evaluate")
    drawn = {"max_new_tokens": max_new_tokens, "temperature": temperature, **(sampling or {})}
    settings = {"questions": {"records": RECORDS}, "samples": samples, "greedy": greedy, "composition": "none", **settings}
    config = build(EvalConfig, "evaluate", sampling=drawn, **settings)
    builder = model.prompt_builder()
    prompts = fitting(model, builder, [(question, None) for question in asked], config.sampling, "evaluate")

    def ask(use: Literal["eval", "greedy"], sampling: Sampling, number: int, file: str | Path | None) -> list[Sample]:
        draws = Draws("base", use, number, config.seed)
        return draw_samples(model, builder, prompts, sampling, draws, verify, rows=rows, out=file, quiet=quiet)

    responses = ask("eval", config.sampling, config.samples, out)
    beside = Path(out).with_stem(f"{Path(out).stem}-greedy") if out is not None else None
    single = ask("greedy", config.sampling.greedy, 1, beside) if config.greedy else None
    return EvaluationResult(asked, responses, single, _measured(asked, responses, single, config), config)


def _measured(questions: Sequence[Question], samples: Sequence[Sample], greedy: Sequence[Sample] | None, config: EvalConfig) -> Evaluation:
    counted: dict[str, list[bool] | list[int]] = {
        "truncated": [sample.finish == "length" for sample in samples],
        "unparseable": [sample.verdict == "unparseable" for sample in samples],
        "harness_error": [sample.verdict == "harness_error" for sample in samples],
        "tokens_mean": [len(sample.token_ids) for sample in samples],
    }
    means: dict[str, Any] = {name: sum(values) / len(samples) for name, values in counted.items()}
    measures = measure(Answers.of(questions, samples, greedy), resamples=config.bootstrap, seed=config.seed)
    return Evaluation(questions=len(questions), samples=config.samples, **means, **measures)


# Shared ------------------------------------------------------------------------------------------------------------------


def fitting(
    model: Model,
    builder: PromptBuilder,
    pairs: Sequence[tuple[Question, Slot | None]],
    sampling: Sampling,
    what: str,
    *,
    four_phases: bool = False,
    tokens: int | None = None,
) -> list[Prompt]:
    """The prompts of all pairs. Raises `InputError` where one and its response don't fit the model's positions, or so many `tokens`."""
    context = model.checkpoint.config.context
    room = min(tokens or context, context) - sampling.max_new_tokens
    longest = min(sampling.max_prompt_tokens or room, room)
    if longest <= 0:
        raise InputError(f"{what}: max_new_tokens ({sampling.max_new_tokens}) leaves no room for a prompt; lower it")
    prompts, too_long = make_prompts(builder, pairs, longest=longest, key=what, four_phases=four_phases)
    if too_long:
        kept = {prompt.id for prompt in prompts}
        first = next(question.id for question, slot in pairs if Prompt(question, "", (), slot).id not in kept)
        raise InputError(
            f"{what}: {too_long} of {len(pairs)} prompts are longer than {longest} tokens, the first that of the question {first!r}; leave "
            "them out, lower max_new_tokens or the exemplars, or take a model with more positions"
        )
    return prompts


def draw_samples(
    model: Model,
    builder: PromptBuilder,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    draws: Draws,
    verify: VerifyConfig | None,
    *,
    rows: int,
    out: str | Path | None,
    quiet: bool,
) -> list[Sample]:
    """All samples of all prompts with their verdicts; what `out` holds is not asked again."""
    engine = model.engine(builder, [prompt.ids for prompt in prompts], ending(sampling, builder), draws.samples, rows=rows)
    with (
        output_file(out, "samples.jsonl") as file,
        judging(verify) as pool,
        Display(quiet=quiet).task(draws.stage, len(prompts) * draws.samples) as task,
    ):
        try_kinds([prompt.question for prompt in prompts], pool)
        return respond(engine, lambda: model.checkpoint.params, prompts, draws, pool=pool, out=file, task=task)


def ending(sampling: Sampling, builder: PromptBuilder) -> Sampling:
    """The same sampling, where what opens the next turn ends a response too."""
    return sampling.model_copy(update={"stop": [*sampling.stop, *builder.stops]})


@contextlib.contextmanager
def output_file(out: str | Path | None, name: str) -> Iterator[Path]:
    """A path to write to: the caller's own, or one that goes away."""
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="jaxpolya-") as directory:
        yield Path(directory) / name
