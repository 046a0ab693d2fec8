"""Whether two objects of a program's own are equal: its opinion, as far as that can be believed."""

import random
from typing import TYPE_CHECKING, Any

from jaxpolya.verify.remote import about, builtin_value

if TYPE_CHECKING:
    from jaxpolya.verify.bridge import Bridge


class Equality:
    """Whether two objects of the program's are equal, in the program's opinion, as far as that can be believed.

    A class whose objects equal everything would pass every test. So a claim that two are equal counts only beside a denial: one of them
    is also compared, in an order that the program can't know, with others of its class, which were or are made here from
    other arguments. Where there are none of which it could differ, what the two hold has to be the same.
    """

    def __init__(self, bridge: "Bridge", seed: str):
        self.bridge, self.random = bridge, random.Random(seed)
        self.made: dict[type, list[tuple[Any, Any, Any]]] = {}
        """What the tests have made of each class: (object, arguments, named arguments)."""

    def holds(self, one: Any, other: Any) -> bool:
        """Whether the two are equal."""
        values = builtin_value(one), builtin_value(other)
        flags = about(type(one)).flags + about(type(other)).flags
        if values[0] is not None and values[1] is not None and (values[0] == values[1] or "e" not in flags):
            return bool(values[0] == values[1])
        if "e" not in flags or self.claim(one, other) is not True:
            return False
        known = [made for kind in {type(one), type(other)} for made in self.made.get(kind, [])]
        differing = [each for each, _, _ in known if each is not one and each is not other][-4:]
        if self.denies(one, other, differing):
            return True
        made = next((made for made in known if made[0] is other or made[0] is one), known[-1] if known else None)
        if made and (made[1] or made[2]):
            return self.denies(one, other, self.variations(type(made[0]), made[1], made[2]))
        if made and self.denies(one, other, self.build(type(made[0]), (), {})):
            return True
        states = [self.bridge.ask("state", each) for each in (one, other)]
        return type(one) is type(other) and all(type(state) is dict and state for state in states) and states[0] == states[1]

    def claim(self, one: Any, other: Any) -> Any:
        """What the program says."""
        return self.bridge.ask("eq", one, other)

    def denies(self, one: Any, other: Any, differing: list[Any]) -> bool:
        """Whether the program tells `one` from some of the differing, and again not from `other`."""
        answers = {id(each): self.claim(one, each) is True for each in self.shuffled([other, *differing])}
        return answers.pop(id(other)) and not all(answers.values())

    def variations(self, kind: type, arguments: Any, named: Any) -> list[Any]:
        """Objects made from other arguments."""
        found: list[Any] = []
        for _ in range(8):
            places = self.random.choice([*range(len(arguments)), *named])
            changed = tuple(self.altered(each) if place == places else each for place, each in enumerate(arguments))
            found += self.build(kind, changed, {name: self.altered(each) if name == places else each for name, each in named.items()})
            if len(found) == 3:
                break
        return found

    def build(self, kind: type, arguments: Any, named: Any) -> list[Any]:
        """The object that a class makes of some arguments, where it does."""
        try:
            return [self.bridge.ask("call", kind, *arguments, **named)]
        except Exception:
            return []

    def altered(self, value: Any) -> Any:
        """Another value of the same type."""
        number = self.random.randint(1, 999)
        if type(value) is bool:
            return not value
        if type(value) in (int, float, complex):
            return value + number
        if type(value) is str:
            return "".join(self.random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(len(value) or 3))
        if type(value) in (list, tuple):
            if not value:
                return type(value)([number])
            index = self.random.randrange(len(value))
            return type(value)(self.altered(each) if place == index else each for place, each in enumerate(value))
        if type(value) is dict and value:
            key = self.random.choice(list(value))
            return {**value, key: self.altered(value[key])}
        if type(value) in (set, frozenset):
            return type(value)([*value, number + 10**6])
        return number

    def shuffled(self, items: list[Any]) -> list[Any]:
        """The items in an order that the program can't foresee."""
        return self.random.sample(items, len(items))
