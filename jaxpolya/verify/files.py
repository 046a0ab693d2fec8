"""Grading a file of answers: `{id, response, answer | tests | choices, …}` in, `{id, verdict, extracted, score?, detail?}` out, in order.

The whole input is checked before the first verdict, so that a broken line is found in seconds and not after an hour; a pipe, which
can't be read twice, is copied to a temporary file first. The output is written aside and renamed, so that it is whole or not there,
and an older one stays until then.
"""

import collections
import contextlib
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from jaxpolya.errors import ConfigError, InputError, MachineError
from jaxpolya.records import Verdict, dump, iter_json
from jaxpolya.verify.judge import DEFAULT, Item, Policy
from jaxpolya.verify.kinds import name_of
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.rows import item_of
from jaxpolya.verify.sandbox.sandbox import machine_weakness

IN_FLIGHT = 512
"""Rows that are read ahead of the oldest one that has no verdict yet."""


def verify_file(
    source: Path,
    out: Path,
    *,
    kind: Any = None,
    workers: int | None = None,
    deadline: float = 10.0,
    memory_mb: int = 2048,
    policy: Policy = DEFAULT,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Grades a JSON-lines file of answers.

    A row has an `id`, and what `rows.item_of` reads; other fields are ignored. The argument `kind` overrides a row's own, and may be a
    user's (`kinds`: a reference, or in Python the class or function itself). Half a character (a lone surrogate), which no output could
    hold, is read as U+FFFD.

    `progress` is called with (rows done, rows in all).

    Returns `rows`, `seconds`, `rows_per_second`, `verdicts` (the count of each verdict), and `sandbox`: what the sandbox does not
    protect from on this machine, or None. Raises `InputError` that names file and line, with nothing written, `ConfigError` where the
    output can't be a file of its own or a module of the policy can't be had, and `MachineError` where the output can't be written or
    programs can't be run.
    """
    out = _target(Path(source), Path(out))
    judged_by = None if kind is None else name_of(kind)
    with _rereadable(Path(source)) as readable:

        def items() -> Iterator[tuple[Any, Item]]:
            return _items(readable, str(source), judged_by)

        kinds = collections.Counter(item.kind for _, item in items())
        if not (total := kinds.total()):
            raise InputError(f"{source} has no rows; a row is a JSON object with id, response and answer")
        weakness = machine_weakness(policy.modules) if kinds["code"] else None
        return _grade(items(), total, out, functools.partial(Pool, workers, deadline, memory_mb, policy), progress) | {"sandbox": weakness}


def _target(source: Path, out: Path) -> Path:
    """The file to write, behind whatever links lead to it. Raises `ConfigError` where that is the source, or something else than a file."""
    if os.path.exists(out):
        if os.path.exists(source) and os.path.samefile(source, out):
            raise ConfigError(f"{out} is the input itself, and verdicts would replace it; name another output")
        if not os.path.isfile(out):
            raise ConfigError(f"{out} is {'a directory' if os.path.isdir(out) else 'not a regular file'}; name a file for the verdicts")
    return Path(os.path.realpath(out))


@contextlib.contextmanager
def _rereadable(source: Path) -> Iterator[Path]:
    """The source, or a copy of one that can be read only once, such as a pipe."""
    if not os.path.exists(source) or os.path.isfile(source) or os.path.isdir(source):
        yield source  # whoever opens it says what is wrong with it
        return
    with tempfile.NamedTemporaryFile() as copy:
        try:
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, copy)
            copy.flush()
        except OSError as error:
            raise MachineError(f"{source} can't be copied to {copy.name}: {error.strerror or error}") from None
        yield Path(copy.name)


def _grade(
    items: Iterator[tuple[Any, Item]], total: int, out: Path, make_pool: Callable[[], Pool], progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    """Writes the verdicts on checked items. Returns (but `sandbox`) and raises as `verify_file`."""
    counts: collections.Counter[str] = collections.Counter()
    waiting: collections.deque[tuple[Any, Future[Verdict]]] = collections.deque()
    aside = out.with_name(f".{out.name}.partial")
    start = time.monotonic()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file, make_pool() as pool:

            def write_oldest() -> None:
                name, future = waiting.popleft()
                verdict = future.result()
                extras = {field: value for field in ("score", "detail") if (value := getattr(verdict, field)) is not None}
                file.write(dump({"id": name, "verdict": verdict.verdict, "extracted": verdict.extracted, **extras}))
                counts[verdict.verdict] += 1
                if progress:
                    progress(counts.total(), total)

            for name, item in items:
                waiting.append((name, pool.submit(item)))
                if len(waiting) >= IN_FLIGHT:
                    write_oldest()
            while waiting:
                write_oldest()
        aside.replace(out)
    except FileExistsError:
        raise MachineError(f"{out} can't be written: {out.parent} is not a directory") from None
    except OSError as error:
        raise MachineError(f"{out} can't be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    seconds = time.monotonic() - start
    rate = total / max(seconds, 1e-9)
    return {"rows": total, "seconds": seconds, "rows_per_second": rate, "verdicts": dict(counts)}


def _items(path: Path, source: str, kind: str | None) -> Iterator[tuple[Any, Item]]:
    """(id as written, item) of every row. Raises `InputError` that names the file as the user did, and the line."""
    for number, row in iter_json(path, source, mend=True, nan_is_null=True):
        where = f"{source}:{number}"
        for name in ("id", "response"):
            if name not in row:
                raise InputError(f"{where}: the field {name} is missing; a row is {{id, response, answer | tests | choices}}")
        if not isinstance(row["id"], (str, int)):
            raise InputError(f"{where}: id must be a string or an integer")
        try:
            yield row["id"], item_of(row, where, kind)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
