"""The untrusted side of the sandbox: loads one program and does to its objects what the tests ask for.

This text, with those of `wire.py` and `server.py` before it, is compiled once and run as one script in a fresh interpreter for every
program, beside the program itself, which may patch or forge whatever is here. That is safe: the judge learns nothing from this process
but plain values, and returning a value is all that a program could achieve by forging one. It knows arguments and never an
expected result.

Frames on descriptor 3 are four bytes of length and one encoded value. The first brings the program; what follows is the `Server`'s.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jaxpolya.verify.sandbox.server import Server, words
    from jaxpolya.verify.sandbox.wire import decode, encode

CONTROL = 3


def main() -> None:
    """Loads the program that the first frame brings, then does what the judge asks until it has heard enough."""
    line = Line()
    sys.path += sys.argv[1:]  # modules beside the standard library's
    del sys.argv[1:]
    as_script, variants = decode(line.receive())
    code, complaint = choose(variants)
    if code is None:
        line.send(encode(("syntax", complaint)))
        return
    if as_script:
        line.send(encode(("loaded",)))
        try:
            run_script(code)
        except Exception as problem:
            line.send(encode(("error", type(problem).__name__, words(problem))))
            raise
        return
    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    server = Server(line, module)
    try:
        exec(code, module.__dict__)
    except BaseException as problem:
        line.send(encode(("error", type(problem).__name__, words(problem))))
        return
    line.send(encode(("loaded",)))
    server.serve()


def choose(variants: list[str]) -> "tuple[Any, str | None]":
    """The first way of reading the program that compiles, as (code, None), or (None, the first one's complaint)."""
    complaint = None
    for source in variants:
        try:
            return compile(source, "candidate", "exec", dont_inherit=True), None
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as problem:
            complaint = complaint or f"{type(problem).__name__}: {problem}"
    return None, complaint or "no program"


class Line:
    """Frames on the control descriptor."""

    def __init__(self) -> None:
        import posix

        self.posix = posix

    def receive(self) -> bytes:
        """The judge's next frame; ends this process where there will be none."""
        return self._exactly(int.from_bytes(self._exactly(4), "big"))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.posix.read(CONTROL, count - len(data))
            if not part:
                self.posix._exit(0)
            data += part
        return data

    def send(self, data: bytes) -> None:
        """Sends the judge a frame."""
        data = len(data).to_bytes(4, "big") + data
        while data:
            data = data[self.posix.write(CONTROL, data) :]


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
