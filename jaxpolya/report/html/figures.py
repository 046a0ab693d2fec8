"""Which plots a run has: of its results and its evidence, those for which there is something to draw."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from jaxpolya.evaluation.passk import Interval
from jaxpolya.report import tables
from jaxpolya.report.html import charts
from jaxpolya.report.html.charts import Chart, Points
from jaxpolya.report.html.evidence import EvaluatedQuestion, Evidence, Lesson, QuestionSet
from jaxpolya.report.html.series import SERIES_ORDER, describe, series
from jaxpolya.report.html.style import SOLID, Style, arm_style
from jaxpolya.results import ArmResults, Evaluation, Results

Looks = Mapping[str, Style]

MEASURES = {"majority": "majority vote", "greedy": "greedy"}

DIVERSITY = {
    "vendi": ("Vendi score", "Effective number of different responses to a question.", "responses"),
    "distinct_2": ("Distinct bigrams", "Different bigrams among all; it falls where responses are alike.", "share"),
    "self_bleu": ("Self-BLEU", "How much a response is like the others to its question; 1 is all alike.", "BLEU-4"),
    "label_entropy": ("Entropy of heuristics", "Of those that a judge finds in the responses to a question.", "nats"),
}

COLUMNS = 200
"""Questions that a matrix has at most; of more, evenly spaced ones of its order."""


# Evaluations -------------------------------------------------------------------------------------------------------------


def forests(name: str, evaluations: Mapping[str, Evaluation], looks: Looks) -> list[Chart]:
    """The differences from base on one question set, a plot for each measure, all on one axis."""
    versus = {arm: evaluation.versus_base for arm, evaluation in evaluations.items() if evaluation.versus_base}
    if not versus:
        return []
    keys = {key for differences in versus.values() for key in differences}
    ks = tables.powers(int(key) for key in keys if key.isdigit())
    few = sorted({ks[0], ks[len(ks) // 2], ks[-1]}) if ks else []
    measures = {str(k): f"pass@{k}" for k in few} | {key: label for key, label in MEASURES.items() if key in keys}
    domain = charts.forest_domain(entry for differences in versus.values() for key, entry in differences.items() if key in measures)
    return [
        charts.forest(
            f"forest-{name}-{key}",
            label,
            {arm: base[key] for arm, base in versus.items() if key in base},
            domain,
            looks,
        )
        for key, label in measures.items()
    ]


def passed(name: str, evaluations: Mapping[str, Evaluation], looks: Looks, over: str) -> Chart:
    """pass@k over k on one question set."""
    first = next(iter(evaluations.values()))
    words = (
        f"How likely one of k responses is right; {first.questions:,} questions × {first.samples} samples. Bands are 95 % intervals "
        f"over {over}; those of two arms may overlap and their paired difference still be clear."
    )
    return charts.pass_at_k(f"pass-{name}", f"{name}: pass@k", {arm: one.pass_ for arm, one in evaluations.items()}, looks, words)


def doses(name: str, arms: Mapping[str, ArmResults], looks: Looks, last: int | None) -> list[Chart]:
    """pass@k at the smallest and the largest k, diversity and composition over the steps of RL; nothing where no dose was evaluated.

    Args:
      name: of the set.
      arms: of the run.
      looks: of the arms.
      last: steps of the whole RL.
    """
    by_arm: dict[str, dict[int, Evaluation]] = {}
    for arm, entry in arms.items():
        at = {step: sets[name] for step, sets in entry.doses.items() if name in sets}
        if at and name in entry.eval and last is not None:
            start = arm.removesuffix("rl").removesuffix("+") or "base"
            begun = {0: arms[start].eval[name]} if start in arms and name in arms[start].eval else {}
            by_arm[arm] = begun | at | {last: entry.eval[name]}
    if not by_arm:
        return []
    ks = sorted(set.intersection(*(set(one.ks) for steps in by_arm.values() for one in steps.values())))
    by_step: dict[str, tuple[str, dict[str, dict[float, Interval]]]] = {
        f"pass@{k}": ("% of questions", _values(by_arm, lambda one, k=k: charts.in_percent(one.pass_[k])))  # type: ignore[misc]
        for k in dict.fromkeys((ks[0], ks[-1]))
    }
    by_step["Vendi score"] = "responses", _values(by_arm, lambda one: one.diversity.vendi if one.diversity else None)
    by_step["composed solutions"] = (
        "% of correct solutions",
        _values(by_arm, lambda one: charts.in_percent(one.composition.rate) if one.composition else None),
    )
    words = "The arm after so many steps of RL; at 0 the model that RL began with. Bars are 95 % intervals over questions."
    return [
        charts.along(f"dose-{name}-{title.replace(' ', '-')}", f"{name}: {title} by dose", words, "step of RL", unit, lines, looks)
        for title, (unit, lines) in by_step.items()
        if lines
    ]


def _values(
    by_arm: Mapping[str, Mapping[int, Evaluation]], value: Callable[[Evaluation], Interval | None]
) -> dict[str, dict[float, Interval]]:
    """A measure over the steps of each arm, where it was taken at several."""
    lines: dict[str, dict[float, Interval]]
    lines = {arm: {step: entry for step, one in sorted(at.items()) if (entry := value(one))} for arm, at in by_arm.items()}
    return {arm: line for arm, line in lines.items() if len(line) > 1}


def question_matrix(shown: QuestionSet | None, arms: Sequence[str]) -> Chart | None:
    """Which arm solved which question of a set, those that the first arm solves most often first."""
    if shown is None or not shown.questions:
        return None

    def rate(asked: EvaluatedQuestion, arm: str) -> float:
        cell = asked.cells.get(arm)
        return cell.correct / cell.n if cell and cell.n else 0.0

    ordered = sorted(shown.questions, key=lambda asked: [-rate(asked, arms[0]), -sum(rate(asked, arm) for arm in arms)])
    columns = spaced(ordered)
    rows = [
        {"name": arm, "x": x, "share": rate(asked, arm), "says": f"{cell.correct} of {cell.n}"}
        for x, asked in enumerate(columns)
        for arm in arms
        if (cell := asked.cells.get(arm))
    ]
    words = f"A column is a question, a row an arm: what training won, and what it lost. Left is what {arms[0]} solves most often."
    return charts.matrix(
        f"matrix-{shown.name}", f"{shown.name}: who solved what", words + _of(columns, ordered), rows, arms,
        [asked.question for asked in columns], "responses that are right",
    )  # fmt: skip


# Training ----------------------------------------------------------------------------------------------------------------


def reinforced(results: Results, looks: Looks) -> tuple[list[Chart], list[Chart]]:
    """The series of RL's log over its steps: (those that everybody looks at, the others)."""
    logs = {arm: [series(step.model_dump(exclude_none=True) for step in steps) for steps in seeds] for arm, seeds in results.curves.items()}
    return _curves("rl", logs, looks)


