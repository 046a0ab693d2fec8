"""Training questions that an evaluation set asks too.

Two questions overlap where they share a run of n words, or are the same question as a whole. n = 13 is what GPT-3's authors took
(Brown et al. 2020, arXiv 2005.14165, appendix C). A question of fewer words has no such run and is compared as a whole: "What
is 3 * 4?" overlaps with "what is 3*4", and with nothing that merely contains it.

Words are compared without case, accents of typesetting (`$`, `\\(`, `\\left`) and punctuation. Operators, brackets and
signs stay, though they are punctuation elsewhere: 3 * 4 is not 3 + 4, and 2 * (3 + 4) is not 2 * 3 + 4.

Data sets that are made from templates share long runs with nothing of a question in them. So a run that more than COMMON questions of one
set hold is wording and no evidence; the same question as a whole always is.

Time and memory are linear in the words: runs of the evaluation sets are hashed, training questions stream by.
"""

import dataclasses
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from jaxpolya.records import Question, Record

COMMON = 10

_TYPESETTING = re.compile(r"\\(?:left\b|right\b|displaystyle\b|[()\[\],;!])|\$")
_TIMES = re.compile(r"\\(?:times|cdot)\b")
_SUPERSCRIPTS = re.compile("[²³¹⁰⁴-⁹]+")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|(?<![^\W\d_])-|-(?![^\W\d_])|[()+*/^=<>%|!√≤≥≠±]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap(Record):
    """A training question that shares words with a question of an evaluation set."""

    train: str
    """Id of the training question."""
    eval_set: str
    eval: str
    """Id of the evaluation set's question."""
    ngram: str
    """The first shared run of words, or the whole question."""
    whole: bool
    """Whether the two are the same question."""


def normalise(text: str) -> list[str]:
    """The words of a text that are compared."""
    text = _TIMES.sub("*", _TYPESETTING.sub(" ", text))
    text = _SUPERSCRIPTS.sub(lambda power: f"^{power[0]}", text)  # else 3² would become 32
    text = unicodedata.normalize("NFKC", text).translate(_SIGNS).casefold()
    return _WORD.findall(_THOUSANDS.sub("", text))


def question_words(question: Question) -> list[str]:
    """The words of all that a model is asked: context, question and choices."""
    return normalise("\n".join(part for part in (question.context, question.question, *(question.choices or ())) if part))


def find_overlaps(training: Iterable[Question], sets: Mapping[str, Sequence[Question]], n: int) -> list[Overlap]:
    """Every pair of a training and an evaluation question that overlap, once each, in the order of the training questions.

    Args:
      training: the questions to learn from.
      sets: evaluation sets by name.
      n: words of a run, at least 1.
    """
    wholes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    runs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, questions in sets.items():
        of_set: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for question in questions:
            words = question_words(question)
            wholes[" ".join(words)].append((name, question.id))
            for run in _runs(words, n):
                of_set[run].append((name, question.id))
        for run, found in of_set.items():
            runs[run] += [] if len(found) > COMMON else found

    pairs: dict[tuple[str, str, str], tuple[list[str], bool]] = {}  # (training id, set, evaluation id) → shared runs, whether whole
    held: Counter[str] = Counter()  # run → training questions with it
    for question in training:
        words = question_words(question)
        whole = " ".join(words)
        for name, other in wholes.get(whole, ()):
            pairs[question.id, name, other] = [whole], True
        for run in _runs(words, n):
            if run in runs:
                held[run] += 1
                for name, other in runs[run]:
                    shared, _ = pairs.setdefault((question.id, name, other), ([], False))
                    shared.append(run)
    overlaps = []
    for (train, name, other), (shared, same) in pairs.items():
        telling = [run for run in shared if same or held[run] <= COMMON]
        if telling:
            overlaps.append(Overlap(train=train, eval_set=name, eval=other, ngram=telling[0], whole=same))
    return overlaps


def _runs(words: Sequence[str], n: int) -> Iterator[str]:
    """The different runs of n words of a text."""
    return iter(dict.fromkeys(" ".join(words[i : i + n]) for i in range(len(words) - n + 1)))
