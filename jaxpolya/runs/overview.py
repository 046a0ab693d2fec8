"""What a run directory holds, seen from outside: its configurations, its stages and their state, and what nothing needs.

A stage is *done*, *running* (a process holds the run's lock, and works on it), *broken off* (the same command goes on with it), or *left*:
no configuration that is listed needs it. Nothing here changes anything but `remove`. Imports no jax.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxpolya.errors import InputError
from jaxpolya.evaluation.audit import ACCEPTED, warnings
from jaxpolya.progress import Progress, read_progress
from jaxpolya.report.tables import NONE, Cell, Table, duration, percent
from jaxpolya.results import Results
from jaxpolya.runs import configurations as known
from jaxpolya.runs.configurations import Configuration
from jaxpolya.runs.results import brief
from jaxpolya.runs.stages import ATTEMPTS, MANIFEST, RunDirectory, read_manifest

State = Literal["done", "running", "broken off", "left"]


@dataclasses.dataclass(frozen=True)
class StageState:
    """One stage's directory."""

    directory: Path
    name: str
    state: State
    used_by: tuple[str, ...]
    """Ids of the configurations that need it."""
    manifest: dict[str, Any] | None

    @property
    def bytes(self) -> int:
        """What it takes on the disk."""
        return size(self.directory)


@dataclasses.dataclass(frozen=True)
class Overview:
    """A run directory."""

    path: Path
    configurations: list[Configuration]
    stages: list[StageState]
    """The done ones in the order in which they were finished, then the others."""
    holder: str | None
    """Who works on it now: a pid."""
    progress: Progress | None
    """Where that one is."""

    @property
    def names(self) -> dict[str, str]:
        """Of the configurations, by id."""
        return known.names(self.configurations)

    @property
    def leftovers(self) -> list[StageState]:
        """The stages that no listed configuration needs."""
        return [stage for stage in self.stages if stage.state == "left"]

    @property
    def unknown(self) -> list[Configuration]:
        """The configurations of which an earlier version didn't note what they need."""
        return [one for one in self.configurations if one.stages is None]

    def without(self, forgotten: Configuration) -> "Overview":
        """The same if a configuration were not there."""
        stages = []
        for stage in self.stages:
            users = tuple(one for one in stage.used_by if one != forgotten.id)
            stages.append(_with_state(dataclasses.replace(stage, used_by=users), None) if stage.used_by else stage)
        return dataclasses.replace(self, configurations=[one for one in self.configurations if one != forgotten], stages=stages)


def look_at(run: Path, *, held: bool = False) -> Overview:
    """What a run directory holds; `held`: the caller has its lock, and nobody else works on it.

    Raises `InputError` where it is not a run directory, or one that can't be read.
    """
    check_run(run)
    entries, holder = known.configurations(run), None if held else RunDirectory(run).holder()
    progress = read_progress(run) if holder else None
    unknown = tuple(one.id for one in entries if one.stages is None)
    stages = []
    for path in sorted(run.glob("stages/*")):
        if not path.is_dir() or path.name.startswith("."):
            continue
        manifest = read_manifest(path / MANIFEST) if (path / MANIFEST).exists() else None
        users = tuple(one.id for one in entries if path.name in (one.stages or ())) or unknown
        stages.append(StageState(path, path.name.rpartition("-")[0], "done" if manifest else "broken off", users, manifest))
    stages.sort(key=lambda stage: (stage.manifest is None, stage.manifest["finished"] if stage.manifest else stage.name))
    current = _running(stages, progress) if holder else None
    return Overview(run, entries, [_with_state(stage, current) for stage in stages], holder, progress)


def check_run(run: Path) -> None:
    """Raises `InputError` where it is not a run directory, or one of a later version."""
    if not (run / "config.yaml").is_file():
        runs = sorted({str(path.parent) for place in (run, run.parent) for path in place.glob("*/config.yaml")})
        there = f"runs near it: {', '.join(runs)}" if runs else "`jaxpolya run CONFIG` makes one, below the config's `output`"
        raise InputError(f"{run} is not a run directory; {there}")
    RunDirectory(run).check_format()


