"""The program's own exceptions, as exceptions that tests can catch.

An exception class of the program's becomes a class here that is derived from the same built-in exceptions, so that `except ValueError` and
`assertRaises` see what they would see. Attributes of an exception are the program's and travel; its text has come with it.
"""

import sys
from typing import TYPE_CHECKING, Any

from jaxpolya.verify.sandbox.remote import Raised
from jaxpolya.verify.sandbox.wire import WireError

if TYPE_CHECKING:
    from jaxpolya.verify.sandbox.bridge import Bridge

STEERING = (StopIteration, StopAsyncIteration, GeneratorExit, KeyboardInterrupt)
"""Exceptions that would steer the tests, rather than tell them something."""


class Mirrored:
    """What is common to the program's own exceptions here."""

    _jaxpolya_bridge_: "Bridge"
    _jaxpolya_mirrored_ = -1
    _jaxpolya_text_ = ""

    def __init__(self, *arguments: Any, **named: Any):
        made = self._jaxpolya_bridge_.ask("call", type(self), *arguments, **named)  # by a test
        if type(made) is type(self):
            self.__dict__.update(made.__dict__)
            self.args = made.args  # type: ignore[has-type]

    def __str__(self) -> str:
        return self._jaxpolya_text_

    def __getattr__(self, name: str) -> Any:
        if self._jaxpolya_mirrored_ < 0 or name.startswith("__"):
            raise AttributeError(name)
        return self._jaxpolya_bridge_.attribute(self, name)


def exception_class(bridge: "Bridge", number: int, name: str, module: str, bases: tuple[Any, ...]) -> type:
    """An exception class of the program's as one of ours; that of a standard module, where the tests know it, is derived from itself."""
    real = getattr(sys.modules.get(module), name, None) if module.partition(".")[0] in sys.stdlib_module_names else None
    if isinstance(real, type) and issubclass(real, Exception):
        bases = (real,)
    exceptions = (base for base in bases if isinstance(base, type) and issubclass(base, BaseException))
    known: tuple[Any, ...] = tuple(base for base in exceptions if not issubclass(base, STEERING))
    namespace = {"_jaxpolya_bridge_": bridge, "_jaxpolya_number_": number, "__module__": "candidate"}
    if not any(issubclass(base, Mirrored) for base in known):
        known = (Mirrored, *(known or (Exception,)))
    try:
        return type(name[:100], known, namespace)
    except (TypeError, ValueError):  # no order of its bases, or no name
        return type("Unnamed", (Mirrored, Exception), namespace)


def exception(kind: Any, arguments: tuple[Any, ...], text: str, number: Any) -> BaseException:
    """An exception of the program's. Raises `WireError` for what is none."""
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise WireError("an exception of another type")
    if issubclass(kind, Mirrored):
        made = kind.__new__(kind, *arguments)
        made.args = arguments
        made._jaxpolya_mirrored_ = number if type(number) is int else -1
        made._jaxpolya_text_ = text[:500]
        return made
    try:
        return kind(*arguments)
    except Exception:  # some take other arguments than they keep
        return Raised(f"{kind.__name__}: {text}")
