"""The plots of the page, as Vega-Lite specifications: plain values, which the browser draws.

A chart is one view as wide as its place, so that it fits a phone. Its title, what it means and how sure it is stand beside it in HTML
(`Chart`), where they can be read, searched and enlarged. Names that users chose are data here, and never a part of an expression.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxpolya.evaluation.passk import Interval
from jaxpolya.report.html.style import Style
from jaxpolya.report.tables import powers

Spec = dict[str, Any]
Points = Sequence[tuple[int, float]]

POINTS = 120
"""Of a training's series, so many points are drawn at most, of several seeds together; each is the mean of the steps that it stands for."""

MARKS, SMOOTH = 8, 40
"""A line of up to `SMOOTH` steps has a mark at each; a longer one has `MARKS` marks, and is a moving mean over its faint single steps."""

INK, MUTED, FAINT = "#1c1c1c", "#5a5a5a", "#e4e4e4"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

CONFIG: Spec = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        **{"labelColor": MUTED, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
        **{"gridColor": FAINT, "domainColor": "#999", "tickColor": "#999", "labelLimit": 150},
    },
    # A unit stands flat above its axis, where it takes no width from the plot.
    "axisY": {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleBaseline": "bottom", "titleX": 0, "titleY": -8},
    "legend": {"labelColor": MUTED, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
}

SHARES: Spec = {"domain": [0, 1], "range": ["#f4f4f2", "#c5d9e8", "#7fb0d3", "#2f7fb8", "#08306b"], "interpolate": "lab"}
"""From never to always solved; its lightness falls all the way, so it reads in grey."""


TOOLTIP = 120
"""Characters of a question in a plot's tooltip."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """A plot with its words."""

    key: str
    """Names the place in the page."""
    title: str
    words: str
    """What is shown, and what an interval is."""
    spec: Spec
    described: str = ""
    """For who can't see it; the title where nothing is said."""


def forest(key: str, title: str, differences: Mapping[str, Interval], domain: Sequence[float], looks: Mapping[str, Style]) -> Chart:
    """Differences with their intervals, a row for each name.

    Args:
      key: names the place in the page.
      title: of the measure.
      differences: name → {mean, low, high}, shares of 1.
      domain: of the axis, in points, the same for all measures that are compared.
      looks: of the names.
    """
    rows = []
    for name, entry in differences.items():
        mean, low, high = (100 * part for part in (entry.mean, entry.low, entry.high))
        clear = low > 0 or high < 0
        says = f"{signed(mean)} points ({signed(low)} to {signed(high)})"
        rows.append({"name": name, "mean": mean, "low": low, "high": high, "clear": clear, "label": signed(mean), "says": says})
    colour = {"field": "name", "type": "nominal", "legend": None, "scale": _scale(looks, "colour")}
    y: Spec = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"grid": False, "ticks": False, "domain": False, "labelPadding": 8},
    }
    x: Spec = {
        "field": "mean",
        "type": "quantitative",
        "scale": {"domain": list(domain), "nice": False},
        "title": "points",
        "axis": {"tickCount": 5},
    }
    tooltip = [{"field": "name", "title": "arm"}, {"field": "says", "title": title}]
    spec = _spec(
        rows,
        44 * len(rows),
        layer=[
            {"mark": {"type": "rule", "color": "#777", "strokeWidth": 1}, "encoding": {"x": {"datum": 0, "type": "quantitative"}}},
            {
                "mark": {"type": "rule", "strokeWidth": 2.5},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": colour, "tooltip": tooltip},
            },
            {
                "mark": {"type": "point", "size": 90, "strokeWidth": 2, "opacity": 1},
                "encoding": {
                    **{"x": x, "y": y, "color": colour, "tooltip": tooltip},
                    "shape": {"field": "name", "legend": None, "scale": _scale(looks, "shape")},
                    # Filled where the interval leaves out 0.
                    "fill": {"condition": {"test": {"field": "clear", "equal": True}, **colour}, "value": "white"},
                },
            },
            {"mark": {"type": "text", "dy": -13, "fontSize": 12, "color": INK}, "encoding": {"x": x, "y": y, "text": {"field": "label"}}},
        ],
    )
    described = f"{title}, difference from base: " + "; ".join(f"{row['name']} {row['says']}" for row in rows)
    return Chart(key=key, title=title, words="", spec=spec, described=described)


