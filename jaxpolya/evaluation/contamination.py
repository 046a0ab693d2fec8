"""Training questions that an evaluation set asks too.

Two questions overlap where they share a run of n words, or are the same question as a whole. n = 13 is what GPT-3's authors took
(Brown et al. 2020, arXiv 2005.14165, appendix C). A question of fewer words has no such run and is compared as a whole: "What
is 3 * 4?" overlaps with "what is 3*4", and with nothing that merely contains it.

Words are compared without case, typesetting (dollars, `\\left`) and punctuation. Operators and brackets stay, as parts of the next word
(so they make no run longer): 3 * 4 is not 3 + 4, and 2 * (3 + 4) is not 2 * 3 + 4.

Data sets that are made from templates share long runs with nothing of a question in them. So words are *wording* where PIECE of them in
a row stand in more than COMMON questions of all that are compared, and a run that is wording for the greater part is no evidence. The
same question as a whole always is. (Between two seeds of reasoning-gym's countdown, 1,000 and 100 questions, that takes the pairs
from 242 to none.)

Time and memory are linear in the words: runs of the evaluation sets are hashed, training questions pass by.
"""

import dataclasses
import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set

from jaxpolya.records import Question, Record

COMMON, PIECE = 10, 5
"""A template's wording: PIECE words in a row that more than COMMON questions hold."""

Run = tuple[str, ...]

_TYPESETTING = re.compile(r"\\(?:left\b|right\b|displaystyle\b|[()\[\],;!])|\$")
_TIMES = re.compile(r"\\(?:times|cdot)\b")
_SUPERSCRIPTS = re.compile("[²³¹⁰⁴-⁹]+")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_TOKEN = re.compile(r"(?P<word>(?:\d+(?:\.\d+)?|[^\W\d_]+)[!%]?)|(?<![^\W\d_])-|-(?![^\W\d_])|[()+*/^=<>|√≤≥≠±]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap(Record):
    """A training question that shares words with a question of an evaluation set."""

    train: str
    """Id of the training question."""
    eval_set: str
    eval: str
    """Id of the evaluation set's question."""
    ngram: str
    """A run of words that both have, or the whole question, normalised."""
    whole: bool
    """Whether the two are the same question."""


def normalise(text: str) -> list[str]:
    """The words of a text that are compared, each with the signs right before it: "3 * 4 - x" is `3 *4 -x`."""
    text = _TIMES.sub("*", _TYPESETTING.sub(" ", text))
    text = _SUPERSCRIPTS.sub(lambda power: f"^{power[0]}", text)  # else 3² would become 32
    text = unicodedata.normalize("NFKC", text).translate(_SIGNS).casefold()
    words, signs = [], ""
    for token in _TOKEN.finditer(_THOUSANDS.sub("", text)):
        if token["word"]:
            words.append(signs + token["word"])
            signs = ""
        else:
            signs += token[0]
    return words


def question_words(question: Question) -> list[str]:
    """The words of all that a model is asked: context, question and choices."""
    return normalise("\n".join(part for part in (question.context, question.question, *(question.choices or ())) if part))


def find_overlaps(training: Sequence[Question], sets: Mapping[str, Sequence[Question]], n: int) -> list[Overlap]:
    """Every pair of a training and an evaluation question that overlap, once each, in the order of the training questions.

    Args:
      training: the questions to learn from.
      sets: evaluation sets by name.
      n: words of a run, at least 1.
    """
    wholes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    runs: dict[Run, list[tuple[str, str]]] = defaultdict(list)
    for name, questions in sets.items():
        for question in questions:
            words = question_words(question)
            wholes[" ".join(words)].append((name, question.id))
            for run in _runs(words, n):
                runs[run].append((name, question.id))

    shared: dict[Run, list[str]] = defaultdict(list)  # run → training questions with it
    same: dict[tuple[str, str, str], str] = {}  # (training id, set, evaluation id) → the whole question
    for question in training:
        words = question_words(question)
        whole = " ".join(words)
        if words:
            same |= {(question.id, *other): whole for other in wholes.get(whole, ())}
        for run in _runs(words, n):
            if run in runs:
                shared[run].append(question.id)

    overlaps = {pair: Overlap(train=pair[0], eval_set=pair[1], eval=pair[2], ngram=whole, whole=True) for pair, whole in same.items()}
    rare = {run for run, ids in shared.items() if len(ids) <= COMMON and len(runs[run]) <= COMMON}
    for run in _telling(rare, itertools.chain(training, *sets.values())):
        for train, (name, other) in itertools.product(shared[run], runs[run]):
            overlap = Overlap(train=train, eval_set=name, eval=other, ngram=" ".join(run), whole=False)
            overlaps.setdefault((train, name, other), overlap)
    place = {question.id: i for i, question in enumerate(training)}
    return sorted(overlaps.values(), key=lambda overlap: place[overlap.train])


def _telling(runs: Set[Run], questions: Iterable[Question]) -> list[Run]:
    """Those of the runs that are not wording for the greater part, in alphabetical order."""
    held = dict.fromkeys((piece for run in runs for piece in _runs(run, PIECE)), 0)
    if held:
        for question in questions:
            for piece in _runs(question_words(question), PIECE):
                if piece in held:
                    held[piece] += 1
    telling = []
    for run in sorted(runs):
        wording = {i + j for i in range(len(run) - PIECE + 1) if held[run[i : i + PIECE]] > COMMON for j in range(PIECE)}
        if 2 * len(wording) <= len(run):
            telling.append(run)
    return telling


def _runs(words: Sequence[str], n: int) -> Iterable[Run]:
    """The different runs of n words of a text, in order."""
    return dict.fromkeys(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
