"""compare.html: several configurations on one page, what differs between them first."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.evaluation.passk import Interval
from jaxpolya.files import write_whole
from jaxpolya.report.comparison import Point, Points, comparison_tables, settings_table
from jaxpolya.report.html import charts
from jaxpolya.report.html.charts import Chart
from jaxpolya.report.html.document import fill
from jaxpolya.report.html.style import Style, arm_style, styles

SECTIONS = {"conclusion": "What differs", "results": "Results", "run": "Settings"}


def write_compare_page(path: Path, points: Points) -> Path:
    """Writes the page of a comparison."""
    write_whole(path, compare_page(points))
    return path


def compare_page(points: Points) -> str:
    """The page of a comparison, as text."""
    looks = styles(list(dict.fromkeys(point.arm for point in points.points)))
    sets = [
        {
            "name": name,
            "first": _forests(f"first-{name}", of_set, lambda point: point.versus_first),
            "base": _forests(f"base-{name}", of_set, lambda point: point.evaluation.versus_base),
            "along": _along(name, of_set, points.by, looks),
            "table": table,
        }
        for (name, of_set), table in zip(points.sets.items(), comparison_tables(points), strict=True)
    ]
    settings = settings_table(points)
    differing = ", ".join(points.keys)
    return fill(
        "compare.html.jinja",
        title="Comparison",
        sections=[{"key": key, "short": short} for key, short in SECTIONS.items() if key != "run" or settings.rows],
        lead=f"{len(points.points)} points. " + (f"They differ in {differing}." if differing else "They differ in no setting."),
        looks=looks,
        sets=sets,
        settings=settings,
        data={"arms": list(looks), "charts": {chart.key: chart.spec for one in sets for chart in _charts_of(one)}, "sets": []},
    )


def _charts_of(one: Mapping[str, Any]) -> list[Chart]:
    return [*one["first"], *one["base"], *one["along"]]


def _forests(key: str, points: Sequence[Point], differences: Callable[[Point], Mapping[str, Interval] | None]) -> list[Chart]:
    """Differences at pass@1, a plot for each arm that has any, all on one axis."""
    by_arm: dict[str, dict[str, Interval]] = {}
    for point in points:
        if entry := (differences(point) or {}).get("1"):
            by_arm.setdefault(point.arm, {})[_name(point)] = entry
    domain = charts.forest_domain(entry for entries in by_arm.values() for entry in entries.values())
    return [
        charts.forest(f"{key}-{arm}", arm, entries, domain, {name: arm_style(arm) for name in entries}) for arm, entries in by_arm.items()
    ]


def _along(name: str, points: Sequence[Point], by: str | None, looks: Mapping[str, Style]) -> list[Chart]:
    """pass@1 and pass@k, the largest k: along the setting where its values are numbers, else each point by itself."""
    drawn = []
    for k in dict.fromkeys((1, max(point.evaluation.ks[-1] for point in points))):
        title = f"{name}: pass@{k}"
        measured = [(point, entry) for point in points if (entry := point.evaluation.pass_.get(k))]
        values = [point.settings.get(by) if by else None for point, _ in measured]
        if by and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values if value is not None):
            lines: dict[str, dict[float, Interval]] = {}
            for (point, entry), value in zip(measured, values, strict=True):
                if value is not None:
                    lines.setdefault(point.arm, {})[value] = charts.in_percent(entry)
            drawn.append(charts.along(f"along-{name}-{k}", title, "Bars are 95 % intervals.", by, "% of questions", lines, looks))
        else:
            for arm in dict.fromkeys(point.arm for point, _ in measured):
                entries = {_name(point): charts.in_percent(entry) for point, entry in measured if point.arm == arm}
                look = {one: arm_style(arm) for one in entries}
                drawn.append(charts.intervals(f"along-{name}-{k}-{arm}", f"{title}, {arm}", "Bars are 95 % intervals.", "%", entries, look))
    return drawn


def _name(point: Point) -> str:
    return ", ".join(point.name.splitlines())
