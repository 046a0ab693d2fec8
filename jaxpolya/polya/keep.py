"""Which of a question's responses are kept: a door, and the three rules that are built in.

Under all three no two of what is kept are of one slot, and no two nearly alike: they differ in the order in which responses are looked at.

best      by falling adherence, as the paper has it
random    slots in a random order, and a random response of each: what selection by adherence is to be compared with. A number hangs on
          the seed, the question, the slot and the response's index alone, not on what else there is
diverse   greedily, what adds most to θ · Σ r + (1 − θ) · log det K. K holds the n-gram similarities of the kept (`ngrams.NgramKernel`),
          r their adherence, standardised within the question, θ is `select.quality`. That is the most likely set, found greedily, of a
          determinantal point process with such weights (Chen, Zhang and Zhou 2018, arXiv 1709.05135, for both). θ = 1 is `best`. arXiv
          2606.00544 argues that selection by a score alone collapses modes

Everything here is a function of records and a seed, on the host.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxpolya.config import SelectConfig
from jaxpolya.doors import Plugin, bring, check_call, is_reference
from jaxpolya.errors import InputError, failure
from jaxpolya.ngrams import NgramKernel
from jaxpolya.records import Question, Sample

KEY = "select.keep"

SHINGLE = 5  # tokens of the n-grams whose sets are compared

SMALLEST = 1e-12
"""The least that a response is taken to add to a determinant: a copy adds nothing, and its logarithm is to be a number."""


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What may be kept of one question."""

    question: Question
    samples: Sequence[Sample]
    """Its responses with the wanted verdict that ended by themselves, in the order of slots."""
    adherence: Mapping[str, float]
    """Sample id → how well it follows its heuristic; higher is better, comparable within a question. Empty where nothing hangs on it."""
    n: int
    """How many to keep, at most."""
    duplicate_overlap: float
    """Of two responses whose token 5-gram sets overlap (Jaccard) at least this much, one is to be kept."""
    seed: int

    def chance(self, *place: int | None) -> float:
        """A number in [0, 1) that hangs on the seed, the question and a place alone: addressed, not consumed."""
        text = "/".join(["keep", str(self.seed), self.question.id, *map(str, place)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]) / 2**56

    def score(self, sample: Sample) -> float:
        """Its adherence; −∞ where it wasn't scored."""
        return self.adherence.get(sample.id, -math.inf)


Keep = Callable[[Candidates], Iterable[Sample]]
"""What of the candidates is kept, at most n of them, in the order in which it is learnt. It must depend on its argument alone: every host
calls it. A rule that doesn't look at adherence may say so with an attribute `unscored = True`, and no scorer is loaded."""


def make_keep(config: SelectConfig) -> tuple[Keep, Plugin | None]:
    """(the rule that a configuration names, what a user brought). Raises `ConfigError` where it can't be one."""
    if not is_reference(config.keep):
        rules: dict[str, Keep] = {"best": best, "random": at_random, "diverse": functools.partial(diverse, quality=config.quality)}
        return rules[config.keep], None
    plugin = bring(config.keep, KEY)
    check_call(plugin.value, ("candidates",), f"{KEY}: {plugin.name}")
    return functools.partial(_own, plugin), plugin


def needs_scores(config: SelectConfig, samples: Sequence[Sample]) -> bool:
    """Whether adherence decides anything among one question's candidates."""
    if is_reference(config.keep):
        return not getattr(bring(config.keep, KEY).value, "unscored", False)
    looked_at = config.keep == "best" or (config.keep == "diverse" and config.quality > 0)
    slots = {sample.slot for sample in samples}
    return looked_at and (len(slots) < len(samples) or len(slots) > config.n)


# The rules ---------------------------------------------------------------------------------------------------------------


def best(candidates: Candidates) -> list[Sample]:
    """By falling adherence; what was not scored comes after what was."""
    ranked = sorted(candidates.samples, key=lambda sample: (-candidates.score(sample), *_place(sample)))
    return _greedily(candidates, ranked, np.arange(len(ranked), 0.0, -1.0))


def at_random(candidates: Candidates) -> list[Sample]:
    """Slots in a random order, and the responses of each in a random one."""
    chance = candidates.chance
    ranked = sorted(candidates.samples, key=lambda sample: (chance(sample.slot), chance(sample.slot, sample.index), *_place(sample)))
    return _greedily(candidates, ranked, np.arange(len(ranked), 0.0, -1.0))


