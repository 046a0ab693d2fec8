"""Safetensors files: read a slice at a time, written a tensor at a time.

A file is eight bytes that give the length of a JSON header, the header (name → dtype, shape, offsets), and the tensors, row-major,
without gaps. Source: the format's description in the safetensors repository.

The safetensors library could do both directions, and would cost memory in both. Its handles map a file and keep every page that
was touched until they are closed, which for a whole model is the model's size; and it writes only a dict that is whole in
memory. It knows no object stores either. Here a local file is mapped, a slice of a tensor is a view of the page cache, and pages
are given back as reading moves on; in an object store a slice is a ranged read. Files that are written are those that the
library would have written, byte for byte.

What is wrong with a directory's files (a shard that is missing, cut short, or not what the index says) is found from the headers
alone, when the files are opened. Only a dtype that is not read is no error yet: files may hold tensors that nobody asks for.
"""

import contextlib
import itertools
import json
import math
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ml_dtypes
import numpy as np
from etils import epath

from jaxpolya.errors import InputError
from jaxpolya.hf.directory import is_remote

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
NUMBERED = "model{suffix}.safetensors"

# The format's name of a dtype → ours. In a file tensors lie by dtype, in this order, and by name.
DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
NUMPY_DTYPES: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}
# What the format has besides: such tensors may lie in a file, and aren't read. A name → bits of a value.
OTHERS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16"), 16),
    **dict.fromkeys(("I32", "U32"), 32),
    **dict.fromkeys(("I64", "U64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}

LONGEST_HEADER = 100_000_000  # the library's own limit, in bytes
KEPT_PAGES = 4 << 20  # bytes of a mapped file that may stay in this process's memory


class Entry(NamedTuple):
    """Where a tensor lies in a file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """Byte of the file."""


# In ----------------------------------------------------------------------------------------------------------------------


class _Source(Protocol):
    size: int

    def read(self, start: int, stop: int) -> Any:
        """These bytes of the file, as a buffer."""

    def note_used(self, count: int) -> None:
        """Tells that so many bytes of what was read are being used."""


class _MappedFile:
    """A local file. What is read is a view of the page cache, which is loaded from the disk in the meantime."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.size, self._bytes, self._used = len(self._map), memoryview(self._map), 0

    def read(self, start: int, stop: int) -> memoryview:
        page = start - start % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, page, stop - page)
        return self._bytes[start:stop]

    def note_used(self, count: int) -> None:
        # Given back too early, a page costs a fault and never a wrong byte: the file is still there.
        self._used += count
        if self._used > KEPT_PAGES:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._used = 0


class _Remote:
    """A file in an object store."""

    def __init__(self, path: epath.Path):
        self._path, self.size = path, path.stat().length

    def read(self, start: int, stop: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)  # type: ignore[return-value]

    def note_used(self, count: int) -> None:
        """Nothing to give back."""


class Safetensors:
    """The safetensors of a directory, local or in an object store: one file, or shards with an index (a `hf.tensors.TensorFile`). `single`
    is the name of the one file.

    Raises `InputError` where files, headers and index don't fit together.
    """

    def __init__(self, directory: Path | epath.Path, single: str = SINGLE):
        self._directory, self._single = epath.Path(directory), single
        index = self._directory / INDEX
        # Where both are there, transformers takes the single file.
        self._indexed = not (self._directory / single).exists() and index.exists()
        weight_map = read_weight_map(index) if self._indexed else {}
        first_of = {file: tensor for tensor, file in sorted(weight_map.items(), reverse=True)}
        for file, tensor in first_of.items():
            if not (self._directory / file).exists():
                raise InputError(f"{index} says that {tensor} is in {file}, which is not there; download or copy it again")
        self._sources: dict[str, _Source] = {}
        self._entries: dict[str, tuple[str, Entry]] = {}
        for file in sorted(first_of) or [single]:
            self._add(file)
        for tensor, file in weight_map.items():
            if tensor not in self._entries or self._entries[tensor][0] != file:
                raise InputError(f"{index} says that {tensor} is in {file}; it is not")
        if self._indexed and (unnamed := [tensor for tensor in self._entries if tensor not in weight_map]):
            raise InputError(f"{self.where(unnamed[0])} holds {unnamed[0]}, which {index} doesn't name")
        self.rename({})

    def _add(self, file: str) -> None:
        path = self._directory / file
        try:
            source: _Source = _Remote(path) if is_remote(path) else _MappedFile(Path(path))
            entries = _read_header(source)
        except (ValueError, OSError) as error:  # mmap refuses an empty file with a ValueError
            raise InputError(f"{path}: not a whole safetensors file ({error}); download or copy it again") from None
        for tensor, entry in entries.items():
            if tensor in self._entries:
                raise InputError(f"{tensor} is in {path} and in {self.where(tensor)}; one of them is a leftover: delete it")
            self._entries[tensor] = file, entry
        self._sources[file] = source

    def check_readable(self, names: Iterable[str]) -> None:
        """Raises `InputError` where one of these tensors has a dtype that is not read. Tensors that nobody needs may have any."""
        for name in names:
            if (dtype := self.dtypes[name]) not in NUMPY_DTYPES:
                raise InputError(
                    f"{self.where(name)}: tensor {name} is stored as {dtype}; give a checkpoint in bfloat16, float16 or float32"
                )

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A slice of a tensor in the dtype of the file; of a local file it is a view that is valid as long as the file is not changed.

        Raises `InputError` as `check_readable` does.
        """
        self.check_readable([name])
        file, entry = self._entries[name]
        rows, *inner = index
        first, last, _ = rows.indices(entry.shape[0])
        dtype = np.dtype(NUMPY_DTYPES[entry.dtype])
        row = math.prod(entry.shape[1:]) * dtype.itemsize
        data = self._sources[file].read(entry.start + first * row, entry.start + last * row)
        array = np.frombuffer(data, dtype).reshape(last - first, *entry.shape[1:])[(slice(None), *inner)]
        self._sources[file].note_used(array.nbytes)
        return array

    def rename(self, names: Mapping[str, str]) -> None:
        """Calls tensors otherwise from now on: name in the file → name."""
        self._entries = {names.get(name, name): entry for name, entry in self._entries.items()}
        self.shapes = {name: entry.shape for name, (_, entry) in self._entries.items()}
        self.dtypes = {name: entry.dtype for name, (_, entry) in self._entries.items()}

    def where(self, name: str) -> str:
        """The file that holds (or should hold) a tensor, for messages."""
        fallback = INDEX if self._indexed else self._single
        return str(self._directory / (self._entries[name][0] if name in self._entries else fallback))


def read_weight_map(index: epath.Path) -> dict[str, str]:
    """Tensor → file, as an index has it. Raises `InputError` where it isn't one, or names what lies outside its directory."""
    try:
        weight_map = dict(json.loads(index.read_text())["weight_map"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{index}: not a safetensors index ({error!r})") from None
    if not weight_map:
        raise InputError(f"{index}: its weight_map is empty")
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or "/" in file or "\\" in file or not file.endswith(".safetensors"):
            raise InputError(f"{index}: {tensor} is said to be in {file!r}, which is no safetensors file of this directory")
    return weight_map


def _read_header(source: _Source) -> dict[str, Entry]:
    """Where each tensor lies. Raises `ValueError` with what is wrong."""
    if source.size < 8:
        raise ValueError(f"it has {source.size} bytes")
    length = int.from_bytes(source.read(0, 8), "little")
    if length > min(LONGEST_HEADER, source.size - 8):
        raise ValueError(f"its header would have {length} bytes, and the file has {source.size}")
    try:
        header = json.loads(bytes(source.read(8, 8 + length)), object_pairs_hook=_without_repeats)
        header.pop("__metadata__", None)
        entries = {name: (str(entry["dtype"]), tuple(entry["shape"]), *entry["data_offsets"]) for name, entry in header.items()}
        if not all(isinstance(size, int) and size >= 0 for _, shape, *bytes_ in entries.values() for size in (*shape, *bytes_)):
            raise ValueError("sizes and offsets must be whole numbers")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is not readable: {error!r}") from None
    expected = 0
    for name, (dtype, shape, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if dtype not in DTYPES and dtype not in OTHERS:
            raise ValueError(f"tensor {name} is of the dtype {dtype}, which the format doesn't have")
        bits = OTHERS[dtype] if dtype in OTHERS else 8 * np.dtype(NUMPY_DTYPES[DTYPES[dtype]]).itemsize
        if start != expected or stop < start or (stop - start) * 8 != math.prod(shape) * bits:
            raise ValueError(f"tensor {name} lies at bytes {start} to {stop} of the data, which is not its place or size")
        expected = stop
    if expected != source.size - 8 - length:
        raise ValueError(f"its tensors end at byte {8 + length + expected}, and the file at {source.size}")
    return {name: Entry(DTYPES.get(dtype, dtype), shape, 8 + length + start) for name, (dtype, shape, start, _) in entries.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := [name for name, count in itertools.groupby(sorted(names)) if len(list(count)) > 1]:
        raise ValueError(f"{repeated[0]} is there twice")
    return dict(pairs)


# Out ---------------------------------------------------------------------------------------------------------------------


def file_order(dtypes: Mapping[str, str]) -> list[str]:
    """Names of tensors in the order in which one file holds them."""
    rank = {dtype: i for i, dtype in enumerate(DTYPES.values())}
    return sorted(dtypes, key=lambda name: (rank[dtypes[name]], name))


@contextlib.contextmanager
def open_to_write(
    path: epath.Path, dtypes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes a file's header and gives a function that writes the tensors, one after another in `file_order`.

    Args:
      path: local or in an object store.
      dtypes: of each tensor of the file.
      shapes: of each tensor of the file.
    """
    ours = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    stop = 0
    for name in file_order(dtypes):
        start, stop = stop, stop + math.prod(shapes[name]) * np.dtype(NUMPY_DTYPES[dtypes[name]]).itemsize
        header[name] = {"dtype": ours[dtypes[name]], "shape": list(shapes[name]), "data_offsets": [start, stop]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)  # type: ignore[arg-type]

        def write(array: np.ndarray) -> None:
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # type: ignore[arg-type]
            if not is_remote(path) and hasattr(os, "posix_fadvise"):
                # Has the disk write along and the page cache forget what is written: else all of it waits for the end, in memory.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        yield write
        if not is_remote(path):
            file.flush()
            os.fsync(file.fileno())  # a directory that has its name is on the disk
