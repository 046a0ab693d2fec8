"""How well a judge of heuristics agrees with a labelled set, and what its errors do to a composition rate.

The labelled set (`labelled_solutions.jsonl`, docs/composition.md) is solutions with the heuristics that two labellings and their
adjudication found. A judge labels its held-out half, and three things are measured: kappa (Cohen 1960) over all pairs of solution and
heuristic; kappa of the one decision that a composition rate counts, whether a solution uses several; and that decision's sensitivity and
specificity.

A rate that is observed through a judge is se · π + (1 − sp)(1 − π), where π is the true one. Rogan and Gladen (1978, American Journal of
Epidemiology 107:71–76) solve this for π. The interval takes in the uncertainty of all three (as Lang and Reiczigel 2014, Preventive
Veterinary Medicine 113:13–22, find necessary): the rate is drawn from the bootstrap over questions, sensitivity and specificity from
their posteriors under Jeffreys' prior. Where sensitivity + specificity − 1 may be near 0 the judge says next to nothing about the rate,
and nothing is corrected.

Sensitivity and specificity are those on the labelled set. A model's solutions are others, easier or harder to judge, so the correction is
an estimate under the assumption that the judge errs on them as it does here. This module doesn't import jax.
"""

import dataclasses
import functools
import importlib.resources
import json
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jaxpolya.evaluation.judges import SEVERAL, HeuristicJudge, Solution
from jaxpolya.evaluation.passk import CONFIDENCE, Interval
from jaxpolya.records import Question

LEAST_INFORMATION = 0.1
"""Sensitivity + specificity − 1 below which a rate isn't corrected; the lower end of its interval counts."""

DRAWS = 4000  # of rate, sensitivity and specificity
QUALITY_RESAMPLES = 1000

Half = Literal["development", "held_out"]


@dataclasses.dataclass(frozen=True)
class LabelledSolution:
    """A solution with its labels."""

    id: str
    half: Half
    writer: str
    """Who wrote the solution: `author`, `second writer`, `third writer`, or the name of a model."""
    problem: str
    solution: str
    first: list[str]
    """Keys of the heuristics that its writer put in."""
    second: list[str]
    """Those that somebody else found, from text and codebook alone."""
    labels: list[str]
    """In the end, after the cases in which the two differ were looked at again."""

    @property
    def shown(self) -> Solution:
        """What a judge sees of it."""
        return Solution(Question(id=self.id, question=self.problem, answer=""), self.solution)


@functools.cache
def labelled_set() -> tuple[LabelledSolution, ...]:
    """The labelled set, development half first."""
    text = (importlib.resources.files("jaxpolya.evaluation") / "labelled_solutions.jsonl").read_text(encoding="utf-8")
    return tuple(LabelledSolution(**json.loads(line)) for line in text.splitlines())


def labelled_half(half: Half) -> list[LabelledSolution]:
    """One half of the labelled set."""
    return [one for one in labelled_set() if one.half == half]


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa of two labellings, bool of any shape: (p_o − p_e) / (1 − p_e). NaN where both say the same of everything."""
    agreed, a, b = float(np.mean(first == second)), float(np.mean(first)), float(np.mean(second))
    chance = a * b + (1 - a) * (1 - b)
    return (agreed - chance) / (1 - chance) if chance < 1 else math.nan


def used(labels: Sequence[Sequence[str]], keys: Sequence[str]) -> np.ndarray:
    """Bool [S, H]: whether each solution has each key among its labels."""
    return np.array([[key in of_one for key in keys] for of_one in labels], bool).reshape(len(labels), len(keys))


def kappa_interval(first_SH: np.ndarray, second_SH: np.ndarray, *, resamples: int = QUALITY_RESAMPLES, seed: int = 0) -> Interval | None:
    """Kappa over all entries of two labellings, with a percentile interval from a bootstrap over solutions; None where undefined."""
    value = kappa(first_SH, second_SH)
    if math.isnan(value):
        return None
    draws = np.random.default_rng(seed).integers(len(first_SH), size=(resamples, len(first_SH)))
    drawn = np.array([kappa(first_SH[rows], second_SH[rows]) for rows in draws])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Interval(mean=value, low=float(low), high=float(high))


@dataclasses.dataclass(frozen=True)
class JudgeQuality:
    """What a judge got right of the held-out half."""

    solutions: int
    """How many it was shown."""
    kappa: Interval | None
    """With the labels, over pairs of solution and heuristic."""
    kappa_composed: Interval | None
    """With the labels, on whether a solution uses several."""
    composed: tuple[int, int]
    """(found, of so many) solutions that use several."""
    others: tuple[int, int]
    """(left alone, of so many) solutions that don't."""

    @property
    def sensitivity(self) -> float:
        """Share of the composed solutions that the judge finds; NaN where there is none."""
        return self.composed[0] / self.composed[1] if self.composed[1] else math.nan

    @property
    def specificity(self) -> float:
        """Share of the other ones that it leaves alone; NaN where there is none."""
        return self.others[0] / self.others[1] if self.others[1] else math.nan


