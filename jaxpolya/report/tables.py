"""The tables of a run, built once and rendered twice: for the screen (rich) and for report.md (Markdown).

Shares are shown in percent with their 95 % interval. The highest mean of a pass@k column is marked, which is all that the mark
means: whether a difference is more than luck is said by `page.findings`.
"""

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import rich.box
import rich.table
from rich.text import Text

from jaxpolya.arms import ARMS, BASE
from jaxpolya.evaluation.audit import ACCEPTED
from jaxpolya.evaluation.passk import Interval
from jaxpolya.keys import Key
from jaxpolya.results import AuditShares, Comparison, Results, RlStep, StageRow

LONG_WORD = 40
"""A longer word (a path) may be broken."""

NONE = "–"
"""What stands where there is no number."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One entry, with its interval, marked where it is the best of its column."""

    text: str
    interval: str = ""
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, the names of the columns, and rows as long as those. Columns after the first are aligned as numbers, or as text."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    numbers: bool = True

    def to_rich(self, width: int | None = None) -> rich.table.Table:
        """This table for a terminal of so many characters; names are shown literally, whatever markup they look like."""
        widths = self._widths(width) if width else None
        table = rich.table.Table(
            title=Text(self.title), title_justify="left", title_style="bold", header_style="bold", box=rich.box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
        )  # fmt: skip
        for i, column in enumerate(self.columns):
            pieces = [piece for row in self.rows for piece in (row[i].text, row[i].interval)]
            # A heading is no wider than what stands below it, as far as its spaces allow.
            heading = textwrap.fill(column, max(map(len, pieces), default=1) or 1, break_long_words=False, break_on_hyphens=False)
            justify: Literal["left", "right"] = "right" if i and self.numbers else "left"
            table.add_column(Text(heading), justify=justify, overflow="fold", width=widths[i] if widths else None)
        for row in self.rows:
            table.add_row(*(_rich_cell(cell) for cell in row))
        return table

    def _narrowest(self, column: int) -> int:
        """The width below which a word of the column would be broken; words of more than a screen's half may be."""
        pieces = [self.columns[column], *(piece for row in self.rows for piece in (row[column].text, row[column].interval))]
        if self.numbers and column:
            return max(map(len, [word for word in pieces[0].split()] + pieces[1:]), default=1)
        return min(max((len(word) for piece in pieces for word in piece.split()), default=1), LONG_WORD)

    def _widths(self, width: int) -> list[int]:
        """The columns' widths: as wide as what they hold; where that is too much, the widest give way first, down to their words.

        So a state or a time stays on one line, and prose is what folds.
        """
        narrow = [self._narrowest(i) for i in range(len(self.columns))]
        natural = [
            max([least, *(len(piece) for row in self.rows for piece in (row[i].text, row[i].interval))]) for i, least in enumerate(narrow)
        ]
        room = width - 2 * len(narrow) + 2
        for cap in range(max(natural), 0, -1):
            widths = [max(least, min(most, cap)) for least, most in zip(narrow, natural, strict=True)]
            if sum(widths) <= room:
                return widths
        return narrow

    def within(self, width: int) -> "list[Table]":
        """This table, or several that show its columns one after the other, so that no word is broken at so many characters."""
        parts: list[list[int]] = [[]]
        for i in range(1, len(self.columns)):
            if parts[-1] and sum(self._narrowest(j) + 2 for j in [0, *parts[-1], i]) - 2 > width:
                parts.append([])
            parts[-1].append(i)
        return [
            dataclasses.replace(
                self, columns=[self.columns[i] for i in [0, *part]], rows=[[row[i] for i in [0, *part]] for row in self.rows]
            )
            for part in parts
        ]

    def to_markdown(self) -> str:
        """This table as a Markdown (pipe) table, without its title."""
        header = [escape(column) for column in self.columns]
        rule = ["---:" if i and self.numbers else "---" for i in range(len(header))]
        body = [[_markdown_cell(cell) for cell in row] for row in self.rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *body]) + "\n"


def screen_tables(results: Results) -> list[Table]:
    """What is shown of a run: every question set, and the training of the arms."""
    return present([average_table(results), *eval_tables(results), *diversity_tables(results), training_table(results)])


