"""Verdicts on responses from anywhere: one in this process, or many from a pool of processes. Nothing in here imports jax."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from jaxpolya.config import VerifyConfig
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import Extraction, Unevaluated, Verdict
from jaxpolya.verify.judge import Item, Policy, judge
from jaxpolya.verify.kinds import name_of
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.rows import item_of
from jaxpolya.verify.sandbox.sandbox import machine_weakness


def verify_response(
    response: str,
    *,
    answer: str | float = "",
    question: str = "",
    kind: Any = "math",
    extraction: Extraction = "statement",
    choices: list[str] | None = None,
    tests: Any = None,
    entry: dict[str, Any] | None = None,
    unevaluated: Unevaluated = "refuse",
    modules: Sequence[str] = (),
) -> Verdict:
    """The verdict on one response, in this process (`verify_responses` protects from those that hang or allocate without bound).

    Args:
      response: all that the model said.
      answer: the reference, a text or a number; a letter for `choice`.
      question: what was asked; an answer that only restates it is not right.
      kind: `math`, `choice`, `code` or `reasoning_gym`; or one of your own, as a reference or the class or function itself (`kinds`).
      extraction: how the answer is found (see `verify.extract`).
      choices: texts of a multiple-choice question.
      tests: of code, in one of the forms of docs/questions.md.
      entry: reasoning-gym's own entry.
      unevaluated: `accept` pays an answer that equals the reference without having been worked out (see docs/verdicts.md).
      modules: third-party modules that a program may import.

    Raises:
      InputError: the reference can't be judged against, or there is no such kind or extraction.
      ConfigError: a kind of your own can't be one, or `unevaluated` is none of its values.
    """
    if unevaluated not in get_args(Unevaluated):
        raise ConfigError(f"verify_response: unevaluated {unevaluated!r} is not one of {', '.join(get_args(Unevaluated))}")
    row = {"response": response, "answer": answer, "question": question, "extraction": extraction}
    item = item_of(row | {"choices": choices, "tests": tests, "entry": entry}, "", name_of(kind))
    return judge(item, Policy(unevaluated=unevaluated, modules=tuple(modules)))


def verify_responses(
    rows: Iterable[Mapping[str, Any]], *, kind: Any = None, verify: VerifyConfig | None = None, pool: Pool | None = None
) -> list[Verdict]:
    """The verdicts on many responses, in their order, from one pool of processes: what hangs or allocates without bound is its own loss.

    All rows are checked before the first verdict. Equal answers to one question are judged once.

    Args:
      rows: dictionaries as in files for `jaxpolya verify` (docs/verdicts.md): `response`, and `answer`, `choices`, `tests` or `entry`; also
        `question`, `prompt`, `extraction`. A row's `kind` (or `verifier`) is one of ours by name, or a class or function of your own in
        person, which no file can bring; where a row has none, its fields tell.
      kind: who judges all rows instead, as in `verify_response`.
      verify: the pool's processes, deadline and memory, and what it accepts.
      pool: one that is at work already, which stays open: to start one takes seconds, too long for each step of a training.

    Returns:
      One verdict a row; `harness_error` says of a row that not its response failed, but the verifier (`detail`).

    Raises:
      InputError: a row can't be judged whatever its response is; the text names it.
      ConfigError: a kind of your own can't be one, a module that programs may import can't be had, or `verify` and `pool` are both given.
      MachineError: programs are to be judged, and no sandbox can be had.
    """
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise InputError(f"verify_responses: a list of dictionaries with response and answer is needed, not {rows!r:.60}")
    if verify is not None and pool is not None:
        raise ConfigError("verify_responses: a pool has its limits already; give verify or pool, not both")
    judged_by = None if kind is None else name_of(kind)
    items = [_item(row, number, judged_by) for number, row in enumerate(rows)]
    if not items:
        return []
    with contextlib.nullcontext(pool) if pool is not None else judging(verify) as judges:
        if any(item.kind == "code" for item in items):
            machine_weakness(judges.policy.modules)
        return judges.verify(items)


def _item(row: Any, number: int, kind: str | None) -> Item:
    where = f"verify_responses, row {number}"
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: a dictionary with response and answer is needed, not {row!r:.60}")
    own = row.get("kind") or row.get("verifier")
    in_person = None if kind is not None or own is None or isinstance(own, str) else name_of(own)
    try:
        return item_of(row, where, kind or in_person)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def judging(verify: VerifyConfig | None) -> Pool:
    """A verifier pool."""
    limits = verify or VerifyConfig()
    policy = Policy(unevaluated=limits.math.unevaluated, modules=tuple(limits.code.modules))
    return Pool(limits.workers, limits.deadline, limits.memory_mb, policy)
