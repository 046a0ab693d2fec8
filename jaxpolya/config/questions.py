"""Question sources: a list of them stands wherever a stage asks something."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import Field, NonNegativeInt, PositiveInt

from jaxpolya.config.base import Door, Seed, Strict, known, ours_or_own
from jaxpolya.config.paths import PLACE
from jaxpolya.records import Extraction, Kind


class Source(Strict):
    """What all question sources share."""

    limit: PositiveInt | None = None
    """Keep at most this many usable questions; unset keeps all."""
    skip: NonNegativeInt = 0
    """Leave out this many first, so that two uses of one source need not overlap."""
    shuffle: Seed | None = None
    """Shuffle with this seed before `skip` and `limit`; unset keeps the order."""
    verifier: Door | None = None
    """Who judges the answers: `math`, `choice`, `code`, `reasoning_gym`, or `module:attribute` or `path/to/file.py:attribute` of a kind of
    one's own (docs/extending.md); unset takes each row's own, else math (choice where there are choices)."""
    extraction: Extraction | None = None
    """How an answer is found in a response; unset takes each row's own, else `statement`."""

    @pydantic.field_validator("verifier")
    @classmethod
    def _known_verifier(cls, name: str | None) -> str | None:
        return name and ours_or_own(name, get_args(Kind))


Ours = Literal["id", "question", "answer", "choices", "context", "tests"]
"""What a row's columns may be for."""


class ColumnSource(Source):
    """A source of rows whose columns may carry other names than ours."""

    columns: dict[Ours, str] = {}
    """Our name → the source's column, where they differ. `a.b` looks into a nested column, `a.0` into a list; a text with columns in
    braces, such as `"{body} {question}"`, is filled in."""
    answer_after: str | None = None
    """Keep of the answer only what follows the last occurrence of this mark (GSM8K: `####`)."""
    answer_pattern: str | None = None
    """Keep of the answer the one group of this regular expression, which must match all of it; other rows are left out and counted."""

    @pydantic.model_validator(mode="after")
    def _one_group(self) -> "ColumnSource":
        try:
            groups = re.compile(self.answer_pattern).groups if self.answer_pattern is not None else 1
        except re.error as error:
            raise ValueError(f"answer_pattern is not a regular expression ({error})") from None
        if groups != 1:
            raise ValueError(f"answer_pattern has {groups} groups; put round brackets around the answer alone, (?:…) around others")
        return self


class JsonlSource(ColumnSource):
    """A local file of JSON lines."""

    kind: Literal["jsonl"]
    path: Annotated[Path, PLACE]
    """The file: one JSON object a line, such as `{"question": …, "answer": …}` (docs/questions.md)."""


class HubSource(ColumnSource):
    """A data set of the Hugging Face hub, or a local directory that `datasets` can load."""

    kind: Literal["hub"]
    name: Annotated[str, PLACE]
    """The set's name, such as `openai/gsm8k`, or a local directory."""
    subset: str | None = None
    """The data set's configuration, such as `main`."""
    split: str = "train"
    """Which part of the set: a split expression of `datasets`, such as `train` or `test[:100]`."""
    revision: str | None = None
    """Commit or tag; pin it for a run that must be repeatable."""


class TfdsSource(ColumnSource):
    """A TensorFlow Datasets builder or prepared directory, read without TensorFlow."""

    kind: Literal["tfds"]
    name: Annotated[str, PLACE]
    """A builder's name (`math_qa`) or a prepared directory."""
    split: str = "train"
    """Which part of the set: a split expression of TFDS, such as `train` or `test[:100]`."""
    data_dir: Annotated[Path | None, PLACE] = None
    """Where prepared builders lie; unset is TFDS's own default."""


class GymSource(Source):
    """Questions made by a reasoning-gym generator: the same name, parameters, seed and size give the same questions."""

    kind: Literal["reasoning_gym"]
    name: str
    """The generator, such as `chain_sum`."""
    size: PositiveInt
    """Questions to make."""
    seed: Seed = 0
    """Seed of the generator; questions of different seeds differ, but may repeat in small families."""
    params: dict[str, Any] = {}
    """The generator's own parameters, such as `{min_terms: 2}`."""

    @pydantic.field_validator("params")
    @classmethod
    def _finite(cls, params: dict[str, Any]) -> dict[str, Any]:
        json.dumps(params, allow_nan=False)  # raises a ValueError: nobody is known by NaN
        return params


class PythonSource(ColumnSource):
    """Records that a function of one's own gives (docs/extending.md)."""

    kind: Literal["python"]
    source: Annotated[Door, known(())]
    """`module:attribute` or `path/to/file.py:attribute` of a function that gives rows, or of rows themselves."""
    arguments: dict[str, Any] = {}
    """What the function is called with, by name, such as `{digits: 3, seed: 1}`."""

    @pydantic.field_validator("arguments")
    @classmethod
    def _finite(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        json.dumps(arguments, allow_nan=False)
        return arguments


AnySource = Annotated[JsonlSource | HubSource | TfdsSource | GymSource | PythonSource, Field(discriminator="kind")]

Sources = Annotated[list[AnySource], Field(min_length=1)]
"""Question sources that are joined."""
