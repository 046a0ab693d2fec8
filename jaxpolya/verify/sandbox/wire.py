"""Values on their way between the tests and a program: a tag and a payload.

The encoding is our own, because it must carry tuples, sets and NaN, must be as harmless to read as JSON, and must cost nothing to import:
this text is put before `candidate.py`'s and runs in every program's process, which imports no module but built-in ones and starts in
milliseconds. It serves both sides.

What travels: exact built-in types, and the types of the standard library below, as copies that are made anew from such. Everything else
is a matter for the two sides: `encode` asks its `other` for a description (`Made`, a name with arguments), and `decode` gives
descriptions that it doesn't know to its `make`. Nothing here calls a method of an object that isn't of one of these exact types.
"""

import sys

TYPE_CHECKING = False  # typing's own, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_BYTES = 8 << 20
"""Longest frame."""
MAX_DEPTH = 100
_SEQUENCES: "dict[Any, bytes]" = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}
_TYPES: "dict[int, Any]" = {ord(tag): kind for kind, tag in _SEQUENCES.items()}
_PLAIN = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice, object, BaseException)
_NAMED: "dict[str, Any]" = {kind.__name__: kind for kind in _PLAIN}
"""Types that travel by their names: what they make is harmless."""


def _name_exceptions(kind: "Any") -> None:
    for known in kind.__subclasses__():
        if known.__module__ == "builtins":
            _NAMED[known.__name__] = known
            _name_exceptions(known)


_name_exceptions(BaseException)


class WireError(Exception):
    """A value that can't travel: too large, too deep, or not what it should be."""


class Made:
    """The description of a value: who reads it makes the value from a name and arguments."""

    __slots__ = ("arguments", "name")

    def __init__(self, name: str, *arguments: "Any"):
        self.name, self.arguments = name, arguments


# Types of the standard library ---------------------------------------------------------------------------------------------------


def _of_time(value: "Any", *fields: str) -> "tuple[Any, ...] | None":
    """A time's fields; None where its time zone is one that can't travel."""
    zone = value.tzinfo
    if zone is not None and type(zone) is not sys.modules["datetime"].timezone:
        return None
    return (*(getattr(value, field) for field in fields), zone)


def _of_array(value: "Any") -> "tuple[Any, ...] | None":
    return (value.dtype.str, value.shape, value.tobytes()) if value.dtype.kind in "biufcSUmM" else None


def _array(kind: "Any", dtype: str, shape: "Any", data: bytes) -> "Any":
    import numpy

    described = numpy.dtype(dtype)
    if described.kind not in "biufcSUmM":
        raise WireError("an array of objects")
    array = numpy.frombuffer(data, described).reshape(shape).copy()
    return array if kind is numpy.ndarray else array[()]


def _simply(kind: "Any", *arguments: "Any") -> "Any":
    return kind(*arguments)


