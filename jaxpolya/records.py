"""The records that stages hand to each other, and the JSON-lines files that hold them.

Everything that a stage learns is written as one JSON object a line, so that a person can read it, `datasets` can load it, and
a killed process loses at most the line that it was writing. `None` fields are left out. Readers name the file and the line
of whatever they cannot read. JSON is the standard's: it has no NaN and no Infinity, which other readers refuse, and a record that
holds one is never written. A torn last line (the mark of a kill) is the one thing that `Appender` mends by itself.

Lines are many and long (a log-prob a token), so orjson reads and writes them, 7 and 15 times as fast as the standard library, whose module
sees to whatever orjson takes otherwise: NaN, numbers beyond 64 bits, half characters.

This module imports neither jax nor numpy: verifier workers read records too.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import orjson

from jaxpolya.errors import InputError, RunError, nearest_path

Kind = Literal["math", "choice", "code", "reasoning_gym"]
Extraction = Literal["boxed", "statement", "number", "tag"]
VerdictName = Literal["correct", "wrong", "unparseable", "timeout", "crash", "harness_error"]
Finish = Literal["stop", "length"]
Unevaluated = Literal["refuse", "accept"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A dataclass that travels as one JSON object."""

    def to_json(self) -> dict[str, Any]:
        """This record as a JSON object, without its `None` fields."""
        return {name: value for name in _NAMES(type(self)) if (value := getattr(self, name)) is not None}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """The record in a JSON object. Raises `InputError` on unknown or missing fields."""
        known = _NAMES(cls)
        if unknown := sorted(row.keys() - known):
            raise InputError(f"a {cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        try:
            return cls(**row)
        except TypeError as error:
            raise InputError(f"not a {cls.__name__}: {error}") from None


_NAMES: Callable[[Any], dict[str, None]] = functools.cache(lambda kind: dict.fromkeys(field.name for field in dataclasses.fields(kind)))
"""The fields of a dataclass, in their order; `dataclasses.fields` looks anew for each record."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question(Record):
    """One question with what it takes to judge an answer.

    `verifier` names the judge (a `Kind`, or one of the user's own as `verify.kinds` calls it), `extraction` how the answer is found in a
    response (see `verify.extract`). `choices` are the texts of a multiple-choice question (A, B, … in order); `context` is a narrative
    that precedes the question; `tests` belongs to code; `entry` is reasoning-gym's own entry, which its scorers need (with
    `metadata.source_dataset`), or what a question of the user's own kind has beside the other fields.
    """

    id: str
    question: str
    answer: str
    verifier: str = "math"
    extraction: Extraction = "statement"
    choices: list[str] | None = None
    context: str | None = None
    tests: Any = None
    entry: dict[str, Any] | None = None
    source: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """What the verifier says of one response.

    `correct` pays 1; `wrong`, `unparseable`, and `timeout` or `crash` that the response caused pay 0; `harness_error` is ours
    and is masked wherever rewards are used. A verifier that gives partial credit says in `score`, from 0 to 1, what is paid instead; 1 is
    `correct`, and anything less is not.
    """

    PAYS: ClassVar[dict[str, float | None]] = {
        "correct": 1.0, "wrong": 0.0, "unparseable": 0.0, "timeout": 0.0, "crash": 0.0, "harness_error": None,
    }  # fmt: skip

    LIMITED: ClassVar = ("timeout", "crash")
    """What larger limits may turn into another verdict."""

    verdict: VerdictName
    extracted: str | None = None
    seconds: float = 0.0
    detail: str | None = None
    score: float | None = None

    @property
    def reward(self) -> float | None:
        """From 0 to 1, or None where the verdict is our failure and must be masked."""
        return self.score if self.score is not None and self.PAYS[self.verdict] is not None else self.PAYS[self.verdict]


class VerdictRecord:
    """What a record with a verdict can tell. A `timeout` or `crash` belongs to the verifier's limits, which stand beside it: `deadline`
    in seconds, and `memory_mb`."""

    question_id: str
    verdict: VerdictName | None
    detail: str | None
    deadline: float | None
    memory_mb: int | None

    def outgrown(self, deadline: float, memory_mb: int) -> bool:
        """Whether the verdict was cut short by smaller limits than these: it has to be found again."""
        return self.verdict in Verdict.LIMITED and (deadline > (self.deadline or 0) or memory_mb > (self.memory_mb or 0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(VerdictRecord, Record):
    """One response to one question, with its verdict once it has one.

    `index` counts the samples of one prompt from 0. `response` is the text as the model wrote it, control tokens by their names, without
    the stop token or stop string that ended it. The verdict is on this text, behind the tag of a thought that the prompt opened
    (`verify.speech.opened_thought`). `token_ids` and `logprobs` cover the response, its stop token included;
    log-probs are natural logs under the temperature-scaled full-vocabulary distribution that the token was drawn from.
    `step`, `reward` and `advantage` belong to RL rollouts.
    """

    id: str
    question_id: str
    arm: str
    stage: str
    index: int
    prompt: str
    response: str
    token_ids: list[int]
    logprobs: list[float]
    finish: Finish
    seed: int
    heuristic: str | None = None
    slot: int | None = None
    verdict: VerdictName | None = None
    extracted: str | None = None
    seconds: float | None = None
    detail: str | None = None
    score: float | None = None
    deadline: float | None = None
    memory_mb: int | None = None
    step: int | None = None
    reward: float | None = None
    advantage: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftRow(Record):
    """One fine-tuning instance: the bare question's prompt and a response to learn.

    `prompt_ids` and `token_ids` are what is learned: the tokens of the prompt, and those of the response with the token that ends a turn.
    `prompt` and `response` are for people.
    """

    question_id: str
    prompt: str
    response: str
    prompt_ids: list[int] | None = None
    token_ids: list[int] | None = None
    heuristic: str | None = None
    slot: int | None = None
    adherence: float | None = None
    source: str = ""

    @property
    def length(self) -> int:
        """Tokens of prompt and response. Raises `InputError` for a row without them."""
        if not self.prompt_ids or not self.token_ids:
            raise InputError(
                f"a fine-tuning row of question {self.question_id} has no prompt_ids or token_ids, as an older jaxpolya wrote them; delete "
                "the select stage's directory to have the rows selected again"
            )
        return len(self.prompt_ids) + len(self.token_ids)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON's")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_LARGE = re.compile(r"[eE]\+?\d{3}|\d{300}")
"""What a number that is read as infinite looks like; few lines have it."""


_DIGITS = bytes(byte if byte == ord(".") else ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
_LONG = b" " + b"0" * 19
"""What a whole number beyond 64 bits looks like under `_DIGITS`; orjson would read it as a float."""


def _quick(text: str) -> Any:
    """The value of a JSON text as orjson reads it; None where the standard library may read it otherwise."""
    try:
        line = text.encode()
        return None if _LONG in (b" " + line).translate(_DIGITS) else orjson.loads(line)
    except (UnicodeEncodeError, orjson.JSONDecodeError):
        return None


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises `ValueError` where it isn't the standard's: NaN, Infinity, and numbers too large for a float."""
    value = _quick(text)
    return _strict(text) if value is None else value


def _strict(text: str) -> Any:
    """The same as the standard library reads it."""
    value = _DECODER.decode(text)
    if _LARGE.search(text):
        json.dumps(value, allow_nan=False)
    return value


def write_json(value: Any, what: str, **options: Any) -> str:
    """A value as standard JSON; `options` are `json.dumps`'. Raises `RunError` that names `what` where a number in it is not finite."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except ValueError as error:
        raise RunError(f"{what} holds a number that is not finite, and is not written ({error})") from None


RecordT = TypeVar("RecordT", bound=Record)
_SURROGATES = re.compile("[\ud800-\udfff]")


def iter_json(
    path: str | os.PathLike[str], name: str | None = None, *, mend: bool = False, nan_is_null: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of every line of a JSON-lines file.

    Raises `InputError` that names the line, and the file (as `name`, where the path means nothing to the user). A lone surrogate, the
    half of a character that JSON can escape and no text can hold, is an error too; with `mend` it becomes U+FFFD. So are NaN and
    Infinity, which other programs write for a missing value: with `nan_is_null` they become None.
    """
    path, name = Path(path), name or str(path)
    try:
        with path.open(encoding="utf-8", errors="surrogatepass" if mend else "strict") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    if (row := _quick(line)) is not None and isinstance(row, dict):
                        yield number, row
                        continue
                    row = json.loads(line, parse_constant=lambda _: None) if nan_is_null else _strict(line)
                    if "\\u" in line or _SURROGATES.search(line):
                        text = json.dumps(row, ensure_ascii=False)
                        if broken := _SURROGATES.search(text):
                            row = json.loads(_SURROGATES.sub("\ufffd", text))
                        if broken and not mend:
                            raise InputError(f"{name}:{number}: a text holds a lone surrogate (\\ud800 … \\udfff); mend or delete the line")
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{name}:{number}: not JSON ({error}); mend or delete the line") from None
                if not isinstance(row, dict):
                    raise InputError(f"{name}:{number}: a JSON object is needed, not {type(row).__name__}")
                yield number, row
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not a UTF-8 text file ({error.reason})") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a directory; name a file of JSON lines") from None
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or error}{nearest_path(path)}") from None