def _running(stages: Sequence[StageState], progress: Progress | None) -> Path | None:
    """The stage that is worked on: as the process itself says, or the one that was begun last."""
    begun = [stage for stage in stages if not stage.manifest and (stage.directory / ATTEMPTS).exists()]
    named = next((stage.directory for stage in begun if progress and stage.directory.name == progress.directory), None)
    newest = max(begun, key=lambda stage: (stage.directory / ATTEMPTS).stat().st_mtime, default=None)
    return named or (newest.directory if newest else None)


def _with_state(stage: StageState, current: Path | None) -> StageState:
    if stage.directory == current:
        return dataclasses.replace(stage, state="running")
    return stage if stage.used_by else dataclasses.replace(stage, state="left")


# Tables ------------------------------------------------------------------------------------------------------------------


def configurations_table(overview: Overview) -> Table:
    """What the directory has worked on, and what came of it."""
    rows = []
    for one in overview.configurations:
        results = Results.read(known.place(overview.path, one)) if (overview.path / known.PLACE).exists() else Results.read(overview.path)
        evaluated = results.arms[results.best].eval if results and results.best else {}
        first = next((evaluation.pass_[1] for evaluation in evaluated.values()), None)
        rows.append(
            [
                Cell(overview.names[one.id]),
                Cell(_state_of(one, overview, results)),
                Cell(one.begun[:16].replace("T", " ")),
                Cell(results.best if results and results.best else NONE),
                Cell(percent(first.mean), f"{percent(first.low)}–{percent(first.high)}") if first else Cell(NONE),
            ]
        )
    return Table("Configurations", ["configuration", "state", "begun", "best arm", "pass@1 %"], rows, numbers=False)


def _state_of(one: Configuration, overview: Overview, results: Results | None) -> str:
    own = [stage for stage in overview.stages if one.id in stage.used_by]
    if overview.holder and (overview.progress is None or overview.progress.configuration == one.id):
        return "running"
    return "done" if results and all(stage.manifest for stage in own) else "broken off"


def stages_table(overview: Overview) -> Table:
    """The stages, their state, and which configurations share them."""
    several = len(overview.configurations) > 1
    numbers = {one.id: str(i) for i, one in enumerate(overview.configurations, 1)}
    rows = []
    for stage in overview.stages:
        shared = "all" if len(stage.used_by) == len(numbers) else ",".join(numbers[one] for one in stage.used_by) or NONE
        manifest = stage.manifest or {"seconds": None, "stats": {}}
        cells = [
            stage.state,
            stage.name,
            *([shared] if several else []),
            duration(manifest["seconds"]),
            brief(manifest["stats"]),
        ]
        rows.append([Cell(text) for text in cells])
    return Table("Stages", ["state", "stage", *(["of"] if several else []), "time", "what came of it"], rows, numbers=False)


def stage_warnings(run: Path) -> list[str]:
    """What makes the verdicts of a run's whole stages doubtful, a line each: what was accepted, and what the audits find too large."""
    lines = []
    for manifest in RunDirectory(run).manifests():
        accepted = manifest.get("identity", {}).get("verify", {}).get("math", {}).get("unevaluated") == "accept"
        texts = [*([ACCEPTED] if accepted else []), *warnings(manifest["stats"].get("audit", {})).values()]
        lines += [f"{manifest['stage']}: {words}" for words in texts]
    return lines


# What nothing needs ------------------------------------------------------------------------------------------------------


def check_cleanable(overview: Overview) -> None:
    """Raises `InputError` where it isn't known what is needed."""
    if overview.unknown:
        named = "; ".join(overview.names[one.id] for one in overview.unknown)
        raise InputError(
            f"{overview.path}: an earlier version worked on this configuration, and didn't note what it needs: {named}. Run it once "
            "more with `jaxpolya run`, which does nothing anew, or leave it out with --forget"
        )


def remove(stages: Sequence[StageState]) -> None:
    """Deletes stages: renamed first, so that one is whole or not there."""
    for stage in stages:
        aside = stage.directory.with_name(f".{stage.directory.name}.gone")
        stage.directory.rename(aside)
        shutil.rmtree(aside)


def size(path: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def readable(size: int) -> str:
    """A number of bytes for people."""
    value, units = float(size), ["B", "KB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