def fine_tuned(evidence: Evidence) -> tuple[list[Chart], list[Chart], dict[str, Style]]:
    """The series of fine-tuning's log, the loss of held-out rows among those that everybody looks at; and how a recipe's line looks."""
    looks = {one.name: dataclasses.replace(arm_style(one.name), filled=True, dash=SOLID) for one in evidence.fine_tuning}
    main, others = _curves("sft", {one.name: [one.series] for one in evidence.fine_tuning}, looks)
    if evidence.heldout:
        words = "Of rows of other questions than those learned, before and after."
        main.append(charts.before_after("sft-heldout", "Held-out loss", words, "nats a token", evidence.heldout, looks))
    return main, others, looks


def _curves(
    kind: Literal["sft", "rl"], logs: Mapping[str, Sequence[Mapping[str, Points]]], looks: Looks
) -> tuple[list[Chart], list[Chart]]:
    """Name → the series of each seed, as plots: (those that everybody looks at, the others)."""
    plots = {name: describe(name, kind) for seeds in logs.values() for log in seeds for name in log}
    order = sorted(plots, key=lambda name: SERIES_ORDER.get(name, len(SERIES_ORDER)))  # stable: what isn't known stays in the log's order

    def chart(name: str) -> Chart:
        lines = {key: [log[name] for log in seeds if name in log] for key, seeds in logs.items()}
        return charts.curves(f"{kind}-{name}", plots[name].title, plots[name].words, plots[name].unit, lines, looks)

    return [chart(name) for name in order if plots[name].main], [chart(name) for name in order if not plots[name].main]


