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

from jaxpolya.evaluation.passk import Counts, Interval, mean_interval, paired_difference, summarise
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
        found = {"majority": votes} if votes else {}
        if self.greedy:
            found["greedy"] = {sample.question_id: float(sample.verdict == "correct") for sample in self.greedy}
        return found


def measure(answers: Answers, *, resamples: int, seed: int) -> dict[str, Any]:
    """`{pass_: {k: interval}, majority: interval, greedy: interval}`, the last two where there are any."""
    settings = {"resamples": resamples, "seed": seed}
    alone = {name: mean_interval([values[i] for i in sorted(values)], **settings) for name, values in answers.single.items()}
    return {"pass_": {int(k): found for k, found in summarise(answers.counts, **settings).items()}, **alone}


def compare(answers: Answers, other: Answers, *, resamples: int, seed: int) -> dict[str, Interval]:
    """How much higher each measure is than the other's, over the questions that both answered, with paired intervals.

    Keys are those of `passk.paired_difference` (k as text), `majority` and `greedy`, as far as both have them. Raises `InputError` where
    no question is shared.
    """
    found = paired_difference(answers.counts, other.counts, resamples=resamples, seed=seed)
    ours, theirs = answers.single, other.single
    for name in ours.keys() & theirs.keys():
        if shared := sorted(ours[name].keys() & theirs[name].keys()):
            differences = np.array([ours[name][i] - theirs[name][i] for i in shared])
            found[name] = mean_interval(differences, resamples=resamples, seed=seed)
    return found
