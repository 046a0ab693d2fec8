"""The program's objects as the tests see them: stand-ins, whose every use travels.

The tests run in the judge's process, the program in the sandbox, and an object of the program's own class stays where it was made. A test
holds a `Remote` for it: calls, attributes, items, operators, iteration and `with` are asked for over the line, and what comes back is
decoded into exact built-in types or further stand-ins. A class of the program's is a class here, too, so that `isinstance` and
`type` work; an exception class is a real exception class, derived from the built-in ones that the program's is derived from.
Functions that a test hands over are called back. Containers that an object shows (`node.children`) are copies that are kept equal to
the original while a test holds them; arguments that a function without a result has changed are changed here.

What an object can't do is lie. A comparison with anything of the tests' is by its built-in value, where its class is derived from a
built-in type, and otherwise false: no method of the program's ever sees an expected value. Two of the program's objects are
compared by the program, and believed only if it tells one of them from others of its class (`equality.py`). What tests ask of Python must
be of the right built-in type: a truth value, a length, a hash, a text. What can't be carried is `Uncarried`, which no test can
catch: it is neither side's fault.
"""

import collections
import dis
import operator
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from jaxpolya.verify.sandbox.wire import MAX_BYTES

if TYPE_CHECKING:
    from jaxpolya.verify.sandbox.bridge import Bridge

MAX_ITEMS = MAX_BYTES // 2
"""Items that one iterator gives."""
_VALUES = (int, float, complex, str, bytes, tuple, frozenset, list, dict, set, bytearray, collections.deque)
_SINGLES, _MOST = 8, 1024
"""An iterator's items are fetched one by one at first (who knows what the next one costs), then in growing numbers."""


class Uncarried(BaseException):
    """The tests want what can't be carried over to the program. Not an `Exception`, so that no test can take it for the program's."""


class Raised(Exception):
    """An exception of the program's that can't be had here as what it is."""


class About:
    """What is known of a class of the program's."""

    def __init__(self, bridge: "Bridge", number: int, flags: str):
        self.bridge, self.number, self.flags = bridge, number, flags


