"""What a run found, as values: results.json, of which tables, plots, pages and the model card are made.

Whoever shows a run reads nothing else, and knows nothing of models or devices. What a run did not do is None or empty, and is left out
of whatever is shown. Names of fields are those of the file; shares are shares of 1, lengths are tokens, times are seconds.

Files of earlier versions are read: what they didn't have yet has a default. `runs.results` gathers a run's results from its stages.
This module doesn't import jax.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Literal, Self

import pydantic
from pydantic import Field

from jaxpolya.errors import InputError
from jaxpolya.evaluation.contamination import Overlap
from jaxpolya.evaluation.judge_quality import JudgeQuality
from jaxpolya.evaluation.passk import Interval
from jaxpolya.files import write_whole
from jaxpolya.records import read_json, write_json

RESULTS = "results.json"


class ResultPart(pydantic.BaseModel):
    """Base of all parts: frozen, no unknown fields."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class Facts(ResultPart):
    """A part that may hold more than is named here, which is kept and shown as it is."""

    model_config = pydantic.ConfigDict(extra="allow")

    def get(self, name: str) -> Any:
        """A field by its name, None where there is none."""
        return getattr(self, name, None)


# Evaluation ------------------------------------------------------------------------------------------------------------


class Diversity(ResultPart):
    """How far the solutions of one model are apart, on one question set (docs/diversity.md)."""

    questions: int
    samples: int
    """The fewest of a question."""
    length: int
    """Words that distinct-n looks at."""
    kernel: str
    """Of the Vendi score."""
    distinct_1: Interval
    distinct_2: Interval
    distinct_3: Interval
    self_bleu: Interval
    vendi: Interval
    label_entropy: Interval | None = None
    """In nats, of the heuristics that a judge names."""


class Composition(Facts):
    """How often the correct solutions of one model use several heuristics."""

    judge: str
    quality: JudgeQuality | None = None
    """How well the judge agrees with the labelled set; None in results of versions that didn't measure it."""
    questions: int
    solutions: int
    rate: Interval
    corrected: Interval | None = None
    """The rate as it would be without the judge's errors; None where the judge can't tell enough."""
    by_heuristic: dict[str, float]
    """Key → share of the solutions that use it."""


class Evaluation(ResultPart):
    """One arm's answers to one question set; everything but `correct` counts as a failure."""

    questions: int
    samples: int
    """Responses per question."""
    pass_: dict[int, Interval] = Field(alias="pass")
    """k → pass@k; every k up to 64, then powers of two and the last."""
    majority: Interval | None = None
    """Of the majority vote; None for programs."""
    greedy: Interval | None = None
    """Of one response at temperature 0; None unless `eval.greedy`."""
    versus_base: dict[str, Interval] | None = None
    """k as text, `majority` or `greedy` → the paired difference from the arm `base`."""
    truncated: float | None = None
    unparseable: float | None = None
    harness_error: float | None = None
    cut_short: float | None = None
    """Share of the responses that the verifier's limits cut short."""
    tokens_mean: float | None = None
    diversity: Diversity | None = None
    composition: Composition | None = None

    @property
    def ks(self) -> list[int]:
        """The k for which there is a pass@k, in their order."""
        return sorted(self.pass_)

    @property
    def alone(self) -> dict[str, Interval]:
        """The measures that give each question one number, as far as there are any."""
        return {name: interval for name, interval in (("greedy", self.greedy), ("majority", self.majority)) if interval}


class Difference(ResultPart):
    """How much better one model is than another on one question set, question by question."""

    questions: int
    """That both answered."""
    difference: dict[str, Interval]
    """k as text, `majority` or `greedy` → the paired difference."""


class Comparison(ResultPart):
    """How much better one model is than another."""

    model: str
    against: str
    sets: dict[str, Difference]


# Training --------------------------------------------------------------------------------------------------------------


class ValidationResult(ResultPart):
    """The looks at a training while it worked (`sft.validation`, `rl.validation`), and which of its models it left."""

    metric: str
    kept: int
    """Steps done by the model that the training left."""
    best: int
    """Steps done at the best look."""
    last: int
    """Steps done in all."""
    stopped: bool
    """Whether it ended early, for the metric didn't rise."""
    looks: dict[int, float]
    """Steps done → the metric."""