def present(tables: Sequence[Table]) -> list[Table]:
    """Those tables that have rows."""
    return [table for table in tables if table.rows]


# Builders --------------------------------------------------------------------------------------------------------------


def eval_tables(results: Results) -> list[Table]:
    """Arms × metrics, a table for each question set."""
    tables = []
    for name, arms in results.sets.items():
        first = next(iter(arms.values()))
        single = [measure for measure in ("greedy", "majority") if any(measure in evaluation.alone for evaluation in arms.values())]
        ks = _thin({k for evaluation in arms.values() for k in evaluation.ks}, 2 if "greedy" in single else 3)
        columns = [_pass_column([evaluation.pass_.get(k) for evaluation in arms.values()]) for k in ks]
        columns += [_pass_column([evaluation.alone.get(measure) for evaluation in arms.values()]) for measure in single]
        rows = [
            [
                Cell(f"{arm} (RL without signal)" if arm in results.without_signal else results.label(arm)),
                *(column[i] for column in columns),
                Cell(percent(evaluation.truncated)),
                Cell(percent(evaluation.unparseable)),
                Cell(number(evaluation.tokens_mean)),
            ]
            for i, (arm, evaluation) in enumerate(arms.items())
        ]
        title = f"{name}: {first.questions:,} questions × {first.samples} samples, with 95 % intervals over {results.over}"
        names = [*(f"pass@{k} %" for k in ks), *(f"{measure} %" for measure in single)]
        tables.append(Table(title, [results.what, *names, "truncated %", "no answer %", "mean tokens"], rows))
    return tables


def average_table(results: Results) -> Table:
    """pass@1 of every arm on every question set, and its average over the sets, each set counting alike.

    The sets are independent, so the half-widths of the average's interval are the roots of the summed squares of theirs, over their
    number. Has rows only where there are two sets or more that all arms answered.
    """
    sets = {name: arms for name, arms in results.sets.items() if len(arms) == len(results.arms)}
    arms = list(results.arms) if len(sets) > 1 else []
    passes = {arm: [of_arms[arm].pass_[1] for of_arms in sets.values()] for arm in arms}
    columns = [_pass_column([passes[arm][i] for arm in arms]) for i in range(len(sets))]
    columns.append(_pass_column([_average(entries) for entries in passes.values()]))
    rows = [[Cell(results.label(arm)), *(column[i] for column in columns)] for i, arm in enumerate(arms)]
    title = f"pass@1 in percent on {len(sets)} question sets, and the average over them"
    return Table(title, [results.what, *sets, "average"], rows)


def _average(entries: Sequence[Interval]) -> Interval:
    mean = sum(entry.mean for entry in entries) / len(entries)
    below = math.sqrt(sum((entry.mean - entry.low) ** 2 for entry in entries)) / len(entries)
    above = math.sqrt(sum((entry.high - entry.mean) ** 2 for entry in entries)) / len(entries)
    return Interval(mean=mean, low=mean - below, high=mean + above)


def comparison_table(comparison: Comparison) -> Table:
    """How much better one model is than another, question by question."""
    sets = comparison.sets
    measures = {key for entry in sets.values() for key in entry.difference}
    ks = _thin({int(key) for key in measures if key.isdigit()}, 2)
    single = [measure for measure in ("greedy", "majority") if measure in measures]
    rows = [
        [
            Cell(name),
            Cell(number(entry.questions)),
            *(difference(entry.difference.get(measure)) for measure in [*map(str, ks), *single]),
        ]
        for name, entry in sets.items()
    ]
    title = f"{comparison.model} minus {comparison.against}, in points, with 95 % intervals over the questions that both answered"
    return Table(title, ["set", "questions", *(f"pass@{k}" for k in ks), *single], rows)


def training_table(results: Results) -> Table:
    """What SFT and RL did to each arm; RL means are over the first and the last quarter of the steps."""
    rows = []
    trainings = [(arm, seed, one) for arm, entry in results.arms.items() for seed, one in entry.trainings.items()]
    for arm, seed, one in trainings:
        sft, steps = one.sft, one.rl.steps if one.rl else []
        if sft or steps:
            cells = [
                arm if seed is None else f"{arm}, seed {seed}",
                number(sft.rows if sft else None),
                _change(sft.loss_first, sft.loss_last, 3) if sft else NONE,
                _change(sft.heldout_first, sft.heldout_last, 3) if sft else NONE,
                number(len(steps) or None),
                _change(*_quarters(steps, "reward"), 3),
                _change(*_quarters(steps, "length"), 0),
            ]
            rows.append([Cell(text) for text in cells])
    columns = ["arm", "SFT rows", "SFT loss", "held-out loss", "RL steps", "reward", "response tokens"]
    return Table("Training, first → last (RL: first → last quarter of the steps)", columns, rows)


