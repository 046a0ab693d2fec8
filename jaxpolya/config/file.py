"""A run's configuration from a YAML file and dotted overrides, and an answer for whatever is wrong with them.

Like `config`, this module imports neither jax nor numpy.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from jaxpolya import doors
from jaxpolya.config import RunConfig, Strict
from jaxpolya.config.paths import place
from jaxpolya.errors import ConfigError, nearest_path

StrictT = TypeVar("StrictT", bound=Strict)
SOURCES = ("jsonl", "hub", "tfds", "reasoning_gym", "python")
"""The kinds of question sources."""


class _Loader(yaml.SafeLoader):
    """PyYAML reads YAML 1.1, where 1e-5 is a text; people mean YAML 1.2's number."""


class _Dumper(yaml.SafeDumper):
    """Puts a text in quotes that `_Loader` would read as a number."""


for one in (_Loader, _Dumper):
    one.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The run in a YAML file, with `a.b=value` overrides (values are YAML). Raises `ConfigError` naming file, key and remedy.

    Paths start at the file's directory or at the working directory, as `config.paths` says.
    """
    return parse_config(read_yaml(path), overrides, where=str(path), file=Path(path))


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file. Raises `ConfigError` naming the file and the line."""
    path = Path(path)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except IsADirectoryError:
        inside = [path / name for name in ("run.yaml", "config.yaml") if (path / name).is_file()]
        raise ConfigError(f"{path} is a directory; name a YAML file{f', such as {inside[0]}' if inside else ''}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}{nearest_path(path)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a UTF-8 text file ({error.reason}); name a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where} is not YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}") from None


def parse_config(tree: Any, overrides: Iterable[str] = (), where: str = "config", file: Path | None = None) -> RunConfig:
    """The run in a plain tree. Raises `ConfigError`.

    Args:
      tree: as YAML has it.
      overrides: `a.b=value` each.
      where: what errors begin with.
      file: that the tree was read from, at whose directory its paths may start.
    """
    if not isinstance(tree, dict):
        content = "nothing is there" if tree is None else f"not a {type(tree).__name__}"
        raise ConfigError(f"{where}: a mapping of keys (name, model, arms, …) is needed; {content}")
    if file is not None:
        tree = place(tree, RunConfig, (file.parent, Path()))
    for override in overrides:
        tree = apply_override(tree, override)
    if file is None:
        return validated(RunConfig, tree, where)
    return validated(RunConfig, place(tree, RunConfig, (Path(), file.parent)), where).read_from(file)


def validated(model: type[StrictT], tree: Any, where: str) -> StrictT:
    """A plain tree as a configuration model. Raises `ConfigError` with a line for each mistake."""
    try:
        # JSON mode is the strict one that still reads a path from a string.
        return model.model_validate_json(_as_json(tree, where), strict=True)
    except pydantic.ValidationError as error:
        raise _refusal(error, where, model) from None


def build(kind: type[StrictT], where: str, **fields: Any) -> StrictT:
    """A configuration model from what a caller gave. Raises `ConfigError` that begins with `where`."""
    try:
        return kind(**fields)
    except pydantic.ValidationError as error:
        raise _refusal(error, where, kind) from None


def _refusal(error: pydantic.ValidationError, where: str, model: type[Strict]) -> ConfigError:
    lines = [_explain(item, model) for item in error.errors()]
    many = f"{where} can't be used:\n" + "\n".join(f"  {line}" for line in lines)
    return ConfigError(f"{where}: {lines[0]}" if len(lines) == 1 else many)


def _as_json(tree: Any, where: str) -> str:
    """The tree as JSON. Raises `ConfigError` for what YAML can say and JSON can't."""
    try:
        text = json.dumps(tree, default=_text, ensure_ascii=False)
        text.encode()
        return text
    except doors.Unfound as error:
        raise ConfigError(f"{where}: {error}") from None
    except TypeError as error:
        trouble = f"a key is not a text ({error})"
    except UnicodeEncodeError:
        trouble = "a text holds a lone surrogate (\\ud800 … \\udfff), which no file can hold"
    except (ValueError, RecursionError):
        trouble = "a value contains itself, or lies too deep"
    raise ConfigError(f"{where}: {trouble}")


