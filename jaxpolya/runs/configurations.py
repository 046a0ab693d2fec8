"""The configurations that a run directory has worked on: each keeps its results, and the stages that it needs are known.

    runs/NAME/
      configurations/ID/      one configuration: configuration.json, results.json, report.md, report.html, plots/
      results.json …          those of the configuration that was finished last

A configuration is known by every field that can change a result (`identity.stage_fields`) and by the content of its inputs; ID is a hash
of both. It is *named* by the settings in which the directory's configurations differ (`select.n=1,seed=3`): a name is a way to point at
it, and may grow when further configurations come; whatever singles one out points at it too. Stages are shared as before, and the
record of a configuration says which ones it came to.

This module doesn't import jax.
"""

import contextlib
import datetime
import functools
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from jaxpolya.config import CONTENT, SEEDED, RunConfig, Strict
from jaxpolya.config.file import parse_config
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.files import digest, file_digest, write_whole
from jaxpolya.records import read_json, write_json
from jaxpolya.results import RESULTS, Results
from jaxpolya.runs.identity import source_identity, stage_fields

PLACE = "configurations"
RECORD = "configuration.json"
SHOWN = (RESULTS, "report.md", "report.html", "plots")
"""What the directory itself shows of the configuration that was finished last."""

SEEDS = tuple(f"{part}.seed" for part in SEEDED)
QUESTIONS = ("generate.questions", "rl.questions", "eval.questions")
LARGEST_HASHED = 1 << 30
"""Bytes of a file that is known by its content; a larger one is known by its name."""
WHERE = ("name", "output", "mesh", "export", "log")
"""Fields of a run that say where and how it works."""


class Configuration(pydantic.BaseModel):
    """What is recorded of one configuration."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    id: str
    begun: str
    """When it was worked on first, UTC."""
    settings: dict[str, Any]
    """Dotted key → value: all that it is known by."""
    stages: list[str] | None = []
    """Directory names of the stages that it came to, in their order; None where an earlier version, which didn't note them, did it."""


# What a configuration is known by ----------------------------------------------------------------------------------------


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Dotted key → value of all that can change a result. Raises `InputError` where a file of questions is missing."""
    return _flat(stage_fields(config, without=WHERE if config.seeds else (*WHERE, "seeds")) | _contents(config))


def _contents(config: Strict) -> dict[str, Any]:
    """A configuration's named inputs, with the content of those that are files, at any depth."""
    contents: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if CONTENT in field.metadata:
            contents[name] = _content(value)
        elif isinstance(value, Strict) and (inside := _contents(value)):
            contents[name] = stage_fields(value) | inside
    return contents


def _content(value: Any) -> Any:
    if isinstance(value, Strict):
        return source_identity(value)  # type: ignore[arg-type]
    if isinstance(value, list):
        return [_content(item) for item in value]
    if isinstance(value, dict):
        return {name: _content(item) for name, item in value.items()}
    path = Path(value) if value is not None else None
    if path and path.is_file() and (stat := path.stat()).st_size < LARGEST_HASHED:
        return {"name": path.name, "content": _digest(path, stat.st_size, stat.st_mtime_ns)[:16]}
    return value if value is None else str(value)


@functools.cache
def _digest(path: Path, size: int, changed: int) -> str:
    """A file's digest, which the several seeds of a start find once. It isn't remembered from one start to the next: that would save a
    second or two for a file of the largest size, and would trust a copied file's time of change."""
    return file_digest(path)


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists of plain values stay whole, and None is no setting."""
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list) and any(isinstance(item, Mapping | list) for item in node):
        items = dict(enumerate(node)).items()  # type: ignore[assignment]
    else:
        return {} if node is None else {prefix: node}
    return {key: value for name, item in items for key, value in _flat(item, f"{prefix}.{name}" if prefix else str(name)).items()}


# Records -----------------------------------------------------------------------------------------------------------------


def place(run: Path, configuration: Configuration) -> Path:
    """The directory of a configuration's results."""
    return run / PLACE / configuration.id


def configurations(run: Path) -> list[Configuration]:
    """All configurations of a run directory, in the order in which they were begun. Raises `InputError` where a record is damaged."""
    records = sorted(run.glob(f"{PLACE}/*/{RECORD}"))
    entries = [_read(path) for path in records] if records else _earlier(run)
    return sorted(entries, key=lambda one: (one.begun, one.id))


