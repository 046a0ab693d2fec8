"""The program's objects, for the judge to use: this text runs beside the program, see `candidate.py`.

The judge asks for an operation with arguments and is answered `("value", result, notes)` or `("error", exception)`. While an operation
runs, the program may call a function that a test gave it: then `("callback", …)` goes out in the middle, and before its answer
arrives the judge may ask for more. So both sides are the same loop.

Objects of the program's own are numbered when they first leave, and are kept. What leaves with the number is the class, with what
the judge has to know about it (`flags`), and the built-in value of one that is derived from an immutable built-in type.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jaxpolya.verify.sandbox.candidate import Line
    from jaxpolya.verify.sandbox.wire import Made, decode, encode

_UNCHANGING = (int, float, complex, str, bytes, tuple, frozenset)
_CHANGING = (list, dict, set, bytearray)
_OPERATORS = (
    "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior"
    " ixor ilshift irshift neg pos abs invert lt le gt ge eq contains getitem setitem delitem index truth"
)
_BUILTINS = (
    "divmod round len iter next reversed str repr format hash int float complex bytes dir isinstance issubclass getattr setattr delattr"
)
_COMBINING = [f"__{name}__" for name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"]]
_HEAP_TYPE = 1 << 9


class Server:
    """The program's objects, and what can be done to them."""

    def __init__(self, line: "Line", module: "Any"):
        import _operator
        import builtins

        self.line, self.module = line, module
        self.builtins = dict(builtins.__dict__)
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.known: set[int] = set()
        """Classes, by their numbers, that the judge has been told about."""
        self.told: list[int] = []
        self.theirs: dict[int, Any] = {}
        """Functions that stand for the tests' own, and their exceptions, by id: (their number, what it is)."""
        self.loop: Any = None
        self.operations: dict[str, Callable[..., Any]] = {name: getattr(_operator, name) for name in _OPERATORS.split()}
        self.operations |= {name: self.builtins[name] for name in _BUILTINS.split()}
        own = "get call method send several plain same update state wait duplicate"
        self.operations |= {name: getattr(self, name) for name in own.split()}
        self.operations["change"] = self.call

    def serve(self) -> "Any":
        """Does what is asked until the result of a callback arrives, which it returns or raises."""
        while True:
            data = self.line.receive()
            message = decode(data, self.make)
            if message[0] == "result":
                return message[1]
            if message[0] == "raise":
                raise message[1]
            operation, arguments, named = message
            notes: dict[str, Any] = {}
            try:
                result = self.operations[operation](*arguments, **named)
                if operation == "change" or (operation == "call" and result is None):
                    notes = self.changes(decode(data, self.make), arguments, named)
                elif operation in ("getattr", "getitem", "get"):
                    result, notes = self.lasting(result, arguments)
                self.answer(("value", result, notes))
            except BaseException as problem:
                try:
                    self.answer(("error", problem))
                except BaseException:
                    self.answer(("error", Made("error", _named_base(type(problem)), (words(problem),), words(problem), None)))

    def answer(self, value: "Any") -> None:
        """Sends the judge a message."""
        self.told = []
        show_output()
        data = encode(value, self.describe)
        self.known.update(self.told)
        self.line.send(data)

    # Operations beside Python's own ---------------------------------------------------------------------------------------------

    def get(self, name: str) -> "Any":
        """What a global name stands for."""
        if name not in self.module.__dict__:
            raise NameError(f"the program defines no {name}")
        return self.module.__dict__[name]

    def call(self, function: "Any", /, *arguments: "Any", **named: "Any") -> "Any":
        """What a function, a class or a method gives."""
        return function(*arguments, **named)

    def method(self, value: "Any", name: str, *arguments: "Any") -> "Any":
        """A special method, which is the class's."""
        return getattr(type(value), name)(value, *arguments)

    def send(self, generator: "Any", value: "Any") -> "Any":
        """A generator's answer to a value."""
        return generator.send(value)

    def same(self, value: "Any") -> "Any":
        """The object itself, to be copied anew."""
        return value

    def several(self, iterator: "Any", count: int) -> "Any":
        """(some next items, the exception that ended them or None)."""
        items: list[Any] = []
        try:
            while len(items) < count:
                items.append(next(iterator))
        except BaseException as problem:
            return items, problem
        return items, None

    def plain(self, value: "Any") -> "Any":
        """The built-in value of an object whose class is derived from a built-in type."""
        for kind in _UNCHANGING:
            if isinstance(value, kind):
                return _unchanging(value, kind)
        if isinstance(value, list):
            return [*list.__iter__(value)]
        if isinstance(value, set):
            return {*set.__iter__(value)}
        if isinstance(value, dict):
            return dict(dict.items(value))
        if isinstance(value, bytearray):
            return bytearray(bytes(value))
        deque: Any = next(base for base in type(value).__mro__ if base.__name__ == "deque")
        return deque(deque.__iter__(value))

    def update(self, value: "Any", new: "Any") -> None:
        """Makes a container hold what a test has put into its copy."""
        if isinstance(value, (list, bytearray)):
            value[:] = new
        else:
            value.clear()
            value.extend(new) if hasattr(value, "extend") else value.update(new)

    def state(self, value: "Any") -> "Any":
        """What an object holds."""
        held = dict(getattr(value, "__dict__", {}))
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, slot):
                    held[slot] = getattr(value, slot)
        return held

    def wait(self, value: "Any", *method: "Any") -> "Any":
        """Runs a coroutine, or that of a special method, to its end, in the one event loop that all of a program's coroutines meet in."""
        import asyncio

        async def waiting() -> "Any":
            return await (self.method(value, *method) if method else value)

        self.loop = self.loop or asyncio.new_event_loop()
        return self.loop.run_until_complete(waiting())

    def duplicate(self, value: "Any", deep: bool) -> "Any":
        """A copy of an object."""
        import copy

        return copy.deepcopy(value) if deep else copy.copy(value)

    # Notes ----------------------------------------------------------------------------------------------------------------------

    def changes(self, before: "Any", arguments: "Any", named: "Any") -> "dict[str, Any]":
        """The arguments that a function has changed in place."""
        after = {**dict(enumerate(arguments)), **named}
        old = {**dict(enumerate(before[1])), **before[2]}
        changed = {
            key: new for key, new in after.items() if _changing(new) and encode(old[key], self.describe) != encode(new, self.describe)
        }
        return {"changed": changed} if changed else {}

    def lasting(self, result: "Any", arguments: "Any") -> "tuple[Any, dict[str, Any]]":
        """A result that belongs to an object: a container goes with its number, so that it stays the object's; a method can be kept."""
        if _changing(result):
            return Made("lent", self.number(result), result), {}
        if type(result) is type(self.serve) and len(arguments) == 2 and arguments[1] not in getattr(arguments[0], "__dict__", ()):
            return result, {"kept": True}
        return result, {}

    # Descriptions ---------------------------------------------------------------------------------------------------------------

    def number(self, value: "Any") -> int:
        """The number of an object, which is kept from now on."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self.numbers[id(value)]

    def describe(self, value: "Any") -> Made:
        """What the judge learns of an object that doesn't travel as a copy."""
        kind = type(value)
        if id(value) in self.theirs:
            return Made("theirs", self.theirs[id(value)][0])
        if isinstance(value, type):
            return self.described_class(value)
        if isinstance(value, BaseException):
            return Made("error", kind, value.args, words(value), self.number(value))
        for base in _UNCHANGING:
            if isinstance(value, base):
                return Made("object", self.number(value), kind, _unchanging(value, base))
        return Made("object", self.number(value), kind)

    def described_class(self, kind: "Any") -> Made:
        """What the judge learns of a class: all once, then its number."""
        number = self.number(kind)
        if number in self.known or number in self.told:
            return Made("class", number)
        self.told.append(number)
        bases = [base for base in kind.__bases__ if base.__module__ == "candidate" or issubclass(base, BaseException)]
        if issubclass(kind, BaseException):
            return Made("exception", number, kind.__name__, kind.__module__, tuple(bases))
        return Made("class", number, kind.__name__, flags(kind), tuple(bases))

    def make(self, name: str, arguments: "Any") -> "Any":
        """The object that the judge describes."""
        if name == "object":
            return self.objects[arguments[0]]
        if name == "builtin":
            return self.builtins[arguments[0]]
        if name == "theirs":
            return self.stand_in(*arguments)
        if name == "iterator":
            return TheirIterator(arguments[0])
        kind, details, number = arguments
        problem = kind(*details)
        self.theirs[id(problem)] = (number, problem)
        return problem

    def stand_in(self, number: int, name: str) -> "Any":
        """A function that calls one of the tests'."""
        for known, function in self.theirs.values():
            if known == number:
                return function

        def stand_in(*arguments: "Any", **named: "Any") -> "Any":
            self.answer(("callback", number, arguments, named))
            return self.serve()

        stand_in.__name__ = stand_in.__qualname__ = name
        self.theirs[id(stand_in)] = (number, stand_in)
        return stand_in


