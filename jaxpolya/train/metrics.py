"""One JSON line a training step, for programs and plots."""

import json
from pathlib import Path
from typing import Any

from jaxpolya.records import Appender, iter_json


class StepLog:
    """Appends step metrics; opening keeps the first `keep` steps, which is where a resumed stage goes on.

    Lines of later steps are of a try that was killed after its last checkpoint; those steps are done again.
    """

    def __init__(self, path: Path, *, keep: int, primary: bool):
        self._rows: list[dict[str, Any]] = []
        if path.exists():
            Appender(path).close()
            self._rows = [row for _, row in iter_json(path) if row["step"] < keep]
        self._file = None
        if primary:
            aside = path.with_name(f".{path.name}.partial")
            aside.write_text("".join(json.dumps(row) + "\n" for row in self._rows), encoding="utf-8")
            aside.replace(path)
            self._file = Appender(path)

    def append(self, row: dict[str, Any]) -> None:
        """Adds one step."""
        self._rows.append(row)
        if self._file:
            self._file.append(row)

    def close(self) -> list[dict[str, Any]]:
        """All steps, from the first."""
        if self._file:
            self._file.close()
        return self._rows
