"""Directories that we write: there whole or not at all, local or in an object store.

A directory is written aside, as `.NAME.partial` beside its place, and put there when all of it is written and checked: whatever
fails before that leaves the old one untouched. A local one is renamed. Object stores have no rename; there the objects are copied,
and the marker, rewritten first and last, says that the directory isn't whole in the meantime. A directory that isn't ours is never
overwritten. The first host decides and moves; what any host meets is raised on all of them.
"""

import atexit
import contextlib
import functools
import glob
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from etils import epath

from jaxpolya.errors import InputError, JaxpolyaError, MachineError
from jaxpolya.files import package_version
from jaxpolya.parallel.hosts import together
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


def matching(directory: epath.Path, pattern: str) -> list[epath.Path]:
    """What matches a pattern in a directory, in order. A `[v2]` in the directory's own name, which etils' globs read as one, is none."""
    paths = directory.glob(pattern) if is_remote(directory) else map(epath.Path, Path(directory).glob(pattern))
    return sorted(paths)


@contextlib.contextmanager
def for_orbax(directory: epath.Path) -> Iterator[epath.Path]:
    """A directory by a name that Orbax can glob below: with a `[v2]` in it, it would find nothing to merge and write half a model."""
    directory = absolute(directory)
    if is_remote(directory) or glob.escape(str(directory)) == str(directory):
        yield directory
        return
    if jax.process_count() > 1:  # the hosts must name it alike, and a link of one is not there for the others
        raise MachineError(f"{directory}: on several hosts, name a directory without *, ? and [, which Orbax reads as a pattern")
    with tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch) / "directory"
        link.symlink_to(directory)
        yield epath.Path(link)


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

    What goes wrong on one host, in the block too, is raised on all of them: the hosts wait for each other at its ends.

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
    aside = final.parent / f".{final.name}.partial"

    def mark(path: epath.Path, whole: bool) -> None:
        marker = {"layout": layout, "whole": whole, "jaxpolya": package_version("jaxpolya")} | (note or {})
        (path / MARKER).write_text(json.dumps(marker) + "\n")

    with together(), _telling(final, "nothing was changed there"):
        if is_primary():
            _refuse_what_is_not_ours(final)
    try:
        with together(), _telling(final, "nothing was changed there"):
            if is_primary():
                _remove(aside)
                aside.mkdir(parents=True)
                mark(aside, whole=False)
        with together(), _telling(final, "nothing was changed there"):
            yield aside
        if check:
            with together(), _telling(final, "nothing was changed there"):
                check(aside)
        with together(), _telling(final, "what was there may be gone; write it again"):
            if is_primary():
                _put_in_place(aside, final, mark)
    except Exception:
        if is_primary():
            with contextlib.suppress(Exception):  # what went wrong first is what is told
                _remove(aside)
        raise


def _refuse_what_is_not_ours(final: epath.Path) -> None:
    if str(final.parent).endswith("://"):
        raise InputError(f"{final} is a whole bucket; name a directory in it, such as {final}/model")
    try:
        there = final.exists()
    except ImportError as error:  # an object store whose client is not installed
        raise InputError(f"{final}: {error}") from None
    if there and not (final.is_dir() and (read_marker(final) or not any(final.iterdir()))):
        raise InputError(f"{final} is there already, and jaxpolya didn't write it; name a directory that is new or empty")


def _put_in_place(aside: epath.Path, final: epath.Path, mark: Callable[[epath.Path, bool], None]) -> None:
    """Gives what was written its name. In an object store the marker is the first to change and the last to be right."""
    if not is_remote(final):
        mark(aside, True)
        old = final.parent / f".{final.name}.old"
        _remove(old)
        if final.exists():
            final.rename(old)
        aside.rename(final)
        _remove(old)
        return
    final.mkdir(parents=True, exist_ok=True)
    mark(final, False)
    for old in final.iterdir():
        if old.name != MARKER:
            _remove(old)
    copy_tree(aside, final)
    mark(final, True)
    _remove(aside)


def copy_tree(source: epath.Path, target: epath.Path) -> None:
    """Copies a file, or a directory with all that is in it, between any two places."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for child in source.iterdir():  # not `walk`, which loses the store's name
            copy_tree(child, target / child.name)
    else:
        source.copy(target, overwrite=True)


def _remove(path: epath.Path) -> None:
    if path.is_dir():
        path.rmtree()
    elif path.exists():
        path.unlink()


@contextlib.contextmanager
def _telling(final: epath.Path, state: str) -> Iterator[None]:
    """Raises a `MachineError` for what the machine refuses, saying what has become of the directory."""
    try:
        yield
    except JaxpolyaError:
        raise
    except Exception as error:
        reason = _machine_reason(error)
        if reason is None:
            raise
        raise MachineError(f"{final} can't be written: {reason}; {state}") from error


def _machine_reason(error: Exception) -> str | None:
    """Why the machine refused to write, or None where something else went wrong. Libraries wrap the system's words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    known = ("No space left on device", "Permission denied", "Disk quota exceeded", "File too large")
    return next((words for words in known if words in str(error)), None)
