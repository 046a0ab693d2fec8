"""Pólya's heuristics as data: instructions, worked exemplars, and the slots that are dealt from them.

The catalogue is a YAML file that people read and extend, so it is checked strictly: an unknown key is answered with the nearest
known one, and every error names the file and the heuristic. All scalars are read as text (`answer: 12`, `answer: no` and
`answer: 1_000` mean what they look like), which YAML's own typing would not give.

An exemplar holds the reasoning and the answer apart. The prompt builder renders the final statement in the format that the
question at hand asks for; a response that brought its own would show the model two formats, so it is refused.

A *slot* is a heuristic with one draw of its exemplars. n approaches per question may exceed the number of heuristics, so slots
beyond it are dealt in turn with further draws. A draw is addressed by (seed, heuristic, round): adding a heuristic or asking
for more slots leaves the other draws as they are.

This module imports neither jax nor numpy.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib.resources
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field

from jaxpolya.config import Strict
from jaxpolya.errors import ConfigError

ExemplarKind = Literal["math", "code", "narrative"]

FINAL_STATEMENTS = ("the answer is", "\\boxed", "<answer>")
INSTRUCTION = "{instruction}"


def compile_marker(pattern: str) -> re.Pattern[str]:
    """A heuristic's marker, ready to search with."""
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)


class Exemplar(Strict):
    """One worked example of a heuristic."""

    kind: ExemplarKind
    """Which questions it precedes: math (and reasoning-gym), code, or narrative (multiple choice)."""
    question: str = Field(min_length=1)
    """The whole question."""
    response: str = Field(min_length=1)
    """The reasoning without a final statement; for code it contains one ```python block."""
    answer: str = Field(min_length=1)
    """The final answer; the letter of a choice for a narrative; for code, assertions that the block passes."""
    choices: list[str] | None = None
    """The texts of a narrative's choices A, B, …"""

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "Exemplar":
        if marks := [mark for mark in FINAL_STATEMENTS if mark in self.response.lower()]:
            raise ValueError(f"response contains {marks[0]!r}; leave the final statement out, it is added from answer")
        if (self.kind == "code") != ("```python" in self.response):
            raise ValueError("a ```python block belongs in the response of a code exemplar, and only there")
        if (self.kind == "narrative") != (self.choices is not None):
            raise ValueError("choices belong to a narrative exemplar, and only there")
        if self.choices is not None and self.answer not in letters(len(self.choices)):
            raise ValueError(f"answer {self.answer!r} is not the letter of one of the {len(self.choices)} choices")
        return self


def _marker(pattern: str) -> str:
    """A marker as it is. Raises `ValueError` where it can't be one."""
    try:
        if compile_marker(pattern).search(""):
            raise ValueError(f"marker {pattern!r} fits every text, even an empty one")
    except re.error as error:
        raise ValueError(f"marker {pattern!r} is not a regular expression: {error}") from None
    return pattern


class Heuristic(Strict):
    """One way of solving problems, and how to ask a model for it."""

    key: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Its name in configurations and records."""
    title: str = Field(min_length=1)
    """Its name for people."""
    instruction: str = Field(min_length=1)
    """Tells a model how to solve with this heuristic; part of the prompt."""
    book: str = ""
    """Its place in Pólya's How to Solve It."""
    markers: list[Annotated[str, pydantic.AfterValidator(_marker)]] = Field(default_factory=list)
    """Regular expressions, any of which says that a solution uses it; upper and lower case are alike, ^ and $ mean a line's."""
    exemplars: list[Exemplar] = Field(default_factory=list)
    """Worked examples; a heuristic without any of a question's kind is given by its instruction alone."""


