"""What a person sees while a run works: one live bar a stage on a terminal, a line a step elsewhere; and a file for whoever looks in.

Stages report units of work, tokens, the phase that they are in (asking, judging, updating) and, where they have steps, what each step
measured. The time left of a stage comes from its rate so far; the run's adds what stages like those to come have taken. `progress.json` in
the run's directory says the same to `jaxpolya show` on another terminal; nothing depends on it.

Whatever is shown is `Text`: in a string, rich would take `[v2]` of a path for markup and `:x:` for a picture.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from jaxpolya.files import write_whole

LINE_EVERY = 10.0
"""Seconds between two lines of a stage without steps, where there is no terminal."""

FILE, FILE_EVERY = "progress.json", 2.0
"""The file for other terminals, and the seconds between two writes of it."""

ASKING = "asking"

STEP_FACTS = {
    "reward": "reward", "loss": "loss", "length": "length", "truncated": "truncated", "no_signal": "no signal", "entropy": "entropy",
    "vendi": "Vendi", "reference_kl": "KL to the start", "kl_start": "KL to the start",
}  # fmt: skip
"""Measures of a step → how they are called beside the bar, those of them that there are."""


class Task(Protocol):
    """One stage's work, as it goes on."""

    def advance(self, done: int = 1, *, tokens: int = 0, **facts: float | str) -> None:
        """Adds units of work, and tokens that were drawn; `facts` are shown beside the bar."""

    def phase(self, name: str) -> None:
        """What is done from now on: asking, judging, updating."""

    def step(self, number: int, of: int, facts: Mapping[str, Any]) -> None:
        """A step is done, of so many; of its measures those in `STEP_FACTS` are shown."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run is, as the process that works on it wrote it down."""

    configuration: str = ""
    """Id of the configuration (`runs.configurations`)."""
    directory: str = ""
    """Name of the stage's directory."""
    number: int = 0
    of: int = 0
    """The stage is the so-manieth of so many of the run."""
    words: str = ""
    """What a line says of it."""
    written: float = 0.0
    """Seconds since the epoch."""


def read_progress(run: Path) -> Progress | None:
    """Where a run is, or was when its process ended; None where nothing readable says so."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Progress(**json.loads((run / FILE).read_text(encoding="utf-8")))
    return None


class Display:
    """Shows stages. `quiet` shows nothing; only the primary host shows anything."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False):
        self.console = console or Console(stderr=True)
        self._quiet = quiet
        self._run: Path | None = None
        self._progress = Progress()
        self._to_come: float | None = None

    def note(self, text: str) -> None:
        """One line that stays."""
        if not self._quiet:
            self.console.print(Text(text), soft_wrap=True)

    def run_begins(self, run: Path, configuration: str) -> None:
        """From now on it is written down in a run's directory where it is."""
        self._run, self._progress = run, Progress(configuration=configuration)

    def stage_begins(self, directory: str, number: int, of: int, to_come: float | None) -> None:
        """The so-manieth stage of so many begins; those after it are known to take at least so many seconds (None: nothing is known)."""
        self._progress = dataclasses.replace(self._progress, directory=directory, number=number, of=of)
        self._to_come = to_come
        self._write(directory)

    @contextlib.contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        """The work of a stage: `total` units, of which `done` were done before."""
        numbered = f"[{self._progress.number}/{self._progress.of}] {title}" if self._progress.of else title
        if self._quiet:
            yield _Work(numbered, total, done, self._to_come, self._write)
        elif self.console.is_terminal:
            with _TwoLines(console=self.console, transient=True) as bars:
                yield _Bar(bars, numbered, total, done, self._to_come, self._write)
        else:
            yield _Lines(self.console, numbered, total, done, self._to_come, self._write)

    def _write(self, words: str) -> None:
        if self._run is not None:
            now = dataclasses.replace(self._progress, words=words, written=time.time())
            with contextlib.suppress(OSError):  # a full disk is told by what matters
                write_whole(self._run / FILE, json.dumps(dataclasses.asdict(now)) + "\n")


