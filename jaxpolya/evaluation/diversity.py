"""How different the responses to one question are: four numbers a question, then their means over questions.

A response is a list of lower-case words, numbers and marks, not of a model's tokens: models with different tokenizers stay
comparable. Everything is measured within a question, since responses to different questions differ anyway; means over
questions carry the bootstrap interval of `passk`. All responses count, right or wrong, because the number of right ones differs between
models and each of these measures moves with the number of responses. Noise is diverse too: read this beside pass@k.

distinct-n   distinct n-grams / n-grams (Li et al. 2016, arXiv 1510.03055, who divide by words). It falls with length (Liu et al.
             2022, arXiv 2202.13587), so responses are first cut to a common length, the same for all models that are compared:
             the smallest of their lower deciles. So at most a tenth of a model's responses are shorter; those enter whole.
self-BLEU    mean BLEU-4 of each response against all others of the question (Zhu et al. 2018, arXiv 1802.01886); 1: all alike.
             A library would be a dependency for forty lines, and would count each response's n-grams once for each other one;
             with one table of counts it is linear. Tests hold it to sacrebleu's and NLTK's numbers.
Vendi score  exp of the Shannon entropy of the eigenvalues of K/m (Friedman and Dieng 2022, arXiv 2210.02410): the effective number
             of different responses, 1 … m. K is a kernel's similarities; its name stands in the result.
label entropy  of the heuristics that a judge found (`composition`), in nats; exp of it is an effective number of approaches.

Cost is bounded: QUESTIONS questions, RESPONSES responses of each, the same ones for every model.
"""

import dataclasses
import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxpolya.doors import a, bring, check_call, is_reference, made
from jaxpolya.errors import ConfigError
from jaxpolya.evaluation.passk import Interval, bootstrap
from jaxpolya.ngrams import Kernel, NgramKernel, ngram_counts, words
from jaxpolya.records import Sample

QUESTIONS, RESPONSES = 200, 16
"""Of a question set, at most so many questions and responses to each are looked at."""

DISTINCT = 3
"""The largest n of distinct-n."""

BLEU_ORDERS = 4
EPSILON = (
    0.1  # matches that stand for none, where longer n-grams have none (Chen and Cherry 2014, method 1; NLTK's and sacrebleu's `floor`)
)
SHORTEST_SHARE = 0.1  # of a model's responses that may be shorter than the common length
NO_LABEL = "none"
KERNEL_KEY = "eval.kernel"
TRIED = ("3 + 4 = 7.", "Three and four make 7.", "The answer is 7.")
"""Texts that a user's kernel is tried on."""

Labels = Mapping[str, Collection[str]]
"""Sample id → keys of the heuristics that it uses."""


# Measures of one question's responses ------------------------------------------------------------------------------------


def distinct_n(texts: Sequence[Sequence[str]], longest: int) -> list[float]:
    """Distinct n-grams / n-grams of at least one text, in (0, 1], for n = 1 … `longest`; cut the texts to one length first."""
    return [counts_MF.shape[1] / float(counts_MF.sum()) for counts_MF in ngram_counts(texts, longest)]


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Mean over M ≥ 2 texts of BLEU-4 against the M − 1 others, in [0, 1].

    As sacrebleu's `sentence_bleu` without tokenisation, with `floor` smoothing of 0.1 and effective order (a text of fewer than 4
    words is judged by the n-grams that it has). Raises `ValueError` for fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError("self-BLEU compares a response with others; one alone has none")
    lengths_M = np.array([len(text) for text in texts], float)
    log_precision_M, orders_M = np.zeros(len(texts)), np.minimum(lengths_M, BLEU_ORDERS)
    matched_M = np.zeros(len(texts), bool)
    for n, counts_MF in enumerate(ngram_counts(texts, BLEU_ORDERS), 1):
        second_F, first_F = np.partition(counts_MF, -2, axis=0)[-2:]
        others_MF = np.where(counts_MF == first_F, second_F, first_F)  # an n-gram's largest count in any other text
        matches_M = np.minimum(counts_MF, others_MF).sum(axis=1)
        if n == 1:
            matched_M = matches_M > 0
        precision_M = np.where(matches_M, matches_M, EPSILON) / counts_MF.sum(axis=1)
        log_precision_M += np.where(lengths_M >= n, np.log(precision_M), 0.0)
    bleu_M = np.exp(log_precision_M / orders_M + np.minimum(0.0, 1.0 - _closest_other(lengths_M) / lengths_M))
    return float(np.where(matched_M, bleu_M, 0.0).mean())