class Sft(ResultPart):
    """One fine-tuning; losses are means over the first and the last steps, in nats per token."""

    rows: int
    tokens: int
    steps: int
    loss_first: float
    loss_last: float
    heldout_first: float | None = None
    heldout_last: float | None = None
    validation: ValidationResult | None = None


class RlStep(Facts):
    """What was measured in one step of RL; an algorithm may add to it."""

    step: int
    reward: float | None = None
    """Mean over the responses that were judged; None where none was."""
    length: float | None = None
    truncated: float | None = None
    no_signal: float | None = None
    """Share of the groups whose rewards are all equal."""
    cut_short: float | None = None
    entropy: float | None = None
    clip: float | None = None
    kl: float | None = None
    grad_norm: float | None = None


class Rl(ResultPart):
    """One training by rewards."""

    steps: list[RlStep]
    without_signal: bool = False
    """No step had a gradient."""
    validation: ValidationResult | None = None


class ArmResults(ResultPart):
    """One arm."""

    eval: dict[str, Evaluation] = {}
    """By question set."""
    sft: Sft | None = None
    rl: Rl | None = None
    doses: dict[int, dict[str, Evaluation]] = {}
    """Step of RL → question set → the evaluation of the arm after so much RL (`rl.evaluate_at`)."""
    seeds: dict[int, "ArmResults"] = {}
    """What the arm is by each of a run's `seeds`: then `eval` and `doses` are over all of them, and the trainings are the seeds' own."""

    @property
    def trainings(self) -> dict[int | None, "ArmResults"]:
        """By seed; None is that of a run without `seeds`."""
        by_seed: dict[int | None, ArmResults] = {seed: one for seed, one in self.seeds.items()}
        return by_seed or {None: self}


# Data ------------------------------------------------------------------------------------------------------------------


class Rows(ResultPart):
    """The fine-tuning rows of one recipe."""

    rows: int
    questions: int
    per_question: dict[int, int]
    """Number of rows → questions that have so many."""
    by_heuristic: dict[str, int]


class SharedQuestions(ResultPart):
    """What one evaluation set shares with a training set."""

    shared: int
    """Training questions."""
    pairs: int


class Contamination(ResultPart):
    """What one training set shares with the evaluation sets."""

    n: int
    """Words in a row that make an overlap."""
    dropped: bool
    """Whether shared questions were left out of training."""
    questions: int
    shared: int
    pairs: int
    sets: dict[str, SharedQuestions]
    examples: list[Overlap]


class Generation(ResultPart):
    """The responses that the base model gave under one heuristic."""

    samples: int
    correct: int
    truncated: int


class PaidResponse(ResultPart):
    """A response that the first or the last steps of RL paid."""

    end: Literal["first", "last"]
    step: int
    question: str
    gold: str
    answer: str | None
    response: str


class AuditShares(Facts):
    """What a second look at paid answers counted (`evaluate.audit.summarise`); what rests on nothing is None."""

    responses: int
    paid: int
    length: float | None = None
    refused: float | None = None
    not_literal: float | None = None
    copied: float | None = None
    in_question: float | None = None
    contradictory: float | None = None
    unconfirmed: float | None = None
    distinct_responses: float | None = None
    distinct_answers: float | None = None
    inverted: float | None = None


class Collapse(ResultPart):
    """When a policy came to have one response to a question, and what fell: means over the first steps, and over those up to `step`."""

    step: int
    group: int
    distinct_responses: tuple[float, float]
    """Of a group."""
    entropy: tuple[float, float]
    reward: tuple[float, float]


class Audit(ResultPart):
    """The audit of one stage that judges; `first` and `last` are the first and the last quarter of the steps of RL."""

    all: AuditShares | None = None
    first: AuditShares | None = None
    last: AuditShares | None = None
    collapse: Collapse | None = None
    """Of RL."""
    warnings: list[str] = []
    shown: list[PaidResponse] = []


class StageRow(ResultPart):
    """What one stage took."""

    name: str
    seconds: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    rows_busy: float | None = None
    """Share of the decode engine's row-steps whose token was kept."""


