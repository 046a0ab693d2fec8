"""The pictures of a run. Each function takes the results and returns a figure, or None where its data is absent.

An arm looks the same in every picture: colour says what the model was fine-tuned on, a solid line with filled marks says that
RL followed, a dashed line with hollow marks that it did not. The colours are Okabe and Ito's, which stay apart for colour-blind
readers; line style and marks keep arms apart in grey too. Figures are built without pyplot, so there is no display, no
global state, and the same results give the same bytes.
"""

import io
import math
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from jaxpolya.report.tables import heuristics, powers
from jaxpolya.results import Results

COLOURS = {"": "#3C3C3C", "star": "#E69F00", "polya": "#0072B2", "wrong": "#CC79A7", "external": "#009E73"}
"""By what an arm was fine-tuned on; "" is nothing (the arms `base` and `rl`)."""

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}
MARKED_STEPS = 40
"""RL curves of up to this many steps show each step as a mark; longer ones are a moving mean over their faint steps."""


def plots(results: Results) -> dict[str, bytes | None]:
    """File name → PNG, or None where the results hold nothing to draw."""
    drawn: dict[str, bytes | None] = {}
    for name, draw in {"pass_at_k.png": pass_at_k, "rl.png": rl_curves, "sources.png": sources}.items():
        with matplotlib.rc_context(STYLE):
            figure = draw(results)
            drawn[name] = png(figure) if figure else None
    return drawn


def pass_at_k(results: Results) -> Figure | None:
    """pass@k over k of every arm with its interval, a panel for each question set."""
    sets = results.sets
    if not sets:
        return None
    columns = min(3, len(sets))
    rows = math.ceil(len(sets) / columns)
    figure = Figure(figsize=(max(6.4, 4.2 * columns), 3.8 * rows + 0.4), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[len(sets) :]:
        spare.remove()
    for axes, (name, arms) in zip(panels, sets.items(), strict=False):
        ks = powers({k for evaluation in arms.values() for k in evaluation.ks})
        for arm, evaluation in arms.items():
            x = evaluation.ks
            curve = [evaluation.pass_[k] for k in x]
            low, mean, high = ([100 * share for share in shares] for shares in zip(*((p.low, p.mean, p.high) for p in curve), strict=True))
            line = arm_line(arm)
            axes.fill_between(x, low, high, color=line["color"], alpha=0.12, linewidth=0)
            for edge in (low, high):
                axes.plot(x, edge, color=line["color"], linestyle=line["linestyle"], linewidth=0.7, alpha=0.5)
            axes.plot(x, mean, label=arm, **line, markevery=[i for i, k in enumerate(x) if k in ks], clip_on=False)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(ks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, min(100.0, max(1.0, axes.get_ylim()[1])))
        axes.set_xlabel("k (responses per question)")
        axes.set_ylabel("pass@k (% of questions)")
        evaluation = next(iter(arms.values()))
        axes.set_title(f"{name} ({evaluation.questions:,} questions, {evaluation.samples} samples each)")
    legend(figure)
    return figure


def rl_curves(results: Results) -> Figure | None:
    """Reward and response length over the RL steps, a curve for each arm."""
    curves = results.curves
    if not curves:
        return None
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    labels = (("reward", "Mean reward of a response (0 to 1)"), ("length", "Mean response length (tokens)"))
    for axes, (key, label) in zip(panels, labels, strict=True):
        for arm, steps, first in ((arm, steps, not i) for arm, of_seeds in curves.items() for i, steps in enumerate(of_seeds)):
            values = [math.nan if (value := step.get(key)) is None else value for step in steps]
            x, line = [step.step for step in steps], arm_line(arm)
            if len(steps) > MARKED_STEPS:
                axes.plot(x, values, color=line["color"], linewidth=0.7, alpha=0.3)
                values, line["marker"] = _moving_mean(values, width=len(steps) // 20), ""
            axes.plot(x, values, label=arm if first else f"_{arm}", **line)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, 1.05 * max(axes.dataLim.y1, 0.01))
        axes.set_xlabel("RL step")
        axes.set_ylabel(label)
    legend(figure)
    return figure


def sources(results: Results) -> Figure | None:
    """Which heuristic the selected rows came from, beside the share of its responses that were correct."""
    keys = heuristics(results)
    if not keys:
        return None
    figure = Figure(figsize=(9.0, 1.5 + 0.3 * len(keys)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    starts = [0] * len(keys)
    for kind, entry in results.selection.items():
        rows = [entry.by_heuristic.get(key, 0) for key in keys]
        left.barh(range(len(keys)), rows, left=starts, color=COLOURS.get(kind, COLOURS[""]), label=kind)
        starts = [start + count for start, count in zip(starts, rows, strict=True)]
    left.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    left.set_xlabel("rows")
    left.set_title("Rows kept for fine-tuning")

    for y, key in enumerate(keys):
        if (made := results.generation.get(key)) and made.samples:
            share = 100 * made.correct / made.samples
            right.barh(y, share, color="#9A9A9A")
            text = f"{made.correct:,} of {made.samples:,}"
            right.annotate(text, (share, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    right.margins(x=0.22)
    right.set_xlim(0, max(1.0, right.get_xlim()[1]))
    right.set_xlabel("% of responses")
    right.set_title("Correct among those generated")

    for axes in (left, right):
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    left.set_yticks(range(len(keys)), keys)
    left.invert_yaxis()
    legend(figure)
    return figure


def arm_line(arm: str) -> dict[str, Any]:
    """How an arm's curve is drawn; arms of unknown data share the neutral colour."""
    trained = arm == "rl" or arm.endswith("+rl")
    colour = COLOURS.get(arm.removesuffix("rl").removesuffix("+"), COLOURS[""])
    return {
        "color": colour,
        "linestyle": "-" if trained else (0, (4, 2)),
        "marker": "o",
        "markerfacecolor": colour if trained else "white",
    }


def _moving_mean(values: list[float], width: int) -> list[float]:
    """The mean of the values up to `width` steps before and after each, gaps (NaN) left out."""
    windows = ([v for v in values[max(0, i - width) : i + width + 1] if not math.isnan(v)] for i in range(len(values)))
    return [sum(window) / len(window) if window else math.nan for window in windows]


def legend(figure: Figure) -> None:
    """One legend above all panels, each name once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*Axes.get_legend_handles_labels(axes), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=min(6, len(handles)))


def png(figure: Figure) -> bytes:
    """The picture as bytes that do not name the program's version."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150, metadata={"Software": None})
    return out.getvalue()
