"""What is measured of a model's answers to one question set, alone and against another model's.

Everything is a mean over questions with a bootstrap interval over questions (`passk`), so that one mechanism gives every interval and
every paired difference: pass@k from the sampled responses, the majority vote over them (`vote`), and the accuracy of one greedy response.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxpolya.errors import InputError
from jaxpolya.evaluation.passk import (
    NO_QUESTIONS,
    Counts,
    Interval,
    bootstrap_seeds,
    mean_interval,
    paired_difference,
    per_question,
    summarise,
)
from jaxpolya.evaluation.vote import majority
from jaxpolya.records import Question, Sample


@dataclasses.dataclass(frozen=True)
class Answers:
    """A model's answers to one question set."""

    samples: Sequence[Sample]
    greedy: Sequence[Sample] | None
    """One response a question at temperature 0, None where none was asked for."""
    programs: frozenset[str]
    """Ids of the questions that ask for code, which have no majority."""

    @classmethod
    def of(cls, questions: Sequence[Question], samples: Sequence[Sample], greedy: Sequence[Sample] | None) -> "Answers":
        """The answers to these questions."""
        return cls(samples, greedy, frozenset(question.id for question in questions if question.verifier == "code"))

    @functools.cached_property
    def counts(self) -> Counts:
        """Question id → (responses, correct ones); everything but `correct` counts as a failure."""
        total = collections.Counter(sample.question_id for sample in self.samples)
        correct = collections.Counter(sample.question_id for sample in self.samples if sample.verdict == "correct")
        return {question_id: (n, correct[question_id]) for question_id, n in total.items()}

    @functools.cached_property
    def single(self) -> dict[str, dict[str, float]]:
        """The measures that give each question one number: `majority` and `greedy`, as far as there are any."""
        votes = majority([sample for sample in self.samples if sample.question_id not in self.programs])
        scores = {"majority": votes} if votes else {}
        if self.greedy:
            scores["greedy"] = {sample.question_id: float(sample.verdict == "correct") for sample in self.greedy}
        return scores


def measure(answers: Answers, *, resamples: int, seed: int) -> dict[str, Any]:
    """`{pass_: {k: interval}, majority: interval, greedy: interval}`, the last two where there are any."""
    settings = {"resamples": resamples, "seed": seed}
    alone = {name: mean_interval([values[i] for i in sorted(values)], **settings) for name, values in answers.single.items()}
    return {"pass_": {int(k): interval for k, interval in summarise(answers.counts, **settings).items()}, **alone}


def compare(answers: Answers, other: Answers, *, resamples: int, seed: int) -> dict[str, Interval]:
    """How much higher each measure is than the other's, over the questions that both answered, with paired intervals.

    Keys are those of `passk.paired_difference` (k as text), `majority` and `greedy`, as far as both have them. Raises `InputError` where
    no question is shared.
    """
    intervals = paired_difference(answers.counts, other.counts, resamples=resamples, seed=seed)
    ours, theirs = answers.single, other.single
    for name in ours.keys() & theirs.keys():
        if shared := sorted(ours[name].keys() & theirs[name].keys()):
            differences = np.array([ours[name][i] - theirs[name][i] for i in shared])
            intervals[name] = mean_interval(differences, resamples=resamples, seed=seed)
    return intervals


# Several trainings ---------------------------------------------------------------------------------------------------------


def measure_seeds(answers: Sequence[Answers], *, resamples: int, seed: int) -> dict[str, Any]:
    """As `measure`, of the models of several trainings, with intervals over trainings and questions (`passk.bootstrap_seeds`)."""
    intervals = _over_seeds([_values(one) for one in answers], resamples, seed)
    passed = {int(name): interval for name, interval in intervals.items() if name.isdigit()}
    return {"pass_": passed, **{name: interval for name, interval in intervals.items() if not name.isdigit()}}


def compare_seeds(answers: Sequence[Answers], others: Sequence[Answers], *, resamples: int, seed: int) -> dict[str, Interval]:
    """As `compare`, of several trainings, each with the other model of its own seed."""
    differences = []
    for ours, theirs in zip(map(_values, answers), map(_values, others), strict=True):
        shared = {name: ours[name].keys() & theirs[name].keys() for name in ours if name in theirs}
        differences.append({name: {i: ours[name][i] - theirs[name][i] for i in ids} for name, ids in shared.items()})
    return _over_seeds(differences, resamples, seed)


def _values(answers: Answers) -> dict[str, dict[str, float]]:
    """Measure → question id → its value."""
    ids = sorted(answers.counts)
    passed = {str(k): dict(zip(ids, values.tolist(), strict=True)) for k, values in per_question(answers.counts, ids).items()}
    return passed | answers.single


def _over_seeds(per_seed: Sequence[dict[str, dict[str, float]]], resamples: int, seed: int) -> dict[str, Interval]:
    """Intervals of the measures that all trainings have, each over the questions that all answered."""
    intervals: dict[str, Interval] = {}
    for name in per_seed[0]:
        if all(name in one for one in per_seed):
            ids = sorted(set.intersection(*(set(one[name]) for one in per_seed)))
            if not ids:
                raise InputError(NO_QUESTIONS)
            values = [{name: np.array([one[name][i] for i in ids])} for one in per_seed]
            intervals |= bootstrap_seeds(values, resamples, seed)
    return intervals