def diverse(candidates: Candidates, *, quality: float) -> list[Sample]:
    """Each time the one that adds most to `quality` · Σ r + (1 − `quality`) · log det K."""
    ranked = sorted(candidates.samples, key=_place)
    worth_M = quality * _standardised([candidates.score(sample) for sample in ranked])
    volume = _Volume(NgramKernel().gram([sample.response for sample in ranked]))

    def after(kept: int) -> np.ndarray:
        volume.add(kept)
        return worth_M + (1 - quality) * np.log(volume.added_M)

    return _greedily(candidates, ranked, worth_M, after)  # alone, all add alike: the first is the best


def _greedily(
    candidates: Candidates, samples: Sequence[Sample], worth_M: np.ndarray, after: Callable[[int], np.ndarray] | None = None
) -> list[Sample]:
    """At most n samples, no two of one slot or nearly alike: each time the one that is worth most, of equals the first.

    `after`, where what is kept changes what the others are worth, is told the place of each sample that is, and gives their new worth.
    """
    kept: list[Sample] = []
    grams: list[frozenset[tuple[int, ...]]] = []
    open_M = np.ones(len(samples), bool)
    while len(kept) < candidates.n and open_M.any():
        place = int(np.argmax(np.where(open_M, worth_M, -np.inf)))
        open_M[place] = False
        sample = samples[place]
        if sample.slot in {other.slot for other in kept}:
            continue
        these = shingles(sample.token_ids)
        if any(overlap(these, those) >= candidates.duplicate_overlap for those in grams):
            continue
        kept.append(sample)
        grams.append(these)
        worth_M = after(place) if after else worth_M
    return kept


class _Volume:
    """What each of M responses would add to the determinant of the similarities of those that are kept: its conditional variance.

    Rows of a Cholesky factor, one for each that is kept (Algorithm 1 of arXiv 1709.05135).
    """

    def __init__(self, gram_MM: np.ndarray):
        self._gram_MM, self._left_M = gram_MM, np.diag(gram_MM).copy()
        self._roots_KM = np.zeros((0, len(gram_MM)))

    @property
    def added_M(self) -> np.ndarray:
        """By what the determinant is multiplied, at least `SMALLEST`."""
        return np.maximum(self._left_M, SMALLEST)

    def add(self, place: int) -> None:
        """One more is kept."""
        root_M = (self._gram_MM[place] - self._roots_KM[:, place] @ self._roots_KM) / math.sqrt(self.added_M[place])
        self._roots_KM = np.vstack([self._roots_KM, root_M])
        self._left_M = self._left_M - root_M**2


def _standardised(scores: Sequence[float]) -> np.ndarray:
    """(score − mean) / deviation; 0 where scores don't differ, and for what has none."""
    scores_M = np.array(scores)
    known_M = np.isfinite(scores_M)
    centred_M = np.where(known_M, scores_M - scores_M[known_M].mean(), 0.0) if known_M.any() else np.zeros(len(scores_M))
    deviation = math.sqrt(float((centred_M**2).sum()) / max(int(known_M.sum()), 1))
    return centred_M / deviation if deviation > 0 else centred_M


def _place(sample: Sample) -> tuple[int, int]:
    return sample.slot if sample.slot is not None else -1, sample.index


def shingles(tokens: Sequence[int]) -> frozenset[tuple[int, ...]]:
    """The set of token 5-grams; of a shorter response, the response itself."""
    if len(tokens) < SHINGLE:
        return frozenset([tuple(tokens)])
    return frozenset(tuple(tokens[i : i + SHINGLE]) for i in range(len(tokens) - SHINGLE + 1))


def overlap(first: frozenset[tuple[int, ...]], second: frozenset[tuple[int, ...]]) -> float:
    """Jaccard index of two sets that are not empty."""
    return len(first & second) / len(first | second)


def _own(plugin: Plugin, candidates: Candidates) -> list[Sample]:
    """What a user's rule keeps. Raises `InputError` where it fails, or keeps what isn't there, something twice or too many."""
    where = f"{KEY}: {plugin.name}, on question {candidates.question.id}"
    try:
        kept = list(plugin.value(candidates))
        ids = [sample.id for sample in kept]
    except Exception as error:
        raise InputError(f"{where}: {failure(error)}") from error
    strange = [name for name in ids if name not in {sample.id for sample in candidates.samples}]
    if strange or len(set(ids)) < len(ids) or len(ids) > candidates.n:
        what = f"{strange[0]}, which is none of its candidates" if strange else f"{len(ids)} responses, {len(set(ids))} different ones"
        raise InputError(f"{where}: it keeps {what}; at most n ({candidates.n}) of `candidates.samples` may be kept, each once")
    return kept