def _text(value: Any) -> str:
    """What JSON has no word for: an object that a user gives for a door is its reference, a date or a path what is printed."""
    return doors.spelled(value) if callable(value) or dataclasses.is_dataclass(value) else str(value)


def apply_override(tree: dict[str, Any], override: str) -> dict[str, Any]:
    """A copy of the tree with one `a.b=value` set; list items are named by index. Raises `ConfigError`."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: write it as key.key=value")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):  # the last two come of 2024-99-99 and of a thousand brackets
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value") from None

    def put(node: Any, keys: list[str]) -> Any:
        if not keys:
            return value
        head, *rest = keys
        if isinstance(node, list):
            if head not in map(str, range(len(node))):
                raise ConfigError(f"--set {override}: {head} is not an index of a list of {len(node)}")
            return [put(item, rest) if str(i) == head else item for i, item in enumerate(node)]
        if node is not None and not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {head} lies below {node!r}, which has no keys")
        node = node or {}
        return {**node, head: put(node.get(head), rest)}

    return put(tree, keys)


def dump_config(config: Strict) -> str:
    """The resolved configuration as YAML, every field written out."""
    return dump_tree(config.model_dump(mode="json"))


def dump_tree(tree: Any, width: int = 80) -> str:
    """A plain tree as YAML, which `read_yaml` reads as the same."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)


def _explain(error: Any, model: type[Strict]) -> str:
    """One line for one of pydantic's errors: the key, what is wrong, the nearest right key."""
    # Without what pydantic adds to tell the members of a union apart.
    key = ".".join(part for part in map(str, error["loc"]) if part not in SOURCES and "[" not in part)
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, list(error["loc"][:-1]))
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{key}: no such key; {hint}"
    if error["type"] == "missing":
        return f"{key}: is missing"
    if error["type"] in ("literal_error", "union_tag_invalid"):  # a value, or the `kind` of a source
        context = error["ctx"]
        expected = context.get("expected") or context["expected_tags"]
        if "tag" in context:
            key = f"{key}.kind"
        given = context.get("tag", error["input"])
        close = difflib.get_close_matches(str(given), re.findall(r"'([^']*)'", expected), n=1)
        return f"{key}: {given!r} is not one of {expected}{f'; did you mean {close[0]}?' if close else ''}"
    if error["type"] == "union_tag_not_found":
        return f"{key}.kind: is missing; it says what kind of source this is: {', '.join(SOURCES)}"
    if error["type"] == "string_pattern_mismatch":
        return f"{key}: {error['input']!r} can't be a name; use letters, digits, '.', '_' and '-', and begin with a letter or a digit"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    looks_otherwise = error["type"] == "string_type" and type(error["input"]) in (int, float, bool)
    remedy = f"; a text that looks so wants quotes, on the command line --set \"{key}='…'\"" if looks_otherwise else ""
    return f"{key}: {message[0].lower()}{message[1:]}, not {error['input']!r}{remedy}"


def _fields_at(model: Any, location: list[Any]) -> list[str]:
    """Names of the fields of the model that lies at a location of pydantic's."""
    models = [model]
    for part in location:
        inner = []
        for current in models:
            for name, field in current.model_fields.items():
                kind = current.model_fields["kind"].annotation if "kind" in current.model_fields else None
                if name == part:
                    inner += models_in(field.annotation)
                elif kind is not None and part in getattr(kind, "__args__", ()):
                    inner.append(current)
        models = inner or models
    return sorted({name for current in models for name in current.model_fields})


def models_in(annotation: Any) -> list[Any]:
    """All configuration models inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in models_in(part)]