def measure(judge: HeuristicJudge, keys: Sequence[str], *, half: Half = "held_out", seed: int = 0) -> JudgeQuality:
    """Has a judge label one half of the set, or as many solutions of it as its reach has questions.

    Args:
      judge: any.
      keys: of the heuristics that it can name; labels with other keys are left out.
      seed: of the choice, where not all are shown, and of the bootstrap.
    """
    shown = labelled_half(half)
    if len(shown) > judge.reach[0]:
        shown = [shown[i] for i in sorted(np.random.default_rng(seed).choice(len(shown), judge.reach[0], replace=False))]
    return compare(judge.label([one.shown for one in shown]), shown, keys, seed=seed)


def compare(answers: Sequence[Sequence[str]], shown: Sequence[LabelledSolution], keys: Sequence[str], *, seed: int = 0) -> JudgeQuality:
    """What a judge said of labelled solutions, against their labels."""
    truth_SH, judge_SH = used([one.labels for one in shown], keys), used(answers, keys)
    truth_S, judge_S = truth_SH.sum(1) >= SEVERAL, judge_SH.sum(1) >= SEVERAL
    return JudgeQuality(
        solutions=len(shown),
        kappa=kappa_interval(truth_SH, judge_SH, seed=seed),
        kappa_composed=kappa_interval(truth_S[:, None], judge_S[:, None], seed=seed),
        composed=(int((truth_S & judge_S).sum()), int(truth_S.sum())),
        others=(int((~truth_S & ~judge_S).sum()), int((~truth_S).sum())),
    )


def corrected_rate(rates: np.ndarray, quality: JudgeQuality, *, seed: int) -> Interval | None:
    """The composition rate as it would be without the judge's errors: (p + sp − 1) / (se + sp − 1), within [0, 1].

    Args:
      rates: [Q] float64, each question's share of composed solutions as the judge sees it.
      quality: the judge's.
      seed: of the draws.

    Returns:
      Estimate and 95 % interval; None where the judge can't tell composed solutions from others well enough.
    """
    rng = np.random.default_rng(seed)
    (hits, composed), (left, others) = quality.composed, quality.others
    if not composed or not others:
        return None
    se = rng.beta(hits + 0.5, composed - hits + 0.5, DRAWS)
    sp = rng.beta(left + 0.5, others - left + 0.5, DRAWS)
    tail = (1 - CONFIDENCE) / 2
    if np.quantile(se + sp - 1, tail) < LEAST_INFORMATION:
        return None
    p = rng.multinomial(len(rates), np.full(len(rates), 1 / len(rates)), size=DRAWS) @ rates / len(rates)
    low, high = np.quantile(np.clip((p + sp - 1) / (se + sp - 1), 0, 1), [tail, 1 - tail])
    estimate = (rates.mean() + quality.specificity - 1) / (quality.sensitivity + quality.specificity - 1)
    return Interval(mean=float(np.clip(estimate, 0, 1)), low=float(low), high=float(high))


def as_facts(quality: JudgeQuality) -> dict[str, Any]:
    """For a manifest: plain values."""
    return dataclasses.asdict(quality)


def from_facts(facts: dict[str, Any]) -> JudgeQuality:
    """What `as_facts` gave, read back from a manifest."""
    intervals = {key: facts[key] and Interval(**facts[key]) for key in ("kappa", "kappa_composed")}
    return JudgeQuality(facts["solutions"], **intervals, composed=tuple(facts["composed"]), others=tuple(facts["others"]))