def _closest_other(lengths_M: np.ndarray) -> np.ndarray:
    """Of each length the nearest among the others, the shorter one of two (BLEU's reference length)."""
    away_MM = np.abs(lengths_M[:, None] - lengths_M) + 0.25 * (lengths_M > lengths_M[:, None])
    np.fill_diagonal(away_MM, np.inf)
    return lengths_M[away_MM.argmin(axis=1)]


def vendi(gram_MM: np.ndarray) -> float:
    """The Vendi score of similarities [M, M] with ones on the diagonal: between 1 (all alike) and M (nothing in common).

    Raises `ValueError` for another shape or diagonal.
    """
    if gram_MM.ndim != 2 or gram_MM.shape[0] != gram_MM.shape[1] or not np.allclose(np.diag(gram_MM), 1.0):
        raise ValueError(f"a Vendi score needs similarities [M, M] with ones on the diagonal, not shape {gram_MM.shape}")
    shares = np.maximum(np.linalg.eigvalsh(np.asarray(gram_MM, np.float64) / len(gram_MM)), 0.0)  # rounding may leave −1e-17
    shares = shares[shares > 0] / shares.sum()
    return math.exp(-float(shares @ np.log(shares)))


def label_entropy(labels: Sequence[Collection[str]]) -> float:
    """Shannon entropy in nats of the labels of at least one response, each of which has weight 1, shared evenly by its labels.

    A response without a label is one of a kind of its own: a plain solution beside an analogy makes two approaches. The
    entropy of few responses is an underestimate, alike for all models as long as they have as many.
    """
    mass: Counter[str] = Counter()
    for keys in labels:
        for label in keys or [NO_LABEL]:
            mass[label] += 1 / (len(keys) or 1) / len(labels)  # type: ignore[assignment]
    return -sum(share * math.log(share) for share in mass.values()) + 0.0


# A question set ----------------------------------------------------------------------------------------------------------


def chosen(samples: Sequence[Sample], seed: int, questions: int = QUESTIONS, responses: int = RESPONSES) -> list[Sample]:
    """The samples that are looked at: the first `responses` of at most so many questions, drawn by `seed`; of less, a part of the same.

    Their token ids and log-probs are left away; many arms' samples are held at once.
    """
    ids = sorted({sample.question_id for sample in samples})
    kept = set(random.Random(f"diversity/{seed}").sample(ids, len(ids))[:questions])
    return [
        dataclasses.replace(sample, token_ids=[], logprobs=[])
        for sample in samples
        if sample.question_id in kept and sample.index < responses
    ]


def common_length(models: Iterable[Sequence[Sample]]) -> int:
    """The number of words to which responses are cut: the smallest lower decile of the models' lengths, one word at least."""
    return max(1, min(int(np.quantile([len(words(s.response)) for s in samples], SHORTEST_SHARE)) for samples in models))


