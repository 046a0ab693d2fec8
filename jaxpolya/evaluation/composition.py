"""How often one solution uses several heuristics.

The composition rate is the share of the correct solutions that use two heuristics or more: what a model that has learned several
approaches may do with them, and the paper (arXiv 2605.08472) sees rise after RL. Only correct solutions count, for noise holds
every phrase. It is taken per question, then averaged over the questions that were solved, with `passk`'s bootstrap interval.

A judge says which heuristics a solution uses (`judges`). It errs, so its name and its agreement with a labelled set stand beside the rate,
and the rate as it would be without the errors (`judge_quality`). This module doesn't import jax.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxpolya.evaluation.diversity import Labels
from jaxpolya.evaluation.judge_quality import JudgeQuality, as_facts, corrected_rate
from jaxpolya.evaluation.judges import SEVERAL
from jaxpolya.evaluation.passk import bootstrap
from jaxpolya.records import Sample


def summarise_composition(
    samples: Sequence[Sample], labels: Labels, *, judge: str, quality: JudgeQuality | None = None, resamples: int, seed: int
) -> dict[str, Any] | None:
    """How often the correct solutions of one model to one question set use several heuristics; None where none is correct.

    Args:
      samples: of which those that are correct and have labels count.
      labels: what a judge said, sample id → keys.
      judge: its name.
      quality: how well it agrees with the labelled set; None where that wasn't measured.
      resamples, seed: of the bootstrap over questions.

    Returns:
      {judge, quality, questions, solutions, rate (`passk.Interval`), corrected (the rate without the judge's errors; None where the judge
      can't tell enough, or wasn't measured), by_heuristic: {key: share of the solutions that use it}}.
    """
    by_question: dict[str, list[bool]] = defaultdict(list)
    uses: Counter[str] = Counter()
    for sample in samples:
        if sample.verdict == "correct" and sample.id in labels:
            by_question[sample.question_id].append(len(labels[sample.id]) >= SEVERAL)
            uses.update(labels[sample.id])
    if not by_question:
        return None
    solutions = sum(map(len, by_question.values()))
    rates = np.array([np.mean(composed) for _, composed in sorted(by_question.items())])
    return {
        "judge": judge,
        "quality": quality and as_facts(quality),
        "questions": len(by_question),
        "solutions": solutions,
        **bootstrap({"rate": rates}, resamples, seed),
        "corrected": quality and corrected_rate(rates, quality, seed=seed),
        "by_heuristic": {key: count / solutions for key, count in sorted(uses.items(), key=lambda item: (-item[1], item[0]))},
    }
