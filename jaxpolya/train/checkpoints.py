"""Checkpoints of a training stage: what a killed stage goes on from.

orbax-checkpoint writes aside and renames, so that a kill leaves the one before. Before the name is given, the files' checksums are
written beside it: a byte that changes later would otherwise be trained on. Two are kept while the stage runs; when its manifest is
written, only the final parameters remain (`hf.checkpoint.save_checkpoint`).
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from jaxpolya.checksums import changed, checksums
from jaxpolya.errors import InputError, machine_trouble
from jaxpolya.files import write_whole
from jaxpolya.hf.directory import for_orbax
from jaxpolya.parallel.hosts import from_primary
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.train.state import State

WRITTEN_LAST = frozenset(["_CHECKPOINT_METADATA"])
"""What Orbax goes on writing until the name is given; nothing is read from it."""


class Checkpoints:
    """The training checkpoints of one stage directory."""

    def __init__(self, directory: Path):
        """Looks for those that are there. Raises `InputError` where Orbax can't even do that."""
        self._directory, self._saving = directory.absolute(), 0
        self._directory.mkdir(parents=True, exist_ok=True)
        self._open = contextlib.ExitStack()
        named = self._open.enter_context(for_orbax(epath.Path(self._directory)))
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            create=True,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        try:
            self._manager = ocp.CheckpointManager(named, options=options)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._directory}: can't be read ({_first_line(error)}); delete it to start the stage again") from error

    def latest(self) -> int | None:
        """Optimizer steps done in the newest whole checkpoint, or None; alike on all hosts."""
        return from_primary(self._manager.latest_step())

    def save(self, step: int, state: State) -> None:
        """Starts writing the state after `step` steps; returns once the arrays are copied off the devices."""
        self._manager.wait_until_finished()
        self._saving = step
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, step: int, abstract: State) -> State:
        """The state after `step` steps, placed as `abstract` says. Raises `InputError` where it isn't what was saved."""
        if trouble := from_primary(self._damage(step) if is_primary() else None):
            raise InputError(self._unreadable(step, trouble))
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # Orbax and TensorStore raise what they met, in classes of their own and bare ones
            if machine_trouble(error):
                raise
            raise InputError(self._unreadable(step, _first_line(error))) from error

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()
        self._open.close()

    def _seal(self) -> None:
        """Lists the files of the checkpoint that is about to get its name; Orbax calls it, in a thread of its own."""
        if is_primary():
            named = [path for path in self._directory.iterdir() if path.name.split(".")[0] == str(self._saving) and path.is_dir()]
            aside = max(named, key=lambda path: path.stat().st_mtime)  # a kill may have left another
            write_whole(self._sums(self._saving), json.dumps(checksums(aside, WRITTEN_LAST)))

    def _damage(self, step: int) -> str | None:
        path = self._sums(step)
        if not path.exists():
            return None
        try:
            return changed(self._directory / str(step), json.loads(path.read_text()))
        except (OSError, ValueError, AttributeError) as error:
            return f"{path.name}: {_first_line(error)}"

    def _sums(self, step: int) -> Path:
        return self._directory / f"checksums-{step}.json"

    def _unreadable(self, step: int, reason: str) -> str:
        return (
            f"{self._directory / str(step)}: this checkpoint can't be read ({reason}); delete that directory to go on from the one before "
            "it, or the stage's directory to start the stage again"
        )


def _first_line(error: Any) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