def forest_domain(intervals: Iterable[Interval]) -> list[float]:
    """The smallest range in points that holds 0 and all intervals, with some room for labels."""
    ends = [100 * end for entry in intervals for end in (entry.low, entry.high)]
    low, high = min([*ends, 0.0]), max([*ends, 0.0])
    room = max(0.06 * (high - low), 1.0)
    return [low - room, high + room]


def pass_at_k(key: str, title: str, curves: Mapping[str, Mapping[int, Interval]], looks: Mapping[str, Style], words: str) -> Chart:
    """pass@k over k, a line with its band for each name: name → k as text → {mean, low, high}."""
    rows: list[dict[str, Any]] = []
    for name, entry in curves.items():
        marked = powers(map(int, entry))
        for k in sorted(map(int, entry)):
            mean, low, high = (100 * part for part in (entry[k].mean, entry[k].low, entry[k].high))
            rows.append(
                {
                    "name": name,
                    "k": k,
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "mark": k in marked,
                    "says": f"{mean:.1f} % ({low:.1f} to {high:.1f})",
                }
            )
    ks = powers({row["k"] for row in rows})
    x: Spec = {
        **{"field": "k", "type": "quantitative", "title": "k, responses a question", "scale": {"type": "log", "base": 2, "nice": False}},
        "axis": {"values": ks, "grid": False, "format": "d"},
    }
    y: Spec = {"field": "mean", "type": "quantitative", "title": "% of questions", "scale": {"zero": True}, "axis": {"tickCount": 6}}
    layers = [
        {
            "mark": {"type": "area", "opacity": 0.09, "line": False},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, **_coloured(looks)},
        }
    ]
    layers += _lines(x, y, looks, [{"field": "name", "title": "arm"}, {"field": "k"}, {"field": "says", "title": "pass@k"}])
    return Chart(key=key, title=title, words=words, spec=_spec(rows, 300, layer=layers))