class Provenance(Facts):
    """Who computed this, and from what; versions, device and command are among what isn't named here."""

    name: str
    model: str | None = None
    arms: list[str] = []
    seeds: dict[str, int] = {}
    fingerprint: str | None = None
    origin: dict[str, Any] = {}
    packages: dict[str, str] = {}
    commit: str | None = None
    device: str | None = None


# The whole -------------------------------------------------------------------------------------------------------------


class Results(ResultPart):
    """What a run found."""

    run: Provenance
    config: dict[str, Any] = {}
    """The resolved configuration, as the version that ran it wrote it."""
    best: str | None = None
    """The arm with the highest mean pass@1 on the first question set, among those whose RL had a signal."""
    models: dict[str, str] = {}
    """Arm → its checkpoint; a stage's as a path from the run's directory."""
    arms: dict[str, ArmResults] = {}
    """In the order in which they are shown."""
    selection: dict[str, Rows] = {}
    """By recipe."""
    contamination: dict[str, Contamination] = {}
    """By use: `train`, `rl`."""
    audit: dict[str, Audit] = {}
    """By the stage's name (`keys.Key.name`)."""
    left_out: dict[str, dict[str, int]] = {}
    """Question set, or stage → reason → how many questions, traces or rows took no part."""
    generation: dict[str, Generation] = {}
    """By heuristic; `plain` is none."""
    stages: list[StageRow] = []
    seeds: list[int] = []
    """Of a run that was done with several; intervals are then over seeds and questions."""

    @property
    def sets(self) -> dict[str, dict[str, Evaluation]]:
        """Question set → arm → its evaluation, in order of first appearance."""
        by_set: dict[str, dict[str, Evaluation]] = {}
        for arm, entry in self.arms.items():
            for name, evaluation in entry.eval.items():
                by_set.setdefault(name, {})[arm] = evaluation
        return by_set

    @property
    def model_name(self) -> str:
        """The base model's name, without where it lies."""
        return PurePath(self.run.model or self.run.name).name

    def label(self, arm: str) -> str:
        """What people call an arm: of a run that evaluates one model, that model's name."""
        return self.model_name if self.run.model and self.run.arms == ["base"] else arm

    @property
    def what(self) -> str:
        """What its arms are: arms, or the one model that was evaluated."""
        return "model" if self.run.arms == ["base"] else "arm"

    @property
    def without_signal(self) -> list[str]:
        """The arms whose RL had a gradient of 0 in every step: no group held two different rewards, or none was learned from."""
        return [arm for arm, entry in self.arms.items() if any(one.rl and one.rl.without_signal for one in entry.trainings.values())]

    @property
    def curves(self) -> dict[str, list[list[RlStep]]]:
        """Arm → the steps of its RL, of each seed, for the arms that have any."""
        by_arm = {arm: [one.rl.steps for one in entry.trainings.values() if one.rl and one.rl.steps] for arm, entry in self.arms.items()}
        return {arm: of_seeds for arm, of_seeds in by_arm.items() if of_seeds}

    @property
    def over(self) -> str:
        """What intervals are over, in words."""
        return f"{len(self.seeds)} seeds and questions" if self.seeds else "questions"

    @property
    def unevaluated(self) -> str | None:
        """How answers that weren't worked out were judged (`verify.math.unevaluated`)."""
        return ((self.config.get("verify") or {}).get("math") or {}).get("unevaluated")

    @property
    def evaluations(self) -> Iterator[Evaluation]:
        """Those of all arms and sets."""
        return (evaluation for arms in self.sets.values() for evaluation in arms.values())

    def to_json(self) -> dict[str, Any]:
        """The results as a plain tree; what is None is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def write(self, directory: Path) -> None:
        """Writes results.json, for programs."""
        write_whole(directory / RESULTS, write_json(self.to_json(), RESULTS, indent=1) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """A directory's results.json; None where there is none. Raises `InputError` if it can't be read."""
        path = directory / RESULTS
        if not path.exists():
            return None
        with contextlib.suppress(ValueError, RecursionError):  # what pydantic raises is a ValueError too
            results = cls.model_validate(read_json(path.read_text(encoding="utf-8")))
            if results.best in results.models:
                return results
        raise InputError(f"{path} is damaged, or of another version of jaxpolya; `jaxpolya run` writes it again from the stages")
