"""Where the paths in a configuration start.

A path in a file is tried at the file's own directory first and at the working directory then, so that a directory with a
configuration and its questions can be moved, and run from anywhere. A path in an override (`--set`) is tried in the other order:
what a shell completes starts at the working directory. What is found becomes a path from the working directory; what isn't stays as
it was written, and whoever misses it says where it was looked for (`RunConfig.tried`). `output` always starts at the working
directory: where runs lie must not hang on what there is already.

Which fields hold paths is marked on the fields (`PLACE`). Many of them may hold something else, a hub name or a built-in's name:
that isn't there as a path, and so stays. A stage is known by what an input holds, so nothing here changes what it is known by.
"""

import os
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic


class Place:
    """Marks a field that may hold a path, or `path/to/file.py:attribute`."""


PLACE = Place()


def place(tree: Any, model: type[pydantic.BaseModel], starts: Sequence[Path]) -> Any:
    """A plain tree of a configuration, in which the paths that are there below one of `starts` are paths from the working directory.

    Args:
      tree: as YAML gives it; what doesn't fit the model is left for its validation.
      model: of the tree.
      starts: directories, in the order in which they are tried.
    """
    return _walk(tree, model, lambda text: resolve(text, starts))


def resolve(text: str, starts: Sequence[Path]) -> str:
    """A path, or `path/to/file.py:attribute`, as it is there below one of the directories; unchanged where it isn't, or isn't relative."""
    path, attribute = _split(text)
    if not is_relative(path):
        return text
    for start in starts:
        candidate = os.path.normpath(start / path)
        if os.path.exists(candidate):
            here = os.path.exists(path) and os.path.samefile(path, candidate)  # the same thing keeps its name
            return text if here else candidate + attribute
    return text


def places(config: pydantic.BaseModel) -> list[str]:
    """All texts in the fields of a configuration that may hold paths."""
    texts: list[str] = []

    def note(text: str) -> str:
        texts.append(text)
        return text

    _walk(config.model_dump(mode="json"), type(config), note)
    return texts


def is_relative(path: str) -> bool:
    """Whether a text could be a path that starts somewhere else than at a root."""
    return bool(path) and "://" not in path and not path.startswith("~") and not os.path.isabs(path)


def tried(text: str, starts: Sequence[Path]) -> str:
    """Where a path was looked for, in words; nothing where it is there, isn't relative, or looks like a mere name."""
    path = path_of(text)
    if not is_relative(path) or os.path.exists(path) or not ("/" in path or "." in path):
        return ""
    candidates = dict.fromkeys(os.path.abspath(start / path) for start in starts)
    return f"looked for as a path: {', then '.join(candidates)}"


def path_of(text: str) -> str:
    """The path in `path` or `path/to/file.py:attribute`."""
    return _split(text)[0]


def _split(text: str) -> tuple[str, str]:
    """(path, `:attribute`); the second is empty where the text names no attribute of a Python file."""
    path, colon, attribute = text.rpartition(":")
    return (path, colon + attribute) if path.endswith(".py") else (text, "")


def _walk(value: Any, annotation: Any, change: Callable[[str], str]) -> Any:
    """The value with `change` made to every text of a marked field; `annotation` says where those are."""
    if _is_model(annotation):
        if not isinstance(value, dict):
            return value
        fields = {name: field for name, field in annotation.model_fields.items() if name in value}
        changed = {
            name: _texts(value[name], change) if PLACE in field.metadata else _walk(value[name], field.annotation, change)
            for name, field in fields.items()
        }
        return {**value, **changed}
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for one in inner:
            if _fits(value, one):
                value = _walk(value, one, change)
        return value
    if origin is list and isinstance(value, list):
        return [_walk(item, inner[0], change) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _walk(item, inner[1], change) for key, item in value.items()}
    if origin is Annotated:
        return _texts(value, change) if PLACE in annotation.__metadata__ else _walk(value, inner[0], change)
    return value


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a member of a union may be the value's: of several models that are told apart by their kind, the one of its kind is."""
    if _is_model(annotation) and "kind" in annotation.model_fields:
        return isinstance(value, dict) and value.get("kind") in get_args(annotation.model_fields["kind"].annotation)
    return True


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