def begin(run: Path, config: RunConfig) -> Configuration:
    """The record of a configuration that is worked on from now on; what an earlier version left is recorded first."""
    if not (run / PLACE).exists():
        for earlier in _earlier(run):
            _adopt(run, earlier)
    settings = settings_of(config)
    known_by = digest(settings)[:10]
    path = run / PLACE / known_by / RECORD
    if path.exists() and (entry := _read(path)).stages is not None:
        return entry
    begun = _read(path).begun if path.exists() else datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = Configuration(id=known_by, begun=begun, settings=settings)
    _write(run, made)
    return made


def note_stages(run: Path, configuration: Configuration, stages: Sequence[str], *, all_of_them: bool) -> Configuration:
    """The record with the stages that were come to; `all_of_them`: those, and no others, are what the configuration needs."""
    known = [] if all_of_them else [name for name in configuration.stages or [] if name not in stages]
    noted = configuration.model_copy(update={"stages": [*known, *stages]})
    if noted != configuration:
        _write(run, noted)
    return noted


def place_at(run: Path, pointed: str) -> Path:
    """Where the results of the configuration are that `at` finds. Raises `InputError`."""
    one = at(configurations(run), pointed)
    return place(run, one) if (run / PLACE).exists() else run


def results_at(run: Path, pointed: str) -> Results:
    """The results of the configuration that `at` finds. Raises `InputError` where there is none, or it isn't finished."""
    if (results := Results.read(place_at(run, pointed))) is None:
        raise InputError(f"{run}: {pointed} isn't finished; `jaxpolya run` with that configuration goes on")
    return results


def publish(run: Path, configuration: Configuration) -> None:
    """Shows a configuration's results as those of the whole directory."""
    for name in SHOWN:
        source = place(run, configuration) / name
        for file in [source] if source.is_file() else sorted(source.glob("*")):
            write_whole(run / file.relative_to(place(run, configuration)), file.read_bytes())


def forget(run: Path, configuration: Configuration) -> None:
    """Deletes a configuration's record and its results; its stages stay where they are."""
    aside = run / PLACE / f".{configuration.id}.gone"
    place(run, configuration).rename(aside)
    shutil.rmtree(aside)


def _write(run: Path, configuration: Configuration) -> None:
    write_whole(place(run, configuration) / RECORD, write_json(configuration.model_dump(mode="json"), RECORD, indent=1) + "\n")


def _read(path: Path) -> Configuration:
    with contextlib.suppress(ValueError, RecursionError):
        return Configuration.model_validate(read_json(path.read_text(encoding="utf-8")))
    raise InputError(f"{path} is damaged; delete {path.parent}, and `jaxpolya run` with that configuration writes it again from the stages")


def _earlier(run: Path) -> list[Configuration]:
    """What a directory of an earlier version worked on: the last configuration, and the one that its results are of."""
    by_id: dict[str, Configuration] = {}
    with contextlib.suppress(InputError, OSError, yaml.YAMLError):
        results = Results.read(run)
        trees = [results.config if results else None, yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))]
        for tree in trees:
            if isinstance(tree, dict):
                settings = _settings_of_tree(tree)
                when = datetime.datetime.fromtimestamp((run / "config.yaml").stat().st_mtime, datetime.UTC)
                one = Configuration(id=digest(settings)[:10], begun=when.isoformat(timespec="seconds"), settings=settings, stages=None)
                by_id.setdefault(one.id, one)
    return list(by_id.values())


def _settings_of_tree(tree: dict[str, Any]) -> dict[str, Any]:
    """The settings in a configuration that another version may have written: what can't be read as one of ours is taken as it stands."""
    try:
        return settings_of(parse_config(tree))
    except (ConfigError, InputError):
        return _flat({name: value for name, value in tree.items() if name not in WHERE})


def _adopt(run: Path, earlier: Configuration) -> None:
    _write(run, earlier)
    results = Results.read(run)
    if results is not None and digest(_settings_of_tree(results.config))[:10] == earlier.id:
        for name in SHOWN:
            source, target = run / name, place(run, earlier) / name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            elif source.is_file():
                shutil.copyfile(source, target)


# Names -------------------------------------------------------------------------------------------------------------------


ALONE = "the only one"


