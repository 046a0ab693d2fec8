"""reasoning-gym's own scorers.

An entry knows its generator (`metadata.source_dataset`), and the generator knows what is right: an answer is correct where it scores
1. Some scorers pay for answers that are not right; `gym_rules` says which, and judges in their place. Some evaluate the
answer as Python, or hand it to sympy's parser, which does: model text reaches those only if it is a literal or plain arithmetic, without
names that could be called and without powers that could not be computed.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

from jaxpolya.verify.gym_rules import FORMS, REFUSED, RULES
from jaxpolya.verify.mathematics.expression import Unreadable, evaluate, names, points, read
from jaxpolya.verify.mathematics.latex import undelimited

_LITERALS = frozenset({"string_insertion", "spiral_matrix", "binary_matrix", "n_queens"})
"""Generators whose scorers call `eval` on the answer."""
_FORMULAS = frozenset({"simple_integration", "intermediate_integration"})
"""Generators whose scorers call sympy's `parse_expr` on the answer."""
_LITERAL = re.compile(r"[\w\s,.'\"\[\]#-]*", re.ASCII)
_FORMULA = re.compile(
    r"(?:[\s\d+\-*/^(),]|\.(?=\d)|(?<=\d)\.|(?<![A-Za-z])(?:[A-Za-z]|sin|cos|tan|exp|log|ln|sqrt|pi|asin|acos|atan|sinh|cosh|tanh)(?![A-Za-z]))*"
)


class BrokenEntry(Exception):
    """An entry that can't be scored, whatever the answer."""


def refused(dataset: str) -> str | None:
    """Why no answer to a generator's questions can be judged, or None."""
    return f"the answers of reasoning_gym's {dataset} can't be judged: {REFUSED[dataset]}" if dataset in REFUSED else None


def correct(answer: str, entry: dict[str, Any]) -> bool:
    """Whether the answer gets full marks by the entry's own scorer, or is right by the rule that stands in its place.

    An answer that must not be evaluated is not correct. Raises `TooLarge` for one that would cost too much, and `BrokenEntry`.
    """
    try:
        dataset = entry["metadata"]["source_dataset"]
        score = scorer(dataset)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenEntry(f"not an entry of reasoning-gym: {error!r}") from None
    if reason := refused(dataset):
        raise BrokenEntry(reason)
    answer = undelimited(answer)
    if rule := RULES.get(dataset):
        try:
            return rule(answer, entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BrokenEntry(f"the entry of {dataset} lacks what its answers are judged by ({error!r})") from error
    if (form := FORMS.get(dataset)) and not form.fullmatch(answer):
        return False
    if dataset in _LITERALS and not _LITERAL.fullmatch(answer):
        return False
    if dataset in _FORMULAS and not _plain_formula(answer):
        return False
    try:
        return score(answer, entry) >= 1.0 - 1e-9
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        try:
            score(entry["answer"], entry)
        except Exception:
            raise BrokenEntry(f"the scorer of {dataset} can't read this entry ({error!r})") from error
        return False


@functools.cache
def scorer(dataset: str) -> Callable[[str, dict[str, Any]], float]:
    """The scorer of a generator. Raises `ValueError` for an unknown one."""
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(dataset)


def _plain_formula(answer: str) -> bool:
    """Whether a formula has no names that could be called, and no powers that could not be computed. Raises `TooLarge`."""
    if len(answer) > 1000 or not _FORMULA.fullmatch(answer):
        return False
    try:
        tree = read(answer)
        evaluate(tree, points(names(tree), signed=False)[0])
    except Unreadable:
        return "**" not in answer and "^" not in answer
    return True