_NONE = type(None)
_CLOCK = ("hour", "minute", "second", "microsecond")
_INTEGERS = ((int,),)
_COPIED: "dict[str, tuple[Callable[[Any], Any], tuple[tuple[Any, ...], ...], Callable[..., Any]]]" = {
    "builtins.bytearray": (lambda value: (bytes(value),), ((bytes,),), _simply),
    "builtins.memoryview": (lambda value: (value.tobytes(),), ((bytes,),), _simply),
    "builtins.slice": (lambda value: (value.start, value.stop, value.step), ((object,),) * 3, _simply),
    "builtins.ellipsis": (lambda value: (), (), lambda kind: ...),
    "builtins.NotImplementedType": (lambda value: (), (), lambda kind: NotImplemented),
    "builtins.mappingproxy": (lambda value: (dict(value),), ((dict,),), _simply),
    "builtins.dict_keys": (lambda value: (list(value),), ((list,),), lambda kind, items: dict.fromkeys(items).keys()),
    "builtins.dict_values": (lambda value: (list(value),), ((list,),), lambda kind, items: dict(enumerate(items)).values()),
    "builtins.dict_items": (lambda value: (list(value),), ((list,),), lambda kind, items: dict(items).items()),
    "collections.Counter": (lambda value: (dict(value),), ((dict,),), _simply),
    "collections.OrderedDict": (lambda value: (list(value.items()),), ((list,),), _simply),
    "collections.defaultdict": (lambda value: (value.default_factory, dict(value)), ((object,), (dict,)), _simply),
    "collections.deque": (lambda value: (list(value), value.maxlen), ((list,), (int, _NONE)), _simply),
    "collections.ChainMap": (lambda value: ([dict(each) for each in value.maps],), ((list,),), lambda kind, maps: kind(*maps)),
    "collections.UserDict": (lambda value: (dict(value.data),), ((dict,),), _simply),
    "collections.UserList": (lambda value: (list(value.data),), ((list,),), _simply),
    "collections.UserString": (lambda value: (str(value.data),), ((str,),), _simply),
    "types.SimpleNamespace": (lambda value: (dict(vars(value)),), ((dict,),), lambda kind, held: kind(**held)),
    "decimal.Decimal": (lambda value: (str(value),), ((str,),), _simply),
    "fractions.Fraction": (lambda value: (value.numerator, value.denominator), _INTEGERS * 2, _simply),
    "datetime.date": (lambda value: (value.year, value.month, value.day), _INTEGERS * 3, _simply),
    "datetime.datetime": (lambda value: _of_time(value, "year", "month", "day", *_CLOCK), (*_INTEGERS * 7, (object,)), _simply),
    "datetime.time": (lambda value: _of_time(value, *_CLOCK), (*_INTEGERS * 4, (object,)), _simply),
    "datetime.timedelta": (lambda value: (value.days, value.seconds, value.microseconds), _INTEGERS * 3, _simply),
    "datetime.timezone": (lambda value: (value.utcoffset(None),), ((object,),), _simply),
    "array.array": (lambda value: (value.typecode, value.tolist()), ((str,), (list,)), _simply),
    "uuid.UUID": (lambda value: (str(value),), ((str,),), _simply),
    "pathlib.PosixPath": (lambda value: (str(value),), ((str,),), _simply),
    "pathlib.PurePosixPath": (lambda value: (str(value),), ((str,),), _simply),
    "numpy.ndarray": (_of_array, ((str,), (tuple,), (bytes,)), _array),
    "numpy.generic": (_of_array, ((str,), (tuple,), (bytes,)), _array),
}
"""By name: what a value is made of, the types of that (`object` for any), and how it is made anew."""
_UNNAMED: "dict[str, Any]" = {
    "builtins.ellipsis": type(...), "builtins.NotImplementedType": type(NotImplemented), "builtins.mappingproxy": type(int.__dict__),
    "builtins.dict_keys": type({}.keys()), "builtins.dict_values": type({}.values()), "builtins.dict_items": type({}.items()),
}  # fmt: skip
"""Of those, the types that no module has as an attribute."""


def copied(value: "Any") -> "Made | None":
    """The description of a value of one of the types above, else None."""
    kind: Any = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name.startswith("numpy.") and name not in _COPIED and "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].generic):
        name, kind = "numpy.generic", sys.modules["numpy"].generic
    if name not in _COPIED or _kind(name, sys.modules.get) is not kind:
        return None
    arguments = _COPIED[name][0](value)
    return None if arguments is None else Made(name, *arguments)


def _kind(name: str, module: "Callable[[str], Any]") -> "Any":
    where, _, what = name.partition(".")
    return _UNNAMED.get(name) or getattr(module(where), what, None)


# Encoding ------------------------------------------------------------------------------------------------------------------------


def encode(value: "Any", other: "Callable[[Any], Made] | None" = None) -> bytes:
    """A value as bytes; `other` describes what can't be copied. Raises `WireError`."""
    parts: list[bytes] = []
    _encode(value, other, parts, [0], 0)
    return b"".join(parts)


