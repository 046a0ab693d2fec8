"""report.md: what was run, what came out, and what that can and cannot show.

The last of these is computed, not left to the reader's hope. Two arms differ only where the interval of their difference
leaves out 0 or, where no paired difference is given, where their own intervals lie apart; how wide the intervals are says
which differences this many questions could have shown at all.

The same results and samples give the same bytes. Files are written aside and renamed, so that a report is whole or absent.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxpolya.arms import BASE
from jaxpolya.evaluation.contamination import Overlap
from jaxpolya.evaluation.passk import Interval
from jaxpolya.files import write_whole
from jaxpolya.report import plots, tables
from jaxpolya.report.tables import Table, percent
from jaxpolya.results import Evaluation, PaidResponse, Results

MIN_QUESTIONS = 10
"""Below this a bootstrap interval is not to be trusted, and no comparison is drawn."""

FEW_SEEDS = 5
"""Below this the bootstrap takes the spread between seeds for clearly smaller than it is (by a fifth of its variance and more)."""

MUCH_TRUNCATED = 0.1
"""Share of responses cut at the token limit from which pass@k is said to be held down by it."""

PROMPT_CHARACTERS, RESPONSE_CHARACTERS = 700, 1800
"""A longer prompt or response is shown without its middle."""

PAID_CHARACTERS = 400
"""The same of what stands in the cells of a table."""

CAPTIONS = {
    "pass_at_k.png": ("pass@k by arm", "pass@k over k; bands are 95 % intervals over questions."),
    "rl.png": (
        "RL reward and response length",
        "Mean reward and length of the rollouts of each RL step; in long runs a moving mean over the faint single steps.",
    ),
    "sources.png": ("Where the fine-tuning data came from", "Rows kept for each heuristic, and how many of its responses were correct."),
}


def write_report(run_dir: Path, results: Results, samples: list[dict[str, Any]]) -> Path:
    """Writes `report.md` and `plots/*.png` below the run's directory.

    Args:
      run_dir: exists, or is made.
      results: of the run.
      samples: records of samples (`records.Sample.to_json`), of which a correct and a failed one of each arm are shown.

    Returns:
      The path of report.md.
    """
    drawn = plots.plots(results)
    for name, png in drawn.items():
        if png is not None:
            write_whole(run_dir / "plots" / name, png)
    sections = [
        f"# {results.run.name}\n",
        _what_was_run(results),
        _results(results, drawn),
        _diversity(results),
        contamination(results),
        section("What this run can and cannot show", findings(results)),
        audit(results),
        _training(results, drawn),
        _data(results, drawn),
        _rollouts(results, samples),
        section("Provenance", titled(tables.provenance_table(results), title=False)),
    ]
    path = run_dir / "report.md"
    write_whole(path, "\n".join(section for section in sections if section))
    return path


def findings(results: Results) -> str:
    """A Markdown list of what the evaluation shows, and of what it is too small to show."""
    sets = results.sets
    if not sets:
        return "- No arm was evaluated, so nothing can be said about them.\n"
    lines, comparisons = [], 0
    if doubts := len(tables.audit_warnings(results)):
        lines.append(f"- **Read the audit of rewards before believing a figure:** it warns of {doubts} thing{'s' * (doubts > 1)}.")
    idle = results.without_signal
    for name, arms in sets.items():
        evaluation = next(iter(arms.values()))
        sentences, compared = _findings_of_set({results.label(arm): one for arm, one in arms.items()}, results.label(BASE.name), idle)
        lines += [
            f"- **{name}** ({evaluation.questions:,} questions, {evaluation.samples} samples each)",
            *(f"  - {line}" for line in sentences),
        ]
        comparisons += compared
    if comparisons > 1:
        lines.append(f"- {comparisons} comparisons at 95 %: if no arm differed, about one in twenty would still look as if it did.")
    if idle:
        lines.append(
            f"- RL of {_join(idle)} had no signal: the gradient was 0 in every step (no group held two different rewards, or none was "
            "learned from), so nothing was learned. Such an arm is not called better or worse; take easier questions, or a larger group."
        )
    lines += _cut_short(results)
    if any(one.sft or one.rl for entry in results.arms.values() for one in entry.trainings.values()):
        lines.append(_seeds(results.seeds))
    return "\n".join(lines) + "\n"


# Findings --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Difference:
    """How much higher an arm's pass@k is than the reference arm's, in points, with the interval that says so."""

    arm: str
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.arm} ({_points(self.mean)} points, {_points(self.low)} to {_points(self.high)})"


def _seeds(seeds: Sequence[int]) -> str:
    """What the intervals say of other seeds."""
    if not seeds:
        return "- Each arm was trained once: the intervals speak of the choice of questions, not of what another training seed would give."
    narrow = " So few seeds give intervals that are too narrow." if len(seeds) < FEW_SEEDS else ""
    return f"- Each arm was trained with {len(seeds)} seeds: the intervals speak of the choice of seeds and of questions.{narrow}"


def _cut_short(results: Results) -> list[str]:
    """What RL learned from responses that the verifier's limits cut short."""
    lines = []
    for arm, of_seeds in results.curves.items():
        steps = [step for of_seed in of_seeds for step in of_seed]
        if share := sum(step.cut_short or 0.0 for step in steps) / len(steps):
            lines.append(
                f"- {percent(share)} % of the responses that RL of {arm} learned from were cut short by the verifier's limits, and paid 0; "
                "they stay as they were judged then."
            )
    return lines


