"""reasoning-gym's own scorers.

An entry knows its generator (`metadata.source_dataset`), and the generator knows what is right: an answer is correct where it scores
1. Some scorers evaluate the answer as Python, or hand it to sympy's parser, which does: model text reaches those only if it
is a literal or plain arithmetic, without names that could be called and without powers that could not be computed.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

from jaxpolya.verify.expression import Unreadable, evaluate, names, points, read
from jaxpolya.verify.latex import undelimited

_LITERALS = frozenset({"string_insertion", "spiral_matrix", "binary_matrix", "n_queens"})
"""Generators whose scorers call `eval` on the answer."""
_FORMULAS = frozenset({"simple_integration", "intermediate_integration", "polynomial_multiplication", "puzzle24", "countdown"})
"""Generators whose scorers call sympy's `parse_expr` on the answer."""
_LITERAL = re.compile(r"[\w\s,.'\"\[\]#-]*", re.ASCII)
_FORMULA = re.compile(
    r"(?:[\s\d+\-*/^(),]|\.(?=\d)|(?<=\d)\.|(?<![A-Za-z])(?:[A-Za-z]|sin|cos|tan|exp|log|ln|sqrt|pi|asin|acos|atan|sinh|cosh|tanh)(?![A-Za-z]))*"
)


class BrokenEntry(Exception):
    """An entry that reasoning-gym can't score, whatever the answer."""


def correct(answer: str, entry: dict[str, Any]) -> bool:
    """Whether the entry's own scorer gives the answer full marks.

    An answer that must not be evaluated is not correct. Raises `TooLarge` for one that would cost too much, and `BrokenEntry`.
    """
    try:
        dataset = entry["metadata"]["source_dataset"]
        score = scorer(dataset)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenEntry(f"not an entry of reasoning-gym: {error!r}") from None
    answer = undelimited(answer)
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
