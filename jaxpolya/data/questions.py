"""Question sources: JSON lines, hub data sets, TFDS builders, reasoning-gym generators and users' functions, all giving the same record.

A source is read whole, cleaned, and only then shuffled, skipped and cut. So `limit: 100` is 100 usable questions, and two uses
of one source (`limit: 1000` here, `skip: 1000` there) share none, not even as a repeated text: some published sets hold
every question many times over. Joining comes last and drops what an earlier source already asked.

Two kinds of trouble are kept apart. A row that says nothing usable (an empty answer, no `####`, an answer that is none of the
choices) is data as it comes: it is dropped, and `Loaded.dropped` counts why. A row that shows that the *configuration* is
wrong (a column that isn't there, code without tests, a broken line) stops the run with the row, the columns there are, and
what to write instead. A source that ends up empty always stops it.

Ids have to be stable, since generated responses, verdicts and plots refer to them: a source's own id, else the source's name
and the row's place in it *before* shuffling. Choice answers become the letter whatever they were. reasoning-gym's entries are
made plain JSON here, because verifier workers read them from a pipe.

This module doesn't import jax; the readers' libraries are imported when a source needs them.
"""

import collections
import dataclasses
import difflib
import enum
import json
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from jaxpolya import doors
from jaxpolya.config import AnySource, ColumnSource, GymSource, HubSource, JsonlSource, Ours, PythonSource, TfdsSource
from jaxpolya.data import programs
from jaxpolya.data.choices import NotAChoice, letter_of, read_choices
from jaxpolya.data.python_source import read_own
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import Extraction, Kind, Question, iter_json
from jaxpolya.verify.code import BadTests, read
from jaxpolya.verify.gym import refused
from jaxpolya.verify.gym_rules import FORMULAS
from jaxpolya.verify.kinds import bring, is_own, verifier_of


@dataclasses.dataclass(frozen=True)
class LoadedQuestions:
    """The questions of some sources, in order, and how many rows were left out for which reason."""

    questions: list[Question]
    dropped: dict[str, int]


@dataclasses.dataclass(frozen=True)
class _Row:
    """A raw row: its cells, its stable number, and where a person finds it."""

    cells: Mapping[str, Any]
    number: int
    where: str


class _Unusable(Exception):
    """A row to leave out; the message is the reason that is counted."""


def load_questions(sources: Sequence[AnySource]) -> LoadedQuestions:
    """The questions of all sources, joined in their order; ids are unique, and no question is asked twice.

    Raises `InputError` for a source that is missing, unreadable, misses a column, or has no usable question left, and
    `ConfigError` for an unknown reasoning-gym generator or parameter.
    """
    dropped: collections.Counter[str] = collections.Counter()
    questions: dict[str, Question] = {}
    asked: set[str] = set()
    for source in sources:
        for question in _cut(source, _clean(source, dropped)):
            if (key := _asks(question)) in asked:
                dropped["repeated question"] += 1
                continue
            asked.add(key)
            unique = _unused(question, questions)
            questions[unique] = dataclasses.replace(question, id=unique)
    return LoadedQuestions(list(questions.values()), dict(dropped))


def _clean(source: AnySource, dropped: collections.Counter[str]) -> list[Question]:
    """A source's usable questions without repeats, in its own order; counts the others in `dropped`."""
    name = source_name(source)
    questions: dict[str, Question] = {}
    lost: collections.Counter[str] = collections.Counter()
    # Without a shuffle, what comes after the last question that is kept decides nothing: a user's function may go on for ever.
    enough = source.skip + source.limit if isinstance(source, PythonSource) and source.limit and source.shuffle is None else None
    for row in _read(source, name):
        try:
            question = _gym_question(source, name, row) if isinstance(source, GymSource) else _question(source, name, row)
            _require_finite(question)
        except (_Unusable, NotAChoice) as reason:
            lost[str(reason)] += 1
            continue
        if questions.setdefault(_asks(question), question) is not question:
            lost["repeated question"] += 1
        if len(questions) == enough:
            break
    if not questions:
        why = ", ".join(f"{count} × {reason}" for reason, count in lost.items())
        raise InputError(f"{_place(source)} has no usable question" + (f": left out {why}" if why else "; it is empty"))
    dropped.update(lost)
    return list(questions.values())


