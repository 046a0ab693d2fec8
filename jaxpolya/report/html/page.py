"""Puts report.html together: what each section shows, in which order, and the one file around it.

The first thing is the conclusion: the paired differences from the base model, with their intervals, and what they cannot show. The same
results and evidence give the same bytes. The file is written aside and renamed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxpolya.config.file import dump_tree
from jaxpolya.files import write_whole
from jaxpolya.report import tables
from jaxpolya.report.html import charts, figures
from jaxpolya.report.html.charts import Chart
from jaxpolya.report.html.document import fill, prose
from jaxpolya.report.html.evidence import Evidence, plain
from jaxpolya.report.html.style import Style, styles
from jaxpolya.report.page import findings
from jaxpolya.report.tables import Table
from jaxpolya.results import Audit, Evaluation, PaidResponse, Results

SECTIONS = {
    "conclusion": "Conclusion", "results": "Results", "questions": "Questions", "training": "Training",
    "diversity": "Diversity", "data": "Data", "audit": "Audit", "run": "The run",
}  # fmt: skip
"""Anchor → what the bar at the top calls it."""


def write_page(path: Path, results: Results, evidence: Evidence) -> Path:
    """Writes the page of a run.

    Args:
      path: of the file.
      results: of the run.
      evidence: what can be looked up; an empty one leaves those sections out.
    """
    write_whole(path, run_page(results, evidence))
    return path


def run_page(results: Results, evidence: Evidence) -> str:
    """The page of a run, as text."""
    arms = list(results.arms)
    looks = styles(arms)
    sets = [_set(name, evaluations, results, looks, evidence) for name, evaluations in results.sets.items()]
    training, diversity = _training(results, evidence, looks), _diversity(results, evidence, looks)
    matrix = figures.lesson_matrix(evidence.lessons)
    audited, paid = tables.audit_table(results), _paid(results)
    selection, heuristics = tables.selection_table(results), tables.heuristics_table(results)
    data_section = bool(selection.rows or heuristics.rows or evidence.lessons)
    there = {
        "questions": evidence.sets, "training": training["any"], "diversity": diversity["tables"],
        "data": data_section, "audit": audited.rows or paid,
    }  # fmt: skip
    drawn = [chart for one in (*sets, training, diversity, {"matrix": matrix}) for chart in _charts_in(one)]
    data: dict[str, Any] = {
        "arms": arms,
        "charts": {chart.key: chart.spec for chart in drawn},
        "sets": [plain(one) for one in evidence.sets],
        "lessons": plain(evidence.lessons),
        "histories": plain(evidence.histories),
        "history": charts.history(looks),
    }
    return fill(
        "run.html.jinja",
        title=results.run.name,
        sections=[{"key": key, "short": short} for key, short in SECTIONS.items() if there.get(key, True)],
        lead=_lead(results),
        looks=looks,
        doubts=tables.audit_warnings(results),
        findings=prose(findings(_without_warnings(results))),  # its warnings stand above
        sets=sets,
        over=results.over,
        seeds=results.seeds,
        evidence=evidence,
        limits={"answers": max((len(c.answers or ()) for s in evidence.sets for q in s.questions for c in q.cells.values()), default=0)},
        training=training,
        diversity=diversity,
        data_section=data_section,
        selection=selection,
        heuristics=heuristics,
        matrix=matrix,
        adherence=_adherence(results),
        audit={"table": audited, "shown": paid},
        contamination=tables.contamination_table(results),
        contamination_words=_contamination(results),
        left_out=tables.left_out_table(results),
        stages=_stages(results),
        provenance=tables.provenance_table(results),
        config=dump_tree(results.config, width=110),
        data=data,
    )


def _without_warnings(results: Results) -> Results:
    return results.model_copy(update={"audit": {name: Audit(all=audit.all) for name, audit in results.audit.items()}})


def _charts_in(value: Any) -> list[Chart]:
    if isinstance(value, Chart):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [chart for part in inside for chart in _charts_in(part)]


# Sections ----------------------------------------------------------------------------------------------------------------


def _lead(results: Results) -> str:
    run, config = results.run, results.config
    parts = [f"Base model {run.model}." if run.model else "", f"Computed on {run.device}." if run.device else ""]
    seeds = sorted(set(run.seeds.values()))
    parts.append(f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}." if seeds else "")
    if steps := (config.get("rl") or {}).get("steps"):
        parts.append(
            f"RL: {config['rl']['algorithm']}, {steps:,} steps of {config['rl']['prompts']} questions × {config['rl']['group']} rollouts."
        )
    return " ".join(filter(None, parts))


def _set(
    name: str, evaluations: Mapping[str, Evaluation], results: Results, looks: Mapping[str, Style], evidence: Evidence
) -> dict[str, Any]:
    """What is shown of one question set."""
    shown = {one.name: one for one in evidence.sets}.get(name)
    arms = {arm: results.arms[arm].model_copy(update={"eval": {name: evaluation}}) for arm, evaluation in evaluations.items()}
    return {
        "name": name,
        "questions": f"{next(iter(evaluations.values())).questions:,}",
        "forests": figures.forests(name, evaluations, looks),
        "table": tables.eval_tables(results.model_copy(update={"arms": arms}))[0],
        "passed": figures.passed(name, evaluations, looks, results.over),
        "doses": figures.doses(name, results.arms, looks, (results.config.get("rl") or {}).get("steps")),
        "matrix": figures.question_matrix(shown, list(evaluations)),
    }


def _training(results: Results, evidence: Evidence, looks: Mapping[str, Style]) -> dict[str, Any]:
    table = tables.training_table(results)
    main, more = figures.reinforced(results, looks)
    losses, others, recipes = figures.fine_tuned(evidence)
    longest = max((len(steps) for seeds in results.curves.values() for steps in seeds), default=0)
    return {
        "any": bool(table.rows or main or losses),
        "table": table,
        "drawn": "In long runs a moving mean over the faint single steps." if longest > charts.SMOOTH else "",
        "reinforced": main,
        "more": more,
        "fine_tuned": losses,
        "fine_tuned_more": others,
        "recipes": recipes,
    }


def _diversity(results: Results, evidence: Evidence, looks: Mapping[str, Style]) -> dict[str, Any]:
    kernels = {entry.kernel for evaluation in results.evaluations if (entry := evaluation.diversity)}
    sets = [{"name": name, "charts": drawn} for name, arms in results.sets.items() if (drawn := figures.diversity(name, arms, looks))]
    words = f"Means over questions with 95 % intervals. Noise is diverse too: read this beside pass@k. {tables.judged_by(results)}".strip()
    return {
        "tables": tables.present(tables.diversity_tables(results)),
        "sets": sets,
        "words": words + (f" Kernel of the Vendi score: {', '.join(sorted(kernels))}." if kernels else ""),
        "labels": [chart for one in evidence.sets for chart in figures.label_matrices(one)],
    }


def _paid(results: Results) -> dict[str, dict[str, list[PaidResponse]]]:
    """Stage → first and last steps → responses that were paid there."""
    return {
        stage: {end: [paid for paid in audit.shown if paid.end == end] for end in ("first", "last")}
        for stage, audit in results.audit.items()
        if audit.shown
    }


def _adherence(results: Results) -> str:
    chosen = str((results.config.get("select") or {}).get("adherence"))
    known = {"pmi": "by the base model's mutual information, in nats a token", "reward_model": "by a reward model's score"}
    return known.get(chosen, f"by {chosen}")


def _contamination(results: Results) -> str:
    entry = next(iter(results.contamination.values()), None)
    if entry is None:
        return ""
    learned = (
        "The shared ones were left out of training." if entry.dropped else "They were trained on: what an arm gains there may be memory."
    )
    return f"Questions overlap where they share {entry.n} words in a row, or are the same as a whole. {learned}"


def _stages(results: Results) -> Table:
    """What each stage took, without those that took nothing worth a line."""
    rows = [tables.stage_cells(stage) for stage in results.stages if (stage.seconds or 0) >= 1 or stage.tokens]
    return Table("Stages that took a second or more", ["stage", "time", "tokens", "tokens a second", "rows busy %"], rows)