class _Work:
    """What is known of a stage's work; shows nothing."""

    def __init__(self, title: str, total: int, done: int, to_come: float | None, write: Any):
        self.title, self.total, self.done = title, total, done
        self._to_come, self._write, self._written = to_come, write, 0.0
        self._first: tuple[float, int] | None = None  # the rate is taken from the first unit on: before it, programs compile
        self._tokens, self._asked_seconds, self._asking_since = 0, 0.0, None
        self.now, self.steps, self.facts = "", "", {}

    # As the stage says it.

    _asking_since: float | None
    facts: dict[str, float | str]

    def advance(self, done: int = 1, *, tokens: int = 0, **facts: float | str) -> None:
        self.done += done
        self.facts |= facts
        now = time.monotonic()
        if self._first is None and done:
            self._first = (now, self.done)
            self._asking_since = now if self.now == ASKING else None
        elif self._first is not None:
            self._tokens += tokens
        self.show()
        if now - self._written >= FILE_EVERY:
            self._written = now
            self._write(self.words)

    def phase(self, name: str) -> None:
        now = time.monotonic()
        if self._asking_since is not None:
            self._asked_seconds += now - self._asking_since
        self._asking_since = now if name == ASKING and self._first is not None else None
        self.now = name
        self.show()

    def step(self, number: int, of: int, facts: Mapping[str, Any]) -> None:
        self.steps = f"step {number}/{of}"
        self.facts |= {label: facts[name] for name, label in STEP_FACTS.items() if facts.get(name) is not None}
        self._write(self.words)

    # As people read it.

    @property
    def left(self) -> float | None:
        """Seconds that the stage is going to take at its rate so far."""
        if self._first is None or self.done <= self._first[1]:
            return None
        since, before = self._first
        return (time.monotonic() - since) / (self.done - before) * max(self.total - self.done, 0)

    @property
    def rate(self) -> float | None:
        """Tokens a second, while asking."""
        seconds = self._asked_seconds + (time.monotonic() - self._asking_since if self._asking_since is not None else 0.0)
        return self._tokens / seconds if seconds > 1 and self._tokens else None

    @property
    def details(self) -> str:
        """All but the title and the count."""
        parts = [self.now, self.steps, *(f"{name} {_short(value)}" for name, value in self.facts.items())]
        parts += [f"{self.rate:,.0f} tokens/s"] if self.rate else []
        if (left := self.left) is not None:
            whole = f", the run at least {lasting(left + self._to_come)}" if self._to_come else ""
            parts.append(f"about {lasting(left)} left{whole}")
        return "  ".join(filter(None, parts))

    @property
    def words(self) -> str:
        """All of it, in one line."""
        return f"{self.title}: {self.done}/{self.total}  {self.details}".rstrip()

    def show(self) -> None:
        """Shows it, now and then."""


class _TwoLines(Bars):
    """A bar, and below it what there is to say: beside it, narrow terminals would cut it off."""

    details = ""

    def __init__(self, **settings: Any):
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, **settings)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar and its words."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self.details)


class _Bar(_Work):
    def __init__(self, bars: _TwoLines, title: str, total: int, done: int, to_come: float | None, write: Any):
        super().__init__(title, total, done, to_come, write)
        self._bars, self._id = bars, bars.add_task(title, total=total, completed=done)

    def show(self) -> None:
        self._bars.details = self.details
        self._bars.update(self._id, completed=self.done)


class _Lines(_Work):
    def __init__(self, console: Console, title: str, total: int, done: int, to_come: float | None, write: Any):
        super().__init__(title, total, done, to_come, write)
        self._console, self._shown = console, time.monotonic()
        self._ended = False

    def show(self) -> None:
        ended = self.done >= self.total and not self._ended
        if not self.steps and (time.monotonic() - self._shown >= LINE_EVERY or ended):
            self._ended = self.done >= self.total
            self._line()

    def step(self, number: int, of: int, facts: Mapping[str, Any]) -> None:
        super().step(number, of, facts)
        self._line()

    def _line(self) -> None:
        self._shown = time.monotonic()
        self._console.print(Text(f"{time.strftime('%H:%M:%S')} {self.words}"), soft_wrap=True)


def lasting(seconds: float) -> str:
    """Hours and minutes."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} m" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