def curves(
    key: str, title: str, words: str, unit: str, series: Mapping[str, Sequence[Points]], looks: Mapping[str, Style], *, height: int = 190
) -> Chart:
    """A number over the steps of a training: name → one series for each seed.

    Several seeds are faint lines, and their mean over those that have come so far is the line that counts. A single long one is shown as
    a moving mean over its faint steps.
    """
    rows, faint = [], []
    for name, seeds in series.items():
        if not (begun := [points for points in seeds if points]):
            continue
        line = thin(begun[0]) if len(begun) == 1 else thin(_mean(begun))
        if len(begun) > 1:
            several = enumerate(thin(points, POINTS // len(begun)) for points in begun)
            faint += [{"name": name, "seed": i, "step": step, "mean": rounded(value)} for i, points in several for step, value in points]
        elif len(line) > SMOOTH:
            faint += [{"name": name, "step": step, "mean": rounded(value)} for step, value in line]
            line = _moving_mean(line, len(line) // 20)
        every = 1 if len(line) <= SMOOTH else len(line) // MARKS
        for i, (step, value) in enumerate(line):
            marked = {"mark": True, "says": readable(value)} if i % every == every // 2 else {}
            rows.append({"name": name, "step": step, "mean": rounded(value), **marked})
    x: Spec = {
        "field": "step",
        "type": "quantitative",
        "title": "step",
        "axis": {"grid": False, "tickMinStep": 1, "format": "d", "tickCount": 6},
        "scale": {"nice": False},
    }
    y: Spec = {
        "field": "mean",
        "type": "quantitative",
        "title": unit,
        "scale": _number_scale(rows),
        "axis": {"tickCount": 5, **_tiny(rows)},
    }
    layers = []
    if faint:
        single = {"x": x, "y": y, **_coloured(looks), "detail": {"field": "seed"}}
        layers.append({"data": {"values": faint}, "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.35}, "encoding": single})
    layers += _lines(x, y, looks, [{"field": "name", "title": "arm"}, {"field": "step"}, {"field": "says", "title": title}])
    return Chart(key=key, title=title, words=words, spec=_spec(rows, height, layer=layers))


def before_after(
    key: str, title: str, words: str, unit: str, pairs: Mapping[str, tuple[float, float]], looks: Mapping[str, Style]
) -> Chart:
    """Two values for each name, joined by a line."""
    rows = [
        {"name": name, "when": when, "mean": value, "mark": True, "says": readable(value)}
        for name, pair in pairs.items()
        for when, value in zip(("before", "after"), pair, strict=True)
    ]
    x: Spec = {
        **{"field": "when", "type": "ordinal", "sort": ["before", "after"], "title": None},
        **{"axis": {"labelAngle": 0, "grid": False}, "scale": {"type": "point", "padding": 0.4}},
    }
    y: Spec = {"field": "mean", "type": "quantitative", "title": unit, "scale": _number_scale(rows), "axis": {"tickCount": 5}}
    layers = _lines(x, y, looks, [{"field": "name", "title": "arm"}, {"field": "when"}, {"field": "says", "title": title}])
    return Chart(key=key, title=title, words=words, spec=_spec(rows, 190, layer=layers))


def intervals(key: str, title: str, words: str, unit: str, entries: Mapping[str, Interval], looks: Mapping[str, Style]) -> Chart:
    """A number with its interval for each name: name → {mean, low, high}."""
    rows = [
        {"name": name, "mean": entry.mean, "low": entry.low, "high": entry.high, "label": readable(entry.mean),
         "says": f"{readable(entry.mean)} ({readable(entry.low)} to {readable(entry.high)})"}
        for name, entry in entries.items()
    ]  # fmt: skip
    y: Spec = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"grid": False, "ticks": False, "domain": False, "labelPadding": 8},
    }
    x: Spec = {"field": "mean", "type": "quantitative", "title": unit, "scale": _number_scale(rows), "axis": {"tickCount": 5}}
    tooltip = [{"field": "name", "title": "arm"}, {"field": "says", "title": title}]
    spec = _spec(
        rows,
        40 * len(rows),
        layer=[
            {
                "mark": {"type": "rule", "strokeWidth": 2.5},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, **_coloured(looks), "tooltip": tooltip},
            },
            {
                "mark": {"type": "point", "size": 80, "strokeWidth": 2, "opacity": 1},
                "encoding": {"x": x, "y": y, **_marked(looks), "tooltip": tooltip},
            },
            {"mark": {"type": "text", "dy": -13, "fontSize": 12, "color": INK}, "encoding": {"x": x, "y": y, "text": {"field": "label"}}},
        ],
    )
    return Chart(key=key, title=title, words=words, spec=spec)


def along(
    key: str, title: str, words: str, axis: str, unit: str, series: Mapping[str, Mapping[float, Interval]], looks: Mapping[str, Style]
) -> Chart:
    """A value with its interval along a number, such as steps of RL or a setting: name → number → interval."""
    rows: list[dict[str, Any]] = []
    for name, values in series.items():
        for value, entry in sorted(values.items()):
            says = f"{entry.mean:.3g} ({entry.low:.3g} to {entry.high:.3g})"
            rows.append({"name": name, "step": value, "mean": entry.mean, "low": entry.low, "high": entry.high, "mark": True, "says": says})
    places = sorted({row["step"] for row in rows})
    wide = len(places) > 1 and places[0] > 0 and places[-1] >= 8 * places[0]
    ticks = {"values": places} if len(places) <= 8 else {"tickCount": 6}
    x: Spec = {
        **{"field": "step", "type": "quantitative", "title": axis, "axis": {"grid": False, "format": "~g", **ticks}},
        "scale": {"type": "log", "base": 2, "nice": False} if wide else {"zero": False, "nice": False},
    }
    y: Spec = {"field": "mean", "type": "quantitative", "title": unit, "scale": _number_scale(rows), "axis": {"tickCount": 5}}
    bar = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, **_coloured(looks)}
    layers: list[Spec] = [{"mark": {"type": "rule", "opacity": 0.5}, "encoding": bar}]
    layers += _lines(x, y, looks, [{"field": "name", "title": "arm"}, {"field": "step", "title": axis}, {"field": "says", "title": title}])
    return Chart(key=key, title=title, words=words, spec=_spec(rows, 220, layer=layers))


def in_percent(share: Interval) -> Interval:
    """A share as plots show it."""
    return Interval(100 * share.mean, 100 * share.low, 100 * share.high)


def matrix(
    key: str, title: str, words: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], questions: Sequence[str], legend: str
) -> Chart:
    """How often each question (a column) was solved under each name (a row).

    Args:
      key, title, words: as in `Chart`.
      rows: `{name, x, share, says, kept?}`, x the question's place; `kept` is a dot in the cell. A cell that isn't there stays empty.
      names: rows from above.
      questions: of the columns, for tooltips.
      legend: what a cell's colour says.
    """
    cells: Spec = {"data": {"values": list(rows)}, "transform": [_looked_up(questions)]}
    few = len(questions) < 80
    x: Spec = {
        **{"field": "x", "type": "ordinal", "title": f"{len(questions):,} questions"},
        "axis": {"labels": False, "ticks": False, "domain": False},
        "scale": {"domain": list(range(len(questions))), "paddingInner": 0.08 if few else 0},
    }
    y: Spec = {
        **{"field": "name", "type": "nominal", "sort": list(names), "title": None, "axis": {"ticks": False, "domain": False}},
        "scale": {"domain": list(names), "paddingInner": 0.08},
    }
    gradient = {"orient": "top", "direction": "horizontal", "gradientLength": 120, "gradientThickness": 10}
    colour: Spec = {
        **{"field": "share", "type": "quantitative", "scale": SHARES},
        "legend": {"title": legend, "format": ".0%", "tickCount": 3, **gradient},
    }
    tooltip = [{"field": "name", "title": "by"}, {"field": "question"}, {"field": "says", "title": "solved"}]
    edge = {"stroke": "#d5d5d5", "strokeWidth": 0.5} if few else {}
    layers: list[Spec] = [
        {"mark": {"type": "rect", **edge}, "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip}},
    ]
    if any(row.get("kept") for row in rows):
        dot: Spec = {"type": "point", "filled": True, "size": 26 if few else 8, "opacity": 1}
        paint: Spec = {"color": "#E69F00", "stroke": "black", "strokeWidth": 0.7 if few else 0.3}
        layers.append(
            {
                "transform": [{"filter": {"field": "kept", "gt": 0}}],
                "mark": {**dot, **paint},
                "encoding": {"x": x, "y": y, "tooltip": tooltip},
            }
        )
    return Chart(key=key, title=title, words=words, spec=_spec(rows, 22 * len(names), layer=layers) | cells)


def _looked_up(questions: Sequence[str]) -> Spec:
    """Puts the beginning of its question into each cell, which stands in the page once a column."""
    begun = [{"x": x, "question": question[:TOOLTIP]} for x, question in enumerate(questions)]
    return {"lookup": "x", "from": {"data": {"values": begun}, "key": "x", "fields": ["question"]}}


# Parts -------------------------------------------------------------------------------------------------------------------


def _spec(rows: Sequence[Any], height: float, **parts: Any) -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        **{"width": "container", "height": height, "autosize": {"type": "fit-x", "contains": "padding"}},
        **{"data": {"values": list(rows)}, "config": CONFIG, **parts},
    }