def _require_finite(question: Question) -> None:
    """Raises `_Unusable` where a test or an entry holds NaN or an infinity: records are JSON, which has neither."""
    try:
        json.dumps([question.tests, question.entry], allow_nan=False)
    except ValueError:
        raise _Unusable("a number that is not finite") from None


def _cut(source: AnySource, questions: list[Question]) -> list[Question]:
    """The source's questions after `shuffle`, `skip` and `limit`."""
    if source.shuffle is not None:
        random.Random(source.shuffle).shuffle(questions)
    if source.skip >= len(questions):
        raise InputError(f"{_place(source)}: skip {source.skip} leaves nothing of its {len(questions)} usable questions")
    return questions[source.skip :][: source.limit]


def _asks(question: Question) -> str:
    """What makes two questions the same: all that the model is shown, up to white space (two tasks may differ in their tests only)."""
    shown = [question.context, question.question, *(question.choices or ())]
    return json.dumps([" ".join((text or "").split()) for text in shown] + [question.tests])


def _unused(question: Question, used: Mapping[str, Question]) -> str:
    """The question's id, else the id below its source's name, else with the first free number."""
    if question.id not in used:
        return question.id
    base = unique = f"{question.source}/{question.id}"
    number = 2
    while unique in used:
        unique, number = f"{base}~{number}", number + 1
    return unique


# Readers: rows of each kind of source --------------------------------------------------------------------------------------


def source_name(source: AnySource) -> str:
    """A short name for a source, such as `gsm8k_train`, `openai/gsm8k/main/train` or `chain_sum-seed7`."""
    if isinstance(source, JsonlSource):
        return source.path.stem
    if isinstance(source, GymSource):
        return f"{source.name}-seed{source.seed}"
    if isinstance(source, PythonSource):
        return source.source.rpartition(":")[2]
    if isinstance(source, HubSource):
        return "/".join([source.name.rstrip("/"), *([source.subset] if source.subset else []), source.split])
    return f"{source.name.rstrip('/')}/{source.split}"


def _place(source: AnySource) -> str:
    if isinstance(source, JsonlSource):
        return str(source.path)
    return f"{source.kind} source {source.source if isinstance(source, PythonSource) else source_name(source)}"


def _read(source: AnySource, name: str) -> Iterator[_Row]:
    if isinstance(source, JsonlSource):
        return _read_jsonl(source)
    if isinstance(source, PythonSource):
        return (_Row(cells, number, where) for number, where, cells in read_own(source, _place(source)))
    rows: Iterable[Mapping[str, Any]]
    if isinstance(source, HubSource):
        rows = _open_hub(source)
    elif isinstance(source, TfdsSource):
        rows = _open_tfds(source)
    else:
        rows = _open_gym(source)
    return (_Row(cells, number, f"{name}, row {number}") for number, cells in enumerate(rows))


def _read_jsonl(source: JsonlSource) -> Iterator[_Row]:
    if not source.path.is_file():
        what = "is a directory; name a JSON-lines file, or use `kind: hub`" if source.path.is_dir() else "is not there; check the path"
        raise InputError(f"question file {source.path} {what}")
    return (_Row(cells, line, f"{source.path}:{line}") for line, cells in iter_json(source.path, nan_is_null=True))


def _open_hub(source: HubSource) -> Iterable[Mapping[str, Any]]:
    path = Path(source.name)
    if path.is_file():
        raise InputError(f"{path} is a file; name its directory, or use `kind: jsonl` for JSON lines")
    local = path.is_dir()
    if not local and (path.is_absolute() or source.name.startswith((".", "~")) or source.name.count("/") > 1):
        raise InputError(f"data set directory {path} is not there; check the path")

    import datasets

    try:
        return datasets.load_dataset(source.name, source.subset, split=source.split, revision=None if local else source.revision)
    except Exception as error:  # `datasets` raises whatever the file system, the network or a parser raised
        remedy = (
            "mend the files, or name another subset or split"
            if local
            else "check name, subset and split; a gated set needs `hf auth login` or HF_TOKEN; without a network, name a local directory "
            "of its parquet or JSON-lines files instead, or set HF_HUB_OFFLINE=1 to use what HF_HOME has cached"
        )
        raise InputError(f"data set {source_name(source)} can't be loaded: {_first_line(error)}\n  {remedy}") from error


