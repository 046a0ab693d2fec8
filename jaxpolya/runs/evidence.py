"""Gathers from a run's records what its page lets a reader look up: see `report.html.evidence`.

Files are read line by line and counted as they go by, so memory follows the number of different responses to a question set, not the number
of tokens. Of long RL runs, steps evenly spread are read. This module doesn't import jax.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.arms import Arm, Recipe
from jaxpolya.config import RunConfig
from jaxpolya.doors import is_reference
from jaxpolya.evaluation.audit import traits
from jaxpolya.keys import Key
from jaxpolya.polya.keep import overlap, shingles
from jaxpolya.polya.select import ADHERENCE
from jaxpolya.records import Question, Sample, iter_json, read_records
from jaxpolya.report.html.evidence import (
    ROOM,
    Answer,
    Candidate,
    Cell,
    EvaluatedQuestion,
    Evidence,
    History,
    Lesson,
    QuestionSet,
    Round,
    Training,
    cut,
    fitting,
)
from jaxpolya.report.html.series import series
from jaxpolya.runs.stages import Stage

ANSWERS, ROLLOUTS, CANDIDATES = 6, 4, 16
"""Different responses shown of one arm to one question, of one RL step to one question, of all heuristics to one training question."""

STEPS, STEP_BYTES = 64, 1 << 27
"""Of an RL stage, the rollouts of at most so many steps and bytes are read."""

PLAIN = "plain"

REMARKS = {
    "not_literals": "not a literal of the reference's kind",
    "contradictory": "ends in two different answers",
    "in_question": "the answer stands in the question",
    "copied": "the answer is copied out of the question",
}
"""`audit.traits` in words."""

UNCONFIRMED = "a second reading doesn't confirm it"


def gather(config: RunConfig, stages: Mapping[Key, Stage], others: Sequence[Mapping[Key, Stage]] = ()) -> Evidence:
    """The evidence of a run whose stages are whole; of phases that it doesn't have there is none.

    Args:
      config: of the run.
      stages: of the run, or of its first seed.
      others: the stages of its other seeds, whose responses to the evaluated questions are counted too.
    """
    lessons = _lessons(config, stages)
    histories, read = _histories(config, stages)
    seed = config.eval.seed
    return Evidence(
        sets=_sets(config, [stages, *others]),
        lessons=_with_room(lessons, ROOM["lessons"], seed, _bare_lesson),
        lessons_total=len(lessons),
        histories=fitting(histories, ROOM["histories"], seed),
        histories_total=len(histories),
        steps_read=read,
        fine_tuning=[_training(key.of, stage) for key, stage in stages.items() if key.what == "sft"],
        heldout={
            key.of: (first, stage.stats["heldout_last"])
            for key, stage in stages.items()
            if key.what == "sft" and (first := stage.stats.get("heldout_first")) is not None
        },
    )


# Evaluations -------------------------------------------------------------------------------------------------------------


def _sets(config: RunConfig, seeds: Sequence[Mapping[Key, Stage]]) -> list[QuestionSet]:
    sets = []
    for name in config.eval.questions:
        questions = {key: question for stages in seeds for key, question in _questions(stages[Key("questions", "eval", name)]).items()}
        cells: dict[str, dict[str, Cell]] = collections.defaultdict(dict)
        labelled: dict[str, dict[str, dict[str, int]]] = collections.defaultdict(dict)
        for arm in config.compared:
            groups, unconfirmed = _evaluated(seeds, arm, name)
            for question_id, group in groups.items():
                cells[question_id][arm.name] = group.cell(questions[question_id], unconfirmed, ANSWERS)
                if group.labels:
                    labelled[question_id][arm.name] = dict(group.labels)
        asked = [
            EvaluatedQuestion(
                id=key, question=cut(shown(question)), reference=question.answer, cells=cells[key], labelled=labelled.get(key, {})
            )
            for key, question in questions.items()
            if key in cells
        ]
        room = len(config.eval.questions)
        rows = {row.id for row in fitting([_bare_asked(row) for row in asked], ROOM["rows"] // room, config.eval.seed)}
        kept = fitting([row for row in asked if row.id in rows], ROOM["answers"] // room, config.eval.seed, _bare_asked)
        sets.append(QuestionSet(name=name, total=len(asked), questions=kept))
    return sets


def _evaluated(seeds: Sequence[Mapping[Key, Stage]], arm: Arm, name: str) -> tuple[dict[str, "_Group"], frozenset[str]]:
    """(question → an arm's responses with every seed, ids of those that the second reading names); a stage that seeds share counts once."""
    groups: dict[str, _Group] = collections.defaultdict(_Group)
    unconfirmed: set[str] = set()
    evaluated = {
        stage.directory: (stage, stages.get(Key("labels", arm.slug, name)))
        for stages in seeds
        if (stage := stages.get(Key("eval", arm.slug, name)))
    }
    for place, (stage, judged) in enumerate(evaluated.values()):
        labels = _labels(judged)
        unconfirmed |= {f"{place}/{name}" for name in _unconfirmed(stage)}
        for _, row in iter_json(stage.directory / "samples.jsonl"):
            groups[row["question_id"]].add({**row, "id": f"{place}/{row['id']}"}, labels.get(row["id"], ()))
    return groups, frozenset(unconfirmed)


def _bare_asked(asked: EvaluatedQuestion) -> EvaluatedQuestion:
    return dataclasses.replace(asked, cells={arm: dataclasses.replace(cell, answers=None) for arm, cell in asked.cells.items()})


def shown(question: Question) -> str:
    """A question as a person reads it: with its narrative before and its choices behind."""
    choices = [f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(question.choices or [])]
    return "\n".join([*filter(None, [question.context, question.question]), *choices])


def _labels(stage: Stage | None) -> dict[str, list[str]]:
    return {row["sample_id"]: row["labels"] for _, row in iter_json(stage.directory / "labels.jsonl")} if stage else {}


def _unconfirmed(stage: Stage) -> frozenset[str]:
    """The samples that the audit's second reading names."""
    audit = stage.stats.get("audit") or {}
    return frozenset(name for part in audit.values() for name in part.get("examples", ()))


@dataclasses.dataclass
class _Group:
    """The responses to one question: how many, and the different ones."""

    n: int = 0
    correct: int = 0
    rewards: list[float] = dataclasses.field(default_factory=list)
    different: dict[tuple[Any, ...], tuple[dict[str, Any], list[str]]] = dataclasses.field(default_factory=dict)
    """What makes a response a different one → the first such record, and the ids of all."""
    labels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Heuristics that a judge found in the correct ones."""
    labels_of: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """Sample id → those found in it."""

    def add(self, row: dict[str, Any], labels: Sequence[str] = ()) -> None:
        """Counts one record of a sample."""
        self.n += 1
        right = row.get("verdict") == "correct"
        self.correct += right
        if right:
            self.labels.update(labels)
        if labels:
            self.labels_of[row["id"]] = list(labels)
        if row.get("reward") is not None:
            self.rewards.append(row["reward"])
        key = (row["response"], row.get("verdict"), row.get("extracted"), row["finish"], row.get("detail"))
        if key in self.different:
            self.different[key][1].append(row["id"])
        else:
            self.different[key] = ({**row, "token_ids": [], "logprobs": []}, [row["id"]])

    def answers(self, question: Question, unconfirmed: frozenset[str], limit: int) -> tuple[list[Answer], int]:
        """(the most frequent different responses, a right and a failed one among them where there are both; how many are none of these)."""
        ranked = sorted(self.different.values(), key=lambda entry: (unconfirmed.isdisjoint(entry[1]), -len(entry[1])))
        chosen = ranked[:limit]
        for right in (True, False):
            if not any((row.get("verdict") == "correct") == right for row, _ in chosen):
                chosen[-1:] = [entry for entry in ranked if (entry[0].get("verdict") == "correct") == right][:1] or chosen[-1:]
        return [self._answer(row, ids, question, unconfirmed) for row, ids in chosen], self.n - sum(len(ids) for _, ids in chosen)

    def _answer(self, row: dict[str, Any], ids: list[str], question: Question, unconfirmed: frozenset[str]) -> Answer:
        remarks = []
        if row.get("verdict") == "correct":
            names = set(traits(Sample.from_json(row), question))
            remarks = [words for name, words in REMARKS.items() if name in names and not (name == "in_question" and "copied" in names)]
        return Answer(
            text=cut(row["response"]),
            count=len(ids),
            verdict=row.get("verdict") or "not judged",
            cut=row["finish"] == "length",
            extracted=row.get("extracted"),
            detail=row.get("detail"),
            remarks=remarks + ([UNCONFIRMED] if not unconfirmed.isdisjoint(ids) else []),
            labels=sorted({label for name in ids for label in self.labels_of.get(name, ())}),
            reward=row.get("reward"),
            advantage=row.get("advantage"),
        )

    def cell(self, question: Question, unconfirmed: frozenset[str], limit: int) -> Cell:
        """What an evaluation's table shows."""
        answers, hidden = self.answers(question, unconfirmed, limit)
        return Cell(n=self.n, correct=self.correct, answers=answers, hidden=hidden)


def _grouped(rows: Iterable[tuple[int, dict[str, Any]]]) -> dict[str, _Group]:
    groups: dict[str, _Group] = collections.defaultdict(_Group)
    for _, row in rows:
        groups[row["question_id"]].add(row)
    return groups


def _questions(stage: Stage) -> dict[str, Question]:
    return {question.id: question for question in read_records(stage.directory / "questions.jsonl", Question)}


# Training questions ------------------------------------------------------------------------------------------------------


def _lessons(config: RunConfig, stages: Mapping[Key, Stage]) -> list[Lesson]:
    """Every training question that was answered for fine-tuning, with what became of the answers."""
    if (asked := stages.get(Key("questions", "train"))) is None or Key("select") not in stages:
        return []
    kept = _kept(config.recipes, stages[Key("select")])
    scores = _scores(stages[Key("select")])
    samples: dict[str, list[Sample]] = collections.defaultdict(list)
    for key, stage in stages.items():
        if key.what == "generate":
            for sample in _lean(stage.directory / "samples.jsonl"):
                samples[sample.question_id].append(sample)
    return [_lesson(question, samples[name], kept, scores, config) for name, question in _questions(asked).items() if samples[name]]


def _lean(path: Path) -> Iterator[Sample]:
    """Samples without their log-probs."""
    for _, row in iter_json(path):
        yield Sample.from_json({**row, "logprobs": []})


def _kept(recipes: Iterable[Recipe], stage: Stage) -> dict[tuple[Any, ...], dict[str, float | None]]:
    """(question, slot, response) → the recipes that learn from it, and its adherence."""
    scores: dict[tuple[Any, ...], dict[str, float | None]] = collections.defaultdict(dict)
    for recipe in recipes:
        if not recipe.traces:
            for _, row in iter_json(stage.directory / f"{recipe.name}.jsonl"):
                scores[row["question_id"], row.get("slot"), row["response"]][recipe.name] = row.get("adherence")
    return scores


def _scores(stage: Stage) -> dict[str, float]:
    """Sample id → adherence of all that were scored; nothing in runs of versions that kept only the rows."""
    path = stage.directory / ADHERENCE
    return {row["sample_id"]: row["adherence"] for _, row in iter_json(path)} if path.exists() else {}


def _lesson(
    question: Question,
    samples: Sequence[Sample],
    kept: Mapping[tuple[Any, ...], Mapping[str, float | None]],
    scores: Mapping[str, float],
    config: RunConfig,
) -> Lesson:
    tried: dict[str, list[int]] = {}
    taken: set[tuple[str, ...]] = set()  # a row is one sample's, though others may read alike
    entries: list[tuple[Sample, dict[str, float | None]]] = []
    for sample in samples:
        key = (sample.question_id, sample.slot, sample.response)
        recipes = {recipe: score for recipe, score in kept.get(key, {}).items() if (recipe, *map(str, key)) not in taken}
        taken |= {(recipe, *map(str, key)) for recipe in recipes}
        entries.append((sample, recipes))
        counts = tried.setdefault(sample.heuristic or PLAIN, [0, 0, 0])
        for place, yes in enumerate((True, sample.verdict == "correct", bool(recipes))):
            counts[place] += yes
    rows = [sample for sample, recipes in entries if recipes and sample.slot is not None and sample.verdict == "correct"]
    candidates = [
        Candidate(
            text=cut(sample.response),
            verdict=sample.verdict or "not judged",
            cut=sample.finish == "length",
            extracted=sample.extracted,
            heuristic=sample.heuristic,
            slot=sample.slot,
            adherence=next((score for score in recipes.values() if score is not None), scores.get(sample.id)),
            kept=list(recipes),
            why=None if recipes else _why_not(sample, rows, config),
        )
        for sample, recipes in entries
    ]
    ranked = sorted(candidates, key=_rank)
    reference = question.answer
    return Lesson(
        id=question.id, question=cut(shown(question)), reference=reference, tried=tried,
        candidates=ranked[:CANDIDATES], hidden=max(0, len(ranked) - CANDIDATES),
    )  # fmt: skip


def _rank(candidate: Candidate) -> tuple[Any, ...]:
    """Kept ones first, then what might have been kept, by falling adherence."""
    adherence = candidate.adherence if candidate.adherence is not None else float("-inf")
    return (not candidate.kept, candidate.verdict != "correct", candidate.cut, candidate.heuristic is None, -adherence)


def _why_not(sample: Sample, rows: Sequence[Sample], config: RunConfig) -> str:
    """Why a response became no row, as `polya.keep` decides: `rows` are those of its question that did."""
    if sample.verdict != "correct":
        return f"not correct ({sample.verdict})"
    if sample.finish == "length":
        return "cut at the token limit: it would teach not to end"
    if sample.slot is None:
        return "one plain solution a question is taken, the first correct one"
    rule = config.select.keep
    if is_reference(rule):
        return f"{rule} took others"
    by = ", for its adherence" if rule == "best" else ""
    if any(row.slot == sample.slot for row in rows):
        return f"another response of its slot was taken{by}"
    grams = shingles(sample.token_ids)
    if any(overlap(grams, shingles(row.token_ids)) >= config.select.duplicate_overlap for row in rows):
        return "nearly the same as one that was taken"
    if len(rows) >= config.select.n:
        return f"{config.select.n} approaches were taken already{by}"
    return "left out by the cap on questions, or by matching the arms"


def _bare_lesson(lesson: Lesson) -> Lesson:
    return dataclasses.replace(lesson, candidates=None, hidden=0)


def _with_room(lessons: Sequence[Lesson], room: int, seed: int, bare: Any) -> list[Lesson]:
    """Lessons with their candidates as far as there is room, those without first of all."""
    rows = {row.id for row in fitting([bare(lesson) for lesson in lessons], room // 3, seed)}
    return fitting([lesson for lesson in lessons if lesson.id in rows], room - room // 3, seed, bare)


# Trainings ---------------------------------------------------------------------------------------------------------------


def _training(name: str, stage: Stage) -> Training:
    return Training(name=name, series=series(row for _, row in iter_json(stage.directory / "steps.jsonl")))


def _histories(config: RunConfig, stages: Mapping[Key, Stage]) -> tuple[list[History], dict[str, tuple[int, int]]]:
    """(the RL questions with their rollouts, the most often asked first; arm → how many steps were read, of how many)."""
    if (asked := stages.get(Key("questions", "rl"))) is None:
        return [], {}
    questions = _questions(asked)
    rounds: dict[str, dict[str, list[Round]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    read: dict[str, tuple[int, int]] = {}
    for arm in config.reinforced:
        if (stage := stages.get(Key("rl", arm.slug))) is None:
            continue
        files = _by_step(stage.directory / "rollouts")
        chosen = _spread(files)
        unconfirmed = _unconfirmed(stage)
        for step in chosen:
            groups = _grouped(line for file in files[step] for line in iter_json(file))
            for question_id, group in groups.items():
                if question_id not in questions:  # of rollouts that somebody else recorded
                    continue
                answers, hidden = group.answers(questions[question_id], unconfirmed, ROLLOUTS)
                reward = sum(group.rewards) / len(group.rewards) if group.rewards else None
                rounds[question_id][arm.name].append(
                    Round(step=step, n=group.n, correct=group.correct, reward=reward, answers=answers, hidden=hidden)
                )
        read[arm.name] = len(chosen), len(files)
    histories = [
        History(id=name, question=cut(shown(question)), reference=question.answer, rounds=dict(rounds[name]))
        for name, question in questions.items()
        if name in rounds
    ]
    return sorted(histories, key=lambda history: -sum(map(len, history.rounds.values()))), read


def _by_step(directory: Path) -> dict[int, list[Path]]:
    """Step → the files of its rollouts: a round's first piece, and its refills."""
    files: dict[int, list[Path]] = collections.defaultdict(list)
    for path in sorted(directory.glob("*.jsonl")):
        files[int(path.stem.partition("-")[0])].append(path)
    return dict(files)


def _spread(files: Mapping[int, Sequence[Path]]) -> list[int]:
    """The steps that are read: all where they are few, else evenly spread ones, with the first and the last."""
    steps = sorted(files)
    weight = sum(path.stat().st_size for paths in files.values() for path in paths)
    count = min(len(steps), STEPS, max(2, int(len(steps) * STEP_BYTES / max(weight, 1))))
    return [steps[i] for i in sorted({round(i * (len(steps) - 1) / max(count - 1, 1)) for i in range(count)})]