def _scale(looks: Mapping[str, Style], part: str) -> Spec:
    return {"domain": list(looks), "range": [getattr(look, part) for look in looks.values()]}


def _coloured(looks: Mapping[str, Style]) -> Spec:
    return {"color": {"field": "name", "type": "nominal", "legend": None, "scale": _scale(looks, "colour")}}


def _marked(looks: Mapping[str, Style]) -> Spec:
    """Colour and mark of a name, filled or hollow."""
    fills = {"domain": list(looks), "range": [look.colour if look.filled else "white" for look in looks.values()]}
    shape = {"field": "name", "type": "nominal", "legend": None, "scale": _scale(looks, "shape")}
    return {**_coloured(looks), "shape": shape, "fill": {"field": "name", "type": "nominal", "legend": None, "scale": fills}}


def _lines(x: Spec, y: Spec, looks: Mapping[str, Style], tooltip: list[Spec]) -> list[Spec]:
    """Lines with the dashes of their names, and marks where `mark` says so."""
    dash = {"field": "name", "type": "nominal", "legend": None, "scale": _scale(looks, "dash")}
    mark: Spec = {"type": "point", "size": 45, "strokeWidth": 1.5, "opacity": 1}
    return [
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"x": x, "y": y, **_coloured(looks), "strokeDash": dash}},
        {
            "transform": [{"filter": {"field": "mark", "equal": True}}],
            "mark": mark,
            "encoding": {"x": x, "y": y, **_marked(looks), "tooltip": tooltip},
        },
    ]


