"""What several configurations found, of one run or of several, side by side: `jaxpolya compare`, and the end of a sweep.

A *point* is one arm of one configuration, at the end of its RL or at a dose on the way. Points of one arm answer the same questions, so
each is compared question by question with the first of its arm (`measures.compare_seeds`), from the samples that its stages hold.
Imports no jax.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.arms import ARMS, Arm
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.evaluation.measures import Answers, compare_seeds
from jaxpolya.keys import Key
from jaxpolya.records import Question, Sample, read_records
from jaxpolya.report.comparison import DOSE, FEW_SETTINGS, Point, Points
from jaxpolya.results import Evaluation, Results
from jaxpolya.runs import configurations as known
from jaxpolya.runs.configurations import Configuration
from jaxpolya.runs.overview import check_run

RESAMPLES = 1000
"""Of the bootstrap behind differences between configurations."""


def gather_points(runs: Sequence[Path], by: str | None = None) -> Points:
    """All finished configurations of some runs, by one of the settings in which they differ.

    Args:
      runs: run directories.
      by: a setting, as `configurations.is_named` reads it, or `dose`; None is the one that differs, where it is one.

    Raises:
      ConfigError: they don't differ in that setting, or in several and none was named.
      InputError: one is not a run directory, or nothing in it is finished.
    """
    outcomes = [(run, one, results) for run in runs for one, results in finished(run)]
    if not outcomes:
        raise InputError(f"{', '.join(map(str, runs))}: no configuration is finished, so there is nothing to compare")
    apart = known.differing([_numbered(one, i) for i, (_, one, _) in enumerate(outcomes)])
    doses = any(entry.doses for _, _, results in outcomes for entry in results.arms.values())
    keys = list(apart["0"]) + [DOSE] * doses
    axis = _axis(by, keys)
    many = len(keys) > FEW_SETTINGS
    of_run = {run: [i for i, (other, _, _) in enumerate(outcomes) if other == run] for run in runs}
    labels = [_label(results, of_run[run], i, many) for i, (run, _, results) in enumerate(outcomes)]
    points, first = [], dict[tuple[str, str], _AnswerFiles]()
    for i, (run, one, results) in enumerate(outcomes):
        base_name = results.model_name if results.run.arms == ["base"] else None
        for name, arm, sets in _arms(results):
            settings = dict(apart[str(i)]) | ({DOSE: arm.step or _steps(results)} if doses and arm.rl else {})
            for question_set, evaluation in sets.items():
                answered = _AnswerFiles(run, one, results, arm, question_set)
                reference = first.setdefault((arm.start.name if arm.step else name.partition("@")[0], question_set), answered)
                points.append(
                    Point(
                        run=labels[i] if len(runs) > 1 or many else "",
                        settings={key: value for key, value in settings.items() if value is not None},
                        arm=base_name or name.partition("@")[0],
                        question_set=question_set,
                        evaluation=evaluation,
                        versus_first=None if reference is answered else answered.less(reference),
                    )
                )
    return Points(by=axis, points=points)


def _numbered(one: Configuration, number: int) -> Configuration:
    """Under an id that no other has, for runs may share configurations; which arms there are shows in the rows."""
    return one.model_copy(update={"id": str(number), "settings": {key: value for key, value in one.settings.items() if key != "arms"}})


def _label(results: Results, of_run: Sequence[int], number: int, many: bool) -> str:
    """The run's name, with a number where several of its configurations can't be told apart otherwise."""
    return f"{results.run.name} #{of_run.index(number) + 1}" if many and len(of_run) > 1 else results.run.name


def finished(run: Path) -> list[tuple[Configuration, Results]]:
    """The configurations of a run that have results; those that are one seed of another one are left to it."""
    check_run(run)
    recorded = (run / known.PLACE).exists()
    all_of_them = known.configurations(run)
    several = [known.without_seeds(one) for one in all_of_them if "seeds" in one.settings]
    alone = [one for one in all_of_them if "seeds" in one.settings or known.without_seeds(one) not in several]
    outcomes = [(one, Results.read(known.place(run, one) if recorded else run)) for one in alone]
    return [(one, results) for one, results in outcomes if results is not None]


def _axis(by: str | None, keys: Sequence[str]) -> str | None:
    if by is None:
        return keys[0] if len(keys) == 1 else None
    matching = [key for key in keys if known.is_named(key, by)]
    if len(matching) != 1:
        there = f"they differ in {', '.join(keys)}" if keys else "they differ in nothing"
        raise ConfigError(f"--by {by}: {'several settings are meant' if matching else 'no setting that differs is meant'}; {there}")
    return matching[0]


def _arms(results: Results) -> list[tuple[str, Arm, Mapping[str, Evaluation]]]:
    """(name, arm, question set → evaluation) of all arms, those on the way through RL first."""
    rows: list[tuple[str, Arm, Mapping[str, Evaluation]]] = []
    for name, entry in results.arms.items():
        for step, sets in sorted(entry.doses.items()):
            rows.append((f"{name}@{step}", Arm(ARMS[name].recipe, rl=True, step=step), sets))
        rows.append((name, ARMS[name], entry.eval))
    return rows


def _steps(results: Results) -> Any:
    return (results.config.get("rl") or {}).get("steps")


class _AnswerFiles:
    """Where the answers of a point lie."""

    def __init__(self, run: Path, configuration: Configuration, results: Results, arm: Arm, question_set: str):
        self.run, self._configuration, self._results = run, configuration, results
        self._arm, self._set = arm, question_set

    def less(self, other: "_AnswerFiles") -> Any:
        """The paired differences from another point's answers; None where either's records aren't there, or no question is shared."""
        try:
            ours, theirs = self._read(), other._read()
            if not ours or len(ours) != len(theirs):
                return None
            return compare_seeds(ours, theirs, resamples=RESAMPLES, seed=0)
        except InputError:
            return None

    def _read(self) -> list[Answers]:
        """The answers of each seed."""
        asked = self._stages(Key("questions", "eval", self._set))
        if not asked:
            return []
        questions = read_records(asked[0] / "questions.jsonl", Question)
        greedy = self._stages(Key("greedy", self._arm.slug, self._set))
        answers = []
        for i, stage in enumerate(self._stages(Key("eval", self._arm.slug, self._set))):
            once = read_records(greedy[i] / "samples.jsonl", Sample) if i < len(greedy) else None
            answers.append(Answers.of(questions, read_records(stage / "samples.jsonl", Sample), once))
        return answers

    def _stages(self, key: Key) -> list[Path]:
        names = self._configuration.stages or []
        return [self.run / "stages" / name for name in names if name.rpartition("-")[0] == key.name]