def validation_table(results: Results) -> Table:
    """Which of its models each training left, where it was looked at on the way."""
    rows = []
    for arm, entry in results.arms.items():
        for name, training in (("sft", entry.sft), ("rl", entry.rl)):
            if training and (looked := training.validation):
                first, last = looked.looks[min(looked.looks)], looked.looks[max(looked.looks)]
                of_kept = looked.looks.get(looked.kept)
                figures = [f"{value:.3f}" if value is not None else NONE for value in (first, of_kept, last)]
                ended = f"{looked.last}, stopped early" if looked.stopped else str(looked.last)
                cells = [f"{arm}, {name}", looked.metric, str(looked.kept), ended, *figures]
                rows.append([Cell(text) for text in cells])
    columns = ["training", "metric", "step of the model that is left", "steps", "first look", "that model's", "last look"]
    return Table("Validation on the way: which model each training left", columns, rows)


def selection_table(results: Results) -> Table:
    """How much fine-tuning data there is, and how it is spread over questions."""
    rows = []
    for kind, entry in results.selection.items():
        spread = sorted(entry.per_question.items())
        cells = [kind, number(entry.rows), number(entry.questions), ", ".join(f"{n}: {count:,}" for n, count in spread) or NONE]
        rows.append([Cell(text) for text in cells])
    return Table("Rows and questions", ["kind", "rows", "questions", "rows a question: questions"], rows)


def heuristics_table(results: Results) -> Table:
    """Where the selected data came from: what each heuristic generated, and what was kept of it."""
    rows = []
    for key in heuristics(results):
        made = results.generation.get(key)
        samples = made.samples if made else None
        cells = [
            key,
            number(samples),
            percent(made.correct / samples if made and samples else None),
            percent(made.truncated / samples if made and samples else None),
            *(number(entry.by_heuristic.get(key)) for entry in results.selection.values()),
        ]
        rows.append([Cell(text) for text in cells])
    kept = [f"kept: {kind}" for kind in results.selection]
    return Table("Generation by heuristic", ["heuristic", "samples", "correct %", "truncated %", *kept], rows)


def heuristics(results: Results) -> list[str]:
    """Keys of all heuristics that generated or gave rows, those that gave most first, then by name."""
    kept: dict[str, int] = dict.fromkeys(results.generation, 0)
    for entry in results.selection.values():
        for key, rows in entry.by_heuristic.items():
            kept[key] = kept.get(key, 0) + rows
    return sorted(kept, key=lambda key: (-kept[key], key))


def diversity_tables(results: Results) -> list[Table]:
    """Arms × measures of diversity, a table for each question set; no mean is marked, for more isn't always better."""
    tables = []
    for name, arms in results.sets.items():
        measured = {arm: entry for arm, evaluation in arms.items() if (entry := evaluation.diversity)}
        rows = []
        for arm, entry in measured.items():
            composition = arms[arm].composition
            cells = [
                Cell(results.label(arm)),
                _measure(entry.distinct_2, percent),
                _measure(entry.self_bleu, percent),
                _measure(entry.vendi, lambda value: number(value, 2)),
                _measure(entry.label_entropy, lambda value: number(value, 2)),
                _measure(composition.rate if composition else None, percent),
                _measure(composition.corrected if composition else None, percent),
            ]
            rows.append(cells)
        if measured:
            first = next(iter(measured.values()))
            title = f"{name}: diversity over {first.questions:,} questions × {first.samples} samples"
            columns = ["arm", "distinct-2 %", "self-BLEU %", "Vendi score", "label entropy, nats", "composed %", "corrected %"]
            tables.append(Table(title, columns, rows))
    return tables


