"""The untrusted side of the sandbox: loads one program and calls its functions for the judge.

This file is compiled once and run in a fresh interpreter for every program, beside the program itself, which may patch or forge
whatever is here. That is safe: the judge learns nothing from this process but plain values, and returning a value is all that a
program could achieve by forging one. It knows arguments and never an expected result.

Frames on descriptor 3 are four bytes of length and one encoded value. The encoding is our own, a tag and a payload, because it must
carry tuples, sets and NaN, must be as harmless to read as JSON, and must cost nothing to import: this process imports no
module but built-in ones, so that it starts in milliseconds. `encode` and `decode` serve both sides.
"""

import sys

TYPE_CHECKING = False  # typing's own, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_BYTES = 8 << 20
"""Longest frame."""
MAX_DEPTH = 100
CONTROL = 3
_SEQUENCES: "dict[Any, bytes]" = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}
_TYPES: "dict[int, Any]" = {ord(tag): kind for kind, tag in _SEQUENCES.items()}

_NAMED: "dict[str, Any]" = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)}


class WireError(Exception):
    """A value that can't travel: too large, too deep, or not what it should be."""


class _Iterator(list):  # type: ignore[type-arg]
    """What an iterator had left to give, on its way."""


def encode(value: "Any", handle: "Callable[[Any], int] | None" = None) -> bytes:
    """A value of exact built-in types as bytes; `handle` turns any other object into a number. Raises `WireError`."""
    parts: list[bytes] = []
    _encode(value, handle, parts, [0], 0)
    return b"".join(parts)