def _open_tfds(source: TfdsSource) -> Iterable[Mapping[str, Any]]:
    import tensorflow_datasets as tfds

    path = Path(source.name)
    try:
        if path.is_dir() or "://" in source.name:
            builder = tfds.builder_from_directory(source.name)
        else:
            # Only ArrayRecord and Parquet files are read without TensorFlow.
            builder = tfds.builder(source.name, data_dir=source.data_dir, file_format="array_record")
            builder.download_and_prepare()
        return builder.as_data_source(split=source.split)
    except Exception as error:  # as with `datasets`: anything from a bad name to a failed download
        if path.is_dir() and (prepared := sorted(path.glob("**/dataset_info.json"))):
            hint = f"name a prepared directory itself, such as {prepared[0].parent}"
        elif isinstance(error, tfds.core.DatasetNotFoundError):
            close = difflib.get_close_matches(source.name, tfds.list_builders(with_community_datasets=False), n=3, cutoff=0.5)
            hint = (f"nearest known builders: {', '.join(close)}; " if close else "") + "or name a prepared directory"
        else:
            hint = "check name, data_dir and split; it must be prepared as ArrayRecord or Parquet, or be downloadable from here"
        raise InputError(f"TFDS data set {source_name(source)} can't be loaded: {_first_line(error)}\n  {hint}") from error


# reasoning-gym makes question i from its seed + i: seeds 0 and 1 would share all questions but one, and evaluation would ask what
# training has shown. Our seeds are that far apart.
_GYM_STRIDE = 1_000_000

# Generators of reasoning-gym 0.1.25 whose questions for one seed change with Python's hash seed or global random state, that is
# from process to process (found by making 40 questions of every generator in three processes): hosts would disagree, and a
# resumed run would go on with other questions under the old ids.
_UNREPEATABLE = {
    "codeio",
    "intermediate_integration",
    "isomorphic_strings",
    "knight_swap",
    "list_functions",
    "polynomial_multiplication",
    "ransom_note",
    "word_ladder",
}