def names(entries: Sequence[Configuration]) -> dict[str, str]:
    """Id → name: the settings in which these configurations differ."""
    return {
        one: ",".join(f"{key}={as_text(value)}" for key, value in apart.items() if value is not None or key not in ("seed", "seeds"))
        or ALONE
        for one, apart in differing(entries).items()
    }


def differing(entries: Sequence[Configuration]) -> dict[str, dict[str, Any]]:
    """Id → the settings in which these configurations differ; question sets that differ in much are one setting."""
    told = {one.id: _told(one) for one in entries}
    keys = _keys_apart(told.values())
    for part in QUESTIONS:
        inside = [key for key in keys if key.startswith(f"{part}.")]
        if len(inside) > 1:
            told = {one: settings | {part: _sets(part, settings)} for one, settings in told.items()}
            keys = [key for key in keys if key not in inside] + [part]
    return {one.id: {key: told[one.id].get(key) for key in keys} for one in entries}


def _keys_apart(all_settings: Iterable[Mapping[str, Any]]) -> list[str]:
    every = list(all_settings)
    return [key for key in dict.fromkeys(key for settings in every for key in settings) if _differs(key, every)]


def _sets(part: str, settings: Mapping[str, Any]) -> list[str]:
    """Question sets, each by its name (those of the evaluation have one) and a hash of what it asks."""
    asked = {key.removeprefix(f"{part}."): value for key, value in settings.items() if key.startswith(f"{part}.")}
    if part != "eval.questions":
        return [digest(asked)[:6]] if asked else []
    sets = {name.rpartition(".0.")[0] for name in asked if ".0." in name}
    return [f"{name}#{digest({key: value for key, value in asked.items() if key.startswith(f'{name}.')})[:4]}" for name in sorted(sets)]


def at(entries: Sequence[Configuration], pointed: str, option: str = "--at") -> Configuration:
    """The configuration that a name, an id, or some of its settings (`select.n=4` or `n=4`) single out. Raises `InputError` naming the
    option."""
    named, apart = names(entries), differing(entries)
    exact = [one for one in entries if pointed in (named[one.id], one.id)]
    by_difference = [one for one in entries if _matches(apart[one.id], pointed)]
    matching = exact or by_difference or [one for one in entries if _matches(_told(one), pointed)]
    if len(matching) == 1:
        return matching[0]
    known = "; ".join(named[one.id] for one in matching or entries)
    if not matching:
        there = {0: "there is none", 1: f"there is one, called {known!r}"}.get(len(entries), f"there are {known}")
        raise InputError(f"{option} {pointed}: there is no such configuration here; {there}")
    raise InputError(f"{option} {pointed}: {len(matching)} configurations are meant: {known}")


def _matches(settings: Mapping[str, Any], pointed: str) -> bool:
    pairs = [part.partition("=") for part in split_values(pointed)]
    return all(
        equals and any(as_text(value) == text.strip() for key, value in settings.items() if is_named(key, name.strip()))
        for name, equals, text in pairs
    )


def is_named(key: str, name: str) -> bool:
    """Whether a dotted key is meant by a name: all of it, or its last parts."""
    return key == name or key.endswith(f".{name}")


def split_values(pointed: str) -> list[str]:
    """The parts between commas; those inside brackets are a value's."""
    parts, depth = [""], 0
    for letter in pointed:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def as_text(value: Any) -> str:
    """A setting's value as one writes it in YAML, in a line."""
    if isinstance(value, list):
        return f"[{','.join(map(as_text, value))}]"
    return value if isinstance(value, str) else "unset" if value is None else json.dumps(value)


def without_seeds(one: Configuration) -> dict[str, Any]:
    """The settings but for its seeds."""
    return {key: value for key, value in one.settings.items() if key not in (*SEEDS, "seeds")}


def _told(one: Configuration) -> dict[str, Any]:
    """The settings, with the seeds as one where they are all alike; a configuration of several `seeds` has none of its own."""
    if "seeds" in one.settings:
        return {key: value for key, value in one.settings.items() if key not in SEEDS}
    seeds = {one.settings[key] for key in SEEDS if key in one.settings}
    if len(seeds) != 1:
        return one.settings
    return {key: value for key, value in one.settings.items() if key not in SEEDS} | {"seed": seeds.pop()}


def _differs(key: str, all_settings: Iterable[Mapping[str, Any]]) -> bool:
    return len({as_text(settings.get(key)) for settings in all_settings}) > 1
