"""One JSON line a training step, for programs and plots, and the same to whatever sinks there are."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxpolya.errors import RunError
from jaxpolya.files import write_whole
from jaxpolya.parallel.hosts import wait_for_all
from jaxpolya.records import Appender, dump, iter_json
from jaxpolya.train.sinks import Sinks


class StepLog:
    """Appends step metrics; opening keeps the first `keep` steps, which is where a resumed stage goes on.

    Lines of later steps are of a try that was killed after its last checkpoint; those steps are done again.
    """

    def __init__(self, path: Path, *, keep: int, primary: bool, sinks: Sinks | None = None):
        self._directory = path.parent
        if primary and path.exists():
            Appender(path).close()  # mends a torn last line
        wait_for_all(f"mended {path}")
        self._rows = [row for _, row in iter_json(path) if row["step"] < keep] if path.exists() else []
        wait_for_all(f"read {path}")
        self._file = None
        if primary:
            write_whole(path, "".join(dump(row) for row in self._rows))
            self._file = Appender(path)
        self._sinks = sinks or Sinks()
        self._sinks.write(*self._rows)

    def append(self, row: dict[str, Any]) -> None:
        """Adds one step. Raises `RunError` where a number of it is not finite: nothing good follows, and nothing may be saved."""
        if strange := [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]:
            raise RunError(
                f"{self._directory.name}, step {row['step']}: {', '.join(strange)} not finite, the training has diverged; lower its "
                f"optimizer.learning_rate (or, if a checkpoint in {self._directory / 'checkpoints'} was damaged, delete that)"
            )
        self._rows.append(row)
        if self._file:
            self._file.append(row)
        self._sinks.write(row)

    @property
    def rows(self) -> Sequence[dict[str, Any]]:
        """The steps so far, from the first."""
        return self._rows

    def close(self) -> list[dict[str, Any]]:
        """All steps, from the first."""
        if self._file:
            self._file.close()
        return self._rows
