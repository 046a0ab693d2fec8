"""pass@k without bias, and how far a small number of questions lets us trust it.

pass@k is the chance that at least one of k responses is right. From n responses of which c are right it is estimated without
bias by 1 − C(n−c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, eq. 1); 1 − (1 − c/n)^k would be biased. Whatever isn't
`correct` is a failure: n counts every response.

Intervals are bootstrap percentiles over *questions*, because that is what a data set is a sample of; responses to one question
are not independent evidence. Two arms answer the same questions, so their difference is resampled question by question: the
hardness of a question cancels, and the interval of the difference is narrower than two separate intervals suggest.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxpolya.errors import InputError

CONFIDENCE = 0.95
"""Mass of an interval."""

ALL_KS = 64
"""pass@k is reported for every k up to this."""

Counts = dict[str, tuple[int, int]]
"""Question id → (n responses, c correct ones)."""


NO_QUESTIONS = "no questions to average over: check that the question sets are not empty, and that both arms answered the same ones"


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over questions with its bootstrap interval."""

    mean: float
    low: float
    high: float


def pass_at_k(n: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    """Unbiased pass@k, float64, elementwise over n responses of which c are correct. Raises `ValueError` where k > n."""
    n, c = np.asarray(n)[..., None], np.asarray(c)[..., None]
    if (n < k).any():
        raise ValueError(f"pass@{k} needs at least {k} responses a question; one has {n.min()}")
    # C(n−c, k) / C(n, k) as a product of k factors in [0, 1]: no factorial, nothing to overflow.
    drawn = np.arange(k)
    return 1.0 - np.prod(np.maximum(n - c - drawn, 0) / (n - drawn), axis=-1)


def reported_ks(n: int) -> list[int]:
    """The k for which pass@k is reported: all up to `ALL_KS`, then the powers of two, and n itself.

    All of them for the numbers of samples that people draw (the paper: 64); beyond, a curve over log k says nothing more for its
    hundreds of further points.
    """
    return sorted({*range(1, min(n, ALL_KS) + 1), *(1 << power for power in range(n.bit_length())), n})


def summarise(counts: Counts, *, resamples: int, seed: int) -> dict[str, Interval]:
    """pass@k for the `reported_ks` of the smallest n, with intervals over questions; keys are k as text.

    The same counts, `resamples` and seed give the same bits. Raises `InputError` where there is no question.
    """
    return bootstrap(per_question(counts, sorted(counts)), resamples, seed)


def paired_difference(counts: Counts, baseline: Counts, *, resamples: int, seed: int) -> dict[str, Interval]:
    """How much higher pass@k is than the baseline's, over the questions that both answered, with paired intervals.

    Keys and determinism as in `summarise`. Raises `InputError` where the two share no question.
    """
    shared = sorted(counts.keys() & baseline.keys())
    first, second = per_question(counts, shared), per_question(baseline, shared)
    return bootstrap({k: first[k] - second[k] for k in first if k in second}, resamples, seed)


def mean_interval(values: Sequence[float] | np.ndarray, *, resamples: int, seed: int) -> Interval:
    """The mean of one value a question with its bootstrap interval. Raises `InputError` where there is no question."""
    if not len(values):
        raise InputError(NO_QUESTIONS)
    return bootstrap({"mean": np.asarray(values, np.float64)}, resamples, seed)["mean"]


def per_question(counts: Counts, ids: list[str]) -> dict[int, np.ndarray]:
    """k → pass@k of each question."""
    if not ids:
        raise InputError(NO_QUESTIONS)
    n, c = np.array([counts[i] for i in ids]).T
    return {k: pass_at_k(n, c, k) for k in reported_ks(int(n.min()))}


def bootstrap_seeds(values: Sequence[Mapping[Any, np.ndarray]], resamples: int, seed: int) -> dict[str, Interval]:
    """As `bootstrap`, over several trainings too: each entry's values [Q] of every training, all of one length and order.

    Every training answers the same questions, so that trainings and questions are crossed, and both are drawn with replacement,
    independently of each other: the pigeonhole bootstrap (Owen, Annals of Applied Statistics 1, 2007), which for means errs on the side of
    wide intervals where the two interact. Few trainings still give narrow ones: of S, the spread between them is taken for (S − 1) / S of
    its variance. One training gives the bits of `bootstrap`.
    """
    keys = [key for key in values[0] if all(key in one for one in values)]
    values_SKQ = np.array([[one[key] for key in keys] for one in values])
    trainings, _, questions = values_SKQ.shape
    generator = np.random.default_rng(seed)
    # How often each question is drawn says all about a resample, and makes the means one matrix product.
    draws_RQ = generator.multinomial(questions, np.full(questions, 1 / questions), size=resamples)
    draws_RS = generator.multinomial(trainings, np.full(trainings, 1 / trainings), size=resamples)
    means_RK = sum(draws_RS[:, s, None] * (draws_RQ @ values_SKQ[s].T / questions) for s in range(trainings)) / trainings
    tail = (1 - CONFIDENCE) / 2
    low_K, high_K = np.quantile(means_RK, [tail, 1 - tail], axis=0)
    return {
        str(key): Interval(mean=float(mean), low=float(low), high=float(high))
        for key, mean, low, high in zip(keys, values_SKQ.mean(axis=(0, 2)), low_K, high_K, strict=True)
    }


def bootstrap(values: Mapping[Any, np.ndarray], resamples: int, seed: int) -> dict[str, Interval]:
    """Mean and percentile interval of each entry's per-question values [Q], all of one length; keys become text."""
    return bootstrap_seeds([values], resamples, seed)