def _findings_of_set(arms: dict[str, Evaluation], base: str, idle: Sequence[str] = ()) -> tuple[list[str], int]:
    """The sentences on one question set, and how many comparisons they rest on; arms that are `idle` are not compared."""
    reference = base if base in arms else next(iter(arms))
    questions = min(evaluation.questions for evaluation in arms.values())
    ks = sorted(set.intersection(*(set(evaluation.ks) for evaluation in arms.values())))
    first, last = ks[0], ks[-1]
    lines, compared = [], 0

    rated = {arm: evaluation for arm, evaluation in arms.items() if arm == reference or arm not in idle}
    differences = {k: _differences(rated, reference, k) for k in dict.fromkeys((first, last))}
    own = max(50 * (evaluation.pass_[first].high - evaluation.pass_[first].low) for evaluation in arms.values())
    between = max(((entry.high - entry.low) / 2 for entry in differences[first]), default=0.0)
    if questions < MIN_QUESTIONS:
        lines.append(f"With fewer than {MIN_QUESTIONS} questions no interval is to be trusted, so arms are not compared.")
    else:
        if own:  # An interval without width is no knowledge; it has its own sentence below.
            lines.append(f"The pass@{first} of {'an arm' if len(arms) > 1 else reference} is known to about ±{own:.1f} points.")
        if between:
            lines.append(f"A difference from {reference} is known to about ±{between:.1f} points: a smaller one cannot be seen here.")
        if len(arms) == 1:
            lines.append(f"Only {reference} was evaluated: there is nothing to compare it with.")
        elif len(rated) > 1:
            lines += [_comparison(entry, reference, k) for k, entry in differences.items()]
            compared = sum(map(len, differences.values()))

    for outcome, text in ((0.0, "none"), (1.0, "all")):
        if stuck := [arm for arm, evaluation in arms.items() if evaluation.pass_[last].mean == outcome]:
            lines.append(
                f"{_join(stuck)} solved {text} of the questions at pass@{last}. That interval has no width because there is nothing to "
                f"resample: for up to {percent(1 - 0.05 ** (1 / questions))} % of questions like these it could be otherwise (95 %)."
            )
    if cut := [
        f"{arm} ({percent(share)} %)" for arm, evaluation in arms.items() if (share := evaluation.truncated or 0.0) > MUCH_TRUNCATED
    ]:
        lines.append(f"Many responses were cut at the token limit, which holds pass@k down: {_join(cut)}.")
    if failed := [f"{arm} ({percent(evaluation.harness_error)} %)" for arm, evaluation in arms.items() if evaluation.harness_error]:
        lines.append(f"Some responses could not be judged, for the verifier failed on them; they count as failures: {_join(failed)}.")
    if cut := [f"{arm} ({percent(evaluation.cut_short)} %)" for arm, evaluation in arms.items() if evaluation.cut_short]:
        lines.append(
            "Some responses were cut short by the verifier's limits and count as failures; under a larger verify.deadline or "
            f"verify.memory_mb the same command judges them again: {_join(cut)}."
        )
    return lines, compared