class TheirIterator:
    """An iterator of the tests'."""

    def __init__(self, following: "Any"):
        self.following = following

    def __iter__(self) -> "TheirIterator":
        return self

    def __next__(self) -> "Any":
        return self.following()


def flags(kind: "Any") -> str:
    """What the judge has to know about a class before it treats an object of it.

    e: equality of its own; h: a hash of its own; n: no hash; o: operators of its own; b: false sometimes; v: derived from a built-in
    type that can change; i: an iterator of Python's own; a: a coroutine. The judge is on its guard: none of them helps a program that lies.
    """
    letters = ""

    def definer(name: str) -> "Any":
        return next((base for base in kind.__mro__ if name in base.__dict__), object)

    if definer("__eq__").__flags__ & _HEAP_TYPE:
        letters += "e"
    hashing = definer("__hash__")
    if hashing.__dict__["__hash__"] is None:
        letters += "n"
    elif hashing.__flags__ & _HEAP_TYPE:
        letters += "h"
    if any(definer(name).__flags__ & _HEAP_TYPE for name in _COMBINING):
        letters += "o"
    if hasattr(kind, "__bool__") or hasattr(kind, "__len__"):
        letters += "b"
    if issubclass(kind, _CHANGING) or any(base.__name__ == "deque" and not base.__flags__ & _HEAP_TYPE for base in kind.__mro__):
        letters += "v"
    if kind.__module__ in ("builtins", "itertools") and hasattr(kind, "__next__"):
        letters += "i"
    if kind.__module__ == "builtins" and kind.__name__ == "coroutine":
        letters += "a"
    return letters


def _changing(value: "Any") -> bool:
    """Whether a value is a container, of a type that travels as a copy, that can change."""
    kind = type(value)
    return kind in _CHANGING or (kind.__module__ == "collections" and kind.__name__ in ("deque", "Counter", "defaultdict", "OrderedDict"))


def _unchanging(value: "Any", kind: "Any") -> "Any":
    """The value of a built-in type in an object of a derived class."""
    if kind in (int, float, complex):
        return kind.__pos__(value)
    if kind is str:
        return str.__str__(value)
    return frozenset(frozenset.__iter__(value)) if kind is frozenset else kind.__getitem__(value, slice(None))


def _named_base(kind: "Any") -> "Any":
    """The built-in exception that a class is, or is derived from."""
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def show_output() -> bool:
    """Brings what was printed to where it can be seen; False where the program has made that impossible."""
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def words(problem: BaseException) -> str:
    """What an exception says."""
    try:
        return str(problem)[:500]
    except BaseException:
        return ""