def _encode(value: "Any", other: "Callable[[Any], Made] | None", parts: list[bytes], size: list[int], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise WireError("nested too deeply")
    kind: Any = type(value)
    inside: Any = ()
    if value is None or value is True or value is False:
        part = b"N" if value is None else b"T" if value else b"F"
    elif kind is int:
        part = b"i%s;" % format(value, "x").encode()
    elif kind is float:
        part = b"f%s;" % value.hex().encode()
    elif kind is complex:
        part = b"c%s,%s;" % (value.real.hex().encode(), value.imag.hex().encode())
    elif kind is str:
        data = value.encode("utf-8", "surrogatepass")
        part = b"s%x;" % len(data) + data
    elif kind is bytes:
        part = b"b%x;" % len(value) + value
    elif kind is range:
        part = b"r%s;" % ",".join(format(number, "x") for number in (value.start, value.stop, value.step)).encode()
    elif kind in _SEQUENCES:
        part, inside = _SEQUENCES[kind] + b"%x;" % len(value), value
    elif kind is dict:
        part, inside = b"d%x;" % len(value), (each for pair in value.items() for each in pair)
    elif kind is type and value in _NAMED.values():
        part = b"y%s;" % repr(value).split("'")[1].encode()
    else:
        described = value if kind is Made else copied(value)
        if described is None:
            if other is None:
                raise WireError(f"a value of type {kind.__name__} can't be passed")
            described = other(value)
        part, inside = b"x%s;" % described.name.encode(), (described.arguments,)
    size[0] += len(part)
    if size[0] > MAX_BYTES:
        raise WireError("too large")
    parts.append(part)
    for item in inside:
        _encode(item, other, parts, size, depth + 1)


def decode(data: bytes, make: "Callable[[str, Any], Any] | None" = None) -> "Any":
    """The value in some bytes; `make` makes values from descriptions (a name, arguments). Raises `WireError` for any other bytes."""
    try:
        value, end = _decode(data, 0, make, 0)
    except Exception as error:
        raise WireError(f"not a value: {type(error).__name__}: {error}"[:200]) from None
    if end != len(data):
        raise WireError("not a value: bytes are left over")
    return value


def _decode(data: bytes, start: int, make: "Callable[[str, Any], Any] | None", depth: int) -> "tuple[Any, int]":
    if depth > MAX_DEPTH:
        raise WireError("nested too deeply")
    tag = data[start]
    start += 1
    if tag in b"NTF":
        return {78: None, 84: True, 70: False}[tag], start
    end = data.index(b";", start)
    head = data[start:end].decode("ascii")
    end += 1
    if tag == 105:  # i
        return int(head, 16), end
    if tag == 102:  # f
        return float.fromhex(head), end
    if tag == 99:  # c
        real, imaginary = head.split(",")
        return complex(float.fromhex(real), float.fromhex(imaginary)), end
    if tag == 114:  # r
        return range(*(int(number, 16) for number in head.split(","))), end
    if tag == 121:  # y
        return _NAMED[head], end
    if tag == 120:  # x
        arguments, end = _decode(data, end, make, depth + 1)
        if type(arguments) is not tuple:
            raise WireError("a description without arguments")
        if head in _COPIED:
            _, types, remake = _COPIED[head]
            if [type(each) for each, kinds in zip(arguments, types, strict=True) if object not in kinds and type(each) not in kinds]:
                raise WireError("arguments of another type")  # such as a range without an end for a list
            return remake(_kind(head, __import__), *arguments), end
        if make is None:
            raise WireError("a description of something unknown")
        return make(head, arguments), end
    count = int(head, 16)
    if not 0 <= count <= len(data) - end:
        raise WireError("not a value: a wrong length")
    if tag in b"sb":
        payload = data[end : end + count]
        return (payload if tag == 98 else payload.decode("utf-8", "surrogatepass")), end + count
    if tag == 100:  # d
        pairs = {}
        for _ in range(count):
            key, end = _decode(data, end, make, depth + 1)
            pairs[key], end = _decode(data, end, make, depth + 1)
        return pairs, end
    if tag not in _TYPES:
        raise WireError("not a value: an unknown tag")
    items = []
    for _ in range(count):
        item, end = _decode(data, end, make, depth + 1)
        items.append(item)
    return _TYPES[tag](items), end
