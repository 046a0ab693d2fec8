"""How alike texts are, by their n-grams: what diversity is measured with, and what a selection for diversity goes by."""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np


class Kernel(Protocol):
    """Says how similar responses are."""

    name: str
    """Stands in the results."""

    def gram(self, responses: Sequence[str]) -> np.ndarray:
        """Similarities [M, M] of M responses, float64: symmetric, positive semi-definite, 1 on the diagonal."""


class NgramKernel:
    """The mean over n = 1 … 4 of the cosine between two responses' n-gram counts, as the Vendi score's authors use for text."""

    name = "n-gram cosine, n = 1 … 4"

    def gram(self, responses: Sequence[str]) -> np.ndarray:
        """Similarities [M, M] in [0, 1]."""
        texts = [words(response) for response in responses]
        grams = []
        for counts_MF in ngram_counts(texts, 4):
            unit_MF = counts_MF / np.linalg.norm(counts_MF, axis=1, keepdims=True)
            grams.append(unit_MF @ unit_MF.T)
        return np.mean(grams, axis=0)


def words(text: str) -> list[str]:
    """Lower-case words, numbers and single marks of a text; of an empty one, one empty word."""
    return re.findall(r"\w+|[^\w\s]", text.lower()) or [""]


def ngram_counts(texts: Sequence[Sequence[str]], longest: int) -> Iterator[np.ndarray]:
    """For n = 1 … `longest`, how often each of their F different n-grams is in each of M texts: [M, F] float64.

    A text has at least one word; one of fewer than n is one n-gram itself.
    """
    number: dict[str, int] = {}
    numbered = [[number.setdefault(word, len(number) + 1) for word in text] for text in texts]
    # Zeros behind each text keep n-grams from running into the next one, and fill up a short one.
    words_W = np.concatenate([ids + [0] * (longest - 1) for ids in numbered])
    row_W = np.repeat(np.arange(len(texts)), [len(ids) + longest - 1 for ids in numbered])
    place_W = np.concatenate([np.arange(len(ids) + longest - 1) for ids in numbered])
    length_W = np.array([len(ids) for ids in numbered])[row_W]
    grams_W = words_W
    for n in range(1, longest + 1):
        if n > 1:  # renumbered each time, so that nothing overflows
            _, grams_W = np.unique(grams_W * (len(number) + 1) + np.roll(words_W, 1 - n), return_inverse=True)
        begins_W = place_W <= np.maximum(0, length_W - n)
        different, column = np.unique(grams_W[begins_W], return_inverse=True)
        places = row_W[begins_W] * len(different) + column
        yield np.bincount(places, minlength=len(texts) * len(different)).reshape(len(texts), -1).astype(np.float64)
