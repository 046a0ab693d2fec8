"""Where the numbers of a stage go while it works, besides its own log: a door.

`steps.jsonl` is the source of truth, always written and never late. A sink is told the same rows, one after the other, by a thread of
its own: training never waits for it, and nothing that it does can change or end a training. One that fails is tried again, from the
row that it failed on, after ever longer pauses; that it fails is said once. What it hasn't taken when the stage ends is said too, and
stands in `steps.jsonl`.

How many rows a sink has taken stands beside the log (`sinks.json`), so that a resumed stage goes on behind them: a step that was done
again after a kill, which gives the same numbers, isn't told again, and one that a sink missed is. A sink that knows better, because
what it writes to says so, has an attribute `written`.

Only the primary host has sinks.
"""

import dataclasses
import importlib.util
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxpolya.doors import bring, check_call, is_reference
from jaxpolya.errors import ConfigError, MachineError
from jaxpolya.files import write_whole
from jaxpolya.train import trackers

KEY = "log"
FILE = "sinks.json"
"""In a stage's directory: its id, and how many rows each sink has taken."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a sink that failed is tried again; the pause doubles each time."""

GRACE = 30.0
"""Seconds that the end of a stage waits for its sinks."""

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class LoggedStage:
    """The stage that a sink is opened for."""

    run: str
    """The run's name."""
    name: str
    """The stage's, such as `rl-polya`; `eval-base-sums` is the arm `base` on the question set `sums`."""
    directory: Path
    """Its files; a sink may have some there. What is there stays there when the stage is resumed."""
    id: str
    """A random one, the same whenever the stage is resumed."""
    settings: Mapping[str, Any]
    """The run's configuration, as plain values."""


class Sink(Protocol):
    """Takes the numbers of one stage. Its methods are called by one thread, one after the other; it may take its time.

    It may have an attribute `written`, an int: how many of the stage's rows, from the first, it holds already. It is then told those
    behind them, whatever `sinks.json` says: 0 is told all rows at every start.
    """

    def write(self, step: int, facts: Mapping[str, float]) -> None:
        """Takes the numbers of a step, counted from 0; an evaluation has one step, 0. If it raises, it is told the same step again."""

    def close(self) -> None:
        """The stage has ended, well or not. No `write` follows; a resumed stage opens a sink of its own."""


OpenSink = Callable[[LoggedStage], Sink]
"""What `log: [module:attribute]` names: a class, or a function."""

BUILT_IN: dict[str, OpenSink] = {
    "tensorboard": trackers.TensorBoard,
    "wandb": trackers.WeightsAndBiases,
    "trackio": trackers.Trackio,
}
"""By the names of `RunConfig.log`."""


def make_sinks(names: Sequence[str]) -> dict[str, OpenSink]:
    """What opens each of the sinks that a configuration names.

    Raises:
      MachineError: the package of one that is built in is not installed.
      ConfigError: one of a user's own can't be found, or can't be a sink.
    """
    return {name: _own(name) if is_reference(name) else _built_in(name) for name in names}


def _built_in(name: str) -> OpenSink:
    package = trackers.PACKAGES[name]
    if importlib.util.find_spec(package) is None:
        raise MachineError(f'{KEY}: {name} needs the package {package}, which is not installed: pip install "jaxpolya[{name}]"')
    return BUILT_IN[name]


def _own(name: str) -> OpenSink:
    plugin = bring(name, KEY)
    where = f"{KEY}: {plugin.name}"
    check_call(plugin.value, ("stage",), where)
    if isinstance(plugin.value, type):
        _check_methods(plugin.value, where, ("self",))
    return plugin.value


def _check_methods(sink: Any, where: str, first: tuple[str, ...] = ()) -> None:
    """Raises `ConfigError` where a sink, or its class (then `first` is `self`), hasn't the methods of one."""
    for method, arguments in (("write", ("step", "facts")), ("close", ())):
        if not hasattr(sink, method):
            raise ConfigError(f"{where} has no {method}: a sink has write(step, facts) and close()")
        check_call(getattr(sink, method), first + arguments, f"{where}.{method}")