def _differences(arms: dict[str, Evaluation], reference: str, k: int) -> list[_Difference]:
    """All other arms against the reference at one k: paired where the results say so, else what the arms' own intervals allow."""
    differences = []
    theirs = arms[reference].pass_[k]
    for arm, evaluation in arms.items():
        if arm == reference:
            continue
        ours = evaluation.pass_[k]
        paired = (evaluation.versus_base or {}).get(str(k)) if reference == BASE.name else None
        entry = paired or Interval(mean=ours.mean - theirs.mean, low=ours.low - theirs.high, high=ours.high - theirs.low)
        differences.append(_Difference(arm, 100 * entry.mean, 100 * entry.low, 100 * entry.high))
    return differences


def _comparison(differences: list[_Difference], reference: str, k: int) -> str:
    """Which arms stand above or below the reference at one k, and for which that is not shown."""
    above = [difference for difference in differences if difference.low > 0]
    below = [difference for difference in differences if difference.high < 0]
    unclear = [difference for difference in differences if difference.low <= 0 <= difference.high]
    parts = []
    for side, group in (("above", above), ("below", below)):
        if group:
            parts.append(f"{_join(group)} {'is' if len(group) == 1 else 'are'} {side} {reference}")
    if unclear:
        parts.append(f"no difference from {reference} is shown for {_join(unclear)}")
    return f"At pass@{k}, {'; '.join(parts)}."


def _points(value: float) -> str:
    """A signed number of percentage points, with a true minus sign."""
    return f"{value:+.1f}".replace("-", "−")


# Sections --------------------------------------------------------------------------------------------------------------


def _what_was_run(results: Results) -> str:
    model = results.run.model
    text = f"Arms: {', '.join(results.arms) or 'none'}." + (f" Base model: {model}." if model else "") + "\n"
    return section("What was run", text, titled(tables.stages_table(results)))


def _results(results: Results, drawn: dict[str, bytes | None]) -> str:
    parts = [titled(table) for table in tables.present([tables.average_table(results), *tables.eval_tables(results)])]
    if not parts:
        return section("Results", "No arm was evaluated.\n")
    return section("Results", *parts, "The highest mean is in bold.\n", _picture("pass_at_k.png", drawn))


def _diversity(results: Results) -> str:
    parts = tables.present(tables.diversity_tables(results))
    if not parts:
        return ""
    kernel = next(evaluation.diversity.kernel for evaluation in results.evaluations if evaluation.diversity)
    text = f"Means over questions with 95 % intervals. Kernel of the Vendi score: {kernel}."
    if judge := tables.judged_by(results):
        text += f" {judge}"
    return section("Diversity and composition", *map(titled, parts), text + " Noise is diverse too: read this beside pass@k.\n")


def contamination(results: Results) -> str:
    """What the questions to learn from share with the evaluation sets; nothing where they share nothing."""
    table = tables.contamination_table(results)
    if not table.rows:
        return ""
    entries = results.contamination
    n, dropped = next((entry.n, entry.dropped) for entry in entries.values())
    text = f"Questions overlap where they share {n} words in a row, or are the same as a whole. " + (
        "The shared ones were left out of training.\n" if dropped else "They were trained on: what an arm gains here may be memory.\n"
    )
    lines = [f"- {use} {_overlap(pair)}\n" for use, entry in entries.items() for pair in entry.examples]
    return section("Contamination", text, table.to_markdown(), "".join(lines))


def audit(results: Results) -> str:
    """What the verifier paid, as other code sees it; nothing where no stage was audited and nothing was accepted."""
    table, warnings = tables.audit_table(results), tables.audit_warnings(results)
    shown = {name: entry.shown for name, entry in results.audit.items() if entry.shown}
    if not (table.rows or warnings or shown):
        return ""
    text = (
        "Training finds whatever is paid, so what was paid is looked at by other code. *Refused*: of all responses, those that equal the "
        "reference and aren't paid, for nothing was worked out in them; where that share rises, a model looks for a way past it. "
        "*No literal*: not a number (words, a letter) where the reference is one. *In question*: the answer stands there; *copied*: and "
        "isn't the reference itself. *Two answers*: final statements that disagree. *Unconfirmed*: of a sample, what a second reading "
        "doesn't agree with. Different responses and answers are means over the groups of one prompt.\n"
    )
    bullets = "".join(f"- **Warning:** {tables.escape(words)}.\n" for words in warnings)
    return section(
        "Audit of rewards",
        *([bullets] if bullets else ["No share is so large that it would cast doubt on the figures.\n"] if table.rows else []),
        *([text, titled(table)] if table.rows else []),
        *(_side_by_side(name, payments) for name, payments in shown.items()),
    )


