"""Kinds of question: ours by name, and those that users bring.

A user's kind is a class with a `judge`, derived from `Verifier` or not, or that function alone. In records it is called by what it is, its
attribute and the beginning of its file's digest (`Anagrams@3f9c0a12be44`): where the file lies may change, and what an answer was judged by
may not. A process knows the kinds that were brought to it (`bring`); the pool brings them to its workers. Only configurations and
command lines name files. A row of data names kinds of ours, for it must not choose which code is run.

What a user's kind does with a response, extraction included, is done in a worker, under the deadline: nobody can promise that it is fast.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, get_args

from jaxpolya import doors
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import Kind, Question, Verdict, VerdictName
from jaxpolya.verify.extract import extract
from jaxpolya.verify.speech import spoken

Judgement = bool | float | Verdict
"""What a `judge` says: right or not; how right, from 0 to 1, where 1 alone is right; or all of a verdict."""

METHODS = {"ending": ("question",), "statement": ("question", "answer"), "extract": ("question", "text"), "problem": ("question",)}
"""What a kind may have beside its `judge`, and what it is called with."""


class Verifier:
    """A kind of question. What a user's own doesn't define is done as here: by the question's `extraction` style (docs/verdicts.md)."""

    exemplars: Literal["math", "code", "narrative"] = "math"
    """The exemplars of heuristics that are shown before such a question."""

    def ending(self, question: Question) -> str | None:
        """The line of the prompt that says how to end; None takes that of the question's style. Whoever says another one says in
        `statement` too how exemplars end, so that what is shown is what is asked for."""
        return None

    def statement(self, question: Question, answer: str) -> str | None:
        """An exemplar's last line, which gives its answer as `ending` asks; None takes that of the question's style."""
        return None

    def extract(self, question: Question, text: str) -> str | None:
        """The answer that a response gives, or None: the verdict is `unparseable` then.

        `text` is the response without thoughts, control tokens and what follows its first end (`verify.speech`).
        """
        return extract(text, question.extraction)

    def problem(self, question: Question) -> str | None:
        """Why a question can't be judged whatever its response is, or None. It is asked once, when questions are read."""
        return None

    def judge(self, question: Question, answer: str) -> Judgement:
        """Whether, or how far, an extracted answer is right. Must depend on its arguments alone: equal answers are judged once."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A user's kind, and where it comes from."""

    plugin: doors.Plugin
    verifier: Verifier


_OURS = frozenset(get_args(Kind))
_kinds: dict[str, _Kind] = {}


def is_own(kind: str) -> bool:
    """Whether a question's kind is none of ours."""
    return kind not in _OURS


def bring(reference: str, key: str) -> str:
    """Makes a kind known to this process. Returns what records call it; a name of ours as it is.

    Raises `ConfigError`, which begins with `key`, where there is no such kind, or it doesn't do what one does.
    """
    if not doors.is_reference(reference):
        if is_own(reference):
            raise ConfigError(
                f"{key}: {reference!r} is none of {', '.join(get_args(Kind))}, nor module:attribute or path/to/file.py:attribute"
            )
        return reference
    plugin = doors.bring(reference, key)
    name = f"{plugin.attribute}@{plugin.digest[:12]}"
    if name not in _kinds or _kinds[name].plugin.reference != plugin.reference:  # the same content may have moved
        _kinds[name] = _Kind(plugin, _verifier(plugin, key))
    return name


def name_of(kind: Any) -> str:
    """What records call a kind that a caller gives: one of ours by name, a user's by its reference or in person.

    Raises `ConfigError` where a user's own can't be one; whether a name is one of ours is `judge.problem`'s to say.
    """
    try:
        spelled = doors.spelled(kind)
    except doors.Unfound as error:
        raise ConfigError(f"kind: {error}") from None
    return bring(spelled, "kind") if doors.is_reference(str(spelled)) else str(spelled)


def _verifier(plugin: doors.Plugin, key: str) -> Verifier:
    """The verifier that a user's object is."""
    where = f"{key}: {plugin.name}"
    own = doors.made(plugin.value, where)
    if not hasattr(own, "judge"):
        if not callable(own):
            raise ConfigError(
                f"{where} is {doors.a(own)}, and a class with a method `judge`, or a function (question, answer), was expected"
            )
        doors.check_call(own, ("question", "answer"), where)
        return _Judge(own)
    if getattr(own.judge, "__func__", None) is Verifier.judge:
        raise ConfigError(f"{where} has no `judge` of its own; that is the one method it needs")
    doors.check_call(own.judge, ("question", "answer"), f"{where}.judge")
    for method, takes in METHODS.items():
        if hasattr(own, method):
            doors.check_call(getattr(own, method), takes, f"{where}.{method}")
    base = Verifier()
    for method in ("exemplars", *METHODS):
        if not hasattr(own, method):
            setattr(own, method, getattr(base, method))
    if own.exemplars not in ("math", "code", "narrative"):
        raise ConfigError(f"{where}.exemplars is {own.exemplars!r}, not one of math, code, narrative")
    if _says(own, "ending") and not _says(own, "statement"):
        raise ConfigError(f"{where} has an `ending` of its own and no `statement`; exemplars would end in another way than it asks for")
    return own  # type: ignore[no-any-return]


