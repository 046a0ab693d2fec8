"""How an arm looks, the same in every plot, legend and table: by its colour, its mark, and whether its line is whole.

Colour and mark say what the model was fine-tuned on, a solid line and a filled mark that RL followed, a dashed line and a hollow mark that
it did not. The colours are Okabe and Ito's, which colour-blind readers tell apart; marks and dashes keep arms apart in grey.
"""

import dataclasses
from collections.abc import Sequence

from jaxpolya.report.plots import COLOURS

SHAPES = {"": "circle", "star": "square", "polya": "triangle-up", "wrong": "diamond", "external": "cross"}

OTHERS = (
    ("#0072B2", "triangle-up"), ("#E69F00", "square"), ("#009E73", "cross"), ("#CC79A7", "diamond"),
    ("#3C3C3C", "circle"), ("#56B4E9", "triangle-down"), ("#D55E00", "triangle-right"), ("#8C6D1F", "triangle-left"),
)  # fmt: skip
"""Of what is no arm, such as the runs of a comparison."""

SOLID, DASHED, DOTTED = [1.0, 0.0], [5.0, 3.0], [1.5, 2.5]


@dataclasses.dataclass(frozen=True)
class Style:
    """Colour, mark and line of one name."""

    colour: str
    shape: str
    dash: Sequence[float]
    filled: bool


def arm_style(arm: str) -> Style:
    """The style of an arm of a run."""
    recipe, reinforced = arm.removesuffix("rl").removesuffix("+"), arm == "rl" or arm.endswith("+rl")
    recipe = "" if recipe == "base" else recipe
    return Style(COLOURS.get(recipe, COLOURS[""]), SHAPES.get(recipe, SHAPES[""]), SOLID if reinforced else DASHED, reinforced)


def styles(names: Sequence[str], *, arms: bool = True) -> dict[str, Style]:
    """Name → style; names that are no arms are told apart by their place."""
    if arms:
        return {name: arm_style(name) for name in names}
    lines = (SOLID, DASHED, DOTTED)
    return {name: Style(*OTHERS[i % len(OTHERS)], lines[i // len(OTHERS) % 3], i < len(OTHERS)) for i, name in enumerate(names)}