def judged_by(results: Results) -> str:
    """Who said what is composed, how well it agrees with labels, and what its errors do to the rate; empty where nobody was."""
    compositions = [evaluation.composition for evaluation in results.evaluations if evaluation.composition]
    if not compositions:
        return ""
    text = f"Composed: correct solutions that use two heuristics or more, judged by {compositions[0].judge}"
    quality = compositions[0].quality
    if quality is None:
        return f"{text}; how well it agrees with a labelled set was not measured."
    kappas = [_kappa(quality.kappa, "over solution and heuristic"), _kappa(quality.kappa_composed, "on what is composed")]
    (hits, composed), (left, others) = quality.composed, quality.others
    text += f". On {quality.solutions} labelled solutions its kappa with them is {' and '.join(kappas)}: it finds {hits} of {composed} "
    text += f"composed ones, and calls {others - left} of {others} others composed. "
    if all(composition.corrected is None for composition in compositions):
        return (
            text + "That is too little to correct a rate by, so composed % says how the judge's findings differ between arms, and no more."
        )
    return text + (
        "Corrected for these errors (Rogan and Gladen 1978), as far as the judge errs on these solutions as on the labelled ones; "
        "the interval takes in how uncertain its errors are."
    )


def _kappa(interval: Interval | None, over: str) -> str:
    return f"undefined {over}" if interval is None else f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}] {over}"


def audit_table(results: Results) -> Table:
    """What each stage paid: shares of its paid answers, and how far responses are apart."""
    sets_of = {Key("eval", ARMS[arm].slug, name).name: name for name, arms in results.sets.items() for arm in arms if arm in ARMS}
    rows = []
    for name, audit in results.audit.items():
        if audit.all is None:
            continue
        ends = [end for end in (audit.first, audit.last) if end] or [audit.all]
        cells = [name, number(audit.all.paid), _ends(ends, "refused", percent)]
        cells += [_ends(ends, key, percent) for key in ("not_literal", "copied", "in_question", "contradictory", "unconfirmed")]
        cells += [_ends(ends, key, lambda value: number(value, 1)) for key in ("distinct_responses", "distinct_answers")]
        if name in sets_of and (base := results.audit.get(Key("eval", BASE.slug, sets_of[name]).name)) and base.all:
            ends = [base.all, audit.all]
        rows.append([Cell(text) for text in [*cells, _ends(ends, "length", number)]])
    columns = ["stage", "paid", "refused %", "no literal %", "copied %", "in question %", "two answers %", "unconfirmed %"]
    columns += ["different responses", "different answers", "tokens"]
    return Table("Paid answers, by stage (RL: first → last quarter of the steps; tokens of an evaluation: base → arm)", columns, rows)


def _ends(parts: list[AuditShares], key: str, text: Callable[[float | None], str]) -> str:
    """A number, or where it came from and went to."""
    return "→".join(text(part.get(key)) for part in parts)


def audit_warnings(results: Results) -> list[str]:
    """What makes the verdicts of a run doubtful, a sentence each: what was accepted, and what the audits find too large."""
    accepted = [ACCEPTED] if results.unevaluated == "accept" else []
    return accepted + [f"{name}: {words}" for name, audit in results.audit.items() for words in audit.warnings]


def contamination_table(results: Results) -> Table:
    """How many training questions each evaluation set asks too."""
    rows = [
        [Cell(text) for text in (use, name, number(entry.questions), number(shared.shared), number(shared.pairs))]
        for use, entry in results.contamination.items()
        for name, shared in entry.sets.items()
    ]
    return Table("Shared questions", ["to learn from", "evaluation set", "questions", "shared", "pairs"], rows)


def left_out_table(results: Results) -> Table:
    """What took no part in the run, and why."""
    rows = [[Cell(name), Cell(why), Cell(number(count))] for name, reasons in results.left_out.items() for why, count in reasons.items()]
    return Table("Left out", ["of", "because", "number"], rows)


def stages_table(results: Results) -> Table:
    """What each stage took; those that ask and train nothing are one row, for none of them takes long."""
    work = [stage for stage in results.stages if stage.tokens]
    rows = [stage_cells(stage) for stage in work]
    if others := [stage for stage in results.stages if not stage.tokens]:
        rows.append([Cell(f"{len(others)} others"), Cell(duration(sum(stage.seconds or 0.0 for stage in others))), *[Cell(NONE)] * 3])
    return Table("Stages", ["stage", "time", "tokens", "tokens/s", "rows busy %"], rows)


