"""Whether two objects of a program's own are equal: its opinion, as far as that can be believed."""

import random
from typing import TYPE_CHECKING, Any

from jaxpolya.verify.sandbox.remote import about, builtin_value

if TYPE_CHECKING:
    from jaxpolya.verify.sandbox.bridge import Bridge


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
        if "e" not in flags or not self.claim(one, other):
            return False
        known = [made for kind in {type(one), type(other)} for made in self.made.get(kind, [])]
        differing = [each for each, _, _ in known if each is not one and each is not other][-4:]
        made = next((made for made in known if made[0] is other or made[0] is one), known[-1] if known else None)
        if self.denies(one, other, differing):
            return True
        if made and (made[1] or made[2]):
            believed = self.denies(one, other, self.variations(type(made[0]), made[1], made[2]))
        elif made and self.denies(one, other, self.build(type(made[0]), (), {})):
            believed = True
        else:
            states = [self.bridge.ask("state", each) for each in (one, other)]
            believed = type(one) is type(other) and all(type(state) is dict and state for state in states) and states[0] == states[1]
        if not believed:
            raise TypeError(f"{type(one).__name__} says that it equals another one, and of no other that it doesn't")
        return True

    def refusal(self, remote: Any, why: str) -> BaseException:
        """What is raised where an object's word can't be taken: not the program's fault where a test has made the object."""
        if any(each is remote for made in self.made.values() for each, _, _ in made) or type(remote) in self.made:
            return self.bridge.refuse(f"an object of class {type(remote).__name__} {why}")
        return TypeError(f"an object of class {type(remote).__name__} {why}")

    def claim(self, one: Any, other: Any) -> bool:
        """What the program says."""
        answer = self.bridge.ask("eq", one, other)
        if type(answer) is not bool:
            raise TypeError(f"{type(one).__name__} compares with a value of type {type(answer).__name__}")
        return answer

    def denies(self, one: Any, other: Any, differing: list[Any]) -> bool:
        """Whether the program tells `one` from some of the differing, and again not from `other`."""
        answers = {id(each): self.claim(one, each) for each in self.shuffled([other, *differing])}
        return answers.pop(id(other)) and not all(answers.values())

    def variations(self, kind: type, arguments: Any, named: Any) -> list[Any]:
        """Objects made from other arguments: all of them, or one."""
        places = self.shuffled([*range(len(arguments)), *named])[:3]
        variants: list[Any] = []
        for chosen in ([*range(len(arguments)), *named], *([place] for place in places)):
            changed = [self.altered(each) if place in chosen else each for place, each in enumerate(arguments)]
            variants += self.build(kind, changed, {name: self.altered(each) if name in chosen else each for name, each in named.items()})
        return variants

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