def read_records(path: str | os.PathLike[str], kind: type[RecordT]) -> list[RecordT]:
    """All records of a JSON-lines file. Raises `InputError` that names file and line."""
    records = []
    for number, row in iter_json(path):
        try:
            records.append(kind.from_json(row))
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
    return records


def write_records(path: str | os.PathLike[str], records: Iterable[Record | dict[str, Any]]) -> int:
    """Writes records to a JSON-lines file, whole or not at all (write aside, rename). Returns their number."""
    path, count = Path(path), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", encoding="utf-8") as out:
        for record in records:
            out.write(dump(record))
            count += 1
    aside.replace(path)
    return count


_UNSURE = b"null"
_AS_JSON = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
"""Of what the standard library wouldn't write, orjson leaves but members of an `Enum` and UUIDs."""


def dump(record: Record | dict[str, Any]) -> str:
    """One line of a JSON-lines file."""
    row = record.to_json() if isinstance(record, Record) else record
    try:
        line = orjson.dumps(row, option=_AS_JSON)
    except TypeError:
        line = _UNSURE
    if _UNSURE in line:  # orjson writes NaN as null
        return write_json(row, str(row.get("id", "a record")), separators=(",", ":")) + "\n"
    return line.decode() + "\n"


class Appender:
    """Appends records to a JSON-lines file; they are on disk (with the kernel) before `append` returns.

    Opening cuts off a torn last line, which is what a kill in mid-write leaves behind.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            size = file.tell()
            while size:
                start = max(0, size - 65536)
                file.seek(start)
                if (newline := file.read(size - start).rfind(b"\n")) >= 0:
                    size = start + newline + 1
                    break
                size = start
            file.truncate(size)
        self._file = self.path.open("a", encoding="utf-8")

    def append(self, *records: Record | dict[str, Any]) -> None:
        """Adds records."""
        self._file.write("".join(map(dump, records)))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
