"""Where recorded rollouts come from: an RL stage of ours, a file of JSON lines, or a function of a user's. A door.

Whatever it is, it is asked for the records of one round, by its number: a training that goes on after a kill asks again for those since its
last checkpoint. What a record holds is said, and checked, in `replay`.
"""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxpolya.config import RlConfig
from jaxpolya.doors import bring, check_call, is_reference
from jaxpolya.errors import ConfigError, InputError, failure, nearest_path
from jaxpolya.files import digest, file_digest
from jaxpolya.records import iter_json, read_json
from jaxpolya.rollout.rounds import rollout_file

KEY = "rl.replay"


class Row(NamedTuple):
    """A record, and where it stands, for errors."""

    where: str
    fields: Mapping[str, Any]


class Recording(Protocol):
    """Where records come from."""

    name: str

    @property
    def rounds(self) -> int | None:
        """How many there are; None where nobody can tell."""

    @property
    def identity(self) -> Any:
        """What a stage knows it by."""

    def pieces(self, step: int) -> list[list[Row]]:
        """The records of a round, as it asked them: the first piece of P questions, and those of its refills."""


def open_recording(config: RlConfig, slug: str) -> Recording:
    """What `rl.replay` names.

    Args:
      config: the stage; `config.replay` is set.
      slug: of the arm, whose stage is taken of a run.

    Raises:
      ConfigError, InputError: there is no such thing, or fewer rounds than `rl.steps`.
    """
    assert config.replay is not None
    recording = _open(config, config.replay, slug)
    if recording.rounds is not None and recording.rounds < config.steps:
        raise ConfigError(f"{KEY}: {recording.name} holds {recording.rounds} rounds, and rl.steps is {config.steps}; lower it")
    return recording


def _open(config: RlConfig, reference: str, slug: str) -> Recording:
    path = Path(reference).expanduser()
    if path.is_dir():
        return _Directory(_stage_of(path, slug))
    if path.is_file():
        return _File(path, config.prompts * config.group)
    if is_reference(reference):
        return _FunctionRecording(reference)
    raise InputError(f"{KEY}: {path} isn't there{nearest_path(path)}; name a run, its RL stage, a file of JSON lines, or a function")


def _stage_of(path: Path, slug: str) -> Path:
    """The directory of the rollouts' files: `path` itself, or that of its stage, or of the arm's one stage of a run."""
    if (path / "stages").is_dir():
        stages = sorted(path.glob("stages/rl-*/rollouts"))
        mine = [stage for stage in stages if stage.parent.name.rpartition("-")[0] == f"rl-{slug}"]
        if len(mine) != 1:
            there = ", ".join(str(stage.parent) for stage in mine or stages) or "none"
            raise InputError(f"{KEY}: {path} has {len(mine)} RL stages of the arm {slug}; name one (there are: {there})")
        return mine[0]
    rollouts, first = path / "rollouts" if (path / "rollouts").is_dir() else path, rollout_file(path, 0, 0).name
    if not (rollouts / first).is_file():
        raise InputError(f"{KEY}: {rollouts} holds no rollouts ({first}); name a run, or its RL stage's directory")
    return rollouts


class _Directory:
    """The rollouts of an RL stage of ours: a file a piece."""

    def __init__(self, path: Path):
        self.name, self._path = str(path), path
        self.rounds: int | None = next(step for step in itertools.count() if not self._file(step, 0).is_file())

    @property
    def identity(self) -> Any:
        return digest({path.name: file_digest(path) for path in self._path.glob("*.jsonl")})

    def pieces(self, step: int) -> list[list[Row]]:
        files = itertools.takewhile(Path.is_file, (self._file(step, attempt) for attempt in itertools.count()))
        return [[Row(f"{path}:{number}", row) for number, row in iter_json(path)] for path in files]

    def _file(self, step: int, attempt: int) -> Path:
        return self._path / rollout_file(self._path.parent, step, attempt).name


class _File:
    """One JSON-lines file. Where its rounds lie is found once; each is read when it is needed."""

    def __init__(self, path: Path, at_once: int):
        """at_once: records of a round, where they don't say their step."""
        self.name, self._path = str(path), path
        self._places: dict[int, list[tuple[int, int]]] = {}
        """Round → (line number, offset) of its records."""
        forms: set[bool] = set()
        count = 0
        for number, offset, row in self._lines():
            forms.add("step" in row)
            if len(forms) > 1:
                raise InputError(f"{path}:{number}: some records have a step and some have none; give all of them one, or none")
            step = row.get("step", count // at_once)
            if not isinstance(step, int) or step < 0:
                raise InputError(f"{path}:{number}: step is {step!r}; rounds count from 0")
            self._places.setdefault(step, []).append((number, offset))
            count += 1
        if forms == {False} and count % at_once:
            raise InputError(
                f"{path}: {count} records are no whole number of rounds of rl.prompts · rl.group ({at_once}); give each record its `step`, "
                "or change those"
            )
        self.rounds: int | None = next(step for step in itertools.count() if step not in self._places)
        if beyond := sorted(step for step in self._places if step >= self.rounds):
            raise InputError(f"{path}: has round {beyond[0]} and no round {self.rounds}; rounds count from 0, without a gap")

    @property
    def identity(self) -> Any:
        return file_digest(self._path)

    def pieces(self, step: int) -> list[list[Row]]:
        with self._path.open("rb") as file:
            rows = []
            for number, offset in self._places.get(step, []):
                file.seek(offset)
                rows.append(Row(f"{self._path}:{number}", read_json(file.readline().decode())))
        return [rows]

    def _lines(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        offset = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        row = read_json(line.decode())
                    except (ValueError, RecursionError) as error:
                        raise InputError(f"{self._path}:{number}: not JSON ({error}); mend or delete the line") from None
                    if not isinstance(row, dict):
                        raise InputError(f"{self._path}:{number}: a JSON object is needed, not {type(row).__name__}")
                    yield number, offset, row
                offset += len(line)


class _FunctionRecording:
    """Records that a function of a user's gives: `function(step)`. Every host calls it, and a resumed stage calls it again."""

    rounds: int | None = None

    def __init__(self, reference: str):
        plugin = bring(reference, KEY)
        self.name, self.identity, self._function = plugin.name, plugin.identity, plugin.value
        check_call(plugin.value, ("step",), f"{KEY}: {plugin.name}")

    def pieces(self, step: int) -> list[list[Row]]:
        try:
            rows = list(self._function(step))
        except Exception as error:
            raise InputError(f"{KEY}: {self.name}, step {step}: {failure(error)}") from error
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InputError(f"{KEY}: {self.name}, step {step}: record {number} is of type {type(row).__name__}; a mapping is needed")
        return [[Row(f"{self.name}, step {step}, record {number}", row) for number, row in enumerate(rows)]]