def _open_gym(source: GymSource) -> Iterable[Mapping[str, Any]]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if source.name not in DATASETS:
        close = difflib.get_close_matches(source.name, DATASETS, n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(close)}" if close else f"there are {', '.join(sorted(DATASETS))}"
        raise ConfigError(f"reasoning_gym has no generator {source.name!r}; {hint}")
    if source.name in _UNREPEATABLE:
        raise ConfigError(
            f"reasoning_gym's {source.name} makes other questions in every process, so a run could not be resumed; use another one"
        )
    if (reason := refused(source.name)) and source.verifier in (None, "reasoning_gym"):
        raise ConfigError(f"{reason}; use another one")
    if source.name in FORMULAS and source.verifier == "math":
        raise ConfigError(
            f"reasoning_gym's {source.name} asks for a formula with a given value, and mathematics compares values; leave `verifier` unset"
        )
    known = sorted({field.name for field in dataclasses.fields(DATASETS[source.name][1])} - {"seed", "size"})
    if unknown := sorted(set(source.params) - set(known)):
        raise ConfigError(f"reasoning_gym's {source.name} has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    try:
        return list(reasoning_gym.create_dataset(source.name, seed=_GYM_STRIDE * source.seed, size=source.size, **source.params))
    except Exception as error:  # generators check their parameters by assertions, or trip over them while making questions
        raise ConfigError(f"reasoning_gym's {source.name} can't work with params {source.params}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


_BRACES = re.compile(r"\{([\w.]+)\}")

# From a row to a question --------------------------------------------------------------------------------------------------


def _gym_question(source: GymSource, name: str, row: _Row) -> Question:
    """The question of a reasoning-gym entry. An entry may have no answer: its scorer then judges by the metadata."""
    if source.verifier in ("choice", "code"):
        raise ConfigError(
            f"reasoning_gym's questions have no {'choices' if source.verifier == 'choice' else 'tests'}; leave `verifier` unset"
        )
    named = source.verifier and bring(source.verifier, f"{_place(source)}: verifier")
    entry = _plain(row.cells)
    if row.number == 0:
        _check_scorer(source.name, row.cells, entry)
    answer, verifier = _text(entry["answer"], "answer", row), named or "reasoning_gym"
    if not answer and verifier in ("math", "choice"):
        raise _Unusable("empty answer")
    made = Question(
        id=f"{name}-{row.number}",
        question=entry["question"].strip(),
        answer=answer,
        verifier=verifier,
        extraction=source.extraction or "statement",
        entry=entry,
        source=name,
    )
    if is_own(verifier):
        _require_judgeable(made, row)
    return made


def _check_scorer(generator: str, entry: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    """Refuses a generator whose scorer turns its own answer down once the entry has been JSON (tuples have become lists)."""
    import reasoning_gym

    score = reasoning_gym.get_score_answer_fn(generator)
    if score(entry["answer"], entry) != score(plain["answer"], plain):
        raise ConfigError(f"reasoning_gym's {generator} can't be used: its scorer needs Python objects that JSON records don't keep")


def _question(source: ColumnSource, name: str, row: _Row) -> Question:
    """The question in a row of columns. Raises `_Unusable` for one to leave out, `InputError` for one that shows a mistake."""
    choices_cell = _plain(_cell(source, row, "choices"))
    verifier = _verifier(source, row) or ("choice" if choices_cell else "math")
    own = is_own(verifier)
    question = _text(_cell(source, row, "question", needed=True), "question", row, keep_space=verifier == "code")
    answer_cell = _plain(_cell(source, row, "answer", needed=verifier != "code" and not own))
    answer = _text(answer_cell, "answer", row, keep_space=verifier == "code")
    if not question.strip():
        raise _Unusable("empty question")
    if not answer and verifier != "code" and not own:
        raise _Unusable("empty answer")
    if source.answer_after and not (answer := _after(answer, source.answer_after)):
        raise _Unusable(f"no answer after {source.answer_after}")
    if source.answer_pattern:
        matched = re.fullmatch(source.answer_pattern, answer)
        if matched is None or not (answer := (matched[1] or "").strip()):
            raise _Unusable("answer of another form")

    labels, choices = read_choices(choices_cell) if choices_cell else ([], None)
    if verifier == "choice":
        if not choices:
            raise InputError(f"{row.where}: a multiple-choice question without choices; {_mapping(source, row, 'choices')}")
        answer = letter_of(answer, labels, choices, is_index=isinstance(answer_cell, int))
    tests = _tests(source, row, question) if verifier == "code" else _plain(_cell(source, row, "tests"))
    entry = row.cells.get("entry") if verifier == "reasoning_gym" else None
    if verifier == "reasoning_gym" and not isinstance(entry, dict):
        raise InputError(
            f"{row.where}: the verifier reasoning_gym needs the generator's `entry`; use `kind: reasoning_gym`, or another verifier"
        )
    if own:
        entry = _further(source, row)
    made = Question(
        id=_text(_cell(source, row, "id"), "id", row) or f"{name}-{row.number}",
        question=question,
        answer=answer,
        verifier=verifier,
        extraction=source.extraction or _named(row, "extraction", Extraction) or "statement",
        choices=choices,
        context=_text(_cell(source, row, "context"), "context", row) or None,
        tests=tests or None,
        entry=entry,
        source=name,
    )
    if own:
        _require_judgeable(made, row)
    return made


def _verifier(source: ColumnSource, row: _Row) -> str | None:
    """What judges a row: the source's verifier, which may be a user's own, or a name of ours that the row holds."""
    if source.verifier:
        return bring(source.verifier, f"{row.where}: verifier")
    named = _plain(row.cells.get("verifier"))
    if isinstance(named, str) and doors.is_reference(named):
        raise InputError(f"{row.where}: verifier is {named!r}, and a row names one of ours; name your own in the configuration")
    return cast(str | None, _named(row, "verifier", Kind))


def _further(source: ColumnSource, row: _Row) -> dict[str, Any] | None:
    """What a question of a user's kind has beside our columns: the row's own `entry`, or all that no column took."""
    if isinstance(entry := _plain(row.cells.get("entry")), dict):
        return entry
    taken = {source.columns.get(name, name) for name in get_args(Ours)} | {"verifier", "extraction", "source", "entry"}
    return {str(name): _plain(cell) for name, cell in row.cells.items() if name not in taken} or None


def _require_judgeable(question: Question, row: _Row) -> None:
    """Raises `InputError` where a user's kind says that it can't judge a question, or fails on it."""
    try:
        problem = verifier_of(question.verifier).problem(question)
    except Exception as error:
        problem = _first_line(error)
    if problem:
        raise InputError(f"{row.where}: {question.verifier.partition('@')[0]} can't judge it: {problem}")


def question_of(cells: Mapping[str, Any], number: int, where: str) -> Question:
    """The question in a caller's own record, whose keys are our names of columns. Raises `InputError` where it can't be asked or judged.

    Args:
      cells: the record; its `verifier` may be a kind of the caller's own in person, which no file can bring.
      number: its place, which makes an id where it has none.
      where: what errors begin with.
    """
    judged_by = cells.get("verifier")
    try:
        source = ColumnSource() if judged_by is None or isinstance(judged_by, str) else ColumnSource(verifier=doors.spelled(judged_by))
        question = _question(source, "record", _Row(cells, number, where))
        _require_finite(question)
    except doors.Unfound as error:
        raise InputError(f"{where}: verifier: {error}") from None
    except (_Unusable, NotAChoice) as reason:
        raise InputError(f"{where}: {reason}") from None
    return question


def _tests(source: ColumnSource, row: _Row, question: str) -> Any:
    """The tests of a code question. Raises `_Unusable` where there are none, `InputError` for what no program can be judged by."""
    where = programs.column(row.cells)
    tests = _plain(_cell(source, row, "tests", needed=True) if "tests" in source.columns or where == "tests" else row.cells[where])
    if not tests:
        raise _Unusable("empty tests")
    tests = programs.assemble(tests, {name: _plain(cell) for name, cell in row.cells.items()}, question)
    try:
        read(tests)
    except BadTests as error:
        raise InputError(f"{row.where}: {error}") from None
    return tests


def _cell(source: ColumnSource, row: _Row, ours: Any, needed: bool = False) -> Any:
    """The cell of one of our columns, None where a column that nobody asked for is absent."""
    column = source.columns.get(ours, ours)
    try:
        return look_up(row.cells, column)
    except KeyError as missing:
        if not needed and ours not in source.columns:
            return None
        raise InputError(f"{row.where}: there is no column {missing.args[0]!r}; {_mapping(source, row, ours)}") from None


def look_up(cells: Mapping[str, Any], column: str) -> Any:
    """What a row holds under a column's name, `a.b` (nested), `a.0` (an item of a list), or a text with columns in braces.

    Lists in a text are written one item a line. Raises `KeyError` with the name of a column that isn't there.
    """
    if column in cells:
        return cells[column]
    if _BRACES.search(column):
        return _BRACES.sub(lambda match: _in_text(look_up(cells, match[1])), column)
    cell: Any = cells
    for part in column.split("."):
        cell = _plain(cell) if not isinstance(cell, Mapping) else cell
        if isinstance(cell, list) and part.isdecimal() and int(part) < len(cell):
            cell = cell[int(part)]
        elif isinstance(cell, Mapping) and part in cell:
            cell = cell[part]
        else:
            raise KeyError(column)
    return cell


def _in_text(value: Any) -> str:
    value = _plain(value)
    return "\n".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _mapping(source: ColumnSource, row: _Row, ours: Any) -> str:
    """What to write in `columns` for one of our names, given the columns that a row has."""
    there = [str(column) for column in row.cells]
    close = difflib.get_close_matches(source.columns.get(ours, ours), there, n=1, cutoff=0.5)
    return f"the row has {', '.join(there) or 'none'}; say which with `columns: {{{ours}: {close[0] if close else '…'}}}`"


def _named(row: _Row, column: str, kind: Any) -> Any:
    """A row's own verifier or extraction, None where it names none."""
    value = _plain(row.cells.get(column))
    if value is not None and value not in get_args(kind):
        raise InputError(f"{row.where}: {column} is {value!r}, not one of {', '.join(get_args(kind))}")
    return value


def _text(value: Any, column: str, row: _Row, keep_space: bool = False) -> str:
    """A cell as text: numbers as they are written, a list of one as its element, nothing as the empty string."""
    value = _plain(value)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, float) and math.isnan(value)):  # tables say "nothing" in both ways
        return ""
    if not isinstance(value, str | int | float):
        raise InputError(f"{row.where}: {column} holds a {type(value).__name__} ({str(value)[:60]}); a text or a number is needed")
    return str(value) if keep_space else str(value).strip()


def _after(answer: str, mark: str) -> str:
    return answer.rpartition(mark)[2].strip() if mark in answer else ""


# JSON ----------------------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """The value in JSON's own types: bytes are UTF-8 text, arrays, tuples and sets lists, dataclasses objects, the rest as printed."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        return _plain(value.tolist())
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=repr)
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return str(value)
