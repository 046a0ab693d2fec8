"""What users bring: an object of a module or of a file, by `module:attribute` or `path/to/file.py:attribute`.

Each door says what it takes and checks it; here is how the object is found, and by what a stage knows it: the digest of the file
that it stands in. What that file imports in turn is not part of the digest.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxpolya.errors import ConfigError, nearest_path


def is_reference(text: str) -> bool:
    """Whether a text names something that a user brings, rather than something built in."""
    return ":" in text


def load(reference: str, key: str) -> tuple[Any, str]:
    """(the object, SHA-256 of the file that it stands in).

    Args:
      reference: `module:attribute` or `path/to/file.py:attribute`; a path is relative to the working directory.
      key: of the configuration, for errors.

    Raises:
      ConfigError: there is no such file, module or attribute, or importing it failed.
    """
    where, _, attribute = reference.rpartition(":")
    if not where or not attribute:
        raise ConfigError(f"{key}: {reference!r} names nothing; write module:attribute or path/to/file.py:attribute")
    module, path = _from_file(Path(where), key) if where.endswith(".py") else _from_module(where, key)
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            there = sorted(public for public in vars(module) if not public.startswith("_"))
            close = difflib.get_close_matches(attribute, there, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(there) or 'nothing'}"
            raise ConfigError(f"{key}: {where} has no {attribute}; {hint}")
        found = getattr(found, name)
    return found, hashlib.sha256(path.read_bytes()).hexdigest()


def _from_file(path: Path, key: str) -> tuple[ModuleType, Path]:
    if not path.is_file():
        raise ConfigError(f"{key}: {path.absolute()} is not a file{nearest_path(path.absolute())}")
    content = path.read_bytes()
    # By its content too: a file that was edited is another module, and one that wasn't gives the same objects.
    name = f"jaxpolya_door_{hashlib.sha256(str(path.resolve()).encode() + content).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ConfigError(f"{key}: {path} can't be imported: {type(error).__name__}: {error}") from error
    return sys.modules[name], path


def _from_module(name: str, key: str) -> tuple[ModuleType, Path]:
    try:
        module = importlib.import_module(name)
    except Exception as error:
        hint = "; a file is named with its .py" if isinstance(error, ModuleNotFoundError) else ""
        raise ConfigError(f"{key}: the module {name} can't be imported: {type(error).__name__}: {error}{hint}") from error
    source = inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
    if source is None:
        raise ConfigError(f"{key}: the module {name} has no source file, so a stage can't be known by it")
    return module, Path(source)
