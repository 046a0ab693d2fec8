"""What passes between the tests and one program: questions and answers, and who an object is.

The judge asks for an operation and is answered; in between the program may call functions that the tests have given it. Every object has
one number and one stand-in, so that `is` means the same on both sides. A message that is no message, a number that was never
given out, a description that describes nothing: any of these ends the program, and is its fault.
"""

import builtins
import os
import sys
from typing import IO, Any

from jaxpolya.verify.sandbox.equality import Equality
from jaxpolya.verify.sandbox.mirrored import STEERING, Mirrored, exception, exception_class
from jaxpolya.verify.sandbox.remote import About, Raised, RemoteIterator, RemoteType, Uncarried, about, builtin_value, is_remote, waiting
from jaxpolya.verify.sandbox.sandbox import Died, Program
from jaxpolya.verify.sandbox.wire import MAX_BYTES, Made, WireError, decode, encode

MAX_LENT = 64
"""Containers of the program's objects that are kept in step at a time."""
_ANSWERED = ("name", "qualname", "doc", "module", "dict", "annotations", "wrapped", "self", "func", "members")
_JUDGING = frozenset(
    "startswith endswith issubset issuperset isdisjoint count index rindex find rfind equals difference symmetric_difference"
    " intersection replace".split()
)
_ENDS = {"next": StopIteration, "send": StopIteration, "wait": StopAsyncIteration}
"""Operations that may end an iteration."""


class _Lent:
    """A container of an object's, and the copy that a test holds."""

    def __init__(self, number: int, container: Any, seen: bytes):
        self.number, self.container, self.seen = number, container, seen


