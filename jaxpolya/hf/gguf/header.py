"""The head of a GGUF file: its metadata, and where each tensor's bytes lie.

Read here rather than with `gguf.GGUFReader`, which keeps a numpy object of every element of every list: for a Gemma's 262,144
tokens, with their scores and types, that took 10 s and 700 MB; this takes 0.3 s. The package's enums and block sizes are used.

The file is mapped, not read. Little-endian throughout (versions 2 and 3; a big-endian file shows in its version number):

    "GGUF"  version u32  tensors u64  metadata u64
    metadata:  key string, type u32, value             a string is its length u64 and UTF-8
    tensors:   name string, dimensions u32, sizes u64 (innermost first), type u32, offset u64
    padding to the alignment; the data, to which the offsets refer

Source: the GGUF specification in ggml's docs/gguf.md.
"""

import dataclasses
import math
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from jaxpolya.errors import InputError

SCALARS: dict[int, str] = {
    GGUFValueType.UINT8: "<u1", GGUFValueType.INT8: "<i1", GGUFValueType.UINT16: "<u2", GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4", GGUFValueType.INT32: "<i4", GGUFValueType.UINT64: "<u8", GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT32: "<f4", GGUFValueType.FLOAT64: "<f8", GGUFValueType.BOOL: "?",
}  # fmt: skip
KINDS = {int(kind) for kind in GGML_QUANT_SIZES}


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor as the file has it."""

    shape: tuple[int, ...]
    """Outermost dimension first, as numpy and Hugging Face have it (the file says them the other way round)."""
    kind: GGMLQuantizationType
    data: np.ndarray
    """uint8 [rows, bytes a row], a view of the mapped file; a vector is one row."""


def read_header(path: Path, named: str) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """(metadata, tensors by the file's own names). Raises `InputError`, with the name `named`, where the file is damaged or no GGUF."""
    try:
        with path.open("rb") as file:
            head = _Cursor(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _read(head)
    except _Unreadable as error:
        raise InputError(f"{named}: {error}") from None
    except (OSError, ValueError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{named}: not a whole GGUF file ({error}); download or copy it again") from None


class _Unreadable(Exception):
    """A whole file that can't be read all the same."""


class _Cursor:
    """A place in the mapped file, which moves on with every read."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if (end := self.at + size) > len(self.data):
            raise ValueError("it ends too early")
        piece, self.at = self.data[self.at : end], end
        return piece

    def number(self, code: str) -> int:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == GGUFValueType.STRING:
            return self.string()
        if kind == GGUFValueType.ARRAY:
            element, count = self.number("I"), self.number("Q")
            return self.scalars(element, count) if element in SCALARS else [self.value(element) for _ in range(count)]
        return self.scalars(kind, 1)[0]

    def scalars(self, kind: int, count: int) -> list[Any]:
        if kind not in SCALARS:
            raise ValueError(f"unknown kind of value {kind}")
        dtype = np.dtype(SCALARS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()


def _read(head: _Cursor) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    if head.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = head.number("I")
    if version & 0xFFFF == 0:
        raise _Unreadable("a big-endian GGUF file is not supported; turn it with gguf-convert-endian")
    if version not in (2, 3):
        raise ValueError(f"its version would be {version}; 2 and 3 are supported")
    tensors, pairs = head.number("Q"), head.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = head.string()
        metadata[key] = head.value(head.number("I"))
    places = [_tensor_place(head) for _ in range(tensors)]
    if not isinstance(alignment := metadata.get("general.alignment", 32), int):
        raise ValueError(f"an alignment of {alignment!r}")
    start = math.ceil(head.at / alignment) * alignment
    return metadata, {name: _tensor(head.data, name, start + offset, shape, kind) for name, offset, shape, kind in places}


def _tensor_place(head: _Cursor) -> tuple[str, int, tuple[int, ...], int]:
    """(name, offset in the data, shape, number of its type)."""
    name = head.string()
    shape = tuple(head.number("Q") for _ in range(head.number("I")))[::-1]
    kind = head.number("I")
    return name, head.number("Q"), shape, kind


def _tensor(data: mmap.mmap, name: str, start: int, shape: tuple[int, ...], number: int) -> StoredTensor:
    if number not in KINDS:
        raise _Unreadable(f"tensor {name} is stored as type {number}, which the installed gguf package doesn't know")
    kind = GGMLQuantizationType(number)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if not shape or 0 in shape or shape[-1] % block:
        raise ValueError(f"tensor {name} of shape {list(shape)} doesn't fill blocks of {block} values")
    rows, row_bytes = math.prod(shape[:-1]), shape[-1] // block * block_bytes
    if start + rows * row_bytes > len(data):
        raise ValueError("it ends too early")
    return StoredTensor(shape, kind, np.frombuffer(data, np.uint8, rows * row_bytes, start).reshape(rows, row_bytes))
