"""A judge that looks for what a solution does, not for what it calls it.

Each heuristic of the built-in catalogue has a rule. A rule asks for the traces that the heuristic's act leaves in a text
(docs/composition.md says when an act counts as carried out): a step undone by the operation that checks it, a chain of "before that" with
numbers, parallel trials with a verdict on each, units multiplied by units, names on the left of lines, a hypothesis that ends in a clash.
Where an act leaves no such trace, the rule asks for words that say what is done *together with* something that was done: a comparison
with a situation whose nouns the problem doesn't have; a drawing verb and places in the drawing. What is in numbers and letters is
found by `structure`; what is in words, by the patterns that each family of acts has beside its rules.

What is part of one act is no second one, so some rules ask others: a row of cases is a pattern and not so many special values, units that
cancel are no bright idea, a letter that gets one of the problem's numbers is no unknown.

The rules were written with the development half of the labelled set at hand, and are measured on the other half
(`benchmarks/composition.py`). A rule is no understanding: it sees the ways of doing and telling a thing that its author thought of, in
English. Where a text does a thing in a way that nobody thought of, nothing is found: rules miss more than they invent.
"""

from collections.abc import Callable

from jaxpolya.evaluation.acts.cases import generalisation, guess_and_check, pattern, specialisation
from jaxpolya.evaluation.acts.detours import analogy, related_problem, variation
from jaxpolya.evaluation.acts.insights import auxiliary_element, bright_idea, restate
from jaxpolya.evaluation.acts.order import decomposition, four_phases, step_by_step, working_backward
from jaxpolya.evaluation.acts.signs import contradiction, figure, introduce_notation, setting_up_equations, symmetry, test_by_dimension
from jaxpolya.evaluation.reading import Reading

Rule = Callable[[Reading], bool]

RULES: dict[str, Rule] = {
    "four_phases": four_phases,
    "step_by_step": step_by_step,
    "working_backward": working_backward,
    "decomposition": decomposition,
    "analogy": analogy,
    "auxiliary_element": auxiliary_element,
    "bright_idea": bright_idea,
    "specialisation": specialisation,
    "generalisation": generalisation,
    "guess_and_check": guess_and_check,
    "pattern": pattern,
    "figure": figure,
    "symmetry": symmetry,
    "introduce_notation": introduce_notation,
    "setting_up_equations": setting_up_equations,
    "contradiction": contradiction,
    "variation": variation,
    "restate": restate,
    "test_by_dimension": test_by_dimension,
    "related_problem": related_problem,
}
"""Heuristic of the built-in catalogue → its rule."""