def numbers(row: Row) -> dict[str, float]:
    """What sinks are told of a row: its numbers, those of a mapping in it as `name/…`. `step` and the audit's counts are left out."""
    flat: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping) and name != "audit":
            flat |= {f"{name}/{inner}": number for inner, number in numbers(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            flat[name] = float(value)
    return flat


class Sinks:
    """The sinks of one stage. None at all where nothing is logged elsewhere, and on hosts other than the primary one."""

    def __init__(self, stage: LoggedStage | None = None, named: Mapping[str, OpenSink] | None = None, note: Callable[[str], None] = print):
        """stage: whose numbers they are. named: what `make_sinks` gives. note: is told, in a sentence, that a sink fails."""
        self._rows: list[Row] = []
        self._feeds: list[_Feed] = []
        if stage is not None and named:
            taken = SinkProgress(stage.directory)
            self._feeds = [_Feed(name, open_sink, stage, self._rows, taken, note) for name, open_sink in named.items()]

    def write(self, *rows: Row) -> None:
        """Hands on the next rows, the first being the stage's first; returns at once."""
        self._rows += rows
        for feed in self._feeds:
            feed.wake()

    def close(self) -> None:
        """Waits until the sinks have taken what is on its way and are closed, for `GRACE` seconds at most."""
        until = time.monotonic() + GRACE
        for feed in self._feeds:
            feed.end()
        for feed in self._feeds:
            feed.wait(until)


class SinkProgress:
    """`sinks.json` of a stage: its id, and how many rows each sink has taken, across starts."""

    def __init__(self, directory: Path):
        """Reads the file; where there is none, or a damaged one, the stage gets a new id and its sinks begin anew."""
        self._path, self._lock = directory / FILE, threading.Lock()
        try:
            held = json.loads(self._path.read_text(encoding="utf-8"))
            self.id, self._rows = str(held["id"]), {str(name): int(rows) for name, rows in held["rows"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.id, self._rows = uuid.uuid4().hex[:12], {}
            self._write()

    def __getitem__(self, name: str) -> int:
        return self._rows.get(name, 0)

    def __setitem__(self, name: str, rows: int) -> None:
        with self._lock:
            self._rows[name] = rows
            self._write()

    def _write(self) -> None:
        write_whole(self._path, json.dumps({"id": self.id, "rows": self._rows}))


class _Feed:
    """One sink, and the thread that opens it, tells it the rows and closes it."""

    def __init__(
        self, name: str, open_sink: OpenSink, stage: LoggedStage, rows: Sequence[Row], taken: SinkProgress, note: Callable[[str], None]
    ):
        self._name, self._open_sink, self._stage, self._rows, self._taken, self._note = name, open_sink, stage, rows, taken, note
        self._next, self._warned = taken[name], False
        self._changed, self._ended = threading.Condition(), False
        # A daemon: a sink that hangs for ever must not keep a program that is through.
        self._thread = threading.Thread(target=self._run, name=f"sink {name} of {stage.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There are more rows."""
        with self._changed:
            self._changed.notify()

    def end(self) -> None:
        """There will be no more."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def wait(self, until: float) -> None:
        """Returns when the sink is closed, or at a time of the monotonic clock. Says what it hasn't taken."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if missing := len(self._rows) - self._next:
            self._note(
                f"warning: log: {self._name} hasn't taken the last {missing} of {len(self._rows)} steps of {self._stage.name}; they stand "
                f"in {self._stage.directory}"
            )
        elif self._thread.is_alive():
            self._note(f"warning: log: {self._name} is still busy with {self._stage.name} after {GRACE:.0f} s and is left to itself")

    def _run(self) -> None:
        sink, pause = None, FIRST_PAUSE
        while self._has_more():
            try:
                sink = sink or self._opened()
                self._tell(sink)
                pause = FIRST_PAUSE
            except Exception as error:
                self._fails(error)
                if self._ended:
                    break
                with self._changed:
                    self._changed.wait_for(lambda: self._ended, pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        if sink is not None:
            try:
                sink.close()
            except Exception as error:
                self._fails(error)

    def _has_more(self) -> bool:
        """Waits for a row that the sink hasn't taken; False when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._next < len(self._rows))
        return self._next < len(self._rows)

    def _opened(self) -> Sink:
        sink = self._open_sink(self._stage)
        _check_methods(sink, f"{KEY}: {self._name}")
        self._next = getattr(sink, "written", self._next)
        return sink

    def _tell(self, sink: Sink) -> None:
        while self._next < len(self._rows):
            row = self._rows[self._next]
            sink.write(int(row["step"]), numbers(row))
            self._next += 1
            self._taken[self._name] = self._next

    def _fails(self, error: Exception) -> None:
        if not self._warned:
            self._note(
                f"warning: log: {self._name} fails at {self._stage.name}: {type(error).__name__}: {error}. The run goes on, and the sink "
                "is tried again; this is said once"
            )
        self._warned = True