def _says(own: Any, method: str) -> bool:
    """Whether a method isn't the base class's."""
    return getattr(getattr(own, method), "__func__", None) is not getattr(Verifier, method)


class _Judge(Verifier):
    """A verifier that is but a function."""

    def __init__(self, function: Callable[[Question, str], Judgement]):
        self.function = function

    def judge(self, question: Question, answer: str) -> Judgement:
        return self.function(question, answer)


def own_kinds() -> Collection[str]:
    """The users' kinds that were brought to this process."""
    return _kinds.keys()


def verifier_of(kind: str) -> Verifier:
    """A user's kind, by the name in records. Raises `InputError` where nobody brought it."""
    if kind not in _kinds:
        raise InputError(f"questions of the kind {kind} can't be judged: nothing here names it; name its file as their `verifier`")
    return _kinds[kind].verifier


def parcels(kinds: Any) -> dict[str, dict[str, Any]]:
    """What a worker needs to know some of the kinds: name → `parcel`. Those of ours are left out."""
    return {kind: parcel(_kinds[kind].plugin) for kind in sorted(set(kinds)) if kind in _kinds}


def parcel(plugin: doors.Plugin) -> dict[str, Any]:
    """What another process finds the same object by, a JSON object: it looks for modules where this one does."""
    return {"reference": plugin.reference, "digest": plugin.digest, "path": [place for place in sys.path if place]}


@functools.cache
def _opened(reference: str, digest: str) -> doors.Plugin:
    plugin = doors.bring(reference, "verify")
    if plugin.digest != digest:
        raise ConfigError(f"{plugin.name} was changed since this run began; start it again, and what the change touches is done anew")
    return plugin


def opened(parcel: Mapping[str, Any]) -> doors.Plugin:
    """The object of a `parcel`, in this process. Raises `ConfigError` where it isn't there any more, or was changed."""
    sys.path += [place for place in parcel["path"] if place not in sys.path]
    return _opened(parcel["reference"], parcel["digest"])


def judge_own(question: Question, response: str) -> Verdict:
    """The verdict of a user's kind on a response; what it raises, or says that is no judgement, is a `harness_error` that names it."""
    kind = _kinds[question.verifier]
    name, answer = kind.plugin.name, None
    try:
        answer = kind.verifier.extract(question, spoken(response))
        if answer is None:
            return Verdict(verdict="unparseable")
        if not isinstance(answer, str):
            raise TypeError(f"extract gave a {type(answer).__name__}; a text or None was expected")
        return _verdict(kind.verifier.judge(question, answer), answer)
    except (MemoryError, RecursionError) as error:
        return Verdict(verdict="crash", extracted=answer, detail=f"{name}: {type(error).__name__}")
    except Exception as error:
        extracted = answer if isinstance(answer, str) else None
        return Verdict(verdict="harness_error", extracted=extracted, detail=f"{name}: {type(error).__name__}: {error}"[:500])


def _verdict(judgement: Any, answer: str) -> Verdict:
    """What a judgement means. Raises `TypeError` or `ValueError` for what is none."""
    if isinstance(judgement, Verdict):
        if judgement.verdict not in get_args(VerdictName):
            raise ValueError(f"judge gave the verdict {judgement.verdict!r}, not one of {', '.join(get_args(VerdictName))}")
        if judgement.score is not None:
            checked = dataclasses.replace(judgement, score=_score(judgement.score))
            if (checked.score == 1) != (judgement.verdict == "correct"):
                raise ValueError(
                    f"judge gave the verdict {judgement.verdict} a score of {checked.score}; 1 is correct, and nothing else is"
                )
            judgement = checked
        return dataclasses.replace(judgement, extracted=judgement.extracted if judgement.extracted is not None else answer)
    if isinstance(judgement, bool) or type(judgement).__name__ in ("bool", "bool_"):  # numpy's
        return Verdict(verdict="correct" if judgement else "wrong", extracted=answer)
    score = _score(judgement)
    return Verdict(verdict="correct" if score == 1 else "wrong", extracted=answer, score=score)


def _score(judgement: Any) -> float:
    try:
        score = float(judgement)
    except (TypeError, ValueError):
        raise TypeError(f"judge gave a {type(judgement).__name__}; a bool, a number from 0 to 1 or a Verdict was expected") from None
    if isinstance(judgement, str) or not 0 <= score <= 1 or math.isnan(score):
        raise ValueError(f"judge gave {judgement!r}; a bool, a number from 0 to 1 or a Verdict was expected")
    return score
