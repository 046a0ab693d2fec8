"""The run directory: what is done is not done again, and nothing is ever lost.

    runs/NAME/
      config.yaml               the format of the directory, and the resolved configuration of the last start
      stages/STAGE-HASH/        one stage's files; `manifest.json`, written last, says that it is whole
      results.json report.md report.html plots/ export/

A stage's directory is named by a hash of its identity: the configuration fields that change its result, and the fingerprints
of its inputs. Mesh, batch rows, workers, paths and versions are recorded in the manifest and not hashed. A changed
configuration makes new directories beside the old ones; the same one finds what is there.
"""

import contextlib
import datetime
import fcntl
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxpolya.errors import InputError, MachineError
from jaxpolya.files import digest, file_digest, package_version, write_whole
from jaxpolya.keys import Key
from jaxpolya.records import dump, read_json, write_json

FORMAT = 3
"""What the files of a run directory mean; raised where a reader of the number before would misread them. 1 said no number; from 3 on every
configuration has its record (`configurations`), by which `jaxpolya clean` knows what is needed."""

KNOWN_BY_ALL = 2
"""The format from which on stages are known by all that their results rest on, and are found."""

FORMAT_LINE = "# run directory format: "
"""Begins config.yaml."""

MANIFEST = "manifest.json"
ATTEMPTS = "attempts.jsonl"
SECONDS = "seconds"


def read_manifest(path: Path) -> dict[str, Any]:
    """A stage's manifest. Raises `InputError` where it can't be read."""
    try:
        manifest = read_json(path.read_text(encoding="utf-8"))
        if {"stage", "finished", "seconds", "stats", "files"} <= set(manifest):
            return manifest
    except (ValueError, TypeError):
        pass
    raise InputError(f"{path} is damaged; delete {path.parent} to do the stage again")