# Diversity, and what was learned from ------------------------------------------------------------------------------------


def diversity(name: str, arms: Mapping[str, Evaluation], looks: Looks) -> list[Chart]:
    """How far the responses of each arm to one question set are apart, and how often a solution uses several heuristics."""
    measured = {arm: facts for arm, evaluation in arms.items() if (facts := evaluation.diversity)}
    drawn = [
        charts.intervals(f"{key}-{name}", title, words, unit, entries, looks)
        for key, (title, words, unit) in DIVERSITY.items()
        if (entries := {arm: value for arm, entry in measured.items() if (value := getattr(entry, key))})
    ]
    if composed := {arm: evaluation.composition for arm, evaluation in arms.items() if evaluation.composition}:
        judges = ", ".join(sorted({entry.judge for entry in composed.values()}))
        words = f"Correct solutions that use two heuristics or more, as {judges} finds them, errors included."
        rates = {arm: charts.in_percent(entry.rate) for arm, entry in composed.items()}
        drawn.append(charts.intervals(f"composed-{name}", "Composed solutions", words, "% of correct solutions", rates, looks))
    return drawn


def label_matrices(shown: QuestionSet) -> list[Chart]:
    """Which heuristics a judge finds in the correct solutions to which question, a plot for each arm that has any."""
    arms = list(dict.fromkeys(arm for asked in shown.questions for arm in asked.labelled))
    names = sorted({label for asked in shown.questions for labels in asked.labelled.values() for label in labels})
    columns = spaced(shown.questions)
    words = "A column is a question, a row a heuristic; a cell says how many of its responses are right and use it, as the judge finds."
    return [
        charts.matrix(
            f"labels-{shown.name}-{arm}", f"{shown.name}: heuristics in what {arm} solved", words + _of(columns, shown.questions),
            [
                {"name": label, "x": x, "share": count / cell.n, "says": f"{count} of {cell.n}"}
                for x, asked in enumerate(columns)
                if (cell := asked.cells.get(arm)) is not None
                for label, count in asked.labelled.get(arm, {}).items()
            ],
            names, [asked.question for asked in columns], "right, with the heuristic",
        )
        for arm in arms
    ]  # fmt: skip


def lesson_matrix(lessons: Sequence[Lesson]) -> Chart | None:
    """Which heuristic solved which training question, and what was kept."""
    if not lessons:
        return None
    names = sorted({name for lesson in lessons for name in lesson.tried}, key=lambda name: (name != "plain", name))
    ordered = sorted(lessons, key=lambda lesson: -sum(right for _, right, _ in lesson.tried.values()))
    columns = spaced(ordered)
    rows = [
        {"name": name, "x": x, "share": right / n, "kept": kept, "says": f"{right} of {n}" + (f", {kept} kept" if kept else "")}
        for x, lesson in enumerate(columns)
        for name, (n, right, kept) in lesson.tried.items()
    ]
    words = (
        "What the base model, before any training, made of the training questions: a column is a question, a row the heuristic that it was "
        "asked under; left is what was solved most often. A dot: a response was kept to learn from."
    )
    return charts.matrix(
        "lessons", "Heuristic × question", words + _of(columns, ordered), rows, names,
        [lesson.question for lesson in columns], "responses that are right",
    )  # fmt: skip


T = TypeVar("T")


def spaced(items: Sequence[T]) -> Sequence[T]:
    """At most `COLUMNS` of the items, evenly spaced, with the first and the last."""
    if len(items) <= COLUMNS:
        return items
    return [items[round(i * (len(items) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]


def _of(columns: Sequence[Any], ordered: Sequence[Any]) -> str:
    return f" {len(columns):,} of {len(ordered):,} questions, evenly spaced in this order." if len(columns) < len(ordered) else ""