class RemoteType(type):
    """The class of stand-ins for classes."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> "RemoteType":
        """What a `class` statement makes: the two below, and nothing of the tests'."""
        if namespace["__module__"] != __name__:
            base = next(base for base in bases if type(base) is RemoteType)
            raise about(base).bridge.refuse(f"the tests derive {name} from a class of the program's")
        return super().__new__(cls, name, bases, namespace)

    @staticmethod
    def made(name: str, bases: tuple[type, ...], about: About) -> "RemoteType":
        """A class of the program's."""
        base = RemoteIterator if "i" in about.flags else Remote
        doc = property(lambda self: _ask("getattr", self, "__doc__"))
        namespace = {"__slots__": (), "__module__": "candidate", "_jaxpolya_about_": about, "__doc__": doc}
        try:
            return type.__new__(RemoteType, name, bases or (base,), namespace)
        except (TypeError, ValueError):  # no order of its bases, or no name
            return type.__new__(RemoteType, "Unnamed", (base,), namespace)

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        """An object of the program's class."""
        return about(cls).bridge.construct(cls, arguments, named)

    def __getattr__(cls, name: str) -> Any:
        if name == "_jaxpolya_about_":
            raise AttributeError(name)
        return about(cls).bridge.attribute(cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        about(cls).bridge.ask("setattr", cls, name, value)

    def __delattr__(cls, name: str) -> None:
        about(cls).bridge.ask("delattr", cls, name)

    @property
    def __doc__(cls) -> Any:  # type: ignore[override]
        return about(cls).bridge.attribute(cls, "__doc__")

    def __iter__(cls) -> Iterator[Any]:
        return about(cls).bridge.ask("iter", cls)

    def __len__(cls) -> int:
        return _exactly(int, about(cls).bridge.ask("len", cls))

    def __bool__(cls) -> bool:
        return True

    def __getitem__(cls, key: Any) -> Any:
        return about(cls).bridge.ask("getitem", cls, key)

    def __contains__(cls, value: Any) -> bool:
        return any(value is each or value == each for each in cls)

    def __instancecheck__(cls, value: Any) -> bool:
        return type.__instancecheck__(cls, value) or (is_remote(value) and _says(cls, "isinstance", value))

    def __subclasscheck__(cls, kind: Any) -> bool:
        return type.__subclasscheck__(cls, kind) or (type(kind) is RemoteType and _says(cls, "issubclass", kind))


def _says(kind: RemoteType, operation: str, value: Any) -> bool:
    """The program's word on what belongs to one of its classes (an abstract one may have registered others)."""
    return kind not in (Remote, RemoteIterator) and about(kind).bridge.ask(operation, value, kind) is True


def about(kind: type) -> About:
    """What is known of a stand-in's class."""
    return kind._jaxpolya_about_  # type: ignore[attr-defined, no-any-return]


def _ask(operation: str, value: Any, *arguments: Any) -> Any:
    return about(type(value)).bridge.ask(operation, value, *arguments)


def _exactly(kind: type | None, value: Any) -> Any:
    if kind and type(value) is not kind:
        raise TypeError(f"the program answers with a value of type {type(value).__name__} where Python wants {kind.__name__}")
    return value


def is_remote(value: Any) -> bool:
    """Whether a value is a stand-in for an object."""
    return type(type(value)) is RemoteType


def _forwarding() -> dict[str, Any]:
    """The special methods that do no more than travel."""
    methods: dict[str, Any] = {}

    def straight(operation: str) -> Callable[..., Any]:
        return lambda self, *arguments: _ask(operation, self, *arguments)

    def combined(operation: str, reflected: bool = False) -> Callable[..., Any]:
        return lambda self, other: _combined(operation, self, other, reflected)

    def alone(operation: str) -> Callable[..., Any]:
        return lambda self: _alone(operation, self)

    def typed(operation: str, kind: type) -> Callable[..., Any]:
        return lambda self, *arguments: _exactly(kind, _ask(operation, self, *arguments))

    def untold(operation: str, kind: type | None = None) -> Callable[..., Any]:
        return lambda self, *arguments: _exactly(kind, _ask(operation, _untold(self), *arguments))

    def by_class(name: str) -> Callable[..., Any]:
        return lambda self, *arguments: _ask("method", _untold(self), name, *arguments)

    for name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift", "divmod"]:
        operation = f"{name}_" if name in ("and", "or") else name
        methods[f"__{name}__"], methods[f"__r{name}__"] = combined(operation), combined(operation, reflected=True)
        if name != "divmod":
            methods[f"__i{name}__"] = combined(f"i{name}")
    for name in ("neg", "pos", "invert"):
        methods[f"__{name}__"] = alone(name)
    for name in ("getitem", "setitem", "delitem", "iter", "reversed"):
        methods[f"__{name}__"] = straight(name)
    for name in ("abs", "round"):
        methods[f"__{name}__"] = untold(name)
    for name in ("trunc", "floor", "ceil", "enter"):
        methods[f"__{name}__"] = by_class(f"__{name}__")
    methods |= {f"__{kind.__name__}__": untold(kind.__name__, kind) for kind in (int, float, complex)}
    methods |= {f"__{kind.__name__}__": typed(kind.__name__, kind) for kind in (bytes, str)}
    methods |= {"__repr__": typed("repr", str), "__format__": typed("format", str)}
    methods |= {"__len__": untold("len", int), "__index__": untold("index", int)}
    methods["__fspath__"] = lambda self: _exactly(str, _ask("method", self, "__fspath__"))
    return methods


_Forwarding: Any = type("_Forwarding", (), {"__slots__": (), **_forwarding()})


class Remote(_Forwarding, metaclass=RemoteType):
    """Any object of the program's."""

    __slots__ = ("_jaxpolya_number_", "_jaxpolya_told_", "_jaxpolya_value_")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What the program's function gives."""
        bridge = about(type(self)).bridge
        return bridge.ask(bridge.calling, self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return about(type(self)).bridge.attribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        _ask("delattr", self, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        value = builtin_value(self)
        return type(self) if value is None else type(value)

    def __dir__(self) -> Any:
        return _ask("dir", self)

    def __bool__(self) -> bool:
        return "b" not in about(type(self)).flags or _exactly(bool, _ask("truth", _untold(self)))

    def __hash__(self) -> int:
        flags = about(type(self)).flags
        if "n" in flags:
            raise TypeError(f"unhashable type: {type(self).__name__!r}")
        if (value := builtin_value(self)) is not None:
            return hash(value)
        return _exactly(int, _ask("hash", self)) if "h" in flags else hash(self._jaxpolya_number_)

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        if is_remote(other):
            return about(type(self)).bridge.equality.holds(self, other)
        value = builtin_value(self)
        return NotImplemented if value is None else builtin_value(_untold(self)) == other

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __lt__(self, other: Any) -> Any:
        return _ordered("lt", self, other)

    def __gt__(self, other: Any) -> Any:
        return _ordered("gt", self, other)

    def __le__(self, other: Any) -> Any:
        return _ordered("le", self, other)

    def __ge__(self, other: Any) -> Any:
        return _ordered("ge", self, other)

    def __contains__(self, item: Any) -> bool:
        return _contains(self, item)

    def __next__(self) -> Any:
        return _ask("next", self)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        return _suppressed(self, _ask("method", self, "__exit__", kind, value, None), value, trace)

    def __copy__(self) -> Any:
        return _ask("duplicate", self, False)

    def __deepcopy__(self, _: Any) -> Any:
        return _ask("duplicate", self, True)

    def __await__(self) -> Generator[Any, Any, Any]:
        return waiting(self).__await__()

    def __aiter__(self) -> Any:
        return _ask("method", self, "__aiter__")

    def __anext__(self) -> Awaitable[Any]:
        return waiting(self, "__anext__")

    def __aenter__(self) -> Awaitable[Any]:
        return waiting(self, "__aenter__")

    async def __aexit__(self, kind: Any, value: Any, trace: Any) -> bool:
        return _suppressed(self, await waiting(self, "__aexit__", kind, value, None), value, trace)


class RemoteIterator(Remote):
    """An iterator of Python's own kinds, such as a generator."""

    __slots__ = ("_jaxpolya_ahead_", "_jaxpolya_given_")

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        ahead: list[Any] = self._jaxpolya_ahead_
        if not ahead:
            given = self._jaxpolya_given_
            count = 1 if given < _SINGLES else min(given, _MOST)
            items, problem = _ask("several", self, count)
            if type(items) is not list or len(items) > count or not (problem is None or isinstance(problem, BaseException)):
                raise TypeError("an iterator that gives nonsense")
            object.__setattr__(self, "_jaxpolya_given_", given + len(items))
            if given > MAX_ITEMS:
                raise Raised("an iterator without an end")
            ahead.extend(reversed(items))
            if problem is not None:
                ahead.insert(0, _Stop(problem))
        item = ahead.pop()
        if type(item) is _Stop:
            raise item.problem
        return item

    def send(self, value: Any) -> Any:
        """What a generator yields for a value."""
        return about(type(self)).bridge.ask("send", self, value)


class _Stop:
    """The end of an iterator, among its items."""

    def __init__(self, problem: BaseException):
        self.problem = problem


async def waiting(value: Any, *method: Any) -> Any:
    """What a coroutine of the program's, or that of a special method, comes to."""
    return _ask("wait", value, *method)


def builtin_value(remote: Any) -> Any:
    """The built-in value of an object whose class is derived from a built-in type, else None."""
    value = _ask("plain", remote) if "v" in about(type(remote)).flags else remote._jaxpolya_value_
    return value if type(value) in _VALUES else None


# What an object may be told ------------------------------------------------------------------------------------------------------


def _combined(operation: str, one: Any, other: Any, reflected: bool) -> Any:
    """What an operator gives for an object and something else.

    A test that expects a number may write `abs(f(2) - 4) < 1e-6`: were the 4 to reach an object's `__sub__`, it could answer with 0. So
    where the tests know nothing of classes, an object combines as its built-in value or not at all. Where they do, a value of
    theirs may go into an object's operator, but only an object may come out of it, and that has been *told*: it has attributes and
    methods from then on, and no number, truth or built-in value.
    """
    bridge = about(type(one)).bridge
    arguments = (other, one) if reflected else (one, other)
    told = not is_remote(other)
    if told:
        value = builtin_value(one)
        if value is not None and not (bridge.objects and "o" in about(type(one)).flags):
            pair = (other, value) if reflected else (value, other)
            return (divmod if operation == "divmod" else getattr(operator, operation))(*pair)
        if not bridge.objects:
            return NotImplemented
    return _outcome(one, bridge.ask(operation, *arguments), told or one._jaxpolya_told_ or other._jaxpolya_told_)


def _alone(operation: str, one: Any) -> Any:
    return _outcome(one, _ask(operation, one), one._jaxpolya_told_)


def _outcome(one: Any, result: Any, told: bool) -> Any:
    if told and is_remote(result):
        object.__setattr__(result, "_jaxpolya_told_", True)
    elif told:
        raise about(type(one)).bridge.equality.refusal(one, "has been told a value of the tests', so it can't answer with one")
    return result


def _untold(remote: Any) -> Any:
    """The object, where it has not been told what the tests may expect of it."""
    if remote._jaxpolya_told_:
        bridge = about(type(remote)).bridge
        raise bridge.equality.refusal(remote, "comes of a value of the tests', so it can't be taken for a value itself")
    return remote


def _suppressed(manager: Any, result: Any, problem: BaseException | None, trace: Any) -> bool:
    """Whether `__exit__` may suppress an exception: one that a test raises on purpose, and never what a wrong program brings about."""
    if problem is None or isinstance(problem, AssertionError) or not bool(result):
        return False
    while trace.tb_next:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if code.co_filename != "tests" or code.co_code[trace.tb_lasti] != dis.opmap["RAISE_VARARGS"]:
        raise about(type(manager)).bridge.refuse("the program suppresses an exception that a test doesn't raise on purpose")
    return True


def _ordered(operation: str, one: Any, other: Any) -> Any:
    if not is_remote(other):
        value = builtin_value(one)
        return NotImplemented if value is None else getattr(operator, operation)(builtin_value(_untold(one)), other)
    claimed = _exactly(bool, _ask(operation, one, other))
    if claimed and operation in ("lt", "gt") and _ask(operation, other, one) is not False:
        raise TypeError(f"{type(one).__name__} is ordered both ways")
    return claimed


def _contains(container: Any, item: Any) -> bool:
    """Whether an object holds something, as its iteration says; by its own word only where there is none and it denies something else."""
    try:
        items = iter(container)
    except TypeError:
        bridge = about(type(container)).bridge
        if not bridge.objects:
            raise
        others = [bridge.equality.altered(item) for _ in range(3)]
        answers = {id(each): _exactly(bool, _ask("contains", container, each)) for each in bridge.equality.shuffled([item, *others])}
        return answers[id(item)] and not all(answers[id(each)] for each in others)
    return any(item is each or item == each for each in items)