class Bridge:
    """What passes between the tests and one program."""

    def __init__(self, program: Program, seed: str = "", objects: bool = True, changes: bool = False, output: IO[bytes] | None = None):
        """seed: of what the program must not foresee. objects: whether the tests know of classes of the program's.

        changes: whether they look at what functions with a result do to their arguments. output: the file that it prints to, where the
        tests look at that.
        """
        self.program, self.objects = program, objects
        self.calling = "change" if changes else "call"
        self._output, self._shown, self._screen = output, 0, sys.stdout
        self.asked = 0
        self.uncarried: Uncarried | None = None
        """Why no verdict is possible, whatever the tests have made of it."""
        self.equality = Equality(self, seed)
        self._objects: dict[int, Any] = {}
        self._classes: dict[int, Any] = {}
        self._functions: list[Any] = []
        self._function_numbers: dict[int, int] = {}
        self._kept: dict[tuple[int, str], Any] = {}
        self._lent: list[_Lent] = []

    def ask(self, operation: str, /, *arguments: Any, **named: Any) -> Any:
        """What an operation of the program's gives, or raises. Raises `Ended` and `Uncarried`, too."""
        self.asked += 1
        if operation in ("setattr", "delattr"):
            self._kept.clear()
        self._give_lent()
        try:
            result, notes = self._exchange(operation, arguments, named)
        finally:
            self._take_lent()
            self._show()
        changed = notes.get("changed")
        if type(changed) is dict:
            for key, value in changed.items():
                original = named.get(key) if type(key) is str else arguments[key] if type(key) is int and key < len(arguments) else None
                if type(original) is type(value):
                    refill(original, value)
        if notes.get("kept") is True:
            self._kept[_number(arguments[0]), arguments[1]] = result
        return result

    def _show(self) -> None:
        """Lets a test that has replaced `sys.stdout` see what the program has printed."""
        if self._output:
            new = os.pread(self._output.fileno(), MAX_BYTES, self._shown)
            self._shown += len(new)
            if sys.stdout is not self._screen:
                sys.stdout.write(new.decode(errors="replace"))

    def refuse(self, why: str) -> Uncarried:
        """Gives up on the tests; returns the reason, to be raised."""
        self.uncarried = self.uncarried or Uncarried(why)
        return self.uncarried

    def attribute(self, owner: Any, name: str) -> Any:
        """An attribute of an object or of a class; methods are asked for once.

        Names with two underscores are Python's and other libraries' way of asking an object to decide for them; few have an answer. Nor do
        methods by which built-in values judge others, where tests expect nothing but built-in values: there the object's built-in value has
        the word.
        """
        if name.startswith("__") and name.endswith("__") and name[2:-2] not in _ANSWERED:
            if name.startswith("__dataclass_"):
                raise self.refuse(f"{name} is asked of the program")
            raise AttributeError(name)
        if not self.objects and name in _JUDGING:
            return getattr(builtin_value(owner) if is_remote(owner) else None, name)
        known = self._kept.get((_number(owner), name))
        return self.ask("getattr", owner, name) if known is None else known

    def construct(self, kind: type, arguments: Any, named: Any) -> Any:
        """What a class of the program's makes for a test."""
        made = self.ask("call", kind, *arguments, **named)
        if is_remote(made):
            self.equality.made.setdefault(kind, []).append((made, arguments, named))
        return made

    # Messages -------------------------------------------------------------------------------------------------------------------

    def _exchange(self, operation: str, arguments: Any, named: Any) -> tuple[Any, dict[str, Any]]:
        self._say((operation, arguments, named))
        failure: AssertionError | None = None
        while True:
            message = self._hear()
            word = message[0] if type(message) is tuple and message else None
            if type(word) is not str:
                break
            if failure and word in ("value", "error"):
                raise failure  # whatever the program made of it
            if word == "value" and len(message) == 3 and type(message[2]) is dict:
                return message[1], message[2]
            if word == "error" and len(message) == 2 and isinstance(message[1], BaseException):
                problem = message[1]
                if isinstance(problem, STEERING) and type(problem) is not _ENDS.get(operation):
                    raise Raised(f"{type(problem).__name__}: {problem}")
                raise problem
            if word != "callback" or [type(each) for each in message[1:]] != [int, tuple, dict]:
                break
            if not 0 <= message[1] < len(self._functions):
                break
            failure = self._call_back(*message[1:]) or failure
        raise self.program.end_with(Died("nonsense instead of an answer"))

    def _call_back(self, number: int, arguments: Any, named: Any) -> AssertionError | None:
        """Calls a function of the tests'; returns the assertion that failed in it."""
        failure = None
        try:
            answer = ("result", self._functions[number](*arguments, **named))
        except Exception as problem:
            answer = ("raise", problem)
            failure = problem if isinstance(problem, AssertionError) else None
        self._say(answer)
        return failure

    def _say(self, message: Any) -> None:
        try:
            data = encode(message, self._describe)
        except (WireError, RecursionError) as error:
            raise self.refuse(f"an argument can't be given to the program: {error}") from None
        self.program.say(data)

    def _hear(self) -> Any:
        try:
            return decode(self.program.hear(), self._make)
        except WireError as error:
            raise self.program.end_with(Died(str(error))) from None

    def _describe(self, value: Any) -> Made:
        """What the program learns of a value that doesn't travel as a copy."""
        kind: Any = type(value)
        if (number := _number(value)) >= 0:
            return Made("object", number)
        if isinstance(value, BaseException):
            base = next(base for base in kind.__mro__ if base.__module__ == "builtins")
            return Made("error", base, value.args if base is kind else (str(value),), self._function(value))
        name = getattr(value, "__name__", "")
        if type(name) is str and getattr(builtins, name, None) is value:
            return Made("builtin", name)
        if kind.__module__ in ("builtins", "itertools") and hasattr(kind, "__next__"):
            return Made("iterator", Made("theirs", self._function(value.__next__), "next"))
        if callable(value):
            return Made("theirs", self._function(value), name if type(name) is str else "function")
        raise self.refuse(f"a value of type {kind.__name__} can't be given to the program")

    def _function(self, value: Any) -> int:
        if id(value) not in self._function_numbers:
            self._function_numbers[id(value)] = len(self._functions)
            self._functions.append(value)
        return self._function_numbers[id(value)]

    def _make(self, name: str, arguments: Any) -> Any:
        """The value that the program describes. Raises `WireError`."""
        kinds = [type(each) for each in arguments]
        if kinds[:1] == [int] and arguments[0] < 0:
            raise WireError("a negative number")
        if name == "object" and kinds[:1] == [int] and len(kinds) in (2, 3):
            return self._object(*arguments)
        if name == "class" and kinds == [int]:
            return self._classes[arguments[0]]
        if name == "class" and kinds == [int, str, str, tuple]:
            number, title, flags, bases = arguments
            bases = tuple(base for base in bases if type(base) is RemoteType)
            return self._classes.setdefault(number, RemoteType.made(title[:100], bases, About(self, number, flags)))
        if name == "exception" and kinds == [int, str, str, tuple]:
            return self._classes.setdefault(arguments[0], exception_class(self, *arguments))
        if name == "error" and kinds[1:3] == [tuple, str] and len(kinds) == 4:
            return exception(*arguments)
        if name == "lent" and len(kinds) == 2 and kinds[0] is int:
            return self._lend(*arguments)
        if name == "theirs" and kinds == [int]:
            return self._functions[arguments[0]]
        raise WireError(f"a description of a {name[:20]!r}")

    def _object(self, number: int, kind: Any, value: Any = None) -> Any:
        if type(kind) is not RemoteType:
            kind = self._classes.setdefault(-1, RemoteType.made("object", (), About(self, -1, "")))
        known = self._objects.get(number)
        if known is not None and type(known) is kind:
            return known
        made = object.__new__(kind)
        object.__setattr__(made, "_jaxpolya_number_", number)
        object.__setattr__(made, "_jaxpolya_value_", value)
        object.__setattr__(made, "_jaxpolya_told_", False)
        if issubclass(kind, RemoteIterator):
            object.__setattr__(made, "_jaxpolya_ahead_", [])
            object.__setattr__(made, "_jaxpolya_given_", 0)
        if "a" in about(kind).flags:
            return waiting(made)
        self._objects[number] = made
        return made

    # Containers that belong to an object -------------------------------------------------------------------------------------------

    def _lend(self, number: int, container: Any) -> Any:
        seen = encode(container, self._describe)
        for lent in self._lent:
            if lent.number == number and type(lent.container) is type(container):
                refill(lent.container, container)
                lent.seen = seen
                return lent.container
        self._lent = [*self._lent[1 - MAX_LENT :], _Lent(number, container, seen)]
        return container

    def _give_lent(self) -> None:
        """Tells the program what tests have done to its containers; forgets those that no test holds."""
        held = []
        for lent in self._lent:
            if (seen := encode(lent.container, self._describe)) != lent.seen:
                self._exchange("update", (_Numbered(lent.number), lent.container), {})
                lent.seen = seen
            if sys.getrefcount(lent.container) > 2:
                held.append(lent)
        self._lent = held

    def _take_lent(self) -> None:
        """Brings the containers that tests hold up to date."""
        for lent in self._lent:
            now, _ = self._exchange("same", (_Numbered(lent.number),), {})
            if type(now) is type(lent.container):
                refill(lent.container, now)
                lent.seen = encode(now, self._describe)


class _Numbered:
    """A container of the program's, to be named and not copied."""

    def __init__(self, number: int):
        self.number = number


def _number(value: Any) -> int:
    """The program's number of what stands for something of the program's, else -1."""
    kind = type(value)
    if kind is RemoteType:
        return about(value).number
    if type(kind) is RemoteType:
        return value._jaxpolya_number_  # type: ignore[no-any-return]
    if kind is _Numbered:
        return value.number  # type: ignore[no-any-return]
    if isinstance(value, type) and issubclass(value, Mirrored):
        return vars(value).get("_jaxpolya_number_", -1)
    return value._jaxpolya_mirrored_ if issubclass(kind, Mirrored) else -1


def refill(container: Any, value: Any) -> None:
    """Makes a container hold what another one holds."""
    if isinstance(container, list | bytearray):
        container[:] = value
    else:
        container.clear()
        container.extend(value) if hasattr(container, "extend") else container.update(value)