def _side_by_side(stage: str, shown: Sequence[PaidResponse]) -> str:
    """Responses that the first and the last steps of a stage paid, in two columns."""
    columns = [[_paid(paid) for paid in shown if paid.end == end] for end in ("first", "last")]
    rows = "".join(f"| {' | '.join(row)} |\n" for row in itertools.zip_longest(*columns, fillvalue=""))
    return f"**{stage}: some responses that were paid**\n\n| first steps | last steps |\n| --- | --- |\n{rows}"


def _paid(paid: PaidResponse) -> str:
    """A paid response in one cell of a table."""
    facts = {
        f"step {paid.step}": _cut(paid.question, PAID_CHARACTERS),
        "reference": paid.gold,
        "read as": _cut(paid.answer or tables.NONE, PAID_CHARACTERS),
        "response": _cut(paid.response, PAID_CHARACTERS),
    }
    return "<br>".join(f"**{name}:** {tables.escape(text)}" for name, text in facts.items())


def _overlap(pair: Overlap) -> str:
    shared = "the whole question" if pair.whole else f"`{pair.ngram}`"
    return f"`{pair.train}` and {pair.eval_set} `{pair.eval}`: {shared}"


def _training(results: Results, drawn: dict[str, bytes | None]) -> str:
    table = titled(tables.training_table(results))
    return section("Training", table or "No arm was trained.\n", titled(tables.validation_table(results)), _picture("rl.png", drawn))


def _data(results: Results, drawn: dict[str, bytes | None]) -> str:
    parts = [titled(tables.selection_table(results)), titled(tables.heuristics_table(results))]
    made = parts if any(parts) else ["No fine-tuning data was made.\n"]
    return section("Fine-tuning data", *made, _picture("sources.png", drawn), titled(tables.left_out_table(results)))


def _rollouts(results: Results, samples: list[dict[str, Any]]) -> str:
    """A correct and a failed response of each arm, the first of each in the order given."""
    chosen: dict[tuple[str, bool], dict[str, Any]] = {}
    for sample in samples:
        chosen.setdefault((sample["arm"], sample.get("verdict") == "correct"), sample)
    order = list(results.arms)
    keys = sorted(chosen, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key[0], not key[1]))
    return section("Some responses", *(_rollout(chosen[key]) for key in keys)) if keys else ""


def _rollout(sample: dict[str, Any]) -> str:
    verdict = f"{sample.get('verdict', 'not judged')}" + (f", answer read as `{sample['extracted']}`" if sample.get("extracted") else "")
    facts = [
        f"question {sample['question_id']}",
        sample.get("stage"),
        f"step {sample['step']}" if "step" in sample else None,
        sample.get("heuristic"),
    ]
    cut = ", cut at the token limit" if sample.get("finish") == "length" else ""
    return (
        f"### {sample['arm']}: {verdict}{cut}\n\n{', '.join(fact for fact in facts if fact)}\n\n"
        f"{fenced(_cut(sample['prompt'], PROMPT_CHARACTERS))}\n{fenced(_cut(sample['response'], RESPONSE_CHARACTERS))}"
    )


def _picture(name: str, drawn: dict[str, bytes | None]) -> str:
    """A picture and its caption, or a sentence on why there is none."""
    title, caption = CAPTIONS[name]
    if drawn[name] is None:
        return f"({title}: not drawn, since this run has no data for it.)\n"
    return f"![{title}](plots/{name})\n\n{caption}\n"


def titled(table: Table, title: bool = True) -> str:
    """A table under its title; nothing where it has no rows."""
    if not table.rows:
        return ""
    return (f"**{table.title}**\n\n" if title else "") + table.to_markdown()


def section(heading: str, *parts: str) -> str:
    """A heading and what stands below it."""
    return f"## {heading}\n\n" + "\n".join(part for part in parts if part)


def _join(items: Sequence[object]) -> str:
    """a, b and c."""
    names = [str(item) for item in items]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _cut(text: str, limit: int) -> str:
    """Text without its middle where it is long."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters left out …]\n{text[-tail:]}"


def fenced(text: str, language: str = "text") -> str:
    """Text as a code block that no run of backticks inside it can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.strip()}\n{fence}\n"