def stage_cells(stage: StageRow) -> list[Cell]:
    """What one stage took."""
    busy = NONE if stage.rows_busy is None else f"{100 * stage.rows_busy:.0f}"
    texts = duration(stage.seconds or 0.0), number(stage.tokens or None), number(stage.tokens_per_second or None), busy
    return [Cell(stage.name), *map(Cell, texts)]


def provenance_table(results: Results) -> Table:
    """The run's provenance, nested objects as dotted keys."""

    def flat(node: Any, prefix: str) -> list[list[Cell]]:
        if isinstance(node, dict):
            return [row for key, value in node.items() for row in flat(value, f"{prefix}.{key}" if prefix else str(key))]
        text = ", ".join(map(str, node)) if isinstance(node, list) else str(node)
        return [[Cell(prefix), Cell(text)]]

    return Table("Provenance", ["what", "value"], flat(results.run.model_dump(mode="json", exclude_unset=True), ""), numbers=False)


# Text of numbers -------------------------------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    """A share of 1 in percent, without the sign."""
    return NONE if share is None else f"{100 * share:.1f}"


def number(value: float | None, digits: int = 0) -> str:
    """A number with thousands marked."""
    return NONE if value is None else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, the two largest that matter."""
    if seconds is None:
        return NONE
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"


def _pass_column(entries: list[Interval | None]) -> list[Cell]:
    """pass@k of all arms for one k; the best is marked where there is something to be better than."""
    means = [entry.mean for entry in entries if entry]
    best = max(means) if len(set(means)) > 1 else None
    return [
        Cell(percent(entry.mean), f"{percent(entry.low)}–{percent(entry.high)}", entry.mean == best) if entry else Cell(NONE)
        for entry in entries
    ]


def interval_cell(entry: Interval | None) -> Cell:
    """A share in percent with its interval."""
    return _measure(entry, percent)


def difference(entry: Interval | None) -> Cell:
    """A difference in points, marked where its interval leaves out 0."""
    if entry is None:
        return Cell(NONE)
    mean, low, high = (f"{100 * part:+.1f}".replace("-", "−") for part in (entry.mean, entry.low, entry.high))
    return Cell(mean, f"{low} to {high}", entry.low > 0 or entry.high < 0)


def powers(ks: Iterable[int]) -> list[int]:
    """The powers of two among the ks, and the largest."""
    ordered = sorted(ks)
    return [k for k in ordered if k & (k - 1) == 0 or k == ordered[-1]]


def _thin(ks: Iterable[int], count: int) -> list[int]:
    """The smallest and the largest of the ks, and of three one between: columns fit into 80 characters, and the plot shows all k."""
    kept = powers(ks)
    return sorted({kept[0], kept[-1], *([kept[len(kept) // 2]] if count > 2 else [])})


def _measure(entry: Interval | None, text: Callable[[float], str]) -> Cell:
    """A mean with its interval."""
    return Cell(text(entry.mean), f"{text(entry.low)}–{text(entry.high)}") if entry else Cell(NONE)


def _change(first: float | None, last: float | None, digits: int) -> str:
    """ "first→last", in one piece: a narrow terminal would fold it at a space."""
    return NONE if first is None or last is None else f"{number(first, digits)}→{number(last, digits)}"


def _quarters(steps: Sequence[RlStep], key: str) -> tuple[float | None, float | None]:
    """Means over the first and the last quarter of the steps, one step at least."""
    values = [value for step in steps if (value := step.get(key)) is not None]
    if not values:
        return None, None
    length = max(1, len(values) // 4)
    return sum(values[:length]) / length, sum(values[-length:]) / length


def _rich_cell(cell: Cell) -> Text:
    """The interval on a line of its own, so that columns stay narrow."""
    text = Text(cell.text, style="bold green" if cell.best else "")
    return text.append(f"\n{cell.interval}", style="dim not bold") if cell.interval else text


def _markdown_cell(cell: Cell) -> str:
    text = escape(f"{cell.text} ({cell.interval})" if cell.interval else cell.text)
    return f"**{text}**" if cell.best else text


def escape(text: str) -> str:
    """Text that cannot break a Markdown table or turn into markup."""
    for mark in "\\|*`<[":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
