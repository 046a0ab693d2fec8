"""Puts report.html together: what each section shows, in which order, and the one file around it.

The first thing is the conclusion: the paired differences from the base model, with their intervals, and what they cannot show. The same
results and evidence give the same bytes. The file is written aside and renamed.
"""

import base64
import dataclasses
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markdown_it import MarkdownIt
from markupsafe import Markup

from jaxpolya.evaluation.passk import Interval
from jaxpolya.files import package_version, write_whole
from jaxpolya.report import tables
from jaxpolya.report.html import charts
from jaxpolya.report.html.charts import Chart
from jaxpolya.report.html.evidence import Asked, Evidence, plain
from jaxpolya.report.html.series import SERIES, Series, series
from jaxpolya.report.html.style import Style, arm_style, styles
from jaxpolya.report.page import findings
from jaxpolya.report.tables import Cell, Table
from jaxpolya.results import ArmResults, Audit, Evaluation, Paid, Provenance, Results

LIBRARIES = ("vega", "vega-lite", "vega-embed")

POLICY = "default-src 'none'; script-src {}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
"""Nothing is loaded, and no script runs but those of these digests; plots are saved as pictures through data: and blob:."""

SECTIONS = {
    "conclusion": "Conclusion", "results": "Results", "questions": "Questions", "training": "Training",
    "diversity": "Diversity", "data": "Data", "audit": "Audit", "run": "The run",
}  # fmt: skip
"""Anchor → what the bar at the top calls it."""

MEASURES = {"majority": "majority vote", "greedy": "greedy"}

DIVERSITY = {
    "vendi": ("Vendi score", "Effective number of different responses to a question.", "responses"),
    "distinct_2": ("Distinct bigrams", "Different bigrams among all; it falls where responses are alike.", "share"),
    "self_bleu": ("Self-BLEU", "How much a response is like the others to its question; 1 is all alike.", "BLEU-4"),
    "label_entropy": ("Entropy of heuristics", "Of those that a judge finds in the responses to a question.", "nats"),
}

