"""What a person sees while a run works: one live bar per stage on a terminal, plain lines elsewhere.

Stages report units of work done and what they have learnt; an estimate of the time left comes from the rate so far. Whatever is
shown is `Text`: in a string, rich would take `[v2]` of a path for markup and `:x:` for a picture.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

LINE_EVERY = 10.0  # seconds between two lines where there is no terminal


class Task(Protocol):
    """One bar."""

    def advance(self, done: int = 1, **facts: float | str) -> None:
        """Adds units of work; `facts` are shown beside the bar."""


class Display:
    """Shows stages. `quiet` shows nothing but notes; only the primary host shows anything."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False):
        self.console = console or Console(stderr=True)
        self._quiet = quiet

    def note(self, text: str) -> None:
        """One line that stays."""
        if not self._quiet:
            self.console.print(Text(text), soft_wrap=True)

    @contextlib.contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        """A bar of `total` units, of which `done` were done before."""
        if self._quiet:
            yield _Silent()
        elif self.console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self.console, transient=True, speed_estimate_period=120) as bars:
                yield _Bar(bars, title, total, done)
        else:
            yield _Lines(self.console, title, total, done)


class _Silent:
    def advance(self, done: int = 1, **facts: float | str) -> None:
        pass


class _Bar:
    def __init__(self, bars: Progress, title: str, total: int, done: int):
        self._bars = bars
        self._id = bars.add_task(title, total=total, completed=done, facts="")

    def advance(self, done: int = 1, **facts: float | str) -> None:
        self._bars.update(self._id, advance=done)
        if facts:
            self._bars.update(self._id, facts=_facts(facts))


class _Lines:
    def __init__(self, console: Console, title: str, total: int, done: int):
        self._console, self._title, self._total, self._done = console, title, total, done
        self._shown = time.monotonic()
        self._first: tuple[float, int] | None = None  # the rate is taken from the first unit on: before it, programs compile

    def advance(self, done: int = 1, **facts: float | str) -> None:
        self._done += done
        now = time.monotonic()
        if self._first is None:
            self._first = (now, self._done) if done else None
        if now - self._shown >= LINE_EVERY or (self._done >= self._total and done):
            self._shown = now
            text = f"{self._title}: {self._done}/{self._total} {_facts(facts)}".rstrip()
            since, before = self._first or (now, self._done)
            left = (now - since) / max(self._done - before, 1) * (self._total - self._done)
            self._console.print(Text(f"{text}, about {left:.0f} s left" if left >= 1 and self._done > before else text))


def _facts(facts: dict[str, float | str]) -> str:
    return "  ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items())
