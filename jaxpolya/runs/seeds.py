"""A run with several seeds: the run once for each, and what they found together.

Each seed is a configuration of its own in the same directory (`configurations`), so all that a seed doesn't change is shared, and whatever
is broken off goes on. What all of them found is one more configuration, named `seeds=[…]`; the directory shows that one.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from jaxpolya.arms import BASE, Arm
from jaxpolya.config import RunConfig
from jaxpolya.evaluation.measures import Answers, compare_seeds, measure_seeds
from jaxpolya.keys import Key
from jaxpolya.results import ArmResults, Evaluation, Generation, Results, StageRow
from jaxpolya.runs.evaluate import Evaluations
from jaxpolya.runs.results import answers_of, best_arm
from jaxpolya.runs.stages import Stage

SHARES = ("truncated", "unparseable", "harness_error", "cut_short", "tokens_mean")


@dataclasses.dataclass(frozen=True)
class OfSeed:
    """What one seed's run left."""

    results: Results
    answers: dict[Arm, dict[str, Answers]]
    """By arm, those on the way through RL included, and by question set."""
    evaluations: Evaluations
    stages: dict[Key, Stage]

    @classmethod
    def of(cls, results: Results, evaluations: Evaluations, stages: Mapping[Key, Stage]) -> "OfSeed":
        """What a run that is done left."""
        arms = [*evaluations.sampled, *evaluations.doses]
        sampled = {**evaluations.sampled, **evaluations.doses}
        return cls(results, {arm: answers_of(arm, sampled, evaluations.greedy, stages) for arm in arms}, evaluations, dict(stages))


def over_seeds(config: RunConfig, by_seed: Mapping[int, OfSeed]) -> Results:
    """The results of all seeds together.

    Figures of arms have intervals over seeds and questions, and differences from the base model are taken within a seed. Diversity and
    composition are the seeds' own.
    """
    first = next(iter(by_seed.values()))
    arms = {name: _arm(config, name, by_seed) for name in first.results.arms}
    audits = {f"seed {seed}, {name}": audit for seed, one in by_seed.items() for name, audit in one.results.audit.items()}
    return first.results.model_copy(
        update={
            "config": config.model_dump(mode="json"),
            "run": first.results.run.model_copy(update={"seeds": {str(seed): seed for seed in by_seed}}),
            "best": best_arm(arms, next(iter(config.eval.questions))),
            "arms": arms,
            "selection": {f"{kind}, seed {seed}": rows for seed, one in by_seed.items() for kind, rows in one.results.selection.items()},
            "audit": audits,
            "generation": _generation([one.results for one in by_seed.values()]),
            "stages": _stages(by_seed),
            "seeds": list(by_seed),
        }
    )


def _arm(config: RunConfig, name: str, by_seed: Mapping[int, OfSeed]) -> ArmResults:
    """One arm over all seeds, and what it is by each."""
    doses: dict[int, dict[str, Evaluation]] = {}
    whole: dict[str, Evaluation] = {}
    for arm, of_sets in next(iter(by_seed.values())).answers.items():
        if dataclasses.replace(arm, step=None).name == name:
            evaluated = {question_set: _evaluation(config, arm, question_set, list(by_seed.values())) for question_set in of_sets}
            if arm.step is None:
                whole = evaluated
            else:
                doses[arm.step] = evaluated
    return ArmResults(eval=whole, doses=doses, seeds={seed: one.results.arms[name] for seed, one in by_seed.items()})


def _evaluation(config: RunConfig, arm: Arm, question_set: str, seeds: Sequence[OfSeed]) -> Evaluation:
    """One arm on one question set, over all seeds."""
    settings = {"resamples": config.eval.bootstrap, "seed": config.eval.seed}
    answers = [one.answers[arm][question_set] for one in seeds]
    base = [one.answers[BASE][question_set] for one in seeds if arm != BASE and BASE in one.answers]
    own = [one.results.arms[dataclasses.replace(arm, step=None).name] for one in seeds]
    evaluated = [(entry.eval if arm.step is None else entry.doses[arm.step])[question_set] for entry in own]
    return Evaluation(
        questions=min(evaluation.questions for evaluation in evaluated),
        samples=min(evaluation.samples for evaluation in evaluated),
        **measure_seeds(answers, **settings),
        versus_base=compare_seeds(answers, base, **settings) if base else None,
        **{name: sum(getattr(evaluation, name) for evaluation in evaluated) / len(evaluated) for name in SHARES},
    )


def _generation(results: Sequence[Results]) -> dict[str, Generation]:
    total: dict[str, collections.Counter[str]] = {}
    for one in results:
        for heuristic, counts in one.generation.items():
            total.setdefault(heuristic, collections.Counter()).update(counts.model_dump())
    return {heuristic: Generation(**counts) for heuristic, counts in total.items()}


def _stages(by_seed: Mapping[int, OfSeed]) -> list[StageRow]:
    """What each stage took, those that seeds share once."""
    rows, seen = [], set()
    for seed, one in by_seed.items():
        for stage, row in zip(one.stages.values(), one.results.stages, strict=True):
            if stage.directory not in seen:
                seen.add(stage.directory)
                rows.append(row.model_copy(update={"name": f"{row.name}, seed {seed}"}))
    return rows
