"""Benchmarks by name: which questions, who judges the answers, and how an answer is found.

A benchmark is nothing but question sources (`config.AnySource`) with a judge and an extraction style laid over them, so that it is
loaded, cleaned, prompted and verified by the same code as every other question. `benchmarks.yaml` beside this file is the
registry; a user's own file adds to it, or replaces by key.

Where there is no network, a directory of local copies stands in for the hub. For a benchmark KEY it may hold

- `KEY.jsonl`: questions, one JSON object a line, under our own names with the bare answer (what `jaxpolya` writes as
  questions.jsonl), or under the data set's own names, as it was published. The first row tells which: a row under the published
  names has all columns that the registry maps, and the mark that precedes its answers.
- `KEY/`: a copy of the hub's repository, which `datasets` reads with the registry's subset, split and columns.

This module imports neither jax nor a reader's library.
"""

import difflib
import functools
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
import yaml
from pydantic import Field

from jaxpolya.config import AnySource, ColumnSource, HubSource, JsonlSource, Strict
from jaxpolya.config.file import read_yaml, validated
from jaxpolya.config.paths import place
from jaxpolya.data.questions import look_up
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import Extraction, Kind, iter_json

LIMIT_SEED = 0
"""Shuffles a benchmark's questions before a limit cuts them: the first ones of a published set are rarely like the rest."""


class Benchmark(Strict):
    """One entry of the registry."""

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Its name on the command line and in results."""
    title: str = Field(min_length=1)
    """Its name for people."""
    verifier: Kind
    """Who judges the answers."""
    extraction: Extraction = "statement"
    """How an answer is found in a response, and how the prompt says to end."""
    sources: list[AnySource] = Field(min_length=1)
    """Where the questions are; several sources are joined."""

    def questions(self, directory: Path | None = None, limit: int | None = None) -> list[AnySource]:
        """The sources to load, with this benchmark's verifier and extraction.

        Args:
          directory: local copies (see the module's docstring); what it lacks is taken from the registry's sources.
          limit: so many questions at most, drawn by `LIMIT_SEED` and spread evenly over the sources.

        Raises `InputError` where a local copy can't be read.
        """
        changes: dict[str, Any] = {"verifier": self.verifier, "extraction": self.extraction}
        sources = [source.model_copy(update=changes) for source in self._local(directory) or self.sources]
        if limit is None:
            return sources
        shares = [limit // len(sources) + (i < limit % len(sources)) for i in range(len(sources))]
        return [
            source.model_copy(update={"limit": share, "shuffle": LIMIT_SEED if source.shuffle is None else source.shuffle})
            for source, share in zip(sources, shares, strict=True)
            if share
        ]

    def _local(self, directory: Path | None) -> list[AnySource]:
        """The sources of a local copy, none where there is no copy."""
        if directory is None:
            return []
        if not directory.is_dir():
            raise InputError(f"{directory} is no directory; it is to hold local copies of benchmarks, such as {self.key}.jsonl")
        file, copy = directory / f"{self.key}.jsonl", directory / self.key
        if file.is_file():
            return [self._from_file(file)]
        if copy.is_dir():
            return [
                source.model_copy(update={"name": str(copy), "revision": None}) if isinstance(source, HubSource) else source
                for source in self.sources
            ]
        return []

    def _from_file(self, path: Path) -> AnySource:
        first = next((cells for _, cells in iter_json(path)), {})
        for source in self.sources:
            if isinstance(source, ColumnSource) and _published(source, first):
                return JsonlSource(
                    kind="jsonl", path=path, columns=source.columns, answer_after=source.answer_after, answer_pattern=source.answer_pattern
                )
        return JsonlSource(kind="jsonl", path=path)


class Registry(Strict):
    """All benchmarks."""

    benchmarks: list[Benchmark]
    """Each key once."""

    @pydantic.model_validator(mode="after")
    def _unique(self) -> "Registry":
        keys = [benchmark.key for benchmark in self.benchmarks]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"benchmark {', '.join(twice)} is there more than once")
        return self

    @property
    def keys(self) -> list[str]:
        """The benchmarks' keys, in order."""
        return [benchmark.key for benchmark in self.benchmarks]

    def pick(self, keys: Sequence[str]) -> list[Benchmark]:
        """The benchmarks with these keys, in this order, each once. Raises `ConfigError` with the nearest key for an unknown one."""
        by_key = {benchmark.key: benchmark for benchmark in self.benchmarks}
        for key in keys:
            if key not in by_key:
                close = difflib.get_close_matches(key.lower(), self.keys, n=1, cutoff=0.5)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(self.keys)}"
                raise ConfigError(f"--benchmarks: there is no benchmark {key!r}; {hint}")
        return [by_key[key] for key in dict.fromkeys(keys)]


def load_registry(user: Path | None = None) -> Registry:
    """The built-in registry, with a user's YAML file laid over it: an entry replaces the one of the same key, or is added.
    Paths in it start at its own directory if they are there, else at the working directory.

    Raises `ConfigError` that names the file, the benchmark's place and the key.
    """
    builtin = _builtin()
    if user is None:
        return builtin
    own = validated(Registry, place(read_yaml(user), Registry, (user.parent, Path())), where=str(user))
    merged = {benchmark.key: benchmark for benchmark in [*builtin.benchmarks, *own.benchmarks]}
    return Registry(benchmarks=list(merged.values()))


@functools.cache
def _builtin() -> Registry:
    text = (importlib.resources.files("jaxpolya.evaluation") / "benchmarks.yaml").read_text(encoding="utf-8")
    return validated(Registry, yaml.safe_load(text), where="benchmarks.yaml")


def _published(source: ColumnSource, row: Mapping[str, Any]) -> bool:
    """Whether a row is under the data set's own names, with answers as they were published."""
    try:
        cells = {ours: look_up(row, column) for ours, column in source.columns.items()}
    except KeyError:
        return False
    answer = str(cells.get("answer", row.get("answer", "")))
    marked = source.answer_after is None or source.answer_after in answer
    return marked and (source.answer_pattern is None or re.fullmatch(source.answer_pattern, answer.strip()) is not None)
