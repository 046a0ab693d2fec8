"""Checksums of checkpoints: a byte that changed on a disk is said, where the format's own reader would load it as a weight.

CRC-32 finds every flipped byte and every torn file, which is all that is asked of it, and takes a fraction of a hash's time; files are
read side by side. A list is a plain `{name: "size:crc"}`, so that it travels in a marker or beside a directory.

This module doesn't import jax.
"""

import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PIECE = 8 << 20  # bytes read at a time
READERS = 8


def checksums(directory: Any, leave_out: frozenset[str] = frozenset()) -> dict[str, str]:
    """Relative name → size and CRC-32 of every file below a directory.

    Args:
      directory: pathlib's or etils'.
      leave_out: relative names.
    """
    files = {name: path for name, path in _below(directory) if name not in leave_out}
    with ThreadPoolExecutor(READERS) as readers:
        return dict(zip(files, readers.map(_checksum, files.values()), strict=True))


def changed(directory: Any, expected: Mapping[str, str]) -> str | None:
    """Says what is wrong with the first file that isn't as it was listed, if any; files that were not listed don't count."""
    with ThreadPoolExecutor(READERS) as readers:
        checksums = readers.map(_checksum, (directory / name for name in expected))
        for (name, was), now in zip(expected.items(), checksums, strict=True):
            if now != was:
                size = "is missing" if now is None else "was cut or grew" if now.split(":")[0] != was.split(":")[0] else "has other bytes"
                return f"{name} {size}"
    return None


def _below(directory: Any, prefix: str = "") -> Any:
    for path in sorted(directory.iterdir()):  # not `walk`, which loses an object store's name
        if path.is_dir():
            yield from _below(path, f"{prefix}{path.name}/")
        else:
            yield f"{prefix}{path.name}", path


def _checksum(path: Any) -> str | None:
    size = crc = 0
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                size, crc = size + len(piece), zlib.crc32(piece, crc)
    except FileNotFoundError:
        return None
    return f"{size}:{crc:08x}"
