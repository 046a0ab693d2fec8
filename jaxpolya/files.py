"""Files that are whole or not there, and digests of what files and values hold.

Imports neither jax nor numpy.
"""

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxpolya.records import write_json


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, hexadecimal; the order of keys doesn't matter."""
    return hashlib.sha256(write_json(value, "an identity", sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(files: Mapping[str, Any]) -> str:
    """SHA-256 of names, sizes and content, hexadecimal; of a file above 64 MiB, eight pieces of 1 MiB from its first to its last byte.

    Args:
      files: name → path (pathlib's or etils').
    """
    whole, piece, pieces = 64 << 20, 1 << 20, 8
    total = hashlib.sha256()
    for name, path in files.items():
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            total.update(f"{name}\0{size}\0".encode())
            cuts = [(0, size)] if size <= whole else [((size - piece) * i // (pieces - 1), piece) for i in range(pieces)]
            for start, length in cuts:
                file.seek(start)
                total.update(file.read(length))
    return total.hexdigest()


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file aside and renames it into place; text as UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    aside.replace(path)


def package_version(name: str) -> str | None:
    """The version of an installed package; None where it isn't there (a source tree that nobody installed, an optional package)."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