class Catalogue(Strict):
    """Heuristics in the order in which slots are dealt."""

    heuristics: list[Heuristic] = Field(default_factory=list)
    """The heuristics, each key once."""
    frame: str = INSTRUCTION
    """The four-phase wrapper of every instruction under `generate.four_phases`; {instruction} stands for the heuristic's own."""

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "Catalogue":
        keys = [heuristic.key for heuristic in self.heuristics]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"heuristic {', '.join(twice)} is there more than once")
        if self.frame.count(INSTRUCTION) != 1:
            raise ValueError(f"frame must contain {INSTRUCTION} exactly once")
        return self

    @property
    def keys(self) -> list[str]:
        """Keys of the heuristics, in order."""
        return [heuristic.key for heuristic in self.heuristics]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that can reach a prompt or a record: a part of the identity of the stages that use it."""
        content = self.model_dump(mode="json", exclude={"heuristics": {"__all__": {"title", "book", "markers"}}})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def pick(self, keys: Sequence[str] | Literal["all"]) -> list[Heuristic]:
        """The heuristics with these keys, in the order of `keys`. Raises `ConfigError` on unknown and repeated keys."""
        if keys == "all":
            return list(self.heuristics)
        by_key = {heuristic.key: heuristic for heuristic in self.heuristics}
        for key in keys:
            if key not in by_key:
                raise ConfigError(f"generate.heuristics: there is no heuristic {key!r}; {_nearest(key, self.keys)}")
        if len(set(keys)) < len(keys) or not keys:
            raise ConfigError("generate.heuristics: name at least one heuristic, and each only once")
        return [by_key[key] for key in keys]


@dataclasses.dataclass(frozen=True)
class Slot:
    """A heuristic with one draw of its exemplars; `index` counts the slots from 0."""

    index: int
    heuristic: Heuristic
    exemplars: tuple[Exemplar, ...]


def load_catalogue(user: Path | None = None) -> Catalogue:
    """The built-in catalogue, with a user's YAML file laid over it.

    A user's heuristic replaces the built-in one of the same key, in its place, or is added at the end; a user's `frame`
    replaces the built-in one. Raises `ConfigError` that names the file and the key.
    """
    builtin = _builtin()
    if user is None:
        return builtin
    try:
        text = Path(user).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"generate.catalogue: cannot read {user}: {getattr(error, 'strerror', None) or error}") from None
    own = _parse(text, str(user))
    merged = {heuristic.key: heuristic for heuristic in builtin.heuristics} | {heuristic.key: heuristic for heuristic in own.heuristics}
    return Catalogue(heuristics=list(merged.values()), frame=own.frame if "frame" in own.model_fields_set else builtin.frame)


def slots(heuristics: Sequence[Heuristic], count: int | None, exemplars: int, seed: int, kind: ExemplarKind = "math") -> list[Slot]:
    """`count` slots (None: one a heuristic), dealt to the heuristics in turn.

    Each slot draws `exemplars` exemplars of a kind, or all that there are if they are fewer. The draws of a heuristic are distinct sets
    while there are any left, then begin again. The same arguments give the same slots everywhere, and slot i of `kind` a has the
    same heuristic as slot i of `kind` b.
    """
    count = len(heuristics) if count is None else count
    around = len(heuristics)
    draws = [_draws(heuristic, math.ceil(count / around), exemplars, seed, kind) for heuristic in heuristics]
    return [Slot(index, heuristics[index % around], draws[index % around][index // around]) for index in range(count)]


def most_slots(heuristics: Sequence[Heuristic], exemplars: int, kind: ExemplarKind = "math") -> int:
    """The largest number of slots that `slots` deals without two of them being the same heuristic with the same exemplars."""
    sets = [math.comb(len(pool), min(exemplars, len(pool))) for pool in (_pool(heuristic, kind) for heuristic in heuristics)]
    return min(len(heuristics) * number + place for place, number in enumerate(sets))


def letters(count: int) -> str:
    """The letters of `count` choices: ABC…"""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]


def _pool(heuristic: Heuristic, kind: ExemplarKind) -> list[Exemplar]:
    return [exemplar for exemplar in heuristic.exemplars if exemplar.kind == kind]


def _draws(heuristic: Heuristic, rounds: int, size: int, seed: int, kind: ExemplarKind) -> list[tuple[Exemplar, ...]]:
    """The draws of one heuristic for rounds 0, 1, …; a set drawn before is drawn again until it is new."""
    pool = _pool(heuristic, kind)
    size = min(size, len(pool))
    seen: set[frozenset[int]] = set()
    draws = []
    for turn in range(rounds):
        rng = random.Random(f"{seed}/{heuristic.key}/{turn}")
        if len(seen) == math.comb(len(pool), size):
            seen.clear()
        while frozenset(drawn := rng.sample(range(len(pool)), size)) in seen:
            pass
        seen.add(frozenset(drawn))
        draws.append(tuple(pool[index] for index in drawn))
    return draws


@functools.cache
def _builtin() -> Catalogue:
    source = importlib.resources.files("jaxpolya.polya") / "heuristics.yaml"
    return _parse(source.read_text(encoding="utf-8"), "heuristics.yaml")


def _parse(text: str, where: str) -> Catalogue:
    """A catalogue from YAML in which every scalar is text. Raises `ConfigError` that names `where`, the heuristic and the key."""
    try:
        tree = yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: a catalogue is a mapping with the key heuristics, a list; docs/heuristics.md has an example")
    try:
        return Catalogue.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {_explain(problem, tree)}" for problem in error.errors())) from None


def _explain(problem: Any, tree: dict[str, Any]) -> str:
    """One of pydantic's errors in words: which heuristic, which key, what is wrong, the nearest right key."""
    place = list(problem["loc"])
    named = ""
    model: type[Strict] = Catalogue
    if len(place) > 1 and place[0] == "heuristics":
        heuristic = tree["heuristics"][place[1]]
        key = heuristic.get("key") if isinstance(heuristic, dict) else None
        named, model, place = f"heuristic {key or place[1] + 1}: ", Heuristic, place[2:]
        if len(place) > 1 and place[0] == "exemplars":
            named, model, place = f"{named}exemplar {place[1] + 1}: ", Exemplar, place[2:]
    path = ".".join(map(str, place))
    match problem["type"]:
        case "extra_forbidden":
            return f"{named}there is no key {path}; {_nearest(path, list(model.model_fields))}"
        case "missing":
            return f"{named}{path} is missing"
        case "value_error":
            return named + problem["msg"].removeprefix("Value error, ")
        case _:
            message = problem["msg"]
            return f"{named}{path + ': ' if path else ''}{message[0].lower()}{message[1:]}, not {str(problem['input'])[:80]!r}"


def _nearest(key: str, known: list[str]) -> str:
    """What to try in place of an unknown key."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
