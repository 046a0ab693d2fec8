"""Rewards that users bring: what a response is paid, by a function of theirs.

    def brief(question, response, verdict, length):
        return verdict.reward - 0.001 * length

A reward is called by the names of its parameters, so it says itself what it looks at, and whether it looks at one response or at a group:
those of `ONE` for a response, those of `GROUP` for all responses to a question. It may be a coroutine function: what is awaited for the
responses of a group goes on side by side. It runs in a verifier's process, outside of everything that jax compiles, under the verifier's
deadline: seconds for a response, times their number for a group.

What it raises, and what is no finite number, is nobody's reward: the response's verdict becomes a `harness_error` that names the reward and
what happened, and it is left out of the loss.
"""

import asyncio
import dataclasses
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from jaxpolya import doors
from jaxpolya.errors import ConfigError
from jaxpolya.records import Finish, Question, Record, Verdict

ONE = ("question", "response", "verdict", "length", "finish")
"""What a reward of one response may ask for: its `Question`, its text, its `Verdict`, its number of tokens, how it ended."""
GROUP = ("questions", "responses", "verdicts", "lengths", "finishes")
"""What a reward of a group may ask for: lists of the same, in one order."""


class Reward(Protocol):
    """A reward of one response. It may leave out what it doesn't look at, and be a coroutine function."""

    def __call__(self, *, question: Question, response: str, verdict: Verdict, length: int, finish: Finish) -> float | Awaitable[float]:
        """A finite number."""


class GroupReward(Protocol):
    """A reward of the responses to one question, in the order of their `Sample.index`; as `Reward` otherwise."""

    def __call__(
        self,
        *,
        questions: Sequence[Question],
        responses: Sequence[str],
        verdicts: Sequence[Verdict],
        lengths: Sequence[int],
        finishes: Sequence[Finish],
    ) -> Sequence[float] | Awaitable[Sequence[float]]:
        """As many finite numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case(Record):
    """A judged response, as a reward is shown it."""

    question: Question
    response: str
    verdict: Verdict
    length: int
    finish: Finish

    def to_json(self) -> dict[str, Any]:
        """As it travels to a worker."""
        return {**vars(self), "question": self.question.to_json(), "verdict": self.verdict.to_json()}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Case":
        """What `to_json` has made, back."""
        return cls(**{**row, "question": Question.from_json(row["question"]), "verdict": Verdict.from_json(row["verdict"])})


Payment = float | str
"""A reward, or in words why there is none."""


@dataclasses.dataclass(frozen=True)
class Form:
    """How a reward is to be called."""

    function: Callable[..., Any]
    name: str
    asks: tuple[str, ...]
    group: bool
    awaited: bool


def form_of(plugin: doors.Plugin, key: str) -> Form:
    """How a user's reward is called. Raises `ConfigError`, which begins with `key`, where its parameters say nothing of the kind."""
    where = f"{key}: {plugin.name}"
    function = doors.made(plugin.value, where)
    takes = doors.parameters(function, where)
    named = [name for name, each in takes.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    needed = [name for name, each in takes.items() if each.default is inspect.Parameter.empty and each.kind is not each.VAR_KEYWORD]
    group = any(name in GROUP for name in named)
    known = GROUP if group else ONE
    if unknown := [name for name in needed if name not in known or name not in named]:
        raise ConfigError(
            f"{where} has the parameter {', '.join(unknown)}; it is called by name, and may ask for {', '.join(ONE)} of a response, or "
            f"{', '.join(GROUP)} of a group"
        )
    everything = any(each.kind is each.VAR_KEYWORD for each in takes.values())
    asks = tuple(name for name in known if name in named or everything)
    if not asks:
        raise ConfigError(f"{where} asks for nothing; a reward looks at some of {', '.join(ONE)}, or of {', '.join(GROUP)}")
    return Form(function, plugin.name, asks, group, doors.is_async(function))


def pay(form: Form, cases: Sequence[Case], seconds: float, loop: asyncio.Runner) -> list[Payment]:
    """What a reward pays each of some responses, which are a group where it looks at one. Raises nothing that the reward has raised.

    Args:
      form: the reward.
      cases: the responses.
      seconds: for one response; what is awaited is broken off then.
      loop: runs what is awaited.
    """
    if form.group:
        given = {many: [getattr(case, one) for case in cases] for one, many in zip(ONE, GROUP, strict=True) if many in form.asks}
        return _group(form, _called(form, given, seconds * len(cases), loop), len(cases))
    calls = [{name: getattr(case, name) for name in form.asks} for case in cases]
    if form.awaited:

        async def side_by_side() -> list[Any]:
            return await asyncio.gather(*(_in_time(form, given, seconds) for given in calls))

        paid = loop.run(side_by_side())
    else:
        paid = [_called(form, given, seconds, loop) for given in calls]
    return [_checked(form, value) for value in paid]


class _Failure(Exception):
    """Words on why there is no reward."""


def _called(form: Form, given: dict[str, Any], seconds: float, loop: asyncio.Runner) -> Any:
    if form.awaited:
        return loop.run(_in_time(form, given, seconds))
    try:
        return form.function(**given)
    except Exception as error:
        return _Failure(_raised(form, error))


async def _in_time(form: Form, given: dict[str, Any], seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await form.function(**given)
    except Exception as error:
        return _Failure(late(form.name, seconds) if limit.expired() else _raised(form, error))


def _raised(form: Form, error: Exception) -> str:
    return f"the reward {form.name} raised {type(error).__name__}: {error}"[:500]


def late(name: str, seconds: float) -> str:
    """What is said of a reward that took too long."""
    return f"the reward {name} gave nothing in {seconds:g} s (verify.deadline)"


def _group(form: Form, paid: Any, count: int) -> list[Payment]:
    if isinstance(paid, _Failure):
        return [str(paid)] * count
    try:
        rewards = list(paid)
    except TypeError:
        return [f"the reward {form.name} gave a {type(paid).__name__} for a group; a list of numbers was expected"] * count
    if len(rewards) != count:
        return [f"the reward {form.name} gave {len(rewards)} numbers for {count} responses"] * count
    return [_checked(form, value) for value in rewards]


def _checked(form: Form, value: Any) -> Payment:
    if isinstance(value, _Failure):
        return str(value)
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        reward = float(value)
    except (TypeError, ValueError, OverflowError):
        return f"the reward {form.name} gave a {type(value).__name__}; a number was expected"
    return reward if math.isfinite(reward) else f"the reward {form.name} gave {reward}, which is not a finite number"
