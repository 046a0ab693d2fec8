"""The arms of a comparison: what a model learns from before RL, and whether RL follows.

A recipe is a row of the table below; whoever asks what an arm needs (responses, rows, a training) reads it there.
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What fine-tuning learns from; `base` learns from nothing."""

    name: str
    responses: Literal["plain", "polya"] | None = None
    """How the base model is asked for the responses that rows are chosen from: without heuristics, or under them."""
    verdict: Literal["correct", "wrong"] = "correct"
    """The verdict of the responses that may become rows."""
    traces: bool = False
    """Whether the rows come from a file of somebody else's solutions."""

    @property
    def trained(self) -> bool:
        """Whether a model is fine-tuned."""
        return self.responses is not None or self.traces


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("base"),
        Recipe("star", responses="plain"),
        Recipe("polya", responses="polya"),
        Recipe("wrong", responses="polya", verdict="wrong"),
        Recipe("external", traces=True),
    )
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """A path through a run: a recipe, and RL after it or not."""

    recipe: Recipe
    rl: bool = False
    step: int | None = None
    """Of an arm's RL that is looked at on its way: the steps done. None is all of them."""

    @property
    def name(self) -> str:
        """As configurations and reports write it: `polya`, `polya+rl`; RL from the base model is `rl`, ten steps of it are `rl@10`."""
        if not self.rl:
            return self.recipe.name
        whole = f"{self.recipe.name}+rl" if self.recipe.trained else "rl"
        return whole if self.step is None else f"{whole}@{self.step}"

    @property
    def slug(self) -> str:
        """The name as a part of a directory's."""
        return self.name.replace("+", "-").replace("@", "-at-")

    @property
    def start(self) -> "Arm":
        """The arm that this one's RL begins at."""
        return Arm(self.recipe)


BASE = Arm(RECIPES["base"])

ARMS = {arm.name: arm for recipe in RECIPES.values() for arm in (Arm(recipe), Arm(recipe, rl=True))}
"""Every arm by its name, those of a recipe side by side."""
