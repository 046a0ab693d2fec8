"""Which phases a run has, and which stages: all follow from its configuration.

Imports no jax: whoever shows a run can know its plan.
"""

from jaxpolya.config import RunConfig
from jaxpolya.keys import Key

PHASES = ("questions", "generate", "select", "sft", "rl", "eval", "report")


def planned(config: RunConfig) -> list[Key]:
    """The stages of a run, in their order."""
    recipes, sets = config.recipes, list(config.eval.questions)
    learned = ["train"] * bool(recipes) + ["rl"] * bool(config.reinforced)
    keys = [Key("questions", use) for use in learned] + [Key("questions", "eval", name) for name in sets]
    keys += [Key("questions", "validation", use) for use in config.validated]
    keys += [Key("contamination", use) for use in learned]  # those to learn from are compared with the others
    keys += [Key("traces")] * any(recipe.traces for recipe in recipes)
    keys += [Key("generate", asked) for asked in ("plain", "polya") if asked in {recipe.responses for recipe in recipes}]
    keys += [Key("select")] * bool(recipes)
    keys += [Key("sft", recipe.name) for recipe in recipes]
    keys += [Key("rl", arm.slug) for arm in config.reinforced]
    for arm in [*config.compared, *config.doses]:
        for name in sets:
            keys += [Key("eval", arm.slug, name)] + [Key("greedy", arm.slug, name)] * config.eval.greedy
    if config.eval.composition != "none":
        keys += [Key("labels", arm.slug, name) for arm in [*config.compared, *config.doses] for name in sets]
    return keys


def absent_phases(config: RunConfig) -> list[str]:
    """The phases in which the run's arms have nothing to do."""
    recipes = config.recipes
    needed = {"generate": [recipe for recipe in recipes if recipe.responses], "select": recipes, "sft": recipes, "rl": config.reinforced}
    return [phase for phase, work in needed.items() if not work]