class Stage:
    """One stage's directory."""

    def __init__(self, directory: Path, key: Key, identity: Mapping[str, Any]):
        self.directory, self.key, self.identity = directory, key, dict(identity)

    @property
    def name(self) -> str:
        """As in `Key`."""
        return self.key.name

    @property
    def stats(self) -> dict[str, Any]:
        """What the manifest says of the result; empty where the stage isn't whole."""
        return (self.manifest or {}).get("stats", {})

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest, if the stage is whole. Raises `InputError` if it can't be read."""
        path = self.directory / MANIFEST
        if not path.exists():
            return None
        return read_manifest(path)

    def changed_file(self) -> str | None:
        """Says which file of a whole stage isn't what its manifest says, if any: what follows would rest on something else."""
        for name, expected in ((self.manifest or {}).get("files") or {}).items():
            path = self.directory / name
            if not path.is_file() or file_digest(path) != expected:
                what = "was changed" if path.is_file() else "has gone"
                return f"{path} {what} since its stage was finished; bring it back, or delete {self.directory} to do the stage again"
        return None

    def start(self, provenance: Mapping[str, Any]) -> None:
        """Notes that the stage is (again) being worked on."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ATTEMPTS).open("a", encoding="utf-8") as file:
            file.write(dump({"started": _now(), **provenance}))

    def reopen(self) -> None:
        """Makes a whole stage one that is to be finished: its files stay."""
        (self.directory / MANIFEST).unlink()

    def note_seconds(self, seconds: float) -> None:
        """Adds the time that this try worked. One that was killed could not; its time is lost, and its work is not."""
        write_whole(self.directory / SECONDS, f"{self._seconds() + seconds:.2f}\n")

    def _seconds(self) -> float:
        path = self.directory / SECONDS
        return float(path.read_text()) if path.exists() else 0.0

    def finish(self, *, stats: Mapping[str, Any], provenance: Mapping[str, Any], rows_busy: float | None = None) -> dict[str, Any]:
        """Writes the manifest, last of all; the stage is whole from here on.

        Args:
          stats: what came of it; the same however often it was broken off.
          provenance: who did it; of a stage that decodes with what computed the attention of its steps in the last try (`decoding`).
          rows_busy: share of the decode engine's row-steps whose token was kept, in the last try.
        """
        attempts = sum(1 for _ in (self.directory / ATTEMPTS).open(encoding="utf-8"))
        files = sorted(path for kind in ("*.jsonl", "*.parquet") for path in self.directory.glob(kind) if path.name != ATTEMPTS)
        manifest = {
            "stage": self.name,
            "finished": _now(),
            "seconds": self._seconds(),
            "attempts": attempts,
            **({} if rows_busy is None else {"rows_busy": round(rows_busy, 3)}),
            "stats": dict(stats),
            "files": {path.name: file_digest(path) for path in files},
            "identity": self.identity,
            "provenance": dict(provenance),
        }
        write_whole(self.directory / MANIFEST, write_json(manifest, f"the manifest of {self.name}", indent=1) + "\n")
        return manifest


class RunDirectory:
    """One run's directory."""

    def __init__(self, path: Path):
        self.path = path

    def check_format(self) -> int | None:
        """The directory's format, None where there is none yet. Raises `InputError` where it is of a later version than this one."""
        path = self.path / "config.yaml"
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                line = file.readline()
        except (OSError, ValueError):  # not there; or nothing can be, which `lock` says
            return None
        text = line.removeprefix(FORMAT_LINE).strip() if line.startswith(FORMAT_LINE) else "1"
        number = int(text) if text.isascii() and text.isdigit() else 1
        if number > FORMAT:
            raise InputError(
                f"{self.path} was made by a later version of jaxpolya (its run directory format is {number}, and this version knows "
                f"{FORMAT}); update jaxpolya, or set another `name`"
            )
        return number

    def stage(self, key: Key, identity: Mapping[str, Any]) -> Stage:
        """The stage of this key and identity, done or not."""
        return Stage(self.path / "stages" / f"{key.name}-{digest(identity)[:10]}", key, identity)

    def manifests(self) -> list[dict[str, Any]]:
        """Manifests of all whole stages, in the order in which they were finished. Raises `InputError` for a damaged one."""
        every = [{**read_manifest(path), "directory": str(path.parent)} for path in self.path.glob(f"stages/*/{MANIFEST}")]
        return sorted(every, key=lambda manifest: manifest["finished"])

    def holder(self) -> str | None:
        """Who works on the run now, as the lock says it (a pid); None where nobody does."""
        try:
            with (self.path / ".lock").open("r") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return file.read().strip() or "unknown"
        except OSError:  # no lock yet, or a disk without locks
            return None
        return None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; it is free again when the process ends, however it ends. Raises `MachineError`."""
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((self.path / ".lock").open("a+"))
            except (FileExistsError, NotADirectoryError):
                raise MachineError(f"{self.path} can't be made: a part of that path is a file; set `output` to a directory") from None
            except (OSError, ValueError) as error:  # the second: a name with a null byte
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise MachineError(f"{self.path} can't be made or written ({reason}); set `output` to a directory that can") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if not isinstance(error, BlockingIOError):
                    raise MachineError(
                        f"{self.path} can't be locked ({error.strerror}), and two processes might work on it; "
                        "set `output` to a disk with locks"
                    ) from error
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise MachineError(f"{self.path} is being worked on by another process (pid {holder}); wait for it, or stop it") from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            # Closing alone would not do: a child that is just being started holds a copy of the file until it is a program of its own.
            stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
            yield


def provenance(mesh_shape: Mapping[str, int], device: str, attention: str) -> dict[str, Any]:
    """Who computed this: versions, device, mesh, what computed attention, source commit."""
    packages = (
        "jaxpolya",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "transformers",
        "tokenizers",
        "math-verify",
        "reasoning-gym",
    )
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := package_version(name))},
        "commit": source_commit(),
        "device": device,
        "mesh": dict(mesh_shape),
        "attention": attention,
        "platform": platform.platform(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def source_commit() -> str | None:
    """The commit of jaxpolya's own checkout, with `+changes` where files differ from it; None where it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if status.strip() else "")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start
