"""Checkpoints of a training stage: what a killed stage goes on from.

orbax-checkpoint writes aside and renames, so that a kill leaves the one before. Two are kept while the stage runs; when its
manifest is written, only the final parameters remain (`hf.checkpoint.save_checkpoint`).
"""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from jaxpolya.errors import InputError
from jaxpolya.parallel.hosts import from_primary
from jaxpolya.train.state import State


class Checkpoints:
    """The training checkpoints of one stage directory."""

    def __init__(self, directory: Path):
        self._manager = ocp.CheckpointManager(
            directory.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=True)
        )

    def latest(self) -> int | None:
        """Optimizer steps done in the newest whole checkpoint, or None; alike on all hosts."""
        return from_primary(self._manager.latest_step())

    def save(self, step: int, state: State) -> None:
        """Starts writing the state after `step` steps; returns once the arrays are copied off the devices."""
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, step: int, abstract: State) -> State:
        """The state after `step` steps, placed as `abstract` says. Raises `InputError` where it can't be read."""
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, OSError, KeyError) as error:
            raise InputError(
                f"{self._manager.directory}/{step}: this checkpoint can't be read ({_first_line(error)}); delete that directory to go on "
                "from the one before it, or the stage's directory to start the stage again"
            ) from error

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _first_line(error: Any) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