def summarise_diversity(
    samples: Sequence[Sample], *, length: int, labels: Labels | None, resamples: int, seed: int, kernel: Kernel | None = None
) -> dict[str, Any] | None:
    """The diversity of one model on one question set; None where no question has two responses.

    Args:
      samples: as `chosen` gives them; a question's with one response are left out.
      length: of distinct-n, from `common_length` over all models that are compared.
      labels: of the samples that a judge saw; None leaves the entropy out. A sample that was asked for under a heuristic has that label.
      resamples, seed: of the bootstrap.
      kernel: of the Vendi score; None is `NgramKernel`.

    Returns:
      {questions, samples (the fewest of a question), length, kernel, distinct_1 … distinct_3, self_bleu, vendi, label_entropy},
      measures as `passk.Interval`.
    """
    kernel = kernel or NgramKernel()
    grouped: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        grouped[sample.question_id].append(sample)
    questions = [group for _, group in sorted(grouped.items()) if len(group) > 1]
    if not questions:
        return None
    values: dict[str, list[float]] = defaultdict(list)
    for group in questions:
        texts = [words(sample.response) for sample in group]
        for n, share in enumerate(distinct_n([text[:length] for text in texts], DISTINCT), 1):
            values[f"distinct_{n}"].append(share)
        values["self_bleu"].append(self_bleu(texts))
        values["vendi"].append(vendi(kernel.gram([sample.response for sample in group])))
    intervals: dict[str, Interval] = bootstrap({name: np.array(column) for name, column in values.items()}, resamples, seed)
    if entropies := [label_entropy(known) for group in questions if (known := _known(group, labels))]:
        intervals |= bootstrap({"label_entropy": np.array(entropies)}, resamples, seed)
    facts = {"questions": len(questions), "samples": min(map(len, questions)), "length": length, "kernel": kernel.name}
    return facts | intervals


def _known(group: Sequence[Sample], labels: Labels | None) -> list[Collection[str]]:
    """The labels of those of one question's samples that have any word on them."""
    labels = labels or {}
    return [[s.heuristic] if s.heuristic else labels[s.id] for s in group if s.heuristic or s.id in labels]


# Kernels by name ---------------------------------------------------------------------------------------------------------


def make_kernel(named: str) -> Kernel:
    """The kernel that `eval.kernel` names: `ngram`, or one's own, tried on three short texts.

    Raises `ConfigError` where a reference leads to nothing, or to something that isn't a kernel: an object with a text `name` and a method
    `gram(responses)` that gives similarities [M, M] with ones on the diagonal, or a class that makes one without arguments.
    """
    if not is_reference(named):
        return NgramKernel()
    brought = bring(named, KERNEL_KEY)
    where = f"{KERNEL_KEY}: {brought.name}"
    kernel = made(brought.value, where)
    if not isinstance(getattr(kernel, "name", None), str):
        raise ConfigError(f"{where} is {a(kernel)} without a name, a text that stands in the results")
    if not callable(getattr(kernel, "gram", None)):
        raise ConfigError(f"{where} is {a(kernel)} without a method gram(responses)")
    check_call(kernel.gram, ("responses",), f"{where}: gram")
    try:
        gram_MM = np.asarray(kernel.gram(list(TRIED)), np.float64)
    except Exception as error:
        raise ConfigError(f"{where}: gram, tried on {len(TRIED)} short texts: {type(error).__name__}: {error}") from error
    size = len(TRIED)
    if gram_MM.shape != (size, size) or not np.allclose(np.diag(gram_MM), 1.0) or not np.allclose(gram_MM, gram_MM.T):
        raise ConfigError(
            f"{where}: gram, tried on {size} short texts, gave shape {gram_MM.shape}"
            + (
                " with other than ones on the diagonal, or not symmetric"
                if gram_MM.shape == (size, size)
                else f", and [{size}, {size}] was expected"
            )
        )
    return _NamedKernel(kernel, f"{kernel.name} ({brought.name}, {brought.digest[:8]})")


class _NamedKernel:
    """A user's kernel under a name that says whose it is, and by which content of its file."""

    def __init__(self, kernel: Kernel, name: str):
        self._kernel, self.name = kernel, name

    def gram(self, responses: Sequence[str]) -> np.ndarray:
        """Similarities [M, M], float64."""
        return np.asarray(self._kernel.gram(responses), np.float64)