def _encode(value: "Any", handle: "Callable[[Any], int] | None", parts: list[bytes], size: list[int], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise WireError("nested too deeply")
    kind = type(value)
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
    elif kind in _SEQUENCES or kind is _Iterator:
        part = (b"I" if kind is _Iterator else _SEQUENCES[kind]) + b"%x;" % len(value)
    elif kind is dict:
        part = b"d%x;" % len(value)
    elif kind is type and value in _NAMED.values():
        part = b"y%s;" % repr(value).split("'")[1].encode()
    elif handle is None:
        raise WireError(f"a value of type {kind.__name__} can't be passed")
    else:
        part = b"o%x;" % handle(value)
    size[0] += len(part)
    if size[0] > MAX_BYTES:
        raise WireError("too large")
    parts.append(part)
    if kind is dict:
        for key, item in value.items():
            _encode(key, handle, parts, size, depth + 1)
            _encode(item, handle, parts, size, depth + 1)
    elif kind in _SEQUENCES or kind is _Iterator:
        for item in value:
            _encode(item, handle, parts, size, depth + 1)


def decode(data: bytes, handle: "Callable[[int], Any] | None" = None) -> "Any":
    """The value in some bytes; `handle` turns a number back into an object. Raises `WireError` for any other bytes."""
    try:
        value, end = _decode(data, 0, handle, 0)
    except (ValueError, OverflowError, TypeError, LookupError) as error:
        raise WireError(f"not a value: {type(error).__name__}") from None
    if end != len(data):
        raise WireError("not a value: bytes are left over")
    return value


def _decode(data: bytes, start: int, handle: "Callable[[int], Any] | None", depth: int) -> "tuple[Any, int]":
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
    count = int(head, 16)
    if tag == 111 and handle:  # o
        return handle(count), end
    if not 0 <= count <= len(data) - end:
        raise WireError("not a value: a wrong length")
    if tag in b"sb":
        payload = data[end : end + count]
        return (payload if tag == 98 else payload.decode("utf-8", "surrogatepass")), end + count
    if tag == 100:  # d
        pairs = {}
        for _ in range(count):
            key, end = _decode(data, end, handle, depth + 1)
            pairs[key], end = _decode(data, end, handle, depth + 1)
        return pairs, end
    if tag != 73 and tag not in _TYPES:  # I
        raise WireError("not a value: an unknown tag")
    items = []
    for _ in range(count):
        item, end = _decode(data, end, handle, depth + 1)
        items.append(item)
    return (iter(items) if tag == 73 else _TYPES[tag](items)), end


def main() -> None:
    """Loads the program that the first frame brings, then answers calls until the judge has heard enough."""
    import posix

    def receive(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = posix.read(CONTROL, count - len(data))
            if not part:
                posix._exit(0)
            data += part
        return data

    def send(value: "Any", handle: "Callable[[Any], int] | None" = None) -> None:
        try:
            data = encode(value, handle)
        except WireError as error:
            data = encode(("error", "WireError", str(error)))
        data = len(data).to_bytes(4, "big") + data
        while data:
            data = data[posix.write(CONTROL, data) :]

    def next_message() -> "Any":
        return decode(receive(int.from_bytes(receive(4), "big")), objects.__getitem__)

    def handle(value: "Any") -> int:
        objects.append(value)
        return len(objects) - 1

    def error(problem: BaseException) -> tuple[str, str, str]:
        return ("error", type(problem).__name__, str(problem)[:500])

    objects: list[Any] = []
    as_script, variants = next_message()
    code, complaint = choose(variants)
    if code is None:
        send(("syntax", complaint))
        return
    if as_script:
        send(("loaded",))
        try:
            run_script(code)
        except Exception as problem:
            send(error(problem))
            raise
        return
    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    try:
        exec(code, module.__dict__)
    except BaseException as problem:
        send(error(problem))
        return
    send(("loaded",))
    while True:
        name, arguments, named = next_message()
        try:
            if name not in module.__dict__:
                raise NameError(f"the program defines no {name}")
            send(("value", travelling(module.__dict__[name](*arguments, **named))), handle)
        except BaseException as problem:
            send(error(problem))


def choose(variants: list[str]) -> "tuple[Any, str | None]":
    """The first way of reading the program that compiles, as (code, None), or (None, the first one's complaint)."""
    complaint = None
    for source in variants:
        try:
            return compile(source, "candidate", "exec", dont_inherit=True), None
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as problem:
            complaint = complaint or f"{type(problem).__name__}: {problem}"
    return None, complaint or "no program"


def travelling(value: "Any") -> "Any":
    """An iterator as what it gives, a subclass of a container as the container; anything else as it is."""
    for base in (dict, list, tuple, set, frozenset):
        if isinstance(value, base):
            return value if type(value) is base else base(value)
    if hasattr(type(value), "__next__"):
        items = _Iterator()
        for item in value:
            items.append(item)
            if len(items) > MAX_BYTES // 2:
                raise WireError("an iterator without an end")
        return items
    return value


def run_script(code: "Any") -> None:
    """Runs a program as `python main.py` would; what is to follow (threads, `atexit`, flushing, the exit status) is the interpreter's."""
    import builtins

    def leave(code: object = None) -> None:
        raise SystemExit(code)

    builtins.exit = builtins.quit = leave  # type: ignore[assignment]  # what `site` would have brought
    name_streams()
    module = type(sys)("__main__")
    module.__file__ = "main.py"
    sys.modules["__main__"] = module
    sys.argv[:] = ["main.py"]
    exec(code, module.__dict__)


def name_streams() -> None:
    """Lets files be opened by the names of the standard streams, which otherwise need a /proc."""
    import builtins
    import io
    import posix

    streams: dict[Any, int] = {}
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        streams.update(dict.fromkeys((f"/dev/{name}", f"/dev/fd/{number}", f"/proc/self/fd/{number}"), number))

    def naming(opener: "Callable[..., Any]") -> "Callable[..., Any]":
        def opened(file: "Any", *arguments: "Any", **named: "Any") -> "Any":
            number = streams.get(file if isinstance(file, (str, int, bytes)) else posix.fspath(file))
            if number is None:
                return opener(file, *arguments, **named)
            copy = posix.dup(number)
            return copy if opener is open_number else opener(copy, *arguments, **named)

        return opened

    try:
        posix.stat("/dev/stdin")
    except OSError:
        open_number = posix.open
        posix.open = naming(posix.open)  # `os` is made of this module, if and when it is imported
        builtins.open = io.open = naming(builtins.open)


if __name__ == "__main__":
    main()
