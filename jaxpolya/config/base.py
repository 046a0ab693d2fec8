"""What all sections of a configuration are made of: the strict base model, the marks of fields, and what doors take."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Annotated

import pydantic
from pydantic import Field

from jaxpolya.config.paths import PLACE
from jaxpolya.doors import is_reference, spelled

Fraction = Annotated[float, Field(ge=0, le=1)]

LARGEST_SEED = 2**31

Seed = Annotated[int, Field(ge=0, lt=LARGEST_SEED)]
"""What every random generator that we use takes."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What may name a directory."""


class Strict(pydantic.BaseModel):
    """Base of all configuration models: no unknown keys, no silent conversions, frozen, field docs from docstrings."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Marks a field that stages are not known by (`runs.identity.stage_fields`).

    Every field without it is part of their identity: a new one that changes a result can't reuse what was drawn without it.
    """

    why: str


HOW = LeftOut("it says how fast, how often or where a stage works; what comes out is the same")

CONTENT = LeftOut("it names an input; the identity holds the input's content in its place")


@dataclasses.dataclass(frozen=True)
class Later:
    """Marks a field that came after the stages of this directory format were first made, and whose default does what they did.

    At its default it is no part of an identity, so that they are found; at any other value it is. The default must never change.
    """


LATER = Later()


Door = Annotated[str, pydantic.BeforeValidator(spelled), PLACE]
"""A field that takes a name of ours, a reference, or in Python the object itself."""


def ours_or_own(name: str, ours: Sequence[str]) -> str:
    """A door's value, if it is one of our names or a reference to something of the user's. Raises `ValueError`."""
    if is_reference(name) or name in ours:
        return name
    own = "module:attribute or path/to/file.py:attribute"
    if name.endswith(".py"):
        raise ValueError(f"{name!r} is a file; write what in it is meant behind a colon, {name}:NAME")
    if not ours:
        raise ValueError(f"{name!r} names nothing; write {own}")
    close = difflib.get_close_matches(name, ours, n=1)
    raise ValueError(f"{name!r} is none of {', '.join(ours)}, nor {own}{f'; did you mean {close[0]}?' if close else ''}")


def known(ours: Sequence[str]) -> pydantic.AfterValidator:
    """Marks a door whose own names are these."""
    return pydantic.AfterValidator(lambda name: ours_or_own(name, ours))
