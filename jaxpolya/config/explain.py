"""Every field of a configuration, explained: its type, its default, what it means, and whether changing it does work anew.

All of it is read off the models of `config`, whose fields carry their meaning as docstrings, so that `jaxpolya config --explain`
and docs/configuration.md can't say anything else than the program does. A section is a model; one that stands in several places
(`sampling`, say) is explained once, and names them all.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from jaxpolya.config import CONTENT, HOW, RunConfig, Strict
from jaxpolya.config.file import models_in
from jaxpolya.errors import ConfigError

REGENERATE = "jaxpolya config --explain --markdown > docs/configuration.md"
"""Writes the page, where jaxpolya is installed."""

REGENERATE_HERE = "make docs, or: " + REGENERATE.replace("jaxpolya", ".venv/bin/python -m jaxpolya", 1)
"""Writes the page in a checkout."""

REQUIRED, UNSET, SECTION = "required", "unset", "its fields' own"
"""Defaults that are no values."""

HEADER = f"""# Every field of a configuration

This page is written by `{REGENERATE}` (in a checkout: `make docs`), from the same text as `jaxpolya config --explain`.
`jaxpolya config --explain rl.kl` explains a part, and `jaxpolya config FILE` prints a configuration with every field written out.

A configuration is a YAML file, in which every field that isn't *required* may be left away. `--set a.b=value` overrides one field on
the command line; lists are indexed by number, as in `--set rl.questions.0.limit=50`. A key that isn't on this page is an error.

**Paths** in a file, also those of `path/to/file.py:attribute`, start at the file's own directory if they exist there, else at the
working directory; paths in a `--set` try these two in the other order. `output` alone always starts at the working directory.

**What is done anew.** A stage is known by all fields that change its result, and finds what it has done before under the same ones.
Fields marked *how* say only how fast, how often or where it works: changing one does nothing anew. Fields marked *content* name an
input, and the stage is known by what that input holds, wherever it lies.
"""


@dataclasses.dataclass(frozen=True)
class Field:
    """One field: what it takes, its default and its meaning."""

    name: str
    takes: str
    default: str
    """`required`, or the default as YAML has it."""
    meaning: str
    mark: str
    """`how`, `content` or nothing (see `HEADER`)."""
    models: tuple[type[Strict], ...]
    """The models of the sections that lie in it."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A model with its fields: those that are required first, those that it shares with other models last."""

    model: type[Strict]
    places: tuple[str, ...]
    """The dotted keys at which it stands; `[]` is any item of a list, and `NAME` any key of a mapping."""
    fields: tuple[Field, ...]

    @property
    def meaning(self) -> str:
        """What the section is for."""
        return _flowing(self.model.__doc__ or "")

    @property
    def title(self) -> str:
        """Its place, the last part of several, or of a kind of question source that kind."""
        kinds = self.model.model_fields.get("kind")
        if kinds is not None:
            return f"questions of kind {kinds.annotation.__args__[0]}"  # type: ignore[union-attr]
        return self.places[0].rpartition(".")[2] if len(self.places) > 1 else self.places[0] or "the run"


def sections(model: type[Strict] = RunConfig) -> list[Section]:
    """All sections of a configuration model, each once, in the order in which they are first met."""
    places: dict[type[Strict], list[str]] = {}

    def visit(current: type[Strict], place: str) -> None:
        known = places.setdefault(current, [])
        known.append(place)
        for name, field in current.model_fields.items():
            for inner in models_in(field.annotation):
                visit(inner, ".".join(filter(None, (place, name + _items(field)))))

    visit(model, "")
    return [Section(each, tuple(dict.fromkeys(where)), _fields(each)) for each, where in places.items()]