def thin(points: Points, most: int = POINTS) -> list[tuple[int, float]]:
    """At most so many points: means over steps beside each other, at the last of them."""
    width = math.ceil(len(points) / most)
    pieces = (points[i : i + width] for i in range(0, len(points), width)) if width else ()
    return [(piece[-1][0], sum(value for _, value in piece) / len(piece)) for piece in pieces]


def _mean(series: Sequence[Points]) -> list[tuple[int, float]]:
    """The mean of several series at every step that one of them has."""
    values: dict[int, list[float]] = {}
    for points in series:
        for step, value in points:
            values.setdefault(step, []).append(value)
    return [(step, sum(heights) / len(heights)) for step, heights in sorted(values.items())]


def _moving_mean(points: Points, width: int) -> list[tuple[int, float]]:
    """The mean over up to `width` points before and after each."""
    windows = ((step, points[max(0, i - width) : i + width + 1]) for i, (step, _) in enumerate(points))
    return [(step, sum(value for _, value in window) / len(window)) for step, window in windows]


def _number_scale(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """An axis that begins at 0 where that doesn't press the values together, and has a length where all values are 0."""
    values = [row[part] for row in rows for part in ("low", "mean", "high") if part in row]
    if not any(values):
        return {"domain": [0, 1]}
    return {"zero": min(values) < 0 or max(values) - min(values) > 0.25 * max(values)}


def _tiny(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Numbers that are all close to 0 are written with their power of ten."""
    return {"format": ".1~e"} if 0 < max((abs(row["mean"]) for row in rows), default=0) < 1e-3 else {}


def rounded(value: float) -> float:
    """What a plot can show of a number."""
    return float(f"{value:.4g}")


def signed(value: float) -> str:
    """A number of points with its sign, and a true minus."""
    return f"{value:+.1f}".replace("-", "−")


def readable(value: float) -> str:
    """Three digits that count, and a true minus."""
    return f"{value:.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:,.0f}".replace("-", "−")


def history(looks: Mapping[str, Style]) -> Spec:
    """The plot of one question over the steps of RL; the browser puts in the values, `{name, step, mean, mark, says}`."""
    x: Spec = {
        "field": "step",
        "type": "quantitative",
        "title": "step",
        "axis": {"grid": False, "tickMinStep": 1, "format": "d", "tickCount": 6},
    }
    y: Spec = {
        "field": "mean",
        "type": "quantitative",
        "title": "right",
        "scale": {"domain": [0, 1]},
        "axis": {"tickCount": 3, "format": ".0%"},
    }
    return _spec(
        [], 110, layer=_lines(x, y, looks, [{"field": "name", "title": "arm"}, {"field": "step"}, {"field": "says", "title": "right"}])
    )
