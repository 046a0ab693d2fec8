"""A metric sink of one's own: the numbers of training and evaluation as one CSV file a stage, a line a number.

    jaxpolya run configs/quickstart.yaml --set 'log=[examples/csv_sink.py:CsvSink]'

It is opened anew when a stage is resumed, and is told the steps that it hasn't taken yet: so it appends.
"""

import csv
from collections.abc import Mapping

from jaxpolya.train.sinks import LoggedStage


class CsvSink:
    """Writes `numbers.csv` into the directory of a stage: run, stage, step, name, value."""

    def __init__(self, stage: LoggedStage):
        self._stage = stage
        self._file = (stage.directory / "numbers.csv").open("a", newline="", encoding="utf-8")
        self._lines = csv.writer(self._file)

    def write(self, step: int, facts: Mapping[str, float]) -> None:
        """The lines of one step, on disk when this returns."""
        self._lines.writerows([self._stage.run, self._stage.name, step, name, value] for name, value in sorted(facts.items()))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
