"""Records from a user's function: the door for question sources.

A function gives dictionaries, whose keys are the columns of a row, or `Question`s; they are cleaned and joined as the rows of files are.
It is called once, when the questions are first loaded: a run that goes on reads what it wrote then. A function may go on for ever where
`limit` says when it is enough and nothing is shuffled.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jaxpolya import doors
from jaxpolya.config import PythonSource
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import Question


def open_own(source: PythonSource, key: str) -> Callable[[], Iterable[Any]]:
    """What gives the records of a user's source. Raises `ConfigError`, which begins with `key`, where it can't be called so."""
    plugin = doors.bring(source.source, key)
    value, where = plugin.value, f"{key}: {plugin.name}"
    if not callable(value):
        if source.arguments:
            raise ConfigError(f"{where} is {doors.a(value)}, and takes no arguments; leave `arguments` away")
        if not isinstance(value, Iterable) or isinstance(value, str | Mapping | Iterator):
            raise ConfigError(f"{where} is {doors.a(value)}; a function that gives records, or a list of them, was expected")
        return lambda: value
    takes = doors.parameters(value, where)
    try:
        inspect.signature(value).bind(**source.arguments)
    except TypeError as error:
        raise ConfigError(f"{where} takes ({', '.join(map(str, takes.values()))}), and `arguments` don't fit: {error}") from None
    return functools.partial(value, **source.arguments)


def read_own(source: PythonSource, place: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """(number from 0, where a person finds it, cells) of every record.

    Raises `InputError` that names the record where the function fails, or gives something else.
    """
    records, number = open_own(source, place), 0
    rows: Iterator[Any] | None = None
    while True:
        where = f"{place}, record {number}"
        try:
            rows = rows or iter(records())
            cells = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise InputError(f"{where}: {type(error).__name__}: {error}".strip().splitlines()[0]) from error
        if isinstance(cells, Question):
            cells = cells.to_json()
        if not isinstance(cells, Mapping):
            raise InputError(f"{where} is {doors.a(cells)}; a dictionary with a question and an answer, or a Question, was expected")
        yield number, where, cells
        number += 1
