"""What users bring: an object of a module or of a file, by `module:attribute` or `path/to/file.py:attribute`.

Each door says what it takes and checks it (docs/extending.md has them all); here is how the object is found, and by what a stage knows
it: the attribute, and the digest of the file that it stands in. Where the file lies doesn't count, and what it imports in turn isn't
looked at. In Python the object itself may be given in the reference's place (`spelled`): it has to stand at the top level of a file,
because other processes will look for it there.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jaxpolya.errors import ConfigError, nearest_path

PREFIX = "jaxpolya_door_"
"""Begins the names of modules that were loaded from files."""


def is_reference(text: str) -> bool:
    """Whether a text names something that a user brings, rather than something built in."""
    return ":" in text


class Plugin(NamedTuple):
    """What a reference leads to."""

    value: Any
    digest: str
    """SHA-256 of the file that it stands in."""
    reference: str
    """The same reference for a process that works elsewhere: a file by its absolute path."""

    @property
    def identity(self) -> list[str]:
        """What a stage knows it by."""
        return [self.attribute, self.digest]

    @property
    def attribute(self) -> str:
        """Its name in the module or file."""
        return self.reference.rpartition(":")[2]

    @property
    def name(self) -> str:
        """What people call it: `file.py:attribute` or `module:attribute`."""
        where, _, attribute = self.reference.rpartition(":")
        return f"{Path(where).name if where.endswith('.py') else where}:{attribute}"


def bring(reference: str, key: str) -> Plugin:
    """What a reference leads to.

    Args:
      reference: `module:attribute` or `path/to/file.py:attribute`; a path starts at the working directory; one in a configuration was
        looked for beside its file before (`config_paths`).
      key: of the configuration, for errors.

    Raises:
      ConfigError: there is no such file, module or attribute, or importing it failed.
    """
    where, _, attribute = reference.rpartition(":")
    if not where or not attribute:
        raise ConfigError(f"{key}: {reference!r} names nothing; write module:attribute or path/to/file.py:attribute")
    module, content = _from_file(Path(where).expanduser(), key) if where.endswith(".py") else _from_module(where, key)
    target: Any = module
    for name in attribute.split("."):
        if not hasattr(target, name):
            there = sorted(public for public in vars(module) if not public.startswith("_"))
            close = difflib.get_close_matches(attribute, there, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(there) or 'nothing'}"
            raise ConfigError(f"{key}: {where} has no {attribute}; {hint}")
        target = getattr(target, name)
    absolute = str(Path(where).expanduser().absolute()) if where.endswith(".py") else where
    return Plugin(target, hashlib.sha256(content).hexdigest(), f"{absolute}:{attribute}")


def _from_file(path: Path, key: str) -> tuple[ModuleType, bytes]:
    if not path.is_file():
        raise ConfigError(f"{key}: {path.absolute()} is not a file{nearest_path(path.absolute())}")
    content = path.read_bytes()
    main = sys.modules.get("__main__")
    if (running := getattr(main, "__file__", None)) and Path(running).exists() and path.samefile(running):
        assert main is not None
        return main, content  # the script that is running: it isn't to be run again within itself
    # By its content too: a file that was edited is another module, and one that wasn't gives the same objects.
    name = f"{PREFIX}{hashlib.sha256(str(path.resolve()).encode() + content).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise ConfigError(f"{key}: {path} can't be imported: {type(error).__name__}: {error}{_memory_hint(error)}") from error
    return sys.modules[name], content


def _from_module(name: str, key: str) -> tuple[ModuleType, bytes]:
    try:
        module = importlib.import_module(name)
    except Exception as error:
        hint = "; a file is named with its .py" if isinstance(error, ModuleNotFoundError) else _memory_hint(error)
        raise ConfigError(f"{key}: the module {name} can't be imported: {type(error).__name__}: {error}{hint}") from error
    source = inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
    if source is None:
        raise ConfigError(f"{key}: the module {name} has no source file, so a stage can't be known by it")
    return module, Path(source).read_bytes()


def _memory_hint(error: BaseException) -> str:
    """Of what failed for want of memory: a verifier's worker has less address space than large libraries map."""
    wanting = isinstance(error, MemoryError) or "failed to map segment" in str(error) or "Cannot allocate memory" in str(error)
    return "; where the verifier says so, raise verify.memory_mb, or import less in that file" if wanting else ""


# From Python -------------------------------------------------------------------------------------------------------------


class Unfound(ValueError):
    """An object that other processes couldn't find."""


def spelled(value: Any) -> Any:
    """The reference that leads to an object; a text and None as they are, and a path as its text.

    Raises `Unfound` for an object that stands in no file, or not at its top level.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if name is None:  # not a function or a class: a value that stands in some module under some name
        module, name = _place_of(value)
    if name is None or "<" in name or module not in sys.modules:
        what = f"{type(value).__name__} {name or value!r}"
        raise Unfound(f"the {what} can't be found by other processes; define it at the top level of a file, with a name of its own")
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        raise Unfound(f"{name} stands in no file (a notebook, or a prompt), where other processes could find it; write it to one")
    return f"{Path(file).absolute() if module == '__main__' or module.startswith(PREFIX) else module}:{name}"


def _place_of(value: Any) -> tuple[str | None, str | None]:
    """(module, name) under which a value stands; a user's module goes before ours, which may hold it too."""
    for module, content in sorted(sys.modules.items(), key=lambda item: item[0].startswith("jaxpolya.")):
        for name, candidate in list(getattr(content, "__dict__", {}).items()):
            if candidate is value:
                return module, name
    return None, None


# Signatures --------------------------------------------------------------------------------------------------------------


def parameters(function: Callable[..., Any], where: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of what a user brings. Raises `ConfigError`, which begins with `where`, for something that can't be called."""
    if not callable(function):
        raise ConfigError(f"{where} is {a(function)}, and something that can be called was expected")
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} has no signature that Python could tell ({error}); wrap it in a function") from None


def check_call(function: Callable[..., Any], names: tuple[str, ...], where: str) -> None:
    """Raises `ConfigError`, which begins with `where`, unless a function takes that many arguments by position."""
    takes = parameters(function, where)
    try:
        inspect.signature(function).bind(*names)
    except TypeError:
        raise ConfigError(f"{where} takes ({', '.join(map(str, takes.values()))}), and ({', '.join(names)}) was expected") from None


def made(value: Any, where: str) -> Any:
    """An object of a class that a user names, and anything else as it is. Raises `ConfigError` where the class wants arguments."""
    if not isinstance(value, type):
        return value
    try:
        return value()
    except Exception as error:
        raise ConfigError(f"{where}() failed ({type(error).__name__}: {error}); it is made without arguments") from error


def a(value: Any) -> str:
    """What something is, in words."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def is_async(function: Any) -> bool:
    """Whether a call gives a coroutine."""
    function = function.func if isinstance(function, functools.partial) else function
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
