"""Grading a file of answers: `{id, response, answer | tests | choices}` in, `{id, verdict, extracted}` out, in the same order.

The whole input is checked before the first verdict, so that a broken line is found in seconds and not after an hour. The
output is written aside and renamed, so that it is whole or not there, and an older one stays until then.
"""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, get_args

from jaxpolya.errors import InputError, MachineError
from jaxpolya.records import Extraction, Kind, Verdict, dump, iter_json
from jaxpolya.verify.judge import Item, problem
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.sandbox import machine_weakness

IN_FLIGHT = 512
"""Rows that are read ahead of the oldest one that has no verdict yet."""


def verify_file(
    source: Path,
    out: Path,
    *,
    kind: Kind | None = None,
    workers: int | None = None,
    deadline: float = 10.0,
    memory_mb: int = 2048,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Grades a JSON-lines file of answers.

    A row needs `id` and `response`, and `answer` (with `choices` for multiple choice), `tests` or reasoning-gym's `entry`. `kind` or
    `verifier` names its judge, else the fields tell; the argument `kind` overrides both. `extraction` names its style. Other fields
    are ignored. `progress` is called with (rows done, rows in all).

    Returns `rows`, `seconds`, `rows_per_second`, `verdicts` (the count of each verdict), and `sandbox`: what the sandbox does not
    protect from on this machine, or None. Raises `InputError` that names file and line, with nothing written, and
    `MachineError` where the output can't be written or programs can't be run.
    """
    source, out = Path(source), Path(out)
    kinds = collections.Counter(item.kind for _, item in _items(source, kind))
    if not (total := kinds.total()):
        raise InputError(f"{source} has no rows; a row is a JSON object with id, response and answer")
    weakness = machine_weakness() if kinds["code"] else None
    counts: collections.Counter[str] = collections.Counter()
    waiting: collections.deque[tuple[Any, Future[Verdict]]] = collections.deque()
    aside = out.with_name(f".{out.name}.partial")
    start = time.monotonic()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # What UTF-8 can't hold (half of a surrogate pair) is written as JSON's own escape.
        with aside.open("w", encoding="utf-8", errors="backslashreplace") as file, Pool(workers, deadline, memory_mb) as pool:

            def write_oldest() -> None:
                name, future = waiting.popleft()
                verdict = future.result()
                file.write(dump({"id": name, "verdict": verdict.verdict, "extracted": verdict.extracted}))
                counts[verdict.verdict] += 1
                if progress:
                    progress(counts.total(), total)

            for name, item in _items(source, kind):
                waiting.append((name, pool.submit(item)))
                if len(waiting) >= IN_FLIGHT:
                    write_oldest()
            while waiting:
                write_oldest()
        aside.replace(out)
    except FileExistsError:
        raise MachineError(f"{out} can't be written: {out.parent} is no directory") from None
    except OSError as error:
        raise MachineError(f"{out} can't be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    seconds = time.monotonic() - start
    rate = total / max(seconds, 1e-9)
    return {"rows": total, "seconds": seconds, "rows_per_second": rate, "verdicts": dict(counts), "sandbox": weakness}


def _items(source: Path, kind: Kind | None) -> Iterator[tuple[Any, Item]]:
    """(id as written, item) of every row. Raises `InputError` that names file and line."""
    for number, row in iter_json(source):
        where = f"{source}:{number}"
        for name in ("id", "response"):
            if name not in row:
                raise InputError(f"{where}: the field {name} is missing; a row is {{id, response, answer | tests | choices}}")
        if not isinstance(row["id"], (str, int)) or not isinstance(row["response"], str):
            raise InputError(f"{where}: id must be a string or an integer, and response a string")
        item = Item(id=where, kind=_kind(row, kind, where), response=row["response"], **_reference(row, where))
        if trouble := problem(item):
            raise InputError(f"{where}: {trouble}")
        yield row["id"], item


def _kind(row: dict[str, Any], kind: Kind | None, where: str) -> Kind:
    """What judges a row: the caller's word, the row's, or what its fields are for."""
    named = kind or row.get("kind") or row.get("verifier")
    if named is None:
        named = "choice" if row.get("choices") else "code" if row.get("tests") else "reasoning_gym" if row.get("entry") else "math"
    if named not in get_args(Kind):
        raise InputError(f"{where}: {named!r} is not a kind of answer; use one of {', '.join(get_args(Kind))}")
    return named


def _reference(row: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of a row that its answer is judged by, checked."""
    answer = row.get("answer", "")
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise InputError(f"{where}: answer must be a string or a number, not {type(answer).__name__}")
    extraction = row.get("extraction") or "statement"
    if extraction not in get_args(Extraction):
        raise InputError(f"{where}: {extraction!r} is not a style of extraction; use one of {', '.join(get_args(Extraction))}")
    choices, entry = row.get("choices"), row.get("entry")
    if choices is not None and not (isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)):
        raise InputError(f"{where}: choices must be a list of strings")
    if entry is not None and not isinstance(entry, dict):
        raise InputError(f"{where}: entry must be an object, as reasoning-gym makes it")
    return {"answer": str(answer), "extraction": extraction, "choices": choices, "tests": row.get("tests"), "entry": entry}