CELLS = 160
"""Characters of a question in a plot's tooltip."""


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
    sets = [_set(name, found, looks, evidence) for name, found in results.sets.items()]
    training, diversity = _training(results, evidence, looks), _diversity(results, evidence, looks)
    matrices = _lesson_matrices(evidence)
    audited, paid = tables.audit_table(results), _paid(results)
    selection, heuristics = tables.selection_table(results), tables.heuristics_table(results)
    data_section = bool(selection.rows or heuristics.rows or evidence.lessons)
    there = {
        "questions": evidence.sets, "training": training["any"], "diversity": diversity["tables"],
        "data": data_section, "audit": audited.rows or paid,
    }  # fmt: skip
    drawn = [chart for one in (*sets, training, diversity, {"matrices": matrices}) for chart in _charts_in(one)]
    data: dict[str, Any] = {
        "arms": arms,
        "charts": {chart.key: chart.spec for chart in drawn},
        "sets": [plain(one) for one in evidence.sets],
        "lessons": plain(evidence.lessons),
        "histories": plain(evidence.histories),
        "history": charts.history(looks),
    }
    return _fill(
        "run.html.jinja",
        title=results.run.name,
        sections=[{"key": key, "short": short} for key, short in SECTIONS.items() if there.get(key, True)],
        lead=_lead(results),
        looks=looks,
        doubts=tables.audit_warnings(results),
        findings=_prose(findings(_without_warnings(results))),  # its warnings stand above
        sets=sets,
        evidence=evidence,
        limits={"answers": max((len(c.answers or ()) for s in evidence.sets for q in s.questions for c in q.cells.values()), default=0)},
        training=training,
        diversity=diversity,
        data_section=data_section,
        selection=selection,
        heuristics=heuristics,
        matrices=matrices,
        adherence=_adherence(results),
        audit={"table": audited, "shown": paid},
        contamination=tables.contamination_table(results),
        contamination_words=_contamination(results),
        left_out=tables.left_out_table(results),
        stages=_stages(results),
        provenance=tables.provenance_table(results),
        config=yaml.safe_dump(results.config, sort_keys=False, allow_unicode=True, width=110),
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


def _set(name: str, found: Mapping[str, Evaluation], looks: Mapping[str, Style], evidence: Evidence) -> dict[str, Any]:
    """What is shown of one question set."""
    first = next(iter(found.values()))
    versus = {arm: evaluation.versus_base for arm, evaluation in found.items() if evaluation.versus_base}
    shown = {one.name: one for one in evidence.sets}.get(name)
    alone = Results(run=Provenance(name=name), arms={arm: ArmResults(eval={name: evaluation}) for arm, evaluation in found.items()})
    return {
        "name": name,
        "questions": f"{first.questions:,}",
        "forests": _forests(name, versus, looks),
        "table": tables.eval_tables(alone)[0],
        "passed": charts.pass_at_k(
            f"pass-{name}",
            f"{name}: pass@k",
            {arm: evaluation.pass_ for arm, evaluation in found.items()},
            looks,
            f"How likely one of k responses is right; {first.questions:,} questions × {first.samples} samples. "
            "Bands are 95 % intervals over questions; those of two arms may overlap and their paired difference still be clear.",
        ),
        "matrix": _question_matrix(name, shown.questions, list(found)) if shown and shown.questions else None,
    }


def _forests(name: str, versus: Mapping[str, Mapping[str, Interval]], looks: Mapping[str, Style]) -> list[Chart]:
    """The differences from base, a plot for each measure on one axis."""
    if not versus:
        return []
    keys = {key for found in versus.values() for key in found}
    ks = tables.powers(int(key) for key in keys if key.isdigit())
    few = sorted({ks[0], ks[len(ks) // 2], ks[-1]}) if ks else []
    measures = {str(k): f"pass@{k}" for k in few} | {key: said for key, said in MEASURES.items() if key in keys}
    domain = charts.forest_domain(entry for found in versus.values() for key, entry in found.items() if key in measures)
    return [
        charts.forest(f"forest-{name}-{key}", said, {arm: found[key] for arm, found in versus.items() if key in found}, domain, looks)
        for key, said in measures.items()
    ]


def _question_matrix(name: str, questions: Sequence[Asked], arms: Sequence[str]) -> Chart:
    """Which arm solved which question, those that the first arm solves most often first."""

    def rate(asked: Asked, arm: str) -> float:
        cell = asked.cells.get(arm)
        return cell.correct / cell.n if cell and cell.n else 0.0

    ordered = sorted(questions, key=lambda asked: [-rate(asked, arms[0]), -sum(rate(asked, arm) for arm in arms)])
    rows = [
        {"name": arm, "x": x, "share": rate(asked, arm), "says": f"{cell.correct} of {cell.n}", "question": asked.question[:CELLS]}
        for x, asked in enumerate(ordered)
        for arm in arms
        if (cell := asked.cells.get(arm))
    ]
    across = f"{len(ordered):,} questions"
    words = f"A column is a question, a row an arm: what training won, and what it lost. Left is what {arms[0]} solves most often."
    return charts.matrix(f"matrix-{name}", f"{name}: who solved what", words, rows, arms, across, "responses that are right")


def _training(results: Results, evidence: Evidence, looks: Mapping[str, Style]) -> dict[str, Any]:
    logs: dict[str, list[dict[str, list[tuple[int, float]]]]] = {}
    for arm, steps in results.curves.items():
        logs[arm] = [series(step.model_dump(exclude_none=True) for step in steps)]
    names = dict.fromkeys(name for seeds in logs.values() for log in seeds for name in log)
    known = [name for name in SERIES if name in names]
    main = [name for name in known if SERIES[name].main]
    more = [name for name in known if not SERIES[name].main] + [name for name in names if name not in SERIES]
    lengths = [len(points) for seeds in logs.values() for log in seeds for points in log.values()]
    drawn = "In long runs a moving mean over the faint single steps." if max(lengths, default=0) > charts.SMOOTH else ""

    def chart(name: str) -> Chart:
        said = SERIES.get(name, Series(name, "", ""))
        found = {arm: [log[name] for log in seeds if name in log] for arm, seeds in logs.items()}
        return charts.curves(f"rl-{name}", said.title, said.words, said.unit, found, looks)

    table = tables.training_table(results)
    fine_tuned = _fine_tuned(evidence)
    return {
        "any": bool(table.rows or logs or fine_tuned),
        "table": table,
        "drawn": drawn,
        "reinforced": [*(chart(name) for name in main), *_rollouts_diversity(evidence, looks)],
        "more": [chart(name) for name in more],
        "fine_tuned": fine_tuned,
    }  # fmt: skip


def _rollouts_diversity(evidence: Evidence, looks: Mapping[str, Style]) -> list[Chart]:
    """How different the rollouts of a group are, by step; nothing where there is but one step."""
    vendi = {arm: [points] for arm, found in evidence.diversity.items() if len(points := found.get("vendi", [])) > 1}
    words = "Effective number of different rollouts in a group; near 1, the model says one thing only."
    return [charts.curves("rl-vendi", "Vendi score", words, "rollouts a group", vendi, looks)] if vendi else []


def _fine_tuned(evidence: Evidence) -> list[Chart]:
    """The losses of fine-tuning: of its steps, and of held-out questions before and after."""
    looks = {one.name: dataclasses.replace(arm_style(one.name), filled=True, dash=[1, 0]) for one in evidence.fine_tuning}
    names = dict.fromkeys(["loss", *(name for one in evidence.fine_tuning for name in one.series if name != "tokens")])
    found = []
    for name in names:
        said = {
            "loss": ("Fine-tuning loss", "Of each step's batch.", "nats a token"),
            "grad_norm": ("Gradient norm", "Before clipping.", ""),
        }
        title, words, unit = said.get(name, (name.replace("_", " "), "", ""))
        lines = {one.name: [one.series[name]] for one in evidence.fine_tuning if name in one.series}
        if lines:
            found.append(charts.curves(f"sft-{name}", title, words, unit, lines, looks))
    if evidence.heldout:
        words = "Of rows of other questions than those learned, before and after."
        chart = charts.before_after("sft-heldout", "Held-out loss", words, "nats a token", evidence.heldout, looks)
        found.insert(1, chart)
    return found


def _diversity(results: Results, evidence: Evidence, looks: Mapping[str, Style]) -> dict[str, Any]:
    found = tables.present(tables.diversity_tables(results))
    sets, judges, kernels = [], set(), set()
    for name, arms in results.sets.items():
        measured = {arm: entry for arm, evaluation in arms.items() if (entry := evaluation.diversity)}
        composed = {arm: evaluation.composition for arm, evaluation in arms.items() if evaluation.composition}
        judges |= {entry.judge for entry in composed.values()}
        kernels |= {entry.kernel for entry in measured.values()}
        drawn = [
            charts.intervals(f"{key}-{name}", title, words, unit, entries, looks)
            for key, (title, words, unit) in DIVERSITY.items()
            if (entries := {arm: value for arm, entry in measured.items() if (value := getattr(entry, key))})
        ]
        if composed:
            shares = {arm: entry.rate for arm, entry in composed.items()}
            rates = {arm: Interval(100 * share.mean, 100 * share.low, 100 * share.high) for arm, share in shares.items()}
            words = f"Correct solutions that use two heuristics or more, as {', '.join(sorted(judges))} finds them."
            drawn.append(charts.intervals(f"composed-{name}", "Composed solutions", words, "% of correct solutions", rates, looks))
        if drawn:
            sets.append({"name": name, "charts": drawn})
    words = "Means over questions with 95 % intervals. Noise is diverse too: read this beside pass@k."
    if kernels:
        words += f" Kernel of the Vendi score: {', '.join(sorted(kernels))}."
    return {"tables": found, "sets": sets, "words": words, "labels": _label_matrices(evidence)}


def _label_matrices(evidence: Evidence) -> list[Chart]:
    """Which heuristics a judge finds in the correct solutions to which question, a plot for each arm that has any."""
    found = []
    for one in evidence.sets:
        arms = list(dict.fromkeys(arm for asked in one.questions for arm in asked.labelled))
        names = sorted({label for asked in one.questions for labels in asked.labelled.values() for label in labels})
        for arm in arms:
            rows = [
                {
                    **{
                        "name": label,
                        "x": x,
                        "share": count / cell.n,
                        "says": f"{count} of {cell.n} responses",
                        "question": asked.question[:CELLS],
                    },
                }
                for x, asked in enumerate(one.questions)
                if (cell := asked.cells.get(arm)) is not None
                for label in names
                if (count := asked.labelled.get(arm, {}).get(label, 0)) or cell.n
            ]
            words = (
                "A column is a question, in the set's order; a cell says how many of its responses are right and use the heuristic, "
                "as the judge finds it."
            )
            found.append(
                charts.matrix(
                    f"labels-{one.name}-{arm}",
                    f"{one.name}: heuristics in what {arm} solved",
                    words,
                    rows,
                    names,
                    f"{len(one.questions):,} questions",
                    "right, with the heuristic",
                )
            )
    return found


def _lesson_matrices(evidence: Evidence) -> list[Chart]:
    """Which heuristic solved which training question, and what was kept."""
    if not evidence.lessons:
        return []
    names = sorted({name for lesson in evidence.lessons for name in lesson.tried}, key=lambda name: (name != "plain", name))
    solved = {lesson.id: sum(right for _, right, _ in lesson.tried.values()) for lesson in evidence.lessons}
    ordered = sorted(evidence.lessons, key=lambda lesson: -solved[lesson.id])
    rows = [
        {
            **{"name": name, "x": x, "share": right / n, "kept": kept, "question": lesson.question[:CELLS]},
            "says": f"{right} of {n}" + (f", {kept} kept" if kept else ""),
        }
        for x, lesson in enumerate(ordered)
        for name, (n, right, kept) in lesson.tried.items()
    ]
    words = (
        "What the base model, before any training, made of the training questions: a column is a question, a row the heuristic that it was "
        "asked under; left is what was solved most often. A dot: a response was kept to learn from."
    )
    across = f"{len(ordered):,} training questions"
    return [charts.matrix("lessons", "Heuristic × question", words, rows, names, across, "responses that are right")]


def _paid(results: Results) -> dict[str, dict[str, list[Paid]]]:
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
    rows = [
        [
            Cell(stage.name),
            Cell(tables.duration(seconds)),
            Cell(tables.number(stage.tokens or None)),
            Cell(tables.number(stage.tokens_per_second or None)),
        ]
        for stage in results.stages
        if (seconds := stage.seconds or 0) >= 1 or stage.tokens
    ]
    return Table("Stages that took a second or more", ["stage", "time", "tokens", "tokens a second"], rows)


# The file ----------------------------------------------------------------------------------------------------------------


def _prose(markdown: str) -> Markup:
    """Markdown of our own sentences as HTML; markup inside them stays text."""
    return Markup(MarkdownIt("commonmark", {"html": False}).disable(["link", "image", "autolink"]).render(markdown))


def _fill(template: str, *, data: Mapping[str, Any], **values: Any) -> str:
    """A template with the style, data and scripts of the page, under a policy that lets only those run."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    scripts = [_script(f"vendor/{name}.min.js") for name in LIBRARIES] + [_script("page.js")]
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return environment.get_template(template).render(
        policy=POLICY.format(digests),
        css=Markup(_read("page.css")),
        scripts=[Markup(script) for script in scripts],
        licences=_read("vendor/LICENSES.txt"),
        version=package_version("jaxpolya"),
        data=data,
        **values,
    )


def _read(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """A script without the line that sends a debugger after a file that isn't there."""
    lines = _read(name).splitlines()
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL=")) + "\n"
