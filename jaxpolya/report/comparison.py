"""Several configurations side by side: one table, one plot, one page, of typed points (`runs.points` gathers them)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from jaxpolya.evaluation.passk import Interval
from jaxpolya.files import write_whole
from jaxpolya.records import write_json
from jaxpolya.report.page import section, titled
from jaxpolya.report.plots import STYLE, arm_line, legend, png
from jaxpolya.report.tables import NONE, Cell, Table, difference, interval_cell
from jaxpolya.results import Evaluation, ResultPart

DOSE = "dose"
"""The axis of steps of RL at which arms were evaluated (`rl.evaluate_at`)."""


BESIDE = 0.08
"""Between two arms of one point, where the axis has names."""

FEW_SETTINGS = 3
"""As many settings have columns of their own; where points differ in more, a table of their own says in which."""


class Point(ResultPart):
    """One arm of one configuration on one question set."""

    run: str
    """Its name, with a number where one run has several configurations; empty where all are of one run, and few settings differ."""
    settings: dict[str, Any]
    """Those in which the compared configurations differ."""
    arm: str
    question_set: str
    evaluation: Evaluation
    versus_first: dict[str, Interval] | None = None
    """Paired differences from the first point of the arm, as in `Evaluation.versus_base`."""

    @property
    def name(self) -> str:
        """Its run and settings."""
        few = self.settings.items() if len(self.settings) <= FEW_SETTINGS else ()
        return "\n".join(filter(None, [self.run, *(f"{key}={value}" for key, value in few)])) or "the run"


class Points(ResultPart):
    """All that are compared."""

    by: str | None
    """The setting along which they are drawn; None is none, and they stand beside each other."""
    points: list[Point]

    @property
    def keys(self) -> list[str]:
        """All settings in which the points differ."""
        return list(dict.fromkeys(key for point in self.points for key in point.settings))

    @property
    def columns(self) -> list[str]:
        """Those that tell them apart in a table: all, where they are few, else the one that they are drawn along."""
        return self.keys if len(self.keys) <= FEW_SETTINGS else [key for key in self.keys if key == self.by]

    @property
    def sets(self) -> dict[str, list[Point]]:
        """By question set."""
        by_set: dict[str, list[Point]] = {}
        for point in self.points:
            by_set.setdefault(point.question_set, []).append(point)
        return by_set


def write_comparison(directory: Path, points: Points) -> Path:
    """Writes `compare.json`, `compare.md` and `compare.png`. Returns the path of the page."""
    write_whole(directory / "compare.json", write_json(points.model_dump(mode="json", exclude_none=True), "compare.json", indent=1) + "\n")
    with matplotlib.rc_context(STYLE):
        write_whole(directory / "compare.png", png(comparison_plot(points)))
    text = (
        "Intervals hold 95 % of the bootstrap. *minus first* is the paired difference, in points of pass@1, from the first row of the same "
        "arm: the same questions, so their hardness cancels; in bold where its interval leaves out 0. Of many differences at 95 %, one in "
        "twenty looks clear where there is none.\n"
    )
    page = "\n".join(
        [
            "# Comparison\n",
            section("Results", text, *map(titled, comparison_tables(points))),
            "![pass@1 of every point](compare.png)\n",
            section("Settings", titled(settings_table(points), title=False)) if settings_table(points).rows else "",
        ]
    )
    write_whole(directory / "compare.md", page)
    return directory / "compare.md"


def comparison_tables(points: Points) -> list[Table]:
    """Points × measures, a table for each question set."""
    tables = []
    keys = points.columns
    several = any(point.run for point in points.points)
    for name, of_set in points.sets.items():
        most = _largest_k(of_set)
        rows = []
        for point in of_set:
            told = [point.run] * several + [_text(point.settings.get(key)) for key in keys] + [point.arm]
            versus = [(point.evaluation.versus_base or {}).get("1"), (point.versus_first or {}).get("1")]
            rows.append(
                [
                    *map(Cell, told),
                    interval_cell(point.evaluation.pass_.get(1)),
                    *([interval_cell(point.evaluation.pass_.get(most))] if most > 1 else []),
                    *map(difference, versus),
                ]
            )
        columns = [*["run"] * several, *keys, "arm", "pass@1 %", *([f"pass@{most} %"] if most > 1 else []), "minus base", "minus first"]
        tables.append(Table(f"{name}: {len(of_set)} points", columns, rows))
    return tables


def _largest_k(points: Sequence[Point]) -> int:
    """The largest k for which all have a pass@k."""
    return max(set.intersection(*(set(point.evaluation.ks) for point in points)))


def settings_table(points: Points) -> Table:
    """In which settings the compared runs differ; has rows only where they are too many for columns."""
    told = {point.run: point.settings for point in points.points}
    rows = [[Cell(key), *(Cell(_text(settings.get(key))) for settings in told.values())] for key in points.keys]
    return Table("What differs", ["setting", *told], rows if len(points.keys) > FEW_SETTINGS else [], numbers=False)


def _text(value: Any) -> str:
    return NONE if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def comparison_plot(points: Points) -> Figure:
    """pass@1 and pass@k (the largest k) of every point, along the axis or beside each other; a row for each question set."""
    sets = points.sets
    figure = Figure(figsize=(9.0, 3.6 * len(sets) + 0.4), layout="constrained")
    panels = figure.subplots(len(sets), 2, squeeze=False)
    for (name, of_set), row in zip(sets.items(), panels, strict=True):
        values = list(dict.fromkeys(_place(point, points.by) for point in of_set))
        numeric = points.by is not None and all(isinstance(value, int | float) for value in values)
        order = sorted(values) if numeric else values
        for axes, k in zip(row, (1, _largest_k(of_set)), strict=True):
            arms = list(dict.fromkeys(point.arm for point in of_set))
            for number, arm in enumerate(arms):
                own = [(point, entry) for point in of_set if point.arm == arm and (entry := point.evaluation.pass_.get(k))]
                own.sort(key=lambda pair: order.index(_place(pair[0], points.by)))
                beside = 0.0 if numeric else BESIDE * (number - (len(arms) - 1) / 2)  # bars would lie on each other
                x = [_place(point, points.by) if numeric else order.index(_place(point, points.by)) + beside for point, _ in own]
                mean = [100 * entry.mean for _, entry in own]
                bars = [[100 * (entry.mean - entry.low) for _, entry in own], [100 * (entry.high - entry.mean) for _, entry in own]]
                line = arm_line(arm) | ({} if points.by else {"linestyle": "none"})
                axes.errorbar(x, mean, yerr=bars, label=arm, capsize=2, elinewidth=0.8, **line)
            if numeric and min(order) > 0 and max(order) / min(order) >= 8:
                axes.set_xscale("log", base=2)
            if not numeric or len(order) <= 8:
                axes.set_xticks(order if numeric else range(len(order)), [f"{value:g}" if numeric else str(value) for value in order])
            if not numeric and max(map(len, map(str, order)), default=0) > 12:
                axes.tick_params(axis="x", labelrotation=30)
            axes.minorticks_off()
            axes.margins(x=0.1)
            axes.set_ylim(0, None)
            axes.set_xlabel(points.by or "")
            axes.set_ylabel(f"pass@{k} (% of questions)")
            axes.set_title(name)
    legend(figure)
    return figure


def _place(point: Point, by: str | None) -> Any:
    """Where a point stands on the axis."""
    value = point.settings.get(by) if by else point.name
    return math.inf if value is None else tuple(value) if isinstance(value, list) else value
