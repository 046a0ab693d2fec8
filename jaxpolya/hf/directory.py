"""Directories that we write: there whole or not at all, local or in an object store.

A local directory is written aside and renamed. Object stores have no rename; there its marker, rewritten last, says whether it is
whole. A directory that isn't ours is never overwritten.
"""

import atexit
import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from etils import epath

from jaxpolya.errors import InputError, JaxpolyaError, MachineError
from jaxpolya.parallel.hosts import wait_for_all
from jaxpolya.parallel.mesh import is_primary

MARKER = "jaxpolya.json"
"""A small file in every directory that we write: what is in it, and whether it is whole."""


def is_remote(path: epath.Path) -> bool:
    """Whether a path is an object store's."""
    return "://" in str(path)


@functools.cache
def local_file(path: epath.Path) -> Path:
    """A local path for a file: its own, or that of a copy which is kept until this process ends."""
    if not is_remote(path):
        return Path(path)
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(path.copy(epath.Path(directory) / path.name))


def absolute(path: epath.Path) -> epath.Path:
    """The path from the root; Orbax finds nothing, and says nothing, below a relative one."""
    return path if is_remote(path) else epath.Path(Path(path).absolute())


def read_marker(directory: epath.Path) -> dict[str, Any] | None:
    """What we wrote of a directory; None where it isn't ours."""
    try:
        marker = json.loads((directory / MARKER).read_text())
        return marker | {"layout": str(marker["layout"]), "whole": bool(marker["whole"])}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{directory / MARKER} is damaged; copy or write the model again") from None


@contextlib.contextmanager
def whole_directory(
    directory: str | Path, layout: str, *, note: dict[str, Any] | None = None, check: Callable[[epath.Path], None] | None = None
) -> Iterator[epath.Path]:
    """A directory to write into, which becomes `directory` when all is written. Every host enters it, the first one makes it.

    Args:
      directory: local or `gs://…`; one that jaxpolya wrote is replaced.
      layout: of what is written, for its marker.
      note: further values for the marker.
      check: is called on every host with what was written, before it counts as whole and gets its name; what it raises stops that.

    Raises:
      InputError: the directory holds something that jaxpolya didn't write.
      MachineError: the disk is full, or may not be written.
    """
    final = absolute(epath.Path(directory).expanduser())
    aside = final if is_remote(final) else final.with_name(f".{final.name}.partial")
    try:
        there = final.exists()
    except ImportError as error:  # an object store whose client is not installed
        raise InputError(f"{directory}: {error}") from None
    if there and not (final.is_dir() and (read_marker(final) or not any(final.iterdir()))):
        raise InputError(f"{final} is there already, and jaxpolya didn't write it; name a directory that is new or empty")

    def mark(whole: bool) -> None:
        marker = {"layout": layout, "whole": whole, "jaxpolya": version("jaxpolya")} | (note or {})
        (aside / MARKER).write_text(json.dumps(marker) + "\n")

    try:
        if is_primary():
            _remove(aside)
            aside.mkdir(parents=True)
            mark(whole=False)
        wait_for_all(f"begin {final}")
        yield aside
        wait_for_all(f"written {final}")
        if check:
            check(aside)
        if is_primary():
            mark(whole=True)
            if aside != final:
                _remove(final)
                aside.rename(final)
        wait_for_all(f"end {final}")
    except JaxpolyaError:
        _remove(aside)
        raise
    except Exception as error:
        reason = _machine_reason(error)
        _remove(aside)
        if reason is None:
            raise
        raise MachineError(f"{final} can't be written: {reason}; nothing was changed there") from error


def _remove(directory: epath.Path) -> None:
    if is_primary() and directory.exists():
        directory.rmtree()


def _machine_reason(error: Exception) -> str | None:
    """Why the machine refused to write, or None where something else went wrong. Libraries wrap the system's words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    known = ("No space left on device", "Permission denied", "Disk quota exceeded", "File too large")
    return next((words for words in known if words in str(error)), None)