def explain(key: str | None = None) -> list[Section]:
    """The sections below a key such as `rl.sampling`, or the one field that it names; all of them without a key.

    Raises `ConfigError` with the nearest key for one that isn't there.
    """
    everything = sections()
    if not key:
        return everything
    asked = ".".join(part for part in key.split(".") if not part.isdigit())
    fields = {
        _plain(f"{place}.{field.name}"): (section, field) for section in everything for place in section.places for field in section.fields
    }
    if asked not in fields:
        close = difflib.get_close_matches(asked, fields, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"the sections are {', '.join(RunConfig.model_fields)}"
        raise ConfigError(f"config --explain {key}: no such key; {hint}")
    section, field = fields[asked]
    own = Section(section.model, (asked.rpartition(".")[0],), (field,))
    return [own, *([below for model in field.models for below in _below(model, asked)])]


def _below(model: type[Strict], place: str) -> list[Section]:
    return [
        Section(section.model, tuple(".".join(filter(None, (place, inner))) for inner in section.places), section.fields)
        for section in sections(model)
    ]


def _fields(model: type[Strict]) -> tuple[Field, ...]:
    schema = model.model_json_schema()["properties"]
    fields = [_field(name, field, schema[name]) for name, field in model.model_fields.items()]
    own = model.__annotations__
    return tuple(sorted(fields, key=lambda field: 0 if field.default == REQUIRED else 1 if field.name in own else 2))


def _field(name: str, field: FieldInfo, schema: dict[str, Any]) -> Field:
    mark = "how" if HOW in field.metadata else "content" if CONTENT in field.metadata else ""
    meaning = field.description or (f"`{_type(schema)}` says which kind of source this is." if name == "kind" else "")
    return Field(name, _type(schema), _default(field), _flowing(meaning), mark, tuple(models_in(field.annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    value = field.get_default(call_default_factory=True)
    if value is None:
        return UNSET
    if isinstance(value, Strict):
        return SECTION
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if not schema.keys() & {"type", "enum", "const", "anyOf", "oneOf", "$ref", "allOf"}:
        return "anything"
    if "$ref" in schema or "allOf" in schema:
        return "section"
    if "oneOf" in schema:
        return "question source"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = schema["type"]
    if kind == "array":
        return f"[{', '.join(map(_type, schema['prefixItems']))}]" if "prefixItems" in schema else f"list of {_type(schema['items'])}"
    if kind == "object":
        values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties", {})]
        return f"mapping of names to {_type(values[0]) if isinstance(values[0], dict) else 'anything'}"
    words = {"string": "path" if schema.get("format") == "path" else "text", "boolean": "true | false", "null": "null"}
    bounds = ", ".join(_bounds(schema, whole=kind == "integer"))
    return " ".join(filter(None, (words.get(kind, kind), bounds)))


def _bounds(schema: dict[str, Any], *, whole: bool) -> Iterator[str]:
    if "exclusiveMinimum" in schema:
        yield f"≥ {schema['exclusiveMinimum'] + 1}" if whole else f"> {schema['exclusiveMinimum']:g}"
    if "minimum" in schema:
        yield f"≥ {schema['minimum']:g}"
    for key, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")):
        if key in schema:
            yield f"{sign} " + ("2³¹" if schema[key] == 2**31 else f"{schema[key]:g}")


def _items(field: FieldInfo) -> str:
    """How the things in a field are named behind its own name: `[]` in a list, `.NAME` in a mapping, `.NAME[]` in a mapping of lists."""
    text = str(field.annotation)
    return (".NAME" if text.startswith("dict[") else "") + ("[]" if "list[" in text else "")


def _plain(place: str) -> str:
    return place.removeprefix(".").replace("[]", "")


def _flowing(text: str) -> str:
    """A docstring as one line."""
    return " ".join(text.split())


# Out ---------------------------------------------------------------------------------------------------------------------


def to_markdown(chapters: list[Section]) -> str:
    """The page: a heading and a table a section."""
    parts = [HEADER]
    for section in chapters:
        where = ", ".join(f"`{place}`" for place in section.places if place)
        parts += [f"## {section.title}\n", f"{section.meaning}\n"]
        if where and (len(section.places) > 1 or "kind" in section.model.model_fields):
            parts.append(f"Stands at {where}.\n")
        parts.append("| field | type | default | meaning |\n|---|---|---|---|")
        for field in section.fields:
            meaning = field.meaning + (f" *({field.mark})*" if field.mark else "")
            default = field.default if field.default in (REQUIRED, UNSET, SECTION) else f"`{field.default}`"
            cells = [f"`{field.name}`", field.takes, default, meaning]
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts)
